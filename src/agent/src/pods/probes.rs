//! Probes: when the next one is due, and what their answers add up to. The
//! runtimes carry them out.

use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::{Container, ContainerStatus, Probe};
use barque_api::k8s_openapi::jiff::Timestamp;

use super::model::{ProbeFailure, ProbeResults, later};

/// Which probe of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Holds back the others until it succeeds.
    Startup,
    /// Condemns a container.
    Liveness,
    /// Takes a container out of service.
    Readiness,
}

impl ProbeKind {
    /// As in `Liveness probe failed: ...`.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Track {
    in_flight: bool,
    next_at: Option<Timestamp>,
    successes: i32,
    failures: i32,
}

/// The probes of one attempt of one container.
#[derive(Debug, Clone)]
pub struct Prober {
    started_at: Timestamp,
    tracks: [(ProbeKind, Track); 3],
    results: ProbeResults,
}

fn threshold(value: Option<i32>, default: i32) -> i32 {
    value.filter(|v| *v > 0).unwrap_or(default)
}

/// Time a probe may take.
pub fn timeout(probe: &Probe) -> Duration {
    Duration::from_secs(u64::try_from(threshold(probe.timeout_seconds, 1)).unwrap_or(1))
}

impl Prober {
    /// Probes of a container that runs since `started_at`; `None` when it has
    /// none.
    pub fn new(container: &Container, started_at: Timestamp) -> Option<Self> {
        let kinds = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];
        if kinds.iter().all(|kind| kind.of(container).is_none()) {
            return None;
        }
        let results = ProbeResults {
            started: container.startup_probe.is_none(),
            ready: container.readiness_probe.is_none(),
            failed: None,
        };
        Some(Self { started_at, tracks: kinds.map(|kind| (kind, Track::default())), results })
    }

    /// Goes on from what was reported about the same attempt before the agent
    /// started anew, so that a healthy container stays in service.
    pub fn resume(&mut self, before: &ContainerStatus) {
        self.results.started |= before.started == Some(true);
        self.results.ready |= before.ready;
    }

    /// What is known so far.
    pub fn results(&self) -> &ProbeResults {
        &self.results
    }

    /// Probes to carry out now (they count as begun), and when to look again.
    pub fn due(&mut self, container: &Container, now: Timestamp) -> (Vec<(ProbeKind, Probe)>, Option<Timestamp>) {
        let mut due = Vec::new();
        let mut wake: Option<Timestamp> = None;
        if self.results.failed.is_some() {
            return (due, None);
        }
        for (kind, track) in &mut self.tracks {
            let Some(probe) = kind.of(container) else { continue };
            if track.in_flight || (*kind == ProbeKind::Startup) == self.results.started {
                continue;
            }
            let delay = u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0);
            let at = track.next_at.unwrap_or_else(|| later(self.started_at, delay));
            if now >= at {
                track.in_flight = true;
                due.push((*kind, probe.clone()));
            } else {
                wake = Some(wake.map_or(at, |earlier| earlier.min(at)));
            }
        }
        (due, wake)
    }

    /// Takes the answer of a probe; `Err` is its failure.
    pub fn answer(&mut self, container: &Container, kind: ProbeKind, success: bool, now: Timestamp) {
        let Some(probe) = kind.of(container) else { return };
        let Some((_, track)) = self.tracks.iter_mut().find(|(k, _)| *k == kind) else { return };
        let period = u64::try_from(threshold(probe.period_seconds, 10)).unwrap_or(10);
        track.in_flight = false;
        track.next_at = Some(later(now, period));
        if success {
            track.successes = track.successes.saturating_add(1);
            track.failures = 0;
        } else {
            track.failures = track.failures.saturating_add(1);
            track.successes = 0;
        }
        let passed = track.successes >= threshold(probe.success_threshold, 1);
        let lost = track.failures >= threshold(probe.failure_threshold, 3);
        match kind {
            ProbeKind::Startup => self.results.started |= passed,
            ProbeKind::Readiness if passed => self.results.ready = true,
            ProbeKind::Readiness if lost => self.results.ready = false,
            _ => {}
        }
        if lost && kind != ProbeKind::Readiness {
            let name = if kind == ProbeKind::Startup { "startup" } else { "liveness" };
            self.results.failed =
                Some(ProbeFailure { probe: name, grace_seconds: probe.termination_grace_period_seconds });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::at;
    use serde_json::json;

    fn container() -> Container {
        serde_json::from_value(json!({"name": "a",
            "startupProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 2},
            "livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 5, "failureThreshold": 2},
            "readinessProbe": {"tcpSocket": {"port": 1}, "initialDelaySeconds": 7}}))
        .expect("a container")
    }

    fn kinds(due: &[(ProbeKind, Probe)]) -> Vec<ProbeKind> {
        due.iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn startup_comes_first_then_the_others_at_their_times() {
        let container = container();
        let mut prober = Prober::new(&container, at(0)).expect("has probes");
        assert_eq!(kinds(&prober.due(&container, at(0)).0), [ProbeKind::Startup]);
        assert_eq!(prober.due(&container, at(0)), (vec![], None), "one at a time");
        prober.answer(&container, ProbeKind::Startup, false, at(0));
        assert_eq!(prober.due(&container, at(0)).1, Some(at(1)));
        assert_eq!(kinds(&prober.due(&container, at(1)).0), [ProbeKind::Startup]);
        prober.answer(&container, ProbeKind::Startup, true, at(1));
        let (due, wake) = prober.due(&container, at(1));
        assert_eq!((kinds(&due), wake), (vec![ProbeKind::Liveness], Some(at(7))));
        assert_eq!(prober.results(), &ProbeResults { started: true, ready: false, failed: None });
        prober.due(&container, at(7));
        prober.answer(&container, ProbeKind::Readiness, true, at(7));
        assert!(prober.results().ready);
    }

    #[test]
    fn what_was_reported_before_a_restart_holds_until_a_probe_says_otherwise() {
        let container = container();
        let mut prober = Prober::new(&container, at(0)).expect("has probes");
        let before = ContainerStatus { started: Some(true), ready: true, ..ContainerStatus::default() };
        prober.resume(&before);
        assert_eq!(prober.results(), &ProbeResults { started: true, ready: true, failed: None });
        assert_eq!(kinds(&prober.due(&container, at(7)).0), [ProbeKind::Liveness, ProbeKind::Readiness]);
        for second in 7..10 {
            prober.answer(&container, ProbeKind::Readiness, false, at(second));
        }
        assert!(!prober.results().ready);
    }

    #[test]
    fn failures_in_a_row_condemn() {
        let container = container();
        let mut prober = Prober::new(&container, at(0)).expect("has probes");
        prober.answer(&container, ProbeKind::Startup, true, at(0));
        prober.answer(&container, ProbeKind::Liveness, false, at(1));
        prober.answer(&container, ProbeKind::Liveness, true, at(2));
        prober.answer(&container, ProbeKind::Liveness, false, at(3));
        assert_eq!(prober.results().failed, None);
        prober.answer(&container, ProbeKind::Liveness, false, at(4));
        assert_eq!(prober.results().failed.as_ref().map(|f| f.probe), Some("liveness"));
        assert!(prober.due(&container, at(99)).0.is_empty());
    }
}
