//! Signals to processes, and what `/proc` says about them.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Where the `barque` binary lies: `$BARQUE_BIN`, or beside this test in the
/// target directory.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn barque() -> PathBuf {
    if let Some(path) = std::env::var_os("BARQUE_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "BARQUE_BIN={} is not a file", path.display());
        return path;
    }
    let own = std::env::current_exe().expect("a process knows its executable");
    let found = own.ancestors().skip(1).take(3).map(|directory| directory.join("barque")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no `barque` near {}: run `cargo build -p barque` or set BARQUE_BIN", own.display()))
}

/// Sends a signal to one process; false if it does not exist.
#[must_use]
pub fn signal(pid: u32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid.cast_signed()), signal).is_ok()
}

/// Sends a signal to a whole process group.
pub fn signal_group(pid: u32, signal: Signal) {
    // It may be gone already, which is what the caller wants.
    let _ = killpg(Pid::from_raw(pid.cast_signed()), signal);
}

/// Whether a process exists and is no zombie.
#[must_use]
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with('Z')))
        .unwrap_or(false)
}

/// The command line of a process, arguments joined by blanks.
#[must_use]
pub fn command_line(pid: u32) -> Option<String> {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&raw).replace('\0', " "))
}

/// Resident memory of a process, in bytes.
#[must_use]
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started or takes longer than the deadline.
pub async fn run(mut command: Command, stdin: &[u8], deadline: Duration) -> Result<Output, String> {
    let shown = format!("{:?}", command.as_std());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("cannot start {shown}: {error}"))?;
    let mut pipe = child.stdin.take().expect("standard input is piped");
    let input = stdin.to_vec();
    let feed = tokio::spawn(async move {
        // A program may end without reading everything; its exit code tells.
        let _ = pipe.write_all(&input).await;
    });
    let output = tokio::time::timeout(deadline, child.wait_with_output()).await;
    feed.abort();
    match output {
        Ok(output) => output.map_err(|error| format!("waiting for {shown}: {error}")),
        Err(_) => Err(format!("{shown} still runs after {}s", deadline.as_secs())),
    }
}

/// Whether a program can be found on the path.
#[must_use]
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}
