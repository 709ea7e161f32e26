//! Rules for containers of all three sorts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::{Fields, Path, Report, rules};
use super::{Context, environment, handlers, security, volumes};
use crate::names;
use crate::quantity::Quantity;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
/// Most restart rules of one container.
const MAX_RESTART_RULES: usize = 20;
/// What an ephemeral container may not have.
const NOT_EPHEMERAL: &[&str] = &[
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "startupProbe",
];

pub(super) fn validate_all(report: &mut Report, context: &Context, path: &Path) {
    regular(report, context, &path.child("containers"));
    init(report, context, &path.child("initContainers"));
    ephemeral(report, context, &path.child("ephemeralContainers"));
}

fn regular(report: &mut Report, context: &Context, path: &Path) {
    let containers = context.spec.list("containers");
    if containers.is_empty() {
        return report.required(path, "");
    }
    let mut seen = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for (at, container) in containers.iter().enumerate() {
        let path = path.index(at);
        common(report, context, container, &path);
        if !seen.insert(container.text("name")) {
            report.duplicate(&path.child("name"), container.text("name"));
        }
        handlers::lifecycle_and_probes(report, context.spec, container, &path);
        restart_rules(report, container, &path, true);
        unique_host_ports(report, container, &mut host_ports, &path);
    }
}

fn init(report: &mut Report, context: &Context, path: &Path) {
    let mut seen: BTreeSet<&str> = context.spec.list("containers").iter().map(|c| c.text("name")).collect();
    for (at, container) in context.spec.list("initContainers").iter().enumerate() {
        let path = path.index(at);
        common(report, context, container, &path);
        restart_rules(report, container, &path, false);
        let name = container.text("name");
        if !name.is_empty() && !seen.insert(name) {
            report.duplicate(&path.child("name"), name);
        }
        // Init containers run one after another: only their own ports count.
        unique_host_ports(report, container, &mut BTreeSet::new(), &path);
        if container.text("restartPolicy") == "Always" {
            handlers::lifecycle_and_probes(report, context.spec, container, &path);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.given(field).is_some() {
                report.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
            }
        }
        if !container.list("resizePolicy").is_empty() {
            report.invalid(
                &path.child("resizePolicy"),
                container.at("resizePolicy").clone(),
                "must not be set for init containers",
            );
        }
    }
}

fn ephemeral(report: &mut Report, context: &Context, path: &Path) {
    let ephemeral = context.spec.list("ephemeralContainers");
    if ephemeral.is_empty() {
        return;
    }
    let lasting: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|field| context.spec.list(field))
        .map(|c| c.text("name"))
        .collect();
    let mut seen = lasting.clone();
    let text = "cannot be set for an Ephemeral Container";
    for (at, container) in ephemeral.iter().enumerate() {
        let path = path.index(at);
        common(report, context, container, &path);
        image_is_trimmed(report, container, &path);
        if !seen.insert(container.text("name")) {
            report.duplicate(&path.child("name"), container.text("name"));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !lasting.contains(target) {
            report.not_found(&path.child("targetContainerName"), target);
        }
        for field in NOT_EPHEMERAL {
            if container.given(field).is_some() {
                report.forbidden(&path.child(field), text);
            }
        }
        if container.map("resources").is_some_and(|r| !r.is_empty()) {
            report.forbidden(&path.child("resources"), text);
        }
        for (at, mount) in container.list("volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.text(field).is_empty() {
                    report.forbidden(&path.child("volumeMounts").index(at).child(field), text);
                }
            }
        }
    }
}

fn common(report: &mut Report, context: &Context, container: &Value, path: &Path) {
    report.named(&path.child("name"), container.text("name"), names::dns_label);
    if container.text("image").is_empty() {
        report.required(&path.child("image"), "");
    }
    report.one_of(
        &path.child("terminationMessagePolicy"),
        container.text("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(report, container, &path.child("ports"));
    environment::validate(report, container, path);
    volumes::validate_mounts(report, context, container, path);
    report.one_of(&path.child("imagePullPolicy"), container.text("imagePullPolicy"), PULL_POLICIES);
    resources(report, context, container.at("resources"), &path.child("resources"));
    resize_policy(report, context, container, &path.child("resizePolicy"));
    security::validate_container(report, context, container, &path.child("securityContext"));
}

pub(super) fn image_is_trimmed(report: &mut Report, container: &Value, path: &Path) {
    let image = container.text("image");
    if image.trim().len() != image.len() {
        report.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn ports(report: &mut Report, container: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (at, port) in container.list("ports").iter().enumerate() {
        let path = path.index(at);
        let name = port.text("name");
        if !name.is_empty() {
            let texts = names::port_name(name);
            if !texts.is_empty() {
                report.all_invalid(&path.child("name"), name, texts);
            } else if !seen.insert(name) {
                report.duplicate(&path.child("name"), name);
            }
        }
        match port.int("containerPort").unwrap_or_default() {
            0 => report.required(&path.child("containerPort"), ""),
            number => report.all_invalid(&path.child("containerPort"), number, names::port_number(number)),
        }
        if let Some(number) = port.int("hostPort").filter(|n| *n != 0) {
            report.all_invalid(&path.child("hostPort"), number, names::port_number(number));
        }
        report.one_of(&path.child("protocol"), port.text("protocol"), rules::PROTOCOLS);
    }
}

fn unique_host_ports(report: &mut Report, container: &Value, seen: &mut BTreeSet<String>, path: &Path) {
    for (at, port) in container.list("ports").iter().enumerate() {
        let Some(number) = port.int("hostPort").filter(|n| *n != 0) else { continue };
        let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
        if seen.contains(&key) {
            report.duplicate(&path.child("ports").index(at).child("hostPort"), key);
        } else {
            seen.insert(key);
        }
    }
}

fn restart_rules(report: &mut Report, container: &Value, path: &Path, is_regular: bool) {
    let policy = container.given("restartPolicy");
    let rules = container.list("restartPolicyRules");
    if policy.is_some() {
        report.one_of(&path.child("restartPolicy"), container.text("restartPolicy"), &["Always", "OnFailure", "Never"]);
    }
    let path = path.child("restartPolicyRules");
    if rules.is_empty() {
        return;
    }
    if policy.is_none() {
        report.required(&path, "must specify restartPolicy when restart rules are used");
    } else if !is_regular && container.text("restartPolicy") == "Always" {
        report.forbidden(&path, "restartPolicyRules cannot be set for init containers with restartPolicy Always");
    }
    if rules.len() > MAX_RESTART_RULES {
        report.invalid(
            &path,
            container.at("restartPolicyRules").clone(),
            &format!("must have at most {MAX_RESTART_RULES} rules"),
        );
    }
    for (at, rule) in rules.iter().enumerate() {
        let path = path.index(at);
        report.one_of(&path.child("action"), rule.text("action"), &["Restart", "RestartAllContainers"]);
        let Some(codes) = rule.given("exitCodes") else {
            report.required(&path.child("exitCodes"), "must be specified");
            continue;
        };
        report.one_of(&path.child("exitCodes").child("operator"), codes.text("operator"), &["In", "NotIn"]);
        if codes.list("values").is_empty() {
            report.required(&path.child("exitCodes").child("values"), "must specify at least one value");
        }
    }
}

fn resize_policy(report: &mut Report, context: &Context, container: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (at, policy) in container.list("resizePolicy").iter().enumerate() {
        let name = policy.text("resourceName");
        if !seen.insert(name) {
            report.duplicate(&path.index(at), name);
        }
        report.one_of(path, name, &["cpu", "memory"]);
        let restart = policy.text("restartPolicy");
        report.one_of(path, restart, &["NotRequired", "RestartContainer"]);
        if context.spec.text("restartPolicy") == "Never" && restart != "NotRequired" {
            report.invalid(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

/// One entry of `limits`, `requests` or `overhead`.
pub(crate) fn resource(report: &mut Report, name: &str, amount: &Value, path: &Path) -> Option<Quantity> {
    rules::container_resource_name(report, name, path);
    let amount = rules::resource_amount(report, name, amount, path)?;
    if let Some(size) = name.strip_prefix("hugepages-") {
        let fits = Quantity::parse(size)
            .is_ok_and(|size| size.value() > 0 && amount.signum() > 0 && amount.value() % size.value() == 0);
        if !fits && !amount.is_zero() {
            let text = format!("{amount} is not positive integer multiple of {name}");
            report.invalid(path, amount.to_string(), &text);
        }
    }
    Some(amount)
}

fn limits_and_requests(report: &mut Report, resources: &Value, path: &Path) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let mut limits = BTreeMap::new();
    let (mut huge, mut compute) = (false, false);
    let mut notice = |name: &str| {
        huge |= name.starts_with("hugepages-");
        compute |= matches!(name, "cpu" | "memory");
    };
    for (name, amount) in resources.entries("limits") {
        notice(name);
        if let Some(amount) = resource(report, name, amount, &limits_path.key(name)) {
            limits.insert(name, amount);
        }
    }
    for (name, amount) in resources.entries("requests") {
        notice(name);
        let Some(amount) = resource(report, name, amount, &requests_path.key(name)) else { continue };
        match limits.get(name) {
            Some(limit) if amount != *limit && !rules::overcommit_allowed(name) => {
                report.invalid(
                    &requests_path,
                    amount.to_string(),
                    &format!("must be equal to {name} limit of {limit}"),
                );
            }
            Some(limit) if amount > *limit => report.invalid(
                &requests_path,
                amount.to_string(),
                &format!("must be less than or equal to {name} limit of {limit}"),
            ),
            None if !rules::overcommit_allowed(name) => {
                report.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    if huge && !compute {
        report.forbidden(path, "HugePages require cpu or memory");
    }
}

fn resources(report: &mut Report, context: &Context, resources: &Value, path: &Path) {
    limits_and_requests(report, resources, path);
    let mut seen = BTreeSet::new();
    let path = path.child("claims");
    for (at, claim) in resources.list("claims").iter().enumerate() {
        let path = path.index(at);
        let name = claim.text("name");
        if name.is_empty() {
            report.required(&path, "");
            continue;
        }
        if !seen.insert((name, claim.text("request"))) {
            report.duplicate(&path, name);
        }
        if !context.claims.contains(name) {
            report.not_found(&path, name);
        }
    }
}

/// `spec.resources`: what the whole Pod may use.
pub(super) fn validate_pod_resources(report: &mut Report, spec: &Value, path: &Path) {
    let Some(pod) = spec.given("resources") else { return };
    if !pod.list("claims").is_empty() {
        report.forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level");
    }
    for field in ["limits", "requests"] {
        for (name, _) in pod.entries(field) {
            if !matches!(name, "cpu" | "memory") && !name.starts_with("hugepages-") {
                report.not_supported(&path.child(field).key(name), name, &["cpu", "hugepages-", "memory"]);
            }
        }
    }
    limits_and_requests(report, pod, path);
    let amount = |value: &Value| Quantity::from_json(value).ok();
    for (name, total) in crate::kinds::resources::container_requests(spec) {
        let Some(given) = pod.at("requests").given(&name).map_or(Some(Quantity::default()), amount) else { continue };
        if total > given {
            report.invalid(
                &path.child("requests").key(&name),
                given.to_string(),
                &format!("must be greater than or equal to aggregate container requests of {total}"),
            );
        }
    }
    for (at, container) in spec.list("containers").iter().enumerate() {
        for (name, limit) in container.at("resources").entries("limits") {
            let Some(most) = pod.at("limits").given(name).and_then(amount) else { continue };
            if let Some(limit) = amount(limit).filter(|l| *l > most) {
                report.invalid(
                    &path.child("containers").index(at).key(name).child("limits"),
                    limit.to_string(),
                    &format!("must be less than or equal to pod limits of {most}"),
                );
            }
        }
    }
}
