//! The state's database. One batch holds everything that applying some
//! entries changed, with the index of the last one: after a crash the
//! database is the state at some earlier index, and the log leads on from
//! there. It therefore needs no log of its own and no syncs; it is flushed
//! before a snapshot counts as durable and before the Raft log is purged.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use barque_store::{Applied, Event, EventKind, Key, Record, Remembered, Restored, Revision};
use rocksdb::{DB, FlushOptions, IteratorMode, Options, WriteBatch, WriteOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::envelope::{self, seal};
use crate::error::OpenError;
use crate::records;
use crate::state::digest::Digest;
use crate::types::{LogId, Membership};
use crate::vault::Vault;

const META_KEY: &[u8] = b"meta";
const OBJECT_PREFIX: u8 = b'o';
const HISTORY_PREFIX: u8 = b'h';
const REMEMBERED_PREFIX: u8 = b'r';
const FLOOR_PREFIX: u8 = b'f';
/// Bytes of values that are encrypted anew in one write.
const RENEW_BYTES: usize = 4 << 20;

/// What the state is the state of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// The last applied membership.
    pub membership: Membership,
    /// The store's revision.
    pub revision: Revision,
    /// Checksum of all objects.
    pub digest: Digest,
    /// Oldest revision of resources that have dropped no history.
    pub base_floor: Revision,
}

#[derive(Serialize, Deserialize)]
struct HistoryRow {
    kind: EventKind,
    record: Arc<Record>,
    previous: Option<Arc<Record>>,
}

#[derive(Serialize)]
struct HistoryRowRef<'a> {
    kind: EventKind,
    record: &'a Arc<Record>,
    previous: &'a Option<Arc<Record>>,
}

fn object_key(key: &Key) -> Vec<u8> {
    let parts = [&key.resource, &key.object.namespace, &key.object.name];
    let mut out = Vec::with_capacity(3 + parts.iter().map(|p| p.len()).sum::<usize>());
    out.push(OBJECT_PREFIX);
    out.extend_from_slice(parts[0].as_bytes());
    for part in &parts[1..] {
        out.push(0);
        out.extend_from_slice(part.as_bytes());
    }
    out
}

fn number_key(prefix: u8, number: u64) -> [u8; 9] {
    let mut key = [prefix; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn floor_key(resource: &str) -> Vec<u8> {
    let mut key = vec![FLOOR_PREFIX];
    key.extend_from_slice(resource.as_bytes());
    key
}

/// Changes to be written together.
pub struct Changes {
    vault: Vault,
    batch: WriteBatch,
    floors: HashMap<Arc<str>, Revision>,
}

impl Changes {
    /// No changes yet.
    pub fn new(vault: Vault) -> Self {
        Self { vault, batch: WriteBatch::default(), floors: HashMap::new() }
    }

    /// Adds what one entry changed.
    pub fn add(&mut self, applied: &Applied) {
        for event in &applied.events {
            let record = &event.record;
            let key = object_key(record.key());
            if event.kind == EventKind::Deleted {
                self.batch.delete(&key);
            } else {
                self.batch.put(&key, self.vault.seal(&key, record));
            }
            let key = number_key(HISTORY_PREFIX, event.revision().0);
            let row = HistoryRowRef { kind: event.kind, record, previous: &event.previous };
            self.batch.put(key, self.vault.seal(&key, &row));
        }
        for event in &applied.dropped_events {
            self.batch.delete(number_key(HISTORY_PREFIX, event.revision().0));
            let floor = self.floors.entry(Arc::clone(&event.record.key().resource)).or_default();
            *floor = (*floor).max(event.revision());
        }
        for remembered in &applied.remembered {
            let key = number_key(REMEMBERED_PREFIX, remembered.sequence);
            self.batch.put(key, self.vault.seal(&key, remembered));
        }
        for sequence in &applied.forgotten {
            self.batch.delete(number_key(REMEMBERED_PREFIX, *sequence));
        }
    }

    /// Bytes gathered so far.
    pub fn bytes(&self) -> usize {
        self.batch.size_in_bytes()
    }

    /// The batch, with what it leads to.
    pub fn finish(mut self, meta: &Meta) -> WriteBatch {
        for (resource, floor) in &self.floors {
            let key = floor_key(resource);
            self.batch.put(&key, seal(&key, floor));
        }
        self.batch.put(META_KEY, seal(META_KEY, meta));
        self.batch
    }
}

fn options(write_buffer_bytes: usize) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_max_write_buffer_number(4);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_open_files(256);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options
}

/// Opens the database.
pub fn open(path: &Path, write_buffer_bytes: usize) -> Result<DB, OpenError> {
    if path.join("CURRENT").exists() {
        records::check_manifest(path)?;
    }
    DB::open(&options(write_buffer_bytes), path).map_err(|error| OpenError::database(path, error))
}

/// Reads the meta row of a database that nobody writes, as of a checkpoint.
pub fn read_checkpoint_meta(path: &Path) -> Result<Meta, OpenError> {
    let db =
        DB::open_for_read_only(&Options::default(), path, true).map_err(|error| OpenError::database(path, error))?;
    let stored = db.get(META_KEY).map_err(|error| OpenError::database(path, error))?;
    stored.map_or_else(|| Ok(Meta::default()), |stored| value(path, META_KEY, &stored))
}

/// Writes a batch. It is in memory then, and on disk after [`flush`].
pub fn write(db: &DB, batch: WriteBatch) -> Result<(), rocksdb::Error> {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    db.write_opt(batch, &options)
}

/// Makes everything written so far durable.
pub fn flush(db: &DB) -> Result<(), rocksdb::Error> {
    let mut options = FlushOptions::default();
    options.set_wait(true);
    db.flush_opt(&options)
}

fn value<T: DeserializeOwned>(path: &Path, key: &[u8], stored: &[u8]) -> Result<T, OpenError> {
    envelope::open(key, stored).map_err(|source| OpenError::value(path, named(key), source))
}

fn named(key: &[u8]) -> String {
    format!("state record {:?}", String::from_utf8_lossy(key))
}

/// Encrypts anew what is not under the vault's first key. It is on disk when
/// this returns: what was there before must not linger.
pub fn renew(db: &DB, path: &Path, vault: &Vault) -> Result<(), OpenError> {
    let failed = |error| OpenError::database(path, error);
    let (mut batch, mut renewed) = (WriteBatch::default(), 0_usize);
    for item in db.iterator(IteratorMode::Start) {
        let (key, stored) = item.map_err(failed)?;
        if !matches!(key.first(), Some(&(OBJECT_PREFIX | HISTORY_PREFIX | REMEMBERED_PREFIX))) {
            continue;
        }
        let fresh = vault.renew(&key, &stored).map_err(|source| OpenError::value(path, named(&key), source))?;
        let Some(fresh) = fresh else { continue };
        batch.put(&key, fresh);
        renewed += 1;
        if batch.size_in_bytes() >= RENEW_BYTES {
            write(db, std::mem::take(&mut batch)).map_err(failed)?;
        }
    }
    if renewed == 0 {
        return Ok(());
    }
    write(db, batch).and_then(|()| flush(db)).map_err(failed)?;
    db.compact_range(None::<&[u8]>, None::<&[u8]>);
    info!(values = renewed, path = %path.display(), "stored values were encrypted anew");
    Ok(())
}

fn secret<T: DeserializeOwned>(path: &Path, key: &[u8], stored: &[u8], vault: &Vault) -> Result<T, OpenError> {
    vault.open(key, stored).map_err(|source| OpenError::value(path, named(key), source))
}

/// Reads and checks everything.
pub fn load(db: &DB, path: &Path, vault: &Vault) -> Result<(Meta, Restored), OpenError> {
    let mut meta = None;
    let mut restored = Restored::default();
    let mut digest = Digest::default();
    for item in db.iterator(IteratorMode::Start) {
        let (key, stored) = item.map_err(|error| OpenError::database(path, error))?;
        match &*key {
            META_KEY => meta = Some(value::<Meta>(path, &key, &stored)?),
            [OBJECT_PREFIX, ..] => {
                let record: Arc<Record> = secret(path, &key, &stored, vault)?;
                digest.add(&record);
                restored.objects.push(record);
            }
            [HISTORY_PREFIX, ..] => {
                let row: HistoryRow = secret(path, &key, &stored, vault)?;
                restored.history.push(Arc::new(Event::new(row.kind, row.record, row.previous)));
            }
            [REMEMBERED_PREFIX, ..] => restored.remembered.push(secret::<Remembered>(path, &key, &stored, vault)?),
            [FLOOR_PREFIX, resource @ ..] => {
                let resource = String::from_utf8_lossy(resource);
                restored.floors.insert(Arc::from(&*resource), value::<Revision>(path, &key, &stored)?);
            }
            _ => return Err(OpenError::damaged(path, format!("unknown key {key:?}"))),
        }
    }
    let empty = restored.objects.is_empty() && restored.history.is_empty() && restored.remembered.is_empty();
    let meta = match meta {
        Some(meta) => meta,
        None if empty => Meta::default(),
        None => return Err(OpenError::damaged(path, "the state does not say what it is the state of")),
    };
    if digest != meta.digest {
        return Err(OpenError::damaged(path, "the digest of the objects is not the recorded one"));
    }
    restored.revision = meta.revision;
    restored.base_floor = meta.base_floor;
    Ok((meta, restored))
}
