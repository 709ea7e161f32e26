//! The types that Kubernetes adds to CEL: addresses, networks, amounts, named
//! formats, questions to the authorizer; and how Go reads and writes times,
//! numbers and regular expressions.

pub(crate) mod authz;
pub(crate) mod format;
pub(crate) mod net;
pub(crate) mod number;
pub(crate) mod regex;
pub(crate) mod time;
pub(crate) mod url;
