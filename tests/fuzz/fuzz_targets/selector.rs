//! Label and field selectors as they stand in a query.
#![no_main]

use barque_api::selector::{FieldSelector, LabelSelector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        let _ = selector.matches(&serde_json::Map::new());
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let _ = selector.exact("metadata.name");
    }
});
