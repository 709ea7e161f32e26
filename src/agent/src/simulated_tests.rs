//! Simulated Pods from assignment to report.

use super::*;
use crate::pods::testing::desired;
use serde_json::{Value, json};

struct Simulation {
    runtime: Arc<SimulatedRuntime>,
    outbox: Arc<Outbox>,
    shutdown: tokio_util::sync::DropGuard,
}

fn simulation(options: SimulatedOptions) -> Simulation {
    let runtime = SimulatedRuntime::new(options, World::system());
    let outbox = Arc::new(Outbox::default());
    runtime.add_node("n-0", Arc::clone(&outbox), "127.0.0.1".to_owned());
    let shutdown = CancellationToken::new();
    tokio::spawn(Arc::clone(&runtime).run(shutdown.clone()));
    Simulation { runtime, outbox, shutdown: shutdown.drop_guard() }
}

impl Simulation {
    fn set(&self, pod: &Desired) {
        let changes = vec![PodChange::Upsert(Arc::new(pod.clone()))];
        Arc::clone(&self.runtime).update("n-0", Update { changes, assigned: None });
    }

    /// Reports until one fits.
    async fn until(&self, fits: impl Fn(&PodStatusUpdate, &Value) -> bool) -> Value {
        let wait = async {
            loop {
                if let Some(batch) = self.outbox.next_batch() {
                    for update in &batch.pods {
                        let status: Value = serde_json::from_slice(&update.status).expect("JSON");
                        if fits(update, &status) {
                            self.outbox.reset();
                            return status;
                        }
                    }
                    let (sequence, term) = (batch.sequence, 1);
                    self.outbox.receipt(&barque_proto::v1::StatusReceipt { sequence, term, refused: vec![] });
                    continue;
                }
                self.outbox.changed().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("in time")
    }
}

fn quick() -> SimulatedOptions {
    SimulatedOptions { start_delay_min_ms: 1, start_delay_max_ms: 5, ..SimulatedOptions::default() }
}

#[tokio::test]
async fn a_pod_runs_and_ends() {
    let simulation = simulation(quick());
    let mut pod = desired(json!({"initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]}));
    simulation.set(&pod);
    let up = simulation.until(|_, status| status["phase"] == "Running").await;
    assert_eq!(up["podIP"], "10.64.0.1");
    let ready = simulation
        .until(|_, s| s["conditions"].as_array().is_some_and(|all| all.iter().all(|c| c["status"] == "True")))
        .await;
    assert_eq!(ready["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let metadata = &mut Arc::make_mut(&mut pod.pod).metadata;
    metadata.deletion_timestamp =
        Some(barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(World::system().now()));
    simulation.set(&pod);
    simulation.until(|update, _| update.terminated).await;
    Arc::clone(&simulation.runtime)
        .update("n-0", Update { changes: vec![PodChange::Remove("u".into())], assigned: None });
    let gone = async {
        while !simulation.runtime.inner.lock().pods.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("in time");
    drop(simulation.shutdown);
}

#[tokio::test]
async fn failures_come_at_their_rates() {
    let crashing = simulation(SimulatedOptions { crash_rate: 1.0, crash_after_ms: 1, ..quick() });
    crashing.set(&desired(json!({"containers": [{"name": "a", "image": "i"}]})));
    let looping =
        crashing.until(|_, s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff").await;
    assert_eq!(looping["containerStatuses"][0]["restartCount"], 1);
    let failing = simulation(SimulatedOptions { image_failure_rate: 1.0, ..quick() });
    failing.set(&desired(json!({"containers": [{"name": "a", "image": "i"}]})));
    failing.until(|_, s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull").await;
}

#[tokio::test]
async fn jobs_complete() {
    let simulation = simulation(SimulatedOptions { run_seconds: 1, ..quick() });
    simulation.set(&desired(json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]})));
    simulation.until(|update, status| status["phase"] == "Succeeded" && update.terminated).await;
}
