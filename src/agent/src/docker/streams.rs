//! Processes in containers, attaching to containers, and connections to ports
//! of Pods.

use barque_proto::v1::{ExecInput, ExecOutput, ExecStart, PortStart, exec_input, exec_output, port_input};
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::{AttachContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;

use super::engine::{Engine, message};
use crate::pods::model::{Observed, RunState};
use crate::runtime::{ExecInputs, ExecOutputs, LogStream, PortInputs};

/// Messages that wait to be sent.
const MAX_WAITING: usize = 16;
/// Bytes read from a port at once.
const CHUNK: usize = 32 << 10;

type Reply = Result<ExecOutput, Status>;

fn failed(error: bollard::errors::Error) -> Status {
    Status::unavailable(message(&error))
}

/// A task that ends with the stream that it feeds.
struct Held(JoinHandle<()>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The messages of a task, which is cut off when nobody listens.
fn fed<T: Send + 'static>(receiver: mpsc::Receiver<T>, task: JoinHandle<()>) -> impl Stream<Item = T> + Send {
    futures::stream::unfold((receiver, Held(task)), |(mut receiver, held)| async move {
        let item = receiver.recv().await?;
        Some((item, (receiver, held)))
    })
}

fn reply(kind: exec_output::Kind) -> Reply {
    Ok(ExecOutput { kind: Some(kind) })
}

fn output(chunk: LogOutput) -> Reply {
    match chunk {
        LogOutput::StdErr { message } => reply(exec_output::Kind::Stderr(message)),
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
            reply(exec_output::Kind::Stdout(message))
        }
    }
}

/// Whose terminal is resized.
enum Terminal {
    Exec(String),
    Container(String),
}

impl Terminal {
    async fn resize(&self, engine: &Engine, width: u32, height: u32) {
        let [width, height] = [width, height].map(|size| u16::try_from(size).unwrap_or(u16::MAX));
        // A process that is about to end has no terminal any more.
        let _ = match self {
            Self::Exec(id) => engine.docker.resize_exec(id, ResizeExecOptions { height, width }).await,
            Self::Container(id) => {
                let options = ResizeContainerTTYOptionsBuilder::new().h(i32::from(height)).w(i32::from(width)).build();
                engine.docker.resize_container_tty(id, options).await
            }
        };
    }
}

/// Starts a process, or attaches; see [`crate::runtime::PodRuntime::exec`].
pub async fn exec(engine: &Engine, start: ExecStart, input: ExecInputs) -> Result<ExecOutputs, Status> {
    let seen = engine.observe(&start.uid, &Observed::default()).await.map_err(failed)?;
    let running = seen.of(&start.container).into_iter().find(|record| matches!(record.state, RunState::Running { .. }));
    let Some(record) = running else {
        return Err(Status::failed_precondition(format!("container not found (\"{}\")", start.container)));
    };
    let id = record.id.clone();
    let (sender, receiver) = mpsc::channel::<Reply>(MAX_WAITING);
    let engine = engine.clone();
    let task = if start.attach {
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(start.stdin)
            .stdout(start.stdout)
            .stderr(start.stderr)
            .build();
        let attached = engine.docker.attach_container(&id, Some(options)).await.map_err(failed)?;
        tokio::spawn(async move {
            let terminal = Terminal::Container(id.clone());
            let ended = copy(&engine, &terminal, attached.output, attached.input, input, &sender).await;
            let end = match ended {
                Ok(()) => exit_of_container(&engine, &id).await,
                Err(status) => Err(status),
            };
            let _ = sender.send(end).await;
        })
    } else {
        let options = CreateExecOptions {
            attach_stdin: Some(start.stdin),
            attach_stdout: Some(start.stdout),
            attach_stderr: Some(start.stderr && !start.tty),
            tty: Some(start.tty),
            cmd: Some(start.command),
            ..CreateExecOptions::default()
        };
        let exec = engine.docker.create_exec(&id, options).await.map_err(failed)?.id;
        let options = StartExecOptions { tty: start.tty, ..StartExecOptions::default() };
        let StartExecResults::Attached { output, input: stdin } =
            engine.docker.start_exec(&exec, Some(options)).await.map_err(failed)?
        else {
            return Err(Status::internal("the process runs detached"));
        };
        tokio::spawn(async move {
            let terminal = Terminal::Exec(exec.clone());
            let end = match copy(&engine, &terminal, output, stdin, input, &sender).await {
                Ok(()) => exit_of_process(&engine, &exec).await,
                Err(status) => Err(status),
            };
            let _ = sender.send(end).await;
        })
    };
    Ok(Box::pin(fed(receiver, task)))
}

/// Copies both ways until the process has said all.
async fn copy(
    engine: &Engine,
    terminal: &Terminal,
    mut said: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
    stdin: impl AsyncWrite + Unpin,
    mut input: ExecInputs,
    sender: &mpsc::Sender<Reply>,
) -> Result<(), Status> {
    let mut stdin = Some(stdin);
    let mut more = true;
    loop {
        tokio::select! {
            chunk = said.next() => match chunk {
                // Nobody listens: the task is about to be cut off.
                Some(Ok(chunk)) => if sender.send(output(chunk)).await.is_err() { return Ok(()) },
                Some(Err(error)) => return Err(failed(error)),
                None => return Ok(()),
            },
            message = input.next(), if more => match message.transpose()?.and_then(|message: ExecInput| message.kind) {
                Some(exec_input::Kind::Stdin(bytes)) => {
                    if let Some(open) = &mut stdin
                        && (open.write_all(&bytes).await.is_err() || open.flush().await.is_err())
                    {
                        // The process reads no more.
                        stdin = None;
                    }
                }
                Some(exec_input::Kind::Resize(size)) => terminal.resize(engine, size.width, size.height).await,
                Some(exec_input::Kind::EndOfInput(_)) => close(&mut stdin).await,
                Some(exec_input::Kind::Start(_)) => return Err(Status::invalid_argument("it is started already")),
                None => {
                    more = false;
                    close(&mut stdin).await;
                }
            },
        }
    }
}

async fn close(stdin: &mut Option<impl AsyncWrite + Unpin>) {
    if let Some(mut open) = stdin.take() {
        // If it is closed already, all the better.
        let _ = open.shutdown().await;
    }
}

async fn exit_of_process(engine: &Engine, id: &str) -> Reply {
    let seen = engine.docker.inspect_exec(id).await.map_err(failed)?;
    let code = seen.exit_code.and_then(|code| i32::try_from(code).ok());
    reply(exec_output::Kind::ExitCode(code.unwrap_or(0)))
}

async fn exit_of_container(engine: &Engine, id: &str) -> Reply {
    use bollard::query_parameters::InspectContainerOptions;
    let seen = engine.docker.inspect_container(id, None::<InspectContainerOptions>).await.map_err(failed)?;
    let state = seen.state.filter(|state| state.running != Some(true));
    let code = state.and_then(|state| state.exit_code).and_then(|code| i32::try_from(code).ok());
    reply(exec_output::Kind::ExitCode(code.unwrap_or(0)))
}

/// Connects to a port of a Pod; see [`crate::runtime::PodRuntime::port_forward`].
pub async fn port_forward(engine: &Engine, start: PortStart, mut input: PortInputs) -> Result<LogStream, Status> {
    let port = u16::try_from(start.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| Status::invalid_argument(format!("{} is not a port", start.port)))?;
    let seen = engine.observe(&start.uid, &Observed::default()).await.map_err(failed)?;
    let sandbox = seen.sandbox.filter(|sandbox| sandbox.running);
    let sandbox = sandbox.ok_or_else(|| Status::failed_precondition("the pod does not run"))?;
    // Pods on the node's network have no address of their own.
    let address = sandbox.ips.into_iter().next().unwrap_or_else(|| "127.0.0.1".to_owned());
    let stream = TcpStream::connect((address.as_str(), port)).await.map_err(|error| {
        Status::unavailable(format!("failed to connect to {address}:{port} inside the pod's network: {error}"))
    })?;
    let (mut reader, mut writer) = stream.into_split();
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let task = tokio::spawn(async move {
        let sending = async {
            while let Some(Ok(message)) = input.next().await {
                let Some(port_input::Kind::Data(bytes)) = message.kind else { break };
                if writer.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            // The other side may still have something to say.
            let _ = writer.shutdown().await;
        };
        let receiving = async {
            loop {
                let mut chunk = vec![0; CHUNK];
                match reader.read(&mut chunk).await {
                    Ok(0) => break,
                    Ok(read) => {
                        chunk.truncate(read);
                        if sender.send(Ok(Bytes::from(chunk))).await.is_err() {
                            break;
                        }
                    }
                    Err(error) => {
                        let _ = sender.send(Err(Status::unavailable(error.to_string()))).await;
                        break;
                    }
                }
            }
        };
        tokio::pin!(sending);
        tokio::pin!(receiving);
        tokio::select! {
            () = &mut receiving => {}
            () = &mut sending => receiving.await,
        }
    });
    Ok(Box::pin(fed(receiver, task)))
}
