//! Reading a watch, event by event.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde_json::Value;

use crate::client::{ClientError, revision};

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub kind: String,
    /// The object, or the Status of an ERROR.
    pub object: Value,
}

impl Event {
    /// Name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Revision of the object.
    #[must_use]
    pub fn revision(&self) -> u64 {
        revision(&self.object)
    }
}

/// An open watch; dropping it closes the connection.
pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
    /// So many bytes of the buffer hold no end of line.
    scanned: usize,
    _connection: SendRequest<Full<Bytes>>,
}

impl Watch {
    pub(crate) fn new(body: Incoming, connection: SendRequest<Full<Bytes>>) -> Self {
        Self { body, buffer: BytesMut::new(), scanned: 0, _connection: connection }
    }

    /// The next event; `Ok(None)` when the server ended the watch in order.
    ///
    /// # Errors
    /// When the connection breaks, or something else than events comes.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        self.next_line().await?.map(|line| parse(&line)).transpose()
    }

    /// The next event as it came over the wire.
    ///
    /// Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next_line(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.scanned + end + 1).freeze();
                self.scanned = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len();
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(broken("ended in the middle of an event")),
                Some(Err(error)) => return Err(broken(&error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// The next event within a deadline.
    ///
    /// # Panics
    /// When none comes.
    pub async fn expect(&mut self, deadline: Duration) -> Event {
        match tokio::time::timeout(deadline, self.next()).await {
            Ok(Ok(Some(event))) => event,
            Ok(Ok(None)) => panic!("the watch was ended, an event was expected"),
            Ok(Err(error)) => panic!("the watch broke, an event was expected: {error}"),
            Err(tokio::time::error::Elapsed { .. }) => panic!("no event within {}s", deadline.as_secs()),
        }
    }

    /// Reads on until an event satisfies the condition; returns all read,
    /// this one last.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn until(&mut self, deadline: Duration, mut condition: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        loop {
            let event = self.expect(deadline).await;
            let done = condition(&event);
            seen.push(event);
            if done {
                return seen;
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Event, ClientError> {
    let mut value: Value =
        serde_json::from_slice(line).map_err(|error| broken(&format!("{error}: {}", String::from_utf8_lossy(line))))?;
    let kind = value["type"].as_str().unwrap_or_default().to_owned();
    Ok(Event { kind, object: value["object"].take() })
}

fn broken(reason: &str) -> ClientError {
    ClientError { sent: true, reason: format!("watch: {reason}") }
}
