//! Policy rules: what one allows, and what a set of them covers.
//!
//! Semantics are those of upstream's `component-helpers/auth/rbac/validation`
//! and `pkg/apis/rbac/v1/evaluation_helpers`.

use std::collections::BTreeSet;

use barque_api::Object;
use barque_api::object::texts;
use serde_json::{Map, Value, json};

use crate::auth::Attributes;

/// Everything of a kind: verbs, groups, resources, paths.
const ALL: &str = "*";
/// A bit each for the verbs that nearly all requests have.
const VERBS: &[&str] =
    &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "head", "post", "put"];
/// Set for every verb.
const EVERY_VERB: u32 = u32::MAX;

/// A verb as a bit, 0 for verbs without one.
fn bit(verb: &str) -> u32 {
    VERBS.iter().position(|known| *known == verb).map_or(0, |index| 1 << index)
}

/// One rule of a role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// What may be done.
    pub verbs: Vec<String>,
    /// API groups, "" for core.
    pub groups: Vec<String>,
    /// Plurals, with subresources as `pods/log`.
    pub resources: Vec<String>,
    /// Names of objects; empty for all of them.
    pub names: Vec<String>,
    /// Paths that are no resources; a `*` at the end stands for anything.
    pub paths: Vec<String>,
    mask: u32,
}

/// What is asked, prepared once for many rules.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    request: &'a Attributes,
    bit: u32,
}

impl<'a> Question<'a> {
    /// A question about a request.
    #[must_use]
    pub fn new(request: &'a Attributes) -> Self {
        Self { request, bit: bit(&request.verb) }
    }
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == text)
}

impl Rule {
    /// A rule from its parts.
    #[must_use]
    pub fn new(
        verbs: Vec<String>,
        groups: Vec<String>,
        resources: Vec<String>,
        names: Vec<String>,
        paths: Vec<String>,
    ) -> Self {
        let mask = if has(&verbs, ALL) { EVERY_VERB } else { verbs.iter().map(|verb| bit(verb)).fold(0, |a, b| a | b) };
        Self { verbs, groups, resources, names, paths, mask }
    }

    /// A rule as roles hold it.
    #[must_use]
    pub fn from_value(rule: &Value) -> Self {
        Self::new(
            texts(rule.get("verbs")),
            texts(rule.get("apiGroups")),
            texts(rule.get("resources")),
            texts(rule.get("resourceNames")),
            texts(rule.get("nonResourceURLs")),
        )
    }

    /// The rules of a role.
    #[must_use]
    pub fn of_role(role: &Object) -> Vec<Self> {
        let rules = role.get(&["rules"]).and_then(Value::as_array);
        rules.map(|rules| rules.iter().map(Self::from_value).collect()).unwrap_or_default()
    }

    /// The rule as roles and reviews hold it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("verbs".to_owned(), json!(self.verbs));
        for (field, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                map.insert(field.to_owned(), json!(list));
            }
        }
        Value::Object(map)
    }

    /// Whether the rule allows what is asked.
    #[must_use]
    pub fn allows(&self, question: Question<'_>) -> bool {
        let request = question.request;
        let verb = self.mask == EVERY_VERB
            || self.mask & question.bit != 0
            || (question.bit == 0 && has(&self.verbs, &request.verb));
        if !verb {
            return false;
        }
        if !request.path.is_empty() {
            return self.paths.iter().any(|path| path_covers(path, &request.path));
        }
        self.groups.iter().any(|group| group == ALL || *group == request.group)
            && self.resources.iter().any(|resource| resource_matches(resource, &request.resource, &request.subresource))
            && (self.names.is_empty() || has(&self.names, &request.name))
    }

    /// Splits the rule into rules with one verb, group, resource and name
    /// each.
    fn atoms(&self) -> Vec<Self> {
        let mut atoms = Vec::new();
        let one = |text: &String| vec![text.clone()];
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let atom = |names| Self::new(one(verb), one(group), one(resource), names, Vec::new());
                    if self.names.is_empty() {
                        atoms.push(atom(Vec::new()));
                    } else {
                        atoms.extend(self.names.iter().map(|name| atom(one(name))));
                    }
                }
            }
        }
        for path in &self.paths {
            for verb in &self.verbs {
                atoms.push(Self::new(one(verb), Vec::new(), Vec::new(), Vec::new(), one(path)));
            }
        }
        atoms
    }

    /// Whether this rule allows all that an atom does.
    fn covers(&self, atom: &Self) -> bool {
        let all = |own: &[String], asked: &[String]| has(own, ALL) || asked.iter().all(|text| has(own, text));
        all(&self.verbs, &atom.verbs)
            && all(&self.groups, &atom.groups)
            && (has(&self.resources, ALL) || atom.resources.iter().all(|asked| self.covers_resource(asked)))
            && (self.names.is_empty()
                || (!atom.names.is_empty() && atom.names.iter().all(|name| has(&self.names, name))))
            && atom.paths.iter().all(|asked| self.paths.iter().any(|own| path_covers(own, asked)))
    }

    fn covers_resource(&self, asked: &str) -> bool {
        has(&self.resources, asked)
            || asked.split_once('/').is_some_and(|(_, sub)| {
                self.resources.iter().any(|own| own.strip_prefix("*/").is_some_and(|own| own == sub))
            })
    }

    /// The form in which refusals show a rule, as Go prints lists of texts.
    #[must_use]
    pub fn compact(&self) -> String {
        let parts: Vec<_> = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.paths),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ]
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted(list)))
        .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// A list of texts as Go's `%q` prints it.
#[must_use]
pub fn quoted(list: &[String]) -> String {
    let items: Vec<_> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", items.join(" "))
}

fn resource_matches(own: &str, resource: &str, subresource: &str) -> bool {
    if own == ALL {
        return true;
    }
    if subresource.is_empty() {
        return own == resource;
    }
    match own.split_once('/') {
        Some((first, second)) => second == subresource && (first == ALL || first == resource),
        None => false,
    }
}

fn path_covers(own: &str, asked: &str) -> bool {
    own == asked || (own.ends_with('*') && asked.starts_with(own.trim_end_matches('*')))
}

/// What of the wanted rules the owned ones do not allow, in atoms; empty when
/// all is covered.
#[must_use]
pub fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut atoms = Vec::new();
    for rule in wanted {
        // Most rules are covered as a whole by one rule of an administrator.
        if owned.iter().any(|own| own.covers(rule)) {
            continue;
        }
        atoms.extend(rule.atoms().into_iter().filter(|atom| !owned.iter().any(|own| own.covers(atom))));
    }
    atoms
}

/// Joins atoms that differ by their verb only; the texts of the rest, sorted.
#[must_use]
pub fn describe(atoms: &[Rule]) -> Vec<String> {
    let mut joined: Vec<Rule> = Vec::new();
    for atom in atoms {
        let simple = atom.names.is_empty() && atom.paths.is_empty();
        let same = joined.iter_mut().find(|other| {
            simple
                && other.names.is_empty()
                && other.paths.is_empty()
                && other.groups == atom.groups
                && other.resources == atom.resources
        });
        match same {
            Some(other) => other.verbs.extend(atom.verbs.iter().cloned()),
            None => joined.push(atom.clone()),
        }
    }
    joined.iter().map(Rule::compact).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(value: Value) -> Rule {
        Rule::from_value(&value)
    }

    fn request(text: &str) -> Attributes {
        // verb group resource[/sub] [name], or verb /path
        let words: Vec<_> = text.split(' ').collect();
        if words[1].starts_with('/') {
            return Attributes { verb: words[0].into(), path: words[1].into(), ..Attributes::default() };
        }
        let (resource, sub) = words[2].split_once('/').unwrap_or((words[2], ""));
        Attributes {
            verb: words[0].into(),
            group: if words[1] == "core" { String::new() } else { words[1].into() },
            resource: resource.into(),
            subresource: sub.into(),
            name: words.get(3).copied().unwrap_or_default().into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn rules_allow_what_they_name_and_wildcards_the_rest() {
        let pods = rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}));
        let named = rule(json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["*"], "resourceNames": ["a"]}));
        let scales = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]}));
        let custom = rule(json!({"verbs": ["use"], "apiGroups": ["policy"], "resources": ["psp"]}));
        let paths = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics", "/apis/*"]}));
        for (rule, asked, allowed) in [
            (&pods, "get core pods x", true),
            (&pods, "get core pods/log x", true),
            (&pods, "get core pods/status x", false),
            (&pods, "delete core pods x", false),
            (&pods, "get apps pods x", false),
            (&pods, "get /pods", false),
            (&named, "get apps deployments a", true),
            (&named, "get apps deployments/scale a", true),
            (&named, "get apps deployments b", false),
            (&named, "get apps deployments", false),
            (&scales, "frob apps deployments/scale x", true),
            (&scales, "get apps deployments x", false),
            (&custom, "use policy psp x", true),
            (&custom, "get policy psp x", false),
            (&custom, "abuse policy psp x", false),
            (&paths, "get /metrics", true),
            (&paths, "get /metrics/cadvisor", false),
            (&paths, "get /apis/apps/v1", true),
            (&paths, "get /apis", false),
            (&paths, "post /metrics", false),
        ] {
            let request = request(asked);
            assert_eq!(rule.allows(Question::new(&request)), allowed, "{rule:?} {asked}");
        }
    }

    #[test]
    fn what_is_not_covered_is_told_shortly() {
        let owned = [
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/status"]})),
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/apis/*"]})),
        ];
        let told = |wanted: Value| describe(&missing(&owned, &[rule(wanted)]));
        let none: Vec<String> = Vec::new();
        assert_eq!(told(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "nodes/status"]})), none);
        assert_eq!(
            told(json!({"verbs": ["get", "delete", "watch"], "apiGroups": [""], "resources": ["pods"]})),
            [r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#]
        );
        let secret = |names: Value| {
            told(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": names}))
        };
        assert_eq!(secret(json!(["a"])), none);
        assert_eq!(
            secret(json!(["a", "c"])),
            [r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["c"], Verbs:["get"]}"#]
        );
        assert_eq!(secret(json!([])), [r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#]);
        assert_eq!(told(json!({"verbs": ["get"], "nonResourceURLs": ["/apis/x", "/apis/a*"]})), none);
        assert_eq!(
            told(json!({"verbs": ["get"], "nonResourceURLs": ["/*"]})),
            [r#"{NonResourceURLs:["/*"], Verbs:["get"]}"#]
        );
        assert_eq!(
            told(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})),
            [r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#]
        );
    }
}
