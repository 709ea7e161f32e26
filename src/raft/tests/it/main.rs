//! The crate from outside: openraft's own storage suite, damaged files, and
//! whole groups over loopback TCP with mTLS.
#![allow(clippy::unwrap_used, missing_docs)]

mod authority;
mod damage;
mod disk;
mod encryption;
mod failover;
mod group;
mod membership;
mod partition;
mod suite;
mod writes;
