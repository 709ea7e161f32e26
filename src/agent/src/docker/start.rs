//! The start of a container: image, user, variables, files, and the engine.
//! What goes wrong is remembered as the reason the container waits for.

use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::Container;
use barque_api::k8s_openapi::jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::create::{self, Parts};
use super::engine::{is_status, message};
use super::worker::{Answer, Worker};
use super::{labels, volumes};
use crate::pods::backoff::CONFIG;
use crate::pods::env::environment;
use crate::pods::model::*;

/// Time a postStart hook may take.
const POST_START_LIMIT: Duration = Duration::from_mins(2);

impl Worker {
    /// Starts (the next attempt of) a container, as far as it gets: an image
    /// that must be fetched first makes the start wait for it.
    pub(super) async fn start(
        &mut self,
        desired: &Desired,
        name: &str,
        restarts: u32,
        backoff_seconds: u32,
    ) -> Result<(), bollard::errors::Error> {
        let Some((kind, container)) = desired.container(name) else { return Ok(()) };
        let Some(sandbox) = self.seen.live_sandbox().cloned() else { return Ok(()) };
        let path = kind.field_path(name);
        let engine = self.shared.engine.clone();
        let image_name = container.image.clone().unwrap_or_default();
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let image = match engine.image(&image_name).await {
            Ok(image) => image,
            Err(error) if is_status(&error, 400) => {
                let problem = format!("Failed to apply default image tag \"{image_name}\": {}", message(&error));
                self.tell(desired, "Warning", "InspectFailed", &problem, &path);
                self.start_failed(desired, &path, name, "InvalidImageName", problem);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let fetched = self.memory.pulls.get(name) == Some(&Pull::Done);
        let present = match image {
            Some(image) if fetched || policy != "Always" => image,
            None if policy == "Never" => {
                let problem = format!("Container image \"{image_name}\" is not present with pull policy of Never");
                self.tell(desired, "Warning", "ErrImageNeverPull", &problem, &path);
                self.start_failed(desired, &path, name, "ErrImageNeverPull", problem);
                return Ok(());
            }
            _ => {
                self.pull(desired, name, &image_name, &path);
                return Ok(());
            }
        };
        if !fetched {
            let text = format!("Container image \"{image_name}\" already present on machine");
            self.tell(desired, "Normal", "Pulled", &text, &path);
        }
        self.memory.pulls.remove(name);
        let image_id = image_id(&present);
        let mut facts = self.shared.facts.clone();
        facts.pod_ips.clone_from(&sandbox.ips);
        if let Err(problem) = check_user(desired, container, &present) {
            self.start_failed(desired, &path, name, "CreateContainerConfigError", problem);
            return Ok(());
        }
        let environment = match environment(desired, container, &facts) {
            Ok(environment) => environment,
            Err(error) => {
                self.start_failed(desired, &path, name, "CreateContainerConfigError", error.0);
                return Ok(());
            }
        };
        let termination_log = engine.termination_log(desired.uid(), name, restarts);
        let fallback = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if let Err(error) = prepare_log(&termination_log, fallback).await {
            self.start_failed(desired, &path, name, "CreateContainerError", error.to_string());
            return Ok(());
        }
        let parts = Parts {
            sandbox: &sandbox,
            restarts,
            backoff_seconds,
            environment: &environment,
            volumes: &volumes::sources(&engine.data_dir, desired),
            termination_log: &termination_log,
            image_id: &image_id,
        };
        let site = self.shared.site.read().clone();
        let body = match create::container(&site, desired, container, &parts) {
            Ok(body) => body,
            Err(error) => {
                self.start_failed(desired, &path, name, "CreateContainerConfigError", error.0);
                return Ok(());
            }
        };
        let id = match engine.create(&labels::container_name(desired, name, restarts), body).await {
            Ok(id) => id,
            Err(error) => {
                self.start_failed(desired, &path, name, "CreateContainerError", message(&error));
                return Ok(());
            }
        };
        self.tell(desired, "Normal", "Created", "Container created", &path);
        if let Err(error) = engine.start(&id).await {
            let problem = format!("failed to start container \"{name}\": {}", message(&error));
            self.start_failed(desired, &path, name, "RunContainerError", problem);
            // The engine keeps it as one that could not start; its own back-off
            // decides when the next attempt is due.
            if let Some(failure) = self.memory.starts.get_mut(name) {
                failure.retry_at = Timestamp::UNIX_EPOCH;
            }
            return Ok(());
        }
        self.memory.starts.remove(name);
        self.tell(desired, "Normal", "Started", "Container started", &path);
        let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone());
        if let Some(handler) = handler {
            self.hook(desired, &id, container, handler, POST_START_LIMIT, false);
        }
        Ok(())
    }

    fn pull(&mut self, desired: &Desired, name: &str, image: &str, path: &str) {
        if let Some(Pull::Failed(failure)) = self.memory.pulls.get(name).cloned() {
            // Told at the end of the wait, as the kubelet does during it.
            self.memory.starts.insert(name.to_owned(), failure);
        }
        self.tell(desired, "Normal", "Pulling", &format!("Pulling image \"{image}\""), path);
        self.memory.pulls.insert(name.to_owned(), Pull::Running);
        let (engine, answers) = (self.shared.engine.clone(), self.answers.0.clone());
        let (name, image) = (name.to_owned(), image.to_owned());
        let key = name.clone();
        let task = tokio::spawn(async move {
            let begun = tokio::time::Instant::now();
            let result = engine.pull(&image).await.map_err(|error| message(&error));
            let _ = answers.send(Answer::Pulled { name, took: begun.elapsed(), result }).await;
        });
        self.pulls.insert(key, AbortOnDropHandle::new(task));
    }

    fn start_failed(&mut self, desired: &Desired, path: &str, name: &str, reason: &str, problem: String) {
        let text = if reason == "ErrImageNeverPull" { reason } else { problem.as_str() };
        self.tell(desired, "Warning", "Failed", &format!("Error: {text}"), path);
        let waiting = Waiting { reason: reason.to_owned(), message: problem };
        let failure = Failure::after(self.memory.starts.get(name), waiting, self.now(), CONFIG);
        self.memory.starts.insert(name.to_owned(), failure);
    }
}

/// `imageID` of a status: a digest others can pull by, if there is one.
fn image_id(image: &bollard::models::ImageInspect) -> String {
    let digest = image.repo_digests.iter().flatten().next();
    match digest {
        Some(digest) => format!("docker-pullable://{digest}"),
        None => format!("docker://{}", image.id.clone().unwrap_or_default()),
    }
}

fn check_user(desired: &Desired, container: &Container, image: &bollard::models::ImageInspect) -> Result<(), String> {
    let pod = desired.spec().security_context.as_ref();
    let own = container.security_context.as_ref();
    let wanted = own.and_then(|c| c.run_as_non_root).or(pod.and_then(|c| c.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: \"{}\", container: {})", desired.full_name(), container.name);
    let user = own.and_then(|c| c.run_as_user).or(pod.and_then(|c| c.run_as_user));
    match user {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {place}")),
        Some(_) => return Ok(()),
        None => {}
    }
    let of_image = image.config.as_ref().and_then(|config| config.user.clone()).unwrap_or_default();
    let name = of_image.split(':').next().unwrap_or_default();
    match name.parse::<u64>() {
        Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Ok(_) => Ok(()),
        Err(_) if name.is_empty() => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
        )),
    }
}

/// An empty file for the termination message, writable by any user.
async fn prepare_log(path: &std::path::Path, fallback: bool) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    tokio::fs::write(path, b"").await?;
    tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).await?;
    if fallback {
        tokio::fs::write(path.with_extension("fallback"), b"").await?;
    }
    Ok(())
}
