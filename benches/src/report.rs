//! Results for people and for machines.

use serde_json::{Value, json};

use crate::measure::{Sample, median};

/// Collects results; lines are printed as they come.
pub struct Report {
    environment: Value,
    results: Vec<Value>,
}

impl Report {
    /// An empty report.
    pub fn new(environment: Value) -> Self {
        Self { environment, results: Vec::new() }
    }

    /// Prints a line.
    #[expect(clippy::unused_self, reason = "what is printed belongs to the report")]
    pub fn line(&self, line: &str) {
        println!("{line}");
    }

    /// The machine.
    pub fn environment(&self) -> &Value {
        &self.environment
    }

    /// Adds a machine-readable result.
    pub fn add(&mut self, name: &str, value: Value) {
        self.results.push(json!({"name": name, "value": value}));
    }

    /// Everything as JSON.
    pub fn json(&self) -> String {
        format!("{:#}\n", json!({"environment": self.environment, "results": self.results}))
    }
}

/// The medians of several measurements of the same thing.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Medians {
    /// Requests a second.
    pub per_second: f64,
    /// Milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
}

impl Medians {
    /// Of some samples.
    pub fn of(samples: &[Sample]) -> Self {
        Self {
            per_second: median(samples.iter().map(|sample| sample.per_second)),
            p50_ms: median(samples.iter().map(|sample| sample.p50_us as f64 / 1_000.0)),
            p99_ms: median(samples.iter().map(|sample| sample.p99_us as f64 / 1_000.0)),
        }
    }
}

/// Prints and adds the samples of one operation.
pub fn add_samples(report: &mut Report, name: &str, clients: usize, samples: &[Sample]) -> Medians {
    let medians = Medians::of(samples);
    let errors: u64 = samples.iter().map(|sample| sample.errors).sum();
    let trouble = samples.iter().find_map(|sample| sample.first_error.as_deref());
    let trouble = trouble.map_or(String::new(), |reason| format!("  {errors} ERRORS, the first: {reason}"));
    report.line(&format!(
        "{name:<14} {clients:>4} clients  {:>9.0}/s  p50 {:>8.2} ms  p99 {:>8.2} ms{trouble}",
        medians.per_second, medians.p50_ms, medians.p99_ms
    ));
    report.add(name, json!({"clients": clients, "medians": medians, "samples": samples}));
    medians
}
