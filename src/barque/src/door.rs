//! The in-process door: writes of leader duties through the API server's
//! pipeline.

use std::sync::Arc;

use async_trait::async_trait;
use barque_api::StatusError;
use barque_apiserver::{DeleteOptions, Door, Patch, PatchKind, Pipeline, Propagation, RequestContext, Target, Written};
use barque_runtime::{Client, EventSource, Write, WriteKind};
use barque_store::{Record, Term};
use futures::StreamExt;
use serde_json::{Value, json};

/// Writes of one `write_all` that are under way at once; the store commits
/// them together.
const MAX_CONCURRENT_WRITES: usize = 512;

/// Implements [`Client`] over a [`Pipeline`].
pub struct PipelineClient {
    pipeline: Arc<Pipeline>,
}

impl PipelineClient {
    /// A client of a pipeline.
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { pipeline }
    }

    async fn execute(&self, term: Term, source: EventSource, write: Write) -> Result<Arc<Record>, StatusError> {
        let context = RequestContext::internal(source.0, Some(term));
        let target = self.pipeline.target(write.resource, &write.namespace, &write.name)?;
        let pipeline = &self.pipeline;
        let patch = |door, kind, body| {
            let (context, target) = (&context, &target);
            async move { pipeline.patch(context, target, door, &Patch { kind, body }).await }
        };
        let written: Written = match write.kind {
            WriteKind::Create(object) => pipeline.create(&context, &target, object).await?,
            WriteKind::Update(object) => pipeline.update(&context, &target, Door::Main, object).await?,
            WriteKind::UpdateStatus(object) => pipeline.update(&context, &target, Door::Status, object).await?,
            WriteKind::Patch(body) => patch(Door::Main, PatchKind::Merge, body).await?,
            WriteKind::PatchStatus(body) => patch(Door::Status, PatchKind::Merge, body).await?,
            WriteKind::StrategicPatchStatus(body) => patch(Door::Status, PatchKind::Strategic, body).await?,
            WriteKind::Delete(options) => pipeline.delete(&context, &target, &delete_options(options)).await?,
            WriteKind::Bind { uid, node } => {
                let binding = binding(&target, &uid, &node);
                pipeline.bind(&context, &target, binding).await?
            }
            WriteKind::Finalize(namespace) => pipeline.finalize(&context, &target, namespace).await?,
        };
        Ok(written.record)
    }
}

fn delete_options(options: barque_runtime::DeleteOptions) -> DeleteOptions {
    DeleteOptions {
        grace_period_seconds: options.grace_period_seconds,
        uid: options.uid,
        resource_version: options.resource_version,
        propagation: options.propagation.map(|p| match p {
            barque_runtime::Propagation::Background => Propagation::Background,
            barque_runtime::Propagation::Foreground => Propagation::Foreground,
            barque_runtime::Propagation::Orphan => Propagation::Orphan,
        }),
    }
}

fn binding(target: &Target, uid: &str, node: &str) -> barque_api::Object {
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": target.name, "namespace": target.namespace, "uid": uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    match body {
        Value::Object(map) => barque_api::Object(map),
        _ => unreachable!("the literal above is an object"),
    }
}

#[async_trait]
impl Client for PipelineClient {
    async fn write(&self, term: Term, source: EventSource, write: Write) -> Result<Arc<Record>, StatusError> {
        self.execute(term, source, write).await
    }

    async fn write_all(
        &self,
        term: Term,
        source: EventSource,
        writes: Vec<Write>,
    ) -> Vec<Result<Arc<Record>, StatusError>> {
        futures::stream::iter(writes.into_iter().map(|write| self.execute(term, source, write)))
            .buffered(MAX_CONCURRENT_WRITES)
            .collect()
            .await
    }
}
