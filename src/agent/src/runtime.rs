//! What runs Pods: Docker, or nothing at all.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use barque_proto::v1::{ExecInput, ExecOutput, ExecStart, LogsRequest, PortInput, PortStart};
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

/// What a master sends to a process, after the start.
pub type ExecInputs = Pin<Box<dyn Stream<Item = Result<ExecInput, tonic::Status>> + Send>>;

/// What a process gives back.
pub type ExecOutputs = Pin<Box<dyn Stream<Item = Result<ExecOutput, tonic::Status>> + Send>>;

/// What a master sends to a port, after the start.
pub type PortInputs = Pin<Box<dyn Stream<Item = Result<PortInput, tonic::Status>> + Send>>;

/// Runs Pods and reports about them to their node's outbox.
#[async_trait]
pub trait PodRuntime: Send + Sync + 'static {
    /// The cluster that the node belongs to became known.
    fn cluster(&self, cluster_id: &str);

    /// What `node` shall run changed. Returns at once.
    fn update(self: Arc<Self>, node: &str, update: Update);

    /// Opens the log of a container.
    async fn logs(self: Arc<Self>, request: LogsRequest) -> Result<LogStream, tonic::Status>;

    /// Starts a process in a container, or attaches to the container's own.
    /// It is let go when the output is dropped.
    async fn exec(self: Arc<Self>, start: ExecStart, input: ExecInputs) -> Result<ExecOutputs, tonic::Status> {
        drop((start, input));
        Err(tonic::Status::unimplemented("this node does not run commands in containers"))
    }

    /// Connects to a port of a Pod.
    async fn port_forward(self: Arc<Self>, start: PortStart, input: PortInputs) -> Result<LogStream, tonic::Status> {
        drop((start, input));
        Err(tonic::Status::unimplemented("this node does not forward ports"))
    }
}
