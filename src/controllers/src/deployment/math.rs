//! The numbers of a rollout: percentages, bounds, proportions.

use barque_api::k8s_openapi::api::apps::v1::Deployment;
use barque_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The parts of a Deployment's spec that decide about sizes, with defaults
/// filled in.
#[derive(Debug, Clone)]
pub struct Spec {
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub paused: bool,
    pub recreate: bool,
    /// `None` if old ReplicaSets are kept for ever.
    pub revision_history_limit: Option<i32>,
    /// `None` if progress is not watched.
    pub progress_deadline_seconds: Option<i32>,
    /// Pods over `replicas` that may exist during a rolling update.
    pub max_surge: i32,
    /// Pods below `replicas` that may be unavailable.
    pub max_unavailable: i32,
}

impl Spec {
    pub fn of(deployment: &Deployment) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        let recreate = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let default = IntOrString::String("25%".to_owned());
        let (max_surge, max_unavailable) = if recreate {
            (0, 0)
        } else {
            let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&default);
            let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&default);
            let (surge, unavailable) = resolve_fenceposts(surge, unavailable, replicas);
            (surge, if replicas == 0 { 0 } else { unavailable.min(replicas) })
        };
        let bounded = |value: Option<i32>, default| Some(value.unwrap_or(default)).filter(|value| *value != i32::MAX);
        Some(Self {
            replicas,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            paused: spec.paused.unwrap_or(false),
            recreate,
            revision_history_limit: bounded(spec.revision_history_limit, 10),
            progress_deadline_seconds: bounded(spec.progress_deadline_seconds, 600),
            max_surge,
            max_unavailable,
        })
    }

    /// Size of the new ReplicaSet after its next step up, when all of them
    /// together have `total` Pods.
    pub fn new_set_size(&self, total: i32, current: i32) -> i32 {
        if self.recreate {
            return self.replicas;
        }
        let most = self.replicas.saturating_add(self.max_surge);
        if total >= most {
            return current;
        }
        current + (most - total).min(self.replicas - current)
    }
}

/// A number as it is, or a percentage of `total` rounded up or down.
pub fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            // Validation lets only percentages through.
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * i64::from(total);
            let quotient = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(quotient).unwrap_or(i32::MAX)
        }
    }
}

/// Surge rounds up, unavailability down; both zero would mean no progress, so
/// that one Pod may be unavailable then.
fn resolve_fenceposts(surge: &IntOrString, unavailable: &IntOrString, desired: i32) -> (i32, i32) {
    let surge = scaled(surge, desired, true);
    let unavailable = scaled(unavailable, desired, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How much a ReplicaSet of size `size` changes when the whole Deployment goes
/// from at most `before` to at most `after` Pods.
pub fn fraction(size: i32, before: i32, after: i32) -> i32 {
    let scaled = f64::from(size) * f64::from(after) / f64::from(before);
    scaled.round() as i32 - size
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> Spec {
        let deployment: Deployment = serde_json::from_value(json!({"spec": value})).unwrap();
        Spec::of(&deployment).unwrap()
    }

    fn rolling(replicas: i32, surge: Value, unavailable: Value) -> Spec {
        spec(json!({"replicas": replicas, "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}))
    }

    #[test]
    fn percentages_round_as_upstream_rounds() {
        for (replicas, surge, unavailable, expected) in [
            (10, json!("25%"), json!("25%"), (3, 2)),
            (3, json!("25%"), json!("25%"), (1, 0)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (10, json!(0), json!(0), (0, 1)),
            (2, json!("0%"), json!("25%"), (0, 1)),
            (5, json!(2), json!("100%"), (2, 5)),
            (5, json!(0), json!(9), (0, 5)),
            (0, json!(1), json!(1), (1, 0)),
        ] {
            let spec = rolling(replicas, surge.clone(), unavailable.clone());
            assert_eq!((spec.max_surge, spec.max_unavailable), expected, "{replicas} {surge} {unavailable}");
        }
    }

    #[test]
    fn the_new_set_grows_into_the_room_there_is() {
        let spec = rolling(10, json!(2), json!(2));
        for (total, current, expected) in [(10, 0, 2), (12, 2, 2), (8, 2, 6), (3, 0, 9), (12, 10, 10)] {
            assert_eq!(spec.new_set_size(total, current), expected, "{total} {current}");
        }
        let recreate = self::spec(json!({"replicas": 4, "strategy": {"type": "Recreate"}}));
        assert_eq!(recreate.new_set_size(9, 0), 4);
    }

    #[test]
    fn limits_at_the_maximum_mean_none() {
        let spec = spec(json!({"progressDeadlineSeconds": i32::MAX, "revisionHistoryLimit": 3}));
        assert_eq!(spec.progress_deadline_seconds, None);
        assert_eq!(spec.revision_history_limit, Some(3));
    }
}
