//! Objects from one version to another: by changing `apiVersion`, or by asking
//! a webhook (ConversionReview v1).
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/conversion`.

use std::sync::Arc;

use async_trait::async_trait;
use barque_api::crd::{Conversion, Definition};
use barque_api::{Object, StatusError};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// Most objects that a webhook is asked about at once.
const MAX_REVIEW_OBJECTS: usize = 1_000;
/// Most different conversions of one request.
const MAX_ANSWERS: usize = 64;
/// Metadata that a webhook may change.
const MUTABLE_METADATA: &[&str] = &["labels", "annotations"];
/// Metadata that changes from one round of planning to the next.
const VOLATILE_METADATA: &[&str] = &["uid", "creationTimestamp", "managedFields", "resourceVersion", "generation"];

/// Calls webhooks.
#[async_trait]
pub trait Converter: Send + Sync + 'static {
    /// Posts a document to where a `clientConfig` points and gives the answer
    /// back.
    ///
    /// # Errors
    /// Why there is no answer, in the words of a client.
    async fn post(&self, client_config: &Value, body: &Value) -> Result<Value, String>;
}

/// A server without a client for webhooks.
pub struct NoConverter;

#[async_trait]
impl Converter for NoConverter {
    async fn post(&self, _: &Value, _: &Value) -> Result<Value, String> {
        Err("this server has no client for webhooks".to_owned())
    }
}

/// A conversion that a plan needs.
#[derive(Clone)]
struct Wanted {
    definition: Arc<Definition>,
    object: Object,
    api_version: String,
}

#[derive(Default)]
struct State {
    /// Objects without volatile metadata, wanted version, and the result.
    answers: Vec<(Object, String, Object)>,
    wanted: Option<Wanted>,
}

/// What webhooks have answered for one request.
#[derive(Clone, Default)]
pub(crate) struct Memo(Arc<Mutex<State>>);

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memo")
    }
}

fn without_volatile(object: &Object) -> Object {
    let mut object = object.clone();
    if let Some(Value::Object(metadata)) = object.0.get_mut("metadata") {
        metadata.retain(|name, _| !VOLATILE_METADATA.contains(&name.as_str()));
    }
    object
}

/// The converted object with the metadata of the one it comes from, but for
/// what may change.
fn with_metadata_of(original: &Object, mut converted: Object) -> Object {
    let mut metadata = original.metadata().cloned().unwrap_or_default();
    let new = converted.metadata().cloned().unwrap_or_default();
    for field in MUTABLE_METADATA {
        match new.get(*field).filter(|value| !value.is_null()) {
            Some(value) => metadata.insert((*field).to_owned(), value.clone()),
            None => metadata.remove(*field),
        };
    }
    converted.0.insert("metadata".to_owned(), Value::Object(metadata));
    converted
}

/// Converts an object without waiting: what a webhook has to say must be in
/// the memo, else it is noted there and the answer is an error.
pub(super) fn object(
    memo: &Memo,
    definition: &Arc<Definition>,
    mut object: Object,
    api_version: &str,
) -> Result<Object, StatusError> {
    if object.api_version() == api_version {
        return Ok(object);
    }
    if definition.conversion == Conversion::None {
        object.0.insert("apiVersion".to_owned(), json!(api_version));
        return Ok(object);
    }
    let key = without_volatile(&object);
    let mut state = memo.0.lock();
    let known = state.answers.iter().find(|(from, to, _)| to == api_version && *from == key);
    if let Some((_, _, converted)) = known {
        return Ok(with_metadata_of(&object, converted.clone()));
    }
    state.wanted = Some(Wanted { definition: Arc::clone(definition), object, api_version: api_version.to_owned() });
    Err(StatusError::internal("the conversion webhook has not been asked"))
}

/// Asks for what the memo says is wanted. False if nothing is.
pub(super) async fn answer(converter: &Arc<dyn Converter>, memo: &Memo) -> Result<bool, StatusError> {
    let wanted = {
        let mut state = memo.0.lock();
        let Some(wanted) = state.wanted.take() else { return Ok(false) };
        if state.answers.len() >= MAX_ANSWERS {
            return Err(StatusError::internal("the object changes too often to be converted"));
        }
        wanted
    };
    let mut objects = vec![Some(wanted.object.clone())];
    self::objects(converter, &wanted.definition, &mut objects, &wanted.api_version).await?;
    if let Some(Some(converted)) = objects.pop() {
        memo.0.lock().answers.push((without_volatile(&wanted.object), wanted.api_version, converted));
    }
    Ok(true)
}

/// Converts those objects that are not in the wanted version yet.
pub(super) async fn objects(
    converter: &Arc<dyn Converter>,
    definition: &Definition,
    objects: &mut [Option<Object>],
    api_version: &str,
) -> Result<(), StatusError> {
    let others: Vec<&mut Object> =
        objects.iter_mut().flatten().filter(|object| object.api_version() != api_version).collect();
    match &definition.conversion {
        Conversion::None => {
            for object in others {
                object.0.insert("apiVersion".to_owned(), json!(api_version));
            }
            Ok(())
        }
        Conversion::Webhook { client, review_versions } => {
            let mut others = others;
            for chunk in others.chunks_mut(MAX_REVIEW_OBJECTS) {
                review(converter, definition, client, review_versions, chunk, api_version).await?;
            }
            Ok(())
        }
    }
}

async fn review(
    converter: &Arc<dyn Converter>,
    definition: &Definition,
    client: &Value,
    review_versions: &[String],
    objects: &mut [&mut Object],
    api_version: &str,
) -> Result<(), StatusError> {
    let Some(first) = objects.first() else { return Ok(()) };
    let (group, version) = first.api_version().split_once('/').unwrap_or(("", first.api_version()));
    let from = format!("{group}/{version}, Kind={}", definition.kind);
    let failed = |why: String| StatusError::internal(format!("conversion webhook for {from} {why}"));
    let uid = barque_api::world::World::system().new_uid();
    let review_version = review_versions.iter().find(|version| matches!(version.as_str(), "v1" | "v1beta1"));
    let review_version = format!("apiextensions.k8s.io/{}", review_version.map_or("v1", String::as_str));
    let list: Vec<&Map<String, Value>> = objects.iter().map(|object| &object.0).collect();
    let body = json!({
        "kind": "ConversionReview",
        "apiVersion": review_version,
        "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": list},
    });
    let answer = converter.post(client, &body).await.map_err(|why| failed(format!("failed: {why}")))?;
    let response = answer.get("response").filter(|response| response.is_object());
    let Some(response) = response else { return Err(failed("failed: no response provided".to_owned())) };
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text(&answer, "/apiVersion") != review_version || text(&answer, "/kind") != "ConversionReview" {
        let why = format!("failed: expected webhook response of {review_version}, Kind=ConversionReview");
        return Err(failed(why));
    }
    if text(response, "/uid") != uid {
        return Err(failed(format!("failed: expected response.uid={uid:?}, got {:?}", text(response, "/uid"))));
    }
    if text(response, "/result/status") != "Success" {
        let message = match text(response, "/result/message") {
            message if message.is_empty() => "unknown reason".to_owned(),
            message => message,
        };
        return Err(failed(format!("failed: {message}")));
    }
    let converted = response.get("convertedObjects").and_then(Value::as_array).cloned().unwrap_or_default();
    if converted.len() != objects.len() {
        return Err(failed(format!("returned {} objects, expected {}", converted.len(), objects.len())));
    }
    for (index, (object, value)) in objects.iter_mut().zip(converted).enumerate() {
        let invalid = |why: String| failed(format!("returned invalid converted object at index {index}: {why}"));
        let new = Object::from_value(value).map_err(|_| invalid("it is no object".to_owned()))?;
        if new.api_version() != api_version {
            let why = format!("invalid apiVersion (received {}, expected {api_version})", new.api_version());
            return Err(invalid(why));
        }
        if new.kind() != object.kind() {
            return Err(invalid(format!("invalid kind (received {}, expected {})", new.kind(), object.kind())));
        }
        for field in ["name", "namespace", "uid"] {
            let path = ["metadata", field];
            if new.text(&path) != object.text(&path) {
                let why = format!("metadata.{field} was changed from {} to {}", object.text(&path), new.text(&path));
                return Err(invalid(why));
            }
        }
        **object = with_metadata_of(object, new);
    }
    Ok(())
}
