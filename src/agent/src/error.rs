//! Why an agent stops by itself. Everything else it meets (masters that are
//! away, a container engine that refuses) is retried and reported.

use std::path::PathBuf;

/// A condition under which an agent cannot work at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// An option contradicts another or has a value that cannot be used.
    #[error("option {option}: {problem}")]
    Options {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or directory of the agent could not be read or written.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried, as in `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The container engine cannot be reached or is unusable.
    #[error("container engine at {socket}")]
    Engine {
        /// Where it was looked for.
        socket: String,
        /// Its answer.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// Certificates or keys were not accepted.
    #[error("certificates")]
    Tls(#[source] tonic::transport::Error),
    /// The address for log streams cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl AgentError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
