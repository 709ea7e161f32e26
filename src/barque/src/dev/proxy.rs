//! One address that goes over all masters: a small TCP relay. Connections go
//! in turn to masters that serve; one that cannot be reached is passed over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::DevError;

/// Connections relayed at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a master may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client waits for any master to serve.
const ATTEMPTS: usize = 40;
/// Pause between rounds over all masters.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// Starts to relay.
///
/// # Errors
/// When the address is taken.
pub async fn listen(
    address: SocketAddr,
    serving: watch::Receiver<Vec<SocketAddr>>,
) -> Result<JoinHandle<()>, DevError> {
    let listener = TcpListener::bind(address).await.map_err(|source| DevError::Listen { address, source })?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let turn = Arc::new(AtomicUsize::new(0));
    Ok(tokio::spawn(async move {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let Ok((client, _)) = listener.accept().await else {
                // Out of file descriptors, say: it passes.
                sleep(ATTEMPT_PAUSE).await;
                continue;
            };
            let (serving, turn) = (serving.clone(), Arc::clone(&turn));
            tokio::spawn(async move {
                relay(client, serving, &turn).await;
                drop(slot);
            });
        }
    }))
}

async fn relay(mut client: TcpStream, serving: watch::Receiver<Vec<SocketAddr>>, turn: &AtomicUsize) {
    let _ = client.set_nodelay(true);
    for _ in 0..ATTEMPTS {
        let masters = serving.borrow().clone();
        for _ in 0..masters.len() {
            let master = masters[turn.fetch_add(1, Ordering::Relaxed) % masters.len()];
            if let Ok(Ok(mut upstream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(master)).await {
                let _ = upstream.set_nodelay(true);
                // An error here is one side hanging up, which the other sees.
                let _ = copy_bidirectional(&mut client, &mut upstream).await;
                return;
            }
        }
        sleep(ATTEMPT_PAUSE).await;
    }
}
