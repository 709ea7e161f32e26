//! A Pod as the scheduler sees it. What identical Pods have in common is a
//! [`Shape`], shared between them and compared by value, so that a pass works
//! out once per shape which nodes are suitable.

use std::sync::Arc;

use barque_api::k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint,
};
use barque_runtime::ObjectName;

use crate::SCHEDULER_NAME;
use crate::affinity::{Term, Terms, WeightedTerm};
use crate::node::TaintInfo;
use crate::resources::Requests;
use crate::selector::{Labels, Requirement, Selector};
use crate::spread::Constraint;

/// One Pod.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// Namespace and name.
    pub name: ObjectName,
    /// Uid.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// Labels.
    pub labels: Arc<Labels>,
    /// Uid of the controller that owns the Pod.
    pub owner: Option<Arc<str>>,
    /// Priority; higher ones are placed first.
    pub priority: i32,
    /// Seconds since 1970 of its creation.
    pub created: i64,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// Is marked for deletion.
    pub terminating: bool,
    /// Has ended: uses nothing any more.
    pub terminal: bool,
    /// `schedulerName` is ours.
    pub ours: bool,
    /// Has scheduling gates.
    pub gated: bool,
    /// The condition `PodScheduled` as stored.
    pub condition: Option<Condition>,
    /// What it asks for.
    pub shape: Arc<Shape>,
}

/// The condition `PodScheduled`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `True` or `False`.
    pub status: String,
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When `status` last changed, as stored.
    pub since: Option<String>,
}

/// A port on the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Port number.
    pub port: i32,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// Address; `0.0.0.0` is all of them.
    pub ip: String,
}

impl HostPort {
    /// Whether both cannot be open on one host.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY_ADDRESS || other.ip == ANY_ADDRESS)
    }
}

/// Binds on all addresses.
const ANY_ADDRESS: &str = "0.0.0.0";

/// A toleration, in comparable form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tolerated {
    key: String,
    exists: bool,
    value: String,
    effect: String,
}

impl Tolerated {
    fn of(toleration: &Toleration) -> Self {
        Self {
            key: toleration.key.clone().unwrap_or_default(),
            exists: toleration.operator.as_deref() == Some("Exists"),
            value: toleration.value.clone().unwrap_or_default(),
            effect: toleration.effect.clone().unwrap_or_default(),
        }
    }

    /// Whether the taint is tolerated.
    #[must_use]
    pub fn tolerates(&self, taint: &TaintInfo) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && (self.exists || (!self.key.is_empty() && self.value == taint.value))
    }
}

/// A term of a node selector: all must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    /// Names allowed by `matchFields`; `None` allows all.
    names: Option<Vec<String>>,
    forbidden: Vec<String>,
    never: bool,
}

impl NodeTerm {
    fn of(term: &NodeSelectorTerm) -> Self {
        let labels: Vec<_> = term.match_expressions.iter().flatten().map(Requirement::of_node).collect();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let mut built = Self { never: labels.is_empty() && fields.is_empty(), labels, names: None, forbidden: vec![] };
        for field in fields {
            let values = field.values.clone().unwrap_or_default();
            match (field.key.as_str(), field.operator.as_str()) {
                ("metadata.name", "In") => {
                    let narrowed = match built.names.take() {
                        Some(names) => names.into_iter().filter(|name| values.contains(name)).collect(),
                        None => values,
                    };
                    built.names = Some(narrowed);
                }
                ("metadata.name", "NotIn") => built.forbidden.extend(values),
                _ => built.never = true,
            }
        }
        built
    }

    /// Whether a node fulfils the term.
    #[must_use]
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        !self.never
            && self.names.as_ref().is_none_or(|names| names.iter().any(|n| n == name))
            && !self.forbidden.iter().any(|n| n == name)
            && self.labels.iter().all(|requirement| requirement.matches(labels))
    }
}

/// What a Pod asks for, without its identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape {
    /// Resources.
    pub requests: Requests,
    /// Ports on the host.
    pub ports: Vec<HostPort>,
    /// `nodeSelector`.
    pub node_selector: Vec<(String, String)>,
    /// Required node affinity: one term must hold.
    pub required_nodes: Option<Vec<NodeTerm>>,
    /// Preferred node affinity with weights.
    pub preferred_nodes: Vec<(i32, NodeTerm)>,
    /// Tolerations.
    pub tolerations: Vec<Tolerated>,
    /// Explicit spread constraints that must hold.
    pub hard_spread: Vec<Constraint>,
    /// Explicit spread constraints that should hold.
    pub soft_spread: Vec<Constraint>,
    /// Affinity towards other Pods.
    pub terms: Option<Arc<Terms>>,
    /// `preemptionPolicy: Never`.
    pub never_preempts: bool,
    /// Something the Pod refers to and that Barque does not have, in words.
    pub missing: Option<String>,
}

impl Shape {
    /// Whether the placement depends on the labels of Pods, not only on nodes
    /// and sums.
    #[must_use]
    pub fn looks_at_pods(&self) -> bool {
        self.terms.is_some() || !self.hard_spread.is_empty() || !self.soft_spread.is_empty()
    }

    /// Whether `nodeSelector` and required affinity admit a node.
    #[must_use]
    pub fn selects(&self, name: &str, labels: &Labels) -> bool {
        self.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.required_nodes.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// When every term of the required affinity names nodes: those names.
    #[must_use]
    pub fn named_nodes(&self) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        for term in self.required_nodes.as_ref()? {
            names.extend(term.names.as_ref()?.iter().map(String::as_str));
        }
        Some(names)
    }

    /// Whether a taint is tolerated.
    #[must_use]
    pub fn tolerates(&self, taint: &TaintInfo) -> bool {
        self.tolerations.iter().any(|toleration| toleration.tolerates(taint))
    }

    fn of(namespace: &str, pod_name: &str, labels: &Labels, spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref();
        let node_affinity = affinity.and_then(|a| a.node_affinity.as_ref());
        let required = node_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred = node_affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
        let spread = |hard: bool| {
            let wanted = |c: &&TopologySpreadConstraint| (c.when_unsatisfiable == "DoNotSchedule") == hard;
            constraints.iter().filter(wanted).map(|c| Constraint::of(c, labels)).collect::<Vec<_>>()
        };
        Self {
            requests: Requests::of(spec),
            ports: host_ports(spec),
            node_selector: spec.node_selector.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            required_nodes: required.map(|r| r.node_selector_terms.iter().map(NodeTerm::of).collect()),
            preferred_nodes: preferred
                .into_iter()
                .flatten()
                .map(|p| {
                    let mut term = NodeTerm::of(&p.preference);
                    // Unlike a required term, an empty preference matches all nodes.
                    let empty = term.labels.is_empty() && term.names.is_none() && term.forbidden.is_empty();
                    term.never &= !empty;
                    (p.weight, term)
                })
                .collect(),
            tolerations: spec.tolerations.iter().flatten().map(Tolerated::of).collect(),
            hard_spread: spread(true),
            soft_spread: spread(false),
            terms: affinity.and_then(|a| terms(namespace, labels, a)).map(Arc::new),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            missing: missing(pod_name, spec),
        }
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports: Vec<_> = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let text = |value: &Option<String>, default: &str| match value.as_deref() {
                None | Some("") => default.to_owned(),
                Some(value) => value.to_owned(),
            };
            Some(HostPort { port: number, protocol: text(&port.protocol, "TCP"), ip: text(&port.host_ip, ANY_ADDRESS) })
        })
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

fn terms(namespace: &str, labels: &Labels, affinity: &Affinity) -> Option<Terms> {
    let term = |t: &PodAffinityTerm| Term::of(t, namespace, labels);
    let mut terms = Terms::default();
    if let Some(a) = &affinity.pod_affinity {
        terms.required = a.required_during_scheduling_ignored_during_execution.iter().flatten().map(term).collect();
        for p in a.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            terms.preferred.push(WeightedTerm { weight: i64::from(p.weight), term: term(&p.pod_affinity_term) });
        }
    }
    if let Some(a) = &affinity.pod_anti_affinity {
        terms.anti = a.required_during_scheduling_ignored_during_execution.iter().flatten().map(term).collect();
        for p in a.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            terms.preferred.push(WeightedTerm { weight: -i64::from(p.weight), term: term(&p.pod_affinity_term) });
        }
    }
    let empty = terms.required.is_empty() && terms.anti.is_empty() && terms.preferred.is_empty();
    (!empty).then_some(terms)
}

/// Claims are not among Barque's kinds: whatever a Pod claims is not there.
fn missing(pod_name: &str, spec: &PodSpec) -> Option<String> {
    for volume in spec.volumes.iter().flatten() {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(format!("persistentvolumeclaim \"{}\" not found", claim.claim_name));
        }
        if volume.ephemeral.is_some() {
            let claim = format!("{pod_name}-{}", volume.name);
            return Some(format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{claim}\""
            ));
        }
    }
    let claim = spec.resource_claims.iter().flatten().next()?;
    match &claim.resource_claim_name {
        Some(name) => Some(format!("resourceclaim.resource.k8s.io \"{name}\" not found")),
        None => Some(format!("pod \"{pod_name}\": resource claim \"{}\" not created yet", claim.name)),
    }
}

impl PodInfo {
    /// From a Pod object.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let status = pod.status.as_ref();
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let scheduler = spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME);
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let condition = conditions.iter().find(|c| c.type_ == "PodScheduled").map(|c| Condition {
            status: c.status.clone(),
            reason: c.reason.clone().unwrap_or_default(),
            message: c.message.clone().unwrap_or_default(),
            since: c.last_transition_time.as_ref().map(|t| barque_api::world::format_time(t.0)),
        });
        Self {
            name: ObjectName::new(namespace, name),
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation,
            owner: owner.map(|o| Arc::from(o.uid.as_str())),
            priority: spec.priority.unwrap_or(0),
            created: meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second()),
            node: spec.node_name.as_deref().filter(|n| !n.is_empty()).map(Arc::from),
            terminating: meta.deletion_timestamp.is_some(),
            terminal: matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")),
            ours: scheduler.is_empty() || scheduler == SCHEDULER_NAME,
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            condition,
            shape: Arc::new(Shape::of(namespace, name, &labels, spec)),
            labels: Arc::new(labels),
        }
    }

    /// Whether the scheduler has to find a node for it now.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.ours && self.node.is_none() && !self.gated && !self.terminating && !self.terminal
    }
}

impl Selector {
    /// The selector of a constraint or term, with `matchLabelKeys` merged.
    #[must_use]
    pub fn with_keys(mut self, keys: Option<&[String]>, labels: &Labels, same: bool) -> Self {
        self.merge_keys(keys.unwrap_or_default(), labels, same);
        self
    }
}
