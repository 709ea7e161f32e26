//! Closed-loop load: each client sends its next request when it has the
//! answer to the last.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// Part of the time that is thrown away at the beginning.
const WARM_UP: f64 = 0.15;
/// Errors in a row after which a client gives up.
const MAX_ERRORS_IN_A_ROW: u32 = 100;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Answered requests a second.
    pub per_second: f64,
    /// Median latency, in microseconds.
    pub p50_us: u64,
    /// 99th percentile of the latency, in microseconds.
    pub p99_us: u64,
    /// Answered requests.
    pub count: usize,
    /// Requests that failed.
    pub errors: u64,
    /// The first failure.
    pub first_error: Option<String>,
}

/// Value at a quantile of sorted values; 0 of none.
pub fn quantile(sorted: &[u64], quantile: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * quantile).round() as usize).copied().unwrap_or(0)
}

/// The middle one.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Runs `clients` workers for a time. `make` gives each worker its operation;
/// the operation gets the number of the call.
pub async fn closed_loop<M, F, Fut>(clients: usize, time: Duration, make: M) -> Sample
where
    M: Fn(usize) -> F,
    F: FnMut(u64) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), String>> + Send,
{
    let barrier = Arc::new(tokio::sync::Barrier::new(clients));
    let workers: Vec<_> = (0..clients)
        .map(|worker| {
            let (mut operation, barrier) = (make(worker), barrier.clone());
            tokio::spawn(async move {
                // The first call opens the connection and is not counted.
                let opened = operation(0).await;
                barrier.wait().await;
                let begin = Instant::now() + time.mul_f64(WARM_UP);
                let end = Instant::now() + time;
                let (mut latencies, mut errors, mut first) = (Vec::new(), 0_u64, opened.err());
                let mut in_a_row = 0;
                for number in 1.. {
                    let start = Instant::now();
                    if start >= end || in_a_row >= MAX_ERRORS_IN_A_ROW {
                        break;
                    }
                    let result = operation(number).await;
                    let now = Instant::now();
                    match result {
                        Ok(()) => {
                            in_a_row = 0;
                            if now >= begin && now <= end {
                                latencies.push((now - start).as_micros() as u64);
                            }
                        }
                        Err(reason) => {
                            in_a_row += 1;
                            errors += 1;
                            first.get_or_insert(reason);
                        }
                    }
                }
                (latencies, errors, first)
            })
        })
        .collect();
    let (mut latencies, mut errors, mut first_error) = (Vec::new(), 0, None);
    for worker in workers {
        let (more, failed, first) = worker.await.expect("a worker does not panic");
        latencies.extend(more);
        errors += failed;
        first_error = first_error.or(first);
    }
    latencies.sort_unstable();
    Sample {
        per_second: latencies.len() as f64 / time.mul_f64(1.0 - WARM_UP).as_secs_f64(),
        p50_us: quantile(&latencies, 0.5),
        p99_us: quantile(&latencies, 0.99),
        count: latencies.len(),
        errors,
        first_error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_medians() {
        let values: Vec<u64> = (1..=101).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0)), (51, 100, 101));
        assert_eq!(quantile(&[], 0.5), 0);
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[tokio::test]
    async fn answers_and_errors_are_told_apart() {
        let sample = closed_loop(2, Duration::from_millis(300), |_| {
            |number| async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                if number % 2 == 1 { Err("planned".to_owned()) } else { Ok(()) }
            }
        })
        .await;
        assert!(sample.count > 0 && sample.errors > 0, "{sample:?}");
        assert!(sample.p50_us >= 2_000 && sample.p99_us >= sample.p50_us, "{sample:?}");
        assert_eq!(sample.first_error.as_deref(), Some("planned"));
        // A worker whose every call fails gives up instead of spinning.
        let sample = closed_loop(1, Duration::from_hours(1), |_| |_| async { Err("always".to_owned()) }).await;
        assert_eq!((sample.count, sample.errors), (0, u64::from(MAX_ERRORS_IN_A_ROW)));
    }
}
