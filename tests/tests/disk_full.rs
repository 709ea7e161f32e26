//! A full disk: writes are refused with a clear error, reads go on, and the
//! cluster recovers by itself when there is room again.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use barque_tests::{Client, Cluster, Options, eventually, process, skip_unless};
use http::Method;
use serde_json::{Value, json};

/// A small file system that goes away with this value.
struct Tmpfs {
    at: PathBuf,
}

impl Tmpfs {
    /// Mounts one; `None` without the right to.
    fn mount(at: &Path, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).ok()?;
        let option = format!("size={mebibytes}m");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(at).status().ok()?;
        status.success().then(|| Self { at: at.to_path_buf() })
    }

    /// Writes a file until nothing more fits.
    fn fill(&self) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4 << 10, 512] {
            let block = vec![0xAA; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process may still be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn configmap(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x".repeat(2_000)}})
}

async fn write(client: &Client, path: &str) -> Result<barque_tests::Response, String> {
    let request = client.request(Method::POST, path).json(&configmap(&barque_tests::unique("w")));
    request.timeout(Duration::from_secs(30)).send().await.map_err(|error| error.to_string())
}

async fn writable(client: &Client, path: &str) {
    eventually("writes succeed", || async {
        let response = write(client, path).await?;
        if response.status == 201 { Ok(()) } else { Err(response.text()) }
    })
    .await;
}

/// The disk of all masters is full. Keeps out: crashes, wedged clusters,
/// unclear errors, reads that die with the writes, recovery by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_recovers() {
    let directory = tempfile::Builder::new().prefix("barque-test-").tempdir().unwrap();
    let mount = Tmpfs::mount(&directory.path().join("disk"), 1_024);
    skip_unless!(mount.is_some(), "mounting a tmpfs (root)");
    let disk = mount.unwrap();
    let options = Options { directory: Some(disk.at.clone()), ..Options::default() };
    let cluster = Cluster::start(options).await;
    let clients = cluster.clients();
    let namespace = cluster.namespace("full").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    for client in &clients {
        writable(client, &path).await;
    }
    let pids: Vec<_> = cluster.masters().iter().map(|master| master.pid()).collect();
    let before = clients[0].get(&path).await.unwrap().expect(200).json()["items"].as_array().unwrap().len();

    for round in 0..2 {
        disk.fill();
        for client in &clients {
            // Masters may give back what they had set aside: somebody else
            // takes that, too.
            let refused = eventually("writes are refused", || async {
                disk.fill();
                let response = write(client, &path).await?;
                if response.status == 201 { Err("still accepted".to_owned()) } else { Ok(response) }
            })
            .await;
            assert!(matches!(refused.status.as_u16(), 503 | 507), "{}: {}", refused.status, refused.text());
            let status = refused.json();
            assert_eq!(status["kind"], "Status", "{status}");
            let message = status["message"].as_str().unwrap().to_lowercase();
            assert!(message.contains("disk") || message.contains("space"), "an operator must see why: {message}");
            // Reads: linearizable ones as well.
            let list = client.get(&path).await.unwrap().expect(200).json();
            assert!(list["items"].as_array().unwrap().len() >= before, "round {round}");
        }
        for pid in &pids {
            assert!(process::alive(*pid), "a master died of a full disk");
        }
        disk.empty();
        for client in &clients {
            writable(client, &path).await;
        }
    }
    let now: Vec<_> = cluster.masters().iter().map(|master| master.pid()).collect();
    assert_eq!(now, pids, "recovery took a restart");
}

/// The disk of one master is full, be it the leader's. Keeps out: one bad
/// disk that takes the group's writes down.
#[tokio::test(flavor = "multi_thread")]
async fn one_full_disk_does_not_stop_the_others() {
    let root = tempfile::Builder::new().prefix("barque-test-").tempdir().unwrap();
    let options = Options { directory: Some(root.path().to_path_buf()), ..Options::default() };
    let mut cluster = Cluster::start(options).await;
    // Put the leader's data on a disk of its own.
    let leader = cluster.leader().await;
    cluster.stop().await;
    let aside = root.path().join("aside");
    std::fs::rename(&leader.data_dir, &aside).unwrap();
    let mount = Tmpfs::mount(&leader.data_dir, 512);
    if mount.is_none() {
        std::fs::remove_dir(&leader.data_dir).unwrap();
    }
    skip_unless!(mount.is_some(), "mounting a tmpfs (root)");
    let disk = mount.unwrap();
    let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(&leader.data_dir).status().unwrap();
    assert!(copied.success());
    cluster.launch().await;

    let namespace = cluster.namespace("one-full").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let healthy: Vec<_> = cluster
        .masters()
        .iter()
        .filter(|master| master.name != leader.name)
        .map(|master| cluster.client_of(master))
        .collect();
    let own = cluster.client_of(&cluster.member(&leader.name));
    for client in healthy.iter().chain([&own]) {
        writable(client, &path).await;
    }
    disk.fill();
    // Whoever leads now: within the deadline the others write again.
    for client in &healthy {
        for _ in 0..5 {
            writable(client, &path).await;
        }
    }
    let _ = healthy[0].get(&path).await.unwrap().expect(200);
    disk.empty();
    writable(&own, &path).await;
    drop(cluster);
    drop(disk);
}
