//! The state machine as openraft drives it: [`Replica`] in memory, its changes
//! in a database, checkpoints of that as snapshots.

pub mod db;
pub mod digest;
pub mod snapshot;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use barque_store::{Limits, Replica, Term, View};
use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::{Mutex, RwLock};
use rocksdb::{DB, WriteBatch};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::disk::DiskGuard;
use crate::error::{OpenError, io_error};
use crate::log::flusher::is_no_space;
use crate::state::db::{Changes, Meta};
use crate::state::digest::Digest;
use crate::state::snapshot::SnapshotDir;
use crate::types::{Entry, LogId, Membership, Reply, SnapshotMeta, TypeConfig, term_of};
use crate::vault::Vault;

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotDir>;

/// Changes written in one batch, in bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Entries applied before they are made visible.
const BATCH_ENTRIES: usize = 1024;
/// The digest is remembered at log indexes divisible by this.
const DIGEST_INTERVAL: u64 = 64;
/// Digests remembered.
const DIGESTS: usize = 64;
/// Between two attempts to write while the disk is full.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// How far the state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppliedPoint {
    /// Log index of the last entry applied and visible, plus one.
    pub next_index: u64,
    /// That entry's term.
    pub term: u64,
}

impl AppliedPoint {
    fn of(applied: Option<&LogId>) -> Self {
        applied.map_or_else(Self::default, |id| Self { next_index: id.index + 1, term: term_of(id) })
    }
}

struct Database {
    db: RwLock<Option<DB>>,
    path: PathBuf,
}

/// What others may know of the state machine.
pub struct StateShared {
    database: Database,
    snapshots: PathBuf,
    current: Mutex<Option<Snapshot>>,
    applied: watch::Sender<AppliedPoint>,
    meta: Mutex<Meta>,
    digests: Mutex<VecDeque<(u64, Digest)>>,
    serial: AtomicU64,
    disk: Arc<DiskGuard>,
    stopping: AtomicBool,
    closed: CancellationToken,
    vault: Vault,
    write_buffer_bytes: usize,
}

impl StateShared {
    /// How far the state is, with changes.
    pub fn applied(&self) -> watch::Receiver<AppliedPoint> {
        self.applied.subscribe()
    }

    /// What the state is the state of.
    pub fn meta(&self) -> Meta {
        self.meta.lock().clone()
    }

    /// Digests at recent log indexes.
    pub fn digests(&self) -> Vec<(u64, Digest)> {
        self.digests.lock().iter().copied().collect()
    }

    /// The last entry in the current snapshot.
    pub fn snapshot(&self) -> Option<LogId> {
        self.current.lock().as_ref().and_then(|snapshot| snapshot.meta.last_log_id)
    }

    /// A name for a new directory beside the snapshots.
    pub fn new_snapshot_path(&self, kind: &str) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.snapshots.join(format!("{kind}-{}-{serial}", std::process::id()))
    }

    /// Completes when the database is closed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Lets a writer that waits for disk space give up.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    async fn write(&self, batch: WriteBatch) -> io::Result<()> {
        let data = batch.data().to_vec();
        let mut batch = Some(batch);
        loop {
            let attempt = batch.take().unwrap_or_else(|| WriteBatch::from_data(&data));
            let result = match &*self.database.db.read() {
                // Only memory is written, so this does not wait.
                Some(db) => db::write(db, attempt),
                None => return Err(io::Error::other("the state is closed")),
            };
            match result {
                Ok(()) => return Ok(()),
                Err(error) if is_no_space(&error) && !self.stopping.load(Ordering::Relaxed) => {
                    // RocksDB resumes by itself when there is room.
                    warn!(%error, "no space for the state: waiting");
                    self.disk.write_failed();
                    tokio::time::sleep(FULL_RETRY).await;
                }
                Err(error) => return Err(io_error(error)),
            }
        }
    }

    /// Makes a snapshot of the state as it is.
    fn build(&self) -> io::Result<Snapshot> {
        let path = self.new_snapshot_path("built");
        let (meta, dir) = match &*self.database.db.read() {
            Some(db) => snapshot::build(db, path).map_err(io_error)?,
            None => return Err(io::Error::other("the state is closed")),
        };
        let snapshot = Snapshot { meta: snapshot_meta(&meta), snapshot: dir };
        let mut current = self.current.lock();
        // A newer one may have been installed meanwhile.
        if current.as_ref().is_none_or(|held| held.meta.last_log_id < snapshot.meta.last_log_id) {
            *current = Some(snapshot.clone());
        }
        Ok(snapshot)
    }

    fn replace(&self, dir: &SnapshotDir) -> io::Result<(Meta, barque_store::Restored)> {
        let path = &self.database.path;
        let new = path.with_extension("new");
        remove(&new)?;
        snapshot::materialize(dir.path(), &new)?;
        let mut slot = self.database.db.write();
        // Look before leaping: a snapshot that cannot be read replaces nothing.
        let db = db::open(&new, self.write_buffer_bytes).map_err(io_error)?;
        let loaded = db::load(&db, &new, &self.vault).map_err(io_error)?;
        db::renew(&db, &new, &self.vault).map_err(io_error)?;
        drop(db);
        *slot = None;
        let old = path.with_extension("old");
        remove(&old)?;
        fs::rename(path, &old)?;
        fs::rename(&new, path)?;
        sync_parent(path)?;
        remove(&old)?;
        *slot = Some(db::open(path, self.write_buffer_bytes).map_err(io_error)?);
        Ok(loaded)
    }

    fn advance(&self, meta: &Meta) {
        *self.meta.lock() = meta.clone();
        self.applied.send_replace(AppliedPoint::of(meta.applied.as_ref()));
    }
}

fn is_out_of_space(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull || {
        let text = error.get_ref().map(|inner| crate::error::chain(inner)).unwrap_or_default();
        text.contains("No space left") || text.contains("NoSpace")
    }
}

fn snapshot_meta(meta: &Meta) -> SnapshotMeta {
    SnapshotMeta { last_log_id: meta.applied, last_membership: meta.membership.clone() }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Finishes or undoes a replacement that a crash interrupted.
fn settle(path: &Path) -> Result<(), OpenError> {
    let (new, old) = (path.with_extension("new"), path.with_extension("old"));
    let settle = || {
        if !path.exists() && new.join("CURRENT").exists() {
            // Complete and synced, or the old one would not have been moved.
            fs::rename(&new, path)?;
            sync_parent(path)?;
        }
        remove(&new)?;
        remove(&old)
    };
    settle().map_err(|error| OpenError::io("settle", path, error))
}

/// See the module's documentation.
pub struct StateMachine {
    replica: Replica,
    meta: Meta,
    shared: Arc<StateShared>,
}

impl StateMachine {
    /// Opens the state in a data directory and checks all of it.
    pub fn open(
        data_dir: &Path,
        limits: Limits,
        vault: Vault,
        disk: Arc<DiskGuard>,
        write_buffer_bytes: usize,
    ) -> Result<Self, OpenError> {
        let path = data_dir.join("state");
        settle(&path)?;
        let snapshots = data_dir.join("snapshots");
        // Checkpoints are made anew after a restart: the state itself is
        // durable as far as the log was purged.
        remove(&snapshots).map_err(|error| OpenError::io("remove", &snapshots, error))?;
        fs::create_dir_all(&snapshots).map_err(|error| OpenError::io("create", &snapshots, error))?;
        let db = db::open(&path, write_buffer_bytes)?;
        let (meta, restored) = db::load(&db, &path, &vault)?;
        db::renew(&db, &path, &vault)?;
        let mut replica = Replica::new(limits);
        replica.restore(restored);
        let shared = Arc::new(StateShared {
            database: Database { db: RwLock::new(Some(db)), path },
            snapshots,
            current: Mutex::new(None),
            applied: watch::Sender::new(AppliedPoint::of(meta.applied.as_ref())),
            meta: Mutex::new(meta.clone()),
            digests: Mutex::default(),
            serial: AtomicU64::new(0),
            disk,
            stopping: AtomicBool::new(false),
            closed: CancellationToken::new(),
            vault,
            write_buffer_bytes,
        });
        Ok(Self { replica, meta, shared })
    }

    /// What others may know.
    pub fn shared(&self) -> Arc<StateShared> {
        Arc::clone(&self.shared)
    }

    /// The read side.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(self.replica.view())
    }

    fn apply_entry(&mut self, entry: &Entry, changes: &mut Changes) -> io::Result<Reply> {
        let id = entry.log_id();
        let reply = match &entry.payload {
            EntryPayload::Blank => Reply::default(),
            EntryPayload::Normal(batch) => {
                let txns = batch.txns().map_err(io_error)?;
                let applied = self.replica.apply(Term(term_of(&id)), &txns);
                for event in &applied.events {
                    self.meta.digest.change(event);
                }
                changes.add(&applied);
                Reply { outcomes: applied.outcomes }
            }
            EntryPayload::Membership(membership) => {
                self.meta.membership = Membership::new(Some(id), membership.clone());
                Reply::default()
            }
        };
        self.meta.applied = Some(id);
        self.meta.revision = self.replica.state().revision();
        if id.index.is_multiple_of(DIGEST_INTERVAL) {
            let mut digests = self.shared.digests.lock();
            digests.push_back((id.index, self.meta.digest));
            if digests.len() > DIGESTS {
                digests.pop_front();
            }
        }
        Ok(reply)
    }

    async fn commit(&mut self, changes: Changes, answers: Vec<(ApplyResponder<TypeConfig>, Reply)>) -> io::Result<()> {
        self.shared.write(changes.finish(&self.meta)).await?;
        self.replica.publish();
        self.shared.advance(&self.meta);
        for (responder, reply) in answers {
            responder.send(reply);
        }
        Ok(())
    }
}

impl Drop for StateMachine {
    fn drop(&mut self) {
        if let Some(db) = self.shared.database.db.write().take() {
            // Saves replaying the log; a crash does without.
            if let Err(error) = db::flush(&db) {
                warn!(%error, "cannot flush the state");
            }
            db.cancel_all_background_work(true);
        }
        self.shared.closed.cancel();
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.meta.applied, self.meta.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut changes = Changes::new(self.shared.vault.clone());
        let mut answers = Vec::new();
        let mut applied = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let reply = self.apply_entry(&entry, &mut changes)?;
            applied += 1;
            if let Some(responder) = responder {
                answers.push((responder, reply));
            }
            if applied >= BATCH_ENTRIES || changes.bytes() >= BATCH_BYTES {
                let full = std::mem::replace(&mut changes, Changes::new(self.shared.vault.clone()));
                self.commit(full, std::mem::take(&mut answers)).await?;
                applied = 0;
            }
        }
        if applied > 0 {
            self.commit(changes, answers).await?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        // A snapshot makes room by and by, but needs some first.
        if !force && self.shared.disk.is_exhausted() {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { shared: Arc::clone(&self.shared) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotDir) -> Result<(), io::Error> {
        let shared = Arc::clone(&self.shared);
        let dir = snapshot.clone();
        let replaced = tokio::task::spawn_blocking(move || shared.replace(&dir)).await;
        let (inside, restored) = replaced.map_err(|error| io::Error::other(error.to_string())).flatten()?;
        if inside.applied != meta.last_log_id {
            return Err(io::Error::other("the snapshot does not hold what its header says"));
        }
        info!(applied = ?inside.applied, revision = %inside.revision, "installed a snapshot");
        self.meta = inside;
        self.replica.restore(restored);
        self.shared.digests.lock().clear();
        *self.shared.current.lock() = Some(Snapshot { meta: meta.clone(), snapshot });
        self.shared.advance(&self.meta);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.shared.current.lock().clone();
        Ok(current)
    }
}

/// Makes snapshots while the state goes on changing.
pub struct SnapshotBuilder {
    shared: Arc<StateShared>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        loop {
            let shared = Arc::clone(&self.shared);
            let built = tokio::task::spawn_blocking(move || shared.build()).await;
            let built = built.map_err(|error| io::Error::other(error.to_string())).flatten();
            match built {
                // A replica does not end for want of space.
                Err(error) if is_out_of_space(&error) && !self.shared.stopping.load(Ordering::Relaxed) => {
                    warn!(%error, "no space for a snapshot: waiting");
                    self.shared.disk.write_failed();
                    tokio::time::sleep(FULL_RETRY).await;
                }
                built => return built,
            }
        }
    }
}
