//! Fan-out: how fast a write reaches many watchers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};

use crate::kube::{Targets, namespace};
use crate::measure::quantile;

/// Marks the time at which the write was sent, in microseconds from the
/// beginning of the measurement.
const MARK: &[u8] = b"\"sent\":\"";

/// The result.
#[derive(Debug, Serialize)]
pub struct FanOut {
    watchers: usize,
    servers: usize,
    writes_per_second: f64,
    deliveries_per_second: f64,
    /// From sending the write to receiving the event.
    p50_ms: f64,
    p99_ms: f64,
    deliveries: u64,
    /// Writes × watchers − deliveries: must be 0.
    missing: i64,
}

impl std::fmt::Display for FanOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "watch          {:>4} watchers on {} servers: {:.0} writes/s, {:.0} deliveries/s, p50 {:.2} ms, p99 {:.2} ms, {} missing",
            self.watchers,
            self.servers,
            self.writes_per_second,
            self.deliveries_per_second,
            self.p50_ms,
            self.p99_ms,
            self.missing
        )
    }
}

/// Writes at a rate with that many watchers.
pub async fn run(
    targets: &Targets,
    watchers: usize,
    rate: u32,
    time: Duration,
    bytes: usize,
) -> Result<FanOut, String> {
    let path = namespace(targets).await?;
    let zero = Instant::now();
    let written = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for watcher in 0..watchers {
        let client = targets.client(watcher);
        let mut watch = client.watch(&path).await.map_err(|error| format!("watcher {watcher}: {error}"))?;
        let (written, done) = (written.clone(), done.clone());
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let line = match tokio::time::timeout(Duration::from_millis(200), watch.next_line()).await {
                    Ok(Ok(Some(line))) => line,
                    Ok(Ok(None)) => return Err("the server ended the watch".to_owned()),
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(_) if done.load(Ordering::Acquire) => return Ok(latencies),
                    Err(_) => continue,
                };
                if let Some(sent) = sent_at(&line) {
                    latencies.push((zero.elapsed().as_micros() as u64).saturating_sub(sent));
                }
                if done.load(Ordering::Acquire) && latencies.len() as u64 >= written.load(Ordering::Acquire) {
                    return Ok(latencies);
                }
            }
        }));
    }

    let writer = targets.client(0);
    let padding = "x".repeat(bytes);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begin = Instant::now();
    while begin.elapsed() < time {
        ticks.tick().await;
        let number = written.load(Ordering::Relaxed);
        let sent = zero.elapsed().as_micros().to_string();
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": format!("w-{number}")},
            "data": {"sent": sent, "value": padding},
        });
        let response = writer.post(&path, &object).await.map_err(|error| error.to_string())?;
        if response.status != 201 {
            return Err(format!("{} {}", response.status, response.text()));
        }
        written.store(number + 1, Ordering::Release);
    }
    let seconds = begin.elapsed().as_secs_f64();
    done.store(true, Ordering::Release);

    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.map_err(|error| error.to_string())??);
    }
    latencies.sort_unstable();
    let written = written.load(Ordering::Acquire);
    Ok(FanOut {
        watchers,
        servers: targets.len(),
        writes_per_second: written as f64 / seconds,
        deliveries_per_second: latencies.len() as f64 / seconds,
        p50_ms: quantile(&latencies, 0.5) as f64 / 1_000.0,
        p99_ms: quantile(&latencies, 0.99) as f64 / 1_000.0,
        deliveries: latencies.len() as u64,
        missing: (written * watchers as u64) as i64 - latencies.len() as i64,
    })
}

fn sent_at(line: &[u8]) -> Option<u64> {
    let at = line.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&line[at..at + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_found_wherever_it_stands() {
        assert_eq!(sent_at(br#"{"object":{"data":{"sent":"123456","value":"x"}}}"#), Some(123_456));
        assert_eq!(sent_at(br#"{"object":{"data":{"value":"x"}}}"#), None);
        assert_eq!(sent_at(br#""sent":"x""#), None);
    }
}
