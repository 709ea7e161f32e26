//! The links to all peers.

use std::collections::HashMap;
use std::sync::Arc;

use barque_store::MasterId;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::options::Options;
use crate::peers::link::{Link, LinkEvent};
use crate::types::PeerNode;

/// One link per peer, made when a peer is first heard of.
pub struct Links {
    own: MasterId,
    links: RwLock<HashMap<MasterId, Arc<Link>>>,
    options: Options,
    events: mpsc::UnboundedSender<LinkEvent>,
}

impl Links {
    /// No links yet.
    #[must_use]
    pub fn new(options: Options, events: mpsc::UnboundedSender<LinkEvent>) -> Self {
        Self { own: options.id, links: RwLock::default(), options, events }
    }

    /// The link to a peer that the membership describes.
    pub fn to_member(&self, peer: MasterId, node: &PeerNode) -> Arc<Link> {
        let address = self.address_of(peer, node);
        if let Some(link) = self.links.read().get(&peer) {
            link.set_address(&address);
            return Arc::clone(link);
        }
        let mut links = self.links.write();
        Arc::clone(links.entry(peer).or_insert_with(|| {
            Link::start(peer, address, self.options.tls.clone(), self.options.timings.clone(), self.events.clone())
        }))
    }

    /// Configuration knows better than a membership that was written before
    /// the peer moved.
    fn address_of(&self, peer: MasterId, node: &PeerNode) -> String {
        let configured = self.options.peers.iter().find(|member| member.id == peer);
        configured.map_or_else(|| node.address.clone(), |member| member.address.clone())
    }

    /// An existing link.
    #[must_use]
    pub fn get(&self, peer: MasterId) -> Option<Arc<Link>> {
        self.links.read().get(&peer).cloned()
    }

    /// All links.
    #[must_use]
    pub fn all(&self) -> Vec<(MasterId, Arc<Link>)> {
        self.links.read().iter().map(|(id, link)| (*id, Arc::clone(link))).collect()
    }

    /// Makes links to all members and drops those to former ones.
    pub fn follow<'a>(&self, members: impl Iterator<Item = (MasterId, &'a PeerNode)>) {
        let members: HashMap<MasterId, &PeerNode> = members.filter(|(id, _)| *id != self.own).collect();
        self.links.write().retain(|id, link| {
            let stays = members.contains_key(id);
            if !stays {
                link.stop();
            }
            stays
        });
        for (id, node) in members {
            self.to_member(id, node);
        }
    }

    /// Ends all connections.
    pub fn stop(&self) {
        for (_, link) in self.links.write().drain() {
            link.stop();
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.stop();
    }
}
