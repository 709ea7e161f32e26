//! The log's database: its keys, and opening it with every record checked.

use std::path::{Path, PathBuf};

use openraft::entry::RaftEntry;
use rocksdb::{DB, DBRecoveryMode, Direction, IteratorMode, Options, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::envelope;
use crate::error::OpenError;
use crate::log::tail::{Tail, TailMark};
use crate::records;
use crate::types::{Entry, LogId, Vote, term_of};
use crate::vault::Vault;

pub(crate) const VOTE_KEY: &[u8] = b"vote";
pub(crate) const COMMITTED_KEY: &[u8] = b"committed";
pub(crate) const PURGED_KEY: &[u8] = b"purged";
const ENTRY_PREFIX: u8 = b'e';
/// Bytes of entries that are encrypted anew in one write.
const RENEW_BYTES: usize = 4 << 20;

/// The vote, counted: so that the loss of one is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRow {
    pub vote: Vote,
    pub count: u64,
}

pub(crate) fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY_PREFIX; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// What a log holds, all records checked.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub vote: Option<VoteRow>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub first_index: u64,
}

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub database: PathBuf,
    pub tail: PathBuf,
}

impl Paths {
    pub fn new(data_dir: &Path) -> Self {
        Self { database: data_dir.join("log"), tail: data_dir.join("log.tail") }
    }
}

fn options(write_buffer_bytes: usize, create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    // A torn end is what a crash leaves, so recovery stops at the first bad
    // record. Whether what follows was ever synced, and the end therefore is
    // damage, is decided by the tail marker.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_max_write_buffer_number(3);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_open_files(128);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options
}

/// Opens the database alone.
pub(crate) fn open_database(path: &Path, write_buffer_bytes: usize, create: bool) -> Result<DB, OpenError> {
    if !create {
        records::check_manifest(path)?;
        records::cut_torn_ends(path)?;
    }
    DB::open(&options(write_buffer_bytes, create), path).map_err(|error| OpenError::database(path, error))
}

/// Opens the log, or makes a new one when nothing exists and `may_create`.
pub(crate) fn open(
    paths: &Paths,
    write_buffer_bytes: usize,
    may_create: bool,
    vault: &Vault,
) -> Result<(DB, Tail, Contents), OpenError> {
    let exists = paths.database.join("CURRENT").exists();
    if !exists && !may_create {
        return Err(OpenError::damaged(&paths.database, "the log is missing"));
    }
    // The marker comes into being first: a log without one is damaged.
    let tail = if exists { Tail::open(&paths.tail)? } else { Tail::create(&paths.tail)? };
    let db = open_database(&paths.database, write_buffer_bytes, !exists)?;
    let contents = check(&db, &paths.database, vault)?;
    check_tail(&db, &paths.database, &contents, tail.mark(), vault)?;
    renew(&db, &paths.database, vault)?;
    Ok((db, tail, contents))
}

fn value<T: serde::de::DeserializeOwned>(path: &Path, key: &[u8], stored: &[u8]) -> Result<T, OpenError> {
    envelope::open(key, stored).map_err(|source| OpenError::value(path, named(key), source))
}

fn named(key: &[u8]) -> String {
    format!("log record {:?}", String::from_utf8_lossy(key))
}

/// Encrypts entries anew that are not under the vault's first key.
fn renew(db: &DB, path: &Path, vault: &Vault) -> Result<(), OpenError> {
    let failed = |error| OpenError::database(path, error);
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let (mut batch, mut renewed) = (WriteBatch::default(), 0_usize);
    for item in db.iterator(IteratorMode::From(&[ENTRY_PREFIX], Direction::Forward)) {
        let (key, stored) = item.map_err(failed)?;
        if key.len() != 9 || key[0] != ENTRY_PREFIX {
            continue;
        }
        let fresh = vault.renew(&key, &stored).map_err(|source| OpenError::value(path, named(&key), source))?;
        let Some(fresh) = fresh else { continue };
        batch.put(&key, fresh);
        renewed += 1;
        if batch.size_in_bytes() >= RENEW_BYTES {
            db.write_opt(std::mem::take(&mut batch), &synced).map_err(failed)?;
        }
    }
    if renewed == 0 {
        return Ok(());
    }
    db.write_opt(batch, &synced).map_err(failed)?;
    // What was there before must not linger in older files.
    db.flush().map_err(failed)?;
    db.compact_range(None::<&[u8]>, None::<&[u8]>);
    info!(entries = renewed, path = %path.display(), "log entries were encrypted anew");
    Ok(())
}

fn check(db: &DB, path: &Path, vault: &Vault) -> Result<Contents, OpenError> {
    let mut contents = Contents::default();
    let mut first = None;
    for item in db.iterator(IteratorMode::Start) {
        let (key, stored) = item.map_err(|error| OpenError::database(path, error))?;
        match &*key {
            VOTE_KEY => contents.vote = Some(value(path, &key, &stored)?),
            COMMITTED_KEY => contents.committed = Some(value(path, &key, &stored)?),
            PURGED_KEY => contents.purged = Some(value(path, &key, &stored)?),
            [ENTRY_PREFIX, index @ ..] if index.len() == 8 => {
                let index = u64::from_be_bytes(index.try_into().expect("eight bytes"));
                let entry: Entry =
                    vault.open(&key, &stored).map_err(|source| OpenError::value(path, named(&key), source))?;
                let follows = contents.last.as_ref().is_none_or(|last| last.index + 1 == index);
                if !follows || entry.index() != index {
                    return Err(OpenError::damaged(path, format!("entry {index} does not follow the one before it")));
                }
                first.get_or_insert(index);
                contents.last = Some(entry.log_id());
            }
            _ => return Err(OpenError::damaged(path, format!("unknown key {key:?}"))),
        }
    }
    let after_purged = contents.purged.as_ref().map_or(0, |purged| purged.index + 1);
    if let Some(first) = first
        && first != after_purged
    {
        return Err(OpenError::damaged(path, format!("entries from {after_purged} to {first} are missing")));
    }
    contents.first_index = after_purged;
    contents.last = contents.last.or(contents.purged);
    Ok(contents)
}

fn check_tail(db: &DB, path: &Path, contents: &Contents, mark: TailMark, vault: &Vault) -> Result<(), OpenError> {
    let next = contents.last.as_ref().map_or(0, |last| last.index + 1);
    if next < mark.next_index {
        let lost = format!("entries from {next} to {} were synced and are gone", mark.next_index - 1);
        return Err(OpenError::damaged(path, lost));
    }
    if mark.next_index > contents.first_index {
        let key = entry_key(mark.next_index - 1);
        let stored = db.get(key).map_err(|error| OpenError::database(path, error))?;
        let stored = stored.ok_or_else(|| OpenError::damaged(path, "the last synced entry is gone"))?;
        let entry: Entry = vault.open(&key, &stored).map_err(|source| OpenError::value(path, named(&key), source))?;
        if term_of(&entry.log_id()) < mark.last_term {
            return Err(OpenError::damaged(path, "the last synced entry was replaced by an older one"));
        }
    }
    let votes = contents.vote.as_ref().map_or(0, |row| row.count);
    if votes < mark.votes {
        return Err(OpenError::damaged(path, "the last vote is gone"));
    }
    Ok(())
}
