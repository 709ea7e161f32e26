//! Rules for flow schemas and priority levels.
//!
//! Source: `pkg/apis/flowcontrol/validation`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Fields, Path, Report};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of the hash by which queues are dealt.
const HASH_BITS: u32 = 60;
/// Verbs that rules may name, in the order in which they are listed in errors.
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const NOT_NEGATIVE: &str = "must be a non-negative integer";

/// The specs of the flow schemas that must be as they are.
fn mandatory_schema(name: &str) -> Option<Value> {
    let rule = |subjects: &[&str], scope: Value| {
        let subjects: Vec<Value> = subjects.iter().map(|s| json!({"kind": "Group", "group": {"name": s}})).collect();
        json!([{
            "subjects": subjects,
            "resourceRules": [scope],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    let all =
        json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
    Some(match name {
        "exempt" => json!({
            "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1,
            "rules": rule(&["system:masters"], all),
        }),
        "catch-all" => json!({
            "priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": PRECEDENCE_MAX,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": rule(&["system:unauthenticated", "system:authenticated"], all),
        }),
        _ => return None,
    })
}

/// The specs of the priority levels that must be as they are.
fn mandatory_level(name: &str) -> Option<Value> {
    Some(match name {
        "exempt" => json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        "catch-all" => json!({
            "type": "Limited",
            "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}},
        }),
        _ => return None,
    })
}

/// Rules for a FlowSchema.
pub(crate) fn validate_schema(schema: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let (name, spec) = (schema.name(), schema.at("spec"));
    let precedence = spec.int("matchingPrecedence").unwrap_or_default();
    let at = path.child("matchingPrecedence");
    if precedence <= 0 {
        report.invalid(&at, precedence, "must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        report.invalid(&at, precedence, &format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && name != "exempt" {
        report.invalid(&at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.given("distinguisherMethod") {
        let known = ["ByNamespace", "ByUser"];
        if !known.contains(&method.text("type")) {
            report.not_supported(&path.child("distinguisherMethod").child("type"), method.clone(), &known);
        }
    }
    let level = spec.at("priorityLevelConfiguration").text("name");
    let at = path.child("priorityLevelConfiguration");
    if level.is_empty() {
        report.required(&at.child("name"), "must reference a priority level");
    } else {
        report.all_invalid(&at.child("name"), level, names::dns_subdomain(level));
    }
    for (at, rule) in spec.list("rules").iter().enumerate() {
        policy(&mut report, rule, &path.child("rules").index(at));
    }
    if mandatory_schema(name).is_some_and(|fixed| fixed != *spec) {
        report.invalid(&path, spec.clone(), &format!("spec of '{name}' must equal the fixed value"));
    }
    status(&mut report, schema);
    report.errors
}

fn policy(report: &mut Report, rule: &Value, path: &Path) {
    let subjects = rule.list("subjects");
    if subjects.is_empty() {
        report.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    for (at, subject) in subjects.iter().enumerate() {
        self::subject(report, subject, &path.child("subjects").index(at));
    }
    let (resources, others) = (rule.list("resourceRules"), rule.list("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        report.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (at, rule) in resources.iter().enumerate() {
        resource_rule(report, rule, &path.child("resourceRules").index(at));
    }
    for (at, rule) in others.iter().enumerate() {
        non_resource_rule(report, rule, &path.child("nonResourceRules").index(at));
    }
}

fn subject(report: &mut Report, subject: &Value, path: &Path) {
    const KINDS: &[(&str, &str)] = &[("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = subject.text("kind");
    let Some((_, own)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        return report.not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
    };
    let at = path.child(own);
    match subject.given(own) {
        None => report.required(&at, &format!("{own} is required when subject kind is '{kind}'")),
        Some(who) => {
            let name = who.text("name");
            if name.is_empty() {
                report.required(&at.child("name"), "");
            } else if kind == "ServiceAccount" && name != "*" {
                report.all_invalid(&at.child("name"), name, names::dns_subdomain(name));
            }
            if kind == "ServiceAccount" {
                let namespace = who.text("namespace");
                if namespace.is_empty() {
                    report.required(&at.child("namespace"), "must specify namespace for service account");
                } else {
                    report.all_invalid(&at.child("namespace"), namespace, names::dns_label(namespace));
                }
            }
        }
    }
    for (other, field) in KINDS.iter().filter(|(known, _)| *known != kind) {
        if subject.given(field).is_some() {
            let text = format!("{field} is forbidden when subject kind is not '{other}'");
            report.forbidden(&path.child(field), &text);
        }
    }
}

/// A list in which `*` stands alone. True if it is there.
fn wildcard(report: &mut Report, rule: &Value, field: &str, what: &str, path: &Path) -> bool {
    let found = rule.texts(field).any(|text| text == "*");
    if found && rule.list(field).len() > 1 {
        let text = format!("if '*' is present, must not specify other {what}");
        report.invalid(&path.child(field), rule.at(field).clone(), &text);
    }
    found
}

fn verbs(report: &mut Report, rule: &Value, path: &Path) {
    if rule.list("verbs").is_empty() {
        report.required(&path.child("verbs"), "verbs must contain at least one value");
    } else if !wildcard(report, rule, "verbs", "verbs", path) && !rule.texts("verbs").all(|verb| VERBS.contains(&verb))
    {
        report.not_supported(&path.child("verbs"), rule.at("verbs").clone(), VERBS);
    }
}

fn resource_rule(report: &mut Report, rule: &Value, path: &Path) {
    verbs(report, rule, path);
    for (field, what, one) in [("apiGroups", "api groups", "api group"), ("resources", "resources", "resource")] {
        if rule.list(field).is_empty() {
            report.required(&path.child(field), &format!("resource rules must supply at least one {one}"));
        } else {
            wildcard(report, rule, field, what, path);
        }
    }
    let path_of_namespaces = path.child("namespaces");
    if rule.list("namespaces").is_empty() && !rule.flag("clusterScope") {
        let text = "resource rules that are not cluster scoped must supply at least one namespace";
        report.required(&path_of_namespaces, text);
    } else if !wildcard(report, rule, "namespaces", "namespaces", path) {
        for (at, namespace) in rule.texts("namespaces").enumerate() {
            for text in names::dns_label(namespace) {
                let text = format!("each member of this list must be '*' or a DNS-1123 label; {text}");
                report.invalid(&path_of_namespaces.index(at), namespace, &text);
            }
        }
    }
}

fn non_resource_rule(report: &mut Report, rule: &Value, path: &Path) {
    verbs(report, rule, path);
    let at = path.child("nonResourceURLs");
    if rule.list("nonResourceURLs").is_empty() {
        report.required(&at, "nonResourceURLs must contain at least one value");
    } else if !wildcard(report, rule, "nonResourceURLs", "non-resource URLs", path) {
        for (index, url) in rule.texts("nonResourceURLs").enumerate() {
            if let Some(text) = url_problem(url) {
                report.invalid(&at.index(index), url, text);
            }
        }
    }
}

fn url_problem(url: &str) -> Option<&'static str> {
    if url.is_empty() {
        Some("must not be empty")
    } else if !url.starts_with('/') {
        Some("must start with slash")
    } else if url.contains(' ') {
        Some("must not contain white-space")
    } else if url.contains("//") {
        Some("must not contain double slash")
    } else if url.matches('*').count() > 1 || (url.contains('*') && !url.ends_with("/*")) {
        Some("wildcard can only do suffix matching")
    } else {
        None
    }
}

fn status(report: &mut Report, object: &Object) {
    let path = Path::root("status");
    let path = path.child("conditions");
    let mut seen = BTreeSet::new();
    for (at, condition) in object.at("status").list("conditions").iter().enumerate() {
        let kind = condition.text("type");
        let path = path.index(at);
        if !seen.insert(kind) {
            report.duplicate(&path.child("type"), kind);
        }
        if kind.is_empty() {
            report.required(&path.child("type"), "must not be empty");
        }
    }
}

/// Rules for the status of a FlowSchema or a PriorityLevelConfiguration.
pub(crate) fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    status(&mut report, new);
    report.errors
}

/// Rules for a PriorityLevelConfiguration.
pub(crate) fn validate_level(level: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let (name, spec) = (level.name(), level.at("spec"));
    let kind = spec.text("type");
    if (name == "exempt") != (kind == "Exempt") {
        report.invalid(&path.child("type"), kind, "type must be 'Exempt' if and only if name is 'exempt'");
    }
    match kind {
        "Exempt" => {
            if spec.given("limited").is_some() {
                report.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
            }
            if let Some(exempt) = spec.given("exempt") {
                shares(&mut report, exempt, &path.child("exempt"));
            }
        }
        "Limited" => {
            if spec.given("exempt").is_some() {
                report.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            match spec.given("limited") {
                None => report.required(&path.child("limited"), "must not be empty when type is Limited"),
                Some(limited) => self::limited(&mut report, limited, &path.child("limited")),
            }
        }
        other => report.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
    if let Some(fixed) = mandatory_level(name) {
        // What the exempt level lends may be changed.
        let rest = |value: &Value| {
            let mut map = value.as_object().cloned().unwrap_or_default();
            if name == "exempt" {
                map.remove("exempt");
            }
            map
        };
        if rest(spec) != rest(&fixed) {
            let exception = if name == "exempt" { " except the 'spec.exempt' field" } else { "" };
            let text = format!("spec of '{name}'{exception} must equal the fixed value");
            report.invalid(&path, spec.clone(), &text);
        }
    }
    status(&mut report, level);
    report.errors
}

fn shares(report: &mut Report, level: &Value, path: &Path) {
    if let Some(shares) = level.int("nominalConcurrencyShares").filter(|shares| *shares < 0) {
        report.invalid(&path.child("nominalConcurrencyShares"), shares, NOT_NEGATIVE);
    }
    if let Some(percent) = level.int("lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        report.invalid(&path.child("lendablePercent"), percent, &names::range_error(0, 100));
    }
}

fn limited(report: &mut Report, limited: &Value, path: &Path) {
    shares(report, limited, path);
    let response = limited.at("limitResponse");
    let at = path.child("limitResponse");
    let queuing = at.child("queuing");
    match (response.text("type"), response.given("queuing")) {
        ("Reject", Some(_)) => {
            report.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Reject", None) => {}
        ("Queue", None) => {
            report.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(queues)) => self::queues(report, queues, &queuing),
        (other, _) => report.not_supported(&at.child("type"), other, &["Queue", "Reject"]),
    }
    if let Some(percent) = limited.int("borrowingLimitPercent").filter(|percent| *percent < 0) {
        let text = format!("if specified, {NOT_NEGATIVE}");
        report.invalid(&path.child("borrowingLimitPercent"), percent, &text);
    }
}

fn queues(report: &mut Report, queuing: &Value, path: &Path) {
    let number = |field: &str| queuing.int(field).unwrap_or_default();
    let (length, queues, hand) = (number("queueLengthLimit"), number("queues"), number("handSize"));
    if length <= 0 {
        report.invalid(&path.child("queueLengthLimit"), length, "must be positive");
    }
    let at = path.child("queues");
    if queues <= 0 {
        report.invalid(&at, queues, "must be positive");
    } else if queues > QUEUES_MAX {
        report.invalid(&at, queues, &format!("must not be greater than {QUEUES_MAX}"));
    }
    let at = path.child("handSize");
    if hand <= 0 {
        report.invalid(&at, hand, "must be positive");
    } else if hand > queues {
        report.invalid(&at, hand, &format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues, hand) > HASH_BITS {
        let text = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        report.invalid(&at, hand, &text);
    }
}

/// Bits of a hash that deals a hand without favourites.
fn entropy_bits(deck: i64, hand: i64) -> u32 {
    let bits: f64 = (0..hand).map(|dealt| ((deck - dealt) as f64).log2()).take(HASH_BITS as usize + 1).sum();
    bits.ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, spec: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("an object")
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn schemas() {
        for name in ["exempt", "catch-all"] {
            let spec = mandatory_schema(name).expect("known");
            assert!(validate_schema(&object(name, spec.clone())).is_empty(), "{name}");
            let mut other = spec;
            other["matchingPrecedence"] = json!(17);
            assert!(
                texts(&validate_schema(&object(name, other)))[0]
                    .ends_with(&format!("spec of '{name}' must equal the fixed value"))
            );
        }
        let rule = json!({"subjects": [{"kind": "User", "user": {"name": "u"}, "group": {"name": "g"}}],
            "nonResourceRules": [{"verbs": ["x"], "nonResourceURLs": ["a", "/a*"]}]});
        let spec = json!({"matchingPrecedence": 1, "priorityLevelConfiguration": {"name": "p"}, "rules": [rule]});
        let fields: Vec<String> = validate_schema(&object("a", spec)).into_iter().map(|e| e.field).collect();
        assert_eq!(
            fields,
            [
                "spec.matchingPrecedence",
                "spec.rules[0].subjects[0].group",
                "spec.rules[0].nonResourceRules[0].verbs",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]",
            ]
        );
    }

    #[test]
    fn levels() {
        for name in ["exempt", "catch-all"] {
            assert!(validate_level(&object(name, mandatory_level(name).expect("known"))).is_empty(), "{name}");
        }
        let with = |queuing: Value| {
            let limited =
                json!({"nominalConcurrencyShares": 1, "limitResponse": {"type": "Queue", "queuing": queuing}});
            texts(&validate_level(&object("a", json!({"type": "Limited", "limited": limited}))))
        };
        assert!(with(json!({"queues": 128, "handSize": 6, "queueLengthLimit": 50})).is_empty());
        assert_eq!(
            with(json!({"queues": 4, "handSize": 5, "queueLengthLimit": 50})),
            ["spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)"]
        );
        assert_eq!(with(json!({"queues": 1000, "handSize": 10, "queueLengthLimit": 50})).len(), 1);
    }
}
