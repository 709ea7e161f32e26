//! The one place that knows how our own envelopes look in bytes: bincode
//! behind a format-version byte, with a size limit. Kubernetes types never
//! pass through here, only their finished JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of the format that is written.
pub const FORMAT_VERSION: u8 = 1;

/// Largest envelope that is read, in bytes.
pub const MAX_ENVELOPE_BYTES: usize = 256 << 20;

/// Why an envelope cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// No bytes at all.
    #[error("the envelope is empty")]
    Empty,
    /// Written by a newer version.
    #[error("format version {0} is unknown to this version")]
    UnknownVersion(u8),
    /// Larger than [`MAX_ENVELOPE_BYTES`].
    #[error("the envelope has {0} bytes, over the limit")]
    TooLarge(usize),
    /// Damaged, or not what was expected.
    #[error("the envelope cannot be decoded")]
    Malformed(#[source] bincode::error::DecodeError),
    /// Bytes follow after the value.
    #[error("{0} bytes follow after the value")]
    TrailingBytes(usize),
}

fn configuration() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_ENVELOPE_BYTES>()
}

/// Encodes a value behind the format-version byte.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = vec![FORMAT_VERSION];
    bincode::serde::encode_into_std_write(value, &mut out, bincode::config::standard())
        .expect("our envelopes hold only types that always encode");
    out
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// When the bytes are of an unknown version, damaged, or too many.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != FORMAT_VERSION {
        return Err(CodecError::UnknownVersion(*version));
    }
    if rest.len() > MAX_ENVELOPE_BYTES {
        return Err(CodecError::TooLarge(rest.len()));
    }
    let (value, used) = bincode::serde::decode_from_slice(rest, configuration()).map_err(CodecError::Malformed)?;
    if used != rest.len() {
        return Err(CodecError::TrailingBytes(rest.len() - used));
    }
    Ok(value)
}
