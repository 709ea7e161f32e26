//! Amounts of resources, and what a Pod requests.
//!
//! Rules of a Pod's effective request: upstream's `component-helpers/resource`.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::k8s_openapi::api::core::v1::{Container, PodSpec};
use barque_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// CPU that scoring assumes for a container that requests none, in thousandths.
const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory that scoring assumes for a container that requests none, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts by resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Processors, in thousandths.
    pub milli_cpu: i64,
    /// Memory, in bytes.
    pub memory: i64,
    /// Local disk, in bytes.
    pub ephemeral_storage: i64,
    /// Huge pages and extended resources, in units.
    pub other: BTreeMap<Arc<str>, i64>,
}

impl Resources {
    /// From a `requests`, `capacity` or `allocatable` map; `pods` is left out.
    #[must_use]
    pub fn from_quantities(map: &BTreeMap<String, Quantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in map {
            // Validation lets only well-formed quantities into the store.
            let milli = milli(&quantity.0).unwrap_or(0);
            let units = i64::try_from(milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0));
            let units = units.unwrap_or(i64::MAX);
            match name.as_str() {
                "cpu" => resources.milli_cpu = i64::try_from(milli).unwrap_or(i64::MAX),
                "memory" => resources.memory = units,
                "ephemeral-storage" => resources.ephemeral_storage = units,
                "pods" => {}
                other => {
                    resources.other.insert(Arc::from(other), units);
                }
            }
        }
        resources
    }

    /// Adds amounts.
    pub fn add(&mut self, more: &Self) {
        self.milli_cpu = self.milli_cpu.saturating_add(more.milli_cpu);
        self.memory = self.memory.saturating_add(more.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(more.ephemeral_storage);
        for (name, amount) in &more.other {
            let sum = self.other.entry(Arc::clone(name)).or_insert(0);
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes amounts away.
    pub fn subtract(&mut self, less: &Self) {
        self.milli_cpu = self.milli_cpu.saturating_sub(less.milli_cpu);
        self.memory = self.memory.saturating_sub(less.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_sub(less.ephemeral_storage);
        for (name, amount) in &less.other {
            if let Some(sum) = self.other.get_mut(name) {
                *sum = sum.saturating_sub(*amount);
                if *sum == 0 {
                    self.other.remove(name);
                }
            }
        }
    }

    fn max(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.other {
            let most = self.other.entry(Arc::clone(name)).or_insert(0);
            *most = (*most).max(*amount);
        }
    }
}

/// What a Pod asks of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Requests {
    /// What must be free.
    pub resources: Resources,
    /// CPU for scoring, in thousandths: with an assumption where none is requested.
    pub score_milli_cpu: i64,
    /// Memory for scoring, in bytes.
    pub score_memory: i64,
}

impl Requests {
    /// The effective request of a Pod.
    #[must_use]
    pub fn of(spec: &PodSpec) -> Self {
        let resources = pod_requests(spec, false);
        let score = pod_requests(spec, true);
        Self { resources, score_milli_cpu: score.milli_cpu, score_memory: score.memory }
    }
}

fn container_requests(container: &Container, assume: bool) -> Resources {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let mut resources = requests.map(Resources::from_quantities).unwrap_or_default();
    if assume {
        let has = |name| requests.is_some_and(|r| r.contains_key(name));
        if !has("cpu") {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !has("memory") {
            resources.memory = DEFAULT_MEMORY;
        }
    }
    resources
}

/// Containers run together with sidecars; an init container runs alone with
/// the sidecars started before it.
fn pod_requests(spec: &PodSpec, assume: bool) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&container_requests(container, assume));
    }
    let mut sidecars = Resources::default();
    let mut most_of_init = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needed = container_requests(container, assume);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        most_of_init.max(&needed);
    }
    total.max(&most_of_init);
    // Requests of the Pod as a whole replace the sums.
    if let Some(requests) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let whole = Resources::from_quantities(requests);
        if requests.contains_key("cpu") {
            total.milli_cpu = whole.milli_cpu;
        }
        if requests.contains_key("memory") {
            total.memory = whole.memory;
        }
        total.other.extend(whole.other);
    }
    if let Some(overhead) = &spec.overhead {
        total.add(&Resources::from_quantities(overhead));
    }
    total.other.retain(|_, amount| *amount != 0);
    total
}

/// A quantity in whole thousandths, rounded up; `None` when it is malformed.
#[must_use]
pub fn milli(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || number.contains(['+', '-']) {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let mantissa = if negative { -mantissa } else { mantissa };
    let (factor, divisor) = scale(suffix)?;
    let divisor = divisor.checked_mul(10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let scaled = mantissa.checked_mul(factor)?.checked_mul(1000)?;
    Some(scaled.div_euclid(divisor) + i128::from(scaled.rem_euclid(divisor) != 0))
}

/// What a suffix multiplies by, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let ten = 10i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, ten) } else { (ten, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities() {
        for (text, expected) in
            [("1", Some(1000)), ("100m", Some(100)), ("1.5", Some(1500)), ("0.1m", Some(1)), ("1Ki", Some(1_024_000))]
        {
            assert_eq!(milli(text), expected, "{text}");
        }
        assert_eq!(milli("1e3"), Some(1_000_000));
        assert_eq!(milli("Gi"), None);
    }

    fn requests(spec: serde_json::Value) -> Requests {
        Requests::of(&serde_json::from_value(spec).expect("a PodSpec"))
    }

    #[test]
    fn init_containers_and_sidecars() {
        let cpu = |n: &str| json!({"requests": {"cpu": n}});
        let requests = requests(json!({
            "containers": [{"name": "a", "resources": cpu("1")}, {"name": "b", "resources": cpu("500m")}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": cpu("200m")},
                {"name": "i", "resources": cpu("3")},
            ],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        }));
        // max(1000 + 500 + 200, 3000 + 200) + 10
        assert_eq!(requests.resources.milli_cpu, 3210);
        assert_eq!(requests.resources.memory, 1 << 20);
        assert_eq!(requests.score_memory, 3 * DEFAULT_MEMORY + (1 << 20));
    }

    #[test]
    fn requests_of_the_pod_as_a_whole_win() {
        let requests = requests(json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "example.com/gpu": "2"}}}],
            "resources": {"requests": {"cpu": "4"}},
        }));
        assert_eq!(requests.resources.milli_cpu, 4000);
        assert_eq!(requests.resources.other.get("example.com/gpu"), Some(&2));
    }
}
