//! Defaults of Jobs and CronJobs.
//!
//! Source: `pkg/apis/batch/v1/defaults.go`.

use super::workloads::labels_of_template;
use super::{Fields, each, fill, spec, sub, template};
use crate::object::Object;
use crate::validation::Fields as _;

/// Defaults of a Job.
pub(in crate::kinds) fn job(object: &mut Object) {
    labels_of_template(object);
    let Some(spec) = spec(object) else { return };
    if spec.given("completions").is_none() && spec.given("parallelism").is_none() {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let limit = if spec.given("backoffLimitPerIndex").is_some() { i64::from(i32::MAX) } else { 6 };
    fill(spec, "backoffLimit", limit);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    let replacement = if spec.given("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replacement);
    fill(spec, "manualSelector", false);
    job_template(spec);
}

/// What Jobs and templates of Jobs have in common.
fn job_template(spec: &mut Fields) {
    template(spec);
    let Some(policy) = sub(spec, "podFailurePolicy") else { return };
    for rule in each(policy, "rules") {
        each(rule, "onPodConditions").for_each(|pattern| fill(pattern, "status", "True"));
    }
}

/// Defaults of a CronJob.
pub(in crate::kinds) fn cron_job(object: &mut Object) {
    let Some(spec) = spec(object) else { return };
    fill(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = sub(spec, "jobTemplate").and_then(|template| sub(template, "spec")) {
        job_template(job);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn defaulted(default: fn(&mut Object), value: Value) -> Value {
        let mut object = Object::from_value(value).expect("an object");
        default(&mut object);
        let once = object.clone();
        default(&mut object);
        assert_eq!(object, once, "defaulting twice changes nothing");
        Value::Object(object.0)
    }

    #[test]
    fn jobs() {
        let bare = defaulted(job, json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {}}}}));
        assert_eq!(bare["metadata"]["labels"], json!({"a": "b"}));
        let spec = bare["spec"].as_object().expect("an object");
        let shown = ["completions", "parallelism", "backoffLimit", "completionMode", "podReplacementPolicy"];
        let values: Vec<&Value> = shown.iter().map(|field| &spec[*field]).collect();
        assert_eq!(values, [&json!(1), &json!(1), &json!(6), &json!("NonIndexed"), &json!("TerminatingOrFailed")]);
        let parallel = defaulted(job, json!({"spec": {"parallelism": 3, "backoffLimitPerIndex": 1}}));
        assert!(parallel["spec"].get("completions").is_none());
        assert_eq!(parallel["spec"]["backoffLimit"], i32::MAX);
        let policy = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]});
        let with_policy = defaulted(job, json!({"spec": {"completions": 2, "podFailurePolicy": policy}}));
        assert_eq!(with_policy["spec"]["podReplacementPolicy"], "Failed");
        assert_eq!(with_policy["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
    }

    #[test]
    fn cron_jobs() {
        let cron = defaulted(
            cron_job,
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {}}}}}}),
        );
        assert_eq!(cron["spec"]["concurrencyPolicy"], "Allow");
        assert_eq!(cron["spec"]["successfulJobsHistoryLimit"], 3);
        let job = &cron["spec"]["jobTemplate"]["spec"];
        assert!(job.get("completions").is_none(), "a template is not a Job");
        assert_eq!(job["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    }
}
