//! Audit entries in a file that is rotated by size. One thread writes; a
//! bounded queue leads to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tracing::warn;

use super::Sink;

/// Entries that wait to be written; more make their requests wait.
const QUEUE: usize = 10_000;
/// Pause between two reports of failed writes.
const REPORT_PERIOD: Duration = Duration::from_secs(10);

/// Where entries go, and how much of them is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// The file.
    pub path: PathBuf,
    /// It is renamed and begun anew before it gets larger than this, in bytes.
    pub max_bytes: u64,
    /// Renamed files kept; 0 keeps all.
    pub max_backups: usize,
    /// Renamed files are removed after this long; zero keeps them.
    pub max_age: Duration,
}

/// See the module.
pub struct FileSink {
    queue: mpsc::Sender<Bytes>,
    failures: Counter,
}

impl FileSink {
    /// Opens the file (its end, if it exists) and starts to write.
    ///
    /// # Errors
    /// When the file cannot be opened for writing.
    pub fn open(options: FileOptions) -> io::Result<Self> {
        let log = Log::open(options)?;
        let (queue, entries) = mpsc::channel(QUEUE);
        let failures = Counter::default();
        let counted = failures.clone();
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || write_all(log, entries, &counted))?;
        Ok(Self { queue, failures })
    }

    /// Entries that could not be written.
    #[must_use]
    pub fn failures(&self) -> &Counter {
        &self.failures
    }
}

impl Sink for FileSink {
    fn write(&self, entry: Bytes) -> BoxFuture<'_, ()> {
        async move {
            if self.queue.send(entry).await.is_err() {
                self.failures.inc();
            }
        }
        .boxed()
    }
}

fn write_all(mut log: Log, mut entries: mpsc::Receiver<Bytes>, failures: &Counter) {
    let mut reported: Option<SystemTime> = None;
    while let Some(entry) = entries.blocking_recv() {
        let mut result = log.line(&entry);
        // All that is there, then one flush for them.
        while result.is_ok()
            && let Ok(entry) = entries.try_recv()
        {
            result = log.line(&entry);
        }
        let result = result.and_then(|()| log.flush());
        if let Err(error) = result {
            failures.inc();
            let quiet = reported.and_then(|at| at.elapsed().ok()).is_some_and(|since| since < REPORT_PERIOD);
            if !quiet {
                reported = Some(now());
                warn!(%error, path = %log.options.path.display(), "audit entries cannot be written");
            }
            // A file that has vanished or was full is opened anew.
            if let Err(error) = log.reopen() {
                warn!(%error, path = %log.options.path.display(), "the audit log cannot be opened");
            }
        }
    }
}

#[allow(clippy::disallowed_methods)]
fn now() -> SystemTime {
    // Names of files and their age are about this machine's clock, not about the cluster's state.
    SystemTime::now()
}

struct Log {
    options: FileOptions,
    file: BufWriter<File>,
    written: u64,
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let written = file.metadata()?.len();
    Ok((BufWriter::new(file), written))
}

impl Log {
    fn open(options: FileOptions) -> io::Result<Self> {
        let (file, written) = open(&options.path)?;
        Ok(Self { options, file, written })
    }

    fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.written) = open(&self.options.path)?;
        Ok(())
    }

    fn line(&mut self, entry: &[u8]) -> io::Result<()> {
        let length = entry.len() as u64 + 1;
        if self.written > 0 && self.written + length > self.options.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(entry)?;
        self.file.write_all(b"\n")?;
        self.written += length;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let stamp = now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut name = self.options.path.clone().into_os_string();
        name.push(format!(".{stamp:020}"));
        fs::rename(&self.options.path, PathBuf::from(name))?;
        self.reopen()?;
        self.remove_old()
    }

    fn remove_old(&self) -> io::Result<()> {
        let Some(parent) = self.options.path.parent() else { return Ok(()) };
        let prefix = format!("{}.", self.options.path.file_name().unwrap_or_default().to_string_lossy());
        let is_backup = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.strip_prefix(&prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut backups: Vec<PathBuf> =
            fs::read_dir(parent)?.filter_map(|item| Some(item.ok()?.path())).filter(is_backup).collect();
        backups.sort();
        let too_many = match self.options.max_backups {
            0 => 0,
            keep => backups.len().saturating_sub(keep),
        };
        for (number, path) in backups.iter().enumerate() {
            let age = fs::metadata(path)?.modified()?.elapsed().unwrap_or_default();
            let old = !self.options.max_age.is_zero() && age > self.options.max_age;
            if number < too_many || old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}
