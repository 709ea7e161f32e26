//! Rows of `flowcontrol.apiserver.k8s.io`.

use super::defaults::{Fields, fill, fill_number, spec, sub};
use super::prepare;
use super::row::Group;
use crate::object::Object;
use crate::resource::{ALL_METADATA, Resource, Strategy};
use crate::table::cluster as table;
use crate::validation::flowcontrol;

const V1: Group = Group::v1("flowcontrol.apiserver.k8s.io");
const DEFAULT_PRECEDENCE: i64 = 1000;
const DEFAULT_SHARES: i64 = 30;
const DEFAULT_HAND_SIZE: i64 = 8;
const DEFAULT_QUEUES: i64 = 64;
const DEFAULT_QUEUE_LENGTH: i64 = 50;

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let schema = Strategy {
        default: |schema| {
            if let Some(spec) = spec(schema) {
                fill_number(spec, "matchingPrecedence", DEFAULT_PRECEDENCE);
            }
        },
        prepare_create: prepare::empty_status,
        status_keeps: ALL_METADATA,
        validate: flowcontrol::validate_schema,
        validate_status_update: flowcontrol::validate_status,
        row: table::flow_schema,
        ..Strategy::default()
    };
    let level = Strategy {
        default: default_level,
        prepare_create: prepare::empty_status,
        status_keeps: ALL_METADATA,
        validate: flowcontrol::validate_level,
        validate_status_update: flowcontrol::validate_status,
        row: table::priority_level,
        ..Strategy::default()
    };
    vec![
        V1.cluster("FlowSchema", "flowschemas", &[], table::flow_schema_columns, schema)
            .with_status()
            .with_generation(),
        V1.cluster(
            "PriorityLevelConfiguration",
            "prioritylevelconfigurations",
            &[],
            table::priority_level_columns,
            level,
        )
        .with_status()
        .with_generation(),
    ]
}

fn shares(level: &mut Fields, default: i64) {
    fill(level, "nominalConcurrencyShares", default);
    fill(level, "lendablePercent", 0);
}

fn default_level(level: &mut Object) {
    let Some(spec) = spec(level) else { return };
    if let Some(exempt) = sub(spec, "exempt") {
        shares(exempt, 0);
    }
    let Some(limited) = sub(spec, "limited") else { return };
    shares(limited, DEFAULT_SHARES);
    if let Some(queuing) = sub(limited, "limitResponse").and_then(|response| sub(response, "queuing")) {
        fill_number(queuing, "handSize", DEFAULT_HAND_SIZE);
        fill_number(queuing, "queues", DEFAULT_QUEUES);
        fill_number(queuing, "queueLengthLimit", DEFAULT_QUEUE_LENGTH);
    }
}
