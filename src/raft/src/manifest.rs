//! A look at a database's manifest before RocksDB reads it: some flipped bits
//! there make RocksDB read in circles instead of reporting damage, and a
//! damaged replica must say so.
//!
//! The format is that of RocksDB's logs: blocks of 32 KiB, filled with records
//! of a masked CRC-32C, a length, a type and the content.

use std::fs;
use std::path::Path;

use crate::error::OpenError;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const TYPES: std::ops::RangeInclusive<u8> = 1..=4;

fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Checks the current manifest of the database in a directory.
pub fn check(database: &Path) -> Result<(), OpenError> {
    let current = database.join("CURRENT");
    let name = fs::read(&current).map_err(|error| OpenError::io("read", &current, error))?;
    let name = std::str::from_utf8(&name).ok().and_then(|name| name.strip_suffix('\n'));
    let name = name.filter(|name| name.starts_with("MANIFEST-") && !name.contains('/'));
    let path = database.join(name.ok_or_else(|| OpenError::damaged(&current, "it names no manifest"))?);
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => OpenError::damaged(&path, "the manifest is missing"),
        _ => OpenError::io("read", &path, error),
    })?;
    for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        check_block(block).map_err(|at| {
            OpenError::damaged(&path, format!("the record at {} is not intact", number * BLOCK_BYTES + at))
        })?;
    }
    Ok(())
}

/// Gives the offset of the first bad record. One that is cut off at the end
/// of the file is RocksDB's to judge.
fn check_block(block: &[u8]) -> Result<(), usize> {
    let mut at = 0;
    while let Some(header) = block.get(at..at + HEADER_BYTES) {
        let sum = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
        let length = usize::from(u16::from_le_bytes(header[4..6].try_into().expect("two bytes")));
        let end = at + HEADER_BYTES + length;
        if !TYPES.contains(&header[6]) || end > BLOCK_BYTES {
            return Err(at);
        }
        let Some(content) = block.get(at + 6..end) else { return Ok(()) };
        if masked(crc32c::crc32c(content)) != sum {
            return Err(at);
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_manifest_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = rocksdb::DB::open_default(dir.path()).expect("opened");
        db.put(b"k", b"v").expect("written");
        db.flush().expect("flushed");
        drop(db);
        check(dir.path()).expect("intact");
        let manifest = fs::read_to_string(dir.path().join("CURRENT")).expect("read");
        let path = dir.path().join(manifest.trim_end());
        let bytes = fs::read(&path).expect("read");
        let mut unseen = 0;
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, &damaged).expect("written");
            unseen += usize::from(check(dir.path()).is_ok());
        }
        // A longer length in the last records looks like a cut.
        assert!(unseen <= 16, "{unseen} of {} flips were not seen", bytes.len());
    }
}
