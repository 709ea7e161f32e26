//! A look at RocksDB's own logs before RocksDB reads them: certain damage
//! there makes it read in circles instead of reporting anything, and a
//! damaged replica must say so.
//!
//! The format of manifests and write-ahead logs: blocks of 32 KiB, filled with
//! records of a masked CRC-32C, a length, a type and the content.

use std::fs;
use std::path::Path;

use tracing::warn;

use crate::error::OpenError;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const TYPES: std::ops::RangeInclusive<u8> = 1..=4;

fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Checks the current manifest of the database in a directory. A record that
/// is cut off at its end is RocksDB's to judge.
pub fn check_manifest(database: &Path) -> Result<(), OpenError> {
    let current = database.join("CURRENT");
    let name = fs::read(&current).map_err(|error| OpenError::io("read", &current, error))?;
    let name = std::str::from_utf8(&name).ok().and_then(|name| name.strip_suffix('\n'));
    let name = name.filter(|name| name.starts_with("MANIFEST-") && !name.contains('/'));
    let path = database.join(name.ok_or_else(|| OpenError::damaged(&current, "it names no manifest"))?);
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => OpenError::damaged(&path, "the manifest is missing"),
        _ => OpenError::io("read", &path, error),
    })?;
    match first_bad(&bytes) {
        Some(Bad { at, cut_off: false }) => Err(OpenError::damaged(&path, format!("the record at {at} is not intact"))),
        _ => Ok(()),
    }
}

/// Cuts the write-ahead logs in a directory off at their first bad record, as
/// recovery to a point in time would do. What is cut off is kept beside the
/// database, in case it turns out not to be a torn end.
pub fn cut_torn_ends(database: &Path) -> Result<(), OpenError> {
    let list = || fs::read_dir(database)?.map(|item| item.map(|item| item.path())).collect::<Result<Vec<_>, _>>();
    let files = list().map_err(|error| OpenError::io("list", database, error))?;
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
        let bytes = fs::read(path).map_err(|error| OpenError::io("read", path, error))?;
        let Some(Bad { at, .. }) = first_bad(&bytes) else { continue };
        warn!(path = %path.display(), at, of = bytes.len(), "cutting a torn end off");
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let kept = database.with_extension(format!("torn-{name}"));
        let cut = || {
            fs::write(&kept, &bytes[at..])?;
            let file = fs::OpenOptions::new().write(true).open(path)?;
            file.set_len(at as u64)?;
            file.sync_all()
        };
        cut().map_err(|error| OpenError::io("cut", path, error))?;
    }
    Ok(())
}

/// A record that cannot be read.
struct Bad {
    at: usize,
    /// It would reach beyond the end of the file.
    cut_off: bool,
}

fn first_bad(bytes: &[u8]) -> Option<Bad> {
    bytes.chunks(BLOCK_BYTES).enumerate().find_map(|(number, block)| {
        let bad = first_bad_in(block)?;
        Some(Bad { at: number * BLOCK_BYTES + bad.at, ..bad })
    })
}

fn first_bad_in(block: &[u8]) -> Option<Bad> {
    let mut at = 0;
    while at < block.len() {
        let Some(header) = block.get(at..at + HEADER_BYTES) else {
            // The end of a full block is filled up.
            return (block.len() < BLOCK_BYTES).then_some(Bad { at, cut_off: true });
        };
        let sum = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
        let length = usize::from(u16::from_le_bytes(header[4..6].try_into().expect("two bytes")));
        let end = at + HEADER_BYTES + length;
        if !TYPES.contains(&header[6]) || end > BLOCK_BYTES {
            return Some(Bad { at, cut_off: false });
        }
        let Some(content) = block.get(at + 6..end) else { return Some(Bad { at, cut_off: true }) };
        if masked(crc32c::crc32c(content)) != sum {
            return Some(Bad { at, cut_off: false });
        }
        at = end;
    }
    None
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
        check_manifest(dir.path()).expect("intact");
        let manifest = fs::read_to_string(dir.path().join("CURRENT")).expect("read");
        let path = dir.path().join(manifest.trim_end());
        let bytes = fs::read(&path).expect("read");
        let mut unseen = 0;
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, &damaged).expect("written");
            unseen += usize::from(check_manifest(dir.path()).is_ok());
        }
        // A longer length in the last records looks like a cut.
        assert!(unseen <= 16, "{unseen} of {} flips were not seen", bytes.len());
    }

    #[test]
    fn a_torn_end_is_cut_off_and_kept() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("db");
        let db = rocksdb::DB::open_default(&dir).expect("opened");
        for number in 0..2000u32 {
            db.put(number.to_be_bytes(), [7; 100]).expect("written");
        }
        db.flush_wal(true).expect("synced");
        drop(db);
        let files = |dir: &Path| -> Vec<_> {
            fs::read_dir(dir).expect("listed").map(|item| item.expect("an item").path()).collect()
        };
        let log = files(&dir).into_iter().filter(|path| path.extension().is_some_and(|e| e == "log")).max();
        let log = log.expect("a log");
        let intact = fs::read(&log).expect("read");
        assert!(intact.len() > 2 * BLOCK_BYTES);
        cut_torn_ends(&dir).expect("checked");
        assert_eq!(fs::read(&log).expect("read"), intact, "an intact log was changed");
        let mut torn = intact.clone();
        torn.extend_from_slice(&[0; 50]);
        fs::write(&log, &torn).expect("written");
        cut_torn_ends(&dir).expect("cut");
        assert_eq!(fs::read(&log).expect("read"), intact);
        let kept: Vec<_> = files(root.path()).into_iter().filter(|path| path.is_file()).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(fs::read(&kept[0]).expect("read"), [0; 50]);
    }
}
