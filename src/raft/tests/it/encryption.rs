//! Encryption at rest on real files: nothing readable in any of them, keys
//! can be rotated, and a missing key is said and not taken for damage.

use std::fs;
use std::path::Path;

use barque_raft::{KeyRing, OpenError, Options, RaftStore, Vault};
use barque_store::{MasterId, Store};

use crate::authority::Authority;
use crate::group::{PATIENCE, eventually, put, value_of};

const SECRET: &str = "correct horse battery staple";

fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

async fn open(authority: &Authority, dir: &Path, keys: &[&str]) -> Result<RaftStore, OpenError> {
    let mut options = Options::new(MasterId(1), "m1", "cluster", dir, authority.master(1));
    if !keys.is_empty() {
        options.vault = Vault::new(&KeyRing::parse(&keys.concat()).unwrap());
    }
    RaftStore::open(options).await
}

async fn reopen(authority: &Authority, dir: &Path, keys: &[&str]) -> RaftStore {
    let store = open(authority, dir, keys).await.unwrap();
    eventually("the master leads", || store.leadership().borrow().leader).await;
    store.read_barrier(PATIENCE).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_secret_through_rotations() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("m1");
    let authority = Authority::new();
    let (old, new) = (KeyRing::new_line(), KeyRing::new_line());

    // A cluster that began without keys: readable.
    let store = open(&authority, &dir, &[]).await.unwrap();
    let member = barque_raft::Member { id: MasterId(1), name: "m1".to_owned(), address: "127.0.0.1:1".to_owned() };
    store.initialize(&[member]).await.unwrap();
    eventually("the master leads", || store.leadership().borrow().leader).await;
    store.propose(put("first", SECRET), PATIENCE).await.unwrap();
    store.shutdown().await;
    drop(store);
    assert!(!files_with(&dir, SECRET).is_empty(), "the test does not see what is readable");

    // With a key nothing is, old or new.
    let store = reopen(&authority, &dir, &[&old]).await;
    store.propose(put("second", SECRET), PATIENCE).await.unwrap();
    store.trigger_snapshot().await;
    store.shutdown().await;
    drop(store);
    assert_eq!(files_with(&dir, SECRET), Vec::<String>::new());

    // Neither none nor another key opens it, and nothing calls it damaged.
    for (keys, name) in [(vec![], "no key"), (vec![new.as_str()], "another key")] {
        let error = open(&authority, &dir, &keys).await.err().expect(name);
        assert!(matches!(error, OpenError::MissingKey { .. }) && !error.is_damage(), "{name}: {error}");
    }

    // The old key may go once the new one was the first.
    let store = reopen(&authority, &dir, &[&new, &old]).await;
    store.shutdown().await;
    drop(store);
    let store = reopen(&authority, &dir, &[&new]).await;
    for name in ["first", "second"] {
        assert_eq!(value_of(&store, name).as_deref(), Some(SECRET));
    }
    store.shutdown().await;
}
