//! The session server, put together with what it needs to know about the
//! group; and the gossip that keeps nodes' clocks going over a leader change.

use std::sync::Arc;
use std::time::Duration;

use barque_api::world::World;
use barque_raft::RaftStore;
use barque_runtime::Client;
use barque_sessions::{Masters, SessionOptions, SessionServer};
use barque_store::Store;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Period in which the leader tells the others what it has heard of nodes.
const GOSSIP_PERIOD: Duration = Duration::from_secs(1);

/// Starts a session server and its gossip.
pub fn start(
    store: &RaftStore,
    client: &Arc<dyn Client>,
    world: &World,
    shutdown: &CancellationToken,
) -> SessionServer {
    let options = SessionOptions { cluster_id: store.cluster_id().to_owned(), ..SessionOptions::default() };
    let server = SessionServer::new(
        Arc::new(store.clone()),
        Arc::clone(client),
        Arc::new(Group(store.clone())),
        options,
        world.clone(),
    );
    tokio::spawn(tell(store.clone(), server.clone(), shutdown.clone()));
    tokio::spawn(listen(store.clone(), server.clone(), shutdown.clone()));
    server
}

async fn tell(store: RaftStore, server: SessionServer, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(GOSSIP_PERIOD) => {}
            () = shutdown.cancelled() => return,
        }
        let leadership = *store.leadership().borrow();
        if leadership.established {
            store.gossip(leadership.term, &server.ages()).await;
        }
    }
}

async fn listen(store: RaftStore, server: SessionServer, shutdown: CancellationToken) {
    let mut heard = store.gossip_receiver();
    loop {
        let gossip = tokio::select! {
            gossip = heard.recv() => gossip,
            () = shutdown.cancelled() => return,
        };
        match gossip {
            // A leader believes its own ears, and an old leader nobody.
            Ok(gossip) => {
                let leadership = *store.leadership().borrow();
                if gossip.term >= leadership.term && !leadership.established {
                    server.absorb(gossip.ages);
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Where the masters are, as the group's membership says.
struct Group(RaftStore);

impl Masters for Group {
    fn leader_address(&self) -> Option<String> {
        let status = self.0.status();
        let leader = status.leader?;
        status.members.into_iter().find(|m| m.member.id == leader).map(|m| m.member.address)
    }

    fn addresses(&self) -> Vec<String> {
        self.0.status().members.into_iter().map(|m| m.member.address).collect()
    }
}
