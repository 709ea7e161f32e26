//! What disk and loopback can do at best: the frame for every other number.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::measure::quantile;

/// The result.
#[derive(Debug, Serialize)]
pub struct Probe {
    bytes: usize,
    fsyncs_per_second: f64,
    fsync_p50_us: u64,
    fsync_p99_us: u64,
    round_trips_per_second: f64,
    round_trip_p50_us: u64,
    round_trip_p99_us: u64,
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "append+fdatasync of {} B, one at a time: {:.0}/s, p50 {:.3} ms, p99 {:.3} ms",
            self.bytes,
            self.fsyncs_per_second,
            self.fsync_p50_us as f64 / 1_000.0,
            self.fsync_p99_us as f64 / 1_000.0
        )?;
        write!(
            f,
            "loopback round trip of {} B, one at a time: {:.0}/s, p50 {:.3} ms, p99 {:.3} ms",
            self.bytes,
            self.round_trips_per_second,
            self.round_trip_p50_us as f64 / 1_000.0,
            self.round_trip_p99_us as f64 / 1_000.0
        )
    }
}

/// Measures both, one after the other.
pub async fn run(directory: &Path, bytes: usize, time: Duration) -> Result<Probe, String> {
    let path = directory.to_path_buf();
    let fsyncs = tokio::task::spawn_blocking(move || fsync_loop(&path, bytes, time))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let trips = socket_loop(bytes, time).await.map_err(|error| format!("loopback: {error}"))?;
    let rate = |latencies: &[u64]| latencies.len() as f64 / time.as_secs_f64();
    Ok(Probe {
        bytes,
        fsyncs_per_second: rate(&fsyncs),
        fsync_p50_us: quantile(&fsyncs, 0.5),
        fsync_p99_us: quantile(&fsyncs, 0.99),
        round_trips_per_second: rate(&trips),
        round_trip_p50_us: quantile(&trips, 0.5),
        round_trip_p99_us: quantile(&trips, 0.99),
    })
}

fn fsync_loop(directory: &Path, bytes: usize, time: Duration) -> std::io::Result<Vec<u64>> {
    let path = directory.join(barque_tests::unique("fsync-probe"));
    let mut file = File::create(&path)?;
    let block = vec![0x55; bytes];
    let mut latencies = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < time {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.push(start.elapsed().as_micros() as u64);
    }
    std::fs::remove_file(&path)?;
    latencies.sort_unstable();
    Ok(latencies)
}

async fn socket_loop(bytes: usize, time: Duration) -> std::io::Result<Vec<u64>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut buffer = vec![0; bytes];
        loop {
            stream.read_exact(&mut buffer).await?;
            stream.write_all(&buffer).await?;
        }
        #[expect(unreachable_code, reason = "names the type of the errors above")]
        Ok::<(), std::io::Error>(())
    });
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0x55; bytes];
    let mut latencies = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < time {
        let start = Instant::now();
        stream.write_all(&buffer).await?;
        stream.read_exact(&mut buffer).await?;
        latencies.push(start.elapsed().as_micros() as u64);
    }
    echo.abort();
    latencies.sort_unstable();
    Ok(latencies)
}
