//! What runs Pods: Docker, or nothing at all.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use barque_proto::v1::LogsRequest;
use bytes::Bytes;
use futures::Stream;

use crate::assignments::PodChange;

/// Changes of what a node shall run.
#[derive(Debug)]
pub struct Update {
    /// Pods that changed.
    pub changes: Vec<PodChange>,
    /// All assigned Pods by uid, when a master sent the complete set: whatever
    /// else the runtime finds of this node is to be removed.
    pub assigned: Option<BTreeSet<String>>,
}

/// Log bytes, until the end or an error.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, tonic::Status>> + Send>>;

/// Runs Pods and reports about them to their node's outbox.
#[async_trait]
pub trait PodRuntime: Send + Sync + 'static {
    /// The cluster that the node belongs to became known.
    fn cluster(&self, cluster_id: &str);

    /// What `node` shall run changed. Returns at once.
    fn update(self: Arc<Self>, node: &str, update: Update);

    /// Opens the log of a container.
    async fn logs(self: Arc<Self>, request: LogsRequest) -> Result<LogStream, tonic::Status>;
}
