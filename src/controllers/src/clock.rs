//! Arithmetic with the times that objects carry. They come from wall clocks,
//! so differences are clamped and nothing here is used for safety.

use std::time::Duration;

use barque_api::k8s_openapi::jiff::Timestamp;

/// How long ago `then` was; zero if it lies in the future.
pub fn since(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

/// How long until `start + length`; zero once it has passed.
pub fn until(now: Timestamp, start: Timestamp, length: Duration) -> Duration {
    if start > now { length.saturating_add(since(start, now)) } else { length.saturating_sub(since(now, start)) }
}
