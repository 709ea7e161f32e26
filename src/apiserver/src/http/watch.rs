//! Watches: the history from a revision, then the live tail. Subscribed
//! before reading, so nothing falls between; ended, never skipped, when the
//! reader is too slow or the history no longer reaches back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use barque_api::StatusError;
use barque_api::world::World;
use barque_store::{Event, EventKind, HistoryError, ObjectName, Record, Revision, Snapshot, View};
use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::Api;
use super::list::{consistency, only_namespace};
use super::negotiate::Format;
use super::present::Presenter;
use super::query::ListOptions;
use super::select::Selector;
use crate::pipeline::{Consistency, Pipeline, Target};

/// Longest life of a watch, whatever the client asks for.
const MAX_WATCH_SECONDS: u64 = 86_400;

/// Media type of watches in protobuf.
const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// Frames that wait for a slow reader, besides what the connection buffers.
const CHANNEL_FRAMES: usize = 16;
/// Changes read from the history in one go.
const CHANGES_PER_READ: usize = 128;

/// Where a watch starts.
enum Start {
    /// Behind a revision.
    After(Revision),
    /// With all objects of a snapshot; then, if asked for, a bookmark that
    /// says so.
    Initial(Arc<Snapshot>, bool),
}

/// One running watch.
struct Watcher {
    view: Arc<View>,
    pipeline: Arc<Pipeline>,
    target: Target,
    presenter: Presenter,
    selector: Selector,
    bookmarks: bool,
    sender: mpsc::Sender<Bytes>,
    stall: Duration,
    world: World,
    /// When the watch ends by itself.
    end: Instant,
    /// Ends it earlier.
    stopping: CancellationToken,
    sent: prometheus_client::metrics::counter::Counter,
    /// Whether an event has been sent: headings of tables go along once.
    started: bool,
}

/// The reader is gone or too slow.
struct Gone;

impl Api {
    pub(super) async fn watch(
        self: &Arc<Self>,
        target: Target,
        options: ListOptions,
        selector: Selector,
        presenter: Presenter,
    ) -> Result<Response<Body>, StatusError> {
        let permit = self.stream_permit()?;
        let content_type = match presenter.format {
            Format::Protobuf => PROTOBUF_STREAM,
            // Upstream names no stream here.
            Format::Json | Format::Yaml => Format::Json.content_type(),
        };
        let lifetime = self.watch_lifetime(&options);
        // Subscribe before anything is read.
        let changes = self.hub.subscribe(&target.resource.storage);
        let generation = self.pipeline.store().view().generation();
        let start = self.watch_start(&options).await?;
        let (sender, receiver) = mpsc::channel(CHANNEL_FRAMES);
        let resource = &target.resource;
        let guard = self.metrics.watcher(&resource.group, &resource.plural);
        let watcher = Watcher {
            view: Arc::clone(self.pipeline.store().view()),
            pipeline: Arc::clone(&self.pipeline),
            sent: self.metrics.watch_events(&resource.group, &resource.plural),
            target,
            presenter,
            selector,
            bookmarks: options.bookmarks,
            sender,
            stall: self.options.watch_stall_timeout,
            world: self.pipeline.world().clone(),
            end: Instant::now() + lifetime,
            stopping: self.stopping.clone(),
            started: false,
        };
        let period = self.options.watch_bookmark_period;
        tokio::spawn(async move {
            let _held = (permit, guard);
            // A reader that is gone needs no farewell.
            let _ = watcher.run(start, changes, generation, period).await;
        });
        let mut response = Response::new(Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, std::io::Error>)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(response)
    }

    fn watch_lifetime(&self, options: &ListOptions) -> Duration {
        match options.timeout_seconds {
            Some(seconds @ 1..) => Duration::from_secs(seconds.min(MAX_WATCH_SECONDS)),
            _ => {
                // Jittered, so that the watches of one moment do not all come
                // back in one moment.
                let shortest = self.options.watch_min_lifetime;
                let mut random = [0; 2];
                self.pipeline.world().entropy.fill(&mut random);
                shortest + shortest.mul_f64(f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX))
            }
        }
    }

    async fn watch_start(&self, options: &ListOptions) -> Result<Start, StatusError> {
        let version = options.resource_version.filter(|version| *version != 0);
        match (options.send_initial_events, version) {
            (Some(true), _) => {
                let snapshot = self.pipeline.snapshot(consistency(options.resource_version)).await?;
                Ok(Start::Initial(snapshot, options.bookmarks))
            }
            (Some(false), None) => {
                let snapshot = self.pipeline.snapshot(consistency(options.resource_version)).await?;
                Ok(Start::After(snapshot.revision()))
            }
            (None, None) => {
                let snapshot = self.pipeline.snapshot(consistency(options.resource_version)).await?;
                Ok(Start::Initial(snapshot, false))
            }
            (_, Some(version)) => {
                let revision = Revision(version);
                if self.pipeline.store().view().revision() < revision {
                    // This replica may lag; one that nobody has reached is
                    // answered by the watch itself.
                    self.pipeline.snapshot(Consistency::Linearizable).await?;
                }
                Ok(Start::After(revision))
            }
        }
    }
}

impl Watcher {
    async fn run(
        mut self,
        start: Start,
        mut changes: tokio::sync::watch::Receiver<Revision>,
        mut generation: tokio::sync::watch::Receiver<u64>,
        bookmark_period: Duration,
    ) -> Result<(), Gone> {
        let mut after = match start {
            Start::After(revision) => revision,
            Start::Initial(snapshot, announce_end) => self.initial(&snapshot, announce_end).await?,
        };
        let mut next_bookmark = Instant::now() + bookmark_period;
        loop {
            if generation.has_changed().unwrap_or(true) {
                // The state was replaced under this watch: its history is
                // another one now. The client lists again.
                return Ok(());
            }
            let (events, complete) = match self.view.changes(&self.target.resource.storage, after, CHANGES_PER_READ) {
                Ok(read) => read,
                Err(error) => return self.expired(&error).await,
            };
            let caught_up = events.len() < CHANGES_PER_READ;
            for event in events {
                self.event(&event).await?;
            }
            after = complete;
            if self.is_over() {
                return self.farewell(after).await;
            }
            if !caught_up {
                continue;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
                _ = generation.changed() => return Ok(()),
                () = sleep_until(self.end) => return self.farewell(after).await,
                () = self.stopping.cancelled() => return self.farewell(after).await,
                () = self.sender.closed() => return Err(Gone),
                () = sleep_until(next_bookmark), if self.bookmarks => {
                    next_bookmark = Instant::now() + bookmark_period;
                    self.bookmark(after, false).await?;
                }
            }
        }
    }

    async fn initial(&mut self, snapshot: &Snapshot, announce_end: bool) -> Result<Revision, Gone> {
        let revision = snapshot.revision();
        let namespace = (!self.target.namespace.is_empty()).then(|| self.target.namespace.clone());
        let map = snapshot.resource(&self.target.resource.storage);
        if let (Some(namespace), Some(name)) = (only_namespace(&self.target), self.selector.only_name()) {
            let only = map.get(&ObjectName::new(namespace, name)).cloned();
            for record in self.shown(only.into_iter().collect()).await? {
                if self.selector.matches(&record) {
                    self.send("ADDED", &record).await?;
                }
            }
            if announce_end {
                self.bookmark(revision, true).await?;
            }
            return Ok(revision);
        }
        let mut last = None;
        loop {
            // A batch at a time: the iterator must not live across an await.
            let batch: Vec<Arc<Record>> = barque_store::snapshot::range(&map, namespace.as_deref(), last.as_ref())
                .take(CHANGES_PER_READ)
                .cloned()
                .collect();
            if self.is_over() {
                return Err(Gone);
            }
            let shown = self.shown(batch.clone()).await?;
            for record in &shown {
                if self.selector.matches(record) {
                    self.send("ADDED", record).await?;
                }
            }
            match batch.last() {
                Some(record) if batch.len() == CHANGES_PER_READ => last = Some(record.key().object.clone()),
                _ => break,
            }
        }
        if announce_end {
            self.bookmark(revision, true).await?;
        }
        Ok(revision)
    }

    async fn event(&mut self, event: &Event) -> Result<(), Gone> {
        if !self.target.namespace.is_empty() && *event.record.key().object.namespace != *self.target.namespace {
            return Ok(());
        }
        if self.target.resource.custom().is_some() {
            return self.custom_event(event).await;
        }
        if self.selector.is_everything() && self.presenter.is_stored() {
            self.sent.inc();
            return self.push(event.frame().clone()).await;
        }
        self.change(event).await
    }

    /// An event about a custom resource, in the version that is watched.
    async fn custom_event(&mut self, event: &Event) -> Result<(), Gone> {
        let record = self.shown(vec![Arc::clone(&event.record)]).await?.pop().ok_or(Gone)?;
        let previous = match &event.previous {
            Some(previous) => self.shown(vec![Arc::clone(previous)]).await?.pop(),
            None => None,
        };
        self.change(&Event::new(event.kind, record, previous)).await
    }

    /// Records in the version that is watched. What cannot be converted ends
    /// the watch, and the client is told why.
    async fn shown(&self, records: Vec<Arc<Record>>) -> Result<Vec<Arc<Record>>, Gone> {
        match self.pipeline.shown_records(&self.target.resource, records).await {
            Ok(records) => Ok(records),
            Err(error) => {
                self.error(&error).await?;
                Err(Gone)
            }
        }
    }

    async fn change(&mut self, event: &Event) -> Result<(), Gone> {
        let before = event.previous.as_ref().is_some_and(|record| self.selector.matches(record));
        let now = event.kind != EventKind::Deleted && self.selector.matches(&event.record);
        match (before, now) {
            (false, true) => self.send("ADDED", &event.record).await,
            (true, true) => self.send("MODIFIED", &event.record).await,
            (true, false) => {
                // What is shown is the last state that the watcher could see,
                // under the revision at which it could no longer.
                let gone = match (&event.previous, event.kind) {
                    (Some(previous), EventKind::Modified) => Arc::new(previous.reseal(event.revision())),
                    _ => Arc::clone(&event.record),
                };
                self.send("DELETED", &gone).await
            }
            (false, false) => Ok(()),
        }
    }

    async fn send(&mut self, kind: &str, record: &Record) -> Result<(), Gone> {
        let first = !std::mem::replace(&mut self.started, true);
        self.sent.inc();
        // Ages are as of the event, not of the start of the watch.
        self.presenter.now = self.world.now();
        match self.presenter.event(kind, record, first) {
            Ok(frame) => self.push(frame).await,
            Err(error) => {
                // What cannot be shown must not be skipped either.
                self.error(&error).await?;
                Err(Gone)
            }
        }
    }

    async fn bookmark(&self, revision: Revision, initial_events_end: bool) -> Result<(), Gone> {
        match self.presenter.frame("BOOKMARK", &self.presenter.bookmark(revision, initial_events_end)) {
            Ok(frame) => self.push(frame).await,
            Err(error) => self.error(&error).await,
        }
    }

    async fn farewell(&self, revision: Revision) -> Result<(), Gone> {
        if self.bookmarks { self.bookmark(revision, false).await } else { Ok(()) }
    }

    async fn expired(&self, error: &HistoryError) -> Result<(), Gone> {
        let status = match error {
            HistoryError::Compacted { asked, floor } => {
                StatusError::expired(format!("too old resource version: {asked} ({floor})"))
            }
            HistoryError::Future { asked, newest } => {
                StatusError::expired(format!("resource version {asked} is in the future, the newest is {newest}"))
            }
        };
        self.error(&status).await
    }

    /// The last event: why there will be no more.
    async fn error(&self, error: &StatusError) -> Result<(), Gone> {
        match self.presenter.frame("ERROR", error.to_value().to_string().as_bytes()) {
            Ok(frame) => self.push(frame).await,
            Err(_) => Err(Gone),
        }
    }

    async fn push(&self, frame: Bytes) -> Result<(), Gone> {
        match self.sender.try_send(frame) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Gone),
            // Whoever reads slowly still has to leave in time.
            Err(mpsc::error::TrySendError::Full(frame)) => tokio::select! {
                sent = self.sender.send_timeout(frame, self.stall) => sent.map_err(|_| Gone),
                () = sleep_until(self.end) => Err(Gone),
                () = self.stopping.cancelled() => Err(Gone),
            },
        }
    }

    fn is_over(&self) -> bool {
        self.stopping.is_cancelled() || Instant::now() >= self.end
    }
}
