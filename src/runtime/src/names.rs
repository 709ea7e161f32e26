//! Storage names with a static lifetime, for writes to resources that are only
//! known at run time (custom resources).

use std::collections::HashSet;
use std::sync::LazyLock;

use parking_lot::Mutex;

/// Distinct names that are kept for the life of the process; a cluster has a
/// few hundred resources.
const MAX_NAMES: usize = 8_192;

static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

/// The same name with a static lifetime; `None` once too many different ones
/// have been asked for, which bounds the memory that stays behind.
#[must_use]
pub fn resource_name(name: &str) -> Option<&'static str> {
    let mut names = NAMES.lock();
    if let Some(known) = names.get(name) {
        return Some(known);
    }
    if names.len() >= MAX_NAMES {
        return None;
    }
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(kept);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        let first = resource_name("widgets.example.com").unwrap();
        let second = resource_name(&String::from("widgets.example.com")).unwrap();
        assert!(std::ptr::eq(first, second));
    }
}
