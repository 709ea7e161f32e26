//! Why a Pod cannot be placed, in upstream's words (`FitError`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why one node is not suitable for one Pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rejection {
    /// `spec.unschedulable` is set.
    Unschedulable,
    /// A taint that is not tolerated: key and value.
    Taint(String, String),
    /// Node selector or required node affinity.
    NodeAffinity,
    /// Not among the nodes that the required node affinity names.
    NotNamed,
    /// A host port is taken.
    Ports,
    /// No room for another Pod.
    TooManyPods,
    /// Too little of a resource; `never` if even the empty node has too little.
    Insufficient {
        /// Name of the resource.
        resource: Arc<str>,
        /// The node's total is too small.
        never: bool,
    },
    /// A spread constraint.
    Spread,
    /// The node lacks the label of a spread constraint.
    SpreadLabelMissing,
    /// Required affinity towards other Pods.
    PodAffinity,
    /// Required anti-affinity towards other Pods.
    PodAntiAffinity,
    /// Required anti-affinity of Pods that run already.
    ExistingAntiAffinity,
}

impl Rejection {
    fn text(&self) -> Cow<'static, str> {
        match self {
            Self::Unschedulable => "node(s) were unschedulable".into(),
            Self::Taint(key, value) => format!("node(s) had untolerated taint {{{key}: {value}}}").into(),
            Self::NodeAffinity => "node(s) didn't match Pod's node affinity/selector".into(),
            Self::NotNamed => "node(s) didn't satisfy plugin(s) [NodeAffinity]".into(),
            Self::Ports => "node(s) didn't have free ports for the requested pod ports".into(),
            Self::TooManyPods => "Too many pods".into(),
            Self::Insufficient { resource, .. } => format!("Insufficient {resource}").into(),
            Self::Spread => "node(s) didn't match pod topology spread constraints".into(),
            Self::SpreadLabelMissing => {
                "node(s) didn't match pod topology spread constraints (missing required label)".into()
            }
            Self::PodAffinity => "node(s) didn't match pod affinity rules".into(),
            Self::PodAntiAffinity => "node(s) didn't match pod anti-affinity rules".into(),
            Self::ExistingAntiAffinity => "node(s) didn't satisfy existing pods anti-affinity rules".into(),
        }
    }

    /// Whether the departure of other Pods could help.
    fn may_resolve(&self) -> bool {
        match self {
            Self::Ports | Self::TooManyPods | Self::Spread | Self::PodAntiAffinity | Self::ExistingAntiAffinity => true,
            Self::Insufficient { never, .. } => !never,
            Self::Unschedulable
            | Self::Taint(..)
            | Self::NodeAffinity
            | Self::NotNamed
            | Self::SpreadLabelMissing
            | Self::PodAffinity => false,
        }
    }

    fn causes(&self) -> Causes {
        match self {
            Self::Ports | Self::TooManyPods | Self::Insufficient { .. } => Causes::ROOM,
            Self::Spread | Self::PodAffinity | Self::PodAntiAffinity | Self::ExistingAntiAffinity => Causes::PODS,
            _ => Causes::NODES,
        }
    }
}

/// What kind of change might let a Pod be placed. A change of nodes might
/// always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Causes(u8);

impl Causes {
    /// Only nodes themselves.
    pub const NODES: Self = Self(1);
    /// A Pod leaves its node.
    pub const ROOM: Self = Self(2);
    /// A Pod comes, leaves or changes its labels.
    pub const PODS: Self = Self(4);

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether they have something in common.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Why no node is suitable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// Nodes in the cluster.
    pub nodes: u32,
    /// Nodes by reason; a node may have several.
    pub reasons: BTreeMap<Rejection, u32>,
    /// What is wrong with the Pod itself, before any node is looked at.
    pub missing: Option<String>,
    /// Nodes on which no Pod's departure could help.
    pub hopeless: u32,
    /// Nodes where it could, but no Pod of lower priority runs there.
    pub without_victims: u32,
    /// Nodes where Pods of lower priority run.
    pub with_victims: u32,
    /// The Pod does not want to preempt.
    pub never_preempts: bool,
}

impl Failure {
    /// Counts a node that is not suitable for the given reasons (at least one).
    pub fn count(&mut self, reasons: &[Rejection], has_victims: bool) {
        self.add(reasons, has_victims, 1);
    }

    fn add(&mut self, reasons: &[Rejection], has_victims: bool, nodes: u32) {
        for reason in reasons {
            *self.reasons.entry(reason.clone()).or_insert(0) += nodes;
        }
        if !reasons.iter().all(Rejection::may_resolve) {
            self.hopeless += nodes;
        } else if has_victims {
            self.with_victims += nodes;
        } else {
            self.without_victims += nodes;
        }
    }

    /// Which changes could help.
    #[must_use]
    pub fn causes(&self) -> Causes {
        self.reasons.keys().fold(Causes::NODES, |causes, reason| causes.and(reason.causes()))
    }

    /// The message of the condition and the event.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 && self.missing.is_none() {
            return "no nodes available to schedule pods".to_owned();
        }
        let head = format!("0/{} nodes are available:", self.nodes);
        let mut message = head.clone();
        if let Some(missing) = &self.missing {
            message.push_str(&format!(" {missing}."));
        } else {
            // Two rejections may read alike.
            let mut by_text: BTreeMap<Cow<'static, str>, u32> = BTreeMap::new();
            for (reason, count) in &self.reasons {
                *by_text.entry(reason.text()).or_insert(0) += count;
            }
            message.push_str(&histogram(by_text));
        }
        if self.never_preempts {
            message.push_str(" preemption: not eligible due to preemptionPolicy=Never.");
        } else {
            let hopeless = if self.missing.is_some() { self.nodes } else { self.hopeless };
            let outcomes = BTreeMap::from([
                (Cow::Borrowed("Preemption is not helpful for scheduling"), hopeless),
                (Cow::Borrowed("No preemption victims found for incoming pod"), self.without_victims),
                (Cow::Borrowed("Preemption is not enabled"), self.with_victims),
            ]);
            message.push_str(&format!(" preemption: {head}{}", histogram(outcomes)));
        }
        message
    }
}

/// ` 1 this, 2 that.`: sorted as text, as upstream does.
fn histogram(counts: BTreeMap<Cow<'static, str>, u32>) -> String {
    let mut parts: Vec<_> = counts.into_iter().filter(|(_, n)| *n > 0).map(|(text, n)| format!("{n} {text}")).collect();
    parts.sort();
    if parts.is_empty() { String::new() } else { format!(" {}.", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_upstream_does() {
        let mut failure = Failure { nodes: 3, ..Failure::default() };
        failure.count(&[Rejection::Taint("dedicated".into(), "db".into())], false);
        let cpu = || Rejection::Insufficient { resource: "cpu".into(), never: false };
        failure.count(&[cpu()], false);
        failure.count(&[cpu(), Rejection::Insufficient { resource: "memory".into(), never: true }], false);
        assert_eq!(
            failure.message(),
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint {dedicated: db}, \
             2 Insufficient cpu. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, \
             2 Preemption is not helpful for scheduling."
        );
        assert!(failure.causes().meets(Causes::ROOM));
        assert!(!failure.causes().meets(Causes::PODS));
    }

    #[test]
    fn an_empty_cluster_and_a_missing_claim() {
        assert_eq!(Failure::default().message(), "no nodes available to schedule pods");
        let missing = Some("persistentvolumeclaim \"data\" not found".to_owned());
        assert_eq!(
            Failure { nodes: 1, missing, ..Failure::default() }.message(),
            "0/1 nodes are available: persistentvolumeclaim \"data\" not found. preemption: 0/1 nodes are available: \
             1 Preemption is not helpful for scheduling."
        );
    }
}
