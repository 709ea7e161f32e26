//! Acting as somebody else: `Impersonate-*` headers, each of which must be
//! allowed by the verb `impersonate`. Rules and texts as upstream's filter.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::StatusError;
use http::HeaderMap;

use super::{
    ANONYMOUS, AUTHENTICATED, Attributes, UNAUTHENTICATED, User, service_account_groups, split_service_account,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Most things that one request may ask to act as.
const MAX_CLAIMS: usize = 256;

/// What a request asks for: whom to act as, and what must be allowed for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// The user to act as.
    pub user: Arc<User>,
    /// All of these must be allowed.
    pub asked: Vec<Attributes>,
}

/// Whether a header is one of impersonation.
#[must_use]
pub fn is_impersonation(name: &str) -> bool {
    matches!(name, USER | GROUP | UID) || name.starts_with(EXTRA_PREFIX)
}

fn asked(group: &str, resource: &str, namespace: &str, name: &str, subresource: &str) -> Attributes {
    Attributes {
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    }
}

/// Reads the headers; `None` when nobody is impersonated.
///
/// # Errors
/// When groups, a uid or extra values are asked for without a user, or a value
/// is not text.
pub fn parse(headers: &HeaderMap) -> Result<Option<Impersonation>, StatusError> {
    if !headers.keys().any(|name| is_impersonation(name.as_str())) {
        return Ok(None);
    }
    let values = |name: &str| -> Result<Vec<String>, StatusError> {
        let text = |value: &http::HeaderValue| {
            let text = std::str::from_utf8(value.as_bytes()).map(ToOwned::to_owned);
            text.map_err(|_| StatusError::bad_request(format!("the header {name} is not valid UTF-8")))
        };
        headers.get_all(name).iter().map(text).collect()
    };
    let name = values(USER)?.into_iter().next().unwrap_or_default();
    let mut groups = values(GROUP)?;
    let uid = values(UID)?.into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys().filter(|header| header.as_str().starts_with(EXTRA_PREFIX)) {
        let key = unescape(&header.as_str()[EXTRA_PREFIX.len()..]);
        extra.entry(key).or_default().extend(values(header.as_str())?);
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(StatusError::internal("requested groups, uid or extra values without impersonating a user"));
    }
    if groups.len() + extra.values().map(Vec::len).sum::<usize>() > MAX_CLAIMS {
        return Err(StatusError::bad_request(format!(
            "at most {MAX_CLAIMS} groups and extra values can be impersonated"
        )));
    }
    let account = split_service_account(&name);
    let mut all = vec![match account {
        Some((namespace, name)) => asked("", "serviceaccounts", namespace, name, ""),
        None => asked("", "users", "", &name, ""),
    }];
    all.extend(groups.iter().map(|group| asked("", "groups", "", group, "")));
    for (key, values) in &extra {
        all.extend(values.iter().map(|value| asked(AUTHENTICATION, "userextras", "", value, key)));
    }
    if !uid.is_empty() {
        all.push(asked(AUTHENTICATION, "uids", "", &uid, ""));
    }
    if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
        groups = service_account_groups(namespace);
    }
    let known = if name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(known.to_owned());
    }
    Ok(Some(Impersonation { user: Arc::new(User { name, uid, groups, extra }), asked: all }))
}

/// `%2f` and the like in a key; a key that is not encoded right stays as it
/// is.
fn unescape(key: &str) -> String {
    let mut out = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%')
            .then(|| tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()))
            .map(|hex| hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()));
        match code {
            None => {
                out.push(*first);
                rest = tail;
            }
            Some(Some(byte)) => {
                out.push(byte);
                rest = &tail[2..];
            }
            Some(None) => return key.to_owned(),
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        headers
    }

    fn told(list: &[(&'static str, &'static str)]) -> (User, Vec<String>) {
        let found = parse(&headers(list)).expect("valid").expect("somebody");
        let asked = found
            .asked
            .iter()
            .map(|a| format!("{}|{}|{}|{}|{}", a.group, a.resource, a.subresource, a.namespace, a.name));
        ((*found.user).clone(), asked.collect())
    }

    #[test]
    fn every_claim_has_to_be_allowed() {
        let (user, asked) = told(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "devs"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "x"),
        ]);
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["devs", "ops", AUTHENTICATED]);
        assert_eq!(user.extra["acme.com/project"], ["x"]);
        assert_eq!(
            asked,
            [
                "|users|||jane",
                "|groups|||devs",
                "|groups|||ops",
                "authentication.k8s.io|userextras|acme.com/project||x",
                "authentication.k8s.io|uids|||7",
            ]
        );
    }

    #[test]
    fn service_accounts_bring_their_groups_and_nobody_stays_nobody() {
        let (user, asked) = told(&[("impersonate-user", "system:serviceaccount:a:robot")]);
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED]);
        assert_eq!(asked, ["|serviceaccounts||a|robot"]);
        let (user, _) = told(&[("impersonate-user", "system:serviceaccount:a:robot"), ("impersonate-group", "x")]);
        assert_eq!(user.groups, ["x", AUTHENTICATED]);
        let (user, _) = told(&[("impersonate-user", ANONYMOUS)]);
        assert_eq!(user.groups, [UNAUTHENTICATED]);
    }

    #[test]
    fn groups_need_a_user() {
        assert_eq!(parse(&headers(&[("accept", "x")])), Ok(None));
        let error = parse(&headers(&[("impersonate-group", "x")])).expect_err("refused");
        assert!(error.message.contains("without impersonating a user"), "{error}");
        assert_eq!(unescape("a%zz"), "a%zz");
        assert_eq!(unescape("a%2"), "a%2");
    }
}
