//! Waiting for a condition with a deadline, instead of sleeping.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Time that any single condition gets, unless a test says otherwise. It is a
/// guard against hanging on a loaded machine, not an expectation.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);

/// Polls until the condition yields a value.
///
/// # Errors
/// The last reason the condition gave when the deadline passed.
pub async fn wait_for<T, E, F, Fut>(deadline: Duration, mut condition: F) -> Result<T, E>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let end = Instant::now() + deadline;
    loop {
        match condition().await {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= end => return Err(reason),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Polls until the condition yields a value; panics with its last reason when
/// [`DEADLINE`] passes.
pub async fn eventually<T, E, F, Fut>(what: &str, condition: F) -> T
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    match wait_for(DEADLINE, condition).await {
        Ok(value) => value,
        Err(reason) => panic!("{what}: not within {}s: {reason}", DEADLINE.as_secs()),
    }
}
