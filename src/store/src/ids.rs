//! Typed numbers: a revision is not a term is not a node id.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// The store's version: raised by one for each changed object. It is the
    /// `resourceVersion` that clients see. 0 is before the first change.
    Revision(u64)
);
id!(
    /// A Raft term.
    Term(u64)
);
id!(
    /// A master's id in the Raft group; never reused.
    MasterId(u64)
);
id!(
    /// Identifies a transaction across retries.
    RequestId(u128)
);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
