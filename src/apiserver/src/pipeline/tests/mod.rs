//! Behaviour of the write pipeline, over a store in memory.

mod admission;
mod freshness;
mod lifecycle;
mod pods;
mod services;
mod writes;
