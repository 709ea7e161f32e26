//! Named formats: `format.dns1123Label().validate(x)`.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/format.go`.

use std::sync::OnceLock;

use ::regex::Regex;
use base64::Engine as _;

use super::{regex, time};
use crate::library::url::Url;

/// Problems that a validation reports at most.
const MAX_PROBLEMS: usize = 10;
/// Longest regular expression that costs assume.
pub(crate) const MAX_REGEX_SIZE: u64 = 128;

/// A format with a name.
#[derive(Debug)]
pub struct NamedFormat {
    /// The name.
    pub name: &'static str,
    /// Length of its regular expression, for costs.
    pub regex_size: u64,
    check: fn(&str) -> Vec<String>,
}

impl PartialEq for NamedFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl NamedFormat {
    /// The problems of a text; none if it is of the format.
    pub(crate) fn problems(&self, text: &str) -> Vec<String> {
        let mut problems = (self.check)(text);
        problems.truncate(MAX_PROBLEMS);
        problems
    }
}

const FORMATS: &[NamedFormat] = &[
    NamedFormat { name: "dns1123Label", regex_size: 30, check: dns1123_label },
    NamedFormat { name: "dns1123Subdomain", regex_size: 60, check: dns1123_subdomain },
    NamedFormat { name: "dns1035Label", regex_size: 30, check: dns1035_label },
    NamedFormat { name: "qualifiedName", regex_size: 60, check: qualified_name },
    NamedFormat { name: "dns1123LabelPrefix", regex_size: 30, check: |text| dns1123_label(&prefix(text)) },
    NamedFormat { name: "dns1123SubdomainPrefix", regex_size: 60, check: |text| dns1123_subdomain(&prefix(text)) },
    NamedFormat { name: "dns1035LabelPrefix", regex_size: 30, check: |text| dns1035_label(&prefix(text)) },
    NamedFormat { name: "labelValue", regex_size: 40, check: label_value },
    NamedFormat { name: "uri", regex_size: 1, check: uri },
    NamedFormat { name: "uuid", regex_size: 100, check: uuid },
    NamedFormat { name: "byte", regex_size: 1, check: byte },
    NamedFormat { name: "date", regex_size: 1, check: date },
    NamedFormat { name: "datetime", regex_size: 1, check: date_time },
];

/// A format by its name.
pub(crate) fn named(name: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|format| format.name == name)
}

/// The trailing dash of a prefix is covered by what will follow.
fn prefix(text: &str) -> String {
    text.strip_suffix('-').map_or_else(|| text.to_owned(), |rest| format!("{rest}a"))
}

fn matches(cell: &'static OnceLock<Option<Regex>>, pattern: &str, text: &str) -> bool {
    cell.get_or_init(|| regex::compile(&format!("^(?:{pattern})$")).ok()).as_ref().is_some_and(|r| r.is_match(text))
}

fn too_long(text: &str, limit: usize) -> Option<String> {
    (text.len() > limit).then(|| format!("must be no more than {limit} bytes"))
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn dns1123_label(text: &str) -> Vec<String> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    let mut problems: Vec<String> = too_long(text, 63).into_iter().collect();
    if !matches(&CELL, LABEL, text) {
        problems.push(format!(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
             with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
        ));
    }
    problems
}

fn dns1123_subdomain(text: &str) -> Vec<String> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    let pattern = format!(r"{LABEL}(\.{LABEL})*");
    let mut problems: Vec<String> = too_long(text, 253).into_iter().collect();
    if !matches(&CELL, &pattern, text) {
        problems.push(format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
             and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{pattern}')"
        ));
    }
    problems
}

fn dns1035_label(text: &str) -> Vec<String> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    const PATTERN: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
    let mut problems: Vec<String> = too_long(text, 63).into_iter().collect();
    if !matches(&CELL, PATTERN, text) {
        problems.push(format!(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
             is '{PATTERN}')"
        ));
    }
    problems
}

fn qualified_name(text: &str) -> Vec<String> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    let about = format!(
        "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
         (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME}')"
    );
    let mut parts = text.split('/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let mut problems = Vec::new();
    let name = match (second, third) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(dns1123_subdomain(first).into_iter().map(|problem| format!("prefix part {problem}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {about} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else {
        problems.extend(too_long(name, 63).map(|problem| format!("name part {problem}")));
    }
    if !matches(&CELL, NAME, name) {
        problems.push(format!("name part {about}"));
    }
    problems
}

fn label_value(text: &str) -> Vec<String> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    let pattern = format!("({NAME})?");
    let mut problems: Vec<String> = too_long(text, 63).into_iter().collect();
    if !matches(&CELL, &pattern, text) {
        problems.push(format!(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
             and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
             validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        ));
    }
    problems
}

fn uri(text: &str) -> Vec<String> {
    Url::parse(text).err().into_iter().collect()
}

fn uuid(text: &str) -> Vec<String> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    const PATTERN: &str = "(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}";
    if matches(&CELL, PATTERN, text) { Vec::new() } else { vec!["does not match the UUID format".to_owned()] }
}

fn byte(text: &str) -> Vec<String> {
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(_) => Vec::new(),
        Err(_) => vec!["invalid base64".to_owned()],
    }
}

fn date(text: &str) -> Vec<String> {
    if time::parse_date(text).is_some() { Vec::new() } else { vec!["invalid date".to_owned()] }
}

fn date_time(text: &str) -> Vec<String> {
    if time::parse_date_time(text).is_some() { Vec::new() } else { vec!["invalid datetime".to_owned()] }
}
