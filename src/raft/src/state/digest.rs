//! A checksum of the whole state, kept up to date change by change: the sum
//! of one number per live object, so that the order of changes is irrelevant
//! and replicas can be compared at the same log index.

use barque_store::{Event, EventKind, Record};

/// The digest of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Digest(pub u64);

/// A well-spread number for one version of one object.
fn of_record(record: &Record) -> u64 {
    let key = record.key();
    let mut name = crc32c::crc32c(key.resource.as_bytes());
    for part in [key.object.namespace.as_bytes(), key.object.name.as_bytes()] {
        name = crc32c::crc32c_append(crc32c::crc32c_append(name, &[0]), part);
    }
    let content = crc32c::crc32c(record.bytes());
    let seed = (u64::from(name) << 32 | u64::from(content)) ^ record.revision().0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The finalizer of splitmix64.
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Digest {
    /// Adds a live object.
    pub fn add(&mut self, record: &Record) {
        self.0 = self.0.wrapping_add(of_record(record));
    }

    /// Follows a change.
    pub fn change(&mut self, event: &Event) {
        if let Some(previous) = &event.previous {
            self.0 = self.0.wrapping_sub(of_record(previous));
        }
        if event.kind != EventKind::Deleted {
            self.add(&event.record);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use barque_api::Object;
    use barque_store::{Draft, Key, Limits, Op, Replica, RequestId, Term, Txn};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn following_changes_gives_the_sum_over_the_objects(
            ops in prop::collection::vec((0u8..6, 0u8..4, any::<bool>()), 0..60)
        ) {
            let mut replica = Replica::new(Limits::default());
            let mut digest = Digest::default();
            for (number, (name, content, put)) in ops.into_iter().enumerate() {
                let key = Key::new("configmaps", "default", format!("n{name}"));
                let object = Object::from_value(json!({"metadata": {}, "data": content})).expect("an object");
                let op = if put { Op::Put(key, Draft::encode(&object)) } else { Op::Delete(key) };
                let txn =
                    Txn { request_id: RequestId(number as u128), actor_term: None, preconditions: vec![], ops: vec![op] };
                for event in replica.apply(Term(1), &[txn]).events {
                    digest.change(&event);
                }
            }
            let mut whole = Digest::default();
            for record in replica.state().list("configmaps", None) {
                let copy: Arc<Record> = Arc::clone(record);
                whole.add(&copy);
            }
            prop_assert_eq!(digest, whole);
        }
    }
}
