//! Pods on a real Docker engine. Skipped, with a word, where there is none or
//! where Debian's static busybox is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use barque_agent::assignments::PodChange;
use barque_agent::docker::create::Site;
use barque_agent::docker::engine::{self, Engine};
use barque_agent::docker::{DockerRuntime, labels};
use barque_agent::options::{DEFAULT_DOCKER_SOCKET, DockerOptions};
use barque_agent::outbox::Outbox;
use barque_agent::pods::env::Runtime;
use barque_agent::pods::model::Desired;
use barque_agent::runtime::{PodRuntime, Update};
use barque_agent::{docker_available, remove_cluster_containers};
use barque_api::k8s_openapi::api::core::v1::ConfigMap;
use barque_api::world::World;
use barque_proto::v1::{AgentEvent, LogsRequest, StatusReceipt};
use bollard::body_full;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "barque-test-busybox:1";
const BUSYBOX: &str = "/bin/busybox";
/// Longest wait for anything; a slow disk under load takes its time.
const PATIENCE: Duration = Duration::from_secs(90);

static NUMBER: AtomicU32 = AtomicU32::new(0);

struct Bench {
    cluster: String,
    dir: tempfile::TempDir,
    node: Option<Node>,
    history: Vec<Value>,
    events: Vec<AgentEvent>,
}

struct Node {
    runtime: Arc<DockerRuntime>,
    outbox: Arc<Outbox>,
    shutdown: CancellationToken,
}

/// What is needed for a test, or none where Docker is missing.
async fn bench() -> Option<Bench> {
    if !docker_available(DEFAULT_DOCKER_SOCKET).await || !std::path::Path::new(BUSYBOX).exists() {
        eprintln!("skipped: needs a Docker engine and {BUSYBOX} (Debian's busybox-static)");
        return None;
    }
    let docker = engine::connect(DEFAULT_DOCKER_SOCKET).await.expect("connects");
    if docker.inspect_image(IMAGE).await.is_err() {
        let tar = std::process::Command::new("tar").args(["-c", "-C", "/", "bin/busybox"]).output().expect("tar runs");
        assert!(tar.status.success(), "{tar:?}");
        let (repository, tag) = IMAGE.split_once(':').expect("has a tag");
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
        let mut answers = Box::pin(docker.create_image(Some(options), Some(body_full(tar.stdout.into())), None));
        while let Some(answer) = answers.next().await {
            answer.expect("imports");
        }
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let cluster = format!("barque-test-{}-{number}", std::process::id());
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = Bench { cluster, dir, node: None, history: Vec::new(), events: Vec::new() };
    bench.start().await;
    Some(bench)
}

impl Bench {
    /// An agent's runtime, as after a start of its process.
    async fn start(&mut self) {
        let docker = engine::connect(DEFAULT_DOCKER_SOCKET).await.expect("connects");
        let site = Site {
            cluster: self.cluster.clone(),
            node: format!("{}-node", self.cluster),
            docker: DockerOptions::default(),
            cluster_dns: vec![],
            cluster_domain: "cluster.local".into(),
            memory: 1 << 33,
        };
        let facts = Runtime { host_ip: "192.0.2.1".into(), ..Runtime::default() };
        let (outbox, shutdown) = (Arc::new(Outbox::default()), CancellationToken::new());
        let engine = Engine { docker, data_dir: self.dir.path().to_owned(), world: World::system() };
        let architecture = std::env::consts::ARCH.to_owned();
        let runtime = DockerRuntime::new(engine, site, facts, architecture, Arc::clone(&outbox), shutdown.clone());
        self.node = Some(Node { runtime, outbox, shutdown });
    }

    /// The agent's process ends; containers go on.
    async fn stop(&mut self) {
        let node = self.node.take().expect("was started");
        node.shutdown.cancel();
        tokio::time::timeout(PATIENCE, node.runtime.stopped()).await.expect("stops in time");
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("is started")
    }

    fn uid(&self) -> String {
        format!("{}-uid", self.cluster)
    }

    fn pod(&self, mut spec: Value) -> Desired {
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                if container["image"].is_null() {
                    container["image"] = json!(IMAGE);
                }
            }
        }
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": self.uid()}, "spec": spec});
        Desired {
            pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
            config_maps: BTreeMap::new(),
            secrets: BTreeMap::new(),
            key: 1,
            removed: false,
            fenced: false,
        }
    }

    fn set(&self, pod: &Desired) {
        let changes = vec![PodChange::Upsert(Arc::new(pod.clone()))];
        Arc::clone(&self.node().runtime).update("n", Update { changes, assigned: None });
    }

    /// Takes what is reported, as a leader would, until `enough`.
    async fn listen(&mut self, what: &str, mut enough: impl FnMut(&[(Value, bool)], &[AgentEvent]) -> bool) {
        let outbox = Arc::clone(&self.node().outbox);
        let wait = async {
            loop {
                let Some(batch) = outbox.next_batch() else {
                    outbox.changed().await;
                    continue;
                };
                outbox.receipt(&StatusReceipt { sequence: batch.sequence, term: 1, refused: vec![] });
                self.events.extend(batch.events);
                let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
                let fresh: Vec<_> = batch.pods.iter().map(|pod| (json(&pod.status), pod.terminated)).collect();
                self.history.extend(fresh.iter().map(|(status, _)| status.clone()));
                if enough(&fresh, &self.events) {
                    return;
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        assert!(found.is_ok(), "not {what}; last: {:#?}, events: {:#?}", self.history.last(), self.events);
    }

    /// The first status that fits.
    async fn until(&mut self, what: &str, fits: impl Fn(&Value, bool) -> bool) -> Value {
        let mut found = None;
        let enough = |fresh: &[(Value, bool)], _: &[AgentEvent]| {
            found = fresh.iter().find(|(status, terminated)| fits(status, *terminated)).map(|(s, _)| s.clone());
            found.is_some()
        };
        self.listen(what, enough).await;
        found.expect("found just now")
    }

    /// Waits until this was told as an event.
    async fn told(&mut self, reason: &str, message: &str) {
        let is = |event: &AgentEvent| event.reason == reason && event.message.contains(message);
        if !self.events.iter().any(is) {
            self.listen(message, |_, events| events.iter().any(is)).await;
        }
    }

    async fn running(&mut self) -> Value {
        self.until("running", |status, _| {
            let containers = status["containerStatuses"].as_array().expect("a list");
            containers.iter().all(|container| container["ready"] == true)
        })
        .await
    }

    async fn logs(&self, container: &str, edit: impl FnOnce(&mut LogsRequest)) -> Result<String, tonic::Status> {
        let mut request = LogsRequest {
            namespace: "ns".into(),
            pod: "p".into(),
            uid: self.uid(),
            container: container.into(),
            ..LogsRequest::default()
        };
        edit(&mut request);
        let mut chunks = Arc::clone(&self.node().runtime).logs(request).await?;
        let mut text = Vec::new();
        while let Some(chunk) = chunks.next().await {
            text.extend_from_slice(&chunk?);
        }
        Ok(String::from_utf8(text).expect("text"))
    }

    async fn log_line(&self, container: &str, wanted: &str) {
        let wait = async {
            while !self.logs(container, |_| {}).await.unwrap_or_default().lines().any(|line| line == wanted) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        assert!(found.is_ok(), "no {wanted:?} in {:?}", self.logs(container, |_| {}).await);
    }

    async fn containers(&self) -> usize {
        let docker = engine::connect(DEFAULT_DOCKER_SOCKET).await.expect("connects");
        let engine = Engine { docker, data_dir: self.dir.path().to_owned(), world: World::system() };
        engine.find(&[(labels::CLUSTER, &self.cluster)]).await.expect("answers").len()
    }

    async fn no_containers(&self) {
        let wait = async {
            while self.containers().await > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("containers are removed");
    }
}

impl Drop for Bench {
    /// A test that fails leaves no container behind either.
    fn drop(&mut self) {
        if let Some(node) = &self.node {
            node.shutdown.cancel();
        }
        let cluster = self.cluster.clone();
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(remove_cluster_containers(&cluster)).map_err(std::io::Error::other)
        });
        if !matches!(removal.join(), Ok(Ok(()))) {
            eprintln!("containers of cluster {} may be left", self.cluster);
        }
    }
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "command": [BUSYBOX, "sh", "-c", script], "imagePullPolicy": "IfNotPresent"})
}

/// Ends at once on SIGTERM.
const WAIT: &str = "trap 'exit 0' TERM; while true; do /bin/busybox sleep 0.2; done";

fn id(status: &Value, index: usize) -> String {
    status["containerStatuses"][index]["containerID"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_pod_lives_survives_its_agent_and_dies() {
    let Some(mut bench) = bench().await else { return };
    let mut main = shell(
        "a",
        "echo \"$GREETING from $POD_IP\"; /bin/busybox cat /etc/config/k; trap '' TERM; \
         while true; do /bin/busybox cat /etc/config/k; echo; /bin/busybox sleep 0.2; done",
    );
    main["env"] = json!([
        {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "greeting"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    main["volumeMounts"] =
        json!([{"name": "config", "mountPath": "/etc/config"}, {"name": "shared", "mountPath": "/shared"}]);
    let mut helper = shell("b", &format!("echo x > /shared/x; {WAIT}"));
    helper["volumeMounts"] =
        json!([{"name": "shared", "mountPath": "/shared"}, {"name": "fast", "mountPath": "/fast"}]);
    helper["resources"] = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
    let mut pod = bench.pod(json!({
        "terminationGracePeriodSeconds": 2,
        "initContainers": [shell("i", "echo ready > /dev/termination-log")],
        "containers": [main, helper],
        "volumes": [{"name": "config", "configMap": {"name": "cm"}}, {"name": "shared", "emptyDir": {}},
                    {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}));
    bench.set(&pod);
    bench.told("FailedMount", r#"MountVolume.SetUp failed for volume "config" : configmap "cm" not found"#).await;
    let map = |value: &str| {
        let data = BTreeMap::from([("greeting".to_owned(), "hello".to_owned()), ("k".to_owned(), value.to_owned())]);
        Arc::new(ConfigMap { data: Some(data), ..ConfigMap::default() })
    };
    pod.config_maps.insert("cm".to_owned(), map("one"));
    pod.key = 2;
    bench.set(&pod);
    let up = bench.running().await;
    let ip = up["podIP"].as_str().expect("an address").to_owned();
    assert_eq!(up["initContainerStatuses"][0]["state"]["terminated"]["message"], "ready\n");
    assert_eq!(up["phase"], "Running");
    bench.log_line("a", &format!("hello from {ip}")).await;
    bench.told("Pulled", &format!("Container image \"{IMAGE}\" already present on machine")).await;
    bench.told("Started", "Container started").await;
    let stamped = bench.logs("a", |request| {
        request.timestamps = true;
        request.follow = true;
        request.limit_bytes = Some(300);
    });
    let stamped = stamped.await.expect("opens");
    assert!(stamped.len() == 300 && stamped.starts_with("20") && stamped.contains("Z hello from"), "{stamped}");

    // The agent dies and comes back: the same containers, not one restarted.
    bench.stop().await;
    assert_eq!(bench.containers().await, 4);
    bench.start().await;
    bench.set(&pod);
    let adopted = bench.running().await;
    assert_eq!((id(&adopted, 0), id(&adopted, 1)), (id(&up, 0), id(&up, 1)));
    assert_eq!(adopted["startTime"], up["startTime"]);
    assert_eq!(adopted["podIP"], up["podIP"]);
    assert_eq!(adopted["containerStatuses"][0]["restartCount"], 0);

    pod.config_maps.insert("cm".to_owned(), map("two"));
    pod.key = 3;
    bench.set(&pod);
    bench.log_line("a", "two").await;

    // SIGTERM is ignored by one of them: the grace passes, then SIGKILL.
    let metadata = &mut Arc::make_mut(&mut pod.pod).metadata;
    metadata.deletion_timestamp =
        Some(barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(World::system().now()));
    metadata.deletion_grace_period_seconds = Some(2);
    let begun = tokio::time::Instant::now();
    bench.set(&pod);
    let end = bench.until("terminated", |_, terminated| terminated).await;
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(end["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    assert_eq!(end["containerStatuses"][1]["state"]["terminated"]["exitCode"], 0);
    assert_eq!(end["phase"], "Failed");
    bench.told("Killing", "Stopping container a").await;
    let changes = vec![PodChange::Remove(bench.uid())];
    Arc::clone(&bench.node().runtime).update("n", Update { changes, assigned: None });
    bench.no_containers().await;
    // The directory goes after the containers.
    let directory = bench.dir.path().join("pods").join(bench.uid());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while directory.exists() {
        assert!(tokio::time::Instant::now() < deadline, "the Pod's directory stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn crashes_are_counted_backed_off_and_remembered() {
    let Some(mut bench) = bench().await else { return };
    let script = "echo attempt; echo -n because > /dev/termination-log; exit 3";
    bench.set(&bench.pod(json!({"containers": [shell("a", script)]})));
    let is_looping =
        |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let looping = bench.until("in a crash loop", |status, _| is_looping(status)).await;
    let container = &looping["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(container["lastState"]["terminated"]["message"], "because");
    let message = format!("back-off 10s restarting failed container=a pod=p_ns({})", bench.uid());
    assert_eq!(container["state"]["waiting"]["message"], message.as_str());
    assert_eq!(bench.logs("a", |request| request.previous = true).await.expect("opens"), "attempt\n");
    // A new agent neither forgets the count nor the wait.
    bench.stop().await;
    bench.start().await;
    bench.set(&bench.pod(json!({"containers": [shell("a", script)]})));
    let looping = bench.until("in a crash loop", |status, _| is_looping(status)).await;
    let count = looping["containerStatuses"][0]["restartCount"].as_i64().expect("a number");
    assert!((1..=2).contains(&count), "{count}");
}

#[tokio::test]
async fn a_job_ends_as_its_containers_do() {
    let Some(mut bench) = bench().await else { return };
    let pod = json!({"restartPolicy": "Never", "containers": [shell("a", "exit 0"), shell("b", "exit 7")]});
    bench.set(&bench.pod(pod));
    let end = bench.until("ended", |status, terminated| status["phase"] == "Failed" && terminated).await;
    assert_eq!(end["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(end["containerStatuses"][1]["state"]["terminated"]["exitCode"], 7);
    assert_eq!(end["containerStatuses"][1]["state"]["terminated"]["reason"], "Error");
    let nothing = bench.logs("a", |request| request.previous = true).await.expect_err("there was none");
    assert!(nothing.message().contains("previous terminated container"), "{nothing:?}");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let Some(mut bench) = bench().await else { return };
    let never = json!({"name": "never", "image": "barque-test-none:1", "imagePullPolicy": "Never"});
    let pull = json!({"name": "pull", "image": "127.0.0.1:1/barque-test-none:1", "imagePullPolicy": "IfNotPresent"});
    let mut config = shell("config", "true");
    config["envFrom"] = json!([{"configMapRef": {"name": "gone"}}]);
    let start = json!({"name": "start", "command": ["/nothing/here"], "imagePullPolicy": "IfNotPresent"});
    bench.set(&bench.pod(json!({"containers": [never, pull, config, start]})));
    let reason = |status: &Value, index: usize| {
        status["containerStatuses"][index]["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned()
    };
    let all = bench.until("all refused", |status, _| {
        reason(status, 0) == "ErrImageNeverPull"
            && reason(status, 1) == "ImagePullBackOff"
            && reason(status, 2) == "CreateContainerConfigError"
            && reason(status, 3) == "CrashLoopBackOff"
    });
    let status = all.await;
    let message = |index: usize| status["containerStatuses"][index]["state"]["waiting"]["message"].clone();
    assert_eq!(message(0), "Container image \"barque-test-none:1\" is not present with pull policy of Never");
    assert_eq!(message(2), r#"configmap "gone" not found"#);
    let last = &status["containerStatuses"][3]["lastState"]["terminated"];
    assert_eq!((&last["reason"], &last["exitCode"]), (&json!("StartError"), &json!(128)));
    bench.told("Failed", "Error: ErrImagePull").await;
}

#[tokio::test]
async fn probes_decide_readiness_and_life() {
    let Some(mut bench) = bench().await else { return };
    let mut web = shell("web", "/bin/busybox httpd -f -p 8080 -h /");
    web["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    web["readinessProbe"] = json!({"httpGet": {"path": "/bin/busybox", "port": "http"}, "periodSeconds": 1});
    web["startupProbe"] = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    let mut sick = shell("sick", WAIT);
    sick["livenessProbe"] = json!({"exec": {"command": [BUSYBOX, "false"]}, "periodSeconds": 1, "failureThreshold": 1});
    bench.set(&bench.pod(json!({"terminationGracePeriodSeconds": 1, "containers": [web, sick]})));
    bench
        .until("ready and restarted", |status, _| {
            status["containerStatuses"][0]["ready"] == true && status["containerStatuses"][1]["restartCount"] == 1
        })
        .await;
    bench.told("Killing", "Container sick failed liveness probe, will be restarted").await;
    bench.told("Unhealthy", "Liveness probe failed: ").await;
}

#[tokio::test]
async fn containers_that_nobody_assigned_go_only_after_a_complete_order() {
    let Some(mut bench) = bench().await else { return };
    bench.set(&bench.pod(json!({"terminationGracePeriodSeconds": 2, "containers": [shell("a", WAIT)]})));
    bench.running().await;
    bench.stop().await;
    bench.start().await;
    assert_eq!(bench.containers().await, 2, "a start alone removes nothing");
    Arc::clone(&bench.node().runtime).update("n", Update { changes: vec![], assigned: Some([].into()) });
    bench.no_containers().await;
}
