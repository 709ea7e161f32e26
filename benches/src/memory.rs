//! Resident memory of masters, idle and with many objects.

use std::path::Path;
use std::time::Duration;

use barque_tests::{Cluster, Options, process};
use serde::Serialize;
use tokio::time::Instant;

use crate::kube::{Targets, namespace, prepare};

/// A process counts as settled after this long without growing.
const SETTLED: Duration = Duration::from_secs(5);
/// Nothing waits longer for that.
const GIVE_UP: Duration = Duration::from_mins(1);

/// The result.
#[derive(Debug, Serialize)]
pub struct Memory {
    objects: u64,
    value_bytes: usize,
    /// MiB of each master.
    pub idle_mib: Vec<f64>,
    /// MiB of each master.
    pub full_mib: Vec<f64>,
    fill_seconds: f64,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "memory         masters idle: {} MiB; with {} ConfigMaps of {} B: {} MiB (filled in {:.1} s)",
            list(&self.idle_mib),
            self.objects,
            self.value_bytes,
            list(&self.full_mib),
            self.fill_seconds
        )
    }
}

/// `1, 2, 3`.
pub fn list(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.0}")).collect::<Vec<_>>().join(", ")
}

/// Of a local cluster.
pub async fn local(objects: u64, bytes: usize, directory: Option<&Path>) -> Result<Memory, String> {
    let options = Options { directory: directory.map(Path::to_path_buf), ..Options::default() };
    let cluster = Cluster::start(options).await;
    let idle_mib = settled(&cluster).await;
    let targets = Targets::of(&cluster);
    let path = namespace(&targets).await?;
    let start = Instant::now();
    prepare(&targets, &path, objects as usize, bytes).await?;
    let fill_seconds = start.elapsed().as_secs_f64();
    let full_mib = settled(&cluster).await;
    Ok(Memory { objects, value_bytes: bytes, idle_mib, full_mib, fill_seconds })
}

/// Waits until no master grows any more; their sizes in MiB.
async fn settled(cluster: &Cluster) -> Vec<f64> {
    let sizes = || -> Vec<u64> {
        cluster.masters().iter().map(|master| process::resident_bytes(master.pid()).unwrap_or(0)).collect()
    };
    let begin = Instant::now();
    let mut last = sizes();
    let mut since = Instant::now();
    while since.elapsed() < SETTLED && begin.elapsed() < GIVE_UP {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = sizes();
        if now.iter().zip(&last).any(|(now, last)| now.abs_diff(*last) > 1 << 20) {
            since = Instant::now();
            last = now;
        }
    }
    sizes().into_iter().map(|bytes| bytes as f64 / f64::from(1 << 20)).collect()
}
