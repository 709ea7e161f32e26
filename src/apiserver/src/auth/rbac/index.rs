//! Roles and bindings in the shape in which requests ask for them: who → which
//! rules. Built from a snapshot, and again only for what has changed since.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use barque_api::Object;
use barque_store::{Record, Revision, Snapshot};
use parking_lot::RwLock;
use serde_json::Value;

use super::rules::Rule;
use crate::auth::User;

/// Storage names of what permissions are made of.
pub const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
/// See [`CLUSTER_ROLES`].
pub const ROLES: &str = "roles.rbac.authorization.k8s.io";
/// See [`CLUSTER_ROLES`].
pub const CLUSTER_ROLE_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
/// See [`CLUSTER_ROLES`].
pub const ROLE_BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";

/// Users whose rules are remembered; beyond it all are forgotten at once.
const MAX_USERS: usize = 4_096;
/// Namespaces of all users together whose rules are remembered.
const MAX_GRANTS: usize = 65_536;

/// The rules of one role.
type Rules = Arc<[Rule]>;

/// The role that a binding names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRef {
    /// `ClusterRole` or `Role`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl RoleRef {
    /// The role that a binding names.
    #[must_use]
    pub fn of(binding: &Object) -> Self {
        Self {
            kind: binding.text(&["roleRef", "kind"]).to_owned(),
            name: binding.text(&["roleRef", "name"]).to_owned(),
        }
    }
}

/// Bindings by whom they are for; each list is in the order of their names.
#[derive(Debug, Default)]
struct Bindings {
    roles: Vec<RoleRef>,
    users: HashMap<String, Vec<u32>>,
    groups: HashMap<String, Vec<u32>>,
}

impl Bindings {
    fn add(&mut self, binding: &Object, namespace: &str) {
        let number = self.roles.len() as u32;
        self.roles.push(RoleRef::of(binding));
        let subjects = binding.get(&["subjects"]).and_then(Value::as_array);
        for subject in subjects.into_iter().flatten() {
            let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default();
            let (map, name) = match text("kind") {
                "User" => (&mut self.users, text("name").to_owned()),
                "Group" => (&mut self.groups, text("name").to_owned()),
                "ServiceAccount" => {
                    let own = if text("namespace").is_empty() { namespace } else { text("namespace") };
                    if own.is_empty() {
                        continue;
                    }
                    (&mut self.users, crate::auth::service_account_user(own, text("name")))
                }
                _ => continue,
            };
            let list = map.entry(name).or_default();
            if list.last() != Some(&number) {
                list.push(number);
            }
        }
    }

    /// The roles bound to a user, each binding once, in order.
    fn of<'a>(&'a self, user: &User) -> impl Iterator<Item = &'a RoleRef> {
        let mut numbers: Vec<u32> = self.users.get(&user.name).cloned().unwrap_or_default();
        for group in &user.groups {
            numbers.extend(self.groups.get(group).into_iter().flatten());
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|number| &self.roles[number as usize])
    }
}

/// Bindings of one namespace, and what they were made from.
struct Local {
    /// Number of bindings and the newest revision among them: one of the two
    /// changes with every change.
    made_from: (usize, Revision),
    bindings: Arc<Bindings>,
}

/// What a user may do somewhere.
#[derive(Debug, Default)]
pub struct Grants {
    /// Rules of the roles bound to the user, by role.
    rules: Vec<Rules>,
    /// Roles that bindings name and that do not exist.
    pub errors: Vec<String>,
}

impl Grants {
    /// All rules, in order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().flat_map(|rules| rules.iter())
    }
}

/// What a user may do, by namespace.
pub struct UserGrants {
    name: String,
    groups: Vec<String>,
    /// By bindings of the whole cluster.
    pub cluster: Grants,
    namespaces: RwLock<HashMap<String, Arc<Grants>>>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Index {
    /// What it was built from: stamps of the four resources.
    stamps: [Revision; 4],
    built_at: Revision,
    cluster_roles: Arc<HashMap<String, (Revision, Rules)>>,
    roles: Arc<HashMap<(String, String), (Revision, Rules)>>,
    cluster_bindings: Arc<Bindings>,
    bindings: Arc<HashMap<String, Local>>,
    users: RwLock<HashMap<u64, Arc<UserGrants>>>,
    /// Namespaces remembered, of all users.
    remembered: AtomicUsize,
}

fn stamps(snapshot: &Snapshot) -> [Revision; 4] {
    [CLUSTER_ROLES, ROLES, CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS].map(|resource| snapshot.changed(resource))
}

fn rules_of(record: &Record, old: Option<&(Revision, Rules)>) -> (Revision, Rules) {
    match old {
        Some((revision, rules)) if *revision == record.revision() => (*revision, Arc::clone(rules)),
        _ => (record.revision(), Rule::of_role(record.object()).into()),
    }
}

impl Index {
    /// Whether it says what a snapshot says.
    #[must_use]
    pub fn fits(&self, snapshot: &Snapshot) -> bool {
        self.stamps == stamps(snapshot)
    }

    /// The revision of the snapshot it was built from.
    #[must_use]
    pub fn built_at(&self) -> Revision {
        self.built_at
    }

    /// An index of a snapshot, with as much of an earlier one as still holds.
    #[must_use]
    pub fn next(&self, snapshot: &Snapshot) -> Self {
        let new = stamps(snapshot);
        let same = |index: usize| self.built_at > Revision(0) && self.stamps[index] == new[index];
        let cluster_roles = if same(0) {
            Arc::clone(&self.cluster_roles)
        } else {
            let entry = |record: &Arc<Record>| {
                let name = record.key().object.name.to_string();
                let rules = rules_of(record, self.cluster_roles.get(&name));
                (name, rules)
            };
            Arc::new(snapshot.list(CLUSTER_ROLES, None).map(entry).collect())
        };
        let roles = if same(1) {
            Arc::clone(&self.roles)
        } else {
            let entry = |record: &Arc<Record>| {
                let name = &record.key().object;
                let name = (name.namespace.to_string(), name.name.to_string());
                let rules = rules_of(record, self.roles.get(&name));
                (name, rules)
            };
            Arc::new(snapshot.list(ROLES, None).map(entry).collect())
        };
        let cluster_bindings = if same(2) {
            Arc::clone(&self.cluster_bindings)
        } else {
            let mut bindings = Bindings::default();
            snapshot.list(CLUSTER_ROLE_BINDINGS, None).for_each(|record| bindings.add(record.object(), ""));
            Arc::new(bindings)
        };
        let bindings = if same(3) { Arc::clone(&self.bindings) } else { Arc::new(self.local_bindings(snapshot)) };
        Self {
            stamps: new,
            built_at: snapshot.revision(),
            cluster_roles,
            roles,
            cluster_bindings,
            bindings,
            users: RwLock::default(),
            remembered: AtomicUsize::new(0),
        }
    }

    fn local_bindings(&self, snapshot: &Snapshot) -> HashMap<String, Local> {
        let mut by_namespace: Vec<(&str, Vec<&Arc<Record>>)> = Vec::new();
        for record in snapshot.list(ROLE_BINDINGS, None) {
            let namespace = &*record.key().object.namespace;
            match by_namespace.last_mut() {
                Some((last, records)) if *last == namespace => records.push(record),
                _ => by_namespace.push((namespace, vec![record])),
            }
        }
        let local = |(namespace, records): (&str, Vec<&Arc<Record>>)| {
            let newest = records.iter().map(|record| record.revision()).max().unwrap_or_default();
            let made_from = (records.len(), newest);
            let bindings = match self.bindings.get(namespace) {
                Some(old) if old.made_from == made_from => Arc::clone(&old.bindings),
                _ => {
                    let mut bindings = Bindings::default();
                    records.iter().for_each(|record| bindings.add(record.object(), namespace));
                    Arc::new(bindings)
                }
            };
            (namespace.to_owned(), Local { made_from, bindings })
        };
        by_namespace.into_iter().map(local).collect()
    }

    /// The rules of a role; the namespace is the binding's, "" for one of the
    /// whole cluster.
    ///
    /// # Errors
    /// The text of upstream's error when there is no such role.
    pub fn role(&self, role: &RoleRef, namespace: &str) -> Result<Rules, String> {
        let (found, what) = match role.kind.as_str() {
            "ClusterRole" => (self.cluster_roles.get(&role.name), "clusterrole"),
            "Role" => (self.roles.get(&(namespace.to_owned(), role.name.clone())), "role"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        match found {
            Some((_, rules)) => Ok(Arc::clone(rules)),
            None => Err(format!("{what}.rbac.authorization.k8s.io {:?} not found", role.name)),
        }
    }

    fn grants<'a>(&self, roles: impl Iterator<Item = &'a RoleRef>, namespace: &str) -> Grants {
        let mut grants = Grants::default();
        for role in roles {
            match self.role(role, namespace) {
                Ok(rules) => grants.rules.push(rules),
                Err(error) if grants.errors.contains(&error) => {}
                Err(error) => grants.errors.push(error),
            }
        }
        grants
    }

    /// What a user may do.
    #[must_use]
    pub fn user(&self, user: &User) -> Arc<UserGrants> {
        let mut hasher = DefaultHasher::new();
        (&user.name, &user.groups).hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(known) = self.users.read().get(&hash)
            && known.name == user.name
            && known.groups == user.groups
        {
            return Arc::clone(known);
        }
        let new = Arc::new(UserGrants {
            name: user.name.clone(),
            groups: user.groups.clone(),
            cluster: self.grants(self.cluster_bindings.of(user), ""),
            namespaces: RwLock::default(),
        });
        let mut users = self.users.write();
        if users.len() >= MAX_USERS || self.remembered.load(Ordering::Relaxed) >= MAX_GRANTS {
            users.clear();
            self.remembered.store(0, Ordering::Relaxed);
        }
        users.insert(hash, Arc::clone(&new));
        new
    }

    /// What a user may do in a namespace by its own bindings; `None` if there
    /// are none for the user.
    #[must_use]
    pub fn local(&self, grants: &UserGrants, user: &User, namespace: &str) -> Option<Arc<Grants>> {
        let bindings = &self.bindings.get(namespace)?.bindings;
        if let Some(known) = grants.namespaces.read().get(namespace) {
            return Some(Arc::clone(known));
        }
        let new = Arc::new(self.grants(bindings.of(user), namespace));
        if self.remembered.fetch_add(1, Ordering::Relaxed) < MAX_GRANTS {
            grants.namespaces.write().insert(namespace.to_owned(), Arc::clone(&new));
        }
        Some(new)
    }
}
