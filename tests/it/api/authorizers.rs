//! Daypass in a cluster that asks webhooks for authentication and authorization.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Cluster, Daypass, Http, Launch, NewMember, Role, Webhooks, eventually};

/// The `extra` field in which OpenShift limits what an OAuth token may do.
const SCOPES_EXTRA: &str = "scopes.authorization.openshift.io";

/// A cluster where the group `staff` has all rights in the role `open`; the webhook denies them in `closed`.
struct WebhookCluster {
    cluster: Cluster,
    daypass: Daypass,
    open: Role,
    closed: Role,
}

/// Opaque tokens of alice: with all of her rights, and scoped.
fn user_of(token: &str) -> Option<Value> {
    let extra = match token {
        "opaque-full" | "opaque-other" => json!({"authentication.kubernetes.io/credential-id": ["X509SHA256=1"]}),
        "opaque-narrow" => json!({SCOPES_EXTRA: ["user:info"], "authentication.kubernetes.io/pod-name": ["p"]}),
        _ => return None,
    };
    Some(json!({"username": "alice", "uid": "1", "groups": ["staff"], "extra": extra}))
}

/// Denies everything in closed namespaces, and the creation of members to scoped tokens.
fn denies(spec: &Value) -> bool {
    let asked = &spec["resourceAttributes"];
    let is_narrow = spec["extra"][SCOPES_EXTRA].is_array();
    let is_closed = asked["namespace"].as_str().is_some_and(|name| name.ends_with("-closed"));
    spec["user"] == "alice"
        && asked["group"] == "daypass.dev"
        && (is_closed || (is_narrow && asked["verb"] == "create"))
}

/// A cluster whose API server asks these webhooks, and where RBAC gives the group `staff` all rights on members.
fn cluster_with_webhooks() -> Cluster {
    // The walls would refuse a token written as an earlier version did.
    let cluster = Cluster::own_without_walls();
    Webhooks { user_of, denies }.start(&cluster);
    let (verbs, resources) = ("--verb=create,get,list,update,delete", "--resource=members.daypass.dev");
    cluster.kubectl(&["create", "clusterrole", "staff", verbs, resources]);
    cluster.kubectl(&["create", "clusterrolebinding", "staff", "--clusterrole=staff", "--group=staff"]);
    cluster
}

fn webhook_cluster() -> &'static WebhookCluster {
    static SHARED: OnceLock<WebhookCluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = cluster_with_webhooks();
        let open = cluster.reader();
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        let reader = json!({"description": "A test's", "rules": rules});
        cluster.apply(&cluster.render_role("closed-by-closed", &reader));
        let closed = cluster.wait_role("closed-by-closed");
        cluster.let_group_create_tokens("staff");
        let args = vec!["--user-tokens".to_owned()];
        let daypass = Daypass::start(&cluster, &Launch { args, ..Launch::default() });
        let alice = daypass.owner.with_token("opaque-full");
        eventually("alice has her rights", || {
            let made = alice.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})).status;
            (made == 201 && alice.get("/members").status == 200).then_some(())
        });
        WebhookCluster { cluster, daypass, open, closed }
    })
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[test]
fn authorizer_denial_overrides_cluster_wide_right() {
    let WebhookCluster { cluster, daypass, open, closed } = webhook_cluster();
    let alice = daypass.owner.with_token("opaque-full");
    let attributes = json!({"group": "daypass.dev", "resource": "members", "verb": "create"});
    let spec = json!({"user": "alice", "groups": ["staff"], "resourceAttributes": attributes});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    let file = cluster.save(&review.to_string());
    let allowed = cluster.kubectl(&["create", "-o", "jsonpath={.status.allowed}", "-f", file.to_str().unwrap()]);
    assert_eq!(allowed, "true", "asked about all namespaces");

    let mine = NewMember::new(&alice, open, 1);
    cluster.apply_member(closed, "theirs", &json!({"duration": "1h"}));
    let theirs = format!("/members/{}.theirs", closed.id);
    alice.post("/members", &json!({"duration": "1", "roleId": closed.id})).assert_invalid_field("roleId");
    for answer in [alice.get(&theirs), alice.delete(&theirs), alice.patch(&theirs, &json!({"duration": "2"}))] {
        answer.problem(404, "DP_ERR_NOT_FOUND");
    }
    let (members, roles) = (alice.get("/members").expect(200).json(), alice.get("/members/roles").expect(200).json());
    assert!(ids(&members).contains(&mine.id.as_str()) && !ids(&members).iter().any(|id| id.ends_with(".theirs")));
    assert!(ids(&roles).contains(&open.id.as_str()) && !ids(&roles).contains(&closed.id.as_str()));
    let of_theirs = alice.get(&format!("/members?roleId={}", closed.id)).expect(200).json();
    assert_eq!(ids(&of_theirs), [""; 0]);
    assert_eq!(cluster.names(&closed.namespace, "members.daypass.dev"), ["theirs"], "nothing has changed");
    alice.get(&mine.path("")).expect(200);
}

#[test]
fn access_token_of_scoped_identity_stays_scoped() {
    let WebhookCluster { cluster, daypass, open, .. } = webhook_cluster();
    let [full, narrow] = ["opaque-full", "opaque-narrow"].map(|token| daypass.owner.with_token(token));
    let for_a_day =
        |caller: &Http| AccessToken::requested(caller, &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES}));
    let (of_full, of_narrow) = (for_a_day(&full), for_a_day(&narrow));
    let extra = |pat: &AccessToken| cluster.stored(pat).unwrap()["spec"]["owner"]["extra"].clone();
    assert_eq!(extra(&of_full), json!({}), "attributes of a credential are not kept");
    assert_eq!(extra(&of_narrow), json!({SCOPES_EXTRA: ["user:info"]}));

    let body = json!({"duration": "1", "roleId": open.id});
    let end = &of_narrow.body["expiresAt"];
    let child = AccessToken::requested(&of_narrow.http, &json!({"name": "n", "expiresAt": end, "scopes": SCOPES}));
    assert_eq!(extra(&child), extra(&of_narrow));
    for client in [&narrow, &of_narrow.http, &child.http, &of_narrow.sign_in().http] {
        client.get("/members").expect(200);
        client.post("/members", &body).problem(403, "DP_ERR_FORBIDDEN");
    }
    of_full.http.post("/members", &body).expect(201);
    // A rotation does not turn one into the other.
    let rotate = |caller: &Http, pat: &AccessToken| caller.post(&format!("{}/rotate", pat.path()), &json!({}));
    for client in [&narrow, &of_narrow.http] {
        rotate(client, &of_full).problem(403, "DP_ERR_FORBIDDEN");
    }
    rotate(&full, &of_narrow).problem(403, "DP_ERR_FORBIDDEN");
    let rotated = AccessToken::of(&narrow, &rotate(&narrow, &of_narrow).expect(200));
    assert_eq!(extra(&rotated), json!({SCOPES_EXTRA: ["user:info"]}));
    rotate(&full, &of_full).expect(200);
}

#[test]
fn user_token_without_stored_extra_is_refused() {
    let WebhookCluster { cluster, daypass, .. } = webhook_cluster();
    let alice = daypass.owner.with_token("opaque-full");
    let pat = AccessToken::requested(&alice, &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES}));
    pat.http.get("/tokens/self").expect(200);
    let mut object = cluster.stored(&pat).unwrap();
    object["spec"]["owner"].as_object_mut().unwrap().remove("extra").unwrap();
    object["metadata"] = json!({"name": pat.object(), "namespace": "daypass", "labels": object["metadata"]["labels"]});
    cluster.kubectl(&["delete", "accesstoken", pat.object(), "-n", "daypass"]);
    cluster.apply(&object.to_string());
    pat.http.assert_refused();
    assert_eq!(alice.get(&pat.path()).expect(200).json()["status"], "SUSPENDED");
    alice.post(&format!("{}/rotate", pat.path()), &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    alice.delete(&pat.path()).expect(204);
}

#[test]
fn valid_tokens_pass_during_flood_of_forged_tokens() {
    // Its own: the API server asks the webhooks about each forged token, and would be slow for other tests.
    let cluster = cluster_with_webhooks();
    let args = vec!["--max-refused-credentials=10".to_owned()];
    let daypass = Daypass::start(&cluster, &Launch { args, ..Launch::default() });
    // Daypass has not seen this token yet, so it has to queue.
    let opaque = daypass.owner.with_token("opaque-other");
    let signed = cluster.token("default", "owner", "daypass");
    let start = Instant::now();
    let (before, mut first, mut later) = (daypass.calls("create_token_review"), 0, 0);
    std::thread::scope(|scope| {
        let over = Arc::new(AtomicBool::new(false));
        for thread in 0..8 {
            let (over, signed, client) = (over.clone(), &signed, daypass.owner.clone());
            scope.spawn(move || {
                let mut n = 0;
                while !over.load(Ordering::Relaxed) {
                    n += 1;
                    // Only the signature is wrong; the claims name the audience.
                    let answer = client.with_token(&format!("{signed}{thread}x{n}")).get("/members");
                    assert!([401, 429, 503].contains(&answer.status), "{}", answer.text);
                }
            });
        }
        eventually("the address is over its limit", || {
            (daypass.owner.with_token("garbage").get("/members").status == 429).then_some(())
        });
        eventually("the unseen token gets through", || {
            first += 1;
            (opaque.get("/members").status == 200).then_some(())
        });
        while start.elapsed() < Duration::from_secs(5) {
            later += 1;
            assert_eq!(opaque.get("/members").status, 200, "a recently seen token does not queue");
        }
        over.store(true, Ordering::Relaxed);
    });
    let (reviews, seconds) = (daypass.calls("create_token_review") - before, start.elapsed().as_secs_f64());
    // Ten before the limit, eight in flight at that time, then 80 a second.
    let most = 18.0 + 80.0 * (seconds + 1.0) + f64::from(first + later);
    println!("{reviews} reviews in {seconds:.1} s, {first} tries to get through, {later} after that");
    assert!(reviews <= most, "{reviews} reviews in {seconds} s");
}
