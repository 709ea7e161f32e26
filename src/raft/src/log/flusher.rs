//! The one thread that writes the log. It takes everything that waits, writes
//! it as one batch, syncs once, and completes the callbacks in order: group
//! commit. Entries that come while it syncs form the next group.
//!
//! A full disk does not fail it: it holds back what it has, acknowledges
//! nothing, and goes on when there is room. Any other failed write ends it,
//! and with it this replica.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::entry::RaftEntry;
use openraft::storage::IOFlushed;
use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::envelope::seal;
use crate::log::LogShared;
use crate::log::cache::size_of;
use crate::log::db::{self, COMMITTED_KEY, PURGED_KEY, VOTE_KEY, VoteRow, entry_key};
use crate::log::tail::{Tail, TailMark};
use crate::types::{Entry, LogId, TypeConfig, term_of};

/// Largest group, in bytes of entries.
const GROUP_BYTES: usize = 8 << 20;
/// Housekeeping when nothing happens.
const IDLE: Duration = Duration::from_millis(200);
/// Between two syncs of the tail marker.
const MARKER_SYNC_INTERVAL: Duration = Duration::from_millis(200);
/// Between two attempts while the disk is full.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// Attempts with the database at hand before it is reopened.
const ATTEMPTS_BEFORE_REOPEN: u32 = 3;

pub(crate) enum Command {
    Append {
        entries: Vec<Entry>,
        done: IOFlushed<TypeConfig>,
    },
    Vote {
        row: VoteRow,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Removes entries from `from` to `to`, both inclusive; `last` remains.
    Truncate {
        from: u64,
        to: u64,
        last: Option<LogId>,
        done: oneshot::Sender<io::Result<()>>,
    },
    Purge {
        from: u64,
        upto: LogId,
    },
    Stop,
}

enum Done {
    Flushed(IOFlushed<TypeConfig>),
    Saved(oneshot::Sender<io::Result<()>>),
}

pub(crate) struct Handle {
    pub commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Writes what waits and ends the thread.
    pub fn stop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the log's flusher panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn start(shared: Arc<LogShared>, tail: Tail) -> io::Result<Handle> {
    let (commands, queue) = channel();
    let (marker_dirty, dirty) = sync_channel(1);
    let marker = tail.file();
    std::thread::Builder::new().name("log-marker".to_owned()).spawn(move || sync_marker(&marker, &dirty))?;
    let mark = tail.mark();
    let flusher = Flusher { shared, mark, tail, queue, marker_dirty, written_commit: None, stopping: false };
    let thread = std::thread::Builder::new().name("log-flusher".to_owned()).spawn(move || flusher.run())?;
    Ok(Handle { commands, thread: Some(thread) })
}

struct Flusher {
    shared: Arc<LogShared>,
    tail: Tail,
    mark: TailMark,
    queue: Receiver<Command>,
    marker_dirty: SyncSender<()>,
    written_commit: Option<LogId>,
    stopping: bool,
}

#[derive(Default)]
struct Group {
    batch: WriteBatch,
    sync: bool,
    bytes: usize,
    done: Vec<Done>,
    truncated: bool,
}

impl Flusher {
    fn run(mut self) {
        loop {
            let first = match self.queue.recv_timeout(IDLE) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(command) = first {
                let mut group = Group::default();
                self.add(&mut group, command);
                while group.bytes < GROUP_BYTES && !group.truncated && !self.stopping {
                    let Ok(command) = self.queue.try_recv() else { break };
                    self.add(&mut group, command);
                }
                self.flush(group);
            } else if self.shared.committed() != self.written_commit {
                self.flush(Group::default());
            }
            if self.stopping {
                return;
            }
        }
    }

    fn add(&mut self, group: &mut Group, command: Command) {
        match command {
            Command::Append { entries, done } => {
                for entry in &entries {
                    let key = entry_key(entry.index());
                    group.batch.put(key, self.shared.vault().seal(&key, entry));
                    group.bytes += size_of(entry);
                }
                if let Some(last) = entries.last() {
                    self.mark.next_index = last.index() + 1;
                    self.mark.last_term = term_of(&last.log_id());
                }
                group.sync = true;
                group.done.push(Done::Flushed(done));
            }
            Command::Vote { row, done } => {
                group.batch.put(VOTE_KEY, seal(VOTE_KEY, &row));
                self.mark.votes = row.count;
                group.sync = true;
                group.done.push(Done::Saved(done));
            }
            Command::Truncate { from, to, last, done } => {
                for index in (from..=to).rev() {
                    group.batch.delete(entry_key(index));
                }
                self.mark.next_index = last.as_ref().map_or(0, |last| last.index + 1);
                self.mark.last_term = last.as_ref().map_or(0, term_of);
                group.sync = true;
                group.truncated = true;
                group.done.push(Done::Saved(done));
            }
            Command::Purge { from, upto } => {
                group.batch.put(PURGED_KEY, seal(PURGED_KEY, &upto));
                // The mark must hold whether or not this write survives.
                group.sync = true;
                if upto.index >= from {
                    group.batch.delete_range(entry_key(from), entry_key(upto.index + 1));
                }
                if self.mark.next_index <= upto.index {
                    self.mark.next_index = upto.index + 1;
                    self.mark.last_term = term_of(&upto);
                }
            }
            Command::Stop => self.stopping = true,
        }
    }

    fn flush(&mut self, mut group: Group) {
        let commit = self.shared.committed();
        if commit != self.written_commit
            && let Some(commit) = &commit
        {
            group.batch.put(COMMITTED_KEY, seal(COMMITTED_KEY, commit));
        }
        if group.batch.is_empty() {
            return;
        }
        self.shared.write_began();
        let result = self.write(&group);
        self.shared.write_ended();
        if result.is_ok() {
            self.written_commit = commit;
            self.shared.synced(self.mark.next_index);
            if let Err(error) = self.tail.write(self.mark) {
                warn!(%error, "cannot write the log's tail marker");
            }
            // A full channel means that a sync is due anyway.
            let _ = self.marker_dirty.try_send(());
        }
        for done in group.done {
            let result = result.as_ref().map_err(|error| io::Error::other(error.to_string())).copied();
            match done {
                Done::Flushed(callback) => callback.io_completed(result),
                Done::Saved(sender) => {
                    let _ = sender.send(result);
                }
            }
        }
    }

    fn write(&mut self, group: &Group) -> io::Result<()> {
        if group.truncated && self.mark.next_index < self.tail.mark().next_index {
            // The mark must hold whether or not the write below survives.
            self.tail.lower(self.mark)?;
        }
        let mut options = WriteOptions::default();
        options.set_sync(group.sync);
        let mut attempts = 0;
        loop {
            // Votes are small and must get through: without them nobody leads,
            // and without a leader there are no reads either.
            if group.bytes > 0 {
                self.wait_for_room()?;
            }
            // The batch is applied again as a whole: all its operations are
            // idempotent. The database must not be held while it is reopened.
            let written = self
                .shared
                .database()
                .as_ref()
                .map(|db| db.write_opt(WriteBatch::from_data(group.batch.data()), &options));
            let failure = match written {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => error,
                None if self.shared.is_stopping() => return Err(io::Error::other("the log is closed")),
                // Reopening found no room.
                None => {
                    self.reopen_when_there_is_room()?;
                    continue;
                }
            };
            if !is_no_space(&failure) {
                error!(error = %failure, "writing the log failed");
                return Err(io::Error::other(failure));
            }
            attempts += 1;
            warn!(error = %failure, attempts, "no space for the log: waiting");
            self.shared.disk().write_failed();
            self.pause()?;
            if attempts % ATTEMPTS_BEFORE_REOPEN == 0 && !self.shared.disk().is_exhausted() {
                self.reopen();
            }
        }
    }

    /// Holds everything back while the disk is exhausted.
    fn wait_for_room(&self) -> io::Result<()> {
        self.shared.disk().check();
        let mut waited = false;
        while self.shared.disk().is_exhausted() {
            if !waited {
                warn!("the disk is exhausted: this replica stops acknowledging");
                waited = true;
            }
            self.pause()?;
            self.shared.disk().check();
        }
        if waited {
            info!("the disk has room: this replica goes on");
        }
        Ok(())
    }

    fn pause(&self) -> io::Result<()> {
        #[allow(clippy::disallowed_methods, reason = "a thread of its own, which has nothing else to wait for")]
        std::thread::sleep(FULL_RETRY);
        if self.shared.is_stopping() {
            return Err(io::Error::other("stopped while the disk was full"));
        }
        Ok(())
    }

    /// After a reopening that failed itself.
    fn reopen_when_there_is_room(&self) -> io::Result<()> {
        self.pause()?;
        self.shared.disk().check();
        if !self.shared.disk().is_exhausted() {
            self.reopen();
        }
        Ok(())
    }

    /// After a failed write RocksDB refuses further ones; what was synced is
    /// in its files, what was not is in this group.
    fn reopen(&self) {
        let mut database = self.shared.database_mut();
        *database = None;
        match db::open_database(self.shared.path(), self.shared.write_buffer_bytes(), false) {
            Ok(db) => *database = Some(db),
            Err(error) => error!(error = %crate::error::chain(&error), "cannot reopen the log"),
        }
    }
}

/// Syncs the tail marker behind the flusher's back. Late is fine: an older
/// mark only claims less.
fn sync_marker(marker: &File, dirty: &Receiver<()>) {
    while dirty.recv().is_ok() {
        if let Err(error) = marker.sync_data() {
            warn!(%error, "cannot sync the log's tail marker");
        }
        #[allow(clippy::disallowed_methods, reason = "a thread of its own that limits how often it syncs")]
        std::thread::sleep(MARKER_SYNC_INTERVAL);
    }
}

pub(crate) fn is_no_space(error: &rocksdb::Error) -> bool {
    let text = error.to_string();
    text.contains("No space left") || text.contains("NoSpace") || text.contains("Disk quota exceeded")
}
