//! Nobody grants what they do not have: a write of a role or a binding is
//! refused unless its author has all the permissions in it, or the verbs
//! `escalate` (roles) or `bind` (bindings). Part of the write path rather than
//! an admission plugin: it cannot be switched off.

use barque_api::{Object, StatusError};
use barque_store::Snapshot;

use super::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, RbacAuthorizer, RoleRef, Rule};
use super::{describe, missing, quoted};
use crate::auth::{Attributes, Decision, MASTERS, User};
use crate::pipeline::{AdmissionRequest, Operation, Target};

/// Asks the authorizer about a request.
pub type Ask<'a> = &'a dyn Fn(&User, &Attributes, &Snapshot) -> Decision;

/// Refuses a write that would give away more than its author has.
///
/// # Errors
/// 403 in upstream's words; 404 when a binding names a role that is missing.
pub fn check(
    rbac: &RbacAuthorizer,
    ask: Ask<'_>,
    request: &AdmissionRequest<'_>,
    object: &Object,
) -> Result<(), StatusError> {
    let resource = &*request.target.resource.storage;
    if !matches!(resource, CLUSTER_ROLES | ROLES | CLUSTER_ROLE_BINDINGS | ROLE_BINDINGS)
        || !matches!(request.operation, Operation::Create | Operation::Update)
        || request.context.trusted
        || request.context.user.is_in(MASTERS)
        || request.old.is_some_and(|old| same_but_for_collection(old, object))
    {
        return Ok(());
    }
    let (user, snapshot) = (&*request.context.user, request.snapshot);
    let target = request.target.named(object.name());
    let allowed = |verb: &str, resource: &str, name: &str| {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: target.resource.group.to_string(),
            resource: resource.to_owned(),
            namespace: target.namespace.clone(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        ask(user, &asked, snapshot) == Decision::Allow
    };
    if matches!(resource, CLUSTER_ROLE_BINDINGS | ROLE_BINDINGS) {
        let role = RoleRef::of(object);
        let plural = match role.kind.as_str() {
            "ClusterRole" => "clusterroles",
            "Role" => "roles",
            // Of no known kind: validation has said so.
            _ => return Ok(()),
        };
        if allowed("bind", plural, &role.name) {
            return Ok(());
        }
        let rules = rbac
            .index(snapshot)
            .role(&role, &target.namespace)
            .map_err(|_| StatusError::not_found(&target.resource.group, plural, &role.name))?;
        return confirm(rbac, user, &target, &rules, snapshot);
    }
    // Upstream asks with the name in the path, which a create does not have.
    let name = if request.operation == Operation::Create { "" } else { object.name() };
    if allowed("escalate", &target.resource.plural, name) {
        return Ok(());
    }
    confirm(rbac, user, &target, &Rule::of_role(object), snapshot)?;
    let gathers = |object: &Object| {
        let selectors = object.get(&["aggregationRule", "clusterRoleSelectors"]);
        selectors.and_then(serde_json::Value::as_array).is_some_and(|list| !list.is_empty())
    };
    if resource == CLUSTER_ROLES && (gathers(object) || request.old.is_some_and(gathers)) {
        // It can gather anything, hence needs everything.
        confirm(rbac, user, &target, &everything(), snapshot)
            .map_err(|_| target.forbidden("must have cluster-admin privileges to use the aggregationRule"))?;
    }
    Ok(())
}

fn everything() -> Vec<Rule> {
    let all = || vec!["*".to_owned()];
    vec![
        Rule::new(all(), all(), all(), Vec::new(), Vec::new()),
        Rule::new(all(), Vec::new(), Vec::new(), Vec::new(), all()),
    ]
}

fn confirm(
    rbac: &RbacAuthorizer,
    user: &User,
    target: &Target,
    wanted: &[Rule],
    snapshot: &Snapshot,
) -> Result<(), StatusError> {
    let (owned, errors) = rbac.rules_for(user, &target.namespace, snapshot);
    let lacking = missing(&owned, wanted);
    if lacking.is_empty() {
        return Ok(());
    }
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        describe(&lacking).join("\n")
    );
    if !errors.is_empty() {
        why.push_str(&format!("; resolution errors: [{}]", errors.join(" ")));
    }
    Err(target.forbidden(&why))
}

/// Whether a change is only of fields by which objects are collected.
fn same_but_for_collection(old: &Object, new: &Object) -> bool {
    let bare = |object: &Object| {
        let mut bare = object.clone();
        for field in ["finalizers", "ownerReferences", "managedFields", "resourceVersion", "generation"] {
            bare.remove(&["metadata", field]);
        }
        bare
    };
    bare(old) == bare(new)
}
