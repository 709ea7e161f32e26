//! Wakes the watchers of a resource when it changes, and only those: one task
//! looks at each new revision on behalf of all of them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use barque_store::{Revision, View};
use parking_lot::Mutex;
use tokio::sync::watch;

struct Channel {
    sender: watch::Sender<Revision>,
    /// Everything up to here has been announced.
    seen: Revision,
}

#[derive(Default)]
struct State {
    channels: HashMap<Arc<str>, Channel>,
    running: bool,
}

/// See the module's documentation.
pub(super) struct Hub {
    view: Arc<View>,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self { view, state: Arc::default() }
    }

    /// Wakes when the resource changes from now on.
    pub(super) fn subscribe(&self, resource: &Arc<str>) -> watch::Receiver<Revision> {
        let mut state = self.state.lock();
        let now = self.view.revision();
        let channel = state
            .channels
            .entry(Arc::clone(resource))
            .or_insert_with(|| Channel { sender: watch::Sender::new(now), seen: now });
        let receiver = channel.sender.subscribe();
        if !state.running {
            state.running = true;
            tokio::spawn(announce(Arc::clone(&self.view), Arc::downgrade(&self.state)));
        }
        receiver
    }
}

async fn announce(view: Arc<View>, state: Weak<Mutex<State>>) {
    let mut revisions = view.subscribe();
    let mut generation = view.generation();
    // What was published between a subscription and the start of this task
    // is looked at in the first round.
    loop {
        {
            let Some(state) = state.upgrade() else { return };
            let mut state = state.lock();
            state.channels.retain(|_, channel| channel.sender.receiver_count() > 0);
            if state.channels.is_empty() {
                state.running = false;
                return;
            }
            for (resource, channel) in &mut state.channels {
                match view.changes(resource, channel.seen, 1) {
                    Ok((events, complete)) if events.is_empty() => channel.seen = complete,
                    Ok(_) | Err(_) => {
                        channel.seen = view.snapshot().revision();
                        channel.sender.send_replace(channel.seen);
                    }
                }
            }
        }
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            changed = generation.changed() => if changed.is_err() { return },
        }
    }
}
