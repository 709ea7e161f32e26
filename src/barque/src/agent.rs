//! `barque agent`: one node's agent, or a process that poses as many nodes.

use barque_agent::{Agent, AgentError};
use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;
use crate::pidfile::{PidFile, PidFileError};
use crate::{parent, shutdown};

/// Why an agent ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentCommandError {
    /// Another agent has the data directory.
    #[error(transparent)]
    Taken(#[from] PidFileError),
    /// The agent itself.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Signals cannot be received.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or its runtime is gone for good.
pub async fn run(config: AgentConfig) -> Result<(), AgentCommandError> {
    let _held = PidFile::take(&config.options.data_dir)?;
    let token = CancellationToken::new();
    shutdown::on_signal(&token).map_err(AgentCommandError::Signals)?;
    tokio::spawn(parent::watch(token.clone()));
    Ok(Agent::run(config.options, token).await?)
}
