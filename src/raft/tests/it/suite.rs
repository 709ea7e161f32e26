//! openraft's own test suite for storage.

use std::sync::Arc;

use barque_raft::disk::{DiskGuard, system_probe};
use barque_raft::log::LogStore;
use barque_raft::state::StateMachine;
use barque_raft::{Bounds, KeyRing, TypeConfig, Vault};
use barque_store::Limits;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(DiskGuard::new(dir.path(), 1, system_probe()));
        let bounds = Bounds { write_buffer_bytes: 1 << 20, ..Bounds::default() };
        let vault = Vault::new(&KeyRing::parse(&KeyRing::new_line()).unwrap());
        let log = LogStore::open(dir.path(), &bounds, vault.clone(), Arc::clone(&disk), true).unwrap();
        let state = StateMachine::open(dir.path(), Limits::default(), vault, disk, bounds.write_buffer_bytes).unwrap();
        Ok((dir, log, state))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_accepts_the_storage() {
    Suite::test_all(Builder).await.unwrap();
}
