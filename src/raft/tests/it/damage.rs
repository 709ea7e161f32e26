//! Flipped bits and missing ends: found, or harmless.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barque_raft::disk::{DiskGuard, system_probe};
use barque_raft::log::LogStore;
use barque_raft::state::StateMachine;
use barque_raft::types::Batch;
use barque_raft::{Bounds, OpenError, TypeConfig, Vault};
use barque_store::{Limits, Revision};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::EntryOf;
use openraft::vote::RaftLeaderId;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::group::put;

type Entry = EntryOf<TypeConfig>;

/// Copies a directory that somebody may be writing; files that vanish
/// meanwhile were not part of it.
pub fn copy_live(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        if item.file_type().is_ok_and(|kind| kind.is_file()) && item.file_name() != "LOCK" {
            let _ = fs::copy(item.path(), to.join(item.file_name()));
        }
    }
}

fn bounds() -> Bounds {
    // Small, so that there are tables besides the write-ahead log.
    Bounds { write_buffer_bytes: 64 << 10, ..Bounds::default() }
}

fn open(dir: &Path) -> Result<LogStore, OpenError> {
    let disk = Arc::new(DiskGuard::new(dir, 1, system_probe()));
    LogStore::open(dir, &bounds(), Vault::default(), disk, !dir.join("log").exists())
}

fn entry(index: u64) -> Entry {
    let leader = openraft::impls::leader_id_std::LeaderId::new(1, 1);
    let id = openraft::LogId::new(leader.to_committed(), index);
    Entry::new_normal(id, Batch::new(vec![put(&format!("n{index}"), &"x".repeat(200))]))
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    let (sender, flushed) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await.unwrap();
    flushed.await.unwrap().unwrap();
}

async fn write_log(dir: &Path, entries: u64) {
    let mut log = open(dir).unwrap();
    log.save_vote(&openraft::Vote::new_committed(1, 1)).await.unwrap();
    for index in 0..entries {
        append(&mut log, vec![entry(index)]).await;
    }
}

async fn check_intact(mut log: LogStore, entries: u64) {
    let mut reader = log.get_log_reader().await;
    let stored = reader.try_get_log_entries(..).await.unwrap();
    assert_eq!(stored.len() as u64, entries);
    assert!(stored.iter().enumerate().all(|(at, entry)| entry.index() == at as u64));
    assert_eq!(reader.read_vote().await.unwrap(), Some(openraft::Vote::new_committed(1, 1)));
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.is_file() && fs::metadata(path).unwrap().len() > 0)
        .filter(|path| !matches!(path.file_name().unwrap().to_str().unwrap(), "LOCK" | "LOG" | "IDENTITY"))
        .collect();
    files.sort();
    files
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_live(dir, copy.path());
    for part in ["log", "state"] {
        if dir.join(part).exists() {
            copy_live(&dir.join(part), &copy.path().join(part));
        }
    }
    copy
}

fn harm(file: &Path, position: f64, bit: u8, cut: bool) {
    let mut bytes = fs::read(file).unwrap();
    let at = ((bytes.len() as f64 * position) as usize).min(bytes.len() - 1);
    if cut {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << bit;
    }
    fs::write(file, bytes).unwrap();
}

fn run<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    // A case costs a copy of a database: a smaller example is not worth it.
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let mut runner = TestRunner::new(config);
    runner.run(&strategy, test).unwrap();
}

#[test]
fn a_log_with_flipped_bits_or_a_missing_end_is_refused_or_whole() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(write_log(dir.path(), 300));
    let harmed = std::cell::Cell::new(0);
    let refused = std::cell::Cell::new(0);
    run(150, (0.0..1.0f64, 0.0..1.0f64, 0u8..8, any::<bool>()), |(which, position, bit, cut)| {
        let copy = copy_of(dir.path());
        let files = files(&copy.path().join("log"));
        let file = &files[((files.len() as f64 * which) as usize).min(files.len() - 1)];
        harm(file, position, bit, cut);
        harmed.set(harmed.get() + 1);
        match open(copy.path()) {
            Ok(log) => runtime.block_on(check_intact(log, 300)),
            Err(error) => {
                prop_assert!(error.is_damage(), "not called damage: {error:?}");
                refused.set(refused.get() + 1);
                // And it stays refused.
                prop_assert!(open(copy.path()).is_err());
            }
        }
        Ok(())
    });
    println!("{} of {} were refused", refused.get(), harmed.get());
    assert!(refused.get() * 2 > harmed.get(), "only {} of {} were noticed", refused.get(), harmed.get());
}

#[test]
fn a_torn_end_that_was_never_synced_is_no_damage() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(write_log(dir.path(), 20));
    run(25, prop::collection::vec(any::<u8>(), 1..3000), |garbage| {
        let copy = copy_of(dir.path());
        let wal = files(&copy.path().join("log"))
            .into_iter()
            .rfind(|path| path.extension().is_some_and(|extension| extension == "log"))
            .unwrap();
        let mut bytes = fs::read(&wal).unwrap();
        bytes.extend_from_slice(&garbage);
        fs::write(&wal, bytes).unwrap();
        let log = open(copy.path()).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        runtime.block_on(check_intact(log, 20));
        Ok(())
    });
}

#[tokio::test]
async fn truncation_and_purge_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut log = open(dir.path()).unwrap();
        append(&mut log, (0..50).map(entry).collect()).await;
        log.truncate_after(Some(entry(29).log_id())).await.unwrap();
        append(&mut log, (30..40).map(entry).collect()).await;
        log.purge(entry(9).log_id()).await.unwrap();
        log.save_committed(Some(entry(35).log_id())).await.unwrap();
    }
    let mut log = open(dir.path()).unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id.unwrap().index, 39);
    assert_eq!(state.last_purged_log_id.unwrap().index, 9);
    let mut reader = log.get_log_reader().await;
    let stored = reader.try_get_log_entries(..).await.unwrap();
    assert_eq!(stored.iter().map(RaftEntry::index).collect::<Vec<_>>(), (10..40).collect::<Vec<_>>());
    // Everything may go: a snapshot from elsewhere.
    log.purge(entry(100).log_id()).await.unwrap();
    drop(log);
    let mut log = open(dir.path()).unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id.unwrap().index, 100);
    append(&mut log, vec![entry(101)]).await;
    drop(log);
    let mut log = open(dir.path()).unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id.unwrap().index, 101);
}

fn open_state(dir: &Path) -> Result<StateMachine, OpenError> {
    let disk = Arc::new(DiskGuard::new(dir, 1, system_probe()));
    StateMachine::open(dir, Limits::default(), Vault::default(), disk, bounds().write_buffer_bytes)
}

#[test]
fn a_state_with_flipped_bits_is_refused_or_whole() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let mut state = open_state(dir.path()).unwrap();
        let entries = (0..200).map(|index| Ok((entry(index), None)));
        state.apply(futures::stream::iter(entries)).await.unwrap();
    });
    let state = open_state(dir.path()).unwrap();
    assert_eq!(state.view().revision(), Revision(200));
    drop(state);
    run(60, (0.0..1.0f64, 0.0..1.0f64, 0u8..8), |(which, position, bit)| {
        let copy = copy_of(dir.path());
        let files = files(&copy.path().join("state"));
        let file = &files[((files.len() as f64 * which) as usize).min(files.len() - 1)];
        harm(file, position, bit, false);
        match open_state(copy.path()) {
            // An older prefix is legitimate: the log leads on from there.
            Ok(state) => {
                let revision = state.view().revision();
                prop_assert_eq!(state.view().snapshot().count("configmaps") as u64, revision.0);
            }
            Err(error) => prop_assert!(error.is_damage(), "not called damage: {error:?}"),
        }
        Ok(())
    });
}
