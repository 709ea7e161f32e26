//! Lists: paging, selectors, revisions, tables.

use std::io::Read;

use axum::body::Body;
use barque_store::Limits;
use http::Method;
use serde_json::{Value, json};

use crate::options::{PipelineOptions, ServerOptions};
use crate::testing::{Answer, Cluster, config_map, pod, request};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn fill(cluster: &Cluster, count: usize) {
    for i in 0..count {
        let mut object = config_map(&format!("c{i:03}"));
        object["metadata"]["labels"] = json!({"parity": if i % 2 == 0 { "even" } else { "odd" }});
        cluster.create("configmaps", object).await.expect("created");
    }
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|i| i["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn pages_show_one_revision_whatever_happens_in_between() {
    let cluster = Cluster::start().await;
    fill(&cluster, 10).await;
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=4")).await.expect(200);
    assert_eq!(first["kind"], "ConfigMapList");
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    cluster.delete("configmaps", "c005", crate::pipeline::DeleteOptions::default()).await.expect("deleted");
    cluster.create("configmaps", config_map("c0055")).await.expect("created");
    let mut all = names(&first);
    let mut token = first["metadata"]["continue"].as_str().map(ToOwned::to_owned);
    while let Some(next) = token {
        let page = cluster.get(&format!("{CONFIG_MAPS}?limit=4&continue={next}")).await.expect(200);
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        all.extend(names(&page));
        token = page["metadata"]["continue"].as_str().map(ToOwned::to_owned);
    }
    assert_eq!(all, (0..10).map(|i| format!("c{i:03}")).collect::<Vec<_>>());
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}?limit=4&continue=zzz")).await.code, 400);
}

#[tokio::test]
async fn selectors_limit_lists() {
    let cluster = Cluster::start().await;
    fill(&cluster, 6).await;
    let list = cluster.get(&format!("{CONFIG_MAPS}?labelSelector=parity%3Deven&limit=2")).await.expect(200);
    assert_eq!(names(&list), ["c000", "c002"]);
    assert!(list["metadata"].get("remainingItemCount").is_none());
    assert!(list["metadata"]["continue"].is_string());
    let list = cluster.get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc003")).await.expect(200);
    assert_eq!(names(&list), ["c003"]);
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}?fieldSelector=spec.x%3Dy")).await.code, 400);
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}?labelSelector=a%20b%20c")).await.code, 400);
    cluster.create("pods", pod("p")).await.expect("created");
    let pods = "/api/v1/pods?fieldSelector=spec.nodeName%3D,status.phase%3DPending";
    assert_eq!(names(&cluster.get(pods).await.expect(200)), ["p"]);
    assert_eq!(
        names(&cluster.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn").await.expect(200)),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn versions_say_how_new_a_list_must_be() {
    let cluster = Cluster::start().await;
    fill(&cluster, 2).await;
    let list = cluster.get(CONFIG_MAPS).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    fill_one(&cluster, "later").await;
    let exact = format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(names(&cluster.get(&exact).await.expect(200)), ["c000", "c001"]);
    let newer = format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&cluster.get(&newer).await.expect(200)).len(), 3);
    assert_eq!(names(&cluster.get(&format!("{CONFIG_MAPS}?resourceVersion=0")).await.expect(200)).len(), 3);
    let any = cluster.get(&format!("{CONFIG_MAPS}?resourceVersion=0&limit=1")).await.expect(200);
    assert_eq!((names(&any).len(), any["metadata"].get("continue")), (3, None));
    for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/later")] {
        let answer = cluster.get(&format!("{path}?resourceVersion=999999")).await;
        assert_eq!(answer.code, 504);
        assert!(answer.message().contains("Too large resource version: 999999, current: "), "{}", answer.message());
        assert_eq!(answer.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    }
}

async fn fill_one(cluster: &Cluster, name: &str) {
    cluster.create("configmaps", config_map(name)).await.expect("created");
}

#[tokio::test]
async fn what_has_left_the_history_is_410() {
    let limits = Limits { history_events_per_resource: 4, ..Limits::default() };
    let cluster = Cluster::with(PipelineOptions::default(), ServerOptions::default(), limits).await;
    fill(&cluster, 3).await;
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    for i in 0..8 {
        fill_one(&cluster, &format!("more{i}")).await;
    }
    let token = first["metadata"]["continue"].as_str().expect("more");
    let answer = cluster.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await;
    assert_eq!((answer.code.as_u16(), answer.json()["reason"].as_str()), (410, Some("Expired")));
    // Who does not mind goes on at the present revision.
    let token = answer.json()["metadata"]["continue"].as_str().expect("a way on").to_owned();
    let rest = cluster.get(&format!("{CONFIG_MAPS}?continue={token}")).await.expect(200);
    assert_eq!(names(&rest).len(), 10);
    assert_ne!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let old = first["metadata"]["resourceVersion"].as_str().expect("a version");
    let answer = cluster.get(&format!("{CONFIG_MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")).await;
    assert_eq!(answer.code, 410);
    assert_eq!(answer.message(), "The resourceVersion for the provided list is too old.");
}

#[tokio::test]
async fn large_lists_are_streamed_and_compressed() {
    let cluster = Cluster::start().await;
    for i in 0..60 {
        let mut object = config_map(&format!("c{i:03}"));
        object["data"]["key"] = json!(format!("{i}-").repeat(2_000));
        cluster.create("configmaps", object).await.expect("created");
    }
    let plain = cluster.get(CONFIG_MAPS).await;
    assert_eq!(names(&plain.expect(200)).len(), 60);
    let zipped = cluster.send(request(Method::GET, CONFIG_MAPS, &[("accept-encoding", "gzip")], Body::empty())).await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert!(zipped.bytes.len() < plain.bytes.len() / 5);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&zipped.bytes[..]).read_to_end(&mut unpacked).expect("gzip");
    assert_eq!(unpacked, plain.bytes);
    for path in [format!("{CONFIG_MAPS}?pretty=true"), format!("{CONFIG_MAPS}?pretty=1&limit=1")] {
        let pretty = cluster.get(&path).await;
        let text = String::from_utf8(pretty.bytes.to_vec()).expect("text");
        assert!(text.starts_with("{\n  \"") && text.ends_with("\n    }\n  ]\n}\n"), "{text}");
        assert_eq!(pretty.json()["items"][0], plain.json()["items"][0]);
    }
    let yaml = cluster.send(request(Method::GET, CONFIG_MAPS, &[("accept", "application/yaml")], Body::empty())).await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    let read: Value = serde_json::from_str(&yaml_to_json(&yaml.bytes)).expect("JSON");
    assert_eq!(read, plain.json());
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let binary = cluster.send(request(Method::GET, CONFIG_MAPS, &accept, Body::empty())).await;
    assert_eq!(binary.headers["content-type"], "application/vnd.kubernetes.protobuf");
    assert_eq!(names(&protobuf_to_json(&binary.bytes)).len(), 60);
    assert_eq!(protobuf_to_json(&binary.bytes)["metadata"], plain.json()["metadata"]);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = Cluster::start().await;
    fill(&cluster, 6).await;
    let path = format!("{CONFIG_MAPS}?labelSelector=parity%3Dodd");
    let answer: Answer = cluster.send(request(Method::DELETE, &path, &[], Body::empty())).await;
    assert_eq!(names(&answer.expect(200)), ["c001", "c003", "c005"]);
    assert_eq!(names(&cluster.get(CONFIG_MAPS).await.expect(200)), ["c000", "c002", "c004"]);
}

fn yaml_to_json(bytes: &[u8]) -> String {
    crate::pipeline::decode_yaml(bytes, usize::MAX >> 1).expect("YAML").value.to_string()
}

fn protobuf_to_json(bytes: &[u8]) -> Value {
    super::super::protobuf::decode(bytes).expect("protobuf").value
}

#[tokio::test]
async fn every_answer_comes_in_protobuf_to_who_takes_nothing_else() {
    let cluster = Cluster::start().await;
    fill(&cluster, 3).await;
    cluster.create("pods", pod("p")).await.expect("created");
    let ask = async |method: Method, path: &str, accept: &str| {
        cluster.send(request(method, path, &[("accept", accept)], Body::empty())).await
    };
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (path, kind) in [
        (format!("{CONFIG_MAPS}?limit=2"), "ConfigMapList"),
        (format!("{CONFIG_MAPS}/c000"), "ConfigMap"),
        ("/api/v1/namespaces/default/pods/p".to_owned(), "Pod"),
        ("/api/v1/pods?labelSelector=none%3Dsuch".to_owned(), "PodList"),
        (format!("{CONFIG_MAPS}/missing"), "Status"),
        ("/api".to_owned(), "APIVersions"),
        ("/apis".to_owned(), "APIGroupList"),
        ("/apis/apps".to_owned(), "APIGroup"),
        ("/api/v1".to_owned(), "APIResourceList"),
    ] {
        let answer = ask(Method::GET, &path, protobuf).await;
        assert_eq!(answer.headers["content-type"], protobuf, "{path}");
        let object = protobuf_to_json(&answer.bytes);
        assert_eq!(object["kind"], kind, "{path}");
        if !matches!(kind, "Pod" | "PodList" | "Status") {
            let json = cluster.get(&path).await.expect(200);
            assert_eq!(object.as_object().map(|map| map.len()), json.as_object().map(|map| map.len()), "{path}");
        }
    }
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let answer = ask(Method::GET, CONFIG_MAPS, partial).await;
    let object = protobuf_to_json(&answer.bytes);
    assert_eq!((object["kind"].as_str(), names(&object).len()), (Some("PartialObjectMetadataList"), 3));
    for accept in ["application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", "application/cbor"] {
        let answer = ask(Method::GET, CONFIG_MAPS, accept).await;
        assert_eq!(answer.code, 406, "{accept}");
        let types = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
        assert_eq!(answer.message(), format!("only the following media types are accepted: {types}"));
    }
    // The dearer form only where it is asked for.
    let answer = ask(Method::GET, CONFIG_MAPS, "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(answer.headers["content-type"], "application/json");
}
