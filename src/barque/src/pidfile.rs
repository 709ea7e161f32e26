//! Pid files: they keep two processes off one data directory, and tell
//! `barque dev` which process serves it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::files::{self, FileError};

/// Environment variable with the pid of the `barque dev` that a member belongs
/// to: it stops when that process is gone.
pub const PARENT_VARIABLE: &str = "BARQUE_DEV_PID";

/// Why a data directory cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// Another process has it.
    #[error("{} is in use by process {pid}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, as its file says.
        pid: String,
    },
    /// The file cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Holds a data directory; given up when dropped or when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct PidFile {
    _lock: Flock<File>,
}

impl PidFile {
    /// Takes a data directory for this process.
    ///
    /// # Errors
    /// When another process has it.
    pub fn take(directory: &Path) -> Result<Self, PidFileError> {
        files::create_dir(directory)?;
        let path = file_path(directory);
        let failed = |source| FileError { action: "create", path: path.clone(), source };
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed)?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, _)| {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            PidFileError::InUse { path: directory.to_owned(), pid: pid.trim().to_owned() }
        })?;
        lock.set_len(0).map_err(failed)?;
        lock.rewind().map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        lock.flush().map_err(failed)?;
        Ok(Self { _lock: lock })
    }
}

/// The pid of the process that holds a data directory, if one does.
#[must_use]
pub fn running(directory: &Path) -> Option<u32> {
    let mut file = OpenOptions::new().read(true).write(true).open(file_path(directory)).ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        // Nobody holds it; our lock ends with this statement.
        Ok(_) => None,
        Err(_) => text.trim().parse().ok(),
    }
}

fn file_path(directory: &Path) -> PathBuf {
    directory.join("pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(running(directory.path()), None);
        let held = PidFile::take(directory.path()).unwrap();
        assert_eq!(running(directory.path()), Some(std::process::id()));
        let refused = PidFile::take(directory.path()).unwrap_err();
        assert!(refused.to_string().contains(&format!("in use by process {}", std::process::id())), "{refused}");
        drop(held);
        assert_eq!(running(directory.path()), None);
    }
}
