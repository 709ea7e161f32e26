//! Behaviour of the REST interface, as any client sees it on any master.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use barque_tests::client::revision;
use barque_tests::{Client, Cluster, Options, Suite, case, eventually, process, wait};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TOKENS: &str = "test-token-of-an-admin,tess,u-1,\"system:masters\"\ntest-token-of-nobody,nobody,u-2\n";

async fn cluster() -> Cluster {
    let options = Options { files: vec![("tokens.csv".to_owned(), TOKENS.to_owned())], ..Options::simulated(2) };
    Cluster::start(options.config("auth:\n  tokenFile: tokens.csv\n")).await
}

fn configmap(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        // Every namespace gets this one.
        .filter(|name| name != "kube-root-ca.crt")
        .collect()
}

/// Requests and answers as data, each file in a namespace of its own, each
/// step on a master chosen at random: keeps out differences from Kubernetes
/// and stale reads between masters.
#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers() {
    let cluster = cluster().await;
    let clients = cluster.clients();
    let mut suite = Suite::new();
    let mut files: Vec<_> =
        std::fs::read_dir(barque_tests::data("api")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        suite
            .case(&name, async {
                let namespace = cluster.namespace(&name).await;
                case::run(&file, &clients, &namespace).await;
            })
            .await;
    }
    suite.finish();
}

/// Lists, pages and watches hold together over all masters.
#[tokio::test(flavor = "multi_thread")]
async fn lists_and_watches() {
    let cluster = cluster().await;
    let clients = cluster.clients();
    let mut suite = Suite::new();
    suite.case("a read on any master sees every acknowledged write", fresh_reads(&cluster, &clients)).await;
    suite.case("pages over all masters show one moment", pages(&cluster, &clients)).await;
    suite.case("exact and minimum revisions", revisions(&cluster, &clients)).await;
    suite.case("a watch cut on one master goes on on another", resumed_watch(&cluster, &clients)).await;
    suite.case("selectors turn changes into additions and deletions", selector_watch(&cluster, &clients)).await;
    suite.case("bookmarks only when asked for", bookmarks(&cluster, &clients)).await;
    suite.case("a list through a watch", watch_list(&cluster, &clients)).await;
    suite.case("watches end after their time-out", watch_timeout(&cluster, &clients)).await;
    suite.case("tables in watches", table_watch(&cluster, &clients)).await;
    suite.case("a request with an idempotency key is applied once", idempotency(&cluster, &clients)).await;
    suite.finish();
}

async fn fresh_reads(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("fresh").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    for round in 0..50 {
        let name = format!("fresh-{round}");
        let writer = &clients[round % clients.len()];
        let written = writer.post(&path, &configmap(&name)).await.unwrap().expect(201).revision();
        for reader in clients {
            let read = reader.get(&format!("{path}/{name}")).await.unwrap().expect(200);
            assert_eq!(read.revision(), written);
            let list = reader.get(&path).await.unwrap().expect(200).json();
            assert_eq!(names(&list).len(), round + 1, "the list of {}", reader.address());
            assert!(revision(&list) >= written);
        }
    }
}

async fn pages(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("pages").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    for number in 0..25 {
        let _ = clients[0].post(&path, &configmap(&format!("page-{number:02}"))).await.unwrap().expect(201);
    }
    let whole = names(&clients[0].get(&path).await.unwrap().expect(200).json());
    let mut seen = Vec::new();
    let mut token = String::new();
    let mut moments = BTreeSet::new();
    for page in 0.. {
        assert!(page < 10, "the list does not end");
        let client = &clients[page % clients.len()];
        let list = client.get(&format!("{path}?limit=7&continue={token}")).await.unwrap().expect(200).json();
        moments.insert(revision(&list));
        seen.extend(names(&list));
        // What happens between two pages must not show in later ones.
        let _ = client.post(&path, &configmap(&format!("page-late-{page}"))).await.unwrap().expect(201);
        let _ = client.delete(&format!("{path}/page-{:02}", 24 - page)).await.unwrap().expect(200);
        token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            assert_eq!(list["metadata"]["remainingItemCount"], Value::Null);
            break;
        }
        assert_eq!(list["metadata"]["remainingItemCount"], json!(whole.len() - seen.len()), "{}", list["metadata"]);
    }
    assert_eq!(seen, whole);
    assert_eq!(moments.len(), 1, "pages of different moments: {moments:?}");
}

async fn revisions(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("revisions").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let first = clients[0].post(&path, &configmap("one")).await.unwrap().expect(201).revision();
    let second = clients[0].post(&path, &configmap("two")).await.unwrap().expect(201).revision();
    for client in clients {
        let exact = format!("{path}?resourceVersion={first}&resourceVersionMatch=Exact");
        let list = eventually("the master has applied it", || async {
            let response = client.get(&exact).await.map_err(|error| error.to_string())?;
            if response.status == 200 { Ok(response.json()) } else { Err(response.text()) }
        })
        .await;
        assert_eq!(names(&list), ["one"]);
        assert_eq!(revision(&list), first);
        let least = format!("{path}?resourceVersion={second}&resourceVersionMatch=NotOlderThan");
        let list = client.get(&least).await.unwrap().expect(200).json();
        assert_eq!(names(&list), ["one", "two"]);
        // "Any" may be old, never of the future.
        let any = client.get(&format!("{path}?resourceVersion=0")).await.unwrap().expect(200).json();
        assert!(revision(&any) > 0);
        let future = format!("{path}?resourceVersion={}", second + 1_000_000);
        let response = client.get(&future).await.unwrap();
        assert!(response.status == 504 || response.status == 410, "{} {}", response.status, response.text());
        // History does not reach back to the beginning of time in any way
        // that a watch could be served whole from revision 1.
        let ancient = client.get(&format!("{path}?resourceVersion={}&resourceVersionMatch=Exact", u64::MAX)).await;
        let ancient = ancient.unwrap();
        assert!(matches!(ancient.status.as_u16(), 400 | 410 | 504), "{} {}", ancient.status, ancient.text());
        for nonsense in ["abc", "-1", "1.5"] {
            for watch in ["", "&watch=true"] {
                let response = client.get(&format!("{path}?resourceVersion={nonsense}{watch}")).await.unwrap();
                assert!(matches!(response.status.as_u16(), 400 | 422), "{nonsense}: {}", response.status);
            }
        }
        // A watch from the future is refused as expired, at once or as its
        // only event.
        match client.watch(&format!("{path}?resourceVersion={}", second + 1_000_000)).await {
            Err(error) => assert!(error.to_string().contains("410"), "{error}"),
            Ok(mut watch) => {
                let event = watch.expect(wait::DEADLINE).await;
                assert_eq!((event.kind.as_str(), &event.object["code"]), ("ERROR", &json!(410)), "{event:?}");
            }
        }
    }
}

async fn resumed_watch(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("resumed").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let start = revision(&clients[0].get(&path).await.unwrap().expect(200).json());
    let mut written = Vec::new();
    for number in 0..60 {
        let client = &clients[number % clients.len()];
        written.push(client.post(&path, &configmap(&format!("c-{number}"))).await.unwrap().expect(201).revision());
    }
    // Read a few events on each master, always cutting the watch and going on
    // elsewhere.
    let mut seen = Vec::new();
    let mut at = start;
    for turn in 0.. {
        let client = &clients[turn % clients.len()];
        let mut watch = client.watch(&format!("{path}?resourceVersion={at}")).await.unwrap();
        for _ in 0..7 {
            if seen.len() == written.len() {
                break;
            }
            let event = watch.expect(wait::DEADLINE).await;
            assert_eq!(event.kind, "ADDED", "{event:?}");
            at = event.revision();
            seen.push(at);
        }
        if seen.len() == written.len() {
            break;
        }
    }
    assert_eq!(seen, written);
}

async fn selector_watch(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("selected").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let start = revision(&clients[0].get(&path).await.unwrap().expect(200).json());
    let mut watch = clients[1].watch(&format!("{path}?resourceVersion={start}&labelSelector=in%3Dyes")).await.unwrap();
    let _ = clients[0].post(&path, &configmap("a")).await.unwrap().expect(201);
    let label = |value: Value| json!({"metadata": {"labels": {"in": value}}});
    let one = format!("{path}/a");
    let mut revisions = Vec::new();
    for value in [json!("yes"), json!("no"), json!("yes")] {
        revisions.push(clients[2].patch(&one, "merge", &label(value)).await.unwrap().expect(200).revision());
    }
    let touched = clients[0].patch(&one, "merge", &json!({"data": {"a": "1"}})).await.unwrap().expect(200);
    revisions.push(touched.revision());
    let _ = clients[0].delete(&one).await.unwrap().expect(200);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let event = watch.expect(wait::DEADLINE).await;
        seen.push((event.kind.clone(), event.revision()));
    }
    let kinds: Vec<_> = seen.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["ADDED", "DELETED", "ADDED", "MODIFIED", "DELETED"]);
    let seen: Vec<_> = seen.iter().map(|(_, revision)| *revision).collect();
    assert_eq!(seen[..4], revisions[..], "events carry the revision of their change");
    assert!(seen[4] > revisions[3], "a deletion has a revision of its own");
}

async fn bookmarks(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("bookmarks").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let start = revision(&clients[0].get(&path).await.unwrap().expect(200).json());
    let mut asked = clients[0]
        .watch(&format!("{path}?resourceVersion={start}&allowWatchBookmarks=true&timeoutSeconds=3"))
        .await
        .unwrap();
    let mut not_asked = clients[0].watch(&format!("{path}?resourceVersion={start}&timeoutSeconds=3")).await.unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "elsewhere"}});
    let _ = clients[1].post(&format!("/api/v1/namespaces/{namespace}/secrets"), &secret).await.unwrap().expect(201);
    let mut last = start;
    let mut count = 0;
    while let Some(event) = asked.next().await.unwrap() {
        assert_eq!(event.kind, "BOOKMARK", "{event:?}");
        assert!(event.revision() >= last);
        last = event.revision();
        count += 1;
    }
    assert!(count > 0, "a watch that ends tells how far it came");
    assert_eq!(not_asked.next().await.unwrap(), None);
}

async fn watch_list(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("watchlist").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    for number in 0..5 {
        let _ = clients[0].post(&path, &configmap(&format!("c-{number}"))).await.unwrap().expect(201);
    }
    for client in clients {
        let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut watch = client.watch(&format!("{path}?{query}")).await.unwrap();
        let events = watch.until(wait::DEADLINE, |event| event.kind == "BOOKMARK").await;
        let mark = events.last().unwrap();
        assert_eq!(mark.object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true", "{mark:?}");
        let mut seen: Vec<_> = events.iter().filter(|event| event.kind == "ADDED").map(|event| event.name()).collect();
        seen.sort_unstable();
        assert!(seen.starts_with(&["c-0", "c-1", "c-2", "c-3", "c-4"]), "{seen:?}");
        let name = barque_tests::unique("live");
        let _ = clients[0].post(&path, &configmap(&name)).await.unwrap().expect(201);
        watch.until(wait::DEADLINE, |event| event.kind == "ADDED" && event.name() == name).await;
    }
}

async fn watch_timeout(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("timeout").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps?timeoutSeconds=1");
    for client in clients {
        let mut watch = client.watch(&path).await.unwrap();
        let end = tokio::time::timeout(wait::DEADLINE, async { while let Ok(Some(_)) = watch.next().await {} }).await;
        assert!(end.is_ok(), "the watch does not end");
    }
}

async fn table_watch(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("tables").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let start = revision(&clients[0].get(&path).await.unwrap().expect(200).json());
    let request = clients[0]
        .request(Method::GET, &format!("{path}?watch=true&resourceVersion={start}&timeoutSeconds=5"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let _ = clients[1].post(&path, &configmap("row")).await.unwrap().expect(201);
    let _ = clients[1].post(&path, &configmap("row-2")).await.unwrap().expect(201);
    let response = request.send().await.unwrap().expect(200);
    let text = response.text();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tables: Vec<_> = events.iter().filter(|event| event["type"] == "ADDED").collect();
    assert_eq!(tables.len(), 2, "{text}");
    assert_eq!(tables[0]["object"]["kind"], "Table");
    assert_eq!(tables[0]["object"]["rows"][0]["cells"][0], "row");
    // Columns are told once, with the first event.
    assert!(tables[0]["object"]["columnDefinitions"].is_array(), "{text}");
}

async fn idempotency(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("once").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "once-"}});
    let key = barque_tests::unique("key");
    let mut answers = Vec::new();
    for round in 0..6 {
        let client = &clients[round % clients.len()];
        let request = client.request(Method::POST, &path).json(&object).header("idempotency-key", &key);
        answers.push(request.send().await.unwrap().expect(201).json());
    }
    for answer in &answers[1..] {
        assert_eq!(answer, &answers[0], "a retried request gets the first answer");
    }
    let made = names(&clients[0].get(&path).await.unwrap().expect(200).json());
    assert_eq!(made.iter().filter(|name| name.starts_with("once-")).count(), 1, "{made:?}");
    // The same for a delete: the retry is not a 404.
    let one = format!("{path}/{}", answers[0]["metadata"]["name"].as_str().unwrap());
    for client in clients {
        let request = client.request(Method::DELETE, &one).header("idempotency-key", &format!("{key}-delete"));
        let _ = request.send().await.unwrap().expect(200);
    }
    // Another key is another request.
    let other = clients[0].request(Method::POST, &path).json(&object).header("idempotency-key", "another");
    let other = other.send().await.unwrap().expect(201).json();
    assert_ne!(other["metadata"]["name"], answers[0]["metadata"]["name"]);
}

/// Who may ask: nobody without credentials.
#[tokio::test(flavor = "multi_thread")]
async fn credentials() {
    let cluster = cluster().await;
    let mut suite = Suite::new();
    let server = cluster.masters()[0].url.clone().unwrap();
    let anonymous = Client::anonymous(cluster.access(), &server, None);
    suite
        .case("without credentials", async {
            for path in ["/api/v1/namespaces", "/api/v1/namespaces/default/secrets", "/apis", "/metrics"] {
                anonymous.get(path).await.unwrap().expect_reason(401, "Unauthorized");
            }
            let write = anonymous.post("/api/v1/namespaces/default/configmaps", &configmap("x")).await.unwrap();
            write.expect_reason(401, "Unauthorized");
            for path in ["/livez", "/readyz"] {
                let _ = anonymous.get(path).await.unwrap().expect(200);
            }
        })
        .await;
    suite
        .case("with a wrong token", async {
            let wrong = Client::anonymous(cluster.access(), &server, Some("no-such-token"));
            wrong.get("/api/v1/namespaces").await.unwrap().expect_reason(401, "Unauthorized");
        })
        .await;
    suite
        .case("with a token of an administrator", async {
            for master in cluster.masters() {
                let url = master.url.clone().unwrap();
                let tess = Client::anonymous(cluster.access(), &url, Some("test-token-of-an-admin"));
                let _ = tess.get("/api/v1/namespaces").await.unwrap().expect(200);
            }
        })
        .await;
    suite
        .case("with a token of somebody without rights", async {
            let nobody = Client::anonymous(cluster.access(), &server, Some("test-token-of-nobody"));
            let response = nobody.get("/api/v1/namespaces/default/secrets").await.unwrap();
            let body = response.expect(403).json();
            assert_eq!(body["reason"], "Forbidden");
            let message = body["message"].as_str().unwrap();
            let wanted = "secrets is forbidden: User \"nobody\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"";
            assert!(message.starts_with(wanted), "{message}");
        })
        .await;
    suite
        .case("plain HTTP on the TLS port", async {
            let mut plain = tokio::net::TcpStream::connect(anonymous.address()).await.unwrap();
            plain.write_all(b"GET /api/v1/namespaces HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            // Whatever comes, it is no namespace.
            let _ = tokio::time::timeout(Duration::from_secs(30), plain.read_to_end(&mut answer)).await;
            assert!(!String::from_utf8_lossy(&answer).contains("NamespaceList"));
        })
        .await;
    suite.finish();
}

/// Input meant to hurt: precise answers, bounded memory, others unharmed.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients() {
    let cluster = cluster().await;
    let clients = cluster.clients();
    let namespace = cluster.namespace("hostile").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let _ = clients[0].post(&path, &configmap("canary")).await.unwrap().expect(201);
    let before: Vec<_> = cluster.masters().iter().map(|master| memory(master.pid())).collect();

    let mut suite = Suite::new();
    suite.case("too large a body", too_large(&clients[0], &path)).await;
    suite.case("too deep a body", too_deep(&clients[0], &path)).await;
    suite.case("a YAML alias bomb", alias_bomb(&clients[0], &path)).await;
    suite.case("not UTF-8", not_utf8(&clients[0], &path)).await;
    suite.case("long and odd paths", odd_paths(&clients[0])).await;
    suite.case("half-sent requests", half_sent(&clients[0], &path)).await;
    suite.case("a thousand idle connections", idle(&clients[0], &path)).await;
    suite.case("watchers that do not read", slow_watchers(&cluster, &clients)).await;
    suite
        .case("masters live on, in bounded memory", async {
            for (master, before) in cluster.masters().iter().zip(&before) {
                assert!(master.alive(), "{} died", master.name);
                let now = memory(master.pid());
                println!("{}: {} MiB before, {} MiB after", master.name, before >> 20, now >> 20);
                assert!(now < before + (512 << 20), "{}: {before} bytes before, {now} after", master.name);
                healthy(&cluster.client_of(master), &path).await;
            }
        })
        .await;
    suite.finish();
}

fn memory(pid: u32) -> u64 {
    process::resident_bytes(pid).expect("a live process has a size")
}

async fn healthy(client: &Client, path: &str) {
    let request = client.request(Method::GET, &format!("{path}/canary")).timeout(Duration::from_secs(20));
    let _ = request.send().await.expect("a healthy client is served").expect(200);
    let write = client.request(Method::POST, path).json(&configmap(&barque_tests::unique("healthy")));
    let _ = write.timeout(Duration::from_secs(20)).send().await.expect("a healthy client can write").expect(201);
}

async fn too_large(client: &Client, path: &str) {
    let object = |bytes: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"a": "x".repeat(bytes)}});
    // Kubernetes' own limit on a ConfigMap's data is 1 MiB.
    let response = client.post(path, &object((1 << 20) + 1)).await.unwrap().expect(422);
    assert!(response.text().contains("Too long"), "{}", response.text());
    // Far above the limit on bodies: the answer may be cut off by the closing
    // connection, but the server must not take it.
    match client.post(path, &object(64 << 20)).await {
        Ok(response) => response.expect_reason(413, "RequestEntityTooLarge"),
        Err(error) => assert!(error.sent, "{error}"),
    }
    client.get(&format!("{path}/large")).await.unwrap().expect_reason(404, "NotFound");
    // A length that lies.
    let mut stream = client.open().await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    let read = tokio::time::timeout(wait::DEADLINE, stream.read_exact(&mut answer)).await.expect("an answer at once");
    read.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
}

async fn too_deep(client: &Client, path: &str) {
    for depth in [500, 50_000, 1_000_000] {
        for (open, close, content_type) in
            [("[", "]", "application/json"), ("[", "]", "application/yaml"), ("{\"a\":", "}", "application/json")]
        {
            let body = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            if body.len() > 2_500_000 {
                continue;
            }
            let response = client.request(Method::POST, path).body(content_type, body).send().await.unwrap();
            assert!(
                matches!(response.status.as_u16(), 400 | 413),
                "depth {depth}: {} {}",
                response.status,
                response.text()
            );
            assert_eq!(response.json()["kind"], "Status");
        }
    }
}

async fn alias_bomb(client: &Client, path: &str) {
    let mut bomb = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    bomb.push_str("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\n");
    let response = client.request(Method::POST, path).body("application/yaml", bomb).send().await.unwrap();
    response.expect_reason(400, "BadRequest");
}

async fn not_utf8(client: &Client, path: &str) {
    let mut body = configmap("latin").to_string().into_bytes();
    let at = body.iter().position(|byte| *byte == b'l').unwrap();
    body[at] = 0xff;
    for content_type in ["application/json", "application/yaml"] {
        let response = client.request(Method::POST, path).body(content_type, body.clone()).send().await.unwrap();
        response.expect_reason(400, "BadRequest");
    }
}

async fn odd_paths(client: &Client) {
    for path in
        ["//", "/api//v1", "/api/v1/namespaces/../../etc/passwd", "/api/v1/namespaces/%ff", "/api/v1/namespaces/%00"]
    {
        let response = client.get(path).await.unwrap();
        assert!((400..500).contains(&response.status.as_u16()), "{path}: {}", response.status);
    }
    // A namespace that cannot exist is an empty one, as upstream.
    let list = client.get("/api/v1/namespaces/%00/secrets").await.unwrap().expect(200).json();
    assert_eq!(list["items"], json!([]));
    let long = format!("/api/v1/namespaces/{}", "x".repeat(8_000));
    let response = client.get(&long).await.unwrap();
    assert!((400..500).contains(&response.status.as_u16()), "{}", response.status);
}

async fn half_sent(client: &Client, path: &str) {
    let mut held = Vec::new();
    let heads = [
        format!("POST {path} HTTP/1.1\r\nhost: x\r\n"),
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{{\"kind\""
        ),
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nff\r\nabc"),
    ];
    for number in 0..150 {
        let mut stream = client.open().await.unwrap();
        stream.write_all(heads[number % heads.len()].as_bytes()).await.unwrap();
        held.push(stream);
    }
    healthy(client, path).await;
    // Each is cut off, or answered with an error, within the server's limits.
    for mut stream in held {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(wait::DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "a half-sent request is kept for ever");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
}

async fn idle(client: &Client, path: &str) {
    let mut held = Vec::new();
    for number in 0..1_000 {
        // Half of them not even with a handshake.
        if number % 2 == 0 {
            held.push(client.open().await.unwrap());
        } else {
            let tcp = tokio::net::TcpStream::connect(client.address()).await.unwrap();
            held.push(Box::new(tcp));
        }
    }
    let fresh = &client.clone();
    for _ in 0..20 {
        healthy(fresh, path).await;
    }
    drop(held);
}

async fn slow_watchers(cluster: &Cluster, clients: &[Client]) {
    let namespace = cluster.namespace("slow").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let start = revision(&clients[0].get(&path).await.unwrap().expect(200).json());
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut stream = clients[0].open().await.unwrap();
        let head = format!("GET {path}?watch=true&resourceVersion={start} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let mut healthy_watch = clients[0].watch(&format!("{path}?resourceVersion={start}")).await.unwrap();
    let pid = cluster.masters()[0].pid();
    let before = memory(pid);
    let text = "x".repeat(200_000);
    for number in 0..150 {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("big-{number}")}, "data": {"a": text},
        });
        let _ = clients[number % clients.len()].post(&path, &object).await.unwrap().expect(201);
        let event = healthy_watch.expect(wait::DEADLINE).await;
        assert_eq!(event.name(), format!("big-{number}"));
    }
    // 30 MB of objects; a copy for each of 100 slow readers would be 3 GB.
    let now = memory(pid);
    println!("slow watchers: {} MiB before, {} MiB after", before >> 20, now >> 20);
    assert!(now < before + (600 << 20), "{before} bytes before, {now} after");
    drop(held);
}
