//! Jobs and CronJobs: rules by table.

use serde_json::json;

use super::*;
use crate::kinds;

fn prepared(plural: &str, change: impl FnOnce(&mut Value)) -> Object {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let spec = match plural {
        "jobs" => json!({"template": template}),
        _ => json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}),
    };
    let mut value = json!({"metadata": {"name": "a", "uid": "u-1"}, "spec": spec});
    change(&mut value);
    let mut object = Object::from_value(value).expect("an object");
    let registry = kinds::builtin();
    let row = registry.by_path("batch", "v1", plural).expect("a row");
    (row.strategy.default)(&mut object);
    (row.strategy.prepare_create)(&mut object);
    object
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn job_problems(change: impl FnOnce(&mut Value)) -> Vec<String> {
    texts(&validate_job(&prepared("jobs", change)))
}

#[test]
fn jobs() {
    assert_eq!(job_problems(|_| {}), Vec::<String>::new());
    let job = prepared("jobs", |_| {});
    assert_eq!(job.at("spec")["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": "u-1"}));
    assert_eq!(job.label("job-name"), Some("a"), "labels are the template's");
    assert_eq!(
        job_problems(|j| j["spec"]["template"]["spec"]["restartPolicy"] = json!("Always")),
        ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
    );
    assert_eq!(
        job_problems(|j| j["spec"]["completionMode"] = json!("Indexed")),
        Vec::<String>::new(),
        "completions are defaulted"
    );
    assert_eq!(
        job_problems(|j| {
            j["spec"]["parallelism"] = json!(2);
            j["spec"]["completionMode"] = json!("Indexed");
        }),
        ["spec.completions: Required value: when completion mode is Indexed"]
    );
    assert_eq!(
        job_problems(|j| j["spec"]["template"]["metadata"] = json!({"labels": {"job-name": "b"}}))[0],
        "spec.template.metadata.labels[job-name]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u-1\",\"batch.kubernetes.io/job-name\":\"a\",\"controller-uid\":\"u-1\",\"job-name\":\"b\"}: must be 'a'"
    );
    assert_eq!(
        job_problems(|j| j["spec"]["managedBy"] = json!("nobody")),
        ["spec.managedBy: Invalid value: \"nobody\": must be a domain-prefixed path (such as \"acme.io/foo\")"]
    );
    let rule =
        json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2, 1, 0], "containerName": "x"}});
    assert_eq!(
        job_problems(|j| j["spec"]["podFailurePolicy"] = json!({"rules": [rule, {"action": "Ignore"}]})),
        [
            "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1,0]: must be ordered",
            "spec.podFailurePolicy.rules[1]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ]
    );
    assert_eq!(
        job_problems(|j| {
            j["spec"]["completionMode"] = json!("Indexed");
            j["spec"]["completions"] = json!(4);
            j["spec"]["successPolicy"] = json!({"rules": [{"succeededIndexes": "0-2", "succeededCount": 4}, {}]});
        }),
        [
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)",
            "spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be specified",
        ]
    );
}

#[test]
fn suspended_jobs_may_be_moved() {
    let old = prepared("jobs", |j| j["spec"]["suspend"] = json!(true));
    let mut new = old.clone();
    new.set(&["spec", "template", "spec", "nodeSelector"], json!({"a": "b"}));
    new.set(&["spec", "template", "spec", "affinity"], json!({"nodeAffinity": {}}));
    new.0["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    assert_eq!(texts(&validate_job_update(&new, &old)), Vec::<String>::new());
    let mut running = old.clone();
    running.set(&["spec", "suspend"], json!(false));
    assert!(texts(&validate_job_update(&new, &running))[0].ends_with("field is immutable"));
    let mut other = old.clone();
    other.0["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
    other.set(&["spec", "completions"], json!(7));
    let errors = texts(&validate_job_update(&other, &old));
    assert_eq!(errors[0], "spec.completions: Invalid value: 7: field is immutable");
    assert!(errors[1].starts_with("spec.template: Invalid value: "), "{errors:?}");
}

#[test]
fn finished_jobs_stay_finished() {
    let with = |status: Value| {
        let mut job = prepared("jobs", |_| {});
        job.set(&["status"], status);
        job
    };
    let condition =
        |kinds: &[&str]| -> Value { kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect() };
    let done = with(json!({
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z", "succeeded": 1,
        "conditions": condition(&["SuccessCriteriaMet", "Complete"])
    }));
    assert_eq!(
        texts(&validate_job_status(&done, &with(json!({"startTime": "2026-01-01T00:00:00Z"})))),
        Vec::<String>::new()
    );
    assert_eq!(
        texts(&validate_job_status(&with(json!({"startTime": "2026-01-01T00:00:00Z", "succeeded": 1})), &done)),
        [
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ]
    );
    let sudden = with(json!({"active": 1, "conditions": condition(&["Failed"])}));
    assert_eq!(
        texts(&validate_job_status(&sudden, &with(json!({})))),
        [
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.startTime: Required value: startTime is required for finished job",
        ]
    );
}

#[test]
fn cron_jobs() {
    let problems = |change: &dyn Fn(&mut Value)| {
        let cron = prepared("cronjobs", change);
        let mut errors = validate_cron_job(&cron);
        errors.extend(validate_cron_job_create(&cron));
        texts(&errors)
    };
    assert_eq!(problems(&|_| {}), Vec::<String>::new());
    assert_eq!(
        problems(&|c| c["spec"]["schedule"] = json!("* * * *")),
        ["spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]"]
    );
    assert_eq!(
        problems(&|c| c["spec"]["schedule"] = json!("TZ=UTC * * * * *")),
        [
            "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        ]
    );
    assert_eq!(
        problems(&|c| c["spec"]["timeZone"] = json!("Nowhere/Land")),
        ["spec.timeZone: Invalid value: \"Nowhere/Land\": unknown time zone Nowhere/Land"]
    );
    assert_eq!(problems(&|c| c["spec"]["timeZone"] = json!("UTC")), Vec::<String>::new());
    assert_eq!(
        problems(&|c| c["metadata"]["name"] = json!("a".repeat(53)))[0],
        format!("metadata.name: Invalid value: \"{}\": must be no more than 52 characters", "a".repeat(53))
    );
    assert_eq!(
        problems(&|c| c["spec"]["jobTemplate"]["spec"]["selector"] = json!({"matchLabels": {"a": "b"}})),
        [
            "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated"
        ]
    );
}
