//! Rows of `authorization.k8s.io`: questions that are posted and answered,
//! never stored.

use super::row::{CREATE_ONLY, Group};
use crate::resource::{Resource, Strategy};
use crate::table::default_columns;

const V1: Group = Group::v1("authorization.k8s.io");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let cluster = [
        ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        ("SelfSubjectRulesReview", "selfsubjectrulesreviews"),
        ("SubjectAccessReview", "subjectaccessreviews"),
    ];
    let mut rows = vec![V1.namespaced(
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        &[],
        default_columns,
        Strategy::default(),
    )];
    rows.extend(cluster.map(|(kind, plural)| V1.cluster(kind, plural, &[], default_columns, Strategy::default())));
    rows.into_iter().map(|row| row.with_verbs(CREATE_ONLY)).collect()
}
