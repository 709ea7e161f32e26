//! An API object as a JSON map, with named access to what every kind has.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A JSON object with `apiVersion`, `kind` and `metadata`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object(pub Map<String, Value>);

/// A reference from a dependent to the object that owns it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// Group and version of the owner, as in `apps/v1`.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner, in the same namespace or cluster-scoped.
    pub name: String,
    /// Uid of the owner.
    pub uid: String,
    /// Whether the owner manages this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether foreground deletion of the owner waits for this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// The texts in a JSON list; what is no text is passed over, and what is no
/// list has none.
#[must_use]
pub fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

impl Object {
    /// Takes a JSON value that must be an object.
    ///
    /// # Errors
    /// Gives the value back when it is of another type.
    pub fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => Err(other),
        }
    }

    /// Encodes a typed object, adding `apiVersion` and `kind`.
    ///
    /// # Errors
    /// When the type does not serialize to a JSON object.
    pub fn from_typed<T: serde::Serialize>(typed: &T) -> Result<Self, serde_json::Error> {
        match serde_json::to_value(typed)? {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(serde::ser::Error::custom("not a JSON object")),
        }
    }

    /// Decodes into a typed view.
    ///
    /// # Errors
    /// When a field has the wrong type.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(serde::de::value::MapDeserializer::new(self.0.iter().map(|(key, value)| (key.as_str(), value))))
    }

    /// The value at a path of field names, for example `["spec", "nodeName"]`.
    #[must_use]
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, key| value.get(key))
    }

    /// The text at a path, "" when absent or not text.
    #[must_use]
    pub fn text(&self, path: &[&str]) -> &str {
        self.get(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The number at a path.
    #[must_use]
    pub fn integer(&self, path: &[&str]) -> Option<i64> {
        self.get(path).and_then(Value::as_i64)
    }

    /// Sets the value at a path, making maps on the way; a non-map on the way
    /// is replaced.
    pub fn set(&mut self, path: &[&str], value: Value) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut map = &mut self.0;
        for key in parents {
            let slot = map.entry((*key).to_owned()).or_insert_with(|| json!({}));
            if !slot.is_object() {
                *slot = json!({});
            }
            map = slot.as_object_mut().expect("made an object just above");
        }
        map.insert((*last).to_owned(), value);
    }

    /// Removes the value at a path and returns it.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut map = &mut self.0;
        for key in parents {
            map = map.get_mut(*key)?.as_object_mut()?;
        }
        map.remove(*last)
    }

    /// `metadata` as a map, if present.
    #[must_use]
    pub fn metadata(&self) -> Option<&Map<String, Value>> {
        self.0.get("metadata").and_then(Value::as_object)
    }

    /// `metadata` as a map, made if absent.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        let slot = self.0.entry("metadata".to_owned()).or_insert_with(|| json!({}));
        if !slot.is_object() {
            *slot = json!({});
        }
        slot.as_object_mut().expect("made an object just above")
    }

    /// `apiVersion`.
    #[must_use]
    pub fn api_version(&self) -> &str {
        self.text(&["apiVersion"])
    }

    /// `kind`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text(&["kind"])
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text(&["metadata", "name"])
    }

    /// `metadata.namespace`, "" for cluster-scoped objects.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"])
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.text(&["metadata", "uid"])
    }

    /// `metadata.resourceVersion`, "" if unset.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.text(&["metadata", "resourceVersion"])
    }

    /// `metadata.generation`, 0 if unset.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.integer(&["metadata", "generation"]).unwrap_or(0)
    }

    /// Whether `metadata.deletionTimestamp` is set.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.get(&["metadata", "deletionTimestamp"]).is_some_and(|v| !v.is_null())
    }

    /// The value of one label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.get(&["metadata", "labels", key]).and_then(Value::as_str)
    }

    /// `metadata.labels` as a map, if present.
    #[must_use]
    pub fn labels(&self) -> Option<&Map<String, Value>> {
        self.get(&["metadata", "labels"]).and_then(Value::as_object)
    }

    /// The value of one annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.get(&["metadata", "annotations", key]).and_then(Value::as_str)
    }

    /// `metadata.finalizers`.
    #[must_use]
    pub fn finalizers(&self) -> Vec<&str> {
        self.get(&["metadata", "finalizers"])
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    }

    /// `metadata.ownerReferences`; entries that cannot be decoded are left out
    /// (validation keeps them out of the store).
    #[must_use]
    pub fn owner_references(&self) -> Vec<OwnerReference> {
        self.get(&["metadata", "ownerReferences"])
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(|v| serde::Deserialize::deserialize(v).ok()).collect())
            .unwrap_or_default()
    }

    /// The owner that manages this object.
    #[must_use]
    pub fn controller(&self) -> Option<OwnerReference> {
        self.owner_references().into_iter().find(|owner| owner.controller == Some(true))
    }
}
