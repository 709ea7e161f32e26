//! A whole cluster as processes: `barque dev` in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use crate::client::Client;
use crate::kubeconfig::{Access, Kubeconfig};
use crate::ports::PortRange;
use crate::process;
use crate::wait::{DEADLINE, eventually, wait_for};

/// Line of output that says that the cluster can be used.
const READY: &str = "barque dev: ready";
/// How long a cluster may take to stop in order before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(90);
/// Bytes of each log shown when a test fails.
const LOG_TAIL: usize = 6_000;

/// What cluster to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Masters.
    pub masters: u16,
    /// Agents on Docker.
    pub agents: u16,
    /// Simulated nodes.
    pub simulated_nodes: u32,
    /// YAML laid over each master's configuration.
    pub config: Option<String>,
    /// Files (name, content) laid beside that YAML.
    pub files: Vec<(String, String)>,
    /// Forget an earlier cluster in the directory.
    pub fresh: bool,
    /// An existing directory to use instead of a new one in the system's
    /// temporary directory.
    pub directory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            masters: 3,
            agents: 0,
            simulated_nodes: 0,
            config: None,
            files: Vec::new(),
            fresh: false,
            directory: None,
        }
    }
}

impl Options {
    /// Three masters and simulated nodes.
    #[must_use]
    pub fn simulated(nodes: u32) -> Self {
        Self { simulated_nodes: nodes, ..Self::default() }
    }

    /// Three masters and one agent on Docker.
    #[must_use]
    pub fn docker() -> Self {
        Self { agents: 1, ..Self::default() }
    }

    /// Lays a configuration over each master's.
    #[must_use]
    pub fn config(mut self, yaml: &str) -> Self {
        self.config = Some(yaml.to_owned());
        self
    }
}

/// A line of `cluster.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// `leader`, `follower`, `learner`, `witness` or `agent`; something else
    /// or nothing while it is down.
    #[serde(default)]
    pub role: Option<String>,
    /// Its process, as last known.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Where it serves clients (a master).
    #[serde(default)]
    pub url: Option<String>,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
}

impl Member {
    /// Whether it is (or was) an agent.
    #[must_use]
    pub fn is_agent(&self) -> bool {
        self.role.as_deref() == Some("agent")
    }

    /// Its process id.
    ///
    /// # Panics
    /// When `cluster.json` gives none.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.unwrap_or_else(|| panic!("{} has no pid in cluster.json", self.name))
    }

    /// Whether its process runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.pid.is_some_and(process::alive)
    }
}

/// A running cluster. Dropping it stops everything and, when the test is
/// failing, shows the ends of all logs.
pub struct Cluster {
    root: PathBuf,
    temporary: Option<TempDir>,
    ports: PortRange,
    options: Options,
    dev: Option<Child>,
    access: Option<Access>,
}

impl Cluster {
    /// Starts a cluster and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(options: Options) -> Self {
        let (root, temporary) = match &options.directory {
            Some(directory) => (directory.clone(), None),
            None => {
                let temporary =
                    tempfile::Builder::new().prefix("barque-test-").tempdir().expect("a temporary directory");
                (temporary.path().to_path_buf(), Some(temporary))
            }
        };
        let ports = PortRange::reserve();
        let mut cluster = Self { root, temporary, ports, options, dev: None, access: None };
        cluster.launch().await;
        cluster
    }

    /// Starts `barque dev` on the directory (again) and waits until ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn launch(&mut self) {
        assert!(self.dev.is_none(), "it runs already");
        std::fs::create_dir_all(&self.root).expect("the cluster's directory can be created");
        let mut command = if process::on_path("setpriv") {
            // It ends with the test even when that is killed.
            let mut command = std::process::Command::new("setpriv");
            command.args(["--pdeathsig", "TERM", "--"]).arg(process::barque());
            command
        } else {
            std::process::Command::new(process::barque())
        };
        command
            .args(["dev", "--dir"])
            .arg(self.dir())
            .args(["--masters", &self.options.masters.to_string()])
            .args(["--agents", &self.options.agents.to_string()])
            .args(["--simulated-nodes", &self.options.simulated_nodes.to_string()])
            .args(["--base-port", &self.ports.base().to_string()]);
        if self.options.fresh {
            command.arg("--fresh");
        }
        for (name, content) in &self.options.files {
            std::fs::write(self.root.join(name), content).expect("a file can be written");
        }
        if let Some(yaml) = &self.options.config {
            let path = self.root.join("overlay.yaml");
            std::fs::write(&path, yaml).expect("the overlay can be written");
            command.arg("--config").arg(path);
        }
        let log = |name| std::fs::File::create(self.root.join(name)).expect("a log file can be created");
        command.stdin(Stdio::null()).stdout(log("dev.out")).stderr(log("dev.err"));
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.dev = Some(command.spawn().expect("the barque binary can be started"));

        let out = self.root.join("dev.out");
        let end = Instant::now() + DEADLINE;
        loop {
            if std::fs::read_to_string(&out).unwrap_or_default().lines().any(|line| line.trim() == READY) {
                break;
            }
            let ended = self.dev.as_mut().expect("just started").try_wait().expect("it is our child");
            assert!(ended.is_none(), "barque dev ended before it was ready: {}", ended.expect("checked"));
            assert!(Instant::now() < end, "barque dev was not ready within {}s", DEADLINE.as_secs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let config = Kubeconfig::read(&self.kubeconfig()).expect("barque dev writes a usable kubeconfig");
        self.access = Some(config.access(None).expect("the kubeconfig's current context is usable"));
    }

    /// The directory given to `barque dev`.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.root.join("cluster")
    }

    /// Beside [`Self::dir`]: logs and scratch files.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.root
    }

    /// Its kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// Credentials and trust of the kubeconfig's current context.
    #[must_use]
    pub fn access(&self) -> &Access {
        self.access.as_ref().expect("set when the cluster became ready")
    }

    /// Process id of `barque dev` itself.
    #[must_use]
    pub fn dev_pid(&self) -> u32 {
        self.dev.as_ref().expect("it runs").id()
    }

    /// What `cluster.json` says now.
    ///
    /// # Panics
    /// When it cannot be read or has another shape.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.try_members().unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_members(&self) -> Result<Vec<Member>, String> {
        let path = self.dir().join("cluster.json");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}: {text}", path.display()))
    }

    /// All masters, in the order of their names.
    #[must_use]
    pub fn masters(&self) -> Vec<Member> {
        let mut masters: Vec<_> =
            self.members().into_iter().filter(|member| !member.is_agent() && member.url.is_some()).collect();
        masters.sort_by(|a, b| a.name.cmp(&b.name));
        masters
    }

    /// All agents.
    #[must_use]
    pub fn agents(&self) -> Vec<Member> {
        self.members().into_iter().filter(Member::is_agent).collect()
    }

    /// One member by name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn member(&self, name: &str) -> Member {
        self.members().into_iter().find(|member| member.name == name).unwrap_or_else(|| panic!("no member {name}"))
    }

    /// Waits until a live master is known as leader.
    pub async fn leader(&self) -> Member {
        eventually("a leader in cluster.json", || async {
            let members = self.try_members()?;
            members
                .iter()
                .find(|member| member.role.as_deref() == Some("leader") && member.alive())
                .cloned()
                .ok_or_else(|| format!("{members:?}"))
        })
        .await
    }

    /// Any live master that does not lead.
    pub async fn follower(&self) -> Member {
        let leader = self.leader().await;
        eventually("a live follower", || async {
            let mut followers = self.masters();
            followers.retain(|member| member.name != leader.name && member.alive());
            let chosen = rand::random::<u32>() as usize % followers.len().max(1);
            followers.into_iter().nth(chosen).ok_or("no live master besides the leader")
        })
        .await
    }

    /// A client over the kubeconfig's current context: all masters.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.access())
    }

    /// A client of one master.
    #[must_use]
    pub fn client_of(&self, master: &Member) -> Client {
        Client::at(self.access(), master.url.as_deref().expect("a master has a URL"))
    }

    /// A client of each master.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        self.masters().iter().map(|master| self.client_of(master)).collect()
    }

    /// Kills a member the hard way and waits until its process is gone.
    pub async fn kill(&self, member: &Member) {
        assert!(process::signal(member.pid(), Signal::SIGKILL), "{} does not run", member.name);
        eventually("a killed process is gone", || async {
            if member.alive() { Err(format!("{} is still there", member.name)) } else { Ok(()) }
        })
        .await;
    }

    /// `barque dev restart NAME`.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn try_restart(&self, name: &str) -> std::process::Output {
        let mut command = Command::new(process::barque());
        command.args(["dev", "restart", name, "--dir"]).arg(self.dir());
        process::run(command, b"", DEADLINE).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a dead member again and waits until its new process runs.
    ///
    /// # Panics
    /// When `barque dev restart` fails.
    pub async fn restart(&self, name: &str) -> Member {
        let output = self.try_restart(name).await;
        assert!(
            output.status.success(),
            "barque dev restart {name}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        eventually("a restarted member runs", || async {
            let members = self.try_members()?;
            members
                .iter()
                .find(|member| member.name == name && member.alive())
                .cloned()
                .ok_or_else(|| format!("{members:?}"))
        })
        .await
    }

    /// Waits until a master answers `/readyz` with 200.
    pub async fn await_ready(&self, master: &Member) {
        let client = self.client_of(master);
        eventually(&format!("{} is ready", master.name), || async {
            let response = client.get("/readyz?verbose").await.map_err(|error| error.to_string())?;
            if response.status == 200 { Ok(()) } else { Err(format!("{}: {}", response.status, response.text())) }
        })
        .await;
    }

    /// Waits until that many nodes are Ready.
    pub async fn await_nodes(&self, count: usize) {
        let client = self.client();
        eventually(&format!("{count} nodes are Ready"), || async {
            let response = client.get("/api/v1/nodes").await.map_err(|error| error.to_string())?;
            if response.status != 200 {
                return Err(response.text());
            }
            let list = response.json();
            let ready = list["items"].as_array().map_or(0, |items| items.iter().filter(|node| is_ready(node)).count());
            if ready >= count { Ok(()) } else { Err(format!("{ready} are")) }
        })
        .await;
    }

    /// Creates a namespace with a name of its own and waits until Pods can be
    /// created in it.
    ///
    /// # Panics
    /// When it cannot be created.
    pub async fn namespace(&self, prefix: &str) -> String {
        let name = crate::unique(prefix);
        let client = self.client();
        let object = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let _ = client.post("/api/v1/namespaces", &object).await.expect("an answer").expect(201);
        eventually("the namespace has its default ServiceAccount", || async {
            let path = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
            let response = client.get(&path).await.map_err(|error| error.to_string())?;
            if response.status == 200 { Ok(()) } else { Err(response.text()) }
        })
        .await;
        name
    }

    /// Stops everything as Ctrl-C does; [`Self::launch`] starts it again.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub async fn stop(&mut self) {
        let Some(mut dev) = self.dev.take() else { return };
        assert!(process::signal(dev.id(), Signal::SIGINT), "barque dev does not run");
        let stopped = wait_for(STOP_DEADLINE, || {
            let ended = dev.try_wait().expect("it is our child");
            async move { ended.ok_or("barque dev still runs after SIGINT") }
        })
        .await;
        if let Err(reason) = stopped {
            self.dev = Some(dev);
            panic!("{reason}");
        }
    }

    /// Ends of all logs, for a failure's report.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut files = vec![self.root.join("dev.out"), self.root.join("dev.err")];
        collect_logs(&self.dir(), 3, &mut files);
        let mut text = String::new();
        for path in files {
            if let Ok(bytes) = std::fs::read(&path) {
                let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL)..]).into_owned();
                text.push_str(&format!("----- {}\n{tail}\n", path.display()));
            }
        }
        text
    }
}

/// Whether a Node's (or Pod's) condition `Ready` is `True`.
#[must_use]
pub fn is_ready(object: &Value) -> bool {
    object["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
}

fn collect_logs(directory: &Path, depth: u32, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            collect_logs(&path, depth - 1, into);
        } else if path.file_name().is_some_and(|name| name == "output.log") {
            into.push(path);
        }
    }
}

impl Drop for Cluster {
    #[expect(clippy::disallowed_methods, reason = "drop cannot await")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if std::env::var_os("BARQUE_TEST_KEEP").is_some()
            && let Some(temporary) = self.temporary.take()
        {
            eprintln!("kept: {}", temporary.keep().display());
        }
        let marker = self.dir().display().to_string();
        let members = self.try_members().unwrap_or_default();
        if let Some(mut dev) = self.dev.take() {
            // A stopped process does not hear SIGTERM.
            for pid in members.iter().filter_map(|member| member.pid).filter(|pid| is_ours(*pid, &marker)) {
                let _ = process::signal(pid, Signal::SIGCONT);
            }
            let _ = process::signal(dev.id(), Signal::SIGTERM);
            let end = std::time::Instant::now() + STOP_DEADLINE;
            while std::time::Instant::now() < end && matches!(dev.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(50));
            }
            process::signal_group(dev.id(), Signal::SIGKILL);
            let _ = dev.wait();
        }
        for pid in members.iter().filter_map(|member| member.pid).filter(|pid| is_ours(*pid, &marker)) {
            let _ = process::signal(pid, Signal::SIGKILL);
        }
    }
}

/// Whether a process works on our directory: its id may long be another's.
fn is_ours(pid: u32, marker: &str) -> bool {
    process::command_line(pid).is_some_and(|line| line.contains(marker))
}
