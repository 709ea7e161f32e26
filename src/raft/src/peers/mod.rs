//! Talking to the other masters: certificates, connections, and both ends of
//! the `Peers` service.

pub mod link;
pub mod links;
pub(crate) mod network;
pub mod serve;
pub mod service;
pub(crate) mod suspicion;
pub mod tls;
