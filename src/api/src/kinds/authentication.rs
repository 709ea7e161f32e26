//! Rows of `authentication.k8s.io`: questions that are posted and answered,
//! never stored.

use super::row::{CREATE_ONLY, Group};
use crate::resource::{Resource, Strategy};

const V1: Group = Group::v1("authentication.k8s.io");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    [("SelfSubjectReview", "selfsubjectreviews"), ("TokenReview", "tokenreviews")]
        .map(|(kind, plural)| {
            V1.cluster(kind, plural, &[], crate::table::default_columns, Strategy::default()).with_verbs(CREATE_ONLY)
        })
        .into()
}
