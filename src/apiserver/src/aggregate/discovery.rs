//! What extension API servers serve, merged into the discovery documents.
//!
//! Each master asks the extensions when a client asks it, and keeps the
//! answer for a while; an extension that fails later is shown as it was last
//! seen, marked stale.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use barque_store::Snapshot;
use futures::StreamExt;
use http::Request;
use http::header::ACCEPT;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Remote, remotes, user_headers};
use crate::auth::{MASTERS, User};
use crate::outbound::{CallLimits, ClientIdentity, Outbound};

/// How long an answer is taken for fresh.
const FRESH: Duration = Duration::from_secs(10);
/// How long a client waits for an extension that was not asked yet.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of one answer.
const MAX_BYTES: usize = 8 << 20;
/// Extensions asked at the same time.
const MAX_PARALLEL: usize = 8;

#[derive(Clone)]
struct Known {
    /// Entries of `resources` as aggregated discovery has them.
    resources: Vec<Value>,
    asked: Instant,
    stale: bool,
}

/// The versions of extensions, with what is in them.
pub struct Extension {
    /// Which one.
    pub remote: Remote,
    resources: Vec<Value>,
    stale: bool,
}

/// Remembers what extensions serve. Entries of `APIService`s that are gone go
/// with the next question.
#[derive(Default)]
pub struct Extensions(Mutex<HashMap<String, Known>>);

impl Extensions {
    /// What the extensions of a snapshot serve, by descending priority.
    pub async fn known(
        &self,
        outbound: &Outbound,
        snapshot: &Snapshot,
        identity: Option<ClientIdentity>,
    ) -> Vec<Extension> {
        let mut all = remotes(snapshot);
        all.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
        self.0.lock().retain(|name, _| all.iter().any(|remote| remote.name == *name));
        let asking = all.into_iter().map(|remote| {
            let identity = identity.clone();
            async move {
                let before = self.0.lock().get(&remote.name).cloned();
                if let Some(known) = before.as_ref().filter(|known| known.asked.elapsed() < FRESH) {
                    return (known.clone(), remote);
                }
                let answer = if remote.available { ask(outbound, &remote, identity).await } else { None };
                let known = match (answer, before) {
                    (Some(resources), _) => Known { resources, asked: Instant::now(), stale: false },
                    (None, Some(known)) => Known { asked: Instant::now(), stale: true, ..known },
                    (None, None) => Known { resources: Vec::new(), asked: Instant::now(), stale: true },
                };
                self.0.lock().insert(remote.name.clone(), known.clone());
                (known, remote)
            }
        });
        let found = futures::stream::iter(asking).buffered(MAX_PARALLEL).collect::<Vec<_>>().await;
        found
            .into_iter()
            .map(|(known, remote)| Extension { remote, resources: known.resources, stale: known.stale })
            .collect()
    }
}

async fn ask(outbound: &Outbound, remote: &Remote, identity: Option<ClientIdentity>) -> Option<Vec<Value>> {
    let peer = remote.peer(identity).ok()?;
    let user = User { name: "system:aggregator".to_owned(), groups: vec![MASTERS.to_owned()], ..User::default() };
    let mut request = Request::get(remote.path()).header(ACCEPT, "application/json").body(Body::empty()).ok()?;
    request.headers_mut().extend(user_headers(&user));
    let limits = CallLimits { timeout: ASK_TIMEOUT, max_bytes: MAX_BYTES };
    let answer = outbound.exchange(&peer, request, limits).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let list: Value = serde_json::from_slice(answer.body()).ok()?;
    Some(resources_of(remote, &list))
}

/// An `APIResourceList` in the form of aggregated discovery.
fn resources_of(remote: &Remote, list: &Value) -> Vec<Value> {
    let mut resources: Vec<Value> = Vec::new();
    let entries = list["resources"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let kind_of = |entry: &Value| {
        let or = |given: String, own: &str| if given.is_empty() { own.to_owned() } else { given };
        json!({
            "group": or(text(entry, "group"), &remote.group), "version": or(text(entry, "version"), &remote.version),
            "kind": text(entry, "kind"),
        })
    };
    let main = entries.iter().filter(|entry| !text(entry, "name").contains('/'));
    for entry in main {
        let scope = if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut resource = json!({
            "resource": text(entry, "name"), "responseKind": kind_of(entry), "scope": scope,
            "singularResource": text(entry, "singularName"), "verbs": entry["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if entry[field].is_array() {
                resource[field] = entry[field].clone();
            }
        }
        resources.push(resource);
    }
    for entry in entries {
        let name = text(entry, "name");
        let Some((parent, subresource)) = name.split_once('/') else { continue };
        let Some(resource) = resources.iter_mut().find(|resource| resource["resource"] == parent) else { continue };
        let part = json!({"subresource": subresource, "responseKind": kind_of(entry), "verbs": entry["verbs"]});
        match resource["subresources"].as_array_mut() {
            Some(list) => list.push(part),
            None => resource["subresources"] = json!([part]),
        }
    }
    resources
}

fn named<'a>(
    list: &'a mut Vec<Value>,
    is: impl Fn(&Value) -> bool,
    make: impl FnOnce() -> Value,
) -> Option<&'a mut Value> {
    let at = match list.iter().position(is) {
        Some(at) => at,
        None => {
            list.push(make());
            list.len() - 1
        }
    };
    list.get_mut(at)
}

/// Adds extensions to an `APIGroupDiscoveryList`.
pub fn merge_aggregated(document: &mut Value, extensions: &[Extension]) {
    let Some(items) = document["items"].as_array_mut() else { return };
    for Extension { remote, resources, stale } in extensions {
        let group = named(
            items,
            |item| item["metadata"]["name"] == remote.group.as_str(),
            || json!({"metadata": {"name": remote.group, "creationTimestamp": null}, "versions": []}),
        );
        let Some(versions) = group.and_then(|group| group["versions"].as_array_mut()) else { continue };
        versions.retain(|version| version["version"] != remote.version.as_str());
        let freshness = if *stale { "Stale" } else { "Current" };
        versions.push(json!({"version": remote.version, "resources": resources, "freshness": freshness}));
    }
}

fn version_entry(remote: &Remote) -> Value {
    json!({"groupVersion": format!("{}/{}", remote.group, remote.version), "version": remote.version})
}

/// Adds the versions of extensions to an `APIGroupList`.
pub fn merge_groups(document: &mut Value, extensions: &[Extension]) {
    let Some(groups) = document["groups"].as_array_mut() else { return };
    for Extension { remote, .. } in extensions {
        let group = named(groups, |group| group["name"] == remote.group.as_str(), || json!({"name": remote.group}));
        if let Some(Value::Object(group)) = group {
            add_version(group, remote);
        }
    }
}

fn add_version(group: &mut Map<String, Value>, remote: &Remote) {
    let entry = version_entry(remote);
    let versions = group.entry("versions").or_insert_with(|| json!([]));
    if let Some(versions) = versions.as_array_mut()
        && !versions.contains(&entry)
    {
        versions.push(entry.clone());
    }
    // The first one by priority came first.
    group.entry("preferredVersion").or_insert(entry);
}

/// The `APIGroup` of a group, with the versions that extensions serve.
pub fn merge_group(name: &str, own: Option<Value>, extensions: &[Extension]) -> Option<Value> {
    let of_group = extensions.iter().filter(|extension| extension.remote.group == name);
    let mut group = match own {
        Some(Value::Object(group)) => group,
        _ => Map::new(),
    };
    let is_own = !group.is_empty();
    for extension in of_group {
        add_version(&mut group, &extension.remote);
    }
    if group.is_empty() {
        return None;
    }
    if !is_own {
        group.insert("kind".to_owned(), json!("APIGroup"));
        group.insert("apiVersion".to_owned(), json!("v1"));
        group.insert("name".to_owned(), json!(name));
    }
    Some(Value::Object(group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::parse;

    fn remote(version: &str) -> Remote {
        let object = parse(json!({
            "metadata": {"name": format!("{version}.ext.example.com")},
            "spec": {"group": "ext.example.com", "version": version, "service": {"namespace": "a", "name": "b"}},
        }));
        Remote::of(&object).expect("names a service")
    }

    #[test]
    fn lists_become_aggregated_entries_and_are_merged() {
        let list = json!({"resources": [
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get"],
                "shortNames": ["th"]},
            {"name": "things/status", "namespaced": true, "kind": "Thing", "verbs": ["update"]},
        ]});
        let remote = remote("v1");
        let resources = resources_of(&remote, &list);
        assert_eq!(
            resources,
            [json!({
                "resource": "things", "singularResource": "thing", "scope": "Namespaced", "verbs": ["get"],
                "shortNames": ["th"],
                "responseKind": {"group": "ext.example.com", "version": "v1", "kind": "Thing"},
                "subresources": [{"subresource": "status", "verbs": ["update"],
                    "responseKind": {"group": "ext.example.com", "version": "v1", "kind": "Thing"}}],
            })]
        );
        let extensions = [
            Extension { remote, resources, stale: true },
            Extension { remote: self::remote("v2"), resources: Vec::new(), stale: false },
        ];
        let mut document = json!({"items": [{"metadata": {"name": "apps"}, "versions": []}]});
        merge_aggregated(&mut document, &extensions);
        assert_eq!(document["items"][1]["metadata"]["name"], "ext.example.com");
        assert_eq!(document["items"][1]["versions"][0]["freshness"], "Stale");
        assert_eq!(document["items"][1]["versions"][1]["version"], "v2");
        let mut groups = json!({"groups": [{"name": "apps"}]});
        merge_groups(&mut groups, &extensions);
        assert_eq!(groups["groups"][1]["preferredVersion"]["groupVersion"], "ext.example.com/v1");
        assert_eq!(groups["groups"][1]["versions"].as_array().map(Vec::len), Some(2));
        let group = merge_group("ext.example.com", None, &extensions).expect("there is one");
        assert_eq!((&group["kind"], &group["name"]), (&json!("APIGroup"), &json!("ext.example.com")));
        assert_eq!(merge_group("nothing", None, &extensions), None);
    }
}
