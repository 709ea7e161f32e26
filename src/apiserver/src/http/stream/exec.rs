//! `exec` and `attach`: the client's protocol ends here; input and output pass
//! through the node's agent. Whatever happens after the upgrade is told on the
//! error channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use barque_api::StatusError;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::container::{ExecRequest, FromContainer, FromProcess, ToContainer, final_status, final_text};
use super::spdy::{self, Event};
use super::websocket::{self, Message, Opcode};
use super::wire::{Channels, Gone, Io, Lane, Out, close, resize};
use crate::http::NodeProxy;

/// Input that waits for the agent, in messages.
const MAX_INPUT: usize = 16;
/// How long a client may take to open its SPDY streams.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

/// A process to be run, and where.
pub(super) struct Job {
    pub proxy: Arc<dyn NodeProxy>,
    pub node: String,
    pub request: ExecRequest,
}

impl Job {
    async fn start(self, input: mpsc::Receiver<ToContainer>) -> Result<FromProcess, StatusError> {
        self.proxy.exec(&self.node, self.request, input).await
    }
}

/// Passes output on; gives how the process ended. `Gone` if the client is.
async fn output<F, Fut>(job: Job, input: mpsc::Receiver<ToContainer>, send: F) -> Result<Result<i32, StatusError>, Gone>
where
    F: Fn(Lane, Bytes) -> Fut,
    Fut: Future<Output = Result<(), Gone>>,
{
    let mut stream = match job.start(input).await {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        match stream.next().await {
            Some(Ok(FromContainer::Stdout(bytes))) => send(Lane::Stdout, bytes).await?,
            Some(Ok(FromContainer::Stderr(bytes))) => send(Lane::Stderr, bytes).await?,
            Some(Ok(FromContainer::Exited(code))) => return Ok(Ok(code)),
            Some(Err(error)) => return Ok(Err(error)),
            None => return Ok(Err(StatusError::internal("the agent broke off before the command had ended"))),
        }
    }
}

/// Serves a client that speaks WebSocket.
pub(super) async fn over_websocket<S: Io>(socket: S, channels: Channels, job: Job) {
    let (reader, writer) = tokio::io::split(socket);
    let (out, writing) = Out::start(writer);
    let mut reader = websocket::Reader::new(reader);
    let (input, received) = mpsc::channel(MAX_INPUT);
    // Tells the client that the connection stands.
    let first = if job.request.stdout {
        Lane::Stdout
    } else if job.request.stderr {
        Lane::Stderr
    } else {
        Lane::Error
    };
    if out.send(channels.frame(first as u8, &[])).await.is_err() {
        return;
    }
    let ended = {
        let reading = async {
            let mut input = Some(input);
            loop {
                match reader.next().await {
                    Ok(Message::Data(bytes)) => {
                        let message = channels.input(&bytes);
                        let ends = message == Some(ToContainer::EndOfInput);
                        if let (Some(message), Some(sender)) = (message, &input) {
                            // A process that is gone says so by itself.
                            let _ = sender.send(message).await;
                        }
                        if ends {
                            input = None;
                        }
                    }
                    Ok(Message::Ping(bytes)) => {
                        if out.send(websocket::encode(Opcode::Pong, &bytes)).await.is_err() {
                            return;
                        }
                    }
                    Ok(Message::Pong) => {}
                    Ok(Message::Close) | Err(_) => return,
                }
            }
        };
        let send = |lane: Lane, bytes: Bytes| {
            let frame = channels.frame(lane as u8, &bytes);
            let out = &out;
            async move { out.send(frame).await }
        };
        tokio::select! {
            ended = output(job, received, send) => ended,
            () = reading => Err(Gone),
        }
    };
    let Ok(end) = ended else { return };
    let last = if channels.version >= 4 { final_status(&end).to_string() } else { final_text(&end) };
    if !last.is_empty() && out.send(channels.frame(Lane::Error as u8, last.as_bytes())).await.is_err() {
        return;
    }
    if out.send(websocket::encode(Opcode::Close, &1000_u16.to_be_bytes())).await.is_ok() {
        close(out, writing, reader.into_inner()).await;
    }
}

/// Which streams the client has to open.
fn expected(request: &ExecRequest, version: u8) -> Vec<Lane> {
    let mut lanes = vec![Lane::Error];
    let wanted = [
        (request.stdin, Lane::Stdin),
        (request.stdout, Lane::Stdout),
        (request.stderr && !request.tty, Lane::Stderr),
        (request.tty && version >= 3, Lane::Resize),
    ];
    lanes.extend(wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, lane)| lane));
    lanes
}

fn lane_of(headers: &spdy::Headers) -> Option<Lane> {
    let (_, kind) = headers.iter().find(|(name, _)| name == "streamtype")?;
    match kind.as_str() {
        "stdin" => Some(Lane::Stdin),
        "stdout" => Some(Lane::Stdout),
        "stderr" => Some(Lane::Stderr),
        "error" => Some(Lane::Error),
        "resize" => Some(Lane::Resize),
        _ => None,
    }
}

/// Serves a client that speaks SPDY, in a version of the stream protocol.
pub(super) async fn over_spdy<S: Io>(socket: S, version: u8, job: Job) {
    let (reader, writer) = tokio::io::split(socket);
    let (out, writing) = Out::start(writer);
    let mut reader = spdy::Reader::new(reader);
    let mut frames = spdy::Writer::default();
    let mut missing = expected(&job.request, version);
    let mut lanes: HashMap<Lane, u32> = HashMap::new();
    let (input, received) = mpsc::channel(MAX_INPUT);
    let mut early = Vec::new();
    let opening = async {
        while !missing.is_empty() {
            match reader.next().await {
                Ok(Event::Opened { stream, headers }) => {
                    let lane = lane_of(&headers).filter(|lane| !lanes.contains_key(lane));
                    let Some(lane) = lane else {
                        out.send(spdy::reset(stream)).await?;
                        continue;
                    };
                    out.send(frames.accept(stream)).await?;
                    lanes.insert(lane, stream);
                    missing.retain(|other| *other != lane);
                }
                Ok(Event::Ping(frame)) => out.send(frame).await?,
                Ok(Event::Gone) | Err(_) => return Err(Gone),
                // Input may come before the last stream is open.
                Ok(event) if early.len() < MAX_INPUT => early.push(event),
                Ok(_) => return Err(Gone),
            }
        }
        Ok(())
    };
    if !matches!(tokio::time::timeout(STREAMS_TIMEOUT, opening).await, Ok(Ok(()))) {
        return;
    }
    let ended = {
        let reading = async {
            let mut input = Some(input);
            let mut early = early.into_iter();
            loop {
                let event = match early.next() {
                    Some(event) => Ok(event),
                    None => reader.next().await,
                };
                let is = |stream: u32, lane: Lane| lanes.get(&lane) == Some(&stream);
                let message = match event {
                    Ok(Event::Data { stream, bytes }) if is(stream, Lane::Stdin) => Some(ToContainer::Stdin(bytes)),
                    Ok(Event::Data { stream, bytes }) if is(stream, Lane::Resize) => resize(&bytes),
                    Ok(Event::Finished { stream } | Event::Reset { stream }) if is(stream, Lane::Stdin) => {
                        Some(ToContainer::EndOfInput)
                    }
                    Ok(Event::Ping(frame)) => match out.send(frame).await {
                        Ok(()) => None,
                        Err(Gone) => return,
                    },
                    Ok(Event::Opened { stream, .. }) => match out.send(spdy::reset(stream)).await {
                        Ok(()) => None,
                        Err(Gone) => return,
                    },
                    Ok(Event::Gone) | Err(_) => return,
                    Ok(_) => None,
                };
                let ends = message == Some(ToContainer::EndOfInput);
                if let (Some(message), Some(sender)) = (message, &input) {
                    // A process that is gone says so by itself.
                    let _ = sender.send(message).await;
                }
                if ends {
                    input = None;
                }
            }
        };
        let send = |lane: Lane, bytes: Bytes| {
            let stream = lanes.get(&lane).copied();
            let out = &out;
            async move {
                match stream {
                    Some(stream) => out.send(spdy::data(stream, &bytes)).await,
                    None => Ok(()),
                }
            }
        };
        tokio::select! {
            ended = output(job, received, send) => ended,
            () = reading => Err(Gone),
        }
    };
    let Ok(end) = ended else { return };
    let last = if version >= 4 { final_status(&end).to_string() } else { final_text(&end) };
    let error = lanes.get(&Lane::Error).copied().unwrap_or_default();
    let mut closing = vec![spdy::data(error, last.as_bytes()), spdy::finish(error)];
    for lane in [Lane::Stdout, Lane::Stderr] {
        closing.extend(lanes.get(&lane).map(|stream| spdy::finish(*stream)));
    }
    closing.push(spdy::go_away(lanes.values().copied().max().unwrap_or_default()));
    for frame in closing {
        if out.send(frame).await.is_err() {
            return;
        }
    }
    close(out, writing, reader.into_inner()).await;
}
