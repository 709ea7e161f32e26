//! A harness for tests that see Barque from outside only: processes, sockets,
//! files, `kubectl` and Docker.
//!
//! It links none of the product's crates, so that a test can never pass by
//! sharing a mistake with what it tests. `benches/` uses it as well.
//!
//! Errors of the *harness* (no binary, a start that fails) panic with what a
//! person needs to know; answers and failures of the *cluster* are values.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test harness: a failure here fails the test")]

pub mod case;
pub mod client;
pub mod cluster;
pub mod docker;
pub mod history;
pub mod kubeconfig;
pub mod kubectl;
pub mod load;
pub mod ports;
pub mod process;
pub mod suite;
pub mod wait;
pub mod watch;

pub use client::{Client, ClientError, Response};
pub use cluster::{Cluster, Member, Options};
pub use suite::Suite;
pub use wait::{eventually, wait_for};
pub use watch::{Event, Watch};

/// A name nobody else uses: `<prefix>-<8 random letters and digits>`.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:08x}", rand::random::<u32>())
}

/// The workspace's root directory.
#[must_use]
pub fn workspace_root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

/// A file of `tests/data/`.
#[must_use]
pub fn data(name: &str) -> std::path::PathBuf {
    workspace_root().join("tests/data").join(name)
}

/// Ends a test early, and says so, when something it needs is not on this
/// machine.
#[macro_export]
macro_rules! skip_unless {
    ($condition:expr, $what:expr) => {
        if !$condition {
            println!("SKIPPED: {} is not available on this machine", $what);
            return;
        }
    };
}
