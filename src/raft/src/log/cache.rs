//! The end of the log in memory: everything not yet synced, and as much
//! before it as the bound allows. Peers and the state machine read from here.

use std::collections::VecDeque;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use crate::types::Entry;

/// What an entry costs besides its content, in bytes.
const ENTRY_OVERHEAD: usize = 128;

/// A contiguous run of entries at the end of the log.
#[derive(Default)]
pub struct Cache {
    first: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

pub(crate) fn size_of(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.len() + ENTRY_OVERHEAD,
        EntryPayload::Blank => ENTRY_OVERHEAD,
        EntryPayload::Membership(_) => 8 * ENTRY_OVERHEAD,
    }
}

impl Cache {
    /// An empty cache for entries from an index on.
    pub fn starting_at(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Index of the first entry here, or of the one to come.
    pub fn first(&self) -> u64 {
        self.first
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Adds an entry at the end; one that does not follow starts anew.
    pub fn push(&mut self, entry: Entry) {
        let index = entry.index();
        if index != self.end() {
            self.entries.clear();
            self.bytes = 0;
        }
        if self.entries.is_empty() {
            self.first = index;
        }
        self.bytes += size_of(&entry);
        self.entries.push_back(entry);
    }

    /// Removes entries from an index on.
    pub fn truncate_from(&mut self, index: u64) {
        while self.end() > index.max(self.first) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= size_of(&entry);
            }
        }
        self.first = self.first.min(index);
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= size_of(&entry);
            self.first += 1;
        }
    }

    /// Removes entries up to an index.
    pub fn purge_to(&mut self, index: u64) {
        while !self.entries.is_empty() && self.first <= index {
            self.pop_front();
        }
        self.first = self.first.max(index + 1);
    }

    /// Removes the oldest entries beyond the bound, but only synced ones.
    pub fn evict(&mut self, max_bytes: usize, synced_next: u64) {
        while self.bytes > max_bytes && self.first < synced_next && !self.entries.is_empty() {
            self.pop_front();
        }
    }

    /// Copies of the entries in a range, as far as they are here.
    pub fn range(&self, start: u64, end: u64) -> impl Iterator<Item = &Entry> {
        let from = start.max(self.first).min(self.end());
        let to = end.min(self.end()).max(from);
        self.entries.range((from - self.first) as usize..(to - self.first) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Batch, LogId};

    fn entry(index: u64) -> Entry {
        let id = LogId::new(openraft::testing::log_id::<crate::TypeConfig>(1, 1, index).leader_id, index);
        Entry::new_normal(id, Batch::new(Vec::new()))
    }

    fn indexes(cache: &Cache, start: u64, end: u64) -> Vec<u64> {
        cache.range(start, end).map(RaftEntry::index).collect()
    }

    #[test]
    fn it_holds_a_contiguous_end() {
        let mut cache = Cache::default();
        for index in 5..10 {
            cache.push(entry(index));
        }
        assert_eq!(indexes(&cache, 0, 100), [5, 6, 7, 8, 9]);
        cache.truncate_from(8);
        assert_eq!(indexes(&cache, 6, 100), [6, 7]);
        cache.purge_to(5);
        assert_eq!(indexes(&cache, 0, 7), [6]);
        cache.push(entry(8));
        cache.evict(0, 8);
        assert_eq!(indexes(&cache, 0, 100), [8], "what is not synced stays");
        cache.push(entry(20));
        assert_eq!(indexes(&cache, 0, 100), [20]);
        cache.truncate_from(3);
        assert_eq!(indexes(&cache, 0, 100), [0; 0]);
        cache.push(entry(3));
        assert_eq!(cache.first(), 3);
    }
}
