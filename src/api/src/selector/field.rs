//! Field selectors: the few fields by which lists and watches can be narrowed.

use crate::object::Object;
use crate::resource::Resource;
use crate::status::StatusError;

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Path, as in `spec.nodeName`.
    pub field: String,
    /// What it is compared with.
    pub value: String,
    /// Whether it must differ.
    pub negated: bool,
}

/// All of a list of conditions on fields; none accepts everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    /// The conditions.
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Parses `status.phase!=Failed,spec.nodeName=n1`; in values `\`, `,` and
    /// `=` are escaped with `\`.
    ///
    /// # Errors
    /// The text that Kubernetes answers with 400.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let Some((field, negated, value)) = split_term(term) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            let value = unescape(value).map_err(|c| format!("invalid field selector: invalid escape sequence: {c}"))?;
            requirements.push(FieldRequirement { field: field.to_owned(), value, negated });
        }
        Ok(Self { requirements })
    }

    /// Whether it accepts everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Refuses fields that a resource cannot be selected by.
    ///
    /// # Errors
    /// 400 in upstream's words.
    pub fn check(&self, resource: &Resource) -> Result<(), StatusError> {
        let generic = |field: &str| {
            field == "metadata.name"
                || (field == "metadata.namespace" && (resource.namespaced || resource.strategy.field_names.is_empty()))
        };
        for requirement in &self.requirements {
            let field = requirement.field.as_str();
            if generic(field) || resource.strategy.field_names.contains(&field) {
                continue;
            }
            if resource.custom().is_some_and(|custom| custom.knows_field(field)) {
                continue;
            }
            let custom = resource.custom().is_some();
            return Err(StatusError::bad_request(if resource.strategy.field_names.is_empty() && !custom {
                format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            } else {
                format!("field label not supported: {field}")
            }));
        }
        Ok(())
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn matches(&self, resource: &Resource, object: &Object) -> bool {
        let is_generic = |r: &FieldRequirement| matches!(r.field.as_str(), "metadata.name" | "metadata.namespace");
        let special =
            if self.requirements.iter().all(is_generic) { Vec::new() } else { (resource.strategy.fields)(object) };
        self.requirements.iter().all(|requirement| {
            if let Some(custom) = resource.custom()
                && let Some(value) = custom.selectable(object, &requirement.field)
            {
                return (value == requirement.value) != requirement.negated;
            }
            let value = match requirement.field.as_str() {
                "metadata.name" => object.name(),
                "metadata.namespace" => object.namespace(),
                field => special.iter().find(|(name, _)| *name == field).map_or("", |(_, value)| value.as_str()),
            };
            (value == requirement.value) != requirement.negated
        })
    }

    /// The value that a field must have, if the selector says exactly one.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (at, _) in term.char_indices() {
        let rest = &term[at..];
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..at], negated, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    if !value.contains(['\\', ',', '=']) {
        return Ok(value.to_owned());
    }
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                Some(other) => return Err(format!("\\{other}")),
                None => return Err("\\".to_owned()),
            },
            ',' | '=' => return Err(format!("unescaped {c:?} in value")),
            other => plain.push(other),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors_parse_escapes() {
        let selector = FieldSelector::parse("a.b=x\\,y,c!=z\\=,d==").expect("valid");
        let list: Vec<_> =
            selector.requirements.iter().map(|r| (r.field.as_str(), r.value.as_str(), r.negated)).collect();
        assert_eq!(list, [("a.b", "x,y", false), ("c", "z=", true), ("d", "", false)]);
        assert_eq!(FieldSelector::parse("a").expect_err("no operator"), "invalid selector: 'a'; can't understand 'a'");
        assert!(FieldSelector::parse("a=\\x").is_err());
        assert_eq!(selector.exact("a.b"), Some("x,y"));
        assert_eq!(selector.exact("c"), None);
    }
}
