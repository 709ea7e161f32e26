//! Which Pods belong to which node and which objects they need, kept up to date
//! change by change.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use barque_api::Object;
use barque_runtime::{Event, EventKind, Key, ObjectName, Record, Snapshot};

use crate::references::{CONFIG_MAPS, SECRETS, references};

/// Storage name of Pods.
pub const PODS: &str = "pods";

/// The node that a Pod is assigned to.
pub fn node_of(pod: &Object) -> &str {
    pod.text(&["spec", "nodeName"])
}

struct Placed {
    node: Arc<str>,
    needs: BTreeSet<Key>,
}

#[derive(Default)]
struct OfNode {
    pods: BTreeSet<ObjectName>,
    /// Objects that Pods of the node need, and how many Pods do.
    needs: HashMap<Key, usize>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct AssignmentIndex {
    placed: HashMap<ObjectName, Placed>,
    nodes: HashMap<Arc<str>, OfNode>,
    /// Nodes on which an object is needed.
    needed_on: HashMap<Key, BTreeSet<Arc<str>>>,
}

impl AssignmentIndex {
    /// Resources whose changes matter.
    pub const RESOURCES: [&'static str; 3] = [PODS, CONFIG_MAPS, SECRETS];

    /// The index of a snapshot.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        let mut index = Self::default();
        for record in snapshot.list(PODS, None) {
            index.place(record);
        }
        index
    }

    /// Takes in a change; gives the nodes that it concerns.
    pub fn apply(&mut self, event: &Event) -> BTreeSet<Arc<str>> {
        let key = event.record.key();
        if &*key.resource != PODS {
            return self.needed_on.get(key).cloned().unwrap_or_default();
        }
        let mut concerned = BTreeSet::new();
        concerned.extend(self.displace(&key.object));
        if event.kind != EventKind::Deleted {
            concerned.extend(self.place(&event.record));
        }
        concerned
    }

    fn place(&mut self, record: &Record) -> Option<Arc<str>> {
        let object = record.object();
        let node: Arc<str> = Arc::from(Some(node_of(object)).filter(|node| !node.is_empty())?);
        let name = record.key().object.clone();
        let needs = references(object);
        let of_node = self.nodes.entry(Arc::clone(&node)).or_default();
        of_node.pods.insert(name.clone());
        for key in &needs {
            let count = of_node.needs.entry(key.clone()).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.needed_on.entry(key.clone()).or_default().insert(Arc::clone(&node));
            }
        }
        self.placed.insert(name, Placed { node: Arc::clone(&node), needs });
        Some(node)
    }

    fn displace(&mut self, name: &ObjectName) -> Option<Arc<str>> {
        let Placed { node, needs } = self.placed.remove(name)?;
        if let Some(of_node) = self.nodes.get_mut(&node) {
            of_node.pods.remove(name);
            for key in needs {
                let Some(count) = of_node.needs.get_mut(&key) else { continue };
                *count -= 1;
                if *count == 0 {
                    of_node.needs.remove(&key);
                    if let Some(nodes) = self.needed_on.get_mut(&key) {
                        nodes.remove(&node);
                        if nodes.is_empty() {
                            self.needed_on.remove(&key);
                        }
                    }
                }
            }
            if of_node.pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
        Some(node)
    }

    /// What a node shall have, as of a snapshot that is not older than the
    /// index.
    #[must_use]
    pub fn wanted(&self, node: &str, snapshot: &Snapshot) -> Vec<Arc<Record>> {
        let Some(of_node) = self.nodes.get(node) else { return Vec::new() };
        let pods = of_node
            .pods
            .iter()
            .filter_map(|name| snapshot.find(PODS, &name.namespace, &name.name))
            .filter(|record| node_of(record.object()) == node);
        let needed = of_node.needs.keys().filter_map(|key| snapshot.get(key));
        pods.chain(needed).cloned().collect()
    }
}
