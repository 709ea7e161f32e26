//! The `pod-template-hash`: a short name for a Pod template.

use serde_json::Value;

/// The alphabet of names that cannot spell words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A hash of a Pod template; `collisions` makes it another one when a name is
/// already taken. Members of JSON objects count in the order of their names.
pub fn template_hash(template: &Value, collisions: Option<i32>) -> String {
    let mut hash = Fnv::new();
    feed(&mut hash, template);
    if let Some(collisions) = collisions {
        hash.write(&collisions.to_le_bytes());
    }
    hash.0.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// FNV-1a, 32 bits: stable for all time, which a name in the store needs.
struct Fnv(u32);

impl Fnv {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

fn feed(hash: &mut Fnv, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            hash.write(b"{");
            for (key, value) in members {
                hash.write(key.as_bytes());
                hash.write(b":");
                feed(hash, value);
            }
            hash.write(b"}");
        }
        Value::Array(list) => {
            hash.write(b"[");
            for value in list {
                feed(hash, value);
                hash.write(b",");
            }
            hash.write(b"]");
        }
        scalar => hash.write(scalar.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_is_stable_and_told_apart_by_collisions() {
        let template = json!({"spec": {"containers": [{"name": "web", "image": "nginx:1"}]}});
        let hash = template_hash(&template, None);
        assert_eq!(hash, template_hash(&template, None));
        assert!(hash.len() <= 10 && hash.bytes().all(|b| ALPHABET.contains(&b)), "{hash}");
        assert_ne!(hash, template_hash(&template, Some(1)));
        assert_ne!(template_hash(&template, Some(1)), template_hash(&template, Some(2)));
        assert_ne!(hash, template_hash(&json!({"spec": {}}), None));
    }
}
