use super::*;
use crate::kinds;

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

fn now() -> Timestamp {
    "2026-01-01T00:05:00Z".parse().expect("a time")
}

fn cells(group: &str, plural: &str, value: Value) -> String {
    let registry = kinds::builtin();
    let row = registry.by_path(group, "v1", plural).expect("a row");
    let cells = (row.strategy.row)(&object(value), now());
    let text = |cell: Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    cells.into_iter().map(text).collect::<Vec<_>>().join(" | ")
}

fn pod(spec: Value, status: Value) -> String {
    let metadata = json!({"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"});
    let all = cells("", "pods", json!({"metadata": metadata, "spec": spec, "status": status}));
    all.split(" | ").skip(1).take(3).collect::<Vec<_>>().join(" | ")
}

fn running(name: &str, restarts: i64) -> Value {
    json!({"name": name, "ready": true, "started": true, "restartCount": restarts, "state": {"running": {}}})
}

#[test]
fn pods_say_what_they_do() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let pending = pod(spec.clone(), json!({"phase": "Pending"}));
    assert_eq!(pending, "0/2 | Pending | 0");
    let status = json!({"phase": "Running", "containerStatuses": [running("a", 0), running("b", 2)]});
    assert_eq!(pod(spec.clone(), status), "2/2 | Running | 2");
    let crash = json!({
        "name": "b", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:02:00Z"}}
    });
    let status = json!({"phase": "Running", "containerStatuses": [running("a", 0), crash]});
    assert_eq!(pod(spec.clone(), status), "1/2 | CrashLoopBackOff | 3 (3m ago)");
    let done = json!({"name": "b", "restartCount": 0, "state": {"terminated": {"reason": "Completed", "exitCode": 0}}});
    let status = json!({"phase": "Running", "containerStatuses": [running("a", 0), done]});
    assert_eq!(pod(spec.clone(), status), "1/2 | NotReady | 0");
    let killed = json!({"name": "b", "restartCount": 0, "state": {"terminated": {"exitCode": 137, "signal": 9}}});
    assert_eq!(pod(spec.clone(), json!({"phase": "Failed", "containerStatuses": [killed]})), "0/2 | Signal:9 | 0");
    let gated = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
    assert_eq!(pod(spec.clone(), gated), "0/2 | SchedulingGated | 0");
    let evicted = json!({"phase": "Failed", "reason": "Evicted"});
    assert_eq!(pod(spec, evicted), "0/2 | Evicted | 0");
}

#[test]
fn init_containers_come_first() {
    let spec = json!({
        "containers": [{"name": "a"}],
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}]
    });
    let done = json!({"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 0}}});
    let status = |statuses: Value| json!({"phase": "Pending", "initContainerStatuses": statuses});
    let first = json!({"name": "i", "restartCount": 0, "state": {"running": {}}});
    assert_eq!(pod(spec.clone(), status(json!([first]))), "0/2 | Init:0/3 | 0");
    let waiting = json!({"name": "j", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}});
    assert_eq!(pod(spec.clone(), status(json!([done, running("s", 2), waiting]))), "1/2 | Init:2/3 | 3");
    let failed = json!({"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 3}}});
    assert_eq!(pod(spec.clone(), status(json!([failed]))), "0/2 | Init:ExitCode:3 | 0");
    let broken = json!({"name": "i", "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}});
    assert_eq!(pod(spec.clone(), status(json!([broken]))), "0/2 | Init:ErrImagePull | 0");
    let finished = json!({"name": "j", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}});
    let up = json!({
        "phase": "Running", "initContainerStatuses": [done, running("s", 2), finished],
        "containerStatuses": [running("a", 1)]
    });
    assert_eq!(pod(spec, up), "2/2 | Running | 3");
}

#[test]
fn deleted_pods_are_terminating() {
    let text = |phase: &str, reason: &str| {
        let value = json!({
            "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a"}]}, "status": {"phase": phase, "reason": reason}
        });
        cells("", "pods", value)
    };
    assert!(text("Running", "").contains("| Terminating |"));
    assert!(text("Succeeded", "").contains("| Succeeded |"));
    assert!(text("Running", "NodeLost").contains("| Unknown |"));
    assert!(text("Running", "").ends_with("<unknown> | <none> | <none> | <none> | <none>"));
}

#[test]
fn other_kinds() {
    let metadata = json!({"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"});
    let spec = json!({
        "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
        "template": {"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}]}}
    });
    let status = json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1});
    let workload = json!({"metadata": metadata, "spec": spec, "status": status});
    assert_eq!(cells("apps", "deployments", workload.clone()), "x | 2/3 | 3 | 1 | 5m | a,b | i:1,j | app=web");
    assert_eq!(cells("apps", "replicasets", workload), "x | 3 | 3 | 2 | 5m | a,b | i:1,j | app=web");
    let mut meta = metadata.clone();
    meta["labels"] = json!({"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/db": ""});
    let node = json!({
        "metadata": meta, "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian"}
        }
    });
    assert_eq!(
        cells("", "nodes", node),
        "x | Ready,SchedulingDisabled | db,worker | 5m | v1 | 10.0.0.1 | <none> | Debian | <unknown> | <unknown>"
    );
    let service = json!({
        "metadata": metadata,
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            "selector": {"a": "b", "c": "d"}
        }
    });
    assert_eq!(
        cells("", "services", service),
        "x | LoadBalancer | 10.0.0.9 | <pending> | 80:30080/TCP,53/UDP | 5m | a=b,c=d"
    );
    let headless =
        json!({"metadata": metadata, "spec": {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}});
    assert_eq!(cells("", "services", headless), "x | ClusterIP | None | <none> | <none> | 5m | <none>");
    let event = json!({
        "metadata": metadata, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "type": "Normal",
        "reason": "Started", "message": " m ", "count": 4, "source": {"component": "agent", "host": "n1"},
        "firstTimestamp": "2026-01-01T00:01:00Z", "lastTimestamp": "2026-01-01T00:04:00Z"
    });
    assert_eq!(cells("", "events", event), "60s | Normal | Started | pod/p | spec | agent, n1 | m | 4m | 4 | x");
    let budget = json!({"metadata": metadata, "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}});
    assert_eq!(cells("policy", "poddisruptionbudgets", budget), "x | 50% | N/A | 2 | 5m");
    let subsets = json!([{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]);
    let endpoints = json!({"metadata": metadata, "subsets": subsets});
    assert_eq!(cells("", "endpoints", endpoints), "x | 1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more... | 5m");
    let slice = json!({"metadata": metadata, "addressType": "IPv4"});
    assert_eq!(cells("discovery.k8s.io", "endpointslices", slice), "x | IPv4 | <unset> | <unset> | 5m");
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "1", "controller": true}]);
    let revision = json!({"metadata": {"name": "r", "ownerReferences": owner}, "revision": 2});
    assert_eq!(cells("apps", "controllerrevisions", revision), "r | daemonset.apps/d | 2 | <unknown>");
}

#[test]
fn tables_carry_what_was_asked_for() {
    let registry = kinds::builtin();
    let row = registry.by_path("", "v1", "pods").expect("a row");
    let done = object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "resourceVersion": "7"},
        "spec": {"containers": []}, "status": {"phase": "Succeeded"}
    }));
    let table = build(row, [&done], json!({"resourceVersion": "9"}), Include::Metadata, now());
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["metadata"]["resourceVersion"], "9");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    assert_eq!(table["columnDefinitions"][5]["priority"], 1);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "p");
    assert_eq!(table["rows"][0]["conditions"][0]["type"], "Completed");
    let table = build(row, [&done], json!({}), Include::None, now());
    assert_eq!(table["rows"][0]["object"], Value::Null);
    let event = build_event(row, &done, Include::Object, false, now());
    assert_eq!(event["columnDefinitions"], json!([]));
    assert_eq!(event["metadata"]["resourceVersion"], "7");
    assert_eq!(event["rows"][0]["object"]["spec"], json!({"containers": []}));
    assert!(Include::parse("All").is_err());
}

const MADE: &str = "2026-01-01T00:00:00Z";

#[test]
fn workloads_in_words() {
    let metadata = json!({"name": "a", "creationTimestamp": MADE});
    let pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"x": "y"}}});
    let job = |spec: Value, status: Value| {
        let cells = cells("batch", "jobs", json!({"metadata": metadata, "spec": spec, "status": status}));
        cells.split(" | ").skip(1).take(3).collect::<Vec<_>>().join(" | ")
    };
    let started = json!({"startTime": MADE, "succeeded": 1});
    assert_eq!(job(json!({"completions": 3}), started.clone()), "Running | 1/3 | 5m");
    assert_eq!(job(json!({"parallelism": 2}), started), "Running | 1/1 of 2 | 5m");
    let done = json!({
        "startTime": MADE, "completionTime": "2026-01-01T00:01:05Z", "succeeded": 1,
        "conditions": [{"type": "Complete", "status": "True"}]
    });
    assert_eq!(job(json!({"completions": 1}), done), "Complete | 1/1 | 65s");
    let cron = json!({
        "metadata": metadata, "status": {"active": [{}], "lastScheduleTime": "2026-01-01T00:04:00Z"},
        "spec": {"schedule": "*/5 * * * *", "suspend": false, "jobTemplate": {"spec": {"template": pod}}}
    });
    assert_eq!(cells("batch", "cronjobs", cron), "a | */5 * * * * | <none> | False | 1 | 60s | 5m | c | i | <none>");
    let daemons = json!({
        "metadata": metadata, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": pod},
        "status": {"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "updatedNumberScheduled": 1}
    });
    assert_eq!(cells("apps", "daemonsets", daemons), "a | 3 | 2 | 1 | 1 | 0 | x=y | 5m | c | i | a=b");
    let set = json!({"metadata": metadata, "spec": {"replicas": 3, "template": pod}, "status": {"readyReplicas": 2}});
    assert_eq!(cells("apps", "statefulsets", set), "a | 2/3 | 5m | c | i");
    let quota = json!({
        "metadata": metadata,
        "status": {"hard": {"pods": "5", "limits.cpu": "2", "requests.cpu": "1"}, "used": {"pods": "1"}}
    });
    assert_eq!(cells("", "resourcequotas", quota), "a | pods: 1/5, requests.cpu: 0/1 | limits.cpu: 0/2 | 5m");
    let range = json!({"metadata": metadata});
    assert_eq!(cells("", "limitranges", range), format!("a | {MADE}"));
}

#[test]
fn autoscalers_show_the_first_targets() {
    let spec = json!({"maxReplicas": 5, "minReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
        {"type": "External", "external": {"target": {"averageValue": "10"}}},
        {"type": "Pods", "pods": {"target": {"averageValue": "1k"}}}
    ]});
    let status = json!({"currentReplicas": 3, "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 20}}}
    ]});
    let object = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a", "creationTimestamp": MADE}, "spec": spec, "status": status});
    let registry = kinds::builtin();
    let row = registry.by_path("autoscaling", "v2", "horizontalpodautoscalers").expect("a row");
    let cells = (row.strategy.row)(&self::object(object), now());
    assert_eq!(
        cells[1..6],
        [
            json!("Deployment/web"),
            json!("cpu: 20%/80%, <unknown>/10 (avg) + 1 more..."),
            json!("2"),
            json!(5),
            json!(3),
        ]
    );
}

#[test]
fn volumes_and_claims() {
    let metadata = json!({"name": "a", "creationTimestamp": MADE});
    let volume = json!({
        "metadata": metadata, "status": {"phase": "Bound"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "storageClassName": "fast",
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "default", "name": "data"}
        }
    });
    assert_eq!(
        cells("", "persistentvolumes", volume),
        "a | 1Gi | RWO,RWX | Retain | Bound | default/data | fast | <unset> |  | 5m | <unset>"
    );
    let claim = json!({
        "metadata": metadata, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
        "spec": {"volumeName": "v", "volumeMode": "Filesystem"}
    });
    assert_eq!(cells("", "persistentvolumeclaims", claim), "a | Bound | v | 1Gi | RWO |  | <unset> | 5m | Filesystem");
}
