//! What can be measured about requests, in Prometheus' form and under
//! upstream's names where there is one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The registry of a whole master; every part adds its own.
pub type SharedRegistry = Arc<Mutex<Registry>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    verb: String,
    group: String,
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    group: String,
    resource: String,
}

/// What a request was about, for labels. Only names of served kinds get here,
/// so that clients cannot make up series.
#[derive(Debug, Clone, Default)]
pub(super) struct Subject {
    pub verb: &'static str,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    /// Uids of the flow schema and the priority level that it fell under.
    pub flow: Option<(Arc<str>, Arc<str>)>,
}

/// The metrics of the HTTP side.
#[derive(Clone)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    watchers: Family<ResourceLabels, Gauge>,
    watch_events: Family<ResourceLabels, Counter>,
    pub connections: Gauge,
    pub refused_connections: Counter,
    pub handshake_failures: Counter,
    pub panics: Counter,
}

fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Metrics {
    pub(super) fn new(registry: &SharedRegistry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(durations),
            in_flight: Gauge::default(),
            watchers: Family::default(),
            watch_events: Family::default(),
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            handshake_failures: Counter::default(),
            panics: Counter::default(),
        };
        let mut registry = registry.lock();
        registry.register("apiserver_request", "Requests answered", metrics.requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to the answer, or to its first byte for streams",
            metrics.durations.clone(),
        );
        registry.register("apiserver_current_inflight_requests", "Requests being worked on", metrics.in_flight.clone());
        registry.register("apiserver_longrunning_requests", "Watches being served", metrics.watchers.clone());
        registry.register("apiserver_watch_events", "Events sent to watchers", metrics.watch_events.clone());
        registry.register("barque_apiserver_connections", "Open connections", metrics.connections.clone());
        registry.register(
            "barque_apiserver_connections_refused",
            "Connections closed because there were too many",
            metrics.refused_connections.clone(),
        );
        registry.register(
            "barque_apiserver_handshake_failures",
            "TLS handshakes that failed or took too long",
            metrics.handshake_failures.clone(),
        );
        registry.register("barque_apiserver_panics", "Requests that ended in a bug", metrics.panics.clone());
        drop(registry);
        metrics
    }

    pub(super) fn observe(&self, subject: &Subject, code: u16, took: Duration) {
        let Subject { verb, group, resource, subresource, .. } = subject.clone();
        let verb = verb.to_uppercase();
        let labels = DurationLabels { verb: verb.clone(), group: group.clone(), resource: resource.clone() };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { verb, group, resource, subresource, code }).inc();
    }

    /// Counts a request while the guard lives.
    pub(super) fn work(&self) -> impl Drop + use<> {
        Counted::new(self.in_flight.clone())
    }

    /// Counts a watcher while the guard lives.
    pub(super) fn watcher(&self, group: &str, resource: &str) -> impl Drop + use<> {
        let labels = ResourceLabels { group: group.to_owned(), resource: resource.to_owned() };
        Counted::new(self.watchers.get_or_create_owned(&labels))
    }

    /// The counter of events sent to watchers of a resource.
    pub(super) fn watch_events(&self, group: &str, resource: &str) -> Counter {
        let labels = ResourceLabels { group: group.to_owned(), resource: resource.to_owned() };
        self.watch_events.get_or_create_owned(&labels)
    }

    /// Counts a connection while the guard lives.
    pub(super) fn connection(&self) -> impl Drop + use<> {
        Counted::new(self.connections.clone())
    }
}

/// Raises a gauge by one for as long as it lives.
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
