//! The stock `kubectl` against a test cluster.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::cluster::Cluster;
use crate::process;

/// How long one call may take.
const CALL_DEADLINE: Duration = Duration::from_mins(3);

/// Whether there is a `kubectl`.
#[must_use]
pub fn available() -> bool {
    process::on_path("kubectl")
}

/// What a call printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The call, for messages.
    pub call: String,
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Asserts success and returns standard output.
    ///
    /// # Panics
    /// With all output, when it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{}: {}\n{}{}", self.call, self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts failure and returns standard error.
    ///
    /// # Panics
    /// With all output, when it succeeded.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(!self.status.success(), "{} should have failed:\n{}{}", self.call, self.stdout, self.stderr);
        self.stderr
    }
}

/// A configured `kubectl`.
#[derive(Clone)]
pub struct Kubectl {
    program: PathBuf,
    environment: Vec<(String, String)>,
    context: Option<String>,
    namespace: Option<String>,
}

impl Kubectl {
    /// For a cluster, with its own home and discovery cache.
    #[must_use]
    pub fn new(cluster: &Cluster) -> Self {
        let home = cluster.scratch().join("home");
        std::fs::create_dir_all(&home).expect("a home directory for kubectl");
        let text = |path: &Path| path.display().to_string();
        let environment = vec![
            ("KUBECONFIG".to_owned(), text(&cluster.kubeconfig())),
            ("HOME".to_owned(), text(&home)),
            ("KUBECACHEDIR".to_owned(), text(&home.join("cache"))),
        ];
        Self { program: PathBuf::from("kubectl"), environment, context: None, namespace: None }
    }

    /// Another binary than the one on the path.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// In another context of the kubeconfig.
    #[must_use]
    pub fn context(mut self, context: &str) -> Self {
        self.context = Some(context.to_owned());
        self
    }

    /// In a namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// With a further environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command.args(arguments);
        command
    }

    /// Runs it with input.
    ///
    /// # Panics
    /// When it cannot be started or does not end.
    pub async fn with_input(&self, arguments: &[&str], stdin: &str) -> Output {
        let call = format!("kubectl {}", arguments.join(" "));
        let output = process::run(self.command(arguments), stdin.as_bytes(), CALL_DEADLINE)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        Output {
            call,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it. The arguments are one text, split at blanks; use
    /// [`Self::args`] when an argument holds blanks.
    pub async fn run(&self, arguments: &str) -> Output {
        self.args(&arguments.split_whitespace().collect::<Vec<_>>()).await
    }

    /// Runs it with an argument list.
    pub async fn args(&self, arguments: &[&str]) -> Output {
        self.with_input(arguments, "").await
    }

    /// Runs it, asserts success, returns standard output.
    pub async fn ok(&self, arguments: &str) -> String {
        self.run(arguments).await.ok()
    }

    /// `kubectl apply -f -`.
    pub async fn apply(&self, yaml: &str) -> String {
        self.with_input(&["apply", "-f", "-"], yaml).await.ok()
    }

    /// Starts a call that goes on printing (`-w`, `-f`).
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn stream(&self, arguments: &str) -> Stream {
        let list: Vec<_> = arguments.split_whitespace().collect();
        let mut command = self.command(&list);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start kubectl: {error}"));
        let stdout = child.stdout.take().expect("standard output is piped");
        Stream { child, lines: BufReader::new(stdout).lines(), call: format!("kubectl {arguments}") }
    }
}

/// A call that goes on printing; dropping it kills it.
pub struct Stream {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    call: String,
}

impl Stream {
    /// Reads on until a line satisfies the condition; returns all lines read,
    /// this one last.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn until(&mut self, mut condition: impl FnMut(&str) -> bool) -> Vec<String> {
        let mut seen = Vec::new();
        let work = async {
            loop {
                match self.lines.next_line().await {
                    Ok(Some(line)) => {
                        let done = condition(&line);
                        seen.push(line);
                        if done {
                            return true;
                        }
                    }
                    Ok(None) | Err(_) => return false,
                }
            }
        };
        let found = tokio::time::timeout(CALL_DEADLINE, work).await.unwrap_or(false);
        assert!(found, "{}: the awaited line did not come; seen:\n{}", self.call, seen.join("\n"));
        seen
    }

    /// Waits for its end and asserts success; returns the remaining lines.
    ///
    /// # Panics
    /// When it fails or does not end.
    pub async fn finish(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        let work = async {
            while let Ok(Some(line)) = self.lines.next_line().await {
                rest.push(line);
            }
            self.child.wait().await
        };
        let status = tokio::time::timeout(CALL_DEADLINE, work).await;
        let status = status.unwrap_or_else(|_| panic!("{} does not end", self.call)).expect("it is our child");
        assert!(status.success(), "{}: {status}\n{}", self.call, rest.join("\n"));
        rest
    }
}
