//! Who may sit down: levels with guaranteed shares that lend what is idle, and
//! within a level queues that take turns. Pure: told of arrivals and ends, it
//! says who comes next.
//!
//! A request of a level may start when the level
//! 1. stays within its own share, or
//! 2. stays below its borrowing limit, and so many seats stay free that every
//!    other level could fill its guaranteed share at once.
//!
//! Hence a level never waits for another one to fill its own share, and no
//! seat is idle while a request that may borrow waits.
//!
//! Queues take turns by *start-time fair queueing*: a request is tagged with
//! the larger of the level's virtual time and the end of its flow's last
//! request; the smallest tag starts first. An end that is later than assumed
//! is charged to the queue.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Virtual time that one seat is assumed to be taken for, in microseconds.
const ASSUMED_MICROS: u64 = 1_000;
/// Largest hand of queues that a flow chooses from.
const MAX_HAND: usize = 16;

/// A request inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What becomes of a request that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It needs no seat.
    Exempt,
    /// It may start.
    Run(Ticket),
    /// It waits until [`Seats::next`] names it.
    Wait(Ticket),
    /// It is refused, for this reason.
    Reject(&'static str),
}

/// How a level treats what exceeds its seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queueing {
    /// Number of queues; 0 refuses instead of queueing.
    pub queues: usize,
    /// Queues that a flow may choose from.
    pub hand: usize,
    /// Longest queue.
    pub length: usize,
}

/// A priority level's share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// Name of the level.
    pub name: Arc<str>,
    /// Its seats.
    pub nominal: u32,
    /// Those of them that others may use while they are idle.
    pub lendable: u32,
    /// Seats it may borrow on top, `None` for any number.
    pub borrowable: Option<u32>,
    /// See there.
    pub queueing: Queueing,
}

struct Waiting {
    ticket: Ticket,
    seats: u32,
    tag: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Virtual time at which the last request that came here would end.
    ends: u64,
    executing: u32,
}

struct Level {
    share: Share,
    queues: Vec<Queue>,
    /// Start tag of the last request that started.
    virtual_time: u64,
    executing: u32,
    /// No longer configured; goes when its last request has ended.
    leaving: bool,
}

struct Inside {
    level: Arc<str>,
    queue: usize,
    seats: u32,
}

/// See the module.
pub(super) struct Seats {
    total: u32,
    levels: HashMap<Arc<str>, Level>,
    inside: HashMap<Ticket, Inside>,
    executing: u32,
    tickets: u64,
}

impl Level {
    fn new(share: &Share) -> Self {
        let queues = (0..share.queueing.queues.max(1)).map(|_| Queue::default()).collect();
        Self { share: share.clone(), queues, virtual_time: 0, executing: 0, leaving: false }
    }

    /// Seats that nobody else may have.
    fn guaranteed(&self) -> u32 {
        if self.leaving { 0 } else { self.share.nominal - self.share.lendable.min(self.share.nominal) }
    }

    /// Of the guaranteed seats, those that are free.
    fn reserved(&self) -> u32 {
        self.guaranteed().saturating_sub(self.executing)
    }

    fn limit(&self) -> u32 {
        self.share.borrowable.map_or(u32::MAX, |more| self.share.nominal.saturating_add(more))
    }

    /// The queue of a flow: the shortest of its hand.
    fn queue_of(&self, flow: u64) -> usize {
        let hand = hand(flow, self.queues.len(), self.share.queueing.hand);
        let load = |index: &usize| {
            let queue = &self.queues[*index];
            (queue.waiting.iter().map(|w| w.seats).sum::<u32>() + queue.executing, queue.waiting.len())
        };
        hand.into_iter().min_by_key(load).unwrap_or(0)
    }

    fn is_waiting(&self) -> bool {
        self.queues.iter().any(|queue| !queue.waiting.is_empty())
    }

    /// The queue whose head has the smallest tag.
    fn next_queue(&self) -> Option<usize> {
        let heads =
            self.queues.iter().enumerate().filter_map(|(index, queue)| Some((queue.waiting.front()?.tag, index)));
        heads.min().map(|(_, index)| index)
    }
}

impl Seats {
    pub(super) fn new(total: u32, shares: &[Share]) -> Self {
        let levels = shares.iter().map(|share| (Arc::clone(&share.name), Level::new(share))).collect();
        Self { total, levels, inside: HashMap::new(), executing: 0, tickets: 0 }
    }

    /// Takes other shares; whoever waits in a level that is gone is let in as
    /// if it were still there.
    pub(super) fn reconfigure(&mut self, shares: &[Share]) {
        for level in self.levels.values_mut() {
            level.leaving = true;
        }
        for share in shares {
            match self.levels.get_mut(&share.name) {
                Some(level) => {
                    level.leaving = false;
                    level.share = share.clone();
                    // Queues in use are kept until they are empty.
                    let wanted = share.queueing.queues.max(1);
                    while level.queues.len() < wanted {
                        level.queues.push(Queue::default());
                    }
                    while level.queues.len() > wanted
                        && level.queues.last().is_some_and(|q| q.waiting.is_empty() && q.executing == 0)
                    {
                        level.queues.pop();
                    }
                }
                None => {
                    self.levels.insert(Arc::clone(&share.name), Level::new(share));
                }
            }
        }
        self.levels.retain(|_, level| !level.leaving || level.executing > 0 || level.is_waiting());
    }

    pub(super) fn arrive(&mut self, level: &Arc<str>, flow: u64, seats: u32) -> Arrival {
        let ticket = Ticket(self.tickets);
        let Some(found) = self.levels.get(level) else { return Arrival::Reject("concurrency-limit") };
        // No request may need more than its level can ever have.
        let seats = seats.clamp(1, found.share.nominal.max(1));
        let queue = found.queue_of(flow);
        let at_once = !found.is_waiting() && self.has_room(level, seats);
        let Some(found) = self.levels.get_mut(level) else { return Arrival::Reject("concurrency-limit") };
        let queueing = &found.share.queueing;
        if !at_once {
            if queueing.queues == 0 {
                return Arrival::Reject("concurrency-limit");
            }
            if found.queues[queue].waiting.len() >= queueing.length {
                return Arrival::Reject("queue-full");
            }
        }
        self.tickets += 1;
        let tag = found.queues[queue].ends.max(found.virtual_time);
        found.queues[queue].ends = tag + u64::from(seats) * ASSUMED_MICROS;
        self.inside.insert(ticket, Inside { level: Arc::clone(level), queue, seats });
        if at_once {
            found.virtual_time = found.virtual_time.max(tag);
            found.executing += seats;
            found.queues[queue].executing += seats;
            self.executing += seats;
            return Arrival::Run(ticket);
        }
        found.queues[queue].waiting.push_back(Waiting { ticket, seats, tag });
        Arrival::Wait(ticket)
    }

    /// Whether a request of a level may start now.
    fn has_room(&self, name: &Arc<str>, seats: u32) -> bool {
        let Some(level) = self.levels.get(name) else { return false };
        let then = level.executing.saturating_add(seats);
        if then <= level.share.nominal || level.executing == 0 {
            return true;
        }
        let reserved: u32 = self.levels.iter().filter(|(other, _)| *other != name).map(|(_, l)| l.reserved()).sum();
        then <= level.limit() && self.executing.saturating_add(seats).saturating_add(reserved) <= self.total
    }

    /// The next that may start; to be asked until there is none.
    pub(super) fn next(&mut self) -> Option<Ticket> {
        // Whoever uses least of its share comes first.
        let mut order: Vec<(u64, Arc<str>)> = self
            .levels
            .iter()
            .filter(|(_, level)| level.is_waiting())
            .map(|(name, level)| {
                let use_of_share = u64::from(level.executing) * 1_000_000 / u64::from(level.share.nominal.max(1));
                (use_of_share, Arc::clone(name))
            })
            .collect();
        order.sort();
        for (_, name) in order {
            let Some(queue) = self.levels.get(&name).and_then(Level::next_queue) else { continue };
            let Some(seats) = self.levels[&name].queues[queue].waiting.front().map(|head| head.seats) else { continue };
            if !self.has_room(&name, seats) {
                continue;
            }
            let level = self.levels.get_mut(&name)?;
            let head = level.queues[queue].waiting.pop_front()?;
            level.virtual_time = level.virtual_time.max(head.tag);
            level.executing += head.seats;
            level.queues[queue].executing += head.seats;
            self.executing += head.seats;
            return Some(head.ticket);
        }
        None
    }

    /// A request that started has ended after this long.
    pub(super) fn finish(&mut self, ticket: Ticket, took: Duration) {
        let Some(inside) = self.inside.remove(&ticket) else { return };
        self.executing -= inside.seats;
        let Some(level) = self.levels.get_mut(&inside.level) else { return };
        level.executing -= inside.seats;
        if let Some(queue) = level.queues.get_mut(inside.queue) {
            queue.executing -= inside.seats;
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 64).min(u64::MAX / 64);
            queue.ends += micros.saturating_sub(ASSUMED_MICROS) * u64::from(inside.seats);
        }
        self.drop_if_left(&inside.level);
    }

    /// A request that waits goes away.
    pub(super) fn give_up(&mut self, ticket: Ticket) {
        let Some(inside) = self.inside.remove(&ticket) else { return };
        if let Some(queue) = self.levels.get_mut(&inside.level).and_then(|level| level.queues.get_mut(inside.queue)) {
            queue.waiting.retain(|waiting| waiting.ticket != ticket);
        }
        self.drop_if_left(&inside.level);
    }

    fn drop_if_left(&mut self, name: &Arc<str>) {
        let left = |level: &Level| level.leaving && level.executing == 0 && !level.is_waiting();
        if self.levels.get(name).is_some_and(left) {
            self.levels.remove(name);
        }
    }

    #[cfg(test)]
    pub(super) fn executing(&self, level: &str) -> u32 {
        self.levels.get(level).map_or(0, |level| level.executing)
    }
}

/// The queues that a flow may choose from: the same for the same flow, and
/// rarely the same for two (shuffle sharding).
fn hand(flow: u64, queues: usize, size: usize) -> Vec<usize> {
    let size = size.clamp(1, MAX_HAND).min(queues.max(1));
    let mut rest = flow;
    let mut dealt: Vec<usize> = Vec::with_capacity(size);
    for number in 0..size {
        let left = (queues.max(1) - number) as u64;
        let mut card = (rest % left) as usize;
        rest /= left;
        // The card's place among those that were not dealt yet.
        let mut sorted = dealt.clone();
        sorted.sort_unstable();
        for taken in sorted {
            if card >= taken {
                card += 1;
            }
        }
        dealt.push(card);
    }
    dealt
}
