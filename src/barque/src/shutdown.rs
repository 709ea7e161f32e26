//! Signals that ask a process to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token on the first SIGTERM or SIGINT; a second one ends the
/// process at once.
///
/// # Errors
/// When signals cannot be received.
pub fn on_signal(token: &CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = token.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if token.is_cancelled() {
                tracing::warn!("second signal: ending without a graceful stop");
                std::process::exit(130);
            }
            tracing::info!("signal received: stopping");
            token.cancel();
        }
    });
    Ok(())
}
