//! Pods and observations for the unit tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::k8s_openapi::ByteString;
use barque_api::k8s_openapi::api::core::v1::{ConfigMap, Secret};
use barque_api::k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::model::*;

/// A Pod `ns/p` with uid `u` and the given spec.
pub(crate) fn desired(spec: Value) -> Desired {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1},
        "spec": spec,
    });
    Desired {
        pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
        config_maps: BTreeMap::new(),
        secrets: BTreeMap::new(),
        key: 1,
        removed: false,
        fenced: false,
    }
}

pub(crate) fn with_config_map(desired: &mut Desired, name: &str, data: &[(&str, &str)]) {
    let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    desired.config_maps.insert(name.to_owned(), Arc::new(ConfigMap { data: Some(data), ..ConfigMap::default() }));
}

pub(crate) fn with_secret(desired: &mut Desired, name: &str, data: &[(&str, &str)]) {
    let data = data.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()))).collect();
    desired.secrets.insert(name.to_owned(), Arc::new(Secret { data: Some(data), ..Secret::default() }));
}

/// `seconds` after the tests' beginning of time.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("in range")
}

pub(crate) fn sandbox(running: bool) -> SandboxRecord {
    SandboxRecord {
        id: "sb".to_owned(),
        attempt: 0,
        running,
        ips: vec!["10.0.0.9".to_owned()],
        start_time: Some(at(0)),
    }
}

/// A record of a container with image `i`.
pub(crate) fn record(name: &str, restarts: u32, state: RunState) -> ContainerRecord {
    let spec = serde_json::from_value(json!({"name": name, "image": "i"})).expect("a container");
    ContainerRecord {
        id: format!("{name}-{restarts}"),
        name: name.to_owned(),
        sandbox: "sb".to_owned(),
        restarts,
        backoff_seconds: 0,
        spec_hash: spec_hash(&spec),
        image: "i".to_owned(),
        image_id: "docker://sha256:1".to_owned(),
        created_at: at(i64::from(restarts)),
        state,
    }
}

pub(crate) fn running() -> RunState {
    RunState::Running { started_at: at(1) }
}

/// Ended at `finished` with `code`.
pub(crate) fn exited(code: i32, finished: i64) -> RunState {
    RunState::Exited(Exit {
        started_at: Some(at(1)),
        finished_at: at(finished),
        code,
        oom_killed: false,
        start_error: false,
        message: String::new(),
    })
}

/// What is seen with a running sandbox and these containers.
pub(crate) fn seen(containers: Vec<ContainerRecord>) -> Observed {
    Observed { sandbox: Some(sandbox(true)), stale_sandboxes: Vec::new(), containers }
}

/// A memory in which the volumes are there.
pub(crate) fn ready() -> Memory {
    Memory { volumes: Volumes::Ready(1), start_time: Some(at(0)), ..Memory::default() }
}
