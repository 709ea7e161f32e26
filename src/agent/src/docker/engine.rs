//! Docker as this crate uses it: few, precise calls.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::World;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ImageInspect,
    VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::StreamExt as _;

use super::labels;
use crate::error::AgentError;
use crate::pods::model::{ContainerRecord, Exit, Observed, RunState, SandboxRecord};

/// Longest wait for an answer of the engine, in seconds.
const TIMEOUT_SECONDS: u64 = 120;
/// Bytes of a termination message, and of one taken from a log.
const MAX_MESSAGE: usize = 4096;
const MAX_LOG_MESSAGE: usize = 2048;
/// Lines of a log that may become a termination message.
const MAX_LOG_LINES: &str = "80";
/// Bytes of output kept of a command run in a container.
const MAX_EXEC_OUTPUT: usize = 10 * 1024;

/// A connection to the engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    /// The client.
    pub docker: Docker,
    /// The agent's directory.
    pub data_dir: PathBuf,
    /// Clock.
    pub world: World,
}

/// Whether the engine answered with this HTTP status.
pub fn is_status(error: &Error, status: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// The engine's own words.
pub fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        other => other.to_string(),
    }
}

/// Connects and agrees on an API version.
pub async fn connect(socket: &str) -> Result<Docker, AgentError> {
    let failed = |source: Error| AgentError::Engine { socket: socket.to_owned(), source: Box::new(source) };
    let docker = Docker::connect_with_unix(socket, TIMEOUT_SECONDS, API_DEFAULT_VERSION).map_err(failed)?;
    docker.negotiate_version().await.map_err(failed)
}

/// A time as the engine writes it; `None` for its zero time.
fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse::<Timestamp>().ok().filter(|time| time.as_second() > 0)
}

fn label<'a>(inspect: &'a ContainerInspectResponse, key: &str) -> &'a str {
    let labels = inspect.config.as_ref().and_then(|config| config.labels.as_ref());
    labels.and_then(|labels| labels.get(key)).map(String::as_str).unwrap_or_default()
}

/// Labels and id of a container, for finding Pods.
pub struct Found {
    /// Id.
    pub id: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Whether it runs.
    pub running: bool,
}

impl Engine {
    /// Containers that carry all the given labels.
    pub async fn find(&self, wanted: &[(&str, &str)]) -> Result<Vec<Found>, Error> {
        let filters: Vec<String> = wanted.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let filters = HashMap::from([("label".to_owned(), filters)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let list = self.docker.list_containers(Some(options)).await?;
        let found = list.into_iter().filter_map(|summary| {
            let running = summary.state.is_some_and(|state| {
                use bollard::models::ContainerSummaryStateEnum as State;
                matches!(state, State::RUNNING | State::PAUSED | State::RESTARTING)
            });
            Some(Found { id: summary.id?, labels: summary.labels.unwrap_or_default(), running })
        });
        Ok(found.collect())
    }

    /// What there is of a Pod. `known` holds containers that had ended before;
    /// they do not change any more.
    pub async fn observe(&self, uid: &str, known: &Observed) -> Result<Observed, Error> {
        let mut seen = Observed::default();
        let mut sandboxes: Vec<SandboxRecord> = Vec::new();
        for found in self.find(&[(labels::UID, uid)]).await? {
            let old = known.containers.iter().find(|record| record.id == found.id && record.exit().is_some());
            if let Some(old) = old {
                seen.containers.push(old.clone());
                continue;
            }
            let inspect = match self.docker.inspect_container(&found.id, None::<InspectContainerOptions>).await {
                Ok(inspect) => inspect,
                Err(error) if is_status(&error, 404) => continue,
                Err(error) => return Err(error),
            };
            if label(&inspect, labels::CONTAINER) == labels::SANDBOX {
                sandboxes.push(sandbox(&found.id, &inspect));
            } else if let Some(record) = self.container(&found.id, &inspect).await {
                seen.containers.push(record);
            }
        }
        sandboxes.sort_by_key(|sandbox| (sandbox.running, sandbox.attempt));
        seen.sandbox = sandboxes.pop();
        seen.stale_sandboxes = sandboxes.into_iter().map(|sandbox| sandbox.id).collect();
        seen.containers.sort_by(|a, b| (&a.name, a.restarts, &a.id).cmp(&(&b.name, b.restarts, &b.id)));
        Ok(seen)
    }

    async fn container(&self, id: &str, inspect: &ContainerInspectResponse) -> Option<ContainerRecord> {
        let created_at = time(inspect.created.as_deref()).unwrap_or_else(|| self.world.now());
        let state = inspect.state.clone().unwrap_or_default();
        let state = match run_state(&state, created_at)? {
            RunState::Exited(mut exit) => {
                if exit.message.is_empty() {
                    exit.message = self.termination_message(id, inspect, exit.code).await;
                }
                RunState::Exited(exit)
            }
            other => other,
        };
        Some(ContainerRecord {
            id: id.to_owned(),
            name: label(inspect, labels::CONTAINER).to_owned(),
            sandbox: label(inspect, labels::SANDBOX_ID).to_owned(),
            restarts: label(inspect, labels::RESTART).parse().unwrap_or(0),
            backoff_seconds: label(inspect, labels::BACKOFF).parse().unwrap_or(0),
            spec_hash: label(inspect, labels::SPEC_HASH).to_owned(),
            image: label(inspect, labels::IMAGE).to_owned(),
            image_id: label(inspect, labels::IMAGE_ID).to_owned(),
            created_at,
            state,
        })
    }

    async fn termination_message(&self, id: &str, inspect: &ContainerInspectResponse, code: i32) -> String {
        let file = self.termination_log(
            label(inspect, labels::UID),
            label(inspect, labels::CONTAINER),
            label(inspect, labels::RESTART),
        );
        if let Ok(text) = tokio::fs::read(&file).await
            && !text.is_empty()
        {
            return String::from_utf8_lossy(&text[..text.len().min(MAX_MESSAGE)]).into_owned();
        }
        // Which Pods want their log instead is written beside the file.
        if code == 0 || !file.with_extension("fallback").exists() {
            return String::new();
        }
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(MAX_LOG_LINES).build();
        let mut chunks = Box::pin(self.docker.logs(id, Some(options)));
        let mut text = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            text.extend_from_slice(chunk.as_ref());
        }
        String::from_utf8_lossy(&text[text.len().saturating_sub(MAX_LOG_MESSAGE)..]).into_owned()
    }

    /// File on the host that takes a container's termination message.
    pub fn termination_log(&self, uid: &str, container: &str, restarts: impl std::fmt::Display) -> PathBuf {
        super::volumes::pod_dir(&self.data_dir, uid).join("containers").join(container).join(format!("{restarts}.log"))
    }

    /// An image, if it is there.
    pub async fn image(&self, name: &str) -> Result<Option<ImageInspect>, Error> {
        match self.docker.inspect_image(name).await {
            Ok(image) => Ok(Some(image)),
            Err(error) if is_status(&error, 404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches an image from its registry.
    pub async fn pull(&self, name: &str) -> Result<(), Error> {
        let has_tag = name.contains('@') || name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let options = CreateImageOptionsBuilder::new().from_image(name);
        let options = if has_tag { options } else { options.tag("latest") };
        let mut progress = Box::pin(self.docker.create_image(Some(options.build()), None, None));
        while let Some(step) = progress.next().await {
            step?;
        }
        Ok(())
    }

    /// Makes a container. What is left of an earlier attempt under the same
    /// name is removed first, unless it runs.
    pub async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, Error> {
        let options = || Some(CreateContainerOptionsBuilder::new().name(name).build());
        let made = match self.docker.create_container(options(), body.clone()).await {
            Err(error) if is_status(&error, 409) => {
                let options_of_removal = RemoveContainerOptionsBuilder::new().v(true).build();
                self.docker.remove_container(name, Some(options_of_removal)).await?;
                self.docker.create_container(options(), body).await?
            }
            other => other?,
        };
        Ok(made.id)
    }

    /// Starts a container.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        self.docker.start_container(id, None).await
    }

    /// Sends a signal; a container that does not run is fine.
    pub async fn kill(&self, id: &str, signal: &str) -> Result<(), Error> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        match self.docker.kill_container(id, Some(options)).await {
            Err(error) if is_status(&error, 409) || is_status(&error, 404) => Ok(()),
            other => other,
        }
    }

    /// The signal that asks a container to end: its image may name one.
    pub async fn stop_signal(&self, id: &str) -> String {
        let inspect = self.docker.inspect_container(id, None::<InspectContainerOptions>).await.ok();
        let named = inspect.and_then(|inspect| inspect.config?.stop_signal).filter(|signal| !signal.is_empty());
        named.unwrap_or_else(|| "SIGTERM".to_owned())
    }

    /// Removes a container, whatever it does; one that is gone is fine.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // 409: somebody else removes it just now.
            Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(()),
            other => other,
        }
    }

    /// Makes a volume in memory.
    pub async fn memory_volume(&self, name: &str, uid: &str, bytes: Option<i64>) -> Result<(), Error> {
        let limit = bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
        let options =
            [("type", "tmpfs".to_owned()), ("device", "tmpfs".to_owned()), ("o", format!("mode=1777{limit}"))];
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            driver: Some("local".to_owned()),
            driver_opts: Some(options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            labels: Some(HashMap::from([(labels::UID.to_owned(), uid.to_owned())])),
            ..VolumeCreateRequest::default()
        };
        self.docker.create_volume(request).await.map(|_| ())
    }

    /// Removes all volumes of a Pod that the engine keeps.
    pub async fn remove_volumes(&self, uid: &str) -> Result<(), Error> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{}={uid}", labels::UID)])]);
        let options = bollard::query_parameters::ListVolumesOptionsBuilder::new().filters(&filters).build();
        for volume in self.docker.list_volumes(Some(options)).await?.volumes.unwrap_or_default() {
            match self.docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
                Err(error) if is_status(&error, 404) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Runs a command in a container: exit code and the beginning of its output.
    pub async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Result<(i64, String), ExecError> {
        let run = async {
            let options = CreateExecOptions {
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                cmd: Some(command.to_vec()),
                ..CreateExecOptions::default()
            };
            let exec = self.docker.create_exec(id, options).await?;
            let mut output = Vec::new();
            if let StartExecResults::Attached { output: mut chunks, .. } =
                self.docker.start_exec(&exec.id, None).await?
            {
                while let Some(chunk) = chunks.next().await {
                    let chunk = chunk?;
                    let room = MAX_EXEC_OUTPUT - output.len();
                    output.extend(chunk.as_ref().iter().take(room));
                }
            }
            let code = self.docker.inspect_exec(&exec.id).await?.exit_code.unwrap_or(-1);
            Ok::<_, Error>((code, String::from_utf8_lossy(&output).into_owned()))
        };
        match tokio::time::timeout(limit, run).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(ExecError::Timeout(limit)),
        }
    }

    /// Removes everything of a Pod: containers first, the sandbox last.
    pub async fn clean_up(&self, uid: &str) -> Result<(), Error> {
        let mut found = self.find(&[(labels::UID, uid)]).await?;
        found.sort_by_key(|container| {
            container.labels.get(labels::CONTAINER).is_some_and(|name| name == labels::SANDBOX)
        });
        for container in found {
            self.remove(&container.id).await?;
        }
        self.remove_volumes(uid).await?;
        let dir = super::volumes::pod_dir(&self.data_dir, uid);
        match tokio::fs::remove_dir_all(&dir).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A command in a container that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The engine refused it.
    #[error("{}", message(.0))]
    Engine(#[from] Error),
    /// It took too long.
    #[error("command timed out after {}s", .0.as_secs())]
    Timeout(Duration),
}

fn sandbox(id: &str, inspect: &ContainerInspectResponse) -> SandboxRecord {
    let networks = inspect.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let mut ips = Vec::new();
    for network in networks.into_iter().flat_map(|networks| networks.values()) {
        let both = [network.ip_address.clone(), network.global_ipv6_address.clone()];
        ips.extend(both.into_iter().flatten().filter(|ip| !ip.is_empty()));
    }
    SandboxRecord {
        id: id.to_owned(),
        attempt: label(inspect, labels::RESTART).parse().unwrap_or(0),
        running: inspect.state.as_ref().and_then(|state| state.running).unwrap_or(false),
        ips,
        start_time: time(Some(label(inspect, labels::START_TIME))),
    }
}

/// `None` for a container that is being removed.
fn run_state(state: &ContainerState, created_at: Timestamp) -> Option<RunState> {
    let code = i32::try_from(state.exit_code.unwrap_or(0)).unwrap_or(-1);
    let error = state.error.clone().unwrap_or_default();
    let started_at = time(state.started_at.as_deref());
    Some(match state.status.unwrap_or(ContainerStateStatusEnum::EMPTY) {
        ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED | ContainerStateStatusEnum::RESTARTING => {
            RunState::Running { started_at: started_at.unwrap_or(created_at) }
        }
        ContainerStateStatusEnum::REMOVING => return None,
        ContainerStateStatusEnum::CREATED if error.is_empty() && code == 0 => RunState::Created,
        _ if started_at.is_none() => RunState::Exited(Exit {
            started_at: None,
            finished_at: created_at,
            code: 128,
            oom_killed: false,
            start_error: true,
            message: error,
        }),
        _ => RunState::Exited(Exit {
            started_at,
            finished_at: time(state.finished_at.as_deref()).unwrap_or(created_at),
            code,
            oom_killed: state.oom_killed.unwrap_or(false),
            start_error: false,
            message: String::new(),
        }),
    })
}
