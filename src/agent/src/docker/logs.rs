//! Logs of containers, cut and stamped as the kubelet's log endpoint does.

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_proto::v1::LogsRequest;
use bollard::container::LogOutput;
use bollard::query_parameters::{InspectContainerOptions, LogsOptionsBuilder};
use bytes::Bytes;
use futures::stream;
use futures::{Stream, StreamExt as _};
use tonic::Status;

use super::engine::{Engine, message};
use super::labels;
use crate::pods::model::{ContainerRecord, Observed, RunState};
use crate::runtime::LogStream;

/// Opens the log that a request asks for.
pub async fn open(engine: &Engine, request: LogsRequest) -> Result<LogStream, Status> {
    let unavailable = |error: bollard::errors::Error| Status::unavailable(message(&error));
    let uid = if request.uid.is_empty() { find_uid(engine, &request).await? } else { request.uid.clone() };
    let seen = engine.observe(&uid, &Observed::default()).await.map_err(unavailable)?;
    let record = pick(&seen, &request)?;
    let since = since(&request, engine.world.now())?;
    let tail = match request.tail_lines {
        Some(lines) if lines < 0 => return Err(Status::invalid_argument("tailLines must not be negative")),
        Some(lines) => lines.to_string(),
        None => "all".to_owned(),
    };
    let tty = engine
        .docker
        .inspect_container(&record.id, None::<InspectContainerOptions>)
        .await
        .map_err(unavailable)?
        .config
        .and_then(|config| config.tty)
        .unwrap_or(false);
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .follow(request.follow)
        // Times are needed to compare with; they are cut off again.
        .timestamps(request.timestamps || since.is_some())
        .tail(&tail)
        .build();
    let chunks = engine.docker.logs(&record.id, Some(options));
    let chunks = chunks.map(|chunk| chunk.map(LogOutput::into_bytes).map_err(|e| Status::unavailable(message(&e))));
    let filter = Filter { since, keep_times: request.timestamps, tty };
    let lines: LogStream = match filter.since {
        Some(_) => Box::pin(chunks.filter_map(move |chunk| {
            let kept = chunk.map(|chunk| filter.apply(&chunk)).transpose();
            std::future::ready(kept)
        })),
        None => Box::pin(chunks),
    };
    Ok(match request.limit_bytes {
        Some(limit) if limit <= 0 => return Err(Status::invalid_argument("limitBytes must be positive")),
        Some(limit) => Box::pin(limited(lines, usize::try_from(limit).unwrap_or(usize::MAX))),
        None => lines,
    })
}

async fn find_uid(engine: &Engine, request: &LogsRequest) -> Result<String, Status> {
    let wanted = [(labels::NAMESPACE, request.namespace.as_str()), (labels::POD, request.pod.as_str())];
    let found = engine.find(&wanted).await.map_err(|error| Status::unavailable(message(&error)))?;
    let uid = found.into_iter().find_map(|container| container.labels.get(labels::UID).cloned());
    uid.ok_or_else(|| Status::not_found(format!("pod \"{}\" not found on this node", request.pod)))
}

fn pick<'a>(seen: &'a Observed, request: &LogsRequest) -> Result<&'a ContainerRecord, Status> {
    let LogsRequest { container, pod, .. } = request;
    let records = seen.of(container);
    if request.previous {
        // The newest attempt that has ended, unless another runs after it.
        let ended = match records.first().map(|record| &record.state) {
            Some(RunState::Running { .. } | RunState::Created) => records.get(1),
            _ => records.get(1).or(records.first().filter(|record| record.restarts > 0)),
        };
        return ended.copied().ok_or_else(|| {
            Status::failed_precondition(format!(
                "previous terminated container \"{container}\" in pod \"{pod}\" not found"
            ))
        });
    }
    match records.first() {
        Some(record) if record.state != RunState::Created => Ok(record),
        _ => Err(Status::failed_precondition(format!(
            "container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
        ))),
    }
}

fn since(request: &LogsRequest, now: Timestamp) -> Result<Option<Timestamp>, Status> {
    if !request.since_time.is_empty() {
        let time = request.since_time.parse::<Timestamp>();
        return time.map(Some).map_err(|error| Status::invalid_argument(format!("sinceTime: {error}")));
    }
    match request.since_seconds {
        Some(seconds) if seconds <= 0 => Err(Status::invalid_argument("sinceSeconds must be positive")),
        Some(seconds) => {
            let ago = std::time::Duration::from_secs(seconds.unsigned_abs());
            Ok(Some(now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)))
        }
        None => Ok(None),
    }
}

#[derive(Clone, Copy)]
struct Filter {
    since: Option<Timestamp>,
    keep_times: bool,
    tty: bool,
}

impl Filter {
    /// A chunk is one line, or many from a terminal; each begins with its time.
    fn apply(&self, chunk: &Bytes) -> Option<Bytes> {
        let lines = if self.tty { chunk.split_inclusive(|byte| *byte == b'\n').collect() } else { vec![&chunk[..]] };
        let mut out = Vec::new();
        for line in lines {
            let space = line.iter().position(|byte| *byte == b' ');
            let time = space.and_then(|at| std::str::from_utf8(&line[..at]).ok()?.parse::<Timestamp>().ok());
            if time.is_some() && time < self.since {
                continue;
            }
            match (self.keep_times, time, space) {
                (false, Some(_), Some(at)) => out.extend_from_slice(&line[at + 1..]),
                _ => out.extend_from_slice(line),
            }
        }
        (!out.is_empty()).then(|| out.into())
    }
}

fn limited(lines: LogStream, limit: usize) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    stream::unfold((lines, limit), |(mut lines, room)| async move {
        if room == 0 {
            return None;
        }
        match lines.next().await? {
            Ok(mut chunk) => {
                chunk.truncate(room);
                let room = room - chunk.len();
                Some((Ok(chunk), (lines, room)))
            }
            Err(status) => Some((Err(status), (lines, 0))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::{exited, record, running, seen};

    #[test]
    fn which_attempt() {
        let request = |previous| LogsRequest { container: "a".into(), pod: "p".into(), previous, ..Default::default() };
        let two = seen(vec![record("a", 0, exited(1, 2)), record("a", 1, running())]);
        assert_eq!(pick(&two, &request(false)).expect("there").id, "a-1");
        assert_eq!(pick(&two, &request(true)).expect("there").id, "a-0");
        let one = seen(vec![record("a", 0, running())]);
        let none = pick(&one, &request(true)).expect_err("none");
        assert_eq!(none.message(), "previous terminated container \"a\" in pod \"p\" not found");
        let waiting = pick(&seen(vec![]), &request(false)).expect_err("none");
        assert_eq!(waiting.message(), "container \"a\" in pod \"p\" is waiting to start: ContainerCreating");
    }

    #[tokio::test]
    async fn cuts() {
        let since = Some("2024-01-01T00:00:05Z".parse().expect("a time"));
        let filter = Filter { since, keep_times: false, tty: false };
        let line = |text: &'static str| filter.apply(&Bytes::from_static(text.as_bytes()));
        assert_eq!(line("2024-01-01T00:00:04.9Z old\n"), None);
        assert_eq!(line("2024-01-01T00:00:05.1Z new one\n"), Some(Bytes::from_static(b"new one\n")));
        let lines: LogStream = Box::pin(stream::iter([Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"def"))]));
        let kept: Vec<_> = limited(lines, 4).map(|chunk| chunk.expect("data")).collect().await;
        assert_eq!(kept, [Bytes::from_static(b"abc"), Bytes::from_static(b"d")]);
    }
}
