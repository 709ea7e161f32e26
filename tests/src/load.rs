//! Clients that write all the time and remember what was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Client;

/// A write without an answer after this long counts as "unknown".
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the writers know.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Acknowledged writes: revision → name.
    pub acknowledged: Mutex<BTreeMap<u64, String>>,
    /// Their number.
    pub count: AtomicU64,
    /// Writes whose outcome is unknown.
    pub unknown: AtomicU64,
    /// Writes that were refused cleanly.
    pub refused: AtomicU64,
    /// Two writes were acknowledged with the same revision.
    pub violations: Mutex<Vec<String>>,
    /// Longest time between two acknowledgements of any writer.
    longest_gap: Mutex<(Option<Instant>, Duration)>,
}

impl Ledger {
    fn acknowledge(&self, revision: u64, name: String) {
        let before = self.acknowledged.lock().unwrap().insert(revision, name.clone());
        if let Some(before) = before {
            self.violations.lock().unwrap().push(format!("revision {revision} was given to {before} and to {name}"));
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        let now = Instant::now();
        let mut gap = self.longest_gap.lock().unwrap();
        if let Some(last) = gap.0 {
            gap.1 = gap.1.max(now - last);
        }
        gap.0 = Some(now);
    }

    /// Longest time without any acknowledgement since the last call.
    pub fn take_longest_gap(&self) -> Duration {
        std::mem::take(&mut self.longest_gap.lock().unwrap().1)
    }

    /// Writes acknowledged so far.
    pub fn total(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}

/// Writers at work.
pub struct Load {
    /// What they know.
    pub ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts writers on ConfigMaps of a namespace. Each creates objects and
    /// raises a counter of its own, on a master chosen at random each time.
    #[must_use]
    pub fn start(clients: &[Client], namespace: &str, writers: usize) -> Self {
        let ledger = Arc::new(Ledger::default());
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..writers)
            .map(|writer| {
                let (clients, ledger, stop) = (clients.to_vec(), ledger.clone(), stop.clone());
                let path = format!("/api/v1/namespaces/{namespace}/configmaps");
                tokio::spawn(async move {
                    let mut counter = Counter { path: path.clone(), name: format!("counter-{writer}"), known: 0 };
                    let mut number = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        let client = &clients[rand::random::<u32>() as usize % clients.len()];
                        number += 1;
                        create(client, &path, &format!("w{writer}-{number}"), &ledger).await;
                        let client = &clients[rand::random::<u32>() as usize % clients.len()];
                        counter.raise(client, &ledger).await;
                    }
                })
            })
            .collect();
        Self { ledger, stop, tasks }
    }

    /// Waits until that many further writes were acknowledged.
    pub async fn progress(&self, more: u64) {
        let goal = self.ledger.total() + more;
        crate::eventually("writes are acknowledged", || async {
            let now = self.ledger.total();
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        })
        .await;
    }

    /// Lets the writers finish their current request and ends them.
    pub async fn stop(self) -> Arc<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a writer does not panic");
        }
        self.ledger
    }
}

/// Whether an answer leaves open if the write took effect.
fn ambiguous(status: u16) -> bool {
    status >= 500 && status != 507
}

async fn create(client: &Client, path: &str, name: &str, ledger: &Ledger) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}});
    let request = client.request(Method::POST, path).json(&object).timeout(WRITE_TIMEOUT);
    match request.send().await {
        Ok(response) if response.status == 201 => ledger.acknowledge(response.revision(), name.to_owned()),
        Ok(response) if ambiguous(response.status.as_u16()) => {
            ledger.unknown.fetch_add(1, Ordering::Relaxed);
        }
        Ok(response) if response.status == 429 => {
            ledger.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(response) => {
            let text = format!("{} {}: {}", response.asked, response.status, response.text());
            ledger.violations.lock().unwrap().push(text);
        }
        Err(error) if error.sent => {
            ledger.unknown.fetch_add(1, Ordering::Relaxed);
        }
        Err(_) => {
            ledger.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A number in an object that only one writer raises, under optimistic
/// locking: a lost update or a stale read shows at once.
struct Counter {
    path: String,
    name: String,
    /// Highest value known to be durable.
    known: u64,
}

impl Counter {
    async fn raise(&mut self, client: &Client, ledger: &Ledger) {
        let path = format!("{}/{}", self.path, self.name);
        let read = client.request(Method::GET, &path).timeout(WRITE_TIMEOUT).send().await;
        let Ok(read) = read else { return };
        match read.status.as_u16() {
            200 => {
                let mut object = read.json();
                let value = number(&object);
                if value < self.known {
                    let text = format!("{}: {} was acknowledged, then {value} was read", self.name, self.known);
                    ledger.violations.lock().unwrap().push(text);
                }
                self.known = self.known.max(value);
                object["data"]["n"] = json!((value + 1).to_string());
                let write = client.request(Method::PUT, &path).json(&object).timeout(WRITE_TIMEOUT).send().await;
                self.note(write.ok(), value + 1, ledger);
            }
            404 if self.known == 0 => {
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}, "data": {"n": "1"}});
                let request = client.request(Method::POST, &self.path).json(&object).timeout(WRITE_TIMEOUT);
                let write = request.send().await;
                self.note(write.ok(), 1, ledger);
            }
            404 => {
                let text = format!("{} is gone although {} was acknowledged", self.name, self.known);
                ledger.violations.lock().unwrap().push(text);
            }
            _ => {}
        }
    }

    fn note(&mut self, response: Option<crate::Response>, value: u64, ledger: &Ledger) {
        match response {
            Some(response) if response.status == 200 || response.status == 201 => {
                self.known = self.known.max(value);
                ledger.acknowledge(response.revision(), self.name.clone());
            }
            // A conflict is possible: an earlier attempt of unknown outcome
            // may take effect late.
            Some(response) if response.status == 409 || !ambiguous(response.status.as_u16()) => {
                ledger.refused.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                ledger.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The number that a counter object holds.
#[must_use]
pub fn number(object: &Value) -> u64 {
    object["data"]["n"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}
