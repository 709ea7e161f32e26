//! Encryption at rest. With keys, everything that holds content of objects is
//! encrypted before it reaches the databases: log entries, objects, history
//! and remembered answers, and with them the snapshots, which are copies of
//! the databases' files. Votes, indices and names of objects stay readable.
//!
//! A value is encrypted with AES-256-GCM under a key derived (HKDF-SHA256)
//! from the master key and a salt of this process, with a counter as nonce:
//! no nonce ever comes twice, however much is written. The database's key is
//! authenticated along, so that no value can be moved to another place.
//!
//! Rotation: the first key of the ring encrypts, all of them decrypt. A
//! replica that opens encrypts anew whatever is not under the first key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf};
use barque_store::codec;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;
use rand::RngExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::envelope::{self, EnvelopeError};

/// Bytes of a master key.
pub const KEY_BYTES: usize = 32;
/// Keys in one ring at most.
const MAX_KEYS: usize = 32;
/// First byte of an encrypted content, where others have their format version.
const ENCRYPTED: u8 = 0xEE;
const ID_BYTES: usize = 4;
const SALT_BYTES: usize = 12;
const COUNTER_BYTES: usize = 8;
const HEAD_BYTES: usize = 1 + ID_BYTES + SALT_BYTES + COUNTER_BYTES;
/// Derived keys kept; there is one for each process that wrote.
const MAX_DERIVED: usize = 1_024;

type KeyId = [u8; ID_BYTES];
type Salt = [u8; SALT_BYTES];

/// Why a key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// A line is not a key.
    #[error("line {0} is not the base64 form of {KEY_BYTES} bytes")]
    Line(usize),
    /// The file names no key.
    #[error("there is no key in it")]
    Empty,
    /// More than a ring holds.
    #[error("there are more than {MAX_KEYS} keys in it")]
    TooMany,
    /// The same key stands there twice.
    #[error("line {0} repeats a key")]
    Repeated(usize),
}

/// Master keys; the first one encrypts.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing(Vec<[u8; KEY_BYTES]>);

impl KeyRing {
    /// Reads keys: one in base64 on each line, the one to write with first;
    /// empty lines and lines that begin with `#` do not count.
    ///
    /// # Errors
    /// See [`KeyRingError`].
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys: Vec<[u8; KEY_BYTES]> = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = STANDARD.decode(line).map_err(|_| KeyRingError::Line(number))?;
            let key: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| KeyRingError::Line(number))?;
            if keys.contains(&key) {
                return Err(KeyRingError::Repeated(number));
            }
            keys.push(key);
        }
        match keys.len() {
            0 => Err(KeyRingError::Empty),
            1..=MAX_KEYS => Ok(Self(keys)),
            _ => Err(KeyRingError::TooMany),
        }
    }

    /// A line of a key file with a new key.
    #[must_use]
    pub fn new_line() -> String {
        let mut key = [0; KEY_BYTES];
        rand::rng().fill(&mut key);
        format!("{}\n", STANDARD.encode(key))
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

struct Keys {
    ring: HashMap<KeyId, hkdf::Prk>,
    active: KeyId,
    salt: Salt,
    writer: LessSafeKey,
    counter: AtomicU64,
    derived: RwLock<HashMap<(KeyId, Salt), Arc<LessSafeKey>>>,
}

/// See the module. Without keys nothing is encrypted; clones share the keys.
#[derive(Clone, Default)]
pub struct Vault(Option<Arc<Keys>>);

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "encrypting" } else { "not encrypting" })
    }
}

fn id_of(key: &[u8]) -> KeyId {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"barque key id");
    context.update(key);
    let mut id = KeyId::default();
    id.copy_from_slice(&context.finish().as_ref()[..ID_BYTES]);
    id
}

fn derive(key: &hkdf::Prk, salt: &Salt) -> LessSafeKey {
    let info = [b"barque storage".as_slice(), salt.as_slice()];
    let okm = key.expand(&info, &AES_256_GCM).expect("an AES-256 key is shorter than what HKDF can give");
    LessSafeKey::new(UnboundKey::from(okm))
}

fn nonce(counter: [u8; COUNTER_BYTES]) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - COUNTER_BYTES..].copy_from_slice(&counter);
    Nonce::assume_unique_for_key(bytes)
}

impl Vault {
    /// A vault with the keys of a ring.
    #[must_use]
    pub fn new(keys: &KeyRing) -> Self {
        let no_salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]);
        let ring: HashMap<KeyId, hkdf::Prk> = keys.0.iter().map(|key| (id_of(key), no_salt.extract(key))).collect();
        let Some(first) = keys.0.first() else { return Self(None) };
        let active = id_of(first);
        let mut salt = Salt::default();
        rand::rng().fill(&mut salt);
        let writer = derive(&ring[&active], &salt);
        let derived = RwLock::default();
        Self(Some(Arc::new(Keys { ring, active, salt, writer, counter: AtomicU64::new(0), derived })))
    }

    /// Encodes, encrypts and seals a value for storage under a key.
    ///
    /// # Panics
    /// Never: what is encrypted is far below the cipher's limits.
    #[must_use]
    pub fn seal<T: Serialize>(&self, key: &[u8], value: &T) -> Vec<u8> {
        match &self.0 {
            Some(keys) => envelope::seal_content(key, &keys.encrypt(key, codec::encode(value))),
            None => envelope::seal(key, value),
        }
    }

    /// Checks, decrypts and decodes a stored value.
    ///
    /// # Errors
    /// When it is damaged, under an unknown key, or of an unknown version.
    pub fn open<T: DeserializeOwned>(&self, key: &[u8], stored: &[u8]) -> Result<T, EnvelopeError> {
        let content = envelope::content(key, stored)?;
        if content.first() != Some(&ENCRYPTED) {
            return Ok(codec::decode(content)?);
        }
        Ok(codec::decode(&self.decrypt(key, content)?)?)
    }

    /// A stored value under the first key, if it is not yet.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn renew(&self, key: &[u8], stored: &[u8]) -> Result<Option<Vec<u8>>, EnvelopeError> {
        let content = envelope::content(key, stored)?;
        let encrypted = content.first() == Some(&ENCRYPTED);
        let Some(keys) = &self.0 else {
            return if encrypted { Err(EnvelopeError::UnknownKey(unknown(content))) } else { Ok(None) };
        };
        if encrypted && content.get(1..=ID_BYTES) == Some(&keys.active[..]) {
            return Ok(None);
        }
        let plain = if encrypted { self.decrypt(key, content)? } else { content.to_vec() };
        Ok(Some(envelope::seal_content(key, &keys.encrypt(key, plain))))
    }

    fn decrypt(&self, key: &[u8], content: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let (head, sealed) = content.split_at_checked(HEAD_BYTES).ok_or(EnvelopeError::Short(content.len()))?;
        let (id, rest) = head[1..].split_at(ID_BYTES);
        let (salt, counter) = rest.split_at(SALT_BYTES);
        let id: KeyId = id.try_into().expect("split there");
        let salt: Salt = salt.try_into().expect("split there");
        let counter: [u8; COUNTER_BYTES] = counter.try_into().expect("split there");
        let reader = self.0.as_ref().and_then(|keys| keys.reader(id, salt));
        let reader = reader.ok_or_else(|| EnvelopeError::UnknownKey(unknown(content)))?;
        let mut plain = sealed.to_vec();
        let length = reader
            .open_in_place(nonce(counter), Aad::from(key), &mut plain)
            .map_err(|_| EnvelopeError::Encryption)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

fn unknown(content: &[u8]) -> String {
    content.iter().skip(1).take(ID_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

impl Keys {
    fn encrypt(&self, key: &[u8], mut content: Vec<u8>) -> Vec<u8> {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.writer
            .seal_in_place_append_tag(nonce(counter), Aad::from(key), &mut content)
            .expect("a value is far shorter than the cipher's limit");
        let mut out = Vec::with_capacity(HEAD_BYTES + content.len());
        out.push(ENCRYPTED);
        out.extend_from_slice(&self.active);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&counter);
        out.extend_from_slice(&content);
        out
    }

    fn reader(&self, id: KeyId, salt: Salt) -> Option<Arc<LessSafeKey>> {
        if let Some(found) = self.derived.read().get(&(id, salt)) {
            return Some(Arc::clone(found));
        }
        let made = Arc::new(derive(self.ring.get(&id)?, &salt));
        let mut derived = self.derived.write();
        if derived.len() >= MAX_DERIVED {
            derived.clear();
        }
        derived.insert((id, salt), Arc::clone(&made));
        Some(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(lines: &[&str]) -> Vault {
        Vault::new(&KeyRing::parse(&lines.concat()).expect("keys"))
    }

    #[test]
    fn what_is_sealed_is_secret_and_opens_only_whole_in_its_place() {
        let (line, other) = (KeyRing::new_line(), KeyRing::new_line());
        let here = vault(&[&line]);
        let secret = "hunter2 ".repeat(8);
        let sealed = here.seal(b"key", &secret);
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(here.open::<String>(b"key", &sealed).expect("intact"), secret);
        // Another process with the same key.
        assert_eq!(vault(&[&other, &line]).open::<String>(b"key", &sealed).expect("intact"), secret);
        for (name, wrong) in [("none", Vault::default()), ("other", vault(&[&other]))] {
            let error = wrong.open::<String>(b"key", &sealed).expect_err(name);
            assert!(matches!(error, EnvelopeError::UnknownKey(_)), "{name}: {error}");
        }
        // Moved with a matching checksum: the cipher notices.
        let content = envelope::content(b"key", &sealed).expect("intact");
        let moved = envelope::seal_content(b"kez", content);
        assert!(matches!(here.open::<String>(b"kez", &moved), Err(EnvelopeError::Encryption)));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 0x10;
            assert!(here.open::<String>(b"key", &damaged).is_err(), "a flip at {at} went unseen");
            assert!(here.open::<String>(b"key", &sealed[..at]).is_err(), "a cut at {at} went unseen");
        }
    }

    #[test]
    fn values_move_to_the_first_key() {
        let (old, new) = (KeyRing::new_line(), KeyRing::new_line());
        let plain = Vault::default().seal(b"k", &7u64);
        assert_eq!(Vault::default().renew(b"k", &plain).expect("intact"), None);
        let first = vault(&[&old]);
        let under_old = first.renew(b"k", &plain).expect("intact").expect("was not encrypted");
        assert_eq!(first.renew(b"k", &under_old).expect("intact"), None);
        let both = vault(&[&new, &old]);
        let under_new = both.renew(b"k", &under_old).expect("intact").expect("was under the old key");
        assert_eq!(vault(&[&new]).open::<u64>(b"k", &under_new).expect("intact"), 7);
        assert!(Vault::default().renew(b"k", &under_new).is_err(), "a replica without keys says so");
    }

    #[test]
    fn key_files_are_checked() {
        let line = KeyRing::new_line();
        assert!(KeyRing::parse(&format!("# old and new\n\n{line}")).is_ok());
        for (text, expected) in [
            ("# nothing".to_owned(), KeyRingError::Empty),
            (format!("{line}short"), KeyRingError::Line(2)),
            (format!("{line}AAAA"), KeyRingError::Line(2)),
            (format!("{line}{line}"), KeyRingError::Repeated(2)),
            ((0..=MAX_KEYS).map(|_| KeyRing::new_line()).collect(), KeyRingError::TooMany),
        ] {
            assert_eq!(KeyRing::parse(&text), Err(expected), "{text}");
        }
        assert!(!format!("{:?}", KeyRing::parse(&line)).contains(line.trim()));
    }
}
