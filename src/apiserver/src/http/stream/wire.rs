//! The ways in which a client speaks to a container: WebSocket with channels,
//! SPDY/3.1 with streams, and SPDY within a WebSocket. This module turns the
//! client's connection into events, and answers into frames.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::container::ToContainer;
use super::websocket::{self, Message, Opcode};

/// Frames that wait to be written, at most.
const MAX_WAITING: usize = 64;
/// Bytes between a WebSocket and the SPDY within.
const TUNNEL_BYTES: usize = 64 << 10;
/// Bytes of one message of a tunnel.
const TUNNEL_CHUNK: usize = 32 << 10;
/// How long the last frames may take, and how long the client may take to
/// close after them.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client's connection.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Channels of a container's streams, by their WebSocket numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    Error = 3,
    Resize = 4,
}

/// Number of the message with which version 5 closes a channel.
const CLOSE_CHANNEL: u8 = 255;

/// Frames on their way to the client, written by one task in order.
#[derive(Clone)]
pub(super) struct Out(mpsc::Sender<Bytes>);

impl Out {
    /// Starts the writer. The handle ends when all senders are gone and
    /// everything is written and the connection is shut down.
    pub(super) fn start<W: AsyncWrite + Send + Unpin + 'static>(mut writer: W) -> (Self, JoinHandle<io::Result<()>>) {
        let (sender, mut frames) = mpsc::channel::<Bytes>(MAX_WAITING);
        let task = tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                writer.write_all(&frame).await?;
                if frames.is_empty() {
                    writer.flush().await?;
                }
            }
            writer.flush().await?;
            writer.shutdown().await
        });
        (Self(sender), task)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) async fn send(&self, frame: Bytes) -> Result<(), Gone> {
        self.0.send(frame).await.map_err(|_| Gone)
    }
}

/// The client is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// Waits until all is written and the client has closed, but not for long.
pub(super) async fn close<R: AsyncRead + Unpin>(out: Out, writing: JoinHandle<io::Result<()>>, mut reader: R) {
    drop(out);
    let closing = async {
        if matches!(writing.await, Ok(Ok(()))) {
            let mut rest = [0; 1024];
            while matches!(reader.read(&mut rest).await, Ok(read) if read > 0) {}
        }
    };
    // Whoever does not close by then is cut off.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

/// How channels are written in a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channels {
    pub version: u8,
    pub base64: bool,
}

impl Channels {
    /// The first of a client's subprotocols that is spoken here, by name.
    pub(super) fn choose(offered: &[String]) -> Option<(String, Self)> {
        if offered.is_empty() {
            return Some((String::new(), Self { version: 1, base64: false }));
        }
        offered.iter().find_map(|name| {
            let (version, base64) = match name.as_str() {
                "v5.channel.k8s.io" => (5, false),
                "v4.channel.k8s.io" => (4, false),
                "v4.base64.channel.k8s.io" => (4, true),
                "channel.k8s.io" => (1, false),
                "base64.channel.k8s.io" => (1, true),
                _ => return None,
            };
            Some((name.clone(), Self { version, base64 }))
        })
    }

    /// A message of a channel.
    pub(super) fn frame(self, channel: u8, bytes: &[u8]) -> Bytes {
        if self.base64 {
            let text = format!("{}{}", char::from(b'0' + channel), STANDARD.encode(bytes));
            return websocket::encode(Opcode::Text, text.as_bytes());
        }
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(bytes);
        websocket::encode(Opcode::Binary, &message)
    }

    /// Channel and content of a message; `None` for one without a channel.
    pub(super) fn split(self, message: &Bytes) -> Option<(u8, Bytes)> {
        let channel = *message.first()?;
        let rest = message.slice(1..);
        if !self.base64 {
            return Some((channel, rest));
        }
        let channel = channel.checked_sub(b'0')?;
        Some((channel, Bytes::from(STANDARD.decode(&rest).ok()?)))
    }

    /// What a message means to a process.
    pub(super) fn input(self, message: &Bytes) -> Option<ToContainer> {
        let (channel, bytes) = self.split(message)?;
        match channel {
            0 => Some(ToContainer::Stdin(bytes)),
            4 => resize(&bytes),
            CLOSE_CHANNEL if self.version >= 5 && bytes.first() == Some(&(Lane::Stdin as u8)) => {
                Some(ToContainer::EndOfInput)
            }
            _ => None,
        }
    }
}

/// `{"Width": 80, "Height": 24}`
pub(super) fn resize(bytes: &[u8]) -> Option<ToContainer> {
    let mut sizes = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    // Only the last of several matters.
    let last = sizes.by_ref().map_while(Result::ok).last()?;
    let number = |field: &str| last[field].as_u64().and_then(|n| u16::try_from(n).ok());
    Some(ToContainer::Resize { width: number("Width")?, height: number("Height")? })
}

/// The SPDY connection within a WebSocket: what is read and written here
/// travels in binary messages.
pub(super) fn tunnel<S: Io>(socket: S) -> DuplexStream {
    let (near, far) = tokio::io::duplex(TUNNEL_BYTES);
    let (reader, writer) = tokio::io::split(socket);
    let (from, to) = tokio::io::split(far);
    let (out, writing) = Out::start(writer);
    let out = Arc::new(out);
    let incoming = tokio::spawn(unwrap(reader, to, Arc::clone(&out)));
    tokio::spawn(async move {
        wrap(from, &out).await;
        // The other direction ends when the client answers the close.
        let incoming = tokio::time::timeout(CLOSE_TIMEOUT, incoming).await;
        drop((out, incoming));
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, writing).await;
    });
    near
}

async fn unwrap<S: Io>(reader: ReadHalf<S>, mut to: WriteHalf<DuplexStream>, out: Arc<Out>) {
    let mut reader = websocket::Reader::new(reader);
    loop {
        match reader.next().await {
            Ok(Message::Data(bytes)) => {
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Ok(Message::Ping(bytes)) => {
                if out.send(websocket::encode(Opcode::Pong, &bytes)).await.is_err() {
                    return;
                }
            }
            Ok(Message::Pong) => {}
            Ok(Message::Close) | Err(_) => break,
        }
    }
    // SPDY within sees the end of its connection.
    let _ = to.shutdown().await;
}

async fn wrap(mut from: ReadHalf<DuplexStream>, out: &Out) {
    let mut chunk = vec![0; TUNNEL_CHUNK];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                if out.send(websocket::encode(Opcode::Binary, &chunk[..read])).await.is_err() {
                    return;
                }
            }
        }
    }
    // Normal closure.
    let _ = out.send(websocket::encode(Opcode::Close, &1000_u16.to_be_bytes())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_first_known_protocol_is_spoken() {
        let choose = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Channels::choose(&names).map(|(name, _)| name)
        };
        assert_eq!(choose(&[]).as_deref(), Some(""));
        assert_eq!(choose(&["v6", "v5.channel.k8s.io", "channel.k8s.io"]).as_deref(), Some("v5.channel.k8s.io"));
        assert_eq!(choose(&["nothing"]), None);
    }

    #[test]
    fn messages_belong_to_channels() {
        let (plain, old) = (Channels { version: 5, base64: false }, Channels { version: 4, base64: true });
        for (channels, message, expected) in [
            (plain, &b"\0in"[..], Some(ToContainer::Stdin(Bytes::from_static(b"in")))),
            (plain, b"\xff\0", Some(ToContainer::EndOfInput)),
            (plain, b"\x04{\"Width\":80,\"Height\":24}", Some(ToContainer::Resize { width: 80, height: 24 })),
            (plain, b"\x01out", None),
            (plain, b"", None),
            (old, b"0aW4=", Some(ToContainer::Stdin(Bytes::from_static(b"in")))),
            (old, b"0???", None),
        ] {
            assert_eq!(channels.input(&Bytes::copy_from_slice(message)), expected, "{message:?}");
        }
        assert_eq!(&plain.frame(1, b"x")[..], &[0x82, 2, 1, b'x']);
        assert_eq!(&old.frame(1, b"in")[..], &[0x81, 5, b'1', b'a', b'W', b'4', b'=']);
    }
}
