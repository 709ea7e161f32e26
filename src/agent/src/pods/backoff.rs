//! How long to wait before trying again, as the kubelet does.

use std::time::Duration;

/// A delay that doubles from `initial` to `maximum`.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Delay after the first failure, in seconds.
    pub initial: u32,
    /// Longest delay, in seconds.
    pub maximum: u32,
}

/// Between restarts of a crashing container, and between pulls of an image.
pub const CRASH: Schedule = Schedule { initial: 10, maximum: 300 };
/// Between attempts to make a sandbox or volumes.
pub const SETUP: Schedule = Schedule { initial: 1, maximum: 120 };
/// Between attempts to start a container that is configured wrongly.
pub const CONFIG: Schedule = Schedule { initial: 10, maximum: 10 };
/// A container that ran this long starts over without delay, in seconds.
pub const FORGIVEN_AFTER: i64 = 600;

impl Schedule {
    /// The delay after `count` failures in a row (1 for the first).
    pub fn delay(self, count: u32) -> Duration {
        let factor = 1u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX);
        Duration::from_secs(u64::from(self.initial.saturating_mul(factor).min(self.maximum)))
    }

    /// The delay that follows `seconds` of delay (0 for none so far).
    pub fn next(self, seconds: u32) -> u32 {
        if seconds == 0 { self.initial } else { seconds.saturating_mul(2).min(self.maximum) }
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(seconds: u32) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes() {
        let mut seconds = 0;
        let mut seen = Vec::new();
        for _ in 0..7 {
            seconds = CRASH.next(seconds);
            seen.push(go_duration(seconds));
        }
        assert_eq!(seen, ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]);
        assert_eq!(CRASH.delay(3), Duration::from_secs(40));
        assert_eq!(CRASH.delay(90), Duration::from_mins(5));
    }
}
