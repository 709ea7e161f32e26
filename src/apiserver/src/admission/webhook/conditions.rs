//! `matchConditions`: expressions that must all be true before a webhook is
//! asked.

use serde_json::Value;

/// The conditions of one webhook.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    names: Vec<String>,
}

impl Conditions {
    pub(super) fn parse(value: &Value) -> Self {
        let list = value.as_array().map_or(&[][..], Vec::as_slice);
        Self { names: list.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect() }
    }

    /// Whether all of them hold.
    ///
    /// # Errors
    /// When one cannot be evaluated and none is false.
    pub(super) fn hold(&self) -> Result<bool, String> {
        match self.names.first() {
            None => Ok(true),
            Some(name) => Err(format!("match condition {name:?}: expressions are not evaluated by this server yet")),
        }
    }
}
