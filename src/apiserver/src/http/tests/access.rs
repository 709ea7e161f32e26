//! Who may what, as clients meet it.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use crate::testing::{Answer, Cluster, request};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const SAR: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

async fn start() -> Cluster {
    Cluster::start().await.with_roles().await
}

/// Sends as the owner of a token, or as the administrator acting as somebody.
async fn send(cluster: &Cluster, who: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    let bearer = format!("Bearer {who}");
    match who {
        "admin" => {}
        who if who.len() > 40 || who.ends_with("-token") => headers.push(("authorization", bearer.as_str())),
        who => headers.push(("impersonate-user", who)),
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    cluster.send(request(method, path, &headers, body)).await
}

async fn post(cluster: &Cluster, who: &str, path: &str, body: Value) -> Answer {
    send(cluster, who, Method::POST, path, Some(body)).await
}

async fn get(cluster: &Cluster, who: &str, path: &str) -> Answer {
    send(cluster, who, Method::GET, path, None).await
}

fn cluster_role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": role},
           "subjects": [{"kind": "User", "name": user}]})
}

#[tokio::test]
async fn roles_open_what_they_name() {
    let cluster = start().await;
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(
        get(&cluster, "jane", pods).await.message(),
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    // Whether there is such a resource is nobody's business who may not ask.
    get(&cluster, "jane", "/apis/none.such/v1/things").await.expect(403);
    get(&cluster, "admin", "/apis/none.such/v1/things").await.expect(404);
    let rules = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
    post(&cluster, "admin", &format!("{RBAC}/clusterroles"), cluster_role("reader", rules)).await.expect(201);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    post(&cluster, "admin", &bindings, binding("b", "reader", "jane")).await.expect(201);
    get(&cluster, "jane", pods).await.expect(200);
    get(&cluster, "jane", "/api/v1/namespaces/kube-system/pods").await.expect(403);
    get(&cluster, "jane", "/api/v1/namespaces/default").await.expect(403);
    send(&cluster, "admin", Method::DELETE, &format!("{RBAC}/clusterroles/reader"), None).await.expect(200);
    let told = get(&cluster, "jane", pods).await.message();
    assert!(told.ends_with(": RBAC: clusterrole.rbac.authorization.k8s.io \"reader\" not found"), "{told}");
    // Whoever is known may look around.
    for path in ["/apis", "/api/v1", "/openapi/v3", "/version"] {
        get(&cluster, "jane", path).await.expect(200);
    }
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let cluster = start().await;
    let (roles, bindings) = (format!("{RBAC}/clusterroles"), format!("{RBAC}/clusterrolebindings"));
    let writes = json!([
        {"verbs": ["create", "update", "patch"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
    ]);
    post(&cluster, "admin", &roles, cluster_role("author", writes)).await.expect(201);
    post(&cluster, "admin", &bindings, binding("author", "author", "jane")).await.expect(201);
    let rule = |verbs: Value| json!([{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]);
    post(&cluster, "jane", &roles, cluster_role("small", rule(json!(["get"])))).await.expect(201);
    assert_eq!(
        post(&cluster, "jane", &roles, cluster_role("big", rule(json!(["get", "delete"])))).await.message(),
        "clusterroles.rbac.authorization.k8s.io \"big\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
         Verbs:[\"delete\"]}"
    );
    post(&cluster, "jane", &bindings, binding("x", "small", "eve")).await.expect(201);
    post(&cluster, "jane", &bindings, binding("y", "cluster-admin", "eve")).await.expect(403);
    post(&cluster, "jane", &bindings, binding("z", "none", "eve")).await.expect(404);
    let mut gathers = cluster_role("agg", json!([]));
    gathers["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let told = post(&cluster, "jane", &roles, gathers).await.message();
    assert!(told.ends_with("must have cluster-admin privileges to use the aggregationRule"), "{told}");
    let patch = |body: Value| {
        let headers = [("content-type", "application/merge-patch+json"), ("impersonate-user", "jane")];
        cluster.send(request(Method::PATCH, &format!("{roles}/small"), &headers, Body::from(body.to_string())))
    };
    patch(json!({"rules": rule(json!(["*"]))})).await.expect(403);
    patch(json!({"metadata": {"finalizers": ["acme.com/x"]}})).await.expect(200);
    // The verbs that allow it.
    let may = json!([
        {"verbs": ["escalate", "bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"]},
    ]);
    post(&cluster, "admin", &roles, cluster_role("escalator", may)).await.expect(201);
    post(&cluster, "admin", &bindings, binding("escalator", "escalator", "jane")).await.expect(201);
    post(&cluster, "jane", &roles, cluster_role("big", rule(json!(["*"])))).await.expect(201);
    post(&cluster, "jane", &bindings, binding("y", "cluster-admin", "eve")).await.expect(201);
    get(&cluster, "eve", "/api/v1/nodes").await.expect(200);
}

#[tokio::test]
async fn reviews_answer_for_others_and_for_oneself() {
    let cluster = start().await;
    let ask = |user: &str, groups: Value, verb: &str| {
        json!({"spec": {"user": user, "groups": groups,
                        "resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}})
    };
    let answer = post(&cluster, "admin", SAR, ask("x", json!(["system:masters"]), "get")).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!((&answer["kind"], &answer["metadata"]), (&json!("SubjectAccessReview"), &json!({})));
    let answer = post(&cluster, "admin", SAR, ask("x", json!([]), "get")).await.expect(201);
    assert_eq!(answer["status"], json!({"allowed": false}));
    post(&cluster, "guest-token", SAR, ask("x", json!([]), "get")).await.expect(403);
    for (body, field) in [
        (json!({"spec": {"user": "x"}}), "spec.resourceAttributes"),
        (json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/"}}}), "spec.user"),
        (json!({"metadata": {"name": "a"}, "spec": {"user": "x", "resourceAttributes": {"verb": "get"}}}), "metadata"),
        (
            json!({"spec": {"user": "x", "resourceAttributes": {}, "nonResourceAttributes": {}}}),
            "spec.nonResourceAttributes",
        ),
    ] {
        let answer = post(&cluster, "admin", SAR, body).await.expect(422);
        assert_eq!(answer["details"]["causes"][0]["field"], field);
    }
    let local = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let answer = post(&cluster, "admin", local, ask("x", json!([]), "get")).await.expect(201);
    assert_eq!(answer["metadata"]["namespace"], "default");
    let mut other = ask("x", json!([]), "get");
    other["spec"]["resourceAttributes"]["namespace"] = json!("else");
    post(&cluster, "admin", local, other).await.expect(422);

    let own = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let can = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/apis/x"}}});
    assert_eq!(post(&cluster, "guest-token", own, can).await.expect(201)["status"]["allowed"], true);
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let body = json!({"spec": {"namespace": "default"}});
    let answer = post(&cluster, "guest-token", rules, body.clone()).await.expect(201);
    assert_eq!(answer["status"]["incomplete"], false);
    let told = answer["status"]["resourceRules"].to_string();
    assert!(told.contains("selfsubjectaccessreviews"), "{told}");
    assert_eq!(post(&cluster, "node-token", rules, body).await.expect(201)["status"]["incomplete"], true);
    post(&cluster, "guest-token", rules, json!({"spec": {}})).await.expect(400);

    let tokens = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = |token: &str| json!({"spec": {"token": token}});
    let answer = post(&cluster, "admin", tokens, review("guest-token")).await.expect(201);
    assert_eq!(answer["status"]["authenticated"], true);
    assert_eq!(answer["status"]["user"]["username"], "guest");
    let answer = post(&cluster, "admin", tokens, review("x")).await.expect(201);
    assert_eq!(answer["status"], json!({"user": {}, "error": "invalid bearer token"}));
    post(&cluster, "admin", tokens, review("")).await.expect(400);
    post(&cluster, "guest-token", tokens, review("x")).await.expect(403);
}

#[tokio::test]
async fn acting_as_others_must_be_allowed() {
    let cluster = start().await;
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let as_other = |bearer: Option<&'static str>, headers: &[(&'static str, &'static str)]| {
        let mut all = vec![("content-type", "application/json")];
        all.extend(bearer.map(|bearer| ("authorization", bearer)));
        all.extend(headers);
        cluster.send(request(Method::POST, whoami, &all, Body::from("{}")))
    };
    let jane = [("impersonate-user", "jane"), ("impersonate-group", "devs"), ("impersonate-extra-scopes", "x")];
    let answer = as_other(None, &jane).await.expect(201);
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "jane", "groups": ["devs", "system:authenticated"], "extra": {"scopes": ["x"]}})
    );
    let guest = Some("Bearer guest-token");
    assert_eq!(
        as_other(guest, &jane).await.message(),
        "users \"jane\" is forbidden: User \"guest\" cannot impersonate resource \"users\" in API group \"\" at the \
         cluster scope"
    );
    as_other(None, &[("impersonate-group", "devs")]).await.expect(500);
    let answer = as_other(None, &[("impersonate-user", "system:serviceaccount:a:b")]).await.expect(201);
    assert_eq!(answer["status"]["userInfo"]["groups"][1], "system:serviceaccounts:a");
    as_other(Some("Bearer wrong"), &jane).await.expect(401);
}

#[tokio::test]
async fn a_service_account_is_who_its_token_says() {
    let cluster = start().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let issued = post(&cluster, "admin", path, json!({"spec": {"expirationSeconds": 600}})).await.expect(201);
    assert_eq!((&issued["kind"], &issued["metadata"]["name"]), (&json!("TokenRequest"), &json!("default")));
    let token = issued["status"]["token"].as_str().expect("a token");
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = post(&cluster, token, whoami, json!({})).await.expect(201);
    assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:default:default");
    get(&cluster, token, "/api/v1/namespaces/default/pods").await.expect(403);
    // How others verify it; the role that opens it is for service accounts.
    let document = get(&cluster, token, "/.well-known/openid-configuration").await.expect(200);
    assert_eq!(document["issuer"], "https://kubernetes.default.svc.cluster.local");
    assert_eq!(get(&cluster, token, "/openid/v1/jwks").await.expect(200)["keys"][0]["kty"], "EC");
    get(&cluster, "guest-token", "/openid/v1/jwks").await.expect(403);
    // A node asks for its own Pods only.
    let told = post(&cluster, "node-token", path, json!({})).await.message();
    assert!(told.ends_with("no relationship found between node 'n1' and this object"), "{told}");
    post(&cluster, "guest-token", path, json!({})).await.expect(403);
    send(&cluster, "admin", Method::DELETE, "/api/v1/namespaces/default/serviceaccounts/default", None).await;
    get(&cluster, token, "/api/v1/namespaces/default/pods").await.expect(401);
}
