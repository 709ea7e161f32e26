//! The masters as this process knows them: who leads, where the others are,
//! and the connections that the sessions share.

use std::collections::HashMap;

use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::error::AgentError;
use crate::options::Tls;
use crate::tls;

/// Addresses remembered; clusters have three or five masters.
const MAX_KNOWN: usize = 32;

/// See the module.
pub struct Masters {
    tls: Tls,
    sessions_per_connection: usize,
    configured: Vec<String>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: Vec<String>,
    leader: Option<String>,
    turn: usize,
    next_id: u64,
    connections: HashMap<String, Vec<Connection>>,
}

struct Connection {
    id: u64,
    channel: Channel,
    sessions: usize,
}

/// A share in a connection; given back when dropped.
pub struct Lease<'a> {
    masters: &'a Masters,
    /// The master's address.
    pub address: String,
    id: u64,
    /// The connection.
    pub channel: Channel,
}

impl Masters {
    /// Knows the configured addresses to begin with.
    pub fn new(tls: Tls, configured: Vec<String>, sessions_per_connection: usize) -> Self {
        let inner = Inner { known: configured.clone(), ..Inner::default() };
        Self { tls, sessions_per_connection, configured, inner: Mutex::new(inner) }
    }

    /// The address to try next: the leader's if known, else each in turn.
    pub fn pick(&self) -> String {
        let mut inner = self.inner.lock();
        if let Some(leader) = &inner.leader {
            return leader.clone();
        }
        inner.turn = inner.turn.wrapping_add(1);
        inner.known[inner.turn % inner.known.len()].clone()
    }

    /// What a master told about itself and the others.
    pub fn learn(&self, leader: Option<&str>, masters: &[String]) {
        let mut inner = self.inner.lock();
        if !masters.is_empty() {
            let mut known: Vec<String> = masters.to_vec();
            known.extend(self.configured.iter().cloned());
            let mut seen = std::collections::HashSet::new();
            known.retain(|address| !address.is_empty() && seen.insert(address.clone()));
            known.truncate(MAX_KNOWN);
            if !known.is_empty() {
                inner.known = known;
            }
        }
        if let Some(leader) = leader {
            inner.leader = Some(leader.to_owned());
        }
    }

    /// The master at `address` does not lead (any more), or is away.
    pub fn doubt(&self, address: &str) {
        let mut inner = self.inner.lock();
        if inner.leader.as_deref() == Some(address) {
            inner.leader = None;
        }
    }

    /// A share in a connection to a master.
    pub fn lease(&self, address: &str) -> Result<Lease<'_>, AgentError> {
        let mut inner = self.inner.lock();
        let limit = self.sessions_per_connection;
        let shared = inner.connections.get_mut(address).and_then(|all| all.iter_mut().find(|c| c.sessions < limit));
        let (id, channel) = if let Some(connection) = shared {
            connection.sessions += 1;
            (connection.id, connection.channel.clone())
        } else {
            let channel = tls::endpoint(&self.tls, address)?.connect_lazy();
            let id = inner.next_id;
            inner.next_id += 1;
            let connection = Connection { id, channel: channel.clone(), sessions: 1 };
            inner.connections.entry(address.to_owned()).or_default().push(connection);
            (id, channel)
        };
        Ok(Lease { masters: self, address: address.to_owned(), id, channel })
    }
}

impl Lease<'_> {
    /// The connection is of no use: the next lease gets a fresh one, with
    /// certificates read anew.
    pub fn broken(&self) {
        let mut inner = self.masters.inner.lock();
        if let Some(all) = inner.connections.get_mut(&self.address) {
            all.retain(|connection| connection.id != self.id);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut inner = self.masters.inner.lock();
        let Some(all) = inner.connections.get_mut(&self.address) else { return };
        if let Some(at) = all.iter().position(|connection| connection.id == self.id) {
            all[at].sessions -= 1;
            if all[at].sessions == 0 {
                all.remove(at);
            }
        }
        if all.is_empty() {
            inner.connections.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_first_then_everybody_in_turn() {
        let masters = Masters::new(Tls::default(), vec!["a:1".into(), "b:1".into()], 10);
        assert_ne!(masters.pick(), masters.pick());
        masters.learn(Some("b:1"), &["b:1".into(), "c:1".into()]);
        assert_eq!((masters.pick(), masters.pick()), ("b:1".into(), "b:1".into()));
        masters.doubt("a:1");
        assert_eq!(masters.pick(), "b:1");
        masters.doubt("b:1");
        let mut all: Vec<_> = (0..3).map(|_| masters.pick()).collect();
        all.sort();
        assert_eq!(all, ["a:1", "b:1", "c:1"]);
    }
}
