//! The server's side of SPDY/3.1, as `kubectl` and client-go use it: the
//! client opens streams, each with a few headers; bytes flow both ways; there
//! is no flow control but TCP's.
//!
//! Protocol: SPDY draft 3.1; what of it is used: `github.com/moby/spdystream`.

mod headers;

use std::collections::HashMap;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

pub(super) use headers::Headers;
use headers::{Deflater, Inflater};

/// Longest frame, in bytes.
const MAX_FRAME: usize = 1 << 20;
/// Longest data frame that is sent.
const MAX_SENT: usize = 32 << 10;
/// Streams of one connection at once.
const MAX_STREAMS: usize = 512;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;

/// What the client does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It opens a stream.
    Opened { stream: u32, headers: Headers },
    /// It sends bytes.
    Data { stream: u32, bytes: Bytes },
    /// It will send no more on a stream.
    Finished { stream: u32 },
    /// It wants no more of a stream.
    Reset { stream: u32 },
    /// To be answered with the frame.
    Ping(Bytes),
    /// It is gone, or going.
    Gone,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {why}"))
}

/// Reads frames.
pub(super) struct Reader<R> {
    inner: R,
    inflater: Inflater,
    /// Streams that are open, and whether the client has finished them.
    streams: HashMap<u32, bool>,
    /// An event that goes with the one before it.
    next: Option<Event>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, inflater: Inflater::new(), streams: HashMap::new(), next: None }
    }

    /// The connection below.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// The next event; `Gone` at the end of the connection.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        if let Some(event) = self.next.take() {
            return Ok(event);
        }
        loop {
            let mut head = [0; 8];
            match self.inner.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Event::Gone),
                Err(error) => return Err(error),
            }
            let flags = head[4];
            let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
            if length > MAX_FRAME {
                return Err(invalid("a frame is too large"));
            }
            let mut payload = BytesMut::zeroed(length);
            self.inner.read_exact(&mut payload).await?;
            let payload = payload.freeze();
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let event = if first & 0x8000_0000 == 0 {
                self.data(first, flags, payload)
            } else {
                if (first >> 16) as u16 & 0x7fff != VERSION {
                    return Err(invalid("another version is spoken"));
                }
                self.control(first as u16, flags, payload)?
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    fn data(&mut self, stream: u32, flags: u8, bytes: Bytes) -> Option<Event> {
        let finished = self.streams.get_mut(&stream).filter(|finished| !**finished)?;
        if flags & FLAG_FIN == 0 {
            return Some(Event::Data { stream, bytes });
        }
        *finished = true;
        if bytes.is_empty() {
            return Some(Event::Finished { stream });
        }
        self.next = Some(Event::Finished { stream });
        Some(Event::Data { stream, bytes })
    }

    fn control(&mut self, kind: u16, flags: u8, payload: Bytes) -> io::Result<Option<Event>> {
        let id = |payload: &[u8]| {
            let head = payload.first_chunk::<4>().ok_or_else(|| invalid("a frame is cut off"))?;
            Ok::<u32, io::Error>(u32::from_be_bytes(*head) & 0x7fff_ffff)
        };
        Ok(match kind {
            SYN_STREAM => {
                let stream = id(&payload)?;
                let block = payload.get(10..).ok_or_else(|| invalid("a frame is cut off"))?;
                // Also of streams that are refused: the blocks are one stream.
                let headers = self.inflater.block(block)?;
                if self.streams.len() >= MAX_STREAMS {
                    return Err(invalid("there are too many streams"));
                }
                let finished = flags & FLAG_FIN != 0;
                if stream % 2 == 0 || self.streams.insert(stream, finished).is_some() {
                    return Err(invalid("a stream has an id that it cannot have"));
                }
                if finished {
                    self.next = Some(Event::Finished { stream });
                }
                Some(Event::Opened { stream, headers })
            }
            RST_STREAM => {
                let stream = id(&payload)?;
                self.streams.remove(&stream).map(|_| Event::Reset { stream })
            }
            PING => {
                let mut frame = control(PING, 0, payload.len());
                frame.put_slice(&payload);
                Some(Event::Ping(frame.freeze()))
            }
            GOAWAY => Some(Event::Gone),
            // SETTINGS, HEADERS and WINDOW_UPDATE mean nothing here.
            _ => None,
        })
    }

    /// Forgets a stream that both sides are done with.
    pub(super) fn forget(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }
}

fn control(kind: u16, flags: u8, length: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(8 + length);
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
    out
}

/// Makes the server's frames.
#[derive(Default)]
pub(super) struct Writer {
    deflater: Deflater,
}

impl Writer {
    /// Accepts a stream.
    pub(super) fn accept(&mut self, stream: u32) -> Bytes {
        let block = self.deflater.block(&[]);
        let mut out = control(SYN_REPLY, 0, 4 + block.len());
        out.put_u32(stream);
        out.put_slice(&block);
        out.freeze()
    }
}

/// Bytes of the server on a stream.
pub(super) fn data(stream: u32, bytes: &[u8]) -> Bytes {
    let parts = bytes.len().div_ceil(MAX_SENT).max(1);
    let mut out = BytesMut::with_capacity(bytes.len() + 8 * parts);
    for part in bytes.chunks(MAX_SENT) {
        out.put_u32(stream);
        out.put_u32(part.len() as u32);
        out.put_slice(part);
    }
    out.freeze()
}

/// The server will send no more on a stream.
pub(super) fn finish(stream: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(8);
    out.put_u32(stream);
    out.put_u32(u32::from(FLAG_FIN) << 24);
    out.freeze()
}

/// The server wants no more of a stream.
pub(super) fn reset(stream: u32) -> Bytes {
    const CANCEL: u32 = 5;
    let mut out = control(RST_STREAM, 0, 8);
    out.put_u32(stream);
    out.put_u32(CANCEL);
    out.freeze()
}

/// The connection ends after `last`, and all is well.
pub(super) fn go_away(last: u32) -> Bytes {
    let mut out = control(GOAWAY, 0, 8);
    out.put_u32(last);
    out.put_u32(0);
    out.freeze()
}

#[cfg(test)]
pub(super) mod client {
    //! What a client sends, for tests.
    use super::*;

    #[derive(Default)]
    pub(in crate::http::stream) struct Client {
        deflater: Deflater,
    }

    impl Client {
        pub(in crate::http::stream) fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Bytes {
            let block = self.deflater.block(headers);
            let mut out = control(SYN_STREAM, 0, 10 + block.len());
            out.put_u32(stream);
            out.put_slice(&[0; 6]);
            out.put_slice(&block);
            out.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_open_flow_and_end() {
        let mut client = client::Client::default();
        let mut ping = control(PING, 0, 4);
        ping.put_u32(9);
        let wire = [
            client.open(1, &[("streamType", "data")]),
            data(1, b"hello"),
            data(7, b"a stream that nobody opened"),
            ping.clone().freeze(),
            finish(1),
            data(1, b"after the end"),
            client.open(3, &[]),
            reset(3),
            go_away(3),
        ]
        .concat();
        let mut reader = Reader::new(&wire[..]);
        let opened = Event::Opened { stream: 1, headers: vec![("streamtype".to_owned(), "data".to_owned())] };
        for expected in [
            opened,
            Event::Data { stream: 1, bytes: Bytes::from_static(b"hello") },
            Event::Ping(ping.freeze()),
            Event::Finished { stream: 1 },
            Event::Opened { stream: 3, headers: Vec::new() },
            Event::Reset { stream: 3 },
            Event::Gone,
            Event::Gone,
        ] {
            assert_eq!(reader.next().await.expect("an event"), expected);
        }
    }

    #[tokio::test]
    async fn bad_frames_end_the_connection() {
        let mut client = client::Client::default();
        let twice = [client.open(1, &[]), client.open(1, &[])].concat();
        let mut reader = Reader::new(&twice[..]);
        reader.next().await.expect("the first");
        assert!(reader.next().await.is_err());
        for bad in
            [&[0x80, 2, 0, 1, 0, 0, 0, 0][..], &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff], &[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0]]
        {
            assert!(Reader::new(bad).next().await.is_err(), "{bad:?}");
        }
        let mut deflater = Writer::default();
        assert_eq!(&deflater.accept(1)[..8], &[0x80, 3, 0, 2, 0, 0, 0, 20][..]);
    }
}
