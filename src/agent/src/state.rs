//! The assignments on disk, so that a node carries on without masters after a
//! restart of its agent. A file is replaced whole: written aside, synced,
//! renamed.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::assignments::{Assignments, Held, Key};
use crate::error::AgentError;

/// Version of the file's format.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    format: u32,
    cluster_id: String,
    highest_term: u64,
    version: u64,
    #[serde(borrow)]
    objects: Vec<Entry<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    resource: String,
    namespace: String,
    name: String,
    uid: String,
    revision: u64,
    #[serde(borrow)]
    json: &'a RawValue,
}

/// Where one node's assignments are kept.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// `DIR/agent/<node>.json`; makes the directory, readable by its owner only
    /// (assignments hold Secrets).
    pub fn new(data_dir: &Path, node: &str) -> Result<Self, AgentError> {
        let dir = data_dir.join("agent");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(AgentError::file("make", &dir))?;
        Ok(Self { path: dir.join(format!("{node}.json")) })
    }

    /// What was kept. A file that cannot be understood is set aside: the next
    /// master sends everything anew, and nothing is stopped until it has.
    pub fn load(&self) -> Result<Assignments, AgentError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Assignments::default()),
            Err(error) => return Err(AgentError::file("read", &self.path)(error)),
        };
        match decode(&text) {
            Ok(assignments) => Ok(assignments),
            Err(problem) => {
                let aside = self.path.with_extension("damaged");
                tracing::error!(path = %self.path.display(), %problem, aside = %aside.display(),
                    "kept assignments are damaged and were set aside");
                fs::rename(&self.path, &aside).map_err(AgentError::file("set aside", &self.path))?;
                Ok(Assignments::default())
            }
        }
    }

    /// Replaces what is kept.
    pub fn save(&self, assignments: &Assignments) -> Result<(), AgentError> {
        let text = encode(assignments);
        let aside = self.path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        write().map_err(AgentError::file("write", &self.path))
    }
}

fn encode(assignments: &Assignments) -> Vec<u8> {
    let objects = assignments.objects.iter().filter_map(|(key, held)| {
        // What is no JSON was reported on arrival and is of no use later.
        let json = serde_json::from_slice::<&RawValue>(&held.json).ok()?;
        Some(Entry {
            resource: key.resource.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: held.uid.clone(),
            revision: held.revision,
            json,
        })
    });
    let envelope = Envelope {
        format: FORMAT,
        cluster_id: assignments.cluster_id.clone(),
        highest_term: assignments.highest_term,
        version: assignments.version,
        objects: objects.collect(),
    };
    serde_json::to_vec(&envelope).expect("maps with string keys encode")
}

fn decode(text: &[u8]) -> Result<Assignments, String> {
    let envelope: Envelope<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if envelope.format != FORMAT {
        return Err(format!("format {} is not known", envelope.format));
    }
    let object = |entry: Entry<'_>| {
        let key = Key { resource: entry.resource, namespace: entry.namespace, name: entry.name };
        let json = Bytes::copy_from_slice(entry.json.get().as_bytes());
        (key, Held { uid: entry.uid, revision: entry.revision, json })
    };
    Ok(Assignments {
        cluster_id: envelope.cluster_id,
        highest_term: envelope.highest_term,
        version: envelope.version,
        objects: envelope.objects.into_iter().map(object).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = StateFile::new(dir.path(), "n").expect("made");
        assert_eq!(file.load().expect("loads"), Assignments::default());
        let key = Key { resource: "pods".into(), namespace: "ns".into(), name: "a".into() };
        let held = Held { uid: "u".into(), revision: 7, json: Bytes::from_static(br#"{"a":1.50,"b":"x"}"#) };
        let kept = Assignments { cluster_id: "c".into(), highest_term: 3, version: 9, objects: [(key, held)].into() };
        file.save(&kept).expect("saves");
        assert_eq!(file.load().expect("loads"), kept);
        let path = dir.path().join("agent/n.json");
        let text = fs::read(&path).expect("there");
        fs::write(&path, &text[..text.len() / 2]).expect("cut");
        assert_eq!(file.load().expect("loads"), Assignments::default());
        assert!(dir.path().join("agent/n.damaged").exists());
    }
}
