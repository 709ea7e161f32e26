//! All leader duties, by the names under which they can be switched off.

/// Names of the duties that exist.
pub const NAMES: &[&str] = &[
    "scheduler",
    "deployment",
    "replicaset",
    "garbagecollector",
    "namespace",
    "serviceaccount",
    "root-ca-cert-publisher",
    "podgc",
    "disruption",
    "nodelifecycle",
    "ttl-after-events",
    "endpointslice",
    "sessions",
];
