//! Requests and expected answers as data (`tests/data/api/*.yaml`).
//!
//! A file is a list of steps. Texts may hold `{ns}` (a namespace of the
//! file's own), `{name}` for what an earlier step saved, and `{rand}` (random,
//! the same throughout the file).
//!
//! ```yaml
//! - why: a name can be used once          # optional, shown on failure
//!   do: POST /api/v1/namespaces/{ns}/configmaps
//!   on: 1                                 # which master; any by default
//!   type: application/yaml                # Content-Type; JSON by default
//!   headers: {accept: application/yaml}
//!   body: {kind: ConfigMap}               # a text is sent as it is
//!   status: 201
//!   expect: {metadata: {name: a}}         # part of the JSON or YAML answer
//!   contains: [text, ...]                 # parts of the raw answer
//!   save: {rv: /metadata/resourceVersion} # JSON pointers
//!   retry: true                           # until it holds, for what follows from a write
//! ```
//!
//! In `expect`, a mapping is a subset; a list must match item by item, in
//! number too. Special texts: `<any>` (present), `<absent>`, `<contains:X>`,
//! `<not:X>`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, Response};

/// One request and what is expected of its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    why: String,
    r#do: String,
    on: Option<usize>,
    r#type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    status: u16,
    expect: Option<Value>,
    #[serde(default)]
    contains: Vec<String>,
    #[serde(default)]
    save: BTreeMap<String, String>,
    #[serde(default)]
    retry: bool,
}

/// Runs a file against a cluster.
///
/// # Panics
/// At the first step whose answer is not as expected.
pub async fn run(path: &Path, clients: &[Client], namespace: &str) {
    let steps = read(path);
    let mut known = BTreeMap::from([
        ("ns".to_owned(), namespace.to_owned()),
        ("rand".to_owned(), format!("{:06x}", rand::random::<u32>() & 0xff_ffff)),
    ]);
    for (number, step) in steps.iter().enumerate() {
        let client = match step.on {
            Some(index) => &clients[index],
            None => &clients[rand::random::<u32>() as usize % clients.len()],
        };
        let place = format!("step {} ({}) {}", number + 1, step.r#do, step.why);
        let response = if step.retry {
            crate::eventually(&place, || async {
                let response = perform(step, client, &known).await.map_err(|error| error.to_string())?;
                check(step, &response, &known).map(|()| response)
            })
            .await
        } else {
            let response = perform(step, client, &known).await.unwrap_or_else(|error| panic!("{place}: {error}"));
            check(step, &response, &known).unwrap_or_else(|problem| panic!("{place}: {problem}"));
            response
        };
        for (name, pointer) in &step.save {
            let body = response.json();
            let value = body.pointer(pointer).unwrap_or_else(|| panic!("{place}: no {pointer} in {body}"));
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            known.insert(name.clone(), text);
        }
    }
}

fn read(path: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn perform(
    step: &Step,
    client: &Client,
    known: &BTreeMap<String, String>,
) -> Result<Response, crate::ClientError> {
    let line = fill(&step.r#do, known);
    let (method, path) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} is not METHOD PATH"));
    let method = method.parse().unwrap_or_else(|_| panic!("{method:?} is no method"));
    let mut request = client.request(method, path);
    for (name, value) in &step.headers {
        request = request.header(name, &fill(value, known));
    }
    if let Some(body) = &step.body {
        let bytes = match body {
            Value::String(text) => fill(text, known),
            other => fill_all(other, known).to_string(),
        };
        request = request.body(step.r#type.as_deref().unwrap_or("application/json"), bytes);
    }
    request.send().await
}

fn check(step: &Step, response: &Response, known: &BTreeMap<String, String>) -> Result<(), String> {
    let whole = || format!("the answer: {} {}", response.status, response.text());
    if response.status != step.status {
        return Err(format!("expected {}; {}", step.status, whole()));
    }
    for part in &step.contains {
        let part = fill(part, known);
        if !response.text().contains(&part) {
            return Err(format!("expected {part:?} in {}", whole()));
        }
    }
    if let Some(expected) = &step.expect {
        // JSON is YAML, too.
        let body: Value = serde_yaml::from_slice(&response.body).map_err(|error| format!("{error}; {}", whole()))?;
        let mut problems = Vec::new();
        compare(&fill_all(expected, known), Some(&body), "", &mut problems);
        if !problems.is_empty() {
            return Err(format!("{}; {}", problems.join("; "), whole()));
        }
    }
    Ok(())
}

/// Notes every difference between what is expected and what is there.
fn compare(expected: &Value, actual: Option<&Value>, at: &str, problems: &mut Vec<String>) {
    let show = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    let mut differs = |problem: String| problems.push(format!("at {at:?}: {problem}, got {}", show(actual)));
    match expected {
        Value::String(text) if text == "<any>" => {
            if actual.is_none_or(Value::is_null) {
                differs("expected a value".into());
            }
        }
        Value::String(text) if text == "<absent>" => {
            if actual.is_some() {
                differs("expected nothing".into());
            }
        }
        Value::String(text) if text.starts_with("<contains:") => {
            let part = &text["<contains:".len()..text.len() - 1];
            if !actual.and_then(Value::as_str).is_some_and(|actual| actual.contains(part)) {
                differs(format!("expected a text with {part:?}"));
            }
        }
        Value::String(text) if text.starts_with("<not:") => {
            let other = &text["<not:".len()..text.len() - 1];
            if actual.and_then(Value::as_str) == Some(other) {
                differs(format!("expected anything but {other:?}"));
            }
        }
        Value::Object(fields) => {
            if !actual.is_some_and(Value::is_object) {
                differs("expected an object".into());
                return;
            }
            for (name, value) in fields {
                compare(value, actual.and_then(|actual| actual.get(name)), &format!("{at}/{name}"), problems);
            }
        }
        Value::Array(items) => {
            let actual_items = actual.and_then(Value::as_array);
            if actual_items.map(Vec::len) != Some(items.len()) {
                differs(format!("expected a list of {}", items.len()));
                return;
            }
            for (index, item) in items.iter().enumerate() {
                compare(item, actual_items.and_then(|all| all.get(index)), &format!("{at}/{index}"), problems);
            }
        }
        other => {
            if actual != Some(other) {
                differs(format!("expected {other}"));
            }
        }
    }
}

fn fill(text: &str, known: &BTreeMap<String, String>) -> String {
    known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

fn fill_all(value: &Value, known: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text, known)),
        Value::Array(items) => items.iter().map(|item| fill_all(item, known)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (fill(name, known), fill_all(value, known))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(expected: &Value, actual: &Value) -> usize {
        let mut found = Vec::new();
        compare(expected, Some(actual), "", &mut found);
        found.len()
    }

    #[test]
    fn expectations_are_subsets_that_can_fail() {
        let actual = json!({"a": 1, "b": {"c": "some text"}, "l": [{"x": 1, "y": 2}]});
        for good in [
            json!({}),
            json!({"a": 1}),
            json!({"a": "<any>", "z": "<absent>"}),
            json!({"b": {"c": "<contains:me te>"}}),
            json!({"b": {"c": "<not:else>"}}),
            json!({"l": [{"x": 1}]}),
        ] {
            assert_eq!(problems(&good, &actual), 0, "{good}");
        }
        for bad in [
            json!({"a": 2}),
            json!({"a": "<absent>"}),
            json!({"z": "<any>"}),
            json!({"z": {}}),
            json!({"b": {"c": "<contains:none>"}}),
            json!({"b": {"c": "<not:some text>"}}),
            json!({"l": []}),
            json!({"l": [{"x": 2}]}),
        ] {
            assert_eq!(problems(&bad, &actual), 1, "{bad}");
        }
    }

    /// A slip in a data file shows without a cluster.
    #[test]
    fn every_data_file_is_read() {
        for entry in std::fs::read_dir(crate::data("api")).unwrap() {
            let path = entry.unwrap().path();
            for step in read(&path) {
                let (method, target) = step.r#do.split_once(' ').unwrap();
                assert!(method.parse::<http::Method>().is_ok() && target.starts_with('/'), "{path:?}: {}", step.r#do);
                assert!((100..600).contains(&step.status), "{path:?}: {}", step.status);
            }
        }
    }
}
