//! Code generated from `proto/`: what masters say to each other and to agents.

/// Package `barque.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("barque.v1");
}
