//! Many independent cases on one expensive cluster: all are run, all failures
//! are reported.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

/// How long one case may take.
const CASE_DEADLINE: Duration = Duration::from_mins(5);

/// Runs cases one after the other. `BARQUE_TEST_CASE=text` runs only those
/// whose name contains the text.
#[derive(Default)]
pub struct Suite {
    only: Option<String>,
    run: usize,
    failures: Vec<(String, String)>,
}

impl Suite {
    /// An empty suite.
    #[must_use]
    pub fn new() -> Self {
        Self { only: std::env::var("BARQUE_TEST_CASE").ok(), ..Self::default() }
    }

    /// Runs one case; a panic in it is a failure, and the next case still
    /// runs.
    pub async fn case(&mut self, name: &str, work: impl Future<Output = ()>) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        self.run += 1;
        let started = Instant::now();
        let result = tokio::time::timeout(CASE_DEADLINE, AssertUnwindSafe(work).catch_unwind()).await;
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(payload)) => Some(message(payload.as_ref())),
            Err(_) => Some(format!("not done after {}s", CASE_DEADLINE.as_secs())),
        };
        let seconds = started.elapsed().as_secs_f32();
        match failure {
            None => println!("case {name}: ok ({seconds:.1}s)"),
            Some(reason) => {
                println!("case {name}: FAILED ({seconds:.1}s): {reason}");
                self.failures.push((name.to_owned(), reason));
            }
        }
    }

    /// Panics when a case failed, naming each.
    ///
    /// # Panics
    /// When a case failed, or none was run.
    pub fn finish(self) {
        assert!(self.run > 0, "no case was run");
        if self.failures.is_empty() {
            return;
        }
        let list: Vec<_> = self.failures.iter().map(|(name, reason)| format!("- {name}: {reason}")).collect();
        panic!("{} of {} cases failed:\n{}", self.failures.len(), self.run, list.join("\n"));
    }
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}
