//! One Pod: what it should be, what is seen of it, and what to do next. All of
//! it is pure; the runtimes are the shells around it.

pub mod backoff;
pub mod decide;
pub mod env;
pub mod expand;
pub mod files;
pub mod model;
pub mod probes;
pub mod qos;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
