//! Whole sessions over a pipe, against an agent that plays along.

use std::sync::Arc;
use std::time::Duration;

use barque_api::StatusError;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::container::{ExecRequest, FromContainer, FromPort, FromProcess, PortRequest, ToContainer, not_offered};
use super::spdy::client::Client;
use super::websocket::masked;
use super::wire::{Channels, tunnel};
use super::{exec, portforward, spdy};
use crate::http::NodeProxy;
use crate::http::logs::{LogRequest, LogStream};

const SOON: Duration = Duration::from_secs(20);

/// An agent whose command gives its input back on both outputs and ends with
/// 3, and whose ports do the same.
#[derive(Default)]
struct Echo {
    resized: Mutex<Vec<(u16, u16)>>,
    offers_nothing: bool,
}

impl NodeProxy for Echo {
    fn logs(&self, node: &str, _: LogRequest) -> BoxFuture<'_, Result<LogStream, StatusError>> {
        let error = not_offered(node, "logs");
        Box::pin(async move { Err(error) })
    }

    fn exec(
        &self,
        node: &str,
        _: ExecRequest,
        mut input: mpsc::Receiver<ToContainer>,
    ) -> BoxFuture<'_, Result<FromProcess, StatusError>> {
        let refused = self.offers_nothing.then(|| not_offered(node, "exec"));
        Box::pin(async move {
            if let Some(error) = refused {
                return Err(error);
            }
            let mut all = Vec::new();
            while let Some(message) = input.recv().await {
                match message {
                    ToContainer::Stdin(bytes) => all.extend_from_slice(&bytes),
                    ToContainer::Resize { width, height } => self.resized.lock().push((width, height)),
                    ToContainer::EndOfInput => break,
                }
            }
            let all = Bytes::from(all);
            let out = [FromContainer::Stdout(all.clone()), FromContainer::Stderr(all), FromContainer::Exited(3)];
            Ok(futures::stream::iter(out.map(Ok)).boxed())
        })
    }

    fn port_forward(
        &self,
        node: &str,
        request: PortRequest,
        input: mpsc::Receiver<Bytes>,
    ) -> BoxFuture<'_, Result<FromPort, StatusError>> {
        let refused = (request.port == 81).then(|| not_offered(node, "this port"));
        Box::pin(async move {
            match refused {
                Some(error) => Err(error),
                None => Ok(ReceiverStream::new(input).map(Ok).boxed()),
            }
        })
    }
}

fn exec_job(agent: &Arc<Echo>) -> exec::Job {
    let request = ExecRequest { stdin: true, stdout: true, stderr: true, ..ExecRequest::default() };
    exec::Job { proxy: Arc::clone(agent) as _, node: "n".to_owned(), request }
}

/// Reads all that the server writes until it closes.
async fn rest(socket: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    tokio::time::timeout(SOON, socket.read_to_end(&mut all)).await.expect("ends").expect("reads");
    all
}

/// The messages of the server: opcode and payload.
fn messages(mut wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [first, short, tail @ ..] = wire {
        let (length, tail) = match short {
            126 => (usize::from(tail[0]) << 8 | usize::from(tail[1]), &tail[2..]),
            short => (usize::from(*short), tail),
        };
        all.push((first & 0x0f, tail[..length].to_vec()));
        wire = &tail[length..];
    }
    all
}

/// The data that the server wrote on each SPDY stream, and which it finished.
fn streams(mut wire: &[u8]) -> (std::collections::BTreeMap<u32, Vec<u8>>, Vec<u32>) {
    let (mut all, mut finished) = (std::collections::BTreeMap::<u32, Vec<u8>>::new(), Vec::new());
    while wire.len() >= 8 {
        let first = u32::from_be_bytes([wire[0], wire[1], wire[2], wire[3]]);
        let length = usize::from(wire[5]) << 16 | usize::from(wire[6]) << 8 | usize::from(wire[7]);
        if first & 0x8000_0000 == 0 {
            all.entry(first).or_default().extend_from_slice(&wire[8..8 + length]);
            if wire[4] & 1 == 1 {
                finished.push(first);
            }
        }
        wire = &wire[8 + length..];
    }
    finished.sort_unstable();
    (all, finished)
}

fn expected_end() -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": "command terminated with non-zero exit code: command terminated with exit code 3",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    })
}

#[tokio::test]
async fn exec_over_websocket_ends_with_a_status_before_the_close() {
    let agent = Arc::new(Echo::default());
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let channels = Channels { version: 5, base64: false };
    let session = tokio::spawn(exec::over_websocket(server, channels, exec_job(&agent)));
    let sent = [
        masked(true, 2, b"\x04{\"Width\":80,\"Height\":24}"),
        masked(true, 2, b"\0hello"),
        masked(true, 9, b"ping"),
        masked(true, 2, b"\xff\0"),
    ];
    client.write_all(&sent.concat()).await.expect("written");
    let got = messages(&rest(&mut client).await);
    let payloads: Vec<&[u8]> = got.iter().map(|(_, payload)| payload.as_slice()).collect();
    assert_eq!(payloads[0], b"\x01");
    assert!(got.contains(&(10, b"ping".to_vec())), "{got:?}");
    assert!(payloads.contains(&&b"\x01hello"[..]) && payloads.contains(&&b"\x02hello"[..]), "{got:?}");
    let [.., (2, status), (8, code)] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!((status[0], code.as_slice()), (3, &1000_u16.to_be_bytes()[..]));
    assert_eq!(serde_json::from_slice::<Value>(&status[1..]).expect("JSON"), expected_end());
    assert_eq!(*agent.resized.lock(), [(80, 24)]);
    drop(client);
    tokio::time::timeout(SOON, session).await.expect("ends").expect("well");
}

#[tokio::test]
async fn what_the_agent_does_not_offer_is_said_on_the_error_channel() {
    let agent = Arc::new(Echo { offers_nothing: true, ..Echo::default() });
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let channels = Channels { version: 4, base64: true };
    tokio::spawn(exec::over_websocket(server, channels, exec_job(&agent)));
    let got = messages(&rest(&mut client).await);
    let [_, (1, status), (8, _)] = got.as_slice() else { panic!("{got:?}") };
    let status = channels.split(&Bytes::from(status.clone())).expect("a channel");
    let status: Value = serde_json::from_slice(&status.1).expect("JSON");
    assert_eq!((&status["code"], &status["reason"]), (&json!(501), &json!("NotImplemented")));
    assert_eq!(status["message"], "the agent of node \"n\" does not offer exec");
}

#[tokio::test]
async fn exec_over_spdy_has_a_stream_for_each_lane() {
    let agent = Arc::new(Echo::default());
    let (mut client, server) = tokio::io::duplex(1 << 16);
    tokio::spawn(exec::over_spdy(server, 4, exec_job(&agent)));
    let mut frames = Client::default();
    let mut sent = Vec::new();
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        sent.extend_from_slice(&frames.open(stream, &[("streamtype", kind)]));
    }
    sent.extend_from_slice(&spdy::data(3, b"hello"));
    sent.extend_from_slice(&spdy::finish(3));
    client.write_all(&sent).await.expect("written");
    let (data, finished) = streams(&rest(&mut client).await);
    assert_eq!((&data[&5][..], &data[&7][..]), (&b"hello"[..], &b"hello"[..]));
    assert_eq!(serde_json::from_slice::<Value>(&data[&1]).expect("JSON"), expected_end());
    assert_eq!(finished, [1, 5, 7]);
}

fn port_job() -> portforward::Job {
    let request = PortRequest { pod: "p".to_owned(), uid: "u".to_owned(), ..PortRequest::default() };
    portforward::Job { proxy: Arc::new(Echo::default()), node: "n".to_owned(), request }
}

/// Two connections, of which one cannot be made.
fn connections() -> Vec<u8> {
    let mut frames = Client::default();
    let mut sent = Vec::new();
    for (stream, kind, port, id) in
        [(1, "error", "80", "0"), (3, "data", "80", "0"), (5, "error", "81", "1"), (7, "data", "81", "1")]
    {
        sent.extend_from_slice(&frames.open(stream, &[("streamType", kind), ("port", port), ("requestID", id)]));
    }
    sent.extend_from_slice(&spdy::data(3, b"GET /"));
    sent.extend_from_slice(&spdy::finish(3));
    sent
}

fn check_connections(wire: &[u8]) {
    let (data, finished) = streams(wire);
    assert_eq!(&data[&3][..], b"GET /");
    let problem = "error forwarding port 81 to pod p, uid u: the agent of node \"n\" does not offer this port";
    assert_eq!(String::from_utf8_lossy(&data[&5]), problem);
    assert_eq!(finished, [1, 3, 5, 7]);
}

/// Reads until all four streams are finished.
async fn until_finished(socket: &mut DuplexStream, unwrap: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut wire = Vec::new();
    let reading = async {
        while streams(&unwrap(&wire)).1.len() < 4 {
            assert!(socket.read_buf(&mut wire).await.expect("reads") > 0, "ended early");
        }
    };
    tokio::time::timeout(SOON, reading).await.expect("in time");
    unwrap(&wire)
}

/// Whole frames only.
fn whole(wire: &[u8]) -> Vec<u8> {
    let mut at = 0;
    while wire.len() >= at + 8 {
        let length = usize::from(wire[at + 5]) << 16 | usize::from(wire[at + 6]) << 8 | usize::from(wire[at + 7]);
        if wire.len() < at + 8 + length {
            break;
        }
        at += 8 + length;
    }
    wire[..at].to_vec()
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let session = tokio::spawn(portforward::over_spdy(server, port_job()));
    client.write_all(&connections()).await.expect("written");
    check_connections(&until_finished(&mut client, whole).await);
    drop(client);
    tokio::time::timeout(SOON, session).await.expect("ends").expect("well");
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_within_a_websocket() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    tokio::spawn(portforward::over_spdy(tunnel(server), port_job()));
    // SPDY frames and messages need not agree.
    for part in connections().chunks(50) {
        client.write_all(&masked(true, 2, part)).await.expect("written");
    }
    let unwrap = |wire: &[u8]| {
        let mut end = 0;
        while wire.len() >= end + 4 {
            let (head, length) = match wire[end + 1] {
                126 => (4, usize::from(wire[end + 2]) << 8 | usize::from(wire[end + 3])),
                short => (2, usize::from(short)),
            };
            if wire.len() < end + head + length {
                break;
            }
            end += head + length;
        }
        whole(&messages(&wire[..end]).into_iter().flat_map(|(_, payload)| payload).collect::<Vec<_>>())
    };
    check_connections(&until_finished(&mut client, unwrap).await);
}

#[tokio::test]
async fn ports_are_forwarded_over_channels() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let channels = Channels { version: 4, base64: false };
    tokio::spawn(portforward::over_websocket(server, channels, vec![80, 81], port_job()));
    client.write_all(&masked(true, 2, b"\0GET /")).await.expect("written");
    let mut wire = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&wire).contains("does not offer") || !wire.windows(5).any(|w| w == b"GET /") {
            assert!(client.read_buf(&mut wire).await.expect("reads") > 0, "ended early");
        }
    };
    tokio::time::timeout(SOON, reading).await.expect("in time");
    let got = messages(&wire);
    let firsts: Vec<Vec<u8>> = got[..4].iter().map(|(_, payload)| payload.clone()).collect();
    assert!(firsts.contains(&vec![0, 80, 0]) && firsts.contains(&vec![1, 80, 0]), "{got:?}");
}
