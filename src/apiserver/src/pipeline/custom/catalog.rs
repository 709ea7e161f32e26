//! Which kinds are served: the built-in ones and those of the definitions in
//! this master's own store. Every master keeps its own catalog; it is built
//! anew at the first question after a definition has changed, so that whoever
//! can see that a definition is established can use it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use barque_api::crd::{self, Definition};
use barque_api::{Object, Registry, Resource};
use barque_store::{Revision, Snapshot, View};
use parking_lot::Mutex;

/// Parsed definitions by uid, with the revision that they were parsed from.
type Parsed = HashMap<String, (Revision, Option<Arc<Definition>>)>;

struct Built {
    /// Stamp of the definitions that the registry was built from.
    stamp: Revision,
    registry: Arc<Registry>,
}

/// See the module's documentation.
pub(in crate::pipeline) struct Catalog {
    base: ArcSwap<Registry>,
    built: ArcSwap<Built>,
    /// What was built last, for those who look at kinds without a store.
    shared: Arc<ArcSwap<Registry>>,
    parsed: Mutex<Parsed>,
}

impl Catalog {
    pub(in crate::pipeline) fn new(base: Arc<Registry>) -> Self {
        let built = Built { stamp: Revision(0), registry: Arc::clone(&base) };
        let shared = Arc::new(ArcSwap::new(Arc::clone(&base)));
        Self { base: ArcSwap::new(base), built: ArcSwap::from_pointee(built), shared, parsed: Mutex::default() }
    }

    /// The kinds served when anybody last asked.
    pub(in crate::pipeline) fn shared(&self) -> &Arc<ArcSwap<Registry>> {
        &self.shared
    }

    /// Replaces the kinds that are not custom ones.
    pub(in crate::pipeline) fn set_base(&self, base: Arc<Registry>, view: &View) {
        let mut parsed = self.parsed.lock();
        self.base.store(base);
        self.rebuild(&view.snapshot(), &mut parsed);
    }

    /// The kinds served as of the view's newest snapshot.
    pub(in crate::pipeline) fn registry(&self, view: &View) -> Arc<Registry> {
        let built = self.built.load();
        if view.snapshot().changed(crd::STORAGE) == built.stamp {
            return Arc::clone(&built.registry);
        }
        let mut parsed = self.parsed.lock();
        // Another one may have been faster.
        let snapshot = view.snapshot();
        let built = self.built.load();
        if snapshot.changed(crd::STORAGE) == built.stamp {
            return Arc::clone(&built.registry);
        }
        self.rebuild(&snapshot, &mut parsed)
    }

    fn rebuild(&self, snapshot: &Snapshot, parsed: &mut Parsed) -> Arc<Registry> {
        let mut kept = Parsed::default();
        let mut rows: Vec<Resource> = Vec::new();
        let mut hidden: Vec<Resource> = Vec::new();
        for record in snapshot.list(crd::STORAGE, None) {
            let uid = record.uid().to_owned();
            let known = parsed.remove(&uid).filter(|(revision, _)| *revision == record.revision());
            let (_, definition) =
                kept.entry(uid).or_insert_with(|| known.unwrap_or_else(|| (record.revision(), parse(record.object()))));
            rows.extend(definition.iter().flat_map(Definition::rows));
            hidden.extend(definition.iter().filter_map(Definition::hidden_row));
        }
        *parsed = kept;
        crd::sort_rows(&mut rows);
        let base = self.base.load();
        let registry = if rows.is_empty() && hidden.is_empty() {
            Arc::clone(&base)
        } else {
            let mut registry = base.with(rows);
            hidden.into_iter().for_each(|row| registry.add_hidden(row));
            Arc::new(registry)
        };
        let built = Built { stamp: snapshot.changed(crd::STORAGE), registry: Arc::clone(&registry) };
        self.built.store(Arc::new(built));
        self.shared.store(Arc::clone(&registry));
        registry
    }
}

fn parse(crd: &Arc<Object>) -> Option<Arc<Definition>> {
    Definition::established(crd).map(Arc::new)
}
