//! The controllers that a leader runs: each looks at a snapshot and says what
//! to write so that the cluster comes closer to what its objects ask for.
//!
//! A controller is a pure function ([`barque_runtime::Controller`]); the loop
//! around it, its queue and its writes are `barque-runtime`'s. Behaviour and
//! texts are those of upstream's kube-controller-manager, whose controller
//! names are the names of the duties.

mod account_tokens;
mod api_endpoints;
mod clock;
#[cfg(test)]
mod crash_tests;
mod crd;
mod deployment;
mod disruption;
mod duties;
mod endpointslice;
mod event_ttl;
mod flow_schemas;
mod garbage;
mod indexes;
mod labels;
mod namespace;
mod node;
mod owners;
mod patch;
mod podgc;
mod pods;
mod policy_status;
mod protection;
mod replicaset;
mod resourcequota;
mod role_aggregation;
mod root_ca;
mod serviceaccount;
mod servicecidr;
#[cfg(test)]
mod testing;

pub use account_tokens::SignToken;
pub use api_endpoints::LiveMasters;
pub use duties::{Options, RegistrySource, duties};
pub use namespace::SYSTEM_NAMESPACES;
pub use node::NodeLifecycleOptions;
pub use podgc::PodGcOptions;
