//! What a request asks for, read off its method, path and query: what
//! priority levels and the audit log go by before anything is decided.

use http::Method;

use super::path::Route;
use super::query::Query;
use crate::auth::Attributes;

/// Subresources whose answer lasts as long as somebody listens.
const STREAMS: &[&str] = &["log", "exec", "attach", "portforward", "proxy"];

/// The method in lower case, of requests that are not about resources.
pub(super) fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "other",
    }
}

/// What is asked for. For resources only what the path says: whether there is
/// such a resource is found out later.
pub(super) fn attributes(route: &Route, method: &Method, path: &str, query: &Query) -> Attributes {
    let Route::Resource(resource) = route else {
        return Attributes { verb: method_verb(method).to_owned(), path: path.to_owned(), ..Attributes::default() };
    };
    let is_collection = resource.name.is_empty();
    let verb = match *method {
        Method::GET if resource.watch => "watch",
        Method::GET | Method::HEAD if !is_collection => "get",
        Method::GET | Method::HEAD if matches!(query.flag("watch"), Ok(Some(true))) => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if is_collection => "deletecollection",
        Method::DELETE => "delete",
        _ => method_verb(method),
    };
    let selects = matches!(verb, "list" | "watch" | "deletecollection");
    let selector = |key: &str| if selects { query.text(key).to_owned() } else { String::new() };
    let field_selector = selector("fieldSelector");
    let name = if is_collection { only_name(&field_selector) } else { resource.name.as_str() }.to_owned();
    // A namespace is in its own namespace, as upstream sees it.
    let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
    let namespace = if is_namespace { &resource.name } else { &resource.namespace };
    Attributes {
        verb: verb.to_owned(),
        group: resource.group.clone(),
        version: resource.version.clone(),
        resource: resource.plural.clone(),
        subresource: resource.subresource.clone(),
        namespace: namespace.clone(),
        name,
        field_selector,
        label_selector: selector("labelSelector"),
        path: String::new(),
    }
}

/// The one name that a field selector lets through, "" if there is none.
fn only_name(selector: &str) -> &str {
    let name = selector.split(',').find_map(|part| {
        let (field, value) = part.split_once("==").or_else(|| part.split_once('='))?;
        (field.trim() == "metadata.name").then(|| value.trim())
    });
    name.unwrap_or_default()
}

/// Whether the answer lasts for as long as somebody listens.
pub(super) fn is_long(attributes: &Attributes) -> bool {
    attributes.verb == "watch" || STREAMS.contains(&attributes.subresource.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::path::parse;

    #[test]
    fn verbs_follow_from_method_path_and_query() {
        for (method, uri, verb, long) in [
            (Method::GET, "/api/v1/namespaces/a/pods", "list", false),
            (Method::GET, "/api/v1/namespaces/a/pods?watch=1", "watch", true),
            (Method::GET, "/api/v1/namespaces/a/pods/b?watch=1", "get", false),
            (Method::GET, "/api/v1/watch/namespaces/a/pods/b", "watch", true),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", "get", true),
            (Method::POST, "/api/v1/namespaces/a/pods/b/exec", "create", true),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "deletecollection", false),
            (Method::DELETE, "/api/v1/namespaces/a/pods/b", "delete", false),
            (Method::PUT, "/api/v1/namespaces/a/pods/b", "update", false),
            (Method::POST, "/version", "post", false),
        ] {
            let uri: http::Uri = uri.parse().expect("a URI");
            let query = Query::of(&uri).expect("a query");
            let found = attributes(&parse(uri.path()), &method, uri.path(), &query);
            assert_eq!((found.verb.as_str(), is_long(&found)), (verb, long), "{method} {uri}");
        }
        let uri: http::Uri = "/api/v1/pods?fieldSelector=metadata.name%3Dx".parse().expect("a URI");
        let query = Query::of(&uri).expect("a query");
        let found = attributes(&parse(uri.path()), &Method::GET, uri.path(), &query);
        assert_eq!((found.name.as_str(), found.field_selector.as_str()), ("x", "metadata.name=x"));
        let uri: http::Uri = "/api/v1/namespaces/a".parse().expect("a URI");
        let found = attributes(&parse(uri.path()), &Method::GET, uri.path(), &Query::default());
        assert_eq!((found.namespace.as_str(), found.name.as_str(), found.path.as_str()), ("a", "a", ""));
    }
}
