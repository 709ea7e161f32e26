//! Label selectors in the form in which the scheduler evaluates them.

use std::collections::BTreeMap;

use barque_api::k8s_openapi::api::core::v1::NodeSelectorRequirement;
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// The label has one of the values.
    In(String, Vec<String>),
    /// The label is absent or has none of the values.
    NotIn(String, Vec<String>),
    /// The label exists.
    Exists(String),
    /// The label does not exist.
    Absent(String),
    /// The label is a greater integer.
    Greater(String, i64),
    /// The label is a lesser integer.
    Less(String, i64),
    /// Cannot hold: an operator or value that upstream would not evaluate.
    Never,
}

impl Requirement {
    /// Whether labels fulfil the condition.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let integer = |key: &String| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
            Self::Greater(key, than) => integer(key).is_some_and(|value| value > *than),
            Self::Less(key, than) => integer(key).is_some_and(|value| value < *than),
            Self::Never => false,
        }
    }

    fn new(key: &str, operator: &str, values: &[String]) -> Self {
        let key = key.to_owned();
        let number = || values.first().and_then(|value| value.parse::<i64>().ok());
        match operator {
            "In" => Self::In(key, values.to_vec()),
            "NotIn" => Self::NotIn(key, values.to_vec()),
            "Exists" => Self::Exists(key),
            "DoesNotExist" => Self::Absent(key),
            "Gt" => number().map_or(Self::Never, |than| Self::Greater(key, than)),
            "Lt" => number().map_or(Self::Never, |than| Self::Less(key, than)),
            _ => Self::Never,
        }
    }

    /// From a requirement of a node selector.
    #[must_use]
    pub fn of_node(requirement: &NodeSelectorRequirement) -> Self {
        Self::new(&requirement.key, &requirement.operator, requirement.values.as_deref().unwrap_or_default())
    }
}

/// All conditions must hold; none selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// From an API selector: absent selects nothing, empty selects everything.
    #[must_use]
    pub fn of(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self(vec![Requirement::Never]) };
        let labels = selector.match_labels.iter().flatten();
        let mut all: Vec<_> = labels.map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect();
        for e in selector.match_expressions.iter().flatten() {
            all.push(Requirement::new(&e.key, &e.operator, e.values.as_deref().unwrap_or_default()));
        }
        Self(all)
    }

    /// Also demands (or, with `same` false, excludes) the values that `labels`
    /// have for `keys`.
    pub fn merge_keys(&mut self, keys: &[String], labels: &Labels, same: bool) {
        for key in keys {
            if let Some(value) = labels.get(key) {
                let values = vec![value.clone()];
                self.0.push(if same {
                    Requirement::In(key.clone(), values)
                } else {
                    Requirement::NotIn(key.clone(), values)
                });
            }
        }
    }

    /// Whether labels are selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_selects_nothing_and_empty_everything() {
        let labels = Labels::from([("a".to_owned(), "1".to_owned())]);
        assert!(!Selector::of(None).matches(&labels));
        assert!(Selector::of(Some(&LabelSelector::default())).matches(&labels));
    }

    #[test]
    fn operators() {
        let labels = Labels::from([("a".to_owned(), "5".to_owned())]);
        for (operator, values, expected) in [
            ("In", vec!["5", "6"], true),
            ("NotIn", vec!["5"], false),
            ("Exists", vec![], true),
            ("DoesNotExist", vec![], false),
            ("Gt", vec!["4"], true),
            ("Gt", vec!["5"], false),
            ("Lt", vec!["x"], false),
            ("Near", vec!["5"], false),
        ] {
            let values: Vec<_> = values.into_iter().map(str::to_owned).collect();
            assert_eq!(Requirement::new("a", operator, &values).matches(&labels), expected, "{operator} {values:?}");
        }
        assert!(Requirement::new("b", "NotIn", &["5".to_owned()]).matches(&labels), "an absent label is not in");
    }
}
