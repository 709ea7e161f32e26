//! Clients that others wrote, unmodified and at their default settings:
//! the newest `kubectl`, Helm, Kubernetes' Python client, kube-rs.
//!
//! `make clients` fetches the first three; where they are missing, their tests
//! say that they were skipped.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use barque_tests::kubectl::Kubectl;
use barque_tests::{Cluster, Options, Suite, process, skip_unless};
use serde_json::Value;
use tokio::process::Command;

/// How long one call of a client may take.
const CALL_DEADLINE: Duration = Duration::from_mins(4);

/// Where `make clients` puts what it fetches.
fn clients() -> PathBuf {
    let home = || PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/barque/clients");
    std::env::var("BARQUE_CLIENTS").map_or_else(|_| home(), PathBuf::from)
}

struct Called {
    success: bool,
    text: String,
}

async fn call(cluster: &Cluster, program: &Path, arguments: &[&str]) -> Called {
    let home = cluster.scratch().join("clients-home");
    std::fs::create_dir_all(&home).unwrap();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("HOME", &home)
        .env("HELM_CACHE_HOME", home.join("helm"))
        .env("PYTHONPATH", clients().join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = process::run(command, b"", CALL_DEADLINE).await.unwrap_or_else(|error| panic!("{error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Called { success: output.status.success(), text }
}

async fn ok(cluster: &Cluster, program: &Path, arguments: &[&str]) -> String {
    let called = call(cluster, program, arguments).await;
    assert!(called.success, "{} {}:\n{}", program.display(), arguments.join(" "), called.text);
    called.text
}

/// One cluster for all of them: each works in namespaces of its own.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_clients() {
    skip_unless!(clients().join("versions").exists(), "what `make clients` fetches");
    let cluster = Cluster::start(Options::simulated(3)).await;
    cluster.await_nodes(3).await;
    let mut suite = Suite::new();
    suite.case("Kubernetes' Python client", python(&cluster)).await;
    suite.case("helm: install, upgrade, rollback, uninstall", helm(&cluster)).await;
    suite.case("the newest kubectl", newest_kubectl(&cluster)).await;
    suite.finish();
}

async fn python(cluster: &Cluster) {
    let namespace = cluster.namespace("python").await;
    let script = barque_tests::workspace_root().join("tests/clients/scenario.py");
    let text = ok(cluster, Path::new("python3"), &[&script.display().to_string(), &namespace]).await;
    assert!(text.ends_with("all good\n"), "{text}");
}

async fn helm(cluster: &Cluster) {
    let helm = clients().join("helm");
    let namespace = cluster.namespace("helm").await;
    let chart = barque_tests::data("chart").display().to_string();
    let run = async |line: &str| {
        let mut arguments: Vec<&str> = line.split_whitespace().collect();
        arguments.extend(["--namespace", &namespace]);
        ok(cluster, &helm, &arguments).await
    };
    let kubectl = Kubectl::new(cluster).namespace(&namespace);
    let installed = run(&format!("install bay {chart} --wait --timeout 3m")).await;
    assert!(installed.contains("STATUS: deployed") && installed.contains("lies in the harbour"), "{installed}");
    assert_eq!(kubectl.ok("get berth bay -o jsonpath={.spec.length}/{.spec.side}").await, "20/port");
    let upgraded = run(&format!("upgrade bay {chart} --set replicas=3 --set greeting=moin --wait --timeout 3m")).await;
    assert!(upgraded.contains("REVISION: 2"), "{upgraded}");
    assert_eq!(kubectl.ok("get deployment bay -o jsonpath={.status.readyReplicas}").await, "3");
    assert_eq!(kubectl.ok("get configmap bay -o jsonpath={.data.greeting}").await, "moin");
    run("rollback bay 1 --wait --timeout 3m").await;
    assert_eq!(kubectl.ok("get configmap bay -o jsonpath={.data.greeting}").await, "hello");
    assert_eq!(kubectl.ok("get berth bay -o jsonpath={.spec.length}").await, "20");
    let history: Value = serde_json::from_str(&run("history bay -o json").await).unwrap();
    assert_eq!(history.as_array().unwrap().len(), 3, "{history}");
    run("uninstall bay --wait --timeout 3m").await;
    let left = kubectl.ok("get deploy,svc,ingress,hpa,pdb,cronjob,netpol,role,rolebinding -o name").await;
    assert_eq!(left, "");
}

/// What the stock `kubectl` of another release does is tested at length
/// elsewhere; this is about commands and kinds that only newer ones know, and
/// about one call of each command.
async fn newest_kubectl(cluster: &Cluster) {
    let namespace = cluster.namespace("newest").await;
    let k = Kubectl::new(cluster).program(&clients().join("kubectl")).namespace(&namespace);
    for line in [
        "create deployment web --image=barque-test/none:1 --replicas=2 --port=8080",
        "expose deployment web --port=80 --target-port=8080",
        "autoscale deployment web --min=1 --max=4 --cpu=80%",
        "create configmap c --from-literal=a=b",
        "create secret generic s --from-literal=a=b",
        "create serviceaccount robot",
        "create role reader --verb=get,list --resource=pods",
        "create rolebinding reads --role=reader --serviceaccount=NS:robot",
        "create quota few --hard=configmaps=10",
        "create job once --image=barque-test/none:1",
        "create cronjob nightly --image=barque-test/none:1 --schedule=0_3_*_*_*",
        "create ingress web --rule=example.com/*=web:80",
        "create poddisruptionbudget web --selector=app=web --min-available=1",
        "create token robot --duration=20m",
        "rollout status deployment/web --timeout=120s",
        "rollout history deployment/web",
        "set image deployment/web none=barque-test/none:1",
        "set env deployment/web A=B",
        "set resources deployment/web --requests=cpu=10m",
        "set serviceaccount deployment/web robot",
        "rollout restart deployment/web",
        "rollout status deployment/web --timeout=120s",
        "rollout undo deployment/web",
        "scale deployment/web --replicas=3",
        "wait --for=condition=Available deployment/web --timeout=120s",
        "get all,cm,secret,sa,role,rolebinding,quota,ingress,pdb,hpa,endpointslices",
        "describe deployment/web service/web quota/few role/reader ingress/web hpa/web pdb/web cronjob/nightly",
        "explain pods.spec.containers.resources",
        "explain horizontalpodautoscaler --api-version=autoscaling/v2 --recursive",
        "api-resources --verbs=list -o name",
        "api-versions",
        "cluster-info",
        "auth can-i create pods",
        "auth can-i --list",
        "auth whoami",
        "get events",
        "label deployment web tier=front",
        "annotate deployment web note=x",
        "get deployments.v1.apps -l tier=front -o wide",
        "patch deployment web --type=merge -p {\"spec\":{\"paused\":false}}",
        "get --raw /readyz",
        "get --raw /apis/apps/v1",
        "get pods --chunk-size=1",
        "delete cronjob/nightly job/once ingress/web hpa/web pdb/web quota/few",
    ] {
        let line = line.replace("NS", &namespace);
        let arguments: Vec<String> =
            line.split_whitespace().map(|word| word.replace("0_3_*_*_*", "0 3 * * *")).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let printed = k.args(&arguments).await;
        assert!(!printed.stderr.contains("error"), "{line}: {}", printed.stderr);
        printed.ok();
    }
    let as_robot = format!("--as=system:serviceaccount:{namespace}:robot");
    assert_eq!(k.args(&["auth", "can-i", "list", "pods", &as_robot]).await.ok().trim(), "yes");
    assert_eq!(k.args(&["auth", "can-i", "delete", "pods", &as_robot]).await.fails(), "");
    let refused = k.args(&["get", "secrets", &as_robot]).await.fails();
    assert!(refused.contains("is forbidden: User \"system:serviceaccount"), "{refused}");
    let explained = k.ok("explain pods.spec.containers.image").await;
    assert!(explained.contains("FIELD: image <string>") && !explained.contains("<empty>"), "{explained}");
}
