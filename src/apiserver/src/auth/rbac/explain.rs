//! Why something is allowed: the first binding that allows it, in upstream's
//! words. Asked by reviews only, hence without an index.

use barque_api::Object;
use barque_store::Snapshot;
use serde_json::Value;

use super::{CLUSTER_ROLE_BINDINGS, Index, Question, ROLE_BINDINGS, RoleRef};
use crate::auth::{Attributes, User, service_account_user};

/// Why a request is allowed; "" if no binding allows it.
pub(super) fn explain(index: &Index, user: &User, request: &Attributes, snapshot: &Snapshot) -> String {
    let question = Question::new(request);
    let cluster = snapshot.list(CLUSTER_ROLE_BINDINGS, None).map(|record| (record, ""));
    let namespace = request.namespace.as_str();
    let local = if namespace.is_empty() { None } else { Some(snapshot.list(ROLE_BINDINGS, Some(namespace))) };
    let local = local.into_iter().flatten().map(|record| (record, namespace));
    for (record, namespace) in cluster.chain(local) {
        let binding = record.object();
        let role = RoleRef::of(binding);
        let Some(subject) = subject_of(binding, namespace, user) else { continue };
        let allows = index.role(&role, namespace).is_ok_and(|rules| rules.iter().any(|rule| rule.allows(question)));
        if allows {
            let (kind, name) = if namespace.is_empty() {
                ("ClusterRoleBinding", binding.name().to_owned())
            } else {
                ("RoleBinding", format!("{}/{namespace}", binding.name()))
            };
            return format!("RBAC: allowed by {kind} {name:?} of {} {:?} to {subject}", role.kind, role.name);
        }
    }
    String::new()
}

/// The first subject of a binding that is the user.
fn subject_of(binding: &Object, namespace: &str, user: &User) -> Option<String> {
    let subjects = binding.get(&["subjects"]).and_then(Value::as_array)?;
    subjects.iter().find_map(|subject| {
        let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (text("kind"), text("name"));
        match kind {
            "User" if user.name == name => Some(format!("{kind} {name:?}")),
            "Group" if user.is_in(name) => Some(format!("{kind} {name:?}")),
            "ServiceAccount" => {
                let own = if text("namespace").is_empty() { namespace } else { text("namespace") };
                (user.name == service_account_user(own, name)).then(|| format!("{kind} {:?}", format!("{name}/{own}")))
            }
            _ => None,
        }
    })
}
