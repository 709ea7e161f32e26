//! Rows of `rbac.authorization.k8s.io`.

use serde_json::Value;

use super::defaults::{each, fill, made};
use super::row::{Group, path_segment};
use crate::object::Object;
use crate::resource::{Resource, Strategy};
use crate::table::{self, cluster};
use crate::validation::{Fields as _, rbac};

const GROUP: &str = "rbac.authorization.k8s.io";
const V1: Group = Group::v1(GROUP);

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let binding = Strategy {
        default: default_binding,
        validate_update: rbac::validate_binding_update,
        row: cluster::binding,
        validate_name: path_segment,
        ..Strategy::default()
    };
    let cluster_binding = Strategy { validate: rbac::validate_cluster_role_binding, ..binding.clone() };
    let role_binding = Strategy { validate: rbac::validate_role_binding, ..binding };
    let cluster_role =
        Strategy { validate: rbac::validate_cluster_role, validate_name: path_segment, ..Strategy::default() };
    let role = Strategy { validate: rbac::validate_role, ..cluster_role.clone() };
    vec![
        V1.cluster("ClusterRoleBinding", "clusterrolebindings", &[], cluster::binding_columns, cluster_binding),
        V1.cluster("ClusterRole", "clusterroles", &[], table::default_columns, cluster_role),
        V1.namespaced("RoleBinding", "rolebindings", &[], cluster::binding_columns, role_binding),
        V1.namespaced("Role", "roles", &[], table::default_columns, role),
    ]
}

/// Roles, users and groups are of this group.
fn default_binding(binding: &mut Object) {
    if let Some(role) = made(&mut binding.0, "roleRef") {
        fill(role, "apiGroup", GROUP);
    }
    for subject in each(&mut binding.0, "subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            fill(subject, "apiGroup", Value::from(GROUP));
        }
    }
}
