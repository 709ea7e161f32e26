//! The server's side of WebSocket (RFC 6455): the handshake, and messages over
//! an upgraded connection. No extensions are offered.

use std::io;

use aws_lc_rs::digest;
use axum::body::Body;
use barque_api::StatusError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What every key is joined with.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest message, in bytes.
const MAX_MESSAGE: usize = 8 << 20;
/// Longest control frame.
const MAX_CONTROL: usize = 125;

const KEY: &str = "sec-websocket-key";
const ACCEPT: &str = "sec-websocket-accept";
const PROTOCOL: &str = "sec-websocket-protocol";

/// The subprotocols that a client offers, in its order; `None` if it does not
/// ask for a WebSocket.
pub(super) fn offered(headers: &HeaderMap, upgrade: &HeaderValue) -> Option<Vec<String>> {
    if !upgrade.to_str().is_ok_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return None;
    }
    let values = headers.get_all(PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let list = values.flat_map(|value| value.split(',')).map(|item| item.trim().to_owned());
    Some(list.filter(|item| !item.is_empty()).collect())
}

/// The answer that turns the connection into a WebSocket.
pub(super) fn accept(headers: &HeaderMap, protocol: &str) -> Result<Response<Body>, StatusError> {
    let bad = |why: &str| StatusError::bad_request(format!("the WebSocket handshake cannot be answered: {why}"));
    if headers.get("sec-websocket-version").is_none_or(|version| version != "13") {
        return Err(bad("only version 13 is spoken"));
    }
    let key = headers.get(KEY).ok_or_else(|| bad("there is no key"))?;
    let mut text = key.as_bytes().to_vec();
    text.extend_from_slice(KEY_SUFFIX.as_bytes());
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(&STANDARD.encode(digest)).map_err(|_| bad("the key is not valid"))?;
    out.insert(ACCEPT, accept);
    if !protocol.is_empty() {
        out.insert(PROTOCOL, HeaderValue::from_str(protocol).map_err(|_| bad("the protocol is not valid"))?);
    }
    Ok(response)
}

/// What the client sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Text or binary.
    Data(Bytes),
    /// To be answered with the same bytes.
    Ping(Bytes),
    Pong,
    Close,
}

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Pong = 10,
}

/// A whole message of the server as bytes.
pub(super) fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    out.extend_from_slice(&[0x80 | opcode as u8]);
    match payload.len() {
        length @ 0..=125 => out.extend_from_slice(&[length as u8]),
        length @ 126..=0xffff => {
            out.extend_from_slice(&[126]);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.extend_from_slice(&[127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out.freeze()
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket: {why}"))
}

/// Reads messages.
pub(super) struct Reader<R> {
    inner: R,
    /// The beginning of a message in several frames.
    partial: Option<BytesMut>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, partial: None }
    }

    /// The connection below.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// The next message; `Close` at the end of the connection.
    pub(super) async fn next(&mut self) -> io::Result<Message> {
        loop {
            let mut head = [0; 2];
            match self.inner.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Message::Close),
                Err(error) => return Err(error),
            }
            let (last, opcode) = (head[0] & 0x80 != 0, head[0] & 0x0f);
            if head[0] & 0x70 != 0 {
                return Err(invalid("an extension is used that was not agreed on"));
            }
            if head[1] & 0x80 == 0 {
                return Err(invalid("a client's frame must be masked"));
            }
            let length = match head[1] & 0x7f {
                126 => usize::from(self.inner.read_u16().await?),
                127 => usize::try_from(self.inner.read_u64().await?).unwrap_or(usize::MAX),
                short => usize::from(short),
            };
            let before = self.partial.as_ref().map_or(0, BytesMut::len);
            if length.saturating_add(before) > MAX_MESSAGE || (opcode >= 8 && (length > MAX_CONTROL || !last)) {
                return Err(invalid("a frame is too large"));
            }
            let mut mask = [0; 4];
            self.inner.read_exact(&mut mask).await?;
            let mut payload = BytesMut::zeroed(length);
            self.inner.read_exact(&mut payload).await?;
            for (index, byte) in payload.iter_mut().enumerate() {
                *byte ^= mask[index % 4];
            }
            match (opcode, self.partial.take()) {
                (8, _) => return Ok(Message::Close),
                (9, partial) => {
                    self.partial = partial;
                    return Ok(Message::Ping(payload.freeze()));
                }
                (10, partial) => {
                    self.partial = partial;
                    return Ok(Message::Pong);
                }
                (1 | 2, None) if last => return Ok(Message::Data(payload.freeze())),
                (1 | 2, None) => self.partial = Some(payload),
                (0, Some(mut begun)) => {
                    begun.extend_from_slice(&payload);
                    if last {
                        return Ok(Message::Data(begun.freeze()));
                    }
                    self.partial = Some(begun);
                }
                _ => return Err(invalid("frames are out of order")),
            }
        }
    }
}

/// A client's frame, for tests.
#[cfg(test)]
pub(super) fn masked(last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut out = vec![if last { 0x80 } else { 0 } | opcode];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_the_one_of_the_standard() {
        let mut headers = HeaderMap::new();
        headers.insert(KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(accept(&headers, "").is_err());
        headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
        let response = accept(&headers, "v5.channel.k8s.io").expect("accepted");
        assert_eq!(response.headers()[ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[PROTOCOL], "v5.channel.k8s.io");
    }

    #[tokio::test]
    async fn messages_come_whole_and_bad_frames_are_refused() {
        let long = vec![b'x'; 300];
        let wire = [
            masked(true, 2, b"a"),
            masked(false, 1, b"he"),
            masked(true, 9, b"ping"),
            masked(true, 0, b"llo"),
            masked(true, 2, &long),
            masked(true, 8, b""),
        ]
        .concat();
        let mut reader = Reader::new(&wire[..]);
        for expected in [
            Message::Data(Bytes::from_static(b"a")),
            Message::Ping(Bytes::from_static(b"ping")),
            Message::Data(Bytes::from_static(b"hello")),
            Message::Data(Bytes::from(long)),
            Message::Close,
            Message::Close,
        ] {
            assert_eq!(reader.next().await.expect("a message"), expected);
        }
        for bad in [
            vec![0x82, 0x01, b'a'],
            masked(true, 0, b"a"),
            masked(false, 9, b""),
            vec![0xc2, 0x80, 0, 0, 0, 0],
            vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(Reader::new(&bad[..]).next().await.is_err(), "{bad:?}");
        }
    }
}
