use std::time::Duration;

use super::*;

fn asked(verb: &str, group: &str, resource: &str, subresource: &str) -> Attributes {
    Attributes {
        verb: verb.to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: "ns".to_owned(),
        name: "x".to_owned(),
        ..Attributes::default()
    }
}

fn path(path: &str) -> Attributes {
    Attributes { verb: "get".to_owned(), path: path.to_owned(), ..Attributes::default() }
}

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
  resources:
  - {group: "", resources: [endpoints, services]}
- level: None
  nonResourceURLs: ["/healthz*", /version]
- level: Metadata
  omitManagedFields: true
  resources:
  - {group: "", resources: [secrets, "pods/*"]}
- level: RequestResponse
  namespaces: [ns]
  resources:
  - {group: apps}
- level: Request
  userGroups: [people]
"#;

#[test]
fn the_first_rule_that_matches_counts() {
    let policy = Policy::parse(POLICY).expect("valid");
    let somebody = User { name: "a".to_owned(), groups: vec!["people".to_owned()], ..User::default() };
    let proxy = User { name: "system:kube-proxy".to_owned(), ..User::default() };
    for (user, asked, expected) in [
        (&proxy, asked("watch", "", "services", ""), Level::None),
        (&proxy, asked("list", "", "services", ""), Level::None),
        (&somebody, path("/healthz/ping"), Level::None),
        (&somebody, path("/version"), Level::None),
        (&somebody, path("/versions"), Level::Request),
        (&somebody, asked("get", "", "secrets", ""), Level::Metadata),
        (&somebody, asked("create", "", "pods", "exec"), Level::Metadata),
        (&somebody, asked("create", "", "pods", ""), Level::Request),
        (&proxy, asked("create", "apps", "deployments", "scale"), Level::RequestResponse),
    ] {
        assert_eq!(policy.judge(user, &asked).level, expected, "{} {asked:?}", user.name);
    }
    let verdict = policy.judge(&somebody, &asked("get", "", "secrets", ""));
    assert!(verdict.omit_managed_fields && verdict.omitted == [Stage::RequestReceived]);
}

#[test]
fn policies_that_make_no_sense_are_refused() {
    for (text, fragment) in [
        ("kind: Policy", "apiVersion"),
        ("{apiVersion: audit.k8s.io/v1, kind: Other}", "is no audit.k8s.io/v1 Policy"),
        ("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: All}]}", "All"),
        ("{apiVersion: audit.k8s.io/v1, kind: Policy, rulez: []}", "rulez"),
        (
            "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, namespaces: [a], nonResourceURLs: [/a]}]}",
            "rules[0]: rules cannot apply to both",
        ),
        ("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, nonResourceURLs: [\"/a*b\"]}]}", "/a*b"),
        (
            "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, resources: [{resourceNames: [a]}]}]}",
            "need resources",
        ),
    ] {
        let error = Policy::parse(text).expect_err(text).to_string();
        assert!(error.contains(fragment), "{error}");
    }
}

#[derive(Default)]
struct Kept(Mutex<Vec<Value>>);

impl Sink for Kept {
    fn write(&self, entry: Bytes) -> BoxFuture<'_, ()> {
        self.0.lock().push(serde_json::from_slice(&entry).expect("JSON"));
        Box::pin(std::future::ready(()))
    }
}

fn request(user: &str, attributes: Attributes) -> Request {
    Request {
        id: "id".to_owned(),
        user: Arc::new(User { name: user.to_owned(), groups: vec!["people".to_owned()], ..User::default() }),
        impersonator: None,
        attributes,
        version: "v1".to_owned(),
        uri: "/apis/apps/v1".to_owned(),
        agent: "test".to_owned(),
        source: vec!["127.0.0.1".to_owned()],
        received: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn an_entry_tells_the_whole_story() {
    let kept = Arc::new(Kept::default());
    let audit = Audit::new(Policy::parse(POLICY).expect("valid"), Arc::clone(&kept) as Arc<dyn Sink>);
    assert!(audit.trail(request("a", path("/version"))).is_none());
    let trail = audit.trail(request("a", asked("create", "apps", "deployments", ""))).expect("recorded");
    let now = Timestamp::UNIX_EPOCH;
    within(Some(Arc::clone(&trail)), async {
        annotate("authorization.k8s.io/decision", "allow");
        annotate("authorization.k8s.io/decision", "too late");
    })
    .await;
    annotate("nobody", "listens");
    trail.body(json!({"metadata": {"name": "x", "managedFields": []}}));
    trail.stage(Stage::RequestReceived, now, None).await;
    let answer = content(br#"{"kind":"Status","reason":"Forbidden","message":"no","code":403}"#);
    trail.stage(Stage::ResponseComplete, now, Some((403, answer))).await;
    let entries = kept.0.lock();
    assert_eq!(entries.len(), 1, "one stage is omitted");
    let entry = &entries[0];
    assert_eq!(entry["level"], "RequestResponse");
    assert_eq!(
        entry["objectRef"],
        json!({"resource": "deployments", "namespace": "ns", "name": "x", "apiGroup": "apps",
        "apiVersion": "v1"})
    );
    assert_eq!(entry["responseStatus"], json!({"metadata": {}, "code": 403, "reason": "Forbidden", "message": "no"}));
    assert_eq!(entry["requestObject"]["metadata"], json!({"name": "x", "managedFields": []}));
    assert_eq!(entry["annotations"], json!({"authorization.k8s.io/decision": "allow"}));
    assert_eq!(entry["stageTimestamp"], "1970-01-01T00:00:00.000000Z");
}

#[test]
fn bodies_are_bounded() {
    assert_eq!(content(b""), None);
    assert_eq!(content(b"{\"a\":1}"), Some(json!({"a": 1})));
    let large = format!("\"{}\"", "x".repeat(MAX_BODY_BYTES));
    assert_eq!(content(large.as_bytes()), Some(json!({"omitted": format!("{} bytes", large.len())})));
}

#[tokio::test]
async fn files_are_rotated_and_old_ones_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("logs/audit.log");
    let options = FileOptions { path: path.clone(), max_bytes: 100, max_backups: 2, max_age: Duration::ZERO };
    let sink = FileSink::open(options.clone()).expect("opened");
    for number in 0..20 {
        sink.write(Bytes::from(format!("{{\"number\":{number:030}}}"))).await;
    }
    drop(sink);
    let last = format!("{{\"number\":{:030}}}\n", 19);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(&path).unwrap_or_default().ends_with(&last) {
        assert!(std::time::Instant::now() < deadline, "the last entry was not written");
        tokio::task::yield_now().await;
    }
    let mut files: Vec<_> = std::fs::read_dir(path.parent().expect("a parent"))
        .expect("listed")
        .map(|item| item.expect("an item").path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in &files {
        assert!(std::fs::metadata(file).expect("there").len() <= 100);
    }
    // It goes on where it was.
    let before = std::fs::read_to_string(&path).expect("read");
    let sink = FileSink::open(options).expect("opened");
    sink.write(Bytes::from_static(b"{}")).await;
    drop(sink);
    while std::fs::read_to_string(&path).expect("read") != format!("{before}{{}}\n") {
        assert!(std::time::Instant::now() < deadline, "the entry was not appended");
        tokio::task::yield_now().await;
    }
}
