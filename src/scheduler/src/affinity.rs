//! Affinity and anti-affinity between Pods (upstream's `InterPodAffinity`).

use std::collections::HashMap;
use std::sync::Arc;

use barque_api::k8s_openapi::api::core::v1::PodAffinityTerm;

use crate::failure::Rejection;
use crate::node::NodeInfo;
use crate::selector::{Labels, Selector};
use crate::state::ClusterState;

/// Labels of namespaces.
pub type Namespaces = HashMap<Arc<str>, Labels>;

/// Which Pods, and within which topology.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Term {
    selector: Selector,
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
    topology_key: String,
}

impl Term {
    /// A term of a Pod in `namespace` that has `labels`.
    #[must_use]
    pub fn of(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let selector = Selector::of(term.label_selector.as_ref())
            .with_keys(term.match_label_keys.as_deref(), labels, true)
            .with_keys(term.mismatch_label_keys.as_deref(), labels, false);
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        Self {
            selector,
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|s| Selector::of(Some(s))),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether the term speaks of Pods with these labels in this namespace.
    #[must_use]
    pub fn matches(&self, namespace: &str, labels: &Labels, namespaces: &Namespaces) -> bool {
        let in_namespace = self.namespaces.iter().any(|n| n == namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                selector.0.is_empty() || namespaces.get(namespace).is_some_and(|labels| selector.matches(labels))
            });
        in_namespace && self.selector.matches(labels)
    }
}

/// A preference; negative weights repel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightedTerm {
    /// 1 to 100, negative for anti-affinity.
    pub weight: i64,
    /// The term.
    pub term: Term,
}

/// All terms of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Terms {
    /// Pods that must be near.
    pub required: Vec<Term>,
    /// Pods that must not be near.
    pub anti: Vec<Term>,
    /// Pods that should or should not be near.
    pub preferred: Vec<WeightedTerm>,
}

impl Terms {
    /// Whether any term speaks of such Pods.
    #[must_use]
    pub fn concern(&self, namespace: &str, labels: &Labels, namespaces: &Namespaces) -> bool {
        let preferred = self.preferred.iter().map(|p| &p.term);
        self.required.iter().chain(&self.anti).chain(preferred).any(|t| t.matches(namespace, labels, namespaces))
    }
}

/// Count by value of a topology label.
type ByValue = HashMap<String, i64>;

/// What the Pods in the cluster mean for one kind of incoming Pod; kept up to
/// date while a plan places Pods.
pub struct Neighbours {
    namespace: Arc<str>,
    labels: Arc<Labels>,
    own: Option<Arc<Terms>>,
    /// Per own required term.
    required: Vec<ByValue>,
    /// Per own anti-affinity term.
    anti: Vec<ByValue>,
    /// Topology key → value → Pods there that do not want this one near.
    refused_by: HashMap<String, ByValue>,
    /// Topology key → value → sum of weights.
    preferred: HashMap<String, ByValue>,
    /// As `preferred`, of Pods whose required affinity wants this one near.
    wanted_by: HashMap<String, ByValue>,
    /// The Pod fulfils its own required terms.
    matches_itself: bool,
}

impl Neighbours {
    /// Of a Pod with these labels and terms, in a cluster.
    #[must_use]
    pub fn new(state: &ClusterState, namespace: &Arc<str>, labels: &Arc<Labels>, own: Option<&Arc<Terms>>) -> Self {
        let (required, anti) = own.map_or((0, 0), |t| (t.required.len(), t.anti.len()));
        let namespaces = state.namespaces();
        let mut neighbours = Self {
            namespace: Arc::clone(namespace),
            labels: Arc::clone(labels),
            own: own.cloned(),
            required: vec![ByValue::new(); required],
            anti: vec![ByValue::new(); anti],
            refused_by: HashMap::new(),
            preferred: HashMap::new(),
            wanted_by: HashMap::new(),
            matches_itself: own
                .is_some_and(|t| t.required.iter().all(|term| term.matches(namespace, labels, namespaces))),
        };
        if own.is_some() {
            for (population, nodes) in state.populations() {
                let relation = neighbours.relation(&population.namespace, &population.labels, namespaces);
                if relation.is_empty() {
                    continue;
                }
                for (slot, count) in nodes {
                    if let Some(node) = state.node(*slot) {
                        neighbours.count_pods(&relation, node, i64::from(count.all));
                    }
                }
            }
        }
        for (terms, nodes) in state.terms() {
            if !terms.concern(namespace, labels, namespaces) {
                continue;
            }
            for (slot, count) in nodes {
                if let Some(node) = state.node(*slot) {
                    neighbours.count_terms(terms, node, i64::from(*count), namespaces);
                }
            }
        }
        neighbours
    }

    /// A Pod has been placed on a node.
    pub fn add(
        &mut self,
        namespace: &str,
        labels: &Labels,
        terms: Option<&Terms>,
        node: &NodeInfo,
        namespaces: &Namespaces,
    ) {
        let relation = self.relation(namespace, labels, namespaces);
        if !relation.is_empty() {
            self.count_pods(&relation, node, 1);
        }
        if let Some(terms) = terms {
            self.count_terms(terms, node, 1, namespaces);
        }
    }

    /// Which own terms speak of such Pods.
    fn relation(&self, namespace: &str, labels: &Labels, namespaces: &Namespaces) -> Relation {
        let Some(own) = &self.own else { return Relation::default() };
        let matches = |term: &Term| term.matches(namespace, labels, namespaces);
        let positions = |terms: &[Term]| -> Vec<usize> {
            terms.iter().enumerate().filter(|(_, t)| matches(t)).map(|(i, _)| i).collect()
        };
        Relation {
            // As upstream: a Pod counts only if it fulfils all required terms.
            required: !own.required.is_empty() && own.required.iter().all(matches),
            anti: positions(&own.anti),
            preferred: own.preferred.iter().enumerate().filter(|(_, p)| matches(&p.term)).map(|(i, _)| i).collect(),
        }
    }

    fn count_pods(&mut self, relation: &Relation, node: &NodeInfo, count: i64) {
        let Some(own) = self.own.clone() else { return };
        if relation.required {
            for (term, counts) in own.required.iter().zip(&mut self.required) {
                bump(counts, node, &term.topology_key, count);
            }
        }
        for at in &relation.anti {
            bump(&mut self.anti[*at], node, &own.anti[*at].topology_key, count);
        }
        for at in &relation.preferred {
            let WeightedTerm { weight, term } = &own.preferred[*at];
            let counts = self.preferred.entry(term.topology_key.clone()).or_default();
            bump(counts, node, &term.topology_key, weight * count);
        }
    }

    fn count_terms(&mut self, terms: &Terms, node: &NodeInfo, count: i64, namespaces: &Namespaces) {
        let concerns = |term: &Term| term.matches(&self.namespace, &self.labels, namespaces);
        for term in terms.anti.iter().filter(|t| concerns(t)) {
            let counts = self.refused_by.entry(term.topology_key.clone()).or_default();
            bump(counts, node, &term.topology_key, count);
        }
        for term in terms.required.iter().filter(|t| concerns(t)) {
            let counts = self.wanted_by.entry(term.topology_key.clone()).or_default();
            bump(counts, node, &term.topology_key, count);
        }
        for WeightedTerm { weight, term } in terms.preferred.iter().filter(|p| concerns(&p.term)) {
            let counts = self.preferred.entry(term.topology_key.clone()).or_default();
            bump(counts, node, &term.topology_key, weight * count);
        }
    }

    /// Why a node is not admissible, if it is not.
    #[must_use]
    pub fn reject(&self, node: &NodeInfo) -> Option<Rejection> {
        if let Some(own) = &self.own {
            if !self.required_hold(own, node) {
                return Some(Rejection::PodAffinity);
            }
            let crowded = own.anti.iter().zip(&self.anti).any(|(term, counts)| {
                node.labels.get(&term.topology_key).is_some_and(|value| counts.get(value).is_some_and(|c| *c > 0))
            });
            if crowded {
                return Some(Rejection::PodAntiAffinity);
            }
        }
        let refused = self
            .refused_by
            .iter()
            .any(|(key, counts)| node.labels.get(key).is_some_and(|value| counts.get(value).is_some_and(|c| *c > 0)));
        refused.then_some(Rejection::ExistingAntiAffinity)
    }

    fn required_hold(&self, own: &Terms, node: &NodeInfo) -> bool {
        let mut near_all = true;
        for (term, counts) in own.required.iter().zip(&self.required) {
            let Some(value) = node.labels.get(&term.topology_key) else { return false };
            near_all &= counts.get(value).is_some_and(|c| *c > 0);
        }
        // The first of a group that wants to be near itself may go anywhere.
        near_all || (self.matches_itself && self.required.iter().all(HashMap::is_empty))
    }

    /// Sum of the weights of preferences, and of the Pods that require this
    /// one to be near.
    #[must_use]
    pub fn preference(&self, node: &NodeInfo) -> (i64, i64) {
        let sum = |by_key: &HashMap<String, ByValue>| -> i64 {
            by_key.iter().filter_map(|(key, counts)| counts.get(node.labels.get(key)?)).sum()
        };
        (sum(&self.preferred), sum(&self.wanted_by))
    }
}

/// Positions of own terms that speak of some Pods.
#[derive(Default)]
struct Relation {
    required: bool,
    anti: Vec<usize>,
    preferred: Vec<usize>,
}

impl Relation {
    fn is_empty(&self) -> bool {
        !self.required && self.anti.is_empty() && self.preferred.is_empty()
    }
}

fn bump(counts: &mut ByValue, node: &NodeInfo, key: &str, by: i64) {
    if let Some(value) = node.labels.get(key) {
        *counts.entry(value.clone()).or_insert(0) += by;
    }
}
