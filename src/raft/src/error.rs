//! Why a replica does not open.

use std::io;
use std::path::PathBuf;

use crate::envelope::EnvelopeError;

/// Why a replica does not open. `Damaged` is final: the replica must be
/// rebuilt from its peers, it never guesses.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is on disk is not what was acknowledged.
    #[error("the replica is damaged: {what} in {}", path.display())]
    Damaged {
        /// What was found.
        what: String,
        /// Where.
        path: PathBuf,
    },
    /// A sealed value cannot be used.
    #[error("the replica is damaged: {what} in {}", path.display())]
    DamagedValue {
        /// Which value.
        what: String,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: EnvelopeError,
    },
    /// A value is encrypted under a key that was not given.
    #[error("the key to {what} in {} is missing", path.display())]
    MissingKey {
        /// Which value.
        what: String,
        /// Where.
        path: PathBuf,
        /// Which key.
        #[source]
        source: EnvelopeError,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A database cannot be opened for a reason other than damage.
    #[error("cannot open the database {}", path.display())]
    Database {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: rocksdb::Error,
    },
    /// The data belong to another master.
    #[error("{} belongs to master {found} of cluster {found_cluster:?}, not to master {expected} of {expected_cluster:?}", path.display())]
    ForeignData {
        /// The data directory.
        path: PathBuf,
        /// Whose data they are.
        found: u64,
        /// Of which cluster.
        found_cluster: String,
        /// Who asked.
        expected: u64,
        /// Of which cluster.
        expected_cluster: String,
    },
    /// The options contradict themselves.
    #[error("the options are not valid: {0}")]
    Options(String),
    /// TLS material cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[from] crate::peers::tls::TlsError),
    /// Raft did not start.
    #[error("raft did not start: {0}")]
    Raft(String),
}

impl OpenError {
    pub(crate) fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), path: path.into() }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// Sorts what is wrong with a sealed value into damage and a missing key.
    pub(crate) fn value(path: impl Into<PathBuf>, what: String, source: EnvelopeError) -> Self {
        let path = path.into();
        match source {
            EnvelopeError::UnknownKey(_) => Self::MissingKey { what, path, source },
            _ => Self::DamagedValue { what, path, source },
        }
    }

    /// Sorts what RocksDB says into damage and the rest.
    pub(crate) fn database(path: impl Into<PathBuf>, source: rocksdb::Error) -> Self {
        let path = path.into();
        let text = source.to_string();
        let missing_piece = text.contains("No such file") || text.contains("does not exist");
        match source.kind() {
            rocksdb::ErrorKind::Corruption => Self::Damaged { what: text, path },
            // A file that the manifest names is gone, or has another size.
            _ if missing_piece || text.contains("size mismatch") => Self::Damaged { what: text, path },
            // RocksDB reports some damage of its own files as misuse.
            rocksdb::ErrorKind::InvalidArgument | rocksdb::ErrorKind::NotSupported => {
                Self::Damaged { what: text, path }
            }
            _ => Self::Database { path, source },
        }
    }

    /// Whether the replica must be rebuilt.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::DamagedValue { .. })
    }
}

/// Turns whatever failed below into the error type that openraft speaks.
pub(crate) fn io_error(source: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(source)
}

/// An error with its causes, for texts that cannot carry a source.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
