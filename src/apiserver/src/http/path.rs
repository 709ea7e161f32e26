//! What a request path is about. One parser for every kind: nothing here
//! knows which kinds exist, except that Namespaces are the folders.

/// Subresources of Namespaces, which would otherwise read as resources in one.
const NAMESPACE_SUBRESOURCES: &[&str] = &["status", "finalize"];

/// Where `proxy` stands in a path: of nodes, and of what is in a namespace.
const PROXY_SEGMENTS: &[usize] = &[4, 6];

/// A path below `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ResourcePath {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub plural: String,
    pub name: String,
    pub subresource: String,
    /// What follows the subresource (proxies).
    pub rest: String,
    /// Below `.../watch/`: an older way to ask for a watch.
    pub watch: bool,
}

/// Discovery documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Discovery {
    /// `/api`
    Core,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1` and `/apis/GROUP/VERSION`
    Resources(String, String),
}

/// Everything that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Resource(ResourcePath),
    Discovery(Discovery),
    /// `/`
    Root,
    /// `/version`
    Version,
    /// `/livez`, `/readyz`, `/healthz`, with the single check asked for.
    Health(&'static str, Option<String>),
    /// `/metrics`
    Metrics,
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3` and, with a path, the document of one group version.
    OpenApiV3(Option<String>),
    /// `/.well-known/openid-configuration` and, if set, `/openid/v1/jwks`.
    Issuer(bool),
    Unknown,
}

impl Route {
    /// The group and version that the path is below, if it is below one of a
    /// named group.
    pub(super) fn group_version(&self) -> Option<(&str, &str)> {
        match self {
            Self::Resource(path) if !path.group.is_empty() => Some((&path.group, &path.version)),
            Self::Discovery(Discovery::Resources(group, version)) if !group.is_empty() => Some((group, version)),
            Self::OpenApiV3(Some(path)) => {
                path.strip_prefix("apis/")?.split_once('/').filter(|(_, v)| !v.contains('/'))
            }
            _ => None,
        }
    }
}

/// Decodes `%2F` and the like; `None` for what is not UTF-8.
fn percent_decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] == b'%' {
            let hex = segment.get(index + 1..index + 3)?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            index += 3;
        } else {
            out.push(bytes[index]);
            index += 1;
        }
    }
    String::from_utf8(out).ok()
}

/// Reads a path.
pub(super) fn parse(path: &str) -> Route {
    // One slash at the end changes nothing; an empty segment is never found.
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Route::Root;
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    let decoded = |segment: &str| percent_decode(segment).filter(|text| !text.is_empty());
    let raw: Vec<&str> = path.split('/').collect();
    // What lies beyond a proxy is not ours to judge.
    let beyond = raw.iter().position(|segment| *segment == "proxy").filter(|at| PROXY_SEGMENTS.contains(at));
    let (own, rest) = raw.split_at(beyond.map_or(raw.len(), |at| at + 1));
    let Some(mut segments) = own.iter().map(|segment| decoded(segment)).collect::<Option<Vec<_>>>() else {
        return Route::Unknown;
    };
    segments.extend(rest.iter().map(|segment| (*segment).to_owned()));
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["version"] => Route::Version,
        ["metrics"] => Route::Metrics,
        ["livez", rest @ ..] => health("livez", rest),
        ["readyz", rest @ ..] => health("readyz", rest),
        ["healthz", rest @ ..] => health("healthz", rest),
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApiV3(None),
        ["openapi", "v3", rest @ ..] => Route::OpenApiV3(Some(rest.join("/"))),
        [".well-known", "openid-configuration"] => Route::Issuer(false),
        ["openid", "v1", "jwks"] => Route::Issuer(true),
        ["api"] => Route::Discovery(Discovery::Core),
        ["apis"] => Route::Discovery(Discovery::Groups),
        ["apis", group] => Route::Discovery(Discovery::Group((*group).to_owned())),
        ["api", version] => Route::Discovery(Discovery::Resources(String::new(), (*version).to_owned())),
        ["apis", group, version] => Route::Discovery(Discovery::Resources((*group).to_owned(), (*version).to_owned())),
        ["api", version, "watch", rest @ ..] if !rest.is_empty() => watch("", version, rest),
        ["apis", group, version, "watch", rest @ ..] if !rest.is_empty() => watch(group, version, rest),
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Route::Unknown,
    }
}

fn health(kind: &'static str, rest: &[&str]) -> Route {
    match rest {
        [] => Route::Health(kind, None),
        [check] => Route::Health(kind, Some((*check).to_owned())),
        _ => Route::Unknown,
    }
}

fn watch(group: &str, version: &str, rest: &[&str]) -> Route {
    match resource(group, version, rest) {
        Route::Resource(path) => Route::Resource(ResourcePath { watch: true, ..path }),
        other => other,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    let base = ResourcePath { group: group.to_owned(), version: version.to_owned(), ..ResourcePath::default() };
    let (namespace, rest) = match rest {
        ["namespaces", _name, sub] if NAMESPACE_SUBRESOURCES.contains(sub) => ("", rest),
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (*namespace, inner),
        other => ("", other),
    };
    let text = |index: usize| rest.get(index).map(|s| (*s).to_owned()).unwrap_or_default();
    Route::Resource(ResourcePath {
        namespace: namespace.to_owned(),
        plural: text(0),
        name: text(1),
        subresource: text(2),
        rest: rest.get(3..).unwrap_or_default().join("/"),
        ..base
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> [String; 6] {
        match parse(path) {
            Route::Resource(r) => [r.group, r.version, r.namespace, r.plural, r.name, r.subresource],
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn resource_paths_fall_into_their_parts() {
        for (path, expected) in [
            ("/api/v1/pods", ["", "v1", "", "pods", "", ""]),
            ("/api/v1/namespaces", ["", "v1", "", "namespaces", "", ""]),
            ("/api/v1/namespaces/a", ["", "v1", "", "namespaces", "a", ""]),
            ("/api/v1/namespaces/a/finalize", ["", "v1", "", "namespaces", "a", "finalize"]),
            ("/api/v1/namespaces/a/pods", ["", "v1", "a", "pods", "", ""]),
            ("/api/v1/namespaces/a/pods/b/log", ["", "v1", "a", "pods", "b", "log"]),
            ("/apis/apps/v1/namespaces/a/deployments/b", ["apps", "v1", "a", "deployments", "b", ""]),
            ("/api/v1/nodes/n/status", ["", "v1", "", "nodes", "n", "status"]),
            ("/api/v1/nodes/a%2Fb", ["", "v1", "", "nodes", "a/b", ""]),
        ] {
            assert_eq!(parts(path), expected, "{path}");
        }
        let older = parse("/apis/apps/v1/watch/namespaces/a/deployments/b");
        let Route::Resource(older) = older else { panic!("{older:?}") };
        assert!(older.watch && older.namespace == "a" && older.plural == "deployments" && older.name == "b");
    }

    #[test]
    fn everything_else_has_its_place() {
        assert_eq!(parse("/"), Route::Root);
        assert_eq!(parse("/readyz/etcd"), Route::Health("readyz", Some("etcd".to_owned())));
        assert_eq!(parse("/openapi/v3/apis/apps/v1"), Route::OpenApiV3(Some("apis/apps/v1".to_owned())));
        assert_eq!(parse("/api/v1"), Route::Discovery(Discovery::Resources(String::new(), "v1".to_owned())));
        assert_eq!(parse("/apis/apps"), Route::Discovery(Discovery::Group("apps".to_owned())));
        assert_eq!(parse("/nothing"), Route::Unknown);
        assert_eq!(parse("/api/v1/pods/%zz"), Route::Unknown);
        assert_eq!(parse("/api/v1/pods/%ff"), Route::Unknown);
    }

    #[test]
    fn odd_paths_with_empty_segments_are_not_found() {
        for path in ["//", "//api", "/api//v1", "/api/v1//", "/api/v1//pods", "/apis//v1", "/api/v1/namespaces//pods"] {
            assert_eq!(parse(path), Route::Unknown, "{path}");
        }
        assert_eq!(parse("/api/v1/"), parse("/api/v1"));
    }
}
