//! Rules for Jobs and CronJobs.
//!
//! Source: `pkg/apis/batch/validation` and `pkg/registry/batch`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::indexes::{Indexes, overlap};
use super::{Fields, Path, Report, cron, pod, rules};
use crate::names;
use crate::object::Object;
use crate::selector::LabelSelector;
use crate::status::FieldError;

/// Most Pods at once of an Indexed Job.
const MAX_PARALLELISM_INDEXED: i64 = 100_000;
/// Most indexes of a Job that may fail.
const MAX_FAILED_INDEXES: i64 = 100_000;
/// Above this many completions a Job with a limit per index must hold back.
const COMPLETIONS_SOFT_LIMIT: i64 = 100_000;
/// What such a Job may have of Pods at once, and of failed indexes.
const HIGH_COMPLETIONS_LIMIT: i64 = 10_000;
const MAX_FAILURE_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_CONDITION_PATTERNS: usize = 20;
const MAX_MANAGED_BY: usize = 63;
const MAX_SUCCESS_RULES: usize = 20;
const MAX_SUCCEEDED_INDEXES: usize = 64 * 1024;
/// A CronJob's Jobs have 11 characters more in their names.
const MAX_CRON_JOB_NAME: usize = 52;

const INDEXED: &str = "Indexed";
const NON_INDEXED: &str = "NonIndexed";
const NEEDS_INDEXED: &str = "requires indexed completion mode";

/// Rules for a Job, new or changed.
pub(crate) fn validate_job(job: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = job.at("spec");
    let path = Path::root("spec");
    generated_selector(&mut report, job, true);
    job_spec(&mut report, spec, &path);
    let selector_path = path.child("selector");
    match spec.given("selector") {
        None => report.required(&selector_path, ""),
        Some(selector) => rules::label_selector(&mut report, selector, &selector_path),
    }
    if let Ok(selector) = LabelSelector::from_json(spec.at("selector")) {
        let labels = spec.at("template").at("metadata").at("labels");
        if spec.given("selector").is_none() || !selector.matches_with(|key| labels.get(key).and_then(Value::as_str)) {
            let shown = if labels.is_null() { serde_json::json!({}) } else { labels.clone() };
            let path = path.child("template");
            let path = path.child("metadata");
            report.invalid(&path.child("labels"), shown, "`selector` does not match template `labels`");
        }
    }
    let completions = spec.int("completions").unwrap_or_default();
    if spec.text("completionMode") == INDEXED && completions > 0 {
        let longest = format!("{}-{}", job.name(), completions - 1);
        if !names::dns_label(&longest).is_empty() {
            let text = format!("will not able to create pod with invalid DNS label: {longest}");
            report.invalid(&Path::root("metadata").child("name"), job.name(), &text);
        }
    }
    report.errors
}

/// Nothing more for new Jobs: their selector was made by the server.
pub(crate) fn validate_job_create(_: &Object) -> Vec<FieldError> {
    Vec::new()
}

fn generated_selector(report: &mut Report, job: &Object, prefixed: bool) {
    let spec = job.at("spec");
    if spec.flag("manualSelector") || spec.given("selector").is_none() {
        return;
    }
    let metadata = Path::root("metadata");
    if job.uid().is_empty() {
        report.required(&metadata.child("uid"), "");
    }
    let labels = spec.at("template").at("metadata").at("labels");
    let path = Path::root("spec");
    let path = path.child("template");
    let path = path.child("metadata");
    let path = path.child("labels");
    let mut expected = vec![("controller-uid", job.uid()), ("job-name", job.name())];
    if prefixed {
        expected.push(("batch.kubernetes.io/controller-uid", job.uid()));
        expected.push(("batch.kubernetes.io/job-name", job.name()));
    }
    for (label, value) in &expected {
        match labels.get(label).and_then(Value::as_str) {
            None => report.required(&path.key(label), &format!("must be '{value}'")),
            Some(found) if found != *value => {
                report.invalid(&path.key(label), labels.clone(), &format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    if let Ok(selector) = LabelSelector::from_json(spec.at("selector")) {
        let label = |key: &str| expected.iter().find(|(label, _)| *label == key).map(|(_, value)| *value);
        if !selector.matches_with(label) {
            let path = Path::root("spec");
            report.invalid(&path.child("selector"), spec.at("selector").clone(), "`selector` not auto-generated");
        }
    }
}

/// Rules that Jobs and templates of Jobs share.
fn job_spec(report: &mut Report, spec: &Value, path: &Path) {
    let counters = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for field in counters {
        report.non_negative(&path.child(field), spec.int(field));
    }
    let per_index = spec.int("backoffLimitPerIndex");
    if spec.int("maxFailedIndexes").is_some() && per_index.is_none() {
        report.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec.given("managedBy").and_then(Value::as_str) {
        let path = path.child("managedBy");
        rules::domain_prefixed_path(report, manager, &path);
        if manager.len() > MAX_MANAGED_BY {
            report.too_long(&path, MAX_MANAGED_BY);
        }
    }
    completion_mode(report, spec, path);
    if let Some(policy) = spec.given("podFailurePolicy") {
        failure_policy(report, spec, policy, &path.child("podFailurePolicy"));
    }
    if let Some(policy) = spec.given("successPolicy") {
        let path = path.child("successPolicy");
        if spec.text("completionMode") == INDEXED {
            success_policy(report, spec, policy, &path);
        } else {
            report.invalid(&path, policy.clone(), NEEDS_INDEXED);
        }
    }
    if spec.given("podReplacementPolicy").is_some() {
        let policy = spec.text("podReplacementPolicy");
        let with_policy = spec.given("podFailurePolicy").is_some();
        let supported: &[&str] = if with_policy { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        if !supported.contains(&policy) {
            report.not_supported(&path.child("podReplacementPolicy"), policy, supported);
        }
    }
    let template_path = path.child("template");
    pod::validate_template(report, spec.at("template"), &template_path);
    let policy = spec.at("template").at("spec").text("restartPolicy");
    let policy_path = template_path.child("spec");
    let policy_path = policy_path.child("restartPolicy");
    match policy {
        "" | "Always" => report.required(&policy_path, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" if spec.given("podFailurePolicy").is_some() => {
            report.invalid(&policy_path, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" => {}
        other => report.not_supported(&policy_path, other, &["OnFailure", "Never"]),
    }
}

fn completion_mode(report: &mut Report, spec: &Value, path: &Path) {
    let mode = spec.text("completionMode");
    let (completions, parallelism) = (spec.int("completions"), spec.int("parallelism"));
    let (per_index, failed) = (spec.int("backoffLimitPerIndex"), spec.int("maxFailedIndexes"));
    if spec.given("completionMode").is_some() && !matches!(mode, INDEXED | NON_INDEXED) {
        report.not_supported(&path.child("completionMode"), mode, &[NON_INDEXED, INDEXED]);
    }
    if mode != INDEXED {
        if !matches!(mode, NON_INDEXED | "") {
            return;
        }
        for (field, value) in [("backoffLimitPerIndex", per_index), ("maxFailedIndexes", failed)] {
            if let Some(value) = value {
                report.invalid(&path.child(field), value, NEEDS_INDEXED);
            }
        }
        return;
    }
    if completions.is_none() {
        report.required(&path.child("completions"), "when completion mode is Indexed");
    }
    let mut above = |field: &str, value: Option<i64>, limit: i64, more: &str| {
        if let Some(value) = value.filter(|value| *value > limit) {
            report.invalid(&path.child(field), value, &format!("must be less than or equal to {limit}{more}"));
        }
    };
    above("parallelism", parallelism, MAX_PARALLELISM_INDEXED, " when completion mode is Indexed");
    let high = completions.is_some_and(|all| all > COMPLETIONS_SOFT_LIMIT) && per_index.is_some();
    above("maxFailedIndexes", failed, MAX_FAILED_INDEXES, "");
    if high {
        let text =
            format!(" when completions are above {COMPLETIONS_SOFT_LIMIT} and used with backoff limit per index");
        above("parallelism", parallelism, HIGH_COMPLETIONS_LIMIT, &text);
        above("maxFailedIndexes", failed, HIGH_COMPLETIONS_LIMIT, &text);
        if failed.is_none() {
            let text = format!("must be specified when completions is above {COMPLETIONS_SOFT_LIMIT}");
            report.required(&path.child("maxFailedIndexes"), &text);
        }
    }
    if let (Some(all), Some(failed)) = (completions, failed)
        && failed > all
    {
        report.invalid(&path.child("maxFailedIndexes"), failed, "must be less than or equal to completions");
    }
}

fn failure_policy(report: &mut Report, spec: &Value, policy: &Value, path: &Path) {
    let rules_path = path.child("rules");
    let list = policy.list("rules");
    if list.len() > MAX_FAILURE_RULES {
        report.too_many(&rules_path, list.len(), MAX_FAILURE_RULES);
    }
    let pod = spec.at("template").at("spec");
    let containers: BTreeSet<&str> =
        ["containers", "initContainers"].iter().flat_map(|field| pod.list(field)).map(|c| c.text("name")).collect();
    for (at, rule) in list.iter().enumerate() {
        let path = rules_path.index(at);
        let action_path = path.child("action");
        match rule.text("action") {
            "" => report.required(&action_path, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            "FailIndex" => {
                if spec.given("backoffLimitPerIndex").is_none() {
                    report.invalid(&action_path, "FailIndex", "requires the backoffLimitPerIndex to be set");
                }
            }
            "Count" | "FailJob" | "Ignore" => {}
            other => report.not_supported(&action_path, other, &["Count", "FailIndex", "FailJob", "Ignore"]),
        }
        let patterns = rule.list("onPodConditions");
        if let Some(codes) = rule.given("onExitCodes") {
            exit_codes(report, codes, &containers, &path.child("onExitCodes"));
            if !patterns.is_empty() {
                report.invalid_at(&path, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
        } else if patterns.is_empty() {
            report.invalid_at(&path, "specifying one of OnExitCodes and OnPodConditions is required");
        }
        let patterns_path = path.child("onPodConditions");
        if patterns.len() > MAX_CONDITION_PATTERNS {
            report.too_many(&patterns_path, patterns.len(), MAX_CONDITION_PATTERNS);
        }
        for (at, pattern) in patterns.iter().enumerate() {
            let path = patterns_path.index(at);
            let kind = pattern.text("type");
            report.all_invalid(&path.child("type"), kind, names::qualified_name(kind));
            match pattern.text("status") {
                "" => report.required(&path.child("status"), "valid values: [\"False\" \"True\" \"Unknown\"]"),
                "False" | "True" | "Unknown" => {}
                other => report.not_supported(&path.child("status"), other, &["False", "True", "Unknown"]),
            }
        }
    }
}

fn exit_codes(report: &mut Report, codes: &Value, containers: &BTreeSet<&str>, path: &Path) {
    match codes.text("operator") {
        "" => report.required(&path.child("operator"), "valid values: [\"In\" \"NotIn\"]"),
        "In" | "NotIn" => {}
        other => report.not_supported(&path.child("operator"), other, &["In", "NotIn"]),
    }
    if let Some(name) = codes.given("containerName").and_then(Value::as_str)
        && !containers.contains(name)
    {
        let text = "must be one of the container or initContainer names in the pod template";
        report.invalid(&path.child("containerName"), name, text);
    }
    let values_path = path.child("values");
    let values: Vec<i64> = codes.list("values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        report.invalid(&values_path, codes.at("values").clone(), "at least one value is required");
    } else if values.len() > MAX_EXIT_CODES {
        report.too_many(&values_path, values.len(), MAX_EXIT_CODES);
    }
    let mut seen = BTreeSet::new();
    for (at, value) in values.iter().enumerate() {
        if codes.text("operator") == "In" && *value == 0 {
            report.invalid(&values_path.index(at), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(*value) {
            report.duplicate(&values_path.index(at), *value);
        }
    }
    if !values.is_sorted() {
        report.invalid(&values_path, codes.at("values").clone(), "must be ordered");
    }
}

fn success_policy(report: &mut Report, spec: &Value, policy: &Value, path: &Path) {
    let rules_path = path.child("rules");
    let list = policy.list("rules");
    if list.is_empty() {
        report.required(&rules_path, "at least one rules must be specified when the successPolicy is specified");
    }
    if list.len() > MAX_SUCCESS_RULES {
        report.too_many(&rules_path, list.len(), MAX_SUCCESS_RULES);
    }
    let completions = spec.int("completions").unwrap_or_default();
    for (at, rule) in list.iter().enumerate() {
        let path = rules_path.index(at);
        let indexes = rule.given("succeededIndexes").and_then(Value::as_str);
        let count = rule.int("succeededCount");
        if indexes.is_none() && count.is_none() {
            report.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = 0;
        if let Some(text) = indexes {
            let path = path.child("succeededIndexes");
            if text.len() > MAX_SUCCEEDED_INDEXES {
                report.too_long(&path, MAX_SUCCEEDED_INDEXES);
            }
            match Indexes::parse(text, completions) {
                Ok(found) => total = found.count(),
                Err(why) => report.invalid(&path, text, &format!("error parsing succeededIndexes: {why}")),
            }
        }
        let path = path.child("succeededCount");
        report.non_negative(&path, count);
        if let Some(count) = count {
            if count > completions {
                let text = format!("must be less than or equal to {completions} (the number of specified completions)");
                report.invalid(&path, count, &text);
            }
            if indexes.is_some() && count > total {
                let text = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                report.invalid(&path, count, &text);
            }
        }
    }
}

/// Rules for a changed Job, on top of [`validate_job`].
pub(crate) fn validate_job_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let path = Path::root("spec");
    let completions = spec.int("completions");
    if spec.text("completionMode") != INDEXED {
        report.immutable(&path.child("completions"), spec.at("completions"), before.at("completions"));
    } else if let Some(all) = completions
        && before.int("completions") != completions
        && spec.int("parallelism") != completions
    {
        report.invalid(&path.child("completions"), all, "can only be modified in tandem with spec.parallelism");
    }
    report.immutable(&path.child("selector"), spec.at("selector"), before.at("selector"));
    let expected = changeable_template(spec.at("template"), old);
    report.immutable(&path.child("template"), spec.at("template"), &expected);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        report.immutable(&path.child(field), spec.at(field), before.at(field));
    }
    report.errors
}

/// The old template with what may be changed as it is in the new one: of a
/// suspended Job without Pods, where they run and what they ask for.
fn changeable_template(new: &Value, old: &Object) -> Value {
    let mut template = old.at("spec").at("template").clone();
    let status = old.at("status");
    let idle = status.int("active").unwrap_or_default() == 0;
    let started = status.given("startTime").is_some() && !condition(old, "Suspended");
    if !old.at("spec").flag("suspend") || !idle || started {
        return template;
    }
    let take = |to: &mut Value, from: &Value, field: &str| {
        if let Some(map) = to.as_object_mut() {
            match from.get(field) {
                Some(value) => map.insert(field.to_owned(), value.clone()),
                None => map.remove(field),
            };
        }
    };
    if template.get("metadata").is_none() && new.get("metadata").is_some() {
        template["metadata"] = serde_json::json!({});
    }
    if let Some(metadata) = template.get_mut("metadata") {
        for field in ["annotations", "labels"] {
            take(metadata, new.at("metadata"), field);
        }
    }
    let pod = new.at("spec");
    let Some(spec) = template.get_mut("spec") else { return template };
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        take(spec, pod, field);
    }
    match (spec.get("affinity").is_some(), pod.given("affinity").is_some()) {
        (false, true) => {
            let affinity = pod.at("affinity").at("nodeAffinity");
            spec["affinity"] = serde_json::json!({"nodeAffinity": affinity});
        }
        (true, true) => take(&mut spec["affinity"], pod.at("affinity"), "nodeAffinity"),
        (true, false) => {
            take(&mut spec["affinity"], &Value::Null, "nodeAffinity");
            if spec["affinity"].as_object().is_some_and(serde_json::Map::is_empty) {
                take(spec, pod, "affinity");
            }
        }
        (false, false) => {}
    }
    for field in ["containers", "initContainers"] {
        let Some(list) = spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        if list.len() == pod.list(field).len() {
            for (container, wanted) in list.iter_mut().zip(pod.list(field)) {
                take(container, wanted, "resources");
            }
        }
    }
    template
}

fn condition(job: &Object, kind: &str) -> bool {
    job.at("status").list("conditions").iter().any(|c| c.text("type") == kind && c.text("status") == "True")
}

/// Rules for a changed status of a Job. Most of them apply only to what
/// changes, so that a status that is wrong already can still be mended.
pub(crate) fn validate_job_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let (status, before) = (new.at("status"), old.at("status"));
    let path = Path::root("status");
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        report.non_negative(&path.child(field), status.int(field));
    }
    uncounted(&mut report, status.at("uncountedTerminatedPods"), &path.child("uncountedTerminatedPods"));
    finished(&mut report, new, old, &path);
    indexes(&mut report, new, old, &path);
    let count = |status: &Value, field: &str| status.int(field).unwrap_or_default();
    if status.int("ready").is_some_and(|ready| ready > count(status, "active")) {
        report.invalid(&path.child("ready"), count(status, "ready"), "cannot set more ready pods than active");
    }
    let conditions = path.child("conditions");
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if condition(old, kind) && !condition(new, kind) {
            report.invalid_at(&conditions, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    let spec = new.at("spec");
    let elastic = spec.text("completionMode") == INDEXED && spec.int("completions") == spec.int("parallelism");
    for (field, checked) in [("failed", true), ("succeeded", !elastic)] {
        if checked && count(status, field) < count(before, field) {
            let text = format!("cannot decrease the {field} counter");
            report.invalid(&path.child(field), count(status, field), &text);
        }
    }
    let (time, earlier) = (status.text("completionTime"), before.text("completionTime"));
    if !time.is_empty() && !earlier.is_empty() && time != earlier {
        report.invalid(&path.child("completionTime"), time, "completionTime cannot be mutated");
    }
    let started = before.given("startTime");
    if started.is_some() && started != status.given("startTime") && !spec.flag("suspend") {
        report.required(&path.child("startTime"), "startTime cannot be removed for unsuspended job");
    }
    if condition(old, "SuccessCriteriaMet") && !condition(new, "SuccessCriteriaMet") {
        report.invalid_at(&conditions, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if condition(old, "Complete") && !condition(old, "SuccessCriteriaMet") && condition(new, "SuccessCriteriaMet") {
        let text = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        report.invalid_at(&conditions, text);
    }
    report.errors
}

fn uncounted(report: &mut Report, pods: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for field in ["succeeded", "failed"] {
        let path = path.child(field);
        for (at, uid) in pods.texts(field).enumerate() {
            if uid.is_empty() {
                report.invalid(&path.index(at), uid, "must not be empty");
            } else if !seen.insert(uid) {
                report.duplicate(&path.index(at), uid);
            }
        }
    }
}

/// What goes together with being finished.
fn finished(report: &mut Report, new: &Object, old: &Object, path: &Path) {
    let (status, before) = (new.at("status"), old.at("status"));
    let changed = |field: &str| status.at(field) != before.at(field);
    let turned = |kind: &str| condition(new, kind) != condition(old, kind);
    let is_finished = |job: &Object| condition(job, "Complete") || condition(job, "Failed");
    let (complete, failed, met) =
        (condition(new, "Complete"), condition(new, "Failed"), condition(new, "SuccessCriteriaMet"));
    let (done, ended) = (is_finished(new), is_finished(new) != is_finished(old));
    let conditions = path.child("conditions");
    if complete && failed && (turned("Complete") || turned("Failed")) {
        report.invalid_at(&conditions, "cannot set Complete=True and Failed=true conditions");
    }
    if complete && condition(new, "FailureTarget") && (turned("Complete") || turned("FailureTarget")) {
        report.invalid_at(&conditions, "cannot set Complete=True and FailureTarget=true conditions");
    }
    let time_path = path.child("completionTime");
    let completion = status.text("completionTime");
    if turned("Complete") || changed("completionTime") {
        if !completion.is_empty() && !complete {
            let text = "cannot set completionTime when there is no Complete=True condition";
            report.invalid(&time_path, completion, text);
        }
        if completion.is_empty() && complete {
            report.required(&time_path, "completionTime is required for Complete jobs");
        }
    }
    let start = status.text("startTime");
    // RFC 3339 in UTC sorts as text.
    if (changed("startTime") || changed("completionTime"))
        && !start.is_empty()
        && !completion.is_empty()
        && completion < start
    {
        report.invalid(&time_path, completion, "completionTime cannot be set before startTime");
    }
    if failed && !condition(new, "FailureTarget") && turned("Failed") {
        let text = "cannot set Failed=True condition without the FailureTarget=true condition";
        report.invalid_at(&conditions, text);
    }
    if complete && !met && turned("Complete") {
        let text = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        report.invalid_at(&conditions, text);
    }
    let active = status.int("active").unwrap_or_default();
    if done && active > 0 && (ended || changed("active")) {
        report.invalid(&path.child("active"), active, "active>0 is invalid for finished job");
    }
    if done && start.is_empty() && (ended || changed("startTime")) {
        report.required(&path.child("startTime"), "startTime is required for finished job");
    }
    let pods = status.at("uncountedTerminatedPods");
    if done
        && (ended || changed("uncountedTerminatedPods"))
        && !(pods.list("failed").is_empty() && pods.list("succeeded").is_empty())
    {
        let text = "uncountedTerminatedPods needs to be empty for finished job";
        report.invalid(&path.child("uncountedTerminatedPods"), pods.clone(), text);
    }
    let terminating = status.int("terminating").unwrap_or_default();
    if done && terminating > 0 && (ended || changed("terminating")) {
        report.invalid(&path.child("terminating"), terminating, "terminating>0 is invalid for finished job");
    }
    if met && failed {
        report.invalid_at(&conditions, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if met && condition(new, "FailureTarget") {
        report.invalid_at(&conditions, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if new.at("spec").given("successPolicy").is_some() && !met && complete {
        let text = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        report.invalid_at(&conditions, text);
    }
}

/// Rules for the lists of indexes.
fn indexes(report: &mut Report, new: &Object, old: &Object, path: &Path) {
    let (spec, status, before) = (new.at("spec"), new.at("status"), old.at("status"));
    let completed_changed = status.text("completedIndexes") != before.text("completedIndexes");
    let failed_changed = status.at("failedIndexes") != before.at("failedIndexes");
    let completed = status.text("completedIndexes");
    let failed = status.given("failedIndexes").and_then(Value::as_str);
    let (completed_path, failed_path) = (path.child("completedIndexes"), path.child("failedIndexes"));
    if let Some(completions) = spec.int("completions") {
        let mut parsed = |text: &str, name: &str, path: &Path, checked: bool| match Indexes::parse(text, completions) {
            Ok(found) => Some(found),
            Err(why) if checked => {
                report.invalid(path, text, &format!("error parsing {name}: {why}"));
                None
            }
            Err(_) => None,
        };
        let done = parsed(completed, "completedIndexes", &completed_path, completed_changed);
        let limited = spec.given("backoffLimitPerIndex").is_some();
        let lost = failed.and_then(|text| parsed(text, "failedIndexes", &failed_path, failed_changed && limited));
        if let (Some(done), Some(lost)) = (done, lost)
            && (failed_changed || completed_changed)
            && let Some(index) = overlap(&done, &lost)
        {
            let text = format!("failedIndexes and completedIndexes overlap at index: {index}");
            report.invalid(&failed_path, failed.unwrap_or_default(), &text);
        }
    }
    if completed_changed && !completed.is_empty() && spec.text("completionMode") != INDEXED {
        let text = "cannot set non-empty completedIndexes when non-indexed completion mode";
        report.invalid(&completed_path, completed, text);
    }
    if failed_changed
        && spec.given("backoffLimitPerIndex").is_none()
        && let Some(text) = failed
    {
        report.invalid(&failed_path, text, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
}

/// Rules for a CronJob, new or changed.
pub(crate) fn validate_cron_job(cron_job: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = cron_job.at("spec");
    let path = Path::root("spec");
    let schedule = spec.text("schedule");
    if schedule.is_empty() {
        report.required(&path.child("schedule"), "");
    } else if let Err(why) = cron::parse(schedule) {
        report.invalid(&path.child("schedule"), schedule, &why);
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        report.non_negative(&path.child(field), spec.int(field));
    }
    report.one_of(&path.child("concurrencyPolicy"), spec.text("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
    let template = spec.at("jobTemplate").at("spec");
    let template_path = path.child("jobTemplate");
    let template_path = template_path.child("spec");
    job_spec(&mut report, template, &template_path);
    if let Some(selector) = template.given("selector") {
        report.invalid(&template_path.child("selector"), selector.clone(), "`selector` will be auto-generated");
    }
    if template.flag("manualSelector") {
        report.not_supported(&template_path.child("manualSelector"), true, &["nil", "false"]);
    }
    report.errors
}

/// Rules that only a new CronJob must obey, on top of [`validate_cron_job`].
pub(crate) fn validate_cron_job_create(cron_job: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    if cron_job.name().len() > MAX_CRON_JOB_NAME {
        let text = format!("must be no more than {MAX_CRON_JOB_NAME} characters");
        report.invalid(&Path::root("metadata").child("name"), cron_job.name(), &text);
    }
    let spec = cron_job.at("spec");
    zone_in_schedule(&mut report, spec, false);
    time_zone(&mut report, spec);
    report.errors
}

/// Rules for a changed CronJob, on top of [`validate_cron_job`].
pub(crate) fn validate_cron_job_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let (spec, before) = (new.at("spec"), old.at("spec"));
    zone_in_schedule(&mut report, spec, before.text("schedule").contains("TZ"));
    if spec.at("timeZone") != before.at("timeZone") {
        time_zone(&mut report, spec);
    }
    report.errors
}

fn zone_in_schedule(report: &mut Report, spec: &Value, tolerated: bool) {
    let schedule = spec.text("schedule");
    if !schedule.contains("TZ") {
        return;
    }
    let text = if !tolerated {
        "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    } else if spec.given("timeZone").is_some() {
        "cannot use both timeZone field and TZ or CRON_TZ in schedule"
    } else {
        return;
    };
    report.invalid(&Path::root("spec").child("schedule"), schedule, text);
}

fn time_zone(report: &mut Report, spec: &Value) {
    let Some(zone) = spec.given("timeZone").and_then(Value::as_str) else { return };
    let path = Path::root("spec");
    let path = path.child("timeZone");
    if zone.is_empty() {
        return report.invalid(&path, zone, "timeZone must be nil or non-empty string");
    }
    let sane = |part: &str| {
        (1..=14).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
    };
    let unknown = format!("unknown time zone {zone}");
    if !zone.split('/').all(sane) {
        return report.invalid(&path, zone, &unknown);
    }
    if zone.eq_ignore_ascii_case("local") {
        let text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        report.invalid(&path, zone, text);
    } else if !cron::knows_zone(zone) {
        report.invalid(&path, zone, &unknown);
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
