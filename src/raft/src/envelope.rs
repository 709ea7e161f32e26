//! Sealed values: every value in our databases starts with a CRC-32C over its
//! key and its content, so that neither damage nor a misplaced value goes
//! unseen.

use barque_store::codec::{self, CodecError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a stored value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Too short to hold a checksum.
    #[error("the value has only {0} bytes")]
    Short(usize),
    /// The content is not what was written.
    #[error("the checksum does not match")]
    Checksum,
    /// It is encrypted under a key that is not in the ring.
    #[error("it is encrypted under key {0}, which this replica was not given")]
    UnknownKey(String),
    /// The content is not what was encrypted here.
    #[error("the content cannot be decrypted")]
    Encryption,
    /// The content cannot be decoded.
    #[error("the content cannot be decoded")]
    Codec(#[from] CodecError),
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), content)
}

/// Encodes a value for storage under a key.
#[must_use]
pub fn seal<T: Serialize>(key: &[u8], value: &T) -> Vec<u8> {
    seal_content(key, &codec::encode(value))
}

/// Seals what is encoded already.
pub(crate) fn seal_content(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 4);
    out.extend_from_slice(&checksum(key, content).to_le_bytes());
    out.extend_from_slice(content);
    out
}

/// Checks and decodes a stored value.
///
/// # Errors
/// When it is damaged, belongs to another key, or is of an unknown version.
pub fn open<T: DeserializeOwned>(key: &[u8], stored: &[u8]) -> Result<T, EnvelopeError> {
    Ok(codec::decode(content(key, stored)?)?)
}

/// The checked content of a stored value.
pub(crate) fn content<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], EnvelopeError> {
    let (sum, content) = stored.split_first_chunk::<4>().ok_or(EnvelopeError::Short(stored.len()))?;
    if u32::from_le_bytes(*sum) != checksum(key, content) {
        return Err(EnvelopeError::Checksum);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_whole_and_under_its_key() {
        let sealed = seal(b"key", &(7u64, "seven".to_owned()));
        assert_eq!(open::<(u64, String)>(b"key", &sealed).expect("intact"), (7, "seven".to_owned()));
        assert!(matches!(open::<(u64, String)>(b"kez", &sealed), Err(EnvelopeError::Checksum)));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 0x10;
            assert!(open::<(u64, String)>(b"key", &damaged).is_err(), "a flip at {at} went unseen");
            assert!(open::<(u64, String)>(b"key", &sealed[..at]).is_err(), "a cut at {at} went unseen");
        }
    }
}
