//! Docker as a witness: what really runs, by the engine's own word.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::process;

/// The image that test Pods run: busybox, from this machine's own binary.
pub const IMAGE: &str = "barque-test/busybox:1";

const CALL_DEADLINE: Duration = Duration::from_mins(2);
const APPLETS: &[&str] = &[
    "sh", "sleep", "cat", "echo", "env", "true", "false", "httpd", "ls", "kill", "ps", "printf", "head", "tail", "wc",
    "id", "hostname", "mkdir", "touch", "rm", "test", "wget", "nc", "date", "grep", "stat", "df", "ip", "seq", "trap",
];

static IMAGE_BUILT: OnceCell<Result<(), String>> = OnceCell::const_new();

/// Whether an engine answers, and the test image can be made.
pub async fn available() -> bool {
    if !process::on_path("docker") || docker(&["version", "--format", "{{.Server.Version}}"]).await.is_err() {
        return false;
    }
    match IMAGE_BUILT.get_or_init(build_image).await {
        Ok(()) => true,
        Err(reason) => {
            println!("no test image: {reason}");
            false
        }
    }
}

/// Runs `docker` and returns its standard output.
///
/// # Errors
/// Its standard error when it fails.
pub async fn docker(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("docker");
    command.args(arguments);
    let output = process::run(command, b"", CALL_DEADLINE).await?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)))
    }
}

/// Makes [`IMAGE`] out of a static busybox, so that no test needs a registry.
async fn build_image() -> Result<(), String> {
    if docker(&["image", "inspect", IMAGE]).await.is_ok() {
        return Ok(());
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find(|path| std::fs::metadata(path).is_ok())
        .ok_or("no busybox on this machine (Debian: busybox-static)")?;
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    let build = || -> std::io::Result<()> {
        let bin = root.path().join("bin");
        std::fs::create_dir_all(&bin)?;
        for directory in ["tmp", "etc", "proc", "sys", "dev", "var/run"] {
            std::fs::create_dir_all(root.path().join(directory))?;
        }
        std::fs::copy(busybox, bin.join("busybox"))?;
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(applet))?;
        }
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nnobody:x:65534:\n")
    };
    build().map_err(|error| format!("laying out the image: {error}"))?;
    let archive = root.path().join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(root.path()).arg("--exclude=./image.tar").args(["--owner=0", "--group=0", "-cf"]);
    tar.arg(&archive).arg(".");
    let output = process::run(tar, b"", CALL_DEADLINE).await?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let archive = archive.display().to_string();
    docker(&["import", "--change", "ENV PATH=/bin", "--change", "CMD [\"sh\"]", &archive, IMAGE]).await.map(|_| ())
}

/// A container as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// Process on this machine; 0 when it does not run.
    pub pid: u32,
    /// When it was started last.
    pub started_at: String,
    /// How often the engine restarted it.
    pub restart_count: u64,
    /// `running`, `exited`, ...
    pub state: String,
}

/// Asks the engine about containers; those it does not know are left out.
pub async fn inspect<'a>(ids: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Container> {
    let mut found = BTreeMap::new();
    for id in ids {
        let Ok(text) = docker(&["inspect", "--type", "container", id]).await else { continue };
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let value = &value[0];
        let container = Container {
            id: value["Id"].as_str().unwrap_or_default().to_owned(),
            pid: value["State"]["Pid"].as_u64().unwrap_or_default() as u32,
            started_at: value["State"]["StartedAt"].as_str().unwrap_or_default().to_owned(),
            restart_count: value["RestartCount"].as_u64().unwrap_or_default(),
            state: value["State"]["Status"].as_str().unwrap_or_default().to_owned(),
        };
        found.insert(container.id.clone(), container);
    }
    found
}

/// Ids of the containers that a Pod's status names, without `docker://`.
#[must_use]
pub fn container_ids(pod: &serde_json::Value) -> Vec<String> {
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    statuses
        .iter()
        .filter_map(|status| status["containerID"].as_str())
        .map(|id| id.strip_prefix("docker://").unwrap_or(id).to_owned())
        .collect()
}
