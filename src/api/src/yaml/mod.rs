//! The one place where YAML becomes JSON and JSON YAML.
//!
//! Manifests are YAML 1.1 as Kubernetes' clients read it (`0644` is 420,
//! `yes` is true, `"yes"` is text), which neither YAML 1.2 nor `serde_yaml`
//! gives: `serde_yaml` does not tell a plain scalar from a quoted one. So
//! reading works on the events of a parser; writing leaves the styling of
//! difficult text to `serde_yaml`.
//!
//! Reading is bounded in bytes, depth and what aliases may expand to.

mod emit;
mod read;
mod scalar;

pub use emit::encode_yaml;
pub use read::{decode_yaml, decode_yaml_documents};

#[cfg(test)]
mod tests;
