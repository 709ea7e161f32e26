//! Who manages which field: server-side apply, and the bookkeeping in
//! `metadata.managedFields` that ordinary writes need so that it works.
//!
//! [`update`] runs on every write, so it is built to do little: the change is
//! found in one walk over both objects, a set of fields *is* the `FieldsV1`
//! JSON (a sorted tree), and entries that a write does not touch are moved,
//! never decoded or encoded.
//!
//! Source of the rules: `sigs.k8s.io/structured-merge-diff` and
//! `k8s.io/apimachinery/pkg/util/managedfields`.

mod compare;
mod entries;
mod merge;
mod set;
mod validate;

use std::borrow::Cow;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::object::Object;
use crate::schema::{TypeDef, second_time};
use crate::status::{Cause, Reason, StatusError};

use compare::{Changes, compare, field_set};
use entries::{Entry, Operation, decode, encode};

/// The most entries of plain updates kept; older ones are merged.
const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager for which annotations of client-side apply are honoured.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Who writes, when, and through which door.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Name of the field manager, see [`manager_name`].
    pub manager: &'a str,
    /// "" for the object itself, else `status`, `scale`, ...
    pub subresource: &'a str,
    /// Shape of the object; `None` lets the values speak for themselves.
    pub typedef: Option<&'a TypeDef>,
    /// Whether `status` has a door of its own, so that other doors do not
    /// own it.
    pub has_status: bool,
    /// The time that goes into changed entries.
    pub now: Timestamp,
}

impl Write<'_> {
    /// Top-level fields this door cannot change.
    fn ignored(&self) -> &'static [&'static str] {
        match self.subresource {
            "" if self.has_status => &["f:status"],
            "status" => &["f:spec"],
            _ => &[],
        }
    }

    fn entry(&self, operation: Operation, api_version: &str, fields: Map<String, Value>) -> Entry {
        let manager = if self.manager.is_empty() { "unknown" } else { self.manager };
        Entry {
            manager: manager.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: None,
            fields,
        }
    }

    fn changes(&self, live: Option<&Map<String, Value>>, new: &Map<String, Value>) -> Changes {
        let mut changes = compare(live, new, self.typedef);
        changes.strip(self.ignored());
        changes
    }
}

/// The field manager of a request: what it names, else the first part of the
/// user agent.
#[must_use]
pub fn manager_name<'a>(field_manager: &'a str, user_agent: &'a str) -> Cow<'a, str> {
    if !field_manager.is_empty() {
        return Cow::Borrowed(field_manager);
    }
    let prefix = user_agent.split('/').next().unwrap_or_default();
    if prefix.len() <= 128 && prefix.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Cow::Borrowed(prefix);
    }
    let mut name = String::new();
    for c in prefix.chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > 128 {
            break;
        }
        name.push(c);
    }
    Cow::Owned(name)
}

/// Brings `metadata.managedFields` of `new` up to date for a create, update
/// or patch. `live` is the object before the write, `None` on create.
///
/// A client may reset the bookkeeping by sending an empty list or one empty
/// entry; then nothing is tracked until the next apply.
pub fn update(live: Option<&Object>, new: &mut Object, write: &Write<'_>) {
    let given = new.metadata_mut().remove("managedFields");
    let stored = || live.and_then(|live| live.get(&["metadata", "managedFields"]));
    let ignore_given = !write.subresource.is_empty();
    // On create there is nothing to reset.
    if !ignore_given && live.is_some() && given.as_ref().is_some_and(is_reset) {
        return;
    }
    let given = given.filter(|given| !ignore_given && !is_reset(given));
    let untouched = given.as_ref().is_none_or(|given| Some(given) == stored());
    let changes = write.changes(live.map(|live| &live.0), &new.0);
    if changes.is_empty() && untouched {
        if let Some(stored) = given.or_else(|| stored().cloned()) {
            new.metadata_mut().insert("managedFields".to_owned(), stored);
        }
        return;
    }
    // What the client sends counts, if it is in order; else what is stored.
    let from_given = given.and_then(|given| decode(given).ok()).filter(|entries| !entries.is_empty());
    let mut entries = from_given.or_else(|| stored().cloned().and_then(|value| decode(value).ok())).unwrap_or_default();
    if entries.is_empty() && live.is_some() {
        // Tracking was reset, or never begun.
        return;
    }
    track_update(&mut entries, changes, write, new.api_version());
    cap_updaters(&mut entries);
    encode_into(new, entries);
}

fn is_reset(given: &Value) -> bool {
    match given {
        Value::Array(list) => list.is_empty() || matches!(&list[..], [Value::Object(entry)] if entry.is_empty()),
        _ => false,
    }
}

fn encode_into(object: &mut Object, entries: Vec<Entry>) {
    if !entries.is_empty() {
        object.metadata_mut().insert("managedFields".to_owned(), encode(entries));
    }
}

/// Takes changed and removed fields from everybody and gives the changed ones
/// to the writer.
fn track_update(entries: &mut Vec<Entry>, changes: Changes, write: &Write<'_>, api_version: &str) {
    let Changes { mut added, modified, removed } = changes;
    set::unite(&mut added, modified);
    let own = added;
    for entry in entries.iter_mut() {
        set::subtract(&mut entry.fields, &own);
        set::subtract(&mut entry.fields, &removed);
    }
    entries.retain(|entry| !entry.fields.is_empty());
    if own.is_empty() {
        return;
    }
    let mut fresh = write.entry(Operation::Update, api_version, own);
    fresh.time = Some(second_time(write.now));
    match entries.iter_mut().find(|entry| entry.same_manager(&fresh)) {
        Some(entry) => {
            set::unite(&mut entry.fields, fresh.fields);
            entry.time = fresh.time;
        }
        None => entries.push(fresh),
    }
}

/// Merges the oldest update entries of each version into one until at most
/// [`MAX_UPDATE_MANAGERS`] are left.
fn cap_updaters(entries: &mut Vec<Entry>) {
    let updaters = |entries: &[Entry]| entries.iter().filter(|e| e.operation == Operation::Update).count();
    let mut count = updaters(entries);
    if count <= MAX_UPDATE_MANAGERS {
        return;
    }
    entries.sort_by(|a, b| a.time.cmp(&b.time).then_with(|| a.manager.cmp(&b.manager)));
    let mut buckets: Vec<Entry> = Vec::new();
    let mut rest: Vec<Entry> = Vec::new();
    for entry in entries.drain(..) {
        if entry.operation != Operation::Update || count <= MAX_UPDATE_MANAGERS {
            rest.push(entry);
            continue;
        }
        match buckets.iter_mut().find(|bucket| bucket.api_version == entry.api_version) {
            Some(bucket) => {
                set::unite(&mut bucket.fields, entry.fields);
                ANCIENT.clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                bucket.time = entry.time;
                count -= 1;
            }
            None => buckets.push(entry),
        }
    }
    entries.append(&mut buckets);
    entries.append(&mut rest);
}

/// `live` with everything that `config` says, merged as server-side apply
/// merges; nobody comes to own anything.
#[must_use]
pub fn merge_configuration(live: Object, config: &Object, typedef: Option<&TypeDef>) -> Object {
    Object(merge::merge(live.0, &config.0, typedef))
}

/// Server-side apply: merges `config` into `live` (`None` creates), takes out
/// what the manager applied before and applies no more, and records the
/// ownership. When nothing changes, the result equals `live` to the letter.
///
/// Defaulting, validation and admission are the caller's.
///
/// # Errors
/// 409 with one cause per field when others own what `config` changes (unless
/// `force`); 400 when `config` does not fit the shape.
pub fn apply(live: Option<&Object>, config: &Object, write: &Write<'_>, force: bool) -> Result<Object, StatusError> {
    if config.get(&["metadata", "managedFields"]).is_some_and(|fields| !fields.is_null()) {
        return Err(StatusError::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(live) = live
        && live.api_version() != config.api_version()
    {
        return Err(StatusError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
            config.api_version(),
            live.api_version()
        )));
    }
    if let Some(typedef) = write.typedef {
        validate::validate(config, typedef)?;
    }
    let mut result = match apply_with(live, config, write, force) {
        Ok(result) => result,
        Err(ApplyError::Status(error)) => return Err(error),
        Err(ApplyError::Conflicts(conflicts)) => {
            let allowed = live.and_then(|live| conflicts_of_client_side_apply(live, write));
            let Some(allowed) = allowed else { return Err(conflict_error(&conflicts)) };
            let open: Vec<Conflict> = conflicts.into_iter().filter(|c| !set::has(&allowed, &c.path)).collect();
            if !open.is_empty() {
                return Err(conflict_error(&open));
            }
            match apply_with(live, config, write, true) {
                Ok(result) => result,
                Err(ApplyError::Status(error)) => return Err(error),
                Err(ApplyError::Conflicts(conflicts)) => return Err(conflict_error(&conflicts)),
            }
        }
    };
    if write.manager == KUBECTL {
        refresh_last_applied(&mut result, config);
    }
    Ok(result)
}

/// A field that somebody else owns.
struct Conflict {
    manager: String,
    path: Vec<String>,
}

enum ApplyError {
    Status(StatusError),
    Conflicts(Vec<Conflict>),
}

fn apply_with(live: Option<&Object>, config: &Object, write: &Write<'_>, force: bool) -> Result<Object, ApplyError> {
    let config = &without_system_nulls(config);
    let api_version = config.api_version();
    let mut base = live.cloned().unwrap_or_else(|| {
        Object(Map::from_iter([
            ("apiVersion".to_owned(), json!(api_version)),
            ("kind".to_owned(), json!(config.kind())),
            ("metadata".to_owned(), json!({})),
        ]))
    });
    let stored = base.metadata_mut().remove("managedFields");
    let mut entries = match stored.clone() {
        Some(value) => decode(value).map_err(|why| {
            ApplyError::Status(StatusError::internal(format!("failed to decode managed fields: {why}")))
        })?,
        None => Vec::new(),
    };
    if entries.is_empty() && live.is_some() {
        // Whatever is there belongs to nobody known.
        let before = Write { manager: BEFORE_FIRST_APPLY, ..*write };
        let changes = before.changes(None, &base.0);
        track_update(&mut entries, changes, &before, api_version);
    }

    let merged = merge::merge(base.0.clone(), &config.0, write.typedef);
    let mut fields = field_set(&config.0, write.typedef);
    for ignored in write.ignored() {
        fields.remove(*ignored);
    }
    let mut own = write.entry(Operation::Apply, api_version, fields);
    let previous = entries.iter().position(|entry| entry.same_manager(&own)).map(|index| entries.remove(index));
    let last = previous.as_ref().map(|entry| &entry.fields);
    let mut new = Object(prune(merged, last, &own, &entries, write.typedef));

    // Others lose what changes; that is a conflict unless forced.
    let changes = write.changes(Some(&base.0), &new.0);
    let mut taken = changes.added;
    set::unite(&mut taken, changes.modified);
    if !force {
        let mut conflicts = Vec::new();
        for entry in &entries {
            let shared = set::intersection(&entry.fields, &taken);
            set::paths(&shared, &mut |path| {
                conflicts.push(Conflict { manager: entry.describe(), path: path.to_vec() });
            });
        }
        if !conflicts.is_empty() {
            conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    if let Some(typedef) = write.typedef.filter(|typedef| !typedef.custom) {
        merge::drop_nulls(&mut new.0, typedef);
    }
    let unchanged = new == base;
    for entry in &mut entries {
        set::subtract(&mut entry.fields, &taken);
        set::subtract(&mut entry.fields, &changes.removed);
    }
    entries.retain(|entry| !entry.fields.is_empty());

    compare::strip_untracked(&mut own.fields);
    let same_set = previous
        .as_ref()
        .is_some_and(|previous| previous.fields == own.fields && previous.api_version == own.api_version);
    if unchanged
        && same_set
        && let Some(live) = live
    {
        return Ok(live.clone());
    }
    own.time = match previous {
        Some(previous) if unchanged && same_set => previous.time,
        _ => Some(second_time(write.now)),
    };
    if !own.fields.is_empty() {
        entries.push(own);
    }
    encode_into(&mut new, entries);
    Ok(new)
}

/// The configuration without nulls for what the system sets: generated
/// manifests are full of `creationTimestamp: null`.
fn without_system_nulls(config: &Object) -> Cow<'_, Object> {
    let is_null = |key: &str| config.metadata().and_then(|metadata| metadata.get(key)).is_some_and(Value::is_null);
    let nulls = || compare::UNTRACKED.iter().filter_map(|key| key.strip_prefix("f:")).filter(|key| is_null(key));
    if nulls().next().is_none() {
        return Cow::Borrowed(config);
    }
    let mut clean = config.clone();
    for key in nulls() {
        clean.metadata_mut().remove(key);
    }
    Cow::Owned(clean)
}

/// Takes out of `merged` what the manager applied before, does not apply now,
/// and nobody else owns.
fn prune(
    merged: Map<String, Value>,
    last: Option<&Map<String, Value>>,
    own: &Entry,
    others: &[Entry],
    typedef: Option<&TypeDef>,
) -> Map<String, Value> {
    let Some(last) = last else { return merged };
    let mut dropped = last.clone();
    set::subtract(&mut dropped, &own.fields);
    if dropped.is_empty() {
        return merged;
    }
    let last = set::with_named(last, typedef);
    let pruned = merge::without(merged.clone(), &last, typedef);

    let mut managed = own.fields.clone();
    for entry in others {
        set::unite(&mut managed, entry.fields.clone());
    }
    let merged_set = set::with_named(&field_set(&merged, typedef), typedef);
    let mut removable = merged_set.clone();
    set::subtract(&mut removable, &set::with_named(&field_set(&pruned, typedef), typedef));
    set::subtract(&mut removable, &set::with_named(&managed, typedef));
    let pruned = merge::without(merged.clone(), &removable, typedef);

    // Only what the manager itself had applied may go.
    let mut removable = merged_set;
    set::subtract(&mut removable, &set::with_named(&field_set(&pruned, typedef), typedef));
    merge::without(merged, &set::intersection(&removable, &last), typedef)
}

fn conflict_error(conflicts: &[Conflict]) -> StatusError {
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, set::display(&one.path)),
        many => {
            let mut lines = Vec::new();
            let mut manager = None;
            for conflict in many {
                if manager != Some(&conflict.manager) {
                    lines.push(format!("conflicts with {}:", conflict.manager));
                    manager = Some(&conflict.manager);
                }
                lines.push(format!("- {}", set::display(&conflict.path)));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let mut error = StatusError::new(Reason::Conflict, message);
    error.causes = conflicts
        .iter()
        .map(|conflict| Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", conflict.manager),
            field: set::display(&conflict.path),
        })
        .collect();
    error
}

/// Fields that `kubectl` owns by its annotation of client-side apply and that
/// still have the value it gave them: it may take them over without force.
fn conflicts_of_client_side_apply(live: &Object, write: &Write<'_>) -> Option<Map<String, Value>> {
    if write.manager != KUBECTL {
        return None;
    }
    let text = live.annotation(LAST_APPLIED).filter(|text| !text.is_empty())?;
    let last = Object::from_value(serde_json::from_str(text).ok()?).ok()?;
    if last.api_version() != live.api_version() {
        return None;
    }
    let mut fields = field_set(&last.0, write.typedef);
    let changes = compare(Some(&last.0), &live.0, write.typedef);
    set::subtract(&mut fields, &changes.modified);
    set::subtract(&mut fields, &changes.added);
    set::subtract(&mut fields, &changes.removed);
    Some(fields)
}

/// Keeps the annotation of client-side apply in step, where there is one.
fn refresh_last_applied(result: &mut Object, config: &Object) {
    if result.annotation(LAST_APPLIED).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    config.remove(&["metadata", "annotations", LAST_APPLIED]);
    let text = format!("{}\n", Value::Object(config.0));
    let Some(Value::Object(annotations)) = result.metadata_mut().get_mut("annotations") else { return };
    let others: usize = annotations
        .iter()
        .filter(|(key, _)| *key != LAST_APPLIED)
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if others + LAST_APPLIED.len() + text.len() > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    } else {
        annotations.insert(LAST_APPLIED.to_owned(), Value::String(text));
    }
}

#[cfg(test)]
mod tests;
