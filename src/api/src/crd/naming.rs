//! Which names a definition gets, and the conditions that tell what has become
//! of it. Names of one group are given to whoever came first.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/{status,establish,apiapproval,nonstructuralschema}`.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::check::Approval;
use super::condition;
use crate::object::Object;
use crate::validation::Fields;
use crate::world::format_time;

/// Sets a condition; its time of transition changes with its status only.
pub fn set_condition(status: &mut Map<String, Value>, now: Timestamp, kind: &str, value: &str, why: (&str, &str)) {
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Value::Array(list) = conditions else { return };
    let mut new = json!({
        "type": kind, "status": value, "reason": why.0, "message": why.1, "lastTransitionTime": format_time(now),
    });
    match list.iter_mut().find(|condition| condition.text("type") == kind) {
        Some(old) => {
            if old.text("status") == value
                && let Some(time) = old.given("lastTransitionTime")
            {
                new["lastTransitionTime"] = time.clone();
            }
            *old = new;
        }
        None => list.push(new),
    }
}

/// What a definition that is being deleted says first.
pub fn mark_terminating(crd: &mut Object, now: Timestamp) {
    let status = crd.0.entry("status").or_insert_with(|| json!({}));
    if let Value::Object(status) = status {
        let message =
            "CustomResourceDefinition marked for deletion; CustomResource deletion will occur as soon as possible";
        set_condition(status, now, "Terminating", "True", ("InstanceDeletionPending", message));
    }
}

/// The status that a definition should have next to the others of its group;
/// `None` if it has it already.
#[must_use]
pub fn next_status<'a>(
    crd: &Object,
    others: impl Iterator<Item = &'a Object>,
    now: Timestamp,
) -> Option<Map<String, Value>> {
    let before = crd.at("status").as_object().cloned().unwrap_or_default();
    let mut status = before.clone();
    names(crd, others, &mut status, now);
    approval(crd, &mut status, now);
    (status != before).then_some(status)
}

/// The names of a group that are taken by others.
#[derive(Default)]
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    fn by<'a>(crd: &Object, others: impl Iterator<Item = &'a Object>) -> Self {
        let group = crd.at("spec").text("group");
        let mut taken = Self::default();
        for other in others.filter(|other| other.name() != crd.name() && other.at("spec").text("group") == group) {
            let names = other.at("status").at("acceptedNames");
            let own = [names.text("plural"), names.text("singular")].into_iter().chain(names.texts("shortNames"));
            taken.resources.extend(own.filter(|name| !name.is_empty()).map(ToOwned::to_owned));
            let kinds = [names.text("kind"), names.text("listKind")];
            taken.kinds.extend(kinds.into_iter().filter(|name| !name.is_empty()).map(ToOwned::to_owned));
        }
        taken
    }
}

fn names<'a>(crd: &Object, others: impl Iterator<Item = &'a Object>, status: &mut Map<String, Value>, now: Timestamp) {
    let wanted = crd.at("spec").at("names");
    let accepted = crd.at("status").at("acceptedNames");
    if wanted == accepted && condition(crd, "Established").is_some_and(|c| c.text("status") == "True") {
        return;
    }
    let taken = Taken::by(crd, others);
    let mut new = accepted.as_object().cloned().unwrap_or_default();
    let mut conflict: Option<(&str, String)> = None;
    let mut claim = |field: &str, reason: &'static str, taken: &BTreeSet<String>| {
        let name = wanted.text(field);
        if name != accepted.text(field) && taken.contains(name) {
            conflict = Some((reason, format!("{name:?} is already in use")));
        } else if !name.is_empty() {
            new.insert(field.to_owned(), json!(name));
        }
    };
    claim("plural", "PluralConflict", &taken.resources);
    claim("singular", "SingularConflict", &taken.resources);
    claim("kind", "KindConflict", &taken.kinds);
    claim("listKind", "ListKindConflict", &taken.kinds);
    let had: Vec<&str> = accepted.texts("shortNames").collect();
    let clashes: Vec<String> = wanted
        .texts("shortNames")
        .filter(|name| !had.contains(name) && taken.resources.contains(*name))
        .map(|name| format!("{name:?} is already in use"))
        .collect();
    if clashes.is_empty() {
        copy(wanted, "shortNames", &mut new);
    } else {
        let text = if clashes.len() == 1 { clashes[0].clone() } else { format!("[{}]", clashes.join(", ")) };
        conflict = Some(("ShortNamesConflict", text));
    }
    copy(wanted, "categories", &mut new);
    status.insert("acceptedNames".to_owned(), Value::Object(new));
    let established = condition(crd, "Established").is_some_and(|c| c.text("status") == "True");
    match conflict {
        Some((reason, message)) => {
            set_condition(status, now, "NamesAccepted", "False", (reason, &message));
            if !established {
                let why = ("NotAccepted", "not all names are accepted");
                set_condition(status, now, "Established", "False", why);
            }
        }
        None => {
            set_condition(status, now, "NamesAccepted", "True", ("NoConflicts", "no conflicts found"));
            if !established {
                let why = ("InitialNamesAccepted", "the initial names have been accepted");
                set_condition(status, now, "Established", "True", why);
            }
        }
    }
}

fn copy(from: &Value, field: &str, to: &mut Map<String, Value>) {
    match from.list(field) {
        [] => {
            to.remove(field);
        }
        list => {
            to.insert(field.to_owned(), Value::Array(list.to_vec()));
        }
    }
}

fn approval(crd: &Object, status: &mut Map<String, Value>, now: Timestamp) {
    let approval = Approval::of(crd);
    let (value, reason) = match &approval {
        Approval::NotNeeded => return,
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Bypassed(_) => ("False", "UnapprovedAnnotation"),
        Approval::Approved(_) => ("True", "ApprovedAnnotation"),
    };
    let message = approval.message();
    let name = "KubernetesAPIApprovalPolicyConformant";
    let same = condition(crd, name).is_some_and(|c| c.text("status") == value && c.text("message") == message);
    if !same {
        set_condition(status, now, name, value, (reason, &message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(plural: &str, kind: &str, short: &[&str]) -> Object {
        Object::from_value(json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
                "shortNames": short}},
        }))
        .expect("an object")
    }

    fn with_status(mut crd: Object, others: &[&Object]) -> Object {
        let now = Timestamp::UNIX_EPOCH;
        if let Some(status) = next_status(&crd, others.iter().copied(), now) {
            crd.0.insert("status".to_owned(), Value::Object(status));
        }
        assert!(next_status(&crd, others.iter().copied(), now).is_none(), "it settles");
        crd
    }

    fn told(crd: &Object, name: &str) -> (String, String) {
        let found = condition(crd, name).cloned().unwrap_or_default();
        (found.text("status").to_owned(), found.text("reason").to_owned())
    }

    #[test]
    fn whoever_comes_first_gets_the_names() {
        let first = with_status(crd("things", "Thing", &["t"]), &[]);
        assert_eq!(told(&first, "NamesAccepted"), ("True".into(), "NoConflicts".into()));
        assert_eq!(told(&first, "Established"), ("True".into(), "InitialNamesAccepted".into()));
        assert_eq!(first.at("status").at("acceptedNames"), first.at("spec").at("names"));
        for (second, reason) in
            [(crd("others", "Thing", &[]), "ListKindConflict"), (crd("others", "Other", &["t"]), "ShortNamesConflict")]
        {
            let second = with_status(second, &[&first]);
            assert_eq!(told(&second, "NamesAccepted"), ("False".into(), reason.into()));
            assert_eq!(told(&second, "Established"), ("False".into(), "NotAccepted".into()));
        }
        // When the first is gone, the names are free.
        let second = with_status(crd("others", "Thing", &["t"]), &[&first]);
        let second = with_status(second, &[]);
        assert_eq!(told(&second, "Established"), ("True".into(), "InitialNamesAccepted".into()));
    }

    #[test]
    fn groups_of_kubernetes_want_approval() {
        let mut object = crd("things", "Thing", &[]);
        object.set(&["spec", "group"], json!("x.k8s.io"));
        for (annotation, expected) in [
            (None, "MissingAnnotation"),
            (Some("no"), "InvalidAnnotation"),
            (Some("unapproved, test"), "UnapprovedAnnotation"),
            (Some("https://github.com/kubernetes/kubernetes/pull/1"), "ApprovedAnnotation"),
        ] {
            let mut object = object.clone();
            if let Some(text) = annotation {
                object.set(&["metadata", "annotations", super::super::check::APPROVED_ANNOTATION], json!(text));
            }
            let settled = with_status(object, &[]);
            assert_eq!(told(&settled, "KubernetesAPIApprovalPolicyConformant").1, expected);
        }
    }
}
