//! Query parameters, typed and checked as upstream checks its options.

use barque_api::{FieldError, StatusError};
use http::Uri;
use serde_json::json;

use crate::pipeline::{DeleteOptions, FieldValidation, Propagation};

/// Longest name of a field manager, in bytes.
const MAX_FIELD_MANAGER: usize = 128;

/// The raw pairs of a query, in order. A body of options can stand in for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Result<Self, StatusError> {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|pairs| Self(pairs.0))
            .map_err(|_| StatusError::bad_request("the query string cannot be read"))
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// A switch; as upstream's decoder has it, all but `0` and `false` switch
    /// it on.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, StatusError> {
        Ok(self.get(name).map(|value| value != "0" && !value.eq_ignore_ascii_case("false")))
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, StatusError> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| StatusError::bad_request(format!("{name}: {text:?} is not a whole number"))),
        }
    }
}

/// Options of every write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    pub force: bool,
}

impl WriteOptions {
    /// `kind` names the options in messages: `CreateOptions`, ...
    pub(super) fn parse(query: &Query, kind: &str, is_apply: bool) -> Result<Self, StatusError> {
        let mut errors = Vec::new();
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", &json!(other), &supported));
                FieldValidation::Warn
            }
        };
        let field_manager = query.text("fieldManager").to_owned();
        if field_manager.len() > MAX_FIELD_MANAGER {
            errors.push(FieldError::too_long("fieldManager", MAX_FIELD_MANAGER));
        }
        if field_manager.chars().any(char::is_control) {
            errors.push(FieldError::invalid(
                "fieldManager",
                &json!(field_manager),
                "should only contain printable characters",
            ));
        }
        let force = query.flag("force")?;
        if force.is_some() && kind == "PatchOptions" && !is_apply {
            errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
        }
        if errors.is_empty() {
            Ok(Self { dry_run, field_manager, field_validation, force: force.unwrap_or(false) })
        } else {
            Err(StatusError::invalid("meta.k8s.io", kind, "", &errors))
        }
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let mut on = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value == "All" {
            on = true;
        } else {
            errors.push(FieldError::not_supported("dryRun", &json!([value]), &["All"]));
        }
    }
    on
}

/// The options of a deletion: the body's, or else the query's. Also gives
/// whether it is a dry run.
pub(super) fn delete_options(
    query: &Query,
    body: Option<&serde_json::Value>,
) -> Result<(DeleteOptions, bool), StatusError> {
    let mut errors = Vec::new();
    let mut options = DeleteOptions::default();
    let (mut policy, mut orphan) = (String::new(), None);
    let mut dry = dry_run(query.all("dryRun"), &mut errors);
    match body {
        Some(body) => {
            let wrong = |field: &str| StatusError::bad_request(format!("DeleteOptions: {field} has the wrong type"));
            let map = body.as_object().ok_or_else(|| StatusError::bad_request("DeleteOptions must be an object"))?;
            let text = |value: &serde_json::Value, field: &str| match value {
                serde_json::Value::Null => Ok(None),
                serde_json::Value::String(text) => Ok(Some(text.clone())),
                _ => Err(wrong(field)),
            };
            for (key, value) in map {
                match key.as_str() {
                    "gracePeriodSeconds" if value.is_null() => {}
                    "gracePeriodSeconds" => {
                        options.grace_period_seconds = Some(value.as_i64().ok_or_else(|| wrong(key))?);
                    }
                    "propagationPolicy" => policy = text(value, key)?.unwrap_or_default(),
                    "orphanDependents" if value.is_null() => {}
                    "orphanDependents" => orphan = Some(value.as_bool().ok_or_else(|| wrong(key))?),
                    "preconditions" if value.is_null() => {}
                    "preconditions" => {
                        let inner = value.as_object().ok_or_else(|| wrong(key))?;
                        let field = |name: &str| inner.get(name).map_or(Ok(None), |v| text(v, name));
                        options.uid = field("uid")?;
                        options.resource_version = field("resourceVersion")?;
                    }
                    "dryRun" if value.is_null() => {}
                    "dryRun" => {
                        let list = value.as_array().ok_or_else(|| wrong(key))?;
                        dry |= dry_run(list.iter().filter_map(serde_json::Value::as_str), &mut errors);
                    }
                    "kind" if !matches!(value.as_str(), Some("DeleteOptions" | "")) => {
                        return Err(StatusError::bad_request(format!(
                            "the body of a DELETE must be DeleteOptions, not {value}"
                        )));
                    }
                    _ => {}
                }
            }
        }
        None => {
            options.grace_period_seconds = query.integer("gracePeriodSeconds")?;
            query.text("propagationPolicy").clone_into(&mut policy);
            orphan = query.flag("orphanDependents")?;
        }
    }
    if !policy.is_empty() && orphan.is_some() {
        errors.push(FieldError::invalid(
            "propagationPolicy",
            &json!(policy),
            "orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    options.propagation = match (policy.as_str(), orphan) {
        ("Background", _) | ("", Some(false)) => Some(Propagation::Background),
        ("Foreground", _) => Some(Propagation::Foreground),
        ("Orphan", _) | ("", Some(true)) => Some(Propagation::Orphan),
        ("", None) => None,
        (other, _) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported("propagationPolicy", &json!(other), &supported));
            None
        }
    };
    if errors.is_empty() {
        Ok((options, dry))
    } else {
        Err(StatusError::invalid("meta.k8s.io", "DeleteOptions", "", &errors))
    }
}

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// Options of lists and watches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ListOptions {
    pub watch: bool,
    pub label_selector: String,
    pub field_selector: String,
    /// `None` when unset; `Some(0)` is "any".
    pub resource_version: Option<u64>,
    pub version_match: Option<VersionMatch>,
    pub limit: Option<usize>,
    pub continuation: String,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    pub(super) fn parse(query: &Query) -> Result<Self, StatusError> {
        Self::parse_as(query, false)
    }

    /// As [`ListOptions::parse`]; `watch` says that it is a watch in any case.
    pub(super) fn parse_as(query: &Query, watch: bool) -> Result<Self, StatusError> {
        let resource_version = parse_version(query.text("resourceVersion"))?;
        let version_match = match query.text("resourceVersionMatch") {
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            _ => None,
        };
        let limit = query.integer("limit")?.filter(|limit| *limit > 0).map(|limit| limit as usize);
        let options = Self {
            watch: watch || query.flag("watch")?.unwrap_or(false),
            label_selector: query.text("labelSelector").to_owned(),
            field_selector: query.text("fieldSelector").to_owned(),
            resource_version,
            version_match,
            limit,
            continuation: query.text("continue").to_owned(),
            timeout_seconds: query.integer("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()),
            bookmarks: query.flag("allowWatchBookmarks")?.unwrap_or(false),
            send_initial_events: query.flag("sendInitialEvents")?,
        };
        let errors = options.check(query.text("resourceVersionMatch"));
        if !errors.is_empty() {
            return Err(StatusError::invalid("meta.k8s.io", "ListOptions", "", &errors));
        }
        let positioned = options.resource_version.is_some_and(|version| version != 0);
        if !options.watch && !options.continuation.is_empty() && positioned {
            return Err(StatusError::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(options)
    }

    /// `asked` is the `resourceVersionMatch` as it came. Rules and words:
    /// `ValidateListOptions` in `k8s.io/apimachinery`.
    fn check(&self, asked: &str) -> Vec<FieldError> {
        const MATCH: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        let mut forbid = |field: &str, detail: &str| errors.push(FieldError::forbidden(field, detail));
        if self.watch {
            if self.send_initial_events.is_some() && self.version_match != Some(VersionMatch::NotOlderThan) {
                forbid(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
            }
            if !asked.is_empty() {
                if self.send_initial_events.is_none() {
                    forbid(MATCH, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
                }
                if !self.continuation.is_empty() {
                    forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
                }
                if self.version_match != Some(VersionMatch::NotOlderThan) {
                    errors.push(FieldError::not_supported(MATCH, &json!(asked), &["NotOlderThan"]));
                }
            }
            return errors;
        }
        if self.send_initial_events.is_some() {
            forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if !asked.is_empty() {
            if self.resource_version.is_none() {
                forbid(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.continuation.is_empty() {
                forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
            if self.version_match == Some(VersionMatch::Exact) && self.resource_version == Some(0) {
                forbid(MATCH, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            if self.version_match.is_none() {
                errors.push(FieldError::not_supported(MATCH, &json!(asked), &["Exact", "NotOlderThan", ""]));
            }
        }
        errors
    }
}

/// A `resourceVersion`; `None` when it is empty.
pub(super) fn parse_version(text: &str) -> Result<Option<u64>, StatusError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let error = FieldError::invalid("resourceVersion", &json!(text), "must be an unsigned integer");
        StatusError::invalid("meta.k8s.io", "ListOptions", "", &[error])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().expect("a URI")).expect("readable")
    }

    #[test]
    fn lists_and_watches_refuse_what_upstream_refuses() {
        for (text, fragment) in [
            ("resourceVersionMatch=Exact", "forbidden unless resourceVersion is provided"),
            ("resourceVersionMatch=Exact&resourceVersion=0", "\\\"exact\\\" is forbidden"),
            ("resourceVersionMatch=X&resourceVersion=1", "Unsupported value"),
            ("sendInitialEvents=true", "sendInitialEvents is forbidden for list"),
            ("watch=1&sendInitialEvents=true", "requires setting resourceVersionMatch to NotOlderThan"),
            ("watch=1&resourceVersionMatch=NotOlderThan", "unless sendInitialEvents is provided"),
            ("watch=1&sendInitialEvents=0&resourceVersionMatch=Exact", "supported values: \\\"NotOlderThan\\\""),
            ("resourceVersionMatch=Exact&resourceVersion=1&continue=x", "forbidden when continue is provided"),
            ("resourceVersion=abc", "must be an unsigned integer"),
        ] {
            let error = ListOptions::parse(&query(text)).expect_err(text);
            assert_eq!(error.code(), 422, "{text}");
            assert!(error.message.replace('"', "\\\"").contains(fragment), "{text}: {}", error.message);
        }
        for bad in ["limit=x", "continue=x&resourceVersion=7", "timeoutSeconds=1.5"] {
            assert_eq!(ListOptions::parse(&query(bad)).expect_err(bad).code(), 400);
        }
        for (text, watch) in [("watch", true), ("watch=yes", true), ("watch=False", false), ("watch=0", false)] {
            assert_eq!(ListOptions::parse(&query(text)).expect(text).watch, watch, "{text}");
        }
        let through_watch = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(ListOptions::parse(&query(through_watch)).expect("fine").send_initial_events, Some(true));
        let fine = ListOptions::parse(&query("limit=5&labelSelector=a%3Db&resourceVersion=0")).expect("fine");
        assert_eq!((fine.limit, fine.label_selector.as_str(), fine.resource_version), (Some(5), "a=b", Some(0)));
    }

    #[test]
    fn write_options_are_checked() {
        let parse = |text: &str| WriteOptions::parse(&query(text), "PatchOptions", false);
        assert!(parse("dryRun=All&fieldValidation=Strict").expect("fine").dry_run);
        for bad in ["dryRun=Some", "fieldValidation=Maybe", "force=true"] {
            assert_eq!(parse(bad).expect_err(bad).code(), 422);
        }
    }

    #[test]
    fn delete_options_come_from_the_body_or_the_query() {
        let body = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}});
        let (options, dry) = delete_options(&query("dryRun=All"), Some(&body)).expect("fine");
        assert_eq!((options.grace_period_seconds, options.uid.as_deref(), dry), (Some(0), Some("u"), true));
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        let (options, _) = delete_options(&query("orphanDependents=true"), None).expect("fine");
        assert_eq!(options.propagation, Some(Propagation::Orphan));
        assert_eq!(delete_options(&query("propagationPolicy=X"), None).expect_err("bad").code(), 422);
        assert_eq!(delete_options(&query(""), Some(&json!({"gracePeriodSeconds": "x"}))).expect_err("bad").code(), 400);
    }
}
