//! The write gap: how long after kill -9 of the leader a client of another
//! master waits for its next acknowledged write.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use barque_tests::{Client, Cluster, Options};
use http::Method;
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::Instant;

use crate::kube::{Targets, configmap, namespace};
use crate::measure::median;

/// A gap is not measured further than this.
const GIVE_UP: Duration = Duration::from_mins(1);
/// Time of undisturbed writing before a kill.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// Writers for each server.
const WRITERS: usize = 2;
/// A write without an answer after this long is tried anew.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The result.
#[derive(Debug, Serialize)]
pub struct Gaps {
    kills: usize,
    /// Milliseconds.
    pub median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    each_ms: Vec<f64>,
}

impl Gaps {
    /// Of single gaps.
    pub fn new(gaps: Vec<Duration>) -> Self {
        let mut each_ms: Vec<_> = gaps.iter().map(|gap| gap.as_secs_f64() * 1_000.0).collect();
        each_ms.sort_by(f64::total_cmp);
        Self {
            kills: each_ms.len(),
            median_ms: median(each_ms.iter().copied()),
            min_ms: each_ms.first().copied().unwrap_or(0.0),
            max_ms: each_ms.last().copied().unwrap_or(0.0),
            each_ms,
        }
    }
}

impl std::fmt::Display for Gaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "failover       {} kills: write gap median {:.0} ms, min {:.0} ms, max {:.0} ms",
            self.kills, self.median_ms, self.min_ms, self.max_ms
        )
    }
}

/// Kills leaders of a local cluster, one after the other.
pub async fn kill_leaders(kills: usize, directory: Option<&Path>) -> Result<Vec<Duration>, String> {
    let options = Options { directory: directory.map(Path::to_path_buf), ..Options::default() };
    let cluster = Cluster::start(options).await;
    let path = namespace(&Targets::of(&cluster)).await?;
    let mut gaps = Vec::new();
    for _ in 0..kills {
        let leader = cluster.leader().await;
        let others: Vec<_> = cluster
            .masters()
            .iter()
            .filter(|master| master.name != leader.name)
            .map(|master| cluster.client_of(master))
            .collect();
        gaps.push(gap(&others, &path, leader.pid()).await?);
        let back = cluster.restart(&leader.name).await;
        cluster.await_ready(&back).await;
    }
    Ok(gaps)
}

/// Kills one given process.
pub async fn kill_once(targets: &Targets, pid: u32) -> Result<Duration, String> {
    let path = namespace(targets).await?;
    let clients: Vec<_> = (0..targets.len()).map(|server| targets.client(server)).collect();
    gap(&clients, &path, pid).await
}

/// Writes all the time, kills, and waits for the first acknowledged write
/// that was *sent* after the kill.
async fn gap(clients: &[Client], path: &str, pid: u32) -> Result<Duration, String> {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, mut acknowledged) = tokio::sync::mpsc::channel::<(Instant, Instant)>(4_096);
    for client in clients.iter().cycle().take(clients.len() * WRITERS) {
        let (client, path, stop, sender) = (client.clone(), path.to_owned(), stop.clone(), sender.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let object = configmap(&barque_tests::unique("gap"), 64);
                let sent = Instant::now();
                let request = client.request(Method::POST, &path).json(&object).timeout(ATTEMPT);
                match request.send().await {
                    Ok(response) if response.status == 201 => {
                        if sender.send((sent, Instant::now())).await.is_err() {
                            return;
                        }
                    }
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
    }
    drop(sender);
    let warm = Instant::now();
    let mut count = 0;
    while warm.elapsed() < WARM_UP {
        if let Ok(Some(_)) = tokio::time::timeout(WARM_UP, acknowledged.recv()).await {
            count += 1;
        }
    }
    if count == 0 {
        return Err("no write succeeds even before the kill".into());
    }
    let killed = Instant::now();
    if !barque_tests::process::signal(pid, Signal::SIGKILL) {
        return Err(format!("cannot kill process {pid}"));
    }
    // Only writes that the dead leader cannot have taken count.
    let dead = Instant::now();
    let first = tokio::time::timeout(GIVE_UP, async {
        while let Some((sent, answered)) = acknowledged.recv().await {
            if sent >= dead {
                return Some(answered - killed);
            }
        }
        None
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    first.ok().flatten().ok_or_else(|| format!("no write succeeds {} s after the kill", GIVE_UP.as_secs()))
}
