//! The free space that the databases need to live.
//!
//! Below the reserve, writes that add data are refused while deletes go on.
//! Below a quarter of it a ballast file is given back, so that deletes and
//! compaction have room to make room. Below an eighth nothing is written any
//! more: this replica stops acknowledging and waits, without failing, until
//! there is room again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
use parking_lot::Mutex;
use tracing::{error, info, warn};

/// A smaller reserve, in bytes, needs no ballast.
const MIN_RESERVE: u64 = 4 << 10;

/// Free and total space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Available to this process.
    pub free: u64,
    /// Size of the file system.
    pub total: u64,
}

/// Asks for the space of the file system that holds a path.
pub type SpaceProbe = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// The file system's own answer.
#[must_use]
pub fn system_probe() -> SpaceProbe {
    Arc::new(|path| {
        let stat = statvfs(path)?;
        let unit = stat.fragment_size();
        Ok(Space { free: stat.blocks_available() * unit, total: stat.blocks() * unit })
    })
}

/// See the module's documentation.
pub struct DiskGuard {
    dir: PathBuf,
    wanted_reserve: u64,
    probe: SpaceProbe,
    free: AtomicU64,
    reserve: AtomicU64,
    low: AtomicBool,
    /// A write failed for lack of space since the last probe that saw room.
    failed: AtomicBool,
    ballast: Mutex<bool>,
}

impl DiskGuard {
    /// Watches the file system of a directory.
    pub fn new(dir: &Path, wanted_reserve: u64, probe: SpaceProbe) -> Self {
        let guard = Self {
            dir: dir.into(),
            wanted_reserve,
            probe,
            free: AtomicU64::new(u64::MAX),
            reserve: AtomicU64::new(wanted_reserve),
            low: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            ballast: Mutex::new(ballast_path(dir).exists()),
        };
        guard.check();
        guard
    }

    /// Looks at the disk, and gives back or takes the ballast accordingly.
    pub fn check(&self) {
        let space = match (self.probe)(&self.dir) {
            Ok(space) => space,
            Err(error) => {
                error!(%error, dir = %self.dir.display(), "cannot ask for free disk space");
                return;
            }
        };
        let reserve = self.wanted_reserve.min(space.total / 8).max(1);
        self.reserve.store(reserve, Ordering::Relaxed);
        self.free.store(space.free, Ordering::Relaxed);
        let was_low = self.low.load(Ordering::Relaxed);
        // Ballasts that were given back (masters may share a file system) look
        // like room and are not: they must fit in again first.
        let owed = if *self.ballast.lock() { 0 } else { reserve.saturating_mul(2) };
        let is_low = if was_low {
            space.free < reserve.saturating_add(reserve / 4).saturating_add(owed)
        } else {
            space.free < reserve || self.failed.load(Ordering::Relaxed)
        };
        if !is_low {
            self.failed.store(false, Ordering::Relaxed);
        }
        if was_low != is_low {
            self.low.store(is_low, Ordering::Relaxed);
            if is_low {
                warn!(free = space.free, reserve, "the disk is full: only deletes are accepted");
            } else {
                info!(free = space.free, reserve, "the disk has room again");
            }
        }
        let mut ballast = self.ballast.lock();
        if *ballast && (space.free < reserve / 4 || self.failed.load(Ordering::Relaxed)) {
            match fs::remove_file(ballast_path(&self.dir)) {
                Ok(()) => *ballast = false,
                Err(error) => error!(%error, "cannot give the disk reserve back"),
            }
        } else if !*ballast && reserve >= MIN_RESERVE && space.free > reserve.saturating_mul(2) {
            match take_ballast(&self.dir, reserve / 2) {
                Ok(()) => *ballast = true,
                Err(error) => warn!(%error, "cannot set the disk reserve aside"),
            }
        }
    }

    /// A write failed for lack of space.
    pub fn write_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
        self.check();
    }

    /// Whether writes that add data are refused.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Whether nothing at all is to be written.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.free.load(Ordering::Relaxed) < self.reserve.load(Ordering::Relaxed) / 8
    }

    /// What to tell a client.
    #[must_use]
    pub fn message(&self) -> String {
        let free = self.free.load(Ordering::Relaxed) >> 20;
        let reserve = self.reserve.load(Ordering::Relaxed) >> 20;
        format!("{free} MiB free in {}, {reserve} MiB are reserved", self.dir.display())
    }
}

fn ballast_path(dir: &Path) -> PathBuf {
    dir.join("reserve")
}

fn take_ballast(dir: &Path, bytes: u64) -> io::Result<()> {
    let path = ballast_path(dir);
    let file = File::create(&path)?;
    let length = i64::try_from(bytes).map_err(io::Error::other)?;
    posix_fallocate(&file, 0, length).map_err(|error| {
        let _ = fs::remove_file(&path);
        io::Error::from(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ballast_is_given_back_when_it_matters_and_taken_again_later() {
        let dir = tempfile::tempdir().expect("a directory");
        let free = Arc::new(AtomicU64::new(100 << 20));
        let probe: SpaceProbe = {
            let free = Arc::clone(&free);
            Arc::new(move |_| Ok(Space { free: free.load(Ordering::Relaxed), total: 1 << 30 }))
        };
        let guard = DiskGuard::new(dir.path(), 1 << 20, probe);
        assert!(!guard.is_low() && ballast_path(dir.path()).exists());
        free.store(900 << 10, Ordering::Relaxed);
        guard.check();
        assert!(guard.is_low() && !guard.is_exhausted() && ballast_path(dir.path()).exists());
        free.store(100 << 10, Ordering::Relaxed);
        guard.check();
        assert!(guard.is_low() && guard.is_exhausted() && !ballast_path(dir.path()).exists());
        free.store(1100 << 10, Ordering::Relaxed);
        guard.check();
        assert!(guard.is_low(), "recovery needs some more room than the reserve");
        free.store(100 << 20, Ordering::Relaxed);
        guard.check();
        assert!(!guard.is_low() && ballast_path(dir.path()).exists());
    }

    #[test]
    fn a_small_file_system_gets_a_small_reserve() {
        let dir = tempfile::tempdir().expect("a directory");
        let probe: SpaceProbe = Arc::new(|_| Ok(Space { free: 3 << 20, total: 16 << 20 }));
        assert!(!DiskGuard::new(dir.path(), 64 << 20, probe).is_low());
    }
}
