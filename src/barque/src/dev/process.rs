//! The member processes: started as children, found again by their pid file,
//! stopped in order.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::DevError;
use super::layout::{Member, Program};
use crate::pidfile::{self, PARENT_VARIABLE};

/// How long a member may take to stop before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// Output of a member, in its data directory.
pub const LOG_FILE: &str = "output.log";
/// Pause between looks at a stopping process.
const POLL: Duration = Duration::from_millis(50);

/// The running members.
#[derive(Default)]
pub struct Processes {
    children: HashMap<String, Child>,
}

impl Processes {
    /// Starts a member as a child process; its output goes to a file in its
    /// data directory.
    ///
    /// # Errors
    /// When it cannot be started, or runs already.
    pub fn start(&mut self, member: &Member) -> Result<u32, DevError> {
        self.reap();
        if let Some(pid) = self.pid(member) {
            return Err(DevError::Running { name: member.name.clone(), pid });
        }
        let failed = |source| DevError::Start { name: member.name.clone(), source };
        let log = OpenOptions::new().create(true).append(true).open(member.data_dir.join(LOG_FILE)).map_err(failed)?;
        let executable = std::env::current_exe().map_err(failed)?;
        let command = match member.program {
            Program::Server => "server",
            Program::Agent => "agent",
        };
        let child = Command::new(executable)
            .arg(command)
            .arg("--config")
            .arg(&member.config)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Its own group: Ctrl-C reaches `barque dev` alone, which stops
            // the members in order.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        self.children.insert(member.name.clone(), child);
        Ok(pid)
    }

    /// The pid of a member, if it runs: a child, or a process that somebody
    /// else started with the same configuration.
    pub fn pid(&mut self, member: &Member) -> Option<u32> {
        if let Some(child) = self.children.get_mut(&member.name)
            && matches!(child.try_wait(), Ok(None))
        {
            return child.id();
        }
        pidfile::running(&member.data_dir)
    }

    /// Collects children that have ended, so that none stays a zombie.
    pub fn reap(&mut self) {
        self.children.retain(|_, child| matches!(child.try_wait(), Ok(None)));
    }

    /// Stops members: SIGTERM to all, then SIGKILL to those that stay.
    pub async fn stop(&mut self, members: &[&Member]) {
        let mut waiting: Vec<_> = members.iter().filter_map(|m| self.pid(m)).collect();
        for pid in &waiting {
            signal(*pid, Signal::SIGTERM);
        }
        let deadline = Instant::now() + STOP_GRACE;
        while Instant::now() < deadline && !waiting.is_empty() {
            self.reap();
            waiting.retain(|pid| is_alive(*pid));
            sleep(POLL).await;
        }
        for pid in waiting {
            signal(pid, Signal::SIGKILL);
        }
        self.reap();
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
