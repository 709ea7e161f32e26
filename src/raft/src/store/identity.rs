//! Whose data a directory holds: a file that is written once a new replica is
//! complete. Data of another master or cluster are refused, and a directory
//! that has lost a database is told from a new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::OpenError;
use crate::options::Options;

#[derive(Serialize, Deserialize)]
struct Identity {
    master: u64,
    cluster: String,
}

fn path(options: &Options) -> PathBuf {
    options.data_dir.join("identity.json")
}

/// Checks the directory's owner; true if the directory has none yet.
pub fn claim(options: &Options) -> Result<bool, OpenError> {
    let dir = &options.data_dir;
    fs::create_dir_all(dir).map_err(|error| OpenError::io("create", dir, error))?;
    let path = path(options);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(OpenError::io("read", path, error)),
    };
    let found: Identity = serde_json::from_str(&text).map_err(|error| OpenError::damaged(&path, error.to_string()))?;
    if found.master != options.id.0 || found.cluster != options.cluster_id {
        return Err(OpenError::ForeignData {
            path: dir.clone(),
            found: found.master,
            found_cluster: found.cluster,
            expected: options.id.0,
            expected_cluster: options.cluster_id.clone(),
        });
    }
    Ok(false)
}

/// Marks the directory as owned and complete, durably.
pub fn settle(options: &Options) -> Result<(), OpenError> {
    let path = path(options);
    if path.exists() {
        return Ok(());
    }
    let identity = Identity { master: options.id.0, cluster: options.cluster_id.clone() };
    let text = serde_json::to_string(&identity).expect("a number and a text always encode");
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&options.data_dir)?.sync_all()
    };
    write().map_err(|error| OpenError::io("write", &path, error))
}
