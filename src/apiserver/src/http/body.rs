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

/// Reads a whole body.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize, timeout: Duration) -> Result<Bytes, BodyError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(BodyError::Refused(too_large(limit)));
    }
    match tokio::time::timeout(timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(BodyError::Refused(too_large(limit)))
        }
        Ok(Err(_)) | Err(_) => Err(BodyError::TimedOut),
    }
}
