//! The Raft log: entries, vote and committed index, over RocksDB with one
//! group-committing flusher. Everything that peers and the state machine
//! usually read is in memory.

pub(crate) mod cache;
pub(crate) mod db;
pub(crate) mod flusher;
pub mod tail;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rocksdb::{DB, Direction, IteratorMode};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::disk::DiskGuard;
use crate::error::{OpenError, io_error};
use crate::log::cache::{Cache, size_of};
use crate::log::db::{Paths, VoteRow, entry_key};
use crate::log::flusher::Command;
use crate::options::Bounds;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use crate::vault::Vault;

struct Memory {
    purged: Option<LogId>,
    last: Option<LogId>,
    vote: Option<VoteRow>,
    committed: Option<LogId>,
    synced_next: u64,
    cache: Cache,
}

impl Memory {
    fn first_index(&self) -> u64 {
        self.purged.as_ref().map_or(0, |purged| purged.index + 1)
    }

    fn next_index(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.index + 1)
    }
}

/// What readers, writers and the flusher share.
pub(crate) struct LogShared {
    database: RwLock<Option<DB>>,
    memory: RwLock<Memory>,
    disk: Arc<DiskGuard>,
    path: PathBuf,
    vault: Vault,
    write_buffer_bytes: usize,
    cache_bytes: usize,
    append_bytes: usize,
    stopping: AtomicBool,
    writing_since: Mutex<Option<Instant>>,
    closed: CancellationToken,
}

impl LogShared {
    pub fn database(&self) -> RwLockReadGuard<'_, Option<DB>> {
        self.database.read()
    }

    pub fn database_mut(&self) -> RwLockWriteGuard<'_, Option<DB>> {
        self.database.write()
    }

    pub fn disk(&self) -> &DiskGuard {
        &self.disk
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    pub fn write_buffer_bytes(&self) -> usize {
        self.write_buffer_bytes
    }

    pub fn committed(&self) -> Option<LogId> {
        self.memory.read().committed
    }

    /// The last entry.
    pub fn last(&self) -> Option<LogId> {
        self.memory.read().last
    }

    /// Completes when the database is closed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub fn write_began(&self) {
        *self.writing_since.lock() = Some(Instant::now());
    }

    pub fn write_ended(&self) {
        *self.writing_since.lock() = None;
    }

    /// For how long the write under way has been under way.
    pub fn writing_for(&self) -> Duration {
        self.writing_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub fn synced(&self, next_index: u64) {
        let mut memory = self.memory.write();
        // Entries may have been truncated while they were being synced.
        memory.synced_next = next_index.min(memory.next_index());
        let synced_next = memory.synced_next;
        memory.cache.evict(self.cache_bytes, synced_next);
    }

    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let (mut entries, start, first_cached) = {
            let memory = self.memory.read();
            let start = start.max(memory.first_index());
            let end = end.min(memory.next_index());
            let entries: Vec<Entry> = memory.cache.range(start, end).cloned().collect();
            let first_cached = memory.cache.first().clamp(start, end.max(start));
            (entries, start, first_cached)
        };
        if start < first_cached {
            let mut older = self.read_stored(start, first_cached, max_bytes)?;
            let complete = older.last().is_some_and(|last| last.index() + 1 == first_cached);
            if complete || older.is_empty() {
                older.append(&mut entries);
            }
            entries = older;
        }
        let mut bytes = 0;
        let fitting = entries
            .iter()
            .take_while(|entry| {
                let fits = bytes == 0 || bytes + size_of(entry) <= max_bytes;
                bytes += size_of(entry);
                fits
            })
            .count();
        entries.truncate(fitting);
        Ok(entries)
    }

    fn read_stored(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let database = self.database();
        let db = database.as_ref().ok_or_else(|| io::Error::other("the log is closed"))?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut expected = start;
        let from = entry_key(start);
        for item in db.iterator(IteratorMode::From(&from, Direction::Forward)) {
            let (key, stored) = item.map_err(io_error)?;
            if key.len() != 9 || *key >= entry_key(end)[..] || bytes >= max_bytes {
                break;
            }
            let entry: Entry = self.vault.open(&key, &stored).map_err(io_error)?;
            if entry.index() != expected {
                // What was purged meanwhile may be missing at the front.
                let purged = entries.is_empty() && entry.index() <= self.memory.read().first_index();
                if !purged {
                    return Err(io::Error::other(format!("the log lacks entry {expected}")));
                }
            }
            bytes += size_of(&entry);
            expected = entry.index() + 1;
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// openraft's view of the log.
pub struct LogStore {
    shared: Arc<LogShared>,
    flusher: flusher::Handle,
}

impl LogStore {
    /// Opens the log in a data directory and checks all of it.
    pub fn open(
        data_dir: &Path,
        bounds: &Bounds,
        vault: Vault,
        disk: Arc<DiskGuard>,
        may_create: bool,
    ) -> Result<Self, OpenError> {
        let paths = Paths::new(data_dir);
        let (database, tail, contents) = db::open(&paths, bounds.write_buffer_bytes, may_create, &vault)?;
        let next = contents.last.as_ref().map_or(0, |last| last.index + 1);
        let shared = Arc::new(LogShared {
            database: RwLock::new(Some(database)),
            memory: RwLock::new(Memory {
                purged: contents.purged,
                last: contents.last,
                vote: contents.vote,
                committed: contents.committed,
                synced_next: next,
                cache: Cache::starting_at(next),
            }),
            disk,
            path: paths.database.clone(),
            vault,
            write_buffer_bytes: bounds.write_buffer_bytes,
            cache_bytes: bounds.log_cache_bytes,
            append_bytes: bounds.append_bytes,
            stopping: AtomicBool::new(false),
            writing_since: Mutex::new(None),
            closed: CancellationToken::new(),
        });
        let flusher = flusher::start(Arc::clone(&shared), tail)
            .map_err(|error| OpenError::io("start the flusher of", &paths.database, error))?;
        Ok(Self { shared, flusher })
    }

    pub(crate) fn shared(&self) -> Arc<LogShared> {
        Arc::clone(&self.shared)
    }

    fn send(&self, command: Command) -> io::Result<()> {
        self.flusher.commands.send(command).map_err(|_| io::Error::other("the log's flusher has ended"))
    }

    async fn saved(&self, make: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Command) -> io::Result<()> {
        let (done, saved) = oneshot::channel();
        self.send(make(done))?;
        saved.await.map_err(|_| io::Error::other("the log's flusher has ended"))?
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.flusher.stop();
        *self.shared.database_mut() = None;
        self.shared.closed.cancel();
    }
}

/// Reads the log.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<LogShared>,
}

fn bounds_of(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds_of(&range);
        self.shared.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.memory.read().vote.map(|row| row.vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.shared.read(start, end, self.shared.append_bytes)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let memory = self.shared.memory.read();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let row = {
            let mut memory = self.shared.memory.write();
            let count = memory.vote.map_or(0, |row| row.count) + 1;
            let row = VoteRow { vote: *vote, count };
            memory.vote = Some(row);
            row
        };
        self.saved(|done| Command::Vote { row, done }).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Goes to disk with the next group: it only speeds up a restart.
        self.shared.memory.write().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        // What was lost from an unsynced end must not count as committed.
        let memory = self.shared.memory.read();
        Ok(memory.committed.min(memory.last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut memory = self.shared.memory.write();
            for entry in &entries {
                memory.cache.push(entry.clone());
                memory.last = Some(entry.log_id());
            }
        }
        self.send(Command::Append { entries, done: callback })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let (from, to) = {
            let mut memory = self.shared.memory.write();
            let from = last_log_id.as_ref().map_or(0, |last| last.index + 1);
            let next = memory.next_index();
            if from >= next {
                return Ok(());
            }
            memory.cache.truncate_from(from);
            memory.last = last_log_id;
            memory.synced_next = memory.synced_next.min(from);
            (from, next - 1)
        };
        self.saved(|done| Command::Truncate { from, to, last: last_log_id, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let from = {
            let mut memory = self.shared.memory.write();
            let from = memory.first_index();
            if memory.purged.as_ref().is_some_and(|purged| *purged >= upto) {
                return Ok(());
            }
            memory.purged = Some(upto);
            if memory.last.as_ref().is_none_or(|last| last.index < upto.index) {
                memory.last = Some(upto);
            }
            memory.cache.purge_to(upto.index);
            memory.synced_next = memory.synced_next.max(upto.index + 1);
            from
        };
        self.send(Command::Purge { from, upto })
    }
}
