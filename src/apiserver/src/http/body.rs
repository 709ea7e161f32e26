//! Request bodies: read within a limit and within a time.

use std::time::Duration;

use axum::body::Body;
use barque_api::StatusError;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::pipeline::too_large;

/// Why a body could not be had.
pub(super) enum BodyError {
    /// The client is told, and may go on using the connection if it can.
    Refused(StatusError),
    /// It did not come in time, or broke off: 408, and the connection ends.
    TimedOut,
}

/// What is read and thrown away of a body that is too large, in multiples of
/// the limit: a client that is still sending does not look at the answer, and
/// an HTTP/2 stream that is reset under it may lose the answer altogether.
const DISCARDED_LIMITS: usize = 4;

/// Longest pause of a client whose body is being thrown away.
const DISCARD_PAUSE: Duration = Duration::from_millis(250);

/// Reads a whole body.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize, timeout: Duration) -> Result<Bytes, BodyError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    let mut body = body;
    let reading = async {
        if declared.is_none_or(|length| length <= limit) {
            match Limited::new(&mut body, limit).collect().await {
                Ok(collected) => return Ok(collected.to_bytes()),
                Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {}
                Err(_) => return Err(BodyError::TimedOut),
            }
        }
        let mut room = limit.saturating_mul(DISCARDED_LIMITS);
        // One that sends nothing (it waits for a 100, say) is answered soon.
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(DISCARD_PAUSE, body.frame()).await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(left) = room.checked_sub(bytes) else { break };
            room = left;
        }
        Err(BodyError::Refused(too_large(limit)))
    };
    tokio::time::timeout(timeout, reading).await.unwrap_or(Err(BodyError::TimedOut))
}
