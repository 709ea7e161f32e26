//! Header blocks of SPDY/3: pairs of names and values in one zlib stream per
//! direction, which begins with a dictionary that both sides know.
//!
//! The client's stream is inflated with the dictionary in its window. Ours
//! consists of stored blocks: valid, and nothing to get wrong.

use std::io;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Words of the dictionary that stand in it with their length in front.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// What follows them.
const TAIL: &str = concat!(
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505",
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized",
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable",
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT",
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,",
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
);
/// Window of the inflater; a power of two, at least that of zlib.
const WINDOW: usize = 64 << 10;
/// Bytes of one inflated block.
const MAX_BLOCK: usize = 32 << 10;
/// Pairs in one block.
const MAX_PAIRS: u32 = 64;
/// zlib's flag for a preset dictionary, in its second byte.
const HAS_DICTIONARY: u8 = 0x20;

/// Names and values.
pub(in crate::http::stream) type Headers = Vec<(String, String)>;

fn dictionary() -> Vec<u8> {
    let mut all = Vec::with_capacity(1423);
    for word in WORDS {
        all.extend_from_slice(&(word.len() as u32).to_be_bytes());
        all.extend_from_slice(word.as_bytes());
    }
    all.extend_from_slice(TAIL.as_bytes());
    all
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {why}"))
}

/// Inflates the blocks of one connection, in their order.
pub(super) struct Inflater {
    state: Box<DecompressorOxide>,
    window: Vec<u8>,
    at: usize,
    begun: bool,
}

impl Inflater {
    pub(super) fn new() -> Self {
        let mut window = dictionary();
        let at = window.len();
        window.resize(WINDOW, 0);
        Self { state: Box::default(), window, at, begun: false }
    }

    /// The headers of one block.
    pub(super) fn block(&mut self, bytes: &[u8]) -> io::Result<Headers> {
        let mut input = bytes;
        if !self.begun {
            // The zlib header; what follows is inflated without it.
            let flags = *input.get(1).ok_or_else(|| invalid("a header block is empty"))?;
            let skip = if flags & HAS_DICTIONARY == 0 { 2 } else { 6 };
            input = input.get(skip..).ok_or_else(|| invalid("a header block is too short"))?;
            self.begun = true;
        }
        let mut out = Vec::new();
        loop {
            let (status, used, made) =
                decompress(&mut self.state, input, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
            out.extend_from_slice(&self.window[self.at..self.at + made]);
            self.at = (self.at + made) % WINDOW;
            input = &input[used..];
            if out.len() > MAX_BLOCK {
                return Err(invalid("a header block is too large"));
            }
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput if input.is_empty() => return parse(&out),
                TINFLStatus::NeedsMoreInput if used > 0 || made > 0 => {}
                _ => return Err(invalid("a header block cannot be inflated")),
            }
        }
    }
}

fn parse(block: &[u8]) -> io::Result<Headers> {
    let mut rest = block;
    let count = number(&mut rest)?;
    if count > MAX_PAIRS {
        return Err(invalid("there are too many headers"));
    }
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = text(&mut rest)?.to_ascii_lowercase();
        headers.push((name, text(&mut rest)?));
    }
    Ok(headers)
}

fn number(rest: &mut &[u8]) -> io::Result<u32> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(|| invalid("a header block is cut off"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn text(rest: &mut &[u8]) -> io::Result<String> {
    let length = number(rest)? as usize;
    let (text, tail) = rest.split_at_checked(length).ok_or_else(|| invalid("a header block is cut off"))?;
    *rest = tail;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Writes the blocks of one connection.
#[derive(Default)]
pub(super) struct Deflater {
    begun: bool,
}

impl Deflater {
    pub(super) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 12);
        if !self.begun {
            out.extend_from_slice(&[0x78, 0x01]);
            self.begun = true;
        }
        for part in plain.chunks(usize::from(u16::MAX)) {
            stored(part, &mut out);
        }
        // An empty block: all before it is to be used at once.
        stored(&[], &mut out);
        out
    }
}

fn stored(part: &[u8], out: &mut Vec<u8>) {
    let length = part.len() as u16;
    out.push(0);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adler32(bytes: &[u8]) -> u32 {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in bytes {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        (b << 16) | a
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        let dictionary = dictionary();
        assert_eq!((dictionary.len(), adler32(&dictionary)), (1423, 0xe3c6_a7c2));
    }

    /// Two blocks as zlib writes them (`compressobj(zdict=...)`, level 9,
    /// each ended by a sync flush): the second refers to the first.
    const ZLIB_BLOCKS: [&str; 2] = [
        "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45e01c6061606180b5e462323402000000ffff",
        "c26a04a8344a24d60400000000ffff",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
    }

    #[test]
    fn blocks_of_a_real_compressor_are_understood() {
        let mut inflater = Inflater::new();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            inflater.block(&bytes(ZLIB_BLOCKS[0])).expect("inflates"),
            [pair("streamtype", "error"), pair("port", "8080"), pair("content-length", "12")]
        );
        assert_eq!(
            inflater.block(&bytes(ZLIB_BLOCKS[1])).expect("inflates"),
            [pair("streamtype", "data"), pair("port", "8080"), pair("content-length", "12")]
        );
        assert!(Inflater::new().block(&[0x78, 0xbb, 0, 0, 0, 0, 0xff, 0xff]).is_err());
        assert!(Inflater::new().block(&[]).is_err());
    }

    #[test]
    fn what_is_written_can_be_read() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::new());
        for value in ["a", &"b".repeat(20_000)] {
            let block = deflater.block(&[("name", value)]);
            assert_eq!(inflater.block(&block).expect("inflates"), [("name".to_owned(), value.to_owned())]);
        }
    }
}
