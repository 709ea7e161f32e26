//! Priority and fairness: which requests are worked on when there are more
//! than can be, so that no tenant starves the others, the agents or the
//! masters themselves.
//!
//! FlowSchemas sort requests into flows, priority levels share out the
//! *seats* of this master. A level is guaranteed its share and may lend and
//! borrow what is idle; within a level, flows take turns. Rules:
//! `flowcontrol.apiserver.k8s.io/v1`.
//!
//! [`config`] reads the objects, [`seats`] decides (no I/O, no clock), this
//! module waits.
//!
//! Unlike upstream, lending is decided request by request and not every ten
//! seconds, and a write holds its seat for as long as it is worked on: its
//! watchers cost no work of their own here.

mod config;
mod seats;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use barque_api::{Reason, StatusError};
use barque_store::{Revision, Snapshot};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::auth::{Attributes, User};
use crate::http::Counted;
use config::Config;
pub use config::{FLOW_SCHEMAS, PRIORITY_LEVELS};
use seats::{Arrival, Seats, Ticket};

/// Objects that a list reads for one seat.
const OBJECTS_PER_SEAT: usize = 100;
/// Most seats that one request takes.
const MAX_SEATS: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    priority_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabels {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

/// Metrics, under upstream's names.
#[derive(Default, Clone)]
struct Metrics {
    executing: Family<LevelLabel, Gauge>,
    waiting: Family<LevelLabel, Gauge>,
    dispatched: Family<LevelLabel, Counter>,
    rejected: Family<RejectedLabels, Counter>,
}

struct State {
    /// Stamps of the two resources that the configuration was read from.
    stamps: (Revision, Revision),
    config: Arc<Config>,
    seats: Seats,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

/// See the module.
pub struct Fairness {
    state: Arc<Mutex<State>>,
    total: u32,
    max_wait: Duration,
    metrics: Metrics,
}

/// Leave to work on a request; gives the seats back when dropped.
pub struct Permit {
    state: Arc<Mutex<State>>,
    /// `None` for exempt requests.
    held: Option<Ticket>,
    since: Instant,
    _counted: Counted,
    /// Uid of the FlowSchema, "" while there is none.
    pub flow_schema: Arc<str>,
    /// Uid of the priority level, "" while there is none.
    pub priority_level: Arc<str>,
}

impl Fairness {
    /// Shares out `total` seats; nobody waits longer than `max_wait`.
    #[must_use]
    pub fn new(total: usize, max_wait: Duration) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX).max(1);
        let config = Arc::new(Config::read(&Snapshot::default(), total));
        let seats = Seats::new(total, &config.levels());
        let stamps = (Revision(0), Revision(0));
        let state = Arc::new(Mutex::new(State { stamps, config, seats, waiting: HashMap::new() }));
        Self { state, total, max_wait, metrics: Metrics::default() }
    }

    /// Shows the metrics.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        let metrics = self.metrics.clone();
        let name = "apiserver_flowcontrol_current_executing_requests";
        registry.register(name, "Requests being worked on, by priority level", metrics.executing);
        let name = "apiserver_flowcontrol_current_inqueue_requests";
        registry.register(name, "Requests that wait for a seat", metrics.waiting);
        let name = "apiserver_flowcontrol_dispatched_requests";
        registry.register(name, "Requests that were let through", metrics.dispatched);
        let name = "apiserver_flowcontrol_rejected_requests";
        registry.register(name, "Requests answered 429", metrics.rejected);
    }

    /// Waits for leave to work on a request. `stored` is how many objects the
    /// collection has that a list is about.
    ///
    /// # Errors
    /// 429 when the level's queues are full or waiting took too long.
    pub async fn admit(
        &self,
        user: &User,
        request: &Attributes,
        stored: usize,
        snapshot: &Snapshot,
    ) -> Result<Permit, StatusError> {
        let config = {
            let mut state = self.state.lock();
            self.refresh(&mut state, snapshot);
            Arc::clone(&state.config)
        };
        let flow = config.classify(user, request);
        let seats = width(request, stored);
        let (arrival, waiter) = {
            let mut state = self.state.lock();
            let arrival = match flow.level {
                Some(level) => state.seats.arrive(level, flow.hash, seats),
                None => Arrival::Exempt,
            };
            let waiter = match arrival {
                Arrival::Wait(ticket) => {
                    let (sender, receiver) = oneshot::channel();
                    state.waiting.insert(ticket, sender);
                    Some((ticket, receiver))
                }
                _ => None,
            };
            (arrival, waiter)
        };
        let label = LevelLabel { priority_level: flow.level_name.to_string() };
        let refuse = |reason: &'static str| {
            let labels = RejectedLabels {
                priority_level: flow.level_name.to_string(),
                flow_schema: flow.schema_name.to_string(),
                reason,
            };
            self.metrics.rejected.get_or_create(&labels).inc();
            let mut error = StatusError::new(Reason::TooManyRequests, "Too many requests, please try again later.");
            error.retry_after_seconds = Some(1);
            error
        };
        let held = match (arrival, waiter) {
            (Arrival::Exempt, _) => None,
            (Arrival::Run(ticket), _) => Some(ticket),
            (Arrival::Reject(why), _) => return Err(refuse(why)),
            (Arrival::Wait(_), Some((ticket, receiver))) => {
                let _counted = Counted::new(self.metrics.waiting.get_or_create_owned(&label));
                // Gives the place up when the client goes away, too.
                let place = Place { state: &self.state, ticket: Some(ticket) };
                let called = matches!(tokio::time::timeout(self.max_wait, receiver).await, Ok(Ok(())));
                if called {
                    place.keep();
                } else if !place.keep_if_called() {
                    return Err(refuse("time-out"));
                }
                Some(ticket)
            }
            (Arrival::Wait(_), None) => return Err(refuse("queue-full")),
        };
        self.metrics.dispatched.get_or_create(&label).inc();
        let counted = Counted::new(self.metrics.executing.get_or_create_owned(&label));
        Ok(Permit {
            state: Arc::clone(&self.state),
            held,
            since: Instant::now(),
            _counted: counted,
            flow_schema: flow.schema_uid,
            priority_level: flow.level_uid,
        })
    }

    /// Takes changes of the configuration; requests that run or wait go on.
    fn refresh(&self, state: &mut State, snapshot: &Snapshot) {
        let stamps = (snapshot.changed(FLOW_SCHEMAS), snapshot.changed(PRIORITY_LEVELS));
        // Snapshots of concurrent requests may come in another order.
        if stamps.0 <= state.stamps.0 && stamps.1 <= state.stamps.1 {
            return;
        }
        let config = Arc::new(Config::read(snapshot, self.total));
        state.seats.reconfigure(&config.levels());
        state.config = config;
        state.stamps = stamps;
        call(state);
    }
}

/// A place in a queue.
struct Place<'a> {
    state: &'a Arc<Mutex<State>>,
    ticket: Option<Ticket>,
}

impl Place<'_> {
    fn keep(mut self) {
        self.ticket = None;
    }

    /// The call may have come while the waiting was given up.
    fn keep_if_called(mut self) -> bool {
        let Some(ticket) = self.ticket else { return true };
        let called = !self.state.lock().waiting.contains_key(&ticket);
        if called {
            self.ticket = None;
        }
        called
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.state.lock();
        if state.waiting.remove(&ticket).is_some() {
            state.seats.give_up(ticket);
        } else {
            // Called, but nobody is there any more.
            state.seats.finish(ticket, Duration::ZERO);
        }
        call(&mut state);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(ticket) = self.held else { return };
        let mut state = self.state.lock();
        state.seats.finish(ticket, self.since.elapsed());
        call(&mut state);
    }
}

/// Lets those in whose turn it is.
fn call(state: &mut State) {
    while let Some(ticket) = state.seats.next() {
        // Whoever does not listen any more gives the seats back by itself.
        if let Some(sender) = state.waiting.remove(&ticket) {
            let _ = sender.send(());
        }
    }
}

/// Seats that a request takes.
fn width(request: &Attributes, stored: usize) -> u32 {
    if request.verb != "list" {
        return 1;
    }
    u32::try_from(stored.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(MAX_SEATS).clamp(1, MAX_SEATS)
}
