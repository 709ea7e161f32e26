use serde_json::{Value, json};

use super::*;
use crate::kinds;

fn pod(change: impl FnOnce(&mut Value)) -> Object {
    let mut value = json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}
    });
    change(&mut value);
    let mut object = Object::from_value(value).expect("an object");
    let registry = kinds::builtin();
    let row = registry.by_path("", "v1", "pods").expect("a row");
    (row.strategy.default)(&mut object);
    (row.strategy.prepare_create)(&mut object);
    object
}

fn texts(errors: Vec<FieldError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// The problems of a Pod with this spec changed.
fn problems(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let pod = pod(|pod| change(&mut pod["spec"]));
    let mut errors = validate(&pod);
    errors.extend(validate_create(&pod));
    texts(errors)
}

/// The problems of a Pod whose only container has this added.
fn container(added: Value) -> Vec<String> {
    problems(|spec| {
        let map = spec["containers"][0].as_object_mut().expect("an object");
        map.extend(added.as_object().expect("an object").clone());
    })
}

fn fine(errors: Vec<String>) {
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn a_plain_pod_is_fine() {
    fine(problems(|_| {}));
}

#[test]
fn containers_need_names_and_images() {
    assert_eq!(problems(|s| s["containers"] = json!([])), ["spec.containers: Required value"]);
    assert_eq!(
        problems(|s| s["containers"] =
            json!([{"image": " a"}, {"name": "A.b"}, {"name": "c", "image": "i"}, {"name": "c", "image": "i"}])),
        [
            "spec.containers[0].name: Required value",
            "spec.containers[1].name: Invalid value: \"A.b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.containers[1].image: Required value",
            "spec.containers[3].name: Duplicate value: \"c\"",
            "spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace",
        ]
    );
    assert_eq!(
        container(json!({"imagePullPolicy": "Sometimes"})),
        [
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\""
        ]
    );
}

#[test]
fn ports() {
    fine(container(json!({"ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81, "hostPort": 8081}]})));
    assert_eq!(
        container(json!({"ports": [
            {"name": "a", "containerPort": 0, "hostPort": 1}, {"name": "a", "containerPort": 70000, "protocol": "X"},
            {"containerPort": 1, "hostPort": 1}
        ]})),
        [
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[0].ports[2].hostPort: Duplicate value: \"TCP//1\"",
        ]
    );
}

#[test]
fn environment() {
    fine(container(json!({
        "env": [
            {"name": "A", "value": "x"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
            {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
        ],
        "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "P_"}]
    })));
    assert_eq!(
        container(json!({
            "env": [
                {"name": ""}, {"name": "A", "value": "x", "valueFrom": {"configMapKeyRef": {"name": "m", "key": ""}}},
                {"name": "B", "valueFrom": {}}, {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}},
                {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1k"}}},
                {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}
            ],
            "envFrom": [{}]
        })),
        [
            "spec.containers[0].env[0].name: Required value",
            "spec.containers[0].env[1].valueFrom.configMapKeyRef.key: Required value",
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            "spec.containers[0].env[3].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
            "spec.containers[0].env[4].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            "spec.containers[0].env[5].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ]
    );
}

#[test]
fn resources() {
    let of = |resources: Value| container(json!({"resources": resources}));
    fine(of(json!({"limits": {"cpu": "1", "memory": "1Gi", "example.com/gpu": 1}, "requests": {"cpu": "500m"}})));
    assert_eq!(
        of(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})),
        ["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"]
    );
    assert_eq!(
        of(json!({"requests": {"cpu": "-1", "gpu": "1", "memory": "1x"}})),
        [
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[memory]: Invalid value: \"1x\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ]
    );
    assert_eq!(
        of(json!({"requests": {"example.com/gpu": "1"}})),
        ["spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"]
    );
    assert_eq!(of(json!({"limits": {"example.com/gpu": "500m"}})).len(), 2);
}

#[test]
fn init_containers() {
    fine(problems(|s| {
        s["initContainers"] = json!([
            {"name": "i", "image": "i"},
            {"name": "s", "image": "i", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 1}}}
        ]);
    }));
    assert_eq!(
        problems(|s| s["initContainers"] =
            json!([{"name": "c", "image": "i", "lifecycle": {}, "livenessProbe": {}, "restartPolicy": "X"}])),
        [
            "spec.initContainers[0].restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.initContainers[0].name: Duplicate value: \"c\"",
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ]
    );
    assert_eq!(
        problems(|s| s["ephemeralContainers"] = json!([{"name": "e", "image": "i"}])),
        ["spec.ephemeralContainers: Forbidden: cannot be set on create"]
    );
}

#[test]
fn probes_and_hooks() {
    fine(container(json!({
        "livenessProbe": {"exec": {"command": ["a"]}}, "readinessProbe": {"httpGet": {"port": "http"}},
        "startupProbe": {"grpc": {"port": 1}}, "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}
    })));
    assert_eq!(
        container(json!({
            "livenessProbe": {"exec": {"command": []}, "successThreshold": 2, "periodSeconds": -1},
            "readinessProbe": {"httpGet": {"port": 0, "scheme": "FTP", "httpHeaders": [{"name": "a b"}]}, "terminationGracePeriodSeconds": 1},
            "startupProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 31}}, "postStart": {}}
        })),
        [
            "spec.containers[0].lifecycle.postStart: Required value: must specify a handler type",
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            "spec.containers[0].livenessProbe.exec.command: Required value",
            "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
            "spec.containers[0].readinessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
            "spec.containers[0].startupProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ]
    );
}

#[test]
fn volumes_and_mounts() {
    fine(problems(|s| {
        s["volumes"] = json!([
            {"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "b", "configMap": {"name": "m", "items": [{"key": "k", "path": "p/q"}]}},
            {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "e", "persistentVolumeClaim": {"claimName": "c"}}
        ]);
        s["containers"][0]["volumeMounts"] =
            json!([{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b", "subPath": "x"}]);
    }));
    assert_eq!(
        problems(|s| {
            s["volumes"] = json!([
                {"name": "a", "secret": {"defaultMode": 512}}, {"name": "a", "emptyDir": {}, "hostPath": {"path": "/../x"}},
                {"name": "", "configMap": {"name": "m", "items": [{"key": "", "path": "../x"}]}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}}
            ]);
            s["containers"][0]["volumeMounts"] = json!([
                {"name": "z", "mountPath": "/a"}, {"name": "a", "mountPath": "/a", "subPath": "/x"}, {"name": "a", "mountPropagation": "Bidirectional"}
            ]);
        }),
        [
            "spec.volumes[0].secret.secretName: Required value",
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
            "spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].name: Duplicate value: \"a\"",
            "spec.volumes[2].configMap.items[0].key: Required value",
            "spec.volumes[2].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
            "spec.volumes[2].name: Required value",
            "spec.volumes[3].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            "spec.containers[0].volumeMounts[0].name: Not found: \"z\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"/x\": must be a relative path",
            "spec.containers[0].volumeMounts[2].mountPath: Required value",
            "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            "spec.volumes[3].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
        ]
    );
}

#[test]
fn policies_and_names() {
    assert_eq!(
        problems(|s| {
            s["restartPolicy"] = json!("Maybe");
            s["dnsPolicy"] = json!("None");
            s["hostname"] = json!("a.b");
            s["nodeName"] = json!("N");
            s["activeDeadlineSeconds"] = json!(0);
            s["preemptionPolicy"] = json!("x");
            s["securityContext"] = json!({"runAsUser": -1, "seccompProfile": {"type": "Localhost"}});
            s["hostAliases"] = json!([{"ip": "x", "hostnames": ["A"]}]);
            s["schedulingGates"] = json!([{"name": "a"}, {"name": "a"}]);
        })
        .into_iter()
        .map(|text| text.split(" (e.g.").next().unwrap_or_default().to_owned())
        .collect::<Vec<_>>(),
        [
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 4294967295, inclusive",
            "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            "spec.schedulingGates[1]: Duplicate value: \"a\"",
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            "spec.nodeName: Invalid value: \"N\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            "spec.hostname: Invalid value: \"a.b\": must not contain dots",
            "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address,",
            "spec.hostAliases[0].hostnames[0]: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            "spec.preemptionPolicy: Unsupported value: \"x\": supported values: \"PreemptLowerPriority\", \"Never\"",
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ]
    );
}

#[test]
fn scheduling() {
    fine(problems(|s| {
        s["affinity"] = json!({
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]
            },
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", "labelSelector": {}}]}
        });
        s["tolerations"] =
            json!([{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5}]);
        s["topologySpreadConstraints"] =
            json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]);
    }));
    assert_eq!(
        problems(|s| {
            s["affinity"] = json!({
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In"}, {"key": "zone", "operator": "Is"}]}]}},
                "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "podAffinityTerm": {"topologyKey": "zone", "matchLabelKeys": ["a"]}}]}
            });
            s["tolerations"] =
                json!([{"value": "x"}, {"key": "a", "operator": "Exists", "value": "b", "effect": "No"}]);
            s["topologySpreadConstraints"] = json!([
                {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1},
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
            ]);
        }),
        [
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].operator: Invalid value: \"Is\": not a valid selector operator",
            "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
            "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, ScheduleAnyway}\"",
            "spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
            "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
            "spec.tolerations[1].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ]
    );
}

#[test]
fn host_network_and_security() {
    fine(problems(|s| {
        s["hostNetwork"] = json!(true);
        s["containers"][0]["ports"] = json!([{"containerPort": 80}]);
    }));
    assert_eq!(
        problems(|s| {
            s["hostNetwork"] = json!(true);
            s["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 81}]);
        }),
        [
            "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"
        ]
    );
    assert_eq!(
        container(
            json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false, "procMount": "X"}})
        ),
        [
            "spec.containers[0].securityContext.procMount: Unsupported value: \"X\": supported values: \"Default\", \"Unmasked\"",
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true,\"procMount\":\"X\"}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ]
    );
}

#[test]
fn little_of_a_pod_may_change() {
    let old = pod(|p| p["spec"]["activeDeadlineSeconds"] = json!(10));
    let changed = |change: &dyn Fn(&mut Value)| {
        let new = pod(|p| {
            p["spec"]["activeDeadlineSeconds"] = json!(10);
            change(&mut p["spec"]);
        });
        texts(validate_update(&new, &old))
    };
    fine(changed(&|_| {}));
    fine(changed(&|s| s["containers"][0]["image"] = json!("nginx:2")));
    fine(changed(&|s| s["activeDeadlineSeconds"] = json!(5)));
    fine(changed(&|s| s["tolerations"] = json!([{"operator": "Exists"}])));
    assert_eq!(
        changed(&|s| s["activeDeadlineSeconds"] = json!(11)),
        ["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"]
    );
    assert_eq!(
        changed(&|s| s["containers"] = json!([])),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    assert_eq!(
        changed(&|s| s["schedulingGates"] = json!([{"name": "a/b"}])),
        ["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a/b'"]
    );
    assert_eq!(
        changed(&|s| s["containers"][0]["args"] = json!(["x"])),
        [
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n- spec.containers[0].args: null\n+ spec.containers[0].args: [\"x\"]\n"
        ]
    );
}

#[test]
fn gated_pods_may_be_narrowed() {
    let gated = |change: &dyn Fn(&mut Value)| {
        pod(|p| {
            p["spec"]["schedulingGates"] = json!([{"name": "a/b"}]);
            p["spec"]["nodeSelector"] = json!({"a": "b"});
            change(&mut p["spec"]);
        })
    };
    let old = gated(&|_| {});
    let narrow = gated(&|s| {
        s["nodeSelector"] = json!({"a": "b", "c": "d"});
        s["schedulingGates"] = json!([]);
    });
    fine(texts(validate_update(&narrow, &old)));
    let other = gated(&|s| s["nodeSelector"] = json!({"a": "c"}));
    assert_eq!(
        texts(validate_update(&other, &old)),
        ["spec.nodeSelector: Invalid value: {\"a\":\"c\"}: only additions are allowed (no mutations or deletions)"]
    );
}

#[test]
fn statuses_keep_what_is_settled() {
    let with = |status: Value| {
        let mut pod = pod(|p| p["spec"]["restartPolicy"] = json!("Never"));
        pod.0.insert("status".to_owned(), status);
        pod
    };
    let ended = json!([{"name": "c", "state": {"terminated": {"exitCode": 1}}}]);
    let old = with(json!({"qosClass": "BestEffort", "containerStatuses": ended}));
    let new = with(json!({
        "qosClass": "Burstable", "containerStatuses": [{"name": "c", "state": {"running": {}}}],
        "podIPs": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "hostIP": "1.1.1.3", "hostIPs": [{"ip": "x"}]
    }));
    assert_eq!(
        texts(validate_status_update(&new, &old)),
        [
            "status.qosClass: Invalid value: \"Burstable\": field is immutable",
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            "status.podIPs: Invalid value: [{\"ip\":\"1.1.1.1\"},{\"ip\":\"1.1.1.2\"}]: may specify no more than one IP for each IP family",
            "status.hostIPs[0].ip: Invalid value: \"x\": must be equal to `hostIP`",
            "status.hostIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ]
    );
}

#[test]
fn bindings_name_a_node() {
    let binding = |value: Value| texts(validate_binding(&Object::from_value(value).expect("an object")));
    fine(binding(json!({"target": {"kind": "Node", "name": "n"}})));
    assert_eq!(
        binding(json!({"target": {"kind": "Pod"}})),
        [
            "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
            "target.name: Required value",
        ]
    );
}
