//! Rows of `policy`.

use super::prepare;
use super::row::Group;
use crate::resource::{Resource, Strategy};
use crate::table::{columns, rows};
use crate::validation::workloads;

const V1: Group = Group::v1("policy");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let budget = Strategy {
        prepare_create: prepare::empty_budget_status,
        validate: workloads::validate_budget,
        validate_status_update: workloads::validate_budget_status,
        row: rows::budget,
        ..Strategy::default()
    };
    vec![
        V1.namespaced("PodDisruptionBudget", "poddisruptionbudgets", &["pdb"], columns::budget, budget)
            .with_status()
            .with_generation(),
    ]
}
