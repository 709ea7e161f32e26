//! `portforward`: each pair of SPDY streams is one connection to a port of the
//! Pod; the older WebSocket form has one connection per port of the request.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::container::PortRequest;
use super::spdy::{self, Event};
use super::websocket::{self, Message, Opcode};
use super::wire::{Channels, Io, Out, close};
use crate::http::NodeProxy;

/// Chunks that wait for the agent on one connection.
const MAX_INPUT: usize = 16;
/// Connections of one client at once.
const MAX_CONNECTIONS: usize = 128;
/// Ports of one request.
pub(super) const MAX_PORTS: usize = 32;

/// The Pod whose ports are forwarded, and where it is.
#[derive(Clone)]
pub(super) struct Job {
    pub proxy: Arc<dyn NodeProxy>,
    pub node: String,
    /// The port is set for each connection.
    pub request: PortRequest,
}

impl Job {
    /// Runs one connection; gives the text for the error channel, "" if all
    /// went well. `send` is called with the bytes that come back.
    async fn connect<F, Fut>(self, port: u16, input: mpsc::Receiver<Bytes>, send: F) -> String
    where
        F: Fn(Bytes) -> Fut,
        Fut: Future<Output = bool>,
    {
        let PortRequest { pod, uid, .. } = self.request.clone();
        let told = |why: &str| format!("error forwarding port {port} to pod {pod}, uid {uid}: {why}");
        let request = PortRequest { port, ..self.request };
        let mut stream = match self.proxy.port_forward(&self.node, request, input).await {
            Ok(stream) => stream,
            Err(error) => return told(&error.message),
        };
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(bytes) => {
                    if !send(bytes).await {
                        // The client is gone.
                        break;
                    }
                }
                Err(error) => return told(&error.message),
            }
        }
        String::new()
    }
}

/// A pair of streams in the making.
#[derive(Default)]
struct Pair {
    error: Option<u32>,
    data: Option<(u32, mpsc::Receiver<Bytes>)>,
    port: Option<u16>,
}

fn header<'a>(headers: &'a spdy::Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Serves a client that speaks SPDY, be it within a WebSocket or not.
pub(super) async fn over_spdy<S: Io>(socket: S, job: Job) {
    let (reader, writer) = tokio::io::split(socket);
    let (out, writing) = Out::start(writer);
    let mut reader = spdy::Reader::new(reader);
    let mut frames = spdy::Writer::default();
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut inputs: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    // Dropping it ends what is still running.
    let mut running: JoinSet<(u32, u32)> = JoinSet::new();
    loop {
        let event = tokio::select! {
            event = reader.next() => event,
            Some(done) = running.join_next() => {
                if let Ok((data, error)) = done {
                    inputs.remove(&data);
                    reader.forget(data);
                    reader.forget(error);
                }
                continue;
            }
        };
        match event {
            Ok(Event::Opened { stream, headers }) => {
                let known = (
                    header(&headers, "streamtype"),
                    header(&headers, "port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0),
                );
                let id = header(&headers, "requestid").map_or_else(|| "0".to_owned(), ToOwned::to_owned);
                let full = pairs.len() + running.len() >= MAX_CONNECTIONS;
                let (Some(kind @ ("data" | "error")), Some(port), false) = (known.0, known.1, full) else {
                    if out.send(spdy::reset(stream)).await.is_err() {
                        return;
                    }
                    continue;
                };
                if out.send(frames.accept(stream)).await.is_err() {
                    return;
                }
                let pair = pairs.entry(id.clone()).or_default();
                pair.port = Some(port);
                if kind == "data" {
                    let (sender, receiver) = mpsc::channel(MAX_INPUT);
                    inputs.insert(stream, sender);
                    pair.data = Some((stream, receiver));
                } else {
                    pair.error = Some(stream);
                }
                if pair.data.is_some()
                    && pair.error.is_some()
                    && let Some(Pair { error: Some(error), data: Some((data, input)), port: Some(port) }) =
                        pairs.remove(&id)
                {
                    running.spawn(forward(job.clone(), port, data, error, input, out.clone()));
                }
            }
            Ok(Event::Data { stream, bytes }) => {
                if let Some(input) = inputs.get(&stream) {
                    // A connection that is gone says so by itself.
                    let _ = input.send(bytes).await;
                }
            }
            Ok(Event::Finished { stream } | Event::Reset { stream }) => {
                inputs.remove(&stream);
            }
            Ok(Event::Ping(frame)) => {
                if out.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(Event::Gone) | Err(_) => break,
        }
    }
    drop(running);
    close(out, writing, reader.into_inner()).await;
}

async fn forward(job: Job, port: u16, data: u32, error: u32, input: mpsc::Receiver<Bytes>, out: Out) -> (u32, u32) {
    let send = |bytes: Bytes| {
        let frame = spdy::data(data, &bytes);
        let out = &out;
        async move { out.send(frame).await.is_ok() }
    };
    let problem = job.connect(port, input, send).await;
    let mut last = Vec::new();
    if !problem.is_empty() {
        last.push(spdy::data(error, problem.as_bytes()));
    }
    last.extend([spdy::finish(error), spdy::finish(data)]);
    for frame in last {
        if out.send(frame).await.is_err() {
            break;
        }
    }
    (data, error)
}

/// Serves a client that speaks the older WebSocket form: channels `2n` and
/// `2n + 1` are data and errors of the n-th port.
pub(super) async fn over_websocket<S: Io>(socket: S, channels: Channels, ports: Vec<u16>, job: Job) {
    let (reader, writer) = tokio::io::split(socket);
    let (out, writing) = Out::start(writer);
    let mut reader = websocket::Reader::new(reader);
    let mut running = JoinSet::new();
    let mut inputs = Vec::new();
    for (index, port) in ports.into_iter().take(MAX_PORTS).enumerate() {
        let (data, error) = (2 * index as u8, 2 * index as u8 + 1);
        for channel in [data, error] {
            // Each channel begins with its port.
            if out.send(channels.frame(channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        let (sender, input) = mpsc::channel(MAX_INPUT);
        inputs.push(Some(sender));
        let (job, out) = (job.clone(), out.clone());
        running.spawn(async move {
            let send = |bytes: Bytes| {
                let frame = channels.frame(data, &bytes);
                let out = &out;
                async move { out.send(frame).await.is_ok() }
            };
            let problem = job.connect(port, input, send).await;
            if !problem.is_empty() {
                // If the client is gone it need not know.
                let _ = out.send(channels.frame(error, problem.as_bytes())).await;
            }
        });
    }
    loop {
        let message = tokio::select! {
            message = reader.next() => message,
            done = running.join_next() => match done {
                Some(_) => continue,
                // All connections have ended.
                None => break,
            },
        };
        match message {
            Ok(Message::Data(bytes)) => {
                let Some((channel, bytes)) = channels.split(&bytes) else { continue };
                let input = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0);
                if let Some(Some(input)) = input {
                    // A connection that is gone says so by itself.
                    let _ = input.send(bytes).await;
                }
            }
            Ok(Message::Ping(bytes)) => {
                if out.send(websocket::encode(Opcode::Pong, &bytes)).await.is_err() {
                    return;
                }
            }
            Ok(Message::Pong) => {}
            Ok(Message::Close) | Err(_) => break,
        }
    }
    drop((running, inputs));
    if out.send(websocket::encode(Opcode::Close, &1000_u16.to_be_bytes())).await.is_ok() {
        close(out, writing, reader.into_inner()).await;
    }
}
