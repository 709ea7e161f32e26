//! JSON patch (RFC 6902) with bounds: `copy` could otherwise double a
//! document again and again.

use json_patch::PatchOperation;
use serde::Deserialize;
use serde_json::Value;

use super::{MAX_JSON_PATCH_OPERATIONS, unprocessable};
use crate::object::Object;
use crate::status::{Reason, StatusError};

/// How deep a patch may build a document; one operation after the other could
/// otherwise nest it until the stack is used up.
const MAX_DEPTH: usize = 120;
/// How many values `copy` operations may add in sum.
const MAX_COPIED_VALUES: usize = 100_000;

pub(super) fn apply(target: &Object, patch: &Value) -> Result<Value, StatusError> {
    let Value::Array(list) = patch else {
        let kind = if patch.is_object() { "object" } else { "value" };
        let text = format!("json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch");
        return Err(StatusError::bad_request(text));
    };
    if list.len() > MAX_JSON_PATCH_OPERATIONS {
        let text = format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {}",
            list.len()
        );
        return Err(StatusError::new(Reason::RequestEntityTooLarge, text));
    }
    let operations = list
        .iter()
        .enumerate()
        .map(|(index, operation)| {
            PatchOperation::deserialize(operation)
                .map_err(|error| StatusError::bad_request(format!("error decoding patch: operation {index}: {error}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut document = Value::Object(target.0.clone());
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        if operation.path().count() > MAX_DEPTH {
            return Err(unprocessable(format!("operation {index}: the path has more than {MAX_DEPTH} elements")));
        }
        if let PatchOperation::Copy(copy) = operation {
            copied += document.pointer(copy.from.as_str()).map_or(0, count);
            if copied > MAX_COPIED_VALUES {
                return Err(StatusError::new(
                    Reason::RequestEntityTooLarge,
                    format!("the copy operations of a JSON patch may add {MAX_COPIED_VALUES} values at most"),
                ));
            }
        }
        if is_absence_test(&document, operation) {
            continue;
        }
        json_patch::patch_unsafe(&mut document, std::slice::from_ref(operation)).map_err(|error| {
            unprocessable(format!("operation {index} at {:?}: {}", error.path.as_str(), error.kind))
        })?;
    }
    if depth(&document) > MAX_DEPTH {
        return Err(unprocessable(format!("the patched document is nested more than {MAX_DEPTH} levels deep")));
    }
    Ok(document)
}

/// Whether an operation tests that a member is null of an object that does not
/// have it. That holds, as with upstream's library; clients test so before
/// they add a first finalizer.
fn is_absence_test(document: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let path = test.path.as_str();
    let parent = path.rsplit_once('/').and_then(|(parent, _)| document.pointer(parent));
    test.value.is_null() && document.pointer(path).is_none() && parent.is_some_and(Value::is_object)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        // Long text counts by its length.
        Value::String(text) => 1 + text.len() / 32,
        _ => 1,
    }
}
