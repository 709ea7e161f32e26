//! The flow schemas and priority levels of a snapshot, in a form that is
//! quick to ask. The mandatory ones are there even before the cluster has
//! them as objects, and whatever becomes of those.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use barque_api::Object;
use barque_api::object::texts;
use barque_store::Snapshot;
use serde_json::Value;

use super::seats::{Queueing, Share};
use crate::auth::{Attributes, MASTERS, User};

/// Storage name of FlowSchemas.
pub const FLOW_SCHEMAS: &str = "flowschemas.flowcontrol.apiserver.k8s.io";
/// Storage name of PriorityLevelConfigurations.
pub const PRIORITY_LEVELS: &str = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io";

/// Name of the mandatory schema and level that nothing limits.
const EXEMPT: &str = "exempt";
/// Name of the mandatory schema and level for what nothing else matches.
const CATCH_ALL: &str = "catch-all";
/// Precedence of the mandatory schemas.
const EXEMPT_PRECEDENCE: i64 = 1;
const CATCH_ALL_PRECEDENCE: i64 = 10_000;
const DEFAULT_PRECEDENCE: i64 = 1_000;
/// Shares of levels that do not say, and of the mandatory last one.
const DEFAULT_SHARES: i64 = 30;
const CATCH_ALL_SHARES: i64 = 5;
const DEFAULT_QUEUES: i64 = 64;
const DEFAULT_HAND: i64 = 8;
const DEFAULT_QUEUE_LENGTH: i64 = 50;
/// Most queues of one level, as upstream's validation allows.
const MAX_QUEUES: i64 = 10_000_000;
/// Queues that are kept in memory at most.
const MAX_REAL_QUEUES: usize = 4_096;

/// What a request belongs to.
pub(super) struct Flow<'a> {
    /// The level, `None` when it is exempt.
    pub level: Option<&'a Arc<str>>,
    pub level_name: Arc<str>,
    pub schema_name: Arc<str>,
    pub level_uid: Arc<str>,
    pub schema_uid: Arc<str>,
    /// The same for requests of one flow.
    pub hash: u64,
}

struct Level {
    uid: Arc<str>,
    /// `None` for exempt levels.
    share: Option<Share>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

struct Schema {
    name: Arc<str>,
    uid: Arc<str>,
    precedence: i64,
    level: Arc<str>,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Default)]
struct Rule {
    users: Vec<String>,
    groups: Vec<String>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

/// See the module.
pub(super) struct Config {
    schemas: Vec<Schema>,
    levels: HashMap<Arc<str>, Level>,
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    path.iter().try_fold(value, |value, key| value.get(*key)).and_then(Value::as_str).unwrap_or_default()
}

fn integer(value: &Value, path: &[&str], default: i64) -> i64 {
    path.iter().try_fold(value, |value, key| value.get(*key)).and_then(Value::as_i64).unwrap_or(default)
}

fn names(list: &[String], wanted: &str) -> bool {
    list.iter().any(|name| name == "*" || name == wanted)
}

impl Rule {
    fn read(value: &Value) -> Self {
        let mut rule = Self::default();
        for subject in list(value, "subjects") {
            match text(subject, &["kind"]) {
                "User" => rule.users.push(text(subject, &["user", "name"]).to_owned()),
                "Group" => rule.groups.push(text(subject, &["group", "name"]).to_owned()),
                "ServiceAccount" => {
                    let namespace = text(subject, &["serviceAccount", "namespace"]);
                    match text(subject, &["serviceAccount", "name"]) {
                        "*" => rule.groups.push(format!("system:serviceaccounts:{namespace}")),
                        name => rule.users.push(format!("system:serviceaccount:{namespace}:{name}")),
                    }
                }
                _ => {}
            }
        }
        rule.resources = list(value, "resourceRules")
            .map(|value| ResourceRule {
                verbs: texts(value.get("verbs")),
                groups: texts(value.get("apiGroups")),
                resources: texts(value.get("resources")),
                cluster_scope: value.get("clusterScope") == Some(&Value::Bool(true)),
                namespaces: texts(value.get("namespaces")),
            })
            .collect();
        rule.paths = list(value, "nonResourceRules")
            .map(|value| PathRule { verbs: texts(value.get("verbs")), paths: texts(value.get("nonResourceURLs")) })
            .collect();
        rule
    }

    fn matches(&self, user: &User, request: &Attributes) -> bool {
        let known = names(&self.users, &user.name) || user.groups.iter().any(|group| names(&self.groups, group));
        known && (self.resources.iter().any(|r| r.matches(request)) || self.paths.iter().any(|p| p.matches(request)))
    }
}

impl ResourceRule {
    fn matches(&self, request: &Attributes) -> bool {
        if !request.path.is_empty() || !names(&self.verbs, &request.verb) || !names(&self.groups, &request.group) {
            return false;
        }
        let resource = if request.subresource.is_empty() {
            names(&self.resources, &request.resource)
        } else {
            names(&self.resources, &format!("{}/{}", request.resource, request.subresource))
        };
        let place =
            if request.namespace.is_empty() { self.cluster_scope } else { names(&self.namespaces, &request.namespace) };
        resource && place
    }
}

impl PathRule {
    fn matches(&self, request: &Attributes) -> bool {
        let covers = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => request.path.starts_with(prefix),
            None => *pattern == request.path,
        };
        !request.path.is_empty() && names(&self.verbs, &request.verb) && self.paths.iter().any(covers)
    }
}

fn schema(object: &Object) -> Schema {
    let spec = object.get(&["spec"]).unwrap_or(&Value::Null);
    let distinguisher = match text(spec, &["distinguisherMethod", "type"]) {
        "ByUser" => Distinguisher::User,
        "ByNamespace" => Distinguisher::Namespace,
        _ => Distinguisher::None,
    };
    Schema {
        name: Arc::from(object.name()),
        uid: Arc::from(object.uid()),
        precedence: integer(spec, &["matchingPrecedence"], DEFAULT_PRECEDENCE),
        level: Arc::from(text(spec, &["priorityLevelConfiguration", "name"])),
        distinguisher,
        rules: list(spec, "rules").map(Rule::read).collect(),
    }
}

/// A schema for everybody in a group, whatever they ask.
fn mandatory(name: &str, precedence: i64, groups: &[&str], distinguisher: Distinguisher) -> Schema {
    let all = || vec!["*".to_owned()];
    let rule = Rule {
        users: Vec::new(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        resources: vec![ResourceRule {
            verbs: all(),
            groups: all(),
            resources: all(),
            cluster_scope: true,
            namespaces: all(),
        }],
        paths: vec![PathRule { verbs: all(), paths: all() }],
    };
    Schema {
        name: Arc::from(name),
        uid: Arc::from(""),
        precedence,
        level: Arc::from(name),
        distinguisher,
        rules: vec![rule],
    }
}

/// A level before the seats are shared out.
struct Claim {
    name: Arc<str>,
    uid: Arc<str>,
    exempt: bool,
    shares: i64,
    lendable_percent: i64,
    borrowing_percent: Option<i64>,
    queueing: Queueing,
}

fn claim(object: &Object) -> Claim {
    let spec = object.get(&["spec"]).unwrap_or(&Value::Null);
    let exempt = text(spec, &["type"]) == "Exempt";
    let part = if exempt { "exempt" } else { "limited" };
    let default_shares = if exempt { 0 } else { DEFAULT_SHARES };
    let queues = text(spec, &["limited", "limitResponse", "type"]) == "Queue";
    let queuing = |field: &str, default: i64| {
        integer(spec, &["limited", "limitResponse", "queuing", field], default).clamp(1, MAX_QUEUES)
    };
    Claim {
        name: Arc::from(object.name()),
        uid: Arc::from(object.uid()),
        exempt,
        shares: integer(spec, &[part, "nominalConcurrencyShares"], default_shares).max(0),
        lendable_percent: integer(spec, &[part, "lendablePercent"], 0).clamp(0, 100),
        borrowing_percent: spec.get("limited").and_then(|l| l.get("borrowingLimitPercent")).and_then(Value::as_i64),
        queueing: Queueing {
            queues: if queues { (queuing("queues", DEFAULT_QUEUES) as usize).min(MAX_REAL_QUEUES) } else { 0 },
            hand: queuing("handSize", DEFAULT_HAND) as usize,
            length: queuing("queueLengthLimit", DEFAULT_QUEUE_LENGTH) as usize,
        },
    }
}

impl Config {
    /// Reads the configuration and shares `total` seats out.
    pub(super) fn read(snapshot: &Snapshot, total: u32) -> Self {
        let mut schemas: Vec<Schema> =
            snapshot.list(FLOW_SCHEMAS, None).map(|record| schema(record.object())).collect();
        let mut claims: Vec<Claim> =
            snapshot.list(PRIORITY_LEVELS, None).map(|record| claim(record.object())).collect();
        let everybody = ["system:authenticated", "system:unauthenticated"];
        if !schemas.iter().any(|schema| &*schema.name == EXEMPT) {
            schemas.push(mandatory(EXEMPT, EXEMPT_PRECEDENCE, &[MASTERS], Distinguisher::None));
        }
        if !schemas.iter().any(|schema| &*schema.name == CATCH_ALL) {
            schemas.push(mandatory(CATCH_ALL, CATCH_ALL_PRECEDENCE, &everybody, Distinguisher::User));
        }
        for (name, exempt, shares) in [(EXEMPT, true, 0), (CATCH_ALL, false, CATCH_ALL_SHARES)] {
            if !claims.iter().any(|claim| &*claim.name == name) {
                claims.push(Claim {
                    name: Arc::from(name),
                    uid: Arc::from(""),
                    exempt,
                    shares,
                    lendable_percent: 0,
                    borrowing_percent: None,
                    queueing: Queueing { queues: 0, hand: 1, length: 0 },
                });
            }
        }
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let sum: i64 = claims.iter().map(|claim| claim.shares).sum::<i64>().max(1);
        let part = |of: u32, percent: i64| u32::try_from(i64::from(of) * percent / 100).unwrap_or(u32::MAX);
        let levels = claims
            .into_iter()
            .map(|claim| {
                let nominal = (u64::from(total) * claim.shares.unsigned_abs()).div_ceil(sum.unsigned_abs());
                let nominal = u32::try_from(nominal).unwrap_or(total);
                let share = Share {
                    name: Arc::clone(&claim.name),
                    nominal,
                    lendable: part(nominal, claim.lendable_percent),
                    borrowable: claim.borrowing_percent.map(|percent| part(nominal, percent.max(0))),
                    queueing: claim.queueing,
                };
                (claim.name, Level { uid: claim.uid, share: (!claim.exempt).then_some(share) })
            })
            .collect();
        Self { schemas, levels }
    }

    /// Shares of the levels that are limited.
    pub(super) fn levels(&self) -> Vec<Share> {
        self.levels.values().filter_map(|level| level.share.clone()).collect()
    }

    /// Finds the flow of a request. A schema whose level is missing is passed
    /// over.
    pub(super) fn classify(&self, user: &User, request: &Attributes) -> Flow<'_> {
        let found = self.schemas.iter().find_map(|schema| {
            let (name, level) = self.levels.get_key_value(&schema.level)?;
            schema.rules.iter().any(|rule| rule.matches(user, request)).then_some((schema, name, level))
        });
        let Some((schema, name, level)) = found else {
            // Even somebody without any group is worked for.
            let name = self.levels.get_key_value(CATCH_ALL).map(|(name, _)| name);
            let level_name = name.cloned().unwrap_or_else(|| Arc::from(CATCH_ALL));
            let none: Arc<str> = Arc::from("");
            return Flow {
                level: name,
                schema_name: Arc::clone(&level_name),
                level_name,
                level_uid: Arc::clone(&none),
                schema_uid: none,
                hash: 0,
            };
        };
        let mut hasher = DefaultHasher::new();
        schema.name.hash(&mut hasher);
        match schema.distinguisher {
            Distinguisher::None => {}
            Distinguisher::User => user.name.hash(&mut hasher),
            Distinguisher::Namespace => request.namespace.hash(&mut hasher),
        }
        Flow {
            level: level.share.as_ref().map(|_| name),
            level_name: Arc::clone(name),
            schema_name: Arc::clone(&schema.name),
            level_uid: Arc::clone(&level.uid),
            schema_uid: Arc::clone(&schema.uid),
            hash: hasher.finish(),
        }
    }
}
