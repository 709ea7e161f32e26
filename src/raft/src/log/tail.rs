//! How far the log is known to be synced, kept outside of the database.
//!
//! A torn end of the write-ahead log is legitimate after a crash, as far as it
//! was never synced; RocksDB cannot tell it from an end that was cut off
//! later. This small file can: it is written (in place, alternating between
//! two slots) after each sync of the log and is itself synced a little later,
//! so it never claims too much, and after the death of a process it claims
//! everything.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::OpenError;

const MAGIC: u64 = 0x6261_7271_7461_696c;
const SLOT_BYTES: usize = 44;
const SLOT_OFFSETS: [u64; 2] = [0, 512];
const FILE_BYTES: u64 = 1024;

/// What is known to be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TailMark {
    /// One more than the last entry's index; 0 for an empty log.
    pub next_index: u64,
    /// The last entry's term.
    pub last_term: u64,
    /// How many votes were saved.
    pub votes: u64,
}

/// The file.
pub struct Tail {
    file: Arc<File>,
    sequence: u64,
    mark: TailMark,
}

impl Tail {
    /// Makes the file, durably.
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        let make = || {
            let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
            file.write_all_at(&vec![0; FILE_BYTES as usize], 0)?;
            file.write_all_at(&encode(1, TailMark::default()), SLOT_OFFSETS[1])?;
            file.sync_all()?;
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
            Ok(file)
        };
        let file = make().map_err(|error| OpenError::io("create", path, error))?;
        Ok(Self { file: Arc::new(file), sequence: 1, mark: TailMark::default() })
    }

    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpenError::damaged(path, "the tail marker is missing"),
            _ => OpenError::io("open", path, error),
        })?;
        let newest = SLOT_OFFSETS
            .iter()
            .filter_map(|offset| {
                let mut slot = [0; SLOT_BYTES];
                file.read_exact_at(&mut slot, *offset).ok()?;
                decode(&slot)
            })
            .max_by_key(|(sequence, _)| *sequence);
        let (sequence, mark) = newest.ok_or_else(|| OpenError::damaged(path, "the tail marker is unreadable"))?;
        Ok(Self { file: Arc::new(file), sequence, mark })
    }

    /// The newest mark.
    pub fn mark(&self) -> TailMark {
        self.mark
    }

    /// The file, for syncing it from elsewhere.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Replaces the mark; not synced.
    pub fn write(&mut self, mark: TailMark) -> io::Result<()> {
        if mark == self.mark {
            return Ok(());
        }
        let sequence = self.sequence + 1;
        let slot = SLOT_OFFSETS[(sequence % 2) as usize];
        self.file.write_all_at(&encode(sequence, mark), slot)?;
        self.sequence = sequence;
        self.mark = mark;
        Ok(())
    }

    /// Replaces the mark by a lower one, durably in both slots: older slots
    /// must not claim what is about to be removed.
    pub fn lower(&mut self, mark: TailMark) -> io::Result<()> {
        self.write(mark)?;
        self.file.sync_data()?;
        let sequence = self.sequence + 1;
        self.file.write_all_at(&encode(sequence, mark), SLOT_OFFSETS[(sequence % 2) as usize])?;
        self.sequence = sequence;
        self.file.sync_data()
    }
}

fn encode(sequence: u64, mark: TailMark) -> [u8; SLOT_BYTES] {
    let mut out = [0; SLOT_BYTES];
    for (at, value) in [MAGIC, sequence, mark.next_index, mark.last_term, mark.votes].into_iter().enumerate() {
        out[at * 8..at * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }
    let sum = crc32c::crc32c(&out[..40]);
    out[40..].copy_from_slice(&sum.to_le_bytes());
    out
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, TailMark)> {
    let number = |at: usize| u64::from_le_bytes(slot[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
    let sum = u32::from_le_bytes(slot[40..].try_into().expect("four bytes"));
    if number(0) != MAGIC || sum != crc32c::crc32c(&slot[..40]) {
        return None;
    }
    Some((number(1), TailMark { next_index: number(2), last_term: number(3), votes: number(4) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_intact_slot_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tail");
        let mut tail = Tail::create(&path).expect("created");
        for next_index in 1..=5 {
            tail.write(TailMark { next_index, last_term: 1, votes: 1 }).expect("written");
        }
        drop(tail);
        assert_eq!(Tail::open(&path).expect("opened").mark().next_index, 5);
        let mut bytes = std::fs::read(&path).expect("read");
        for offset in SLOT_OFFSETS {
            if decode(&bytes[offset as usize..][..SLOT_BYTES].try_into().expect("a slot")).expect("intact").1.next_index
                == 5
            {
                bytes[offset as usize + 17] ^= 1;
                break;
            }
        }
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(Tail::open(&path).expect("opened").mark().next_index, 4);
        std::fs::write(&path, vec![0; 1024]).expect("written");
        assert!(Tail::open(&path).err().expect("refused").is_damage());
    }

    #[test]
    fn a_lowered_mark_leaves_no_higher_claim() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tail");
        let mut tail = Tail::create(&path).expect("created");
        tail.write(TailMark { next_index: 9, last_term: 2, votes: 1 }).expect("written");
        tail.lower(TailMark { next_index: 3, last_term: 1, votes: 1 }).expect("lowered");
        let bytes = std::fs::read(&path).expect("read");
        for offset in SLOT_OFFSETS {
            let slot = bytes[offset as usize..][..SLOT_BYTES].try_into().expect("a slot");
            assert_eq!(decode(&slot).expect("intact").1.next_index, 3);
        }
    }
}
