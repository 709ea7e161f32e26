//! Aggregation: groups and versions that an extension API server serves.
//!
//! An `APIService` with a Service says who; every request below its path is
//! passed on as it is, streams and all, with the user in headers that the
//! front proxy's client certificate vouches for.
//!
//! Rules: `k8s.io/kube-aggregator/pkg/apiserver`.

mod discovery;
mod keeper;
mod local;
mod service;

use axum::body::Body;
use http::header::HeaderValue;
use http::{HeaderMap, HeaderName, Response, StatusCode};

pub use discovery::{Extension, Extensions, merge_aggregated, merge_group, merge_groups};
pub use keeper::{Authentication, Keeper};
pub use local::{AUTOMANAGED, local_services};
pub use service::{Availability, Remote, STORAGE, check, find, remotes};

use crate::auth::User;

/// Headers that name the user, as `extension-apiserver-authentication`
/// announces them.
pub const USER_HEADER: &str = "x-remote-user";
/// See [`USER_HEADER`].
pub const UID_HEADER: &str = "x-remote-uid";
/// See [`USER_HEADER`].
pub const GROUP_HEADER: &str = "x-remote-group";
/// See [`USER_HEADER`].
pub const EXTRA_PREFIX: &str = "x-remote-extra-";

/// The user as headers.
#[must_use]
pub fn user_headers(user: &User) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        // A name that no header can carry could not have come in either.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    add(USER_HEADER, &user.name);
    if !user.uid.is_empty() {
        add(UID_HEADER, &user.uid);
    }
    for group in &user.groups {
        add(GROUP_HEADER, group);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA_PREFIX}{}", escaped(key));
        for value in values {
            add(&name, value);
        }
    }
    headers
}

/// A key of `extra` as part of a header's name: what may not stand in one is
/// percent-encoded, the percent sign included.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// An answer of the aggregator itself, in upstream's bare form.
#[must_use]
pub fn unavailable(text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn users_travel_in_headers() {
        let user = User {
            name: "alice".to_owned(),
            uid: "7".to_owned(),
            groups: vec!["a".to_owned(), "b".to_owned()],
            extra: BTreeMap::from([("example.com/scopes%".to_owned(), vec!["x".to_owned(), "y".to_owned()])]),
        };
        let headers = user_headers(&user);
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().expect("text")).collect::<Vec<_>>();
        assert_eq!(all("x-remote-user"), ["alice"]);
        assert_eq!(all("x-remote-uid"), ["7"]);
        assert_eq!(all("x-remote-group"), ["a", "b"]);
        assert_eq!(all("x-remote-extra-example.com%2Fscopes%25"), ["x", "y"]);
    }
}
