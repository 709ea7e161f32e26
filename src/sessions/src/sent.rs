//! What one session has sent, and the difference to what its node shall have.

use std::collections::HashMap;
use std::sync::Arc;

use barque_proto::v1::{AssignedObject, Assignment, ObjectRef};
use barque_runtime::{Key, Record, Revision, Term};

/// See the module's documentation.
#[derive(Default)]
pub struct Sent {
    /// Version of the assignment, once a complete one was sent.
    version: Option<u64>,
    objects: HashMap<Key, (String, Revision)>,
}

impl Sent {
    /// The message that makes the agent hold exactly `wanted`; none if it does
    /// already. The first one is complete.
    pub fn difference(&mut self, wanted: &[Arc<Record>], at: Revision, term: Term) -> Option<Assignment> {
        let complete = self.version.is_none();
        let mut upserts = Vec::new();
        let mut next = HashMap::with_capacity(wanted.len());
        for record in wanted {
            let held = self.objects.remove(record.key());
            let same = held.is_some_and(|(uid, revision)| uid == record.uid() && revision == record.revision());
            if !same {
                upserts.push(AssignedObject {
                    r#ref: Some(reference(record.key(), record.uid())),
                    revision: record.revision().0,
                    json: record.bytes().clone(),
                });
            }
            next.insert(record.key().clone(), (record.uid().to_owned(), record.revision()));
        }
        // What is left over is no longer wanted.
        let mut left: Vec<_> = std::mem::replace(&mut self.objects, next).into_iter().collect();
        left.sort_by(|a, b| a.0.cmp(&b.0));
        let removals: Vec<_> = left.iter().map(|(key, (uid, _))| reference(key, uid)).collect();
        if !complete && upserts.is_empty() && removals.is_empty() {
            return None;
        }
        let applies_to = self.version.unwrap_or(0);
        // Versions rise with every message, and with the store across leaders.
        let results_in = at.0.max(applies_to + 1);
        self.version = Some(results_in);
        Some(Assignment { term: term.0, complete, applies_to, results_in, upserts, removals })
    }
}

fn reference(key: &Key, uid: &str) -> ObjectRef {
    ObjectRef {
        resource: key.resource.to_string(),
        namespace: key.object.namespace.to_string(),
        name: key.object.name.to_string(),
        uid: uid.to_owned(),
    }
}
