//! The socket by which `barque dev restart` reaches the running `barque dev`:
//! one line with a name in, one line with the answer out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::DevError;
use super::layout::Layout;
use super::process::Processes;

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 256;
/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// Serves the socket.
///
/// # Errors
/// When it cannot be created.
pub fn listen(layout: Arc<Layout>, processes: Arc<Mutex<Processes>>) -> Result<JoinHandle<()>, DevError> {
    let path = socket(&layout.dir);
    // The directory's pid file is ours: an old socket is nobody's.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(|source| DevError::Control { dir: layout.dir.clone(), source })?;
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // One request at a time: starting processes is nothing to hurry.
            let _ = timeout(REQUEST_TIMEOUT, answer(stream, &layout, &processes)).await;
        }
    }))
}

async fn answer(mut stream: UnixStream, layout: &Layout, processes: &Mutex<Processes>) -> std::io::Result<()> {
    let mut name = String::new();
    let (read, mut write) = stream.split();
    BufReader::new(read.take(MAX_REQUEST)).read_line(&mut name).await?;
    let started = match layout.members.iter().find(|m| m.name == name.trim()) {
        Some(member) => processes.lock().await.start(member),
        None => Err(DevError::Unknown {
            name: name.trim().to_owned(),
            known: layout.members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", "),
        }),
    };
    let line = match started {
        Ok(pid) => format!("ok {pid}\n"),
        Err(error) => format!("error {error}\n"),
    };
    write.write_all(line.as_bytes()).await
}

/// Asks the running `barque dev` of a directory to start a member again.
///
/// # Errors
/// When none runs there, or it refuses.
pub async fn restart(dir: &Path, name: &str) -> Result<u32, DevError> {
    let failed = |source| DevError::Control { dir: dir.to_owned(), source };
    let mut stream = UnixStream::connect(socket(dir)).await.map_err(failed)?;
    stream.write_all(format!("{name}\n").as_bytes()).await.map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.map_err(failed)?;
    match line.trim().split_once(' ') {
        Some(("ok", pid)) => pid.parse().map_err(|_| DevError::Refused(line.clone())),
        Some(("error", why)) => Err(DevError::Refused(why.to_owned())),
        _ => Err(DevError::Refused("no answer".to_owned())),
    }
}
