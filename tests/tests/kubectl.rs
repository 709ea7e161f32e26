//! The stock `kubectl`, unmodified: what a newcomer types must work.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;

use barque_tests::docker::{self, IMAGE};
use barque_tests::kubectl::{self, Kubectl};
use barque_tests::{Cluster, Options, Suite, eventually, process, skip_unless};
use serde_json::Value;
use tokio::process::Command;

fn shop() -> String {
    std::fs::read_to_string(barque_tests::data("shop.yaml")).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The cells of a printed table, header first.
fn table(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect())
        .collect()
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// Everything a newcomer does with `kubectl`, on simulated nodes.
#[tokio::test(flavor = "multi_thread")]
async fn on_simulated_nodes() {
    skip_unless!(kubectl::available(), "kubectl");
    let cluster = Cluster::start(Options::simulated(5)).await;
    cluster.await_nodes(5).await;
    let k = Kubectl::new(&cluster);
    let shop_k = k.clone().namespace("shop");
    let mut suite = Suite::new();

    suite.case("apply and rollout status", apply(&k, &shop_k)).await;
    suite.case("get in all forms", get_forms(&k, &shop_k)).await;
    suite.case("get over every context", contexts(&cluster, &shop_k)).await;
    suite.case("get -w", get_watch(&shop_k)).await;
    suite.case("describe", describe(&k, &shop_k)).await;
    suite.case("edit", edit(&cluster, &shop_k)).await;
    suite.case("scale", scale(&shop_k)).await;
    suite.case("set image, rollout history, undo, restart", rollouts(&shop_k)).await;
    suite.case("rollout pause and resume", pause(&shop_k)).await;
    suite.case("label and annotate", label_annotate(&shop_k)).await;
    suite.case("patch, all three types", patches(&shop_k)).await;
    suite.case("wait", wait_conditions(&shop_k)).await;
    suite.case("cordon, uncordon, drain", cordon(&k, &shop_k)).await;
    suite.case("diff", diff(&shop_k)).await;
    suite.case("apply --server-side", server_side(&shop_k)).await;
    suite.case("apply --prune and three-way merge", three_way(&shop_k)).await;
    suite.case("create, expose, run, replace", create(&shop_k)).await;
    suite.case("api-resources, explain, version, whoami", about(&k)).await;
    suite.case("events", events(&k, &shop_k)).await;
    suite.case("errors", errors(&k, &shop_k)).await;
    suite.case("deletes", deletes(&k, &shop_k)).await;
    suite.case("curl with YAML", curl(&cluster)).await;
    suite.case("a namespace goes with all in it", delete_namespace(&k)).await;
    suite.finish();
}

async fn apply(k: &Kubectl, shop_k: &Kubectl) {
    let first = k.apply(&shop()).await;
    let lines: Vec<_> = first.lines().collect();
    assert_eq!(
        lines,
        [
            "namespace/shop created",
            "configmap/settings created",
            "secret/credentials created",
            "deployment.apps/web created",
            "service/web created",
        ]
    );
    let status = shop_k.ok("rollout status deployment/web --timeout=120s").await;
    contains(&status, &["deployment \"web\" successfully rolled out"]);
    let again = k.apply(&shop()).await;
    assert!(again.lines().all(|line| line.ends_with("unchanged")), "{again}");
    let changed = k.apply(&shop().replace("GREETING: hello", "GREETING: moin")).await;
    contains(&changed, &["configmap/settings configured", "deployment.apps/web unchanged"]);
}

async fn get_forms(k: &Kubectl, shop_k: &Kubectl) {
    let printed = shop_k.ok("get deployment web").await;
    let rows = table(&printed);
    assert_eq!(rows[0], ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"], "{printed}");
    assert_eq!(rows[1][..4], ["web", "3/3", "3", "3"], "{printed}");
    let pods = shop_k.ok("get pods -l app=web").await;
    let rows = table(&pods);
    assert_eq!(rows[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[1][1..4], ["1/1", "Running", "0"]);
    let wide = shop_k.ok("get pods -o wide").await;
    contains(wide.lines().next().unwrap(), &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]);
    contains(&shop_k.ok("get deployment web -o wide").await, &["CONTAINERS", "IMAGES", "SELECTOR", IMAGE, "app=web"]);
    let service = table(&shop_k.ok("get service web").await);
    assert_eq!(service[0], ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    assert_eq!(
        (service[1][1].as_str(), service[1][3].as_str(), service[1][4].as_str()),
        ("ClusterIP", "<none>", "80/TCP")
    );
    let secret = table(&shop_k.ok("get secret credentials").await);
    assert_eq!((secret[0].len(), secret[1][1].as_str(), secret[1][2].as_str()), (4, "Opaque", "1"));
    let sets = table(&shop_k.ok("get rs").await);
    assert_eq!(sets[0], ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]);
    let nodes = table(&k.ok("get nodes").await);
    assert_eq!(nodes[0], ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
    assert_eq!((nodes.len(), nodes[1][1].as_str()), (6, "Ready"));
    let namespaces = table(&k.ok("get ns shop").await);
    assert_eq!((namespaces[0].join(" ").as_str(), namespaces[1][1].as_str()), ("NAME STATUS AGE", "Active"));

    let object = json(&shop_k.ok("get deployment web -o json").await);
    assert_eq!((&object["kind"], &object["status"]["readyReplicas"]), (&"Deployment".into(), &3.into()));
    let yaml = shop_k.ok("get deployment web -o yaml").await;
    contains(&yaml, &["apiVersion: apps/v1\n", "kind: Deployment\n", "  replicas: 3\n"]);
    assert!(!yaml.contains("managedFields"), "kubectl hides them, if they are where it expects them");
    assert_eq!(shop_k.ok("get deployment web -o name").await.trim(), "deployment.apps/web");
    let names = shop_k.ok("get pods -l app=web -o jsonpath={.items[*].metadata.labels.app}").await;
    assert_eq!(names, "web web web");
    let columns = shop_k.ok("get deploy web -o custom-columns=N:.metadata.name,R:.spec.replicas").await;
    assert_eq!(table(&columns.replace("   ", "  "))[1], ["web", "3"]);
    contains(&shop_k.ok("get pods --show-labels").await, &["pod-template-hash="]);
    contains(&shop_k.ok("get all").await, &["pod/web-", "service/web", "deployment.apps/web", "replicaset.apps/web-"]);
    assert_eq!(shop_k.ok("get pods -l app=other").await, "");
    assert_eq!(table(&shop_k.ok("get pods --field-selector status.phase=Running").await).len(), 4);
    assert_eq!(shop_k.ok("get pods --field-selector status.phase=Failed -o name").await, "");
    let all = k.ok("get pods -A").await;
    contains(all.lines().next().unwrap(), &["NAMESPACE", "NAME"]);
    contains(&all, &["shop"]);
    assert_eq!(k.ok("get cm,secret -n shop -o name").await.lines().count(), 3, "with kube-root-ca.crt");
    let sorted = k.ok("get nodes --sort-by=.metadata.name -o name --chunk-size=2").await;
    assert_eq!(sorted.lines().count(), 5);
}

async fn contexts(cluster: &Cluster, k: &Kubectl) {
    let listed = k.ok("config get-contexts -o name").await;
    let contexts: Vec<_> = listed.lines().collect();
    assert_eq!(contexts.len(), cluster.masters().len() + 1, "one for each master and one over all: {contexts:?}");
    for context in contexts {
        assert_eq!(k.clone().context(context).ok("get deployment web -o name").await.trim(), "deployment.apps/web");
    }
}

async fn get_watch(k: &Kubectl) {
    let mut stream = k.stream("get configmap -w");
    stream.until(|line| line.starts_with("settings")).await;
    k.ok("create configmap watched --from-literal=a=1").await;
    stream.until(|line| line.starts_with("watched") && line.contains(" 1 ")).await;
    k.args(&["patch", "configmap", "watched", "-p", r#"{"data":{"b":"2"}}"#]).await.ok();
    stream.until(|line| line.starts_with("watched") && line.contains(" 2 ")).await;
    let mut objects = k.stream("get configmap watched -w -o name");
    objects.until(|line| line == "configmap/watched").await;
    k.ok("delete configmap watched").await;
    objects.until(|line| line == "configmap/watched").await;
}

async fn describe(k: &Kubectl, shop_k: &Kubectl) {
    let deployment = shop_k.ok("describe deployment web").await;
    contains(
        &deployment,
        &[
            "Name:                   web",
            "3 desired | 3 updated | 3 total | 3 available",
            "RollingUpdate",
            "NewReplicaSet:",
            "ScalingReplicaSet",
            "deployment-controller",
        ],
    );
    let pod = shop_k.ok("describe pods -l app=web").await;
    contains(
        &pod,
        &[
            "Status:           Running",
            "Controlled By:  ReplicaSet/web-",
            "Successfully assigned shop/web-",
            "QoS Class:",
        ],
    );
    contains(
        &k.ok("describe nodes").await,
        &["Conditions:", "Capacity:", "Allocatable:", "Non-terminated Pods:", "Ready"],
    );
    contains(&shop_k.ok("describe service web").await, &["Type:", "ClusterIP", "TargetPort:"]);
    contains(&shop_k.ok("describe configmap settings").await, &["colour:"]);
    let secret = shop_k.ok("describe secret credentials").await;
    contains(&secret, &["password:  11 bytes"]);
    contains(&k.ok("describe namespace shop").await, &["Active"]);
}

async fn edit(cluster: &Cluster, k: &Kubectl) {
    let editor = cluster.scratch().join("editor.sh");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/colour: blue/colour: red/' \"$1\"\n").unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let edited = k.clone().env("EDITOR", &editor.display().to_string()).ok("edit configmap settings").await;
    contains(&edited, &["configmap/settings edited"]);
    assert_eq!(k.ok("get cm settings -o jsonpath={.data.colour}").await, "red");
    let nothing = k.clone().env("EDITOR", "true").run("edit configmap settings").await;
    contains(&format!("{}{}", nothing.stdout, nothing.stderr), &["Edit cancelled, no changes made"]);
}

async fn scale(k: &Kubectl) {
    contains(&k.ok("scale deployment web --replicas=5").await, &["deployment.apps/web scaled"]);
    k.ok("rollout status deployment/web --timeout=120s").await;
    assert_eq!(k.ok("get deployment web -o jsonpath={.status.readyReplicas}").await, "5");
    contains(
        &k.run("scale deployment web --current-replicas=9 --replicas=1").await.fails(),
        &["Expected replicas to be 9, was 5"],
    );
    k.ok("scale deployment web --replicas=3").await;
    eventually("three are left", || async {
        let pods = k.ok("get pods -l app=web -o name").await;
        if pods.lines().count() == 3 { Ok(()) } else { Err(pods) }
    })
    .await;
}

async fn rollouts(k: &Kubectl) {
    contains(&k.ok("set image deployment/web web=barque-test/busybox:2").await, &["deployment.apps/web image updated"]);
    k.ok("annotate deployment/web kubernetes.io/change-cause=second").await;
    contains(&k.ok("rollout status deployment/web --timeout=120s").await, &["successfully rolled out"]);
    let history = k.ok("rollout history deployment/web").await;
    contains(&history, &["REVISION  CHANGE-CAUSE", "1         <none>", "2         second"]);
    contains(&k.ok("rollout history deployment/web --revision=2").await, &["barque-test/busybox:2"]);
    contains(&k.ok("rollout undo deployment/web").await, &["deployment.apps/web rolled back"]);
    k.ok("rollout status deployment/web --timeout=120s").await;
    let image = "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(k.ok(image).await, IMAGE);
    let history = k.ok("rollout history deployment/web").await;
    assert!(!history.contains("\n1  "), "revision 1 became 3:\n{history}");
    contains(&history, &["\n2  ", "\n3  "]);
    k.ok("rollout undo deployment/web --to-revision=2").await;
    k.ok("rollout status deployment/web --timeout=120s").await;
    assert_eq!(k.ok(image).await, "barque-test/busybox:2");
    contains(&k.ok("rollout restart deployment/web").await, &["deployment.apps/web restarted"]);
    k.ok("rollout status deployment/web --timeout=120s").await;
    let annotations = k.ok("get deployment web -o jsonpath={.spec.template.metadata.annotations}").await;
    contains(&annotations, &["kubectl.kubernetes.io/restartedAt"]);
}

async fn pause(k: &Kubectl) {
    k.ok("rollout pause deployment/web").await;
    k.ok("set image deployment/web web=barque-test/busybox:1").await;
    contains(&k.run("rollout undo deployment/web").await.fails(), &["paused"]);
    k.ok("rollout resume deployment/web").await;
    k.ok("rollout status deployment/web --timeout=120s").await;
}

async fn label_annotate(k: &Kubectl) {
    contains(&k.ok("label configmap settings tier=front").await, &["configmap/settings labeled"]);
    contains(&k.run("label configmap settings tier=back").await.fails(), &["already has a value (front)"]);
    k.ok("label configmap settings tier=back --overwrite").await;
    assert_eq!(k.ok("get cm -l tier=back -o name").await.trim(), "configmap/settings");
    contains(&k.ok("get cm settings -L tier").await, &["TIER", "back"]);
    k.ok("label configmap settings tier-").await;
    assert_eq!(k.ok("get cm -l tier -o name").await, "");
    contains(
        &k.args(&["annotate", "configmap", "settings", "note=two words"]).await.ok(),
        &["configmap/settings annotated"],
    );
    assert_eq!(k.ok("get cm settings -o jsonpath={.metadata.annotations.note}").await, "two words");
    k.ok("annotate configmap settings note-").await;
}

async fn patches(k: &Kubectl) {
    let strategic =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"ADDED","value":"1"}]}]}}}}"#;
    contains(&k.args(&["patch", "deployment", "web", "-p", strategic]).await.ok(), &["deployment.apps/web patched"]);
    let env = k.ok("get deployment web -o jsonpath={.spec.template.spec.containers[0].env[*].name}").await;
    let mut names: Vec<_> = env.split(' ').collect();
    names.sort_unstable();
    assert_eq!(names, ["ADDED", "PASSWORD", "POD_NAME"]);
    k.args(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"colour":null,"merged":"yes"}}"#])
        .await
        .ok();
    assert_eq!(k.ok("get cm settings -o jsonpath={.data.colour}{.data.merged}").await, "yes");
    let operations = r#"[{"op":"test","path":"/data/merged","value":"yes"},{"op":"remove","path":"/data/merged"},{"op":"add","path":"/data/colour","value":"blue"}]"#;
    k.args(&["patch", "configmap", "settings", "--type=json", "-p", operations]).await.ok();
    assert_eq!(k.ok("get cm settings -o jsonpath={.data.colour}").await, "blue");
    contains(&k.args(&["patch", "cm", "settings", "-p", r#"{"data":{"colour":"blue"}}"#]).await.ok(), &["(no change)"]);
    let status = r#"{"status":{"conditions":[{"type":"Probed","status":"True"}]}}"#;
    k.args(&["patch", "deployment", "web", "--subresource=status", "--type=merge", "-p", status]).await.ok();
    k.ok("rollout status deployment/web --timeout=120s").await;
}

async fn wait_conditions(k: &Kubectl) {
    contains(
        &k.ok("wait --for=condition=Available deployment/web --timeout=60s").await,
        &["deployment.apps/web condition met"],
    );
    k.ok("wait --for=condition=Ready pod -l app=web --timeout=60s").await;
    k.ok("wait --for=jsonpath={.status.readyReplicas}=3 deployment/web --timeout=60s").await;
    let pod = k.ok("get pods -l app=web -o name").await.lines().next().unwrap().to_owned();
    k.ok(&format!("delete {pod} --wait=false")).await;
    k.ok(&format!("wait --for=delete {pod} --timeout=60s")).await;
    let late = k.run("wait --for=condition=Progressing=Unknown deployment/web --timeout=1s").await.fails();
    contains(&late, &["timed out waiting for the condition"]);
    k.ok("rollout status deployment/web --timeout=120s").await;
}

async fn cordon(k: &Kubectl, shop_k: &Kubectl) {
    let node = k.ok("get nodes -o jsonpath={.items[0].metadata.name}").await;
    contains(&k.ok(&format!("cordon {node}")).await, &["cordoned"]);
    contains(&k.ok(&format!("get node {node}")).await, &["Ready,SchedulingDisabled"]);
    shop_k.ok("scale deployment web --replicas=15").await;
    shop_k.ok("rollout status deployment/web --timeout=120s").await;
    contains(&k.ok(&format!("drain {node} --ignore-daemonsets --timeout=120s")).await, &["drained"]);
    eventually("the drained node is empty and the Deployment whole", || async {
        let there = k.ok(&format!("get pods -A --field-selector spec.nodeName={node} -o name")).await;
        let ready = shop_k.ok("get deployment web -o jsonpath={.status.readyReplicas}").await;
        if there.is_empty() && ready == "15" { Ok(()) } else { Err(format!("{there} {ready}")) }
    })
    .await;
    contains(&k.ok(&format!("uncordon {node}")).await, &["uncordoned"]);
    contains(&k.ok(&format!("taint node {node} barque.test/x=y:NoSchedule")).await, &["tainted"]);
    k.ok(&format!("taint node {node} barque.test/x-")).await;
    shop_k.ok("scale deployment web --replicas=3").await;
    shop_k.ok("rollout status deployment/web --timeout=120s").await;
}

async fn diff(k: &Kubectl) {
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: differs}\ndata: {a: '1'}\n";
    k.apply(yaml).await;
    let same = k.with_input(&["diff", "-f", "-"], yaml).await;
    assert_eq!(same.status.code(), Some(0), "{}{}", same.stdout, same.stderr);
    let other = k.with_input(&["diff", "-f", "-"], &yaml.replace("'1'", "'2'")).await;
    assert_eq!(other.status.code(), Some(1), "{}{}", other.stdout, other.stderr);
    contains(&other.stdout, &["-  a: \"1\"", "+  a: \"2\""]);
    assert_eq!(k.ok("get cm differs -o jsonpath={.data.a}").await, "1");
}

async fn server_side(k: &Kubectl) {
    let yaml =
        |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: owned}}\ndata: {{a: '{value}'}}\n");
    let apply = ["apply", "--server-side", "--field-manager=one", "-f", "-"];
    contains(&k.with_input(&apply, &yaml("1")).await.ok(), &["configmap/owned serverside-applied"]);
    let other = ["apply", "--server-side", "--field-manager=two", "-f", "-"];
    let conflict = k.with_input(&other, &yaml("2")).await.fails();
    contains(&conflict, &["Apply failed with 1 conflict", "conflict with \"one\"", ".data.a"]);
    let forced = ["apply", "--server-side", "--force-conflicts", "--field-manager=two", "-f", "-"];
    k.with_input(&forced, &yaml("2")).await.ok();
    assert_eq!(k.ok("get cm owned -o jsonpath={.data.a}").await, "2");
    let managers = k.ok("get cm owned --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}").await;
    assert_eq!(managers, "two");
    // A Deployment, whose lists are merged by key.
    let shop = shop();
    let deployment = shop.split("---\n").find(|part| part.contains("kind: Deployment")).unwrap();
    let flags = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    k.with_input(&flags, deployment).await.ok();
    k.with_input(&flags, deployment).await.ok();
    k.ok("rollout status deployment/web --timeout=120s").await;
}

async fn three_way(k: &Kubectl) {
    let yaml = |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: merged}}\ndata: {{{data}}}\n");
    k.apply(&yaml("a: '1', b: '2'")).await;
    k.args(&["patch", "cm", "merged", "-p", r#"{"data":{"c":"3"}}"#]).await.ok();
    k.apply(&yaml("a: '9'")).await;
    let data = json(&k.ok("get cm merged -o json").await)["data"].clone();
    assert_eq!(data, serde_json::json!({"a": "9", "c": "3"}), "b was ours and goes, c was somebody else's and stays");
    let last = k.ok("apply view-last-applied configmap merged").await;
    contains(&last, &["a: \"9\""]);
}

async fn create(k: &Kubectl) {
    contains(
        &k.ok("create deployment made --image=barque-test/busybox:1 --replicas=2").await,
        &["deployment.apps/made created"],
    );
    contains(&k.ok("expose deployment made --port=80").await, &["service/made exposed"]);
    contains(&k.ok("create secret generic made --from-literal=a=b").await, &["secret/made created"]);
    contains(&k.ok("create serviceaccount made").await, &["serviceaccount/made created"]);
    contains(&k.ok("run made --image=barque-test/busybox:1 --restart=Never").await, &["pod/made created"]);
    k.ok("wait --for=condition=Ready pod/made --timeout=60s").await;
    let object = k.ok("get configmap settings -o yaml").await;
    contains(&k.with_input(&["replace", "-f", "-"], &object).await.ok(), &["configmap/settings replaced"]);
    contains(&k.ok("create poddisruptionbudget made --selector=app=made --min-available=1").await, &["made created"]);
    eventually("the budget is worked out", || async {
        let printed = k.ok("get pdb made").await;
        let rows = table(&printed);
        if rows[1][1..4] == ["1", "N/A", "1"] { Ok(()) } else { Err(printed) }
    })
    .await;
    k.ok("delete deployment,service,secret,serviceaccount,pod,pdb made --grace-period=0 --force").await;
}

async fn about(k: &Kubectl) {
    let resources = k.ok("api-resources").await;
    contains(&resources, &["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]);
    for line in [
        ["pods", "po", "v1", "true", "Pod"],
        ["nodes", "no", "v1", "false", "Node"],
        ["deployments", "deploy", "apps/v1", "true", "Deployment"],
        ["poddisruptionbudgets", "pdb", "policy/v1", "true", "PodDisruptionBudget"],
    ] {
        let found = resources.lines().any(|printed| printed.split_whitespace().eq(line));
        assert!(found, "{line:?} is not in:\n{resources}");
    }
    contains(&k.ok("api-resources --api-group=coordination.k8s.io -o name").await, &["leases.coordination.k8s.io"]);
    contains(&k.ok("api-versions").await, &["apps/v1", "events.k8s.io/v1", "policy/v1", "v1"]);
    let explained = k.ok("explain deployment.spec.strategy").await;
    contains(&explained, &["KIND:       Deployment", "FIELD: strategy", "rollingUpdate", "RollingUpdateDeployment"]);
    contains(&k.ok("explain pod --recursive").await, &["containers", "imagePullPolicy"]);
    contains(&k.run("explain pod.spec.nonsense").await.fails(), &["field \"nonsense\" does not exist"]);
    let version = json(&k.ok("version -o json").await);
    assert_eq!(version["serverVersion"]["major"], "1");
    contains(version["serverVersion"]["gitVersion"].as_str().unwrap(), &["v1.36"]);
    k.ok("cluster-info").await;
    contains(&k.ok("get --raw /readyz").await, &["ok"]);
    // Served only where SelfSubjectReview is; then it must be right.
    let whoami = k.run("auth whoami").await;
    if whoami.status.success() {
        contains(&whoami.stdout, &["barque-admin"]);
    } else {
        contains(&whoami.stderr, &["the selfsubjectreviews API is not enabled"]);
    }
}

async fn events(k: &Kubectl, shop_k: &Kubectl) {
    let printed = shop_k.ok("get events").await;
    let header = printed.lines().next().unwrap();
    contains(header, &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    contains(&printed, &["Scheduled", "ScalingReplicaSet", "SuccessfulCreate", "deployment/web"]);
    contains(&shop_k.ok("get events --field-selector reason=Scheduled,involvedObject.kind=Pod").await, &["Scheduled"]);
    contains(&shop_k.ok("events --for deployment/web").await, &["ScalingReplicaSet"]);
    contains(&k.ok("get events.events.k8s.io -n shop").await, &["Scheduled"]);
    // A Pod that fits nowhere says why.
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: greedy}\nspec:\n  containers:\n  - {name: a, image: x, resources: {requests: {cpu: '4000'}}}\n";
    shop_k.apply(pod).await;
    eventually("the scheduler says why", || async {
        let described = shop_k.ok("describe pod greedy").await;
        let right =
            described.contains("FailedScheduling") && described.contains("0/5 nodes are available: 5 Insufficient cpu");
        if right { Ok(()) } else { Err(described) }
    })
    .await;
    contains(&shop_k.ok("get pod greedy").await, &["0/1", "Pending"]);
    shop_k.ok("delete pod greedy").await;
}

async fn errors(k: &Kubectl, shop_k: &Kubectl) {
    assert_eq!(
        shop_k.run("get pod none").await.fails().trim(),
        "Error from server (NotFound): pods \"none\" not found"
    );
    contains(&k.run("get nonsenses").await.fails(), &["the server doesn't have a resource type \"nonsenses\""]);
    contains(&shop_k.run("create configmap settings").await.fails(), &["configmaps \"settings\" already exists"]);
    contains(&k.run("create namespace Not_Valid").await.fails(), &["is invalid", "metadata.name"]);
    let typo = shop().replace("replicas: 3", "replicsa: 3");
    let refused = k.with_input(&["apply", "-f", "-"], &typo).await.fails();
    contains(&refused, &["strict decoding error: unknown field \"spec.replicsa\""]);
    let missing = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: nowhere}\n";
    let refused = k.with_input(&["create", "-f", "-"], missing).await.fails();
    contains(&refused, &["namespaces \"nowhere\" not found"]);
    let unknown =
        k.with_input(&["apply", "-f", "-"], "apiVersion: x.example/v1\nkind: Thing\nmetadata: {name: x}\n").await;
    contains(&unknown.fails(), &["no matches for kind \"Thing\" in version \"x.example/v1\""]);
    contains(&k.run("delete namespace default").await.fails(), &["forbidden"]);
}

async fn deletes(k: &Kubectl, shop_k: &Kubectl) {
    shop_k.ok("create deployment orphaned --image=barque-test/busybox:1 --replicas=1").await;
    shop_k.ok("rollout status deployment/orphaned --timeout=60s").await;
    shop_k.ok("delete deployment orphaned --cascade=orphan").await;
    let sets = shop_k.ok("get rs -l app=orphaned -o json").await;
    let sets = json(&sets);
    assert_eq!(sets["items"].as_array().unwrap().len(), 1, "the ReplicaSet stays");
    eventually("the owner is forgotten", || async {
        let owners = shop_k.ok("get rs -l app=orphaned -o jsonpath={.items[0].metadata.ownerReferences}").await;
        if owners.is_empty() { Ok(()) } else { Err(owners) }
    })
    .await;
    assert_eq!(shop_k.ok("get pods -l app=orphaned -o name").await.lines().count(), 1);
    shop_k.ok("delete rs -l app=orphaned --cascade=foreground").await;
    assert_eq!(shop_k.ok("get pods -l app=orphaned -o name").await, "", "in the foreground means: Pods first");

    shop_k.ok("create deployment doomed --image=barque-test/busybox:1 --replicas=2").await;
    shop_k.ok("rollout status deployment/doomed --timeout=60s").await;
    contains(&shop_k.ok("delete deployment doomed").await, &["deployment.apps \"doomed\" deleted"]);
    eventually("background deletion", || async {
        let left = shop_k.ok("get rs,pods -l app=doomed -o name").await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;

    shop_k.ok("run brief --image=barque-test/busybox:1 --restart=Never").await;
    shop_k.ok("delete pod brief --grace-period=1 --wait=true").await;
    contains(&shop_k.run("get pod brief").await.fails(), &["NotFound"]);
    shop_k.ok("run brief --image=barque-test/busybox:1 --restart=Never").await;
    shop_k.ok("delete pod brief --now").await;
    shop_k.ok("run brief --image=barque-test/busybox:1 --restart=Never").await;
    shop_k.ok("delete pod brief --grace-period=0 --force").await;
    contains(&shop_k.ok("delete pod none --ignore-not-found").await, &[]);
    contains(&shop_k.ok("delete cm differs --dry-run=server").await, &["server dry run"]);
    shop_k.ok("get cm differs").await;
    shop_k.ok("delete cm --all").await;
    eventually("the authority's certificate comes back", || async {
        let names = k.ok("get cm -n shop -o name").await;
        if names.trim() == "configmap/kube-root-ca.crt" { Ok(()) } else { Err(names) }
    })
    .await;
}

/// Plain REST with YAML both ways, by curl with the kubeconfig's certificate.
async fn curl(cluster: &Cluster) {
    skip_unless!(process::on_path("curl"), "curl");
    let k = Kubectl::new(cluster);
    let raw = |path: &str| format!("config view --raw --minify -o jsonpath={{{path}}}");
    let server = k.ok(&raw(".clusters[0].cluster.server")).await;
    for (file, path) in [
        ("ca.crt", ".clusters[0].cluster.certificate-authority-data"),
        ("user.crt", ".users[0].user.client-certificate-data"),
        ("user.key", ".users[0].user.client-key-data"),
    ] {
        let encoded = k.ok(&raw(path)).await;
        let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded.trim()).unwrap();
        std::fs::write(cluster.scratch().join(file), decoded).unwrap();
    }
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: by-curl\ndata:\n  a: \"1\"\n";
    std::fs::write(cluster.scratch().join("x.yaml"), yaml).unwrap();
    let call = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command
            .current_dir(cluster.scratch())
            .args(["-sS", "--cacert", "ca.crt", "--cert", "user.crt", "--key", "user.key"]);
        command.args(arguments);
        async move {
            let output = process::run(command, b"", barque_tests::wait::DEADLINE).await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        }
    };
    let collection = format!("{server}/api/v1/namespaces/default/configmaps");
    let answer = call(&[
        "--data-binary",
        "@x.yaml",
        "-H",
        "Content-Type: application/yaml",
        "-H",
        "Accept: application/yaml",
        "-w",
        "%{http_code} %{content_type}",
        &collection,
    ])
    .await;
    contains(&answer, &["kind: ConfigMap", "name: by-curl", "uid: ", "201 application/yaml"]);
    let one = format!("{collection}/by-curl");
    let answer: Value = serde_yaml::from_str(&call(&["-H", "Accept: application/yaml", &one]).await).unwrap();
    assert_eq!(answer["data"]["a"], "1");
    let changed = yaml.replace("\"1\"", "\"2\"");
    let put = call(&["-X", "PUT", "--data-binary", &changed, "-H", "Content-Type: application/yaml", &one]).await;
    assert_eq!(json(&put)["data"]["a"], "2");
    assert_eq!(json(&call(&["-X", "DELETE", &one]).await)["status"], "Success");
}

async fn delete_namespace(k: &Kubectl) {
    k.ok("delete namespace shop --timeout=120s").await;
    contains(&k.run("get namespace shop").await.fails(), &["NotFound"]);
    assert_eq!(
        k.ok("get deployments,pods,secrets,services -A --field-selector metadata.namespace=shop -o name").await,
        ""
    );
}

/// What needs real containers: environment, logs, exit codes, deletion.
#[tokio::test(flavor = "multi_thread")]
async fn on_docker() {
    skip_unless!(kubectl::available(), "kubectl");
    skip_unless!(docker::available().await, "Docker (or busybox)");
    let cluster = Cluster::start(Options::docker()).await;
    cluster.await_nodes(1).await;
    let k = Kubectl::new(&cluster);
    let shop_k = k.clone().namespace("shop");
    let mut suite = Suite::new();
    suite
        .case("apply", async {
            k.apply(&shop()).await;
            shop_k.ok("rollout status deployment/web --timeout=120s").await;
            let pods = json(&shop_k.ok("get pods -l app=web -o json").await);
            for pod in pods["items"].as_array().unwrap() {
                let ids = docker::container_ids(pod);
                assert_eq!(ids.len(), 1);
                let found = docker::inspect(ids.iter().map(String::as_str)).await;
                assert_eq!(found.values().next().expect("Docker knows it").state, "running");
                assert!(!pod["status"]["podIP"].as_str().unwrap_or_default().is_empty(), "{}", pod["status"]);
            }
        })
        .await;
    suite.case("logs", logs(&shop_k)).await;
    suite.case("a crashing container, logs --previous", crash_loop(&shop_k)).await;
    suite.case("init containers, volumes, termination message", volumes(&shop_k)).await;
    suite.case("images that cannot be had", bad_image(&shop_k)).await;
    suite.case("a Pod that completes", completes(&shop_k)).await;
    suite.case("grace on deletion", grace(&shop_k)).await;
    suite.case("rollout", rollout_on_docker(&shop_k)).await;
    suite
        .case("deleting the namespace removes the containers", async {
            let pods = json(&shop_k.ok("get pods -o json").await);
            let ids: Vec<_> = pods["items"].as_array().unwrap().iter().flat_map(docker::container_ids).collect();
            k.ok("delete namespace shop --timeout=150s").await;
            eventually("no container is left", || async {
                let left = docker::inspect(ids.iter().map(String::as_str)).await;
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
            })
            .await;
        })
        .await;
    suite.finish();
}

async fn logs(k: &Kubectl) {
    let all = k.ok("logs deployment/web").await;
    contains(&all, &["greeting=hello password=open sesame pod=web-"]);
    let pod = k.ok("get pods -l app=web -o jsonpath={.items[0].metadata.name}").await;
    let mut stream = k.stream(&format!("logs -f {pod}"));
    let first = stream.until(|line| line.starts_with("tick ")).await;
    assert!(first[0].contains(&format!("pod={pod}")), "{first:?}");
    stream.until(|line| line == "tick 5").await;
    drop(stream);
    assert_eq!(k.ok(&format!("logs {pod} --tail=2")).await.lines().count(), 2);
    assert_eq!(k.ok(&format!("logs {pod} --tail=0")).await, "");
    let stamped = k.ok(&format!("logs {pod} --timestamps --tail=1")).await;
    let stamp = stamped.split(' ').next().unwrap();
    assert!(stamp.len() >= 20 && stamp.contains('T'), "{stamped}");
    assert!(k.ok(&format!("logs {pod} --since=1s")).await.lines().count() <= 4);
    assert_eq!(k.ok(&format!("logs {pod} --limit-bytes=5")).await.len(), 5);
    contains(&k.ok("logs -l app=web --prefix --tail=1").await, &["[pod/web-"]);
    contains(&k.run(&format!("logs {pod} -c none")).await.fails(), &["container none is not valid for pod"]);
    contains(
        &k.run(&format!("logs {pod} --previous")).await.fails(),
        &["previous terminated container \"web\" in pod"],
    );
}

async fn crash_loop(k: &Kubectl) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: crash}}\nspec:\n  containers:\n  - name: main\n    image: {IMAGE}\n    command: [sh, -c, 'echo about to fail; exit 7']\n"
    );
    k.apply(&pod).await;
    eventually("it was restarted and waits", || async {
        let object = json(&k.ok("get pod crash -o json").await);
        let status = &object["status"]["containerStatuses"][0];
        let right = status["restartCount"].as_u64().unwrap_or(0) >= 2
            && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && status["lastState"]["terminated"]["exitCode"] == 7
            && status["lastState"]["terminated"]["reason"] == "Error";
        if right { Ok(()) } else { Err(object["status"].to_string()) }
    })
    .await;
    contains(&k.ok("get pod crash").await, &["CrashLoopBackOff"]);
    contains(&k.ok("logs crash --previous").await, &["about to fail"]);
    contains(&k.ok("describe pod crash").await, &["Back-off restarting failed container", "Exit Code:    7"]);
    k.ok("delete pod crash --grace-period=0 --force").await;
}

async fn volumes(k: &Kubectl) {
    let pod = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: volumes, labels: {{a: b}}}}
spec:
  restartPolicy: Never
  initContainers:
  - name: first
    image: {IMAGE}
    command: [sh, -c, "echo from-init > /shared/file"]
    volumeMounts: [{{name: shared, mountPath: /shared}}]
  containers:
  - name: main
    image: {IMAGE}
    workingDir: /tmp
    command: [sh, -c]
    args:
    - |
      cat /shared/file /settings/colour /keys/password; echo; echo dir=$(ls /settings | wc -l); echo "at $(cat /proc/self/cwd/none 2>/dev/null)$PWD limit=$LIMIT node=$NODE"
      printf done > /dev/termination-log
    env:
    - {{name: LIMIT, valueFrom: {{resourceFieldRef: {{resource: limits.memory}}}}}}
    - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
    resources: {{limits: {{memory: 64Mi}}}}
    volumeMounts:
    - {{name: shared, mountPath: /shared}}
    - {{name: settings, mountPath: /settings, readOnly: true}}
    - {{name: keys, mountPath: /keys}}
  volumes:
  - {{name: shared, emptyDir: {{}}}}
  - {{name: settings, configMap: {{name: settings}}}}
  - {{name: keys, secret: {{secretName: credentials, defaultMode: 0400}}}}
"#
    );
    k.apply(&pod).await;
    k.ok("wait --for=jsonpath={.status.phase}=Succeeded pod/volumes --timeout=90s").await;
    let node = k.ok("get pod volumes -o jsonpath={.spec.nodeName}").await;
    let printed = k.ok("logs volumes").await;
    contains(&printed, &["from-init", "blueopen sesame", "dir=2", &format!("at /tmp limit=67108864 node={node}")]);
    let state = "get pod volumes -o jsonpath={.status.containerStatuses[0].state.terminated.message}";
    assert_eq!(k.ok(state).await, "done");
    assert_eq!(
        k.ok("get pod volumes -o jsonpath={.status.initContainerStatuses[0].state.terminated.exitCode}").await,
        "0"
    );
    contains(&k.ok("get pod volumes").await, &["0/1", "Completed"]);
    k.ok("delete pod volumes").await;
}

async fn bad_image(k: &Kubectl) {
    let pod = |name: &str, image: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: a, image: \"{image}\", imagePullPolicy: Never}}\n"
        )
    };
    k.apply(&pod("never", "barque-test/not-there:1")).await;
    eventually("its image is never pulled", || async {
        let printed = k.ok("get pod never").await;
        if printed.contains("ErrImageNeverPull") { Ok(()) } else { Err(printed) }
    })
    .await;
    let refused = k.with_input(&["apply", "-f", "-"], &pod("invalid", "")).await.fails();
    contains(&refused, &["spec.containers[0].image"]);
    k.ok("delete pod never --grace-period=0 --force").await;
}

async fn completes(k: &Kubectl) {
    for (policy, code, phase) in [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")] {
        let name = barque_tests::unique("ends");
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  containers:\n  - {{name: a, image: {IMAGE}, command: [sh, -c, 'exit {code}']}}\n"
        );
        k.apply(&pod).await;
        k.ok(&format!("wait --for=jsonpath={{.status.phase}}={phase} pod/{name} --timeout=90s")).await;
        let exit = k
            .ok(&format!("get pod {name} -o jsonpath={{.status.containerStatuses[0].state.terminated.exitCode}}"))
            .await;
        assert_eq!(exit, code.to_string());
        k.ok(&format!("delete pod {name}")).await;
    }
}

async fn grace(k: &Kubectl) {
    // It says goodbye when asked to go...
    let pod = k.ok("get pods -l app=web -o jsonpath={.items[0].metadata.name}").await;
    let mut stream = k.stream(&format!("logs -f {pod}"));
    stream.until(|line| line.starts_with("tick")).await;
    k.ok(&format!("delete pod {pod} --wait=false")).await;
    stream.until(|line| line == "bye").await;
    // ... and one that does not listen is killed after its grace.
    let deaf = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: deaf}}\nspec:\n  terminationGracePeriodSeconds: 2\n  containers:\n  - {{name: a, image: {IMAGE}, command: [sh, -c, \"trap '' TERM; while true; do sleep 1; done\"]}}\n"
    );
    k.apply(&deaf).await;
    k.ok("wait --for=condition=Ready pod/deaf --timeout=60s").await;
    let object = json(&k.ok("get pod deaf -o json").await);
    let ids = docker::container_ids(&object);
    k.ok("delete pod deaf --timeout=60s").await;
    let found = docker::inspect(ids.iter().map(String::as_str)).await;
    assert!(found.values().all(|container| container.state != "running"), "gone from the API, running in Docker");
    k.ok("rollout status deployment/web --timeout=120s").await;
}

async fn rollout_on_docker(k: &Kubectl) {
    k.ok("set env deployment/web GREETING=again").await;
    k.ok("rollout status deployment/web --timeout=150s").await;
    eventually("old Pods are gone", || async {
        let pods = k.ok("get pods -l app=web -o name").await;
        if pods.lines().count() == 3 { Ok(()) } else { Err(pods) }
    })
    .await;
    contains(&k.ok("logs deployment/web").await, &["greeting=again"]);
    k.ok("rollout undo deployment/web").await;
    k.ok("rollout status deployment/web --timeout=150s").await;
}
