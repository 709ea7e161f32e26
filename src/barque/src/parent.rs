//! Members of a development cluster end when their `barque dev` is gone, so
//! that a killed terminal leaves nothing behind.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::pidfile::PARENT_VARIABLE;

/// Pause between looks.
const PERIOD: Duration = Duration::from_millis(500);

/// Cancels the token when the `barque dev` named by the environment is gone;
/// does nothing when none is named.
pub async fn watch(shutdown: CancellationToken) {
    let Some(pid) = std::env::var(PARENT_VARIABLE).ok().and_then(|pid| pid.parse::<u32>().ok()) else { return };
    let parent = format!("/proc/{pid}");
    while Path::new(&parent).exists() {
        tokio::select! {
            () = sleep(PERIOD) => {}
            () = shutdown.cancelled() => return,
        }
    }
    tracing::warn!(pid, "barque dev is gone, stopping");
    shutdown.cancel();
}
