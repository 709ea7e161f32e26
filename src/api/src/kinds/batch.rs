//! Rows of `batch`.

use super::defaults::batch as defaults;
use super::row::Group;
use super::{fields, prepare};
use crate::resource::{Resource, Strategy};
use crate::table::workloads as table;
use crate::validation::{batch as rules, warnings};

const V1: Group = Group::v1("batch");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let cron_job = Strategy {
        default: defaults::cron_job,
        prepare_create: prepare::empty_status,
        validate: rules::validate_cron_job,
        validate_create: rules::validate_cron_job_create,
        validate_update: rules::validate_cron_job_update,
        warnings: warnings::cron_job,
        row: table::cron_job,
        ..Strategy::default()
    };
    let job = Strategy {
        default: defaults::job,
        prepare_create: prepare::new_job,
        validate: rules::validate_job,
        validate_create: rules::validate_job_create,
        validate_update: rules::validate_job_update,
        validate_status_update: rules::validate_job_status,
        warnings: warnings::job,
        row: table::job,
        fields: fields::job,
        field_names: &["status.successful"],
        ..Strategy::default()
    };
    vec![
        V1.namespaced("CronJob", "cronjobs", &["cj"], table::cron_job_columns, cron_job)
            .in_category("all")
            .with_status()
            .with_generation(),
        V1.namespaced("Job", "jobs", &[], table::job_columns, job).in_category("all").with_status().with_generation(),
    ]
}
