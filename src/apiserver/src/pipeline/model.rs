//! The pipeline's view of the object model: shapes, bodies, field ownership.

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::schema::{self, Findings, Limits, TypeDef};
use barque_api::selector::LabelSelector;
use barque_api::{Object, Reason, Resource, StatusError, managed};
use serde_json::{Map, Value};

use super::{Door, FieldValidation, RequestContext};

pub(crate) use barque_api::schema::Decoded;

/// The shape of a kind's objects.
pub(crate) fn shape(row: &Resource) -> Option<&TypeDef> {
    match row.custom() {
        Some(custom) => Some(&custom.version().typedef),
        None => schema::builtin().kind(&row.group, &row.version, &row.kind),
    }
}

/// Fills in defaults.
pub(super) fn default(row: &Resource, object: &mut Object) {
    (row.strategy.default)(object);
    if let Some(custom) = row.custom() {
        custom.default(object);
    }
}

/// As [`check`], for what is to be applied: fields that a custom kind does not
/// have are left in, for nobody could own them.
pub(super) fn check_intent(
    context: &RequestContext,
    row: &Resource,
    object: &mut Object,
) -> Result<Vec<String>, StatusError> {
    match row.custom() {
        Some(custom) => judge(context, row, &custom.normalize_metadata(object)),
        None => check(context, row, object),
    }
}

/// Checks types and fields against the kind's shape and drops what the kind
/// does not have. Gives warnings back.
pub(super) fn check(context: &RequestContext, row: &Resource, object: &mut Object) -> Result<Vec<String>, StatusError> {
    let findings = match (row.custom(), shape(row)) {
        (Some(custom), _) => custom.normalize(object),
        (None, Some(shape)) => schema::normalize(object, shape),
        (None, None) => return Ok(Vec::new()),
    };
    judge(context, row, &findings)
}

fn judge(context: &RequestContext, row: &Resource, findings: &Findings) -> Result<Vec<String>, StatusError> {
    if let Some(first) = findings.type_errors.first() {
        return Err(StatusError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {first}",
            row.kind, row.version, row.kind
        )));
    }
    let duplicates = &context.duplicate_fields;
    match context.field_validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => {
            let duplicates = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
            let unknown = findings.unknown_fields.iter().map(|path| format!("unknown field {path:?}"));
            Ok(duplicates.chain(unknown).collect())
        }
        FieldValidation::Strict => match schema::strict_error(duplicates, &findings.unknown_fields) {
            Some(text) => Err(StatusError::bad_request(text)),
            None => Ok(Vec::new()),
        },
    }
}

fn write<'a>(context: &'a RequestContext, row: &'a Resource, door: Door, now: Timestamp) -> managed::Write<'a> {
    managed::Write {
        manager: &context.field_manager,
        subresource: door.subresource(),
        typedef: shape(row),
        has_status: row.has_status,
        now,
    }
}

/// Brings `managedFields` up to date after an ordinary write.
pub(super) fn own_fields(
    context: &RequestContext,
    row: &Resource,
    old: Option<&Object>,
    new: &mut Object,
    door: Door,
    now: Timestamp,
) {
    managed::update(old, new, &write(context, row, door, now));
}

/// Server-side apply.
pub(super) fn apply(
    context: &RequestContext,
    row: &Resource,
    live: Option<&Object>,
    intent: &Object,
    door: Door,
    now: Timestamp,
) -> Result<Object, StatusError> {
    managed::apply(live, intent, &write(context, row, door, now), context.force)
}

/// Whether a `metav1.LabelSelector` selects these labels. One that cannot be
/// read selects nothing; validation keeps those out.
pub(super) fn selects(selector: &Value, labels: &Map<String, Value>) -> bool {
    LabelSelector::from_json(selector).is_ok_and(|selector| selector.matches(labels))
}

/// A `metav1.LabelSelector` (or plain map) as text: `app=web,tier in (a,b)`.
pub(super) fn selector_text(selector: &Value) -> String {
    let is_selector = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let equal = if is_selector { selector.get("matchLabels") } else { Some(selector) };
    let mut parts = Vec::new();
    if let Some(labels) = equal.and_then(Value::as_object) {
        parts.push(LabelSelector::from_map(labels).to_string());
    }
    if let Some(expressions) = selector.get("matchExpressions") {
        let only = serde_json::json!({"matchExpressions": expressions});
        parts.extend(LabelSelector::from_json(&only).map(|selector| selector.to_string()));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(",")
}

/// 413 in upstream's words.
pub(crate) fn too_large(limit: usize) -> StatusError {
    StatusError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
}

fn limits(max_bytes: usize) -> Limits {
    Limits { max_bytes, ..Limits::default() }
}

/// Decodes a JSON body.
pub(crate) fn decode_json(bytes: &[u8], max_bytes: usize) -> Result<Decoded, StatusError> {
    schema::decode_json(bytes, limits(max_bytes))
}

/// Decodes a YAML body of one document.
pub(crate) fn decode_yaml(bytes: &[u8], max_bytes: usize) -> Result<Decoded, StatusError> {
    barque_api::yaml::decode_yaml(bytes, limits(max_bytes))
}

/// Encodes an answer as YAML.
pub(crate) fn encode_yaml(value: &Value) -> Result<String, StatusError> {
    Ok(barque_api::yaml::encode_yaml(value))
}
