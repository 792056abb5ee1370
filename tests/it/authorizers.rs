//! A cluster with an authenticator and an authorizer of its own: what they say of one namespace, or of one token,
//! holds at Daypass too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::tokens::{Pat, SCOPES};
use crate::support::{Created, Daypass, Http, Lab, Launch, Role, Webhooks, eventually};

/// OpenShift's, of an OAuth token that may not do all that its user may.
const SCOPES_EXTRA: &str = "scopes.authorization.openshift.io";

/// Where `staff` may do everything, and who may.
struct Site {
    lab: Lab,
    daypass: Daypass,
    open: Role,
    closed: Role,
}

/// Opaque tokens: a user's, and the same user's with fewer rights.
fn user_of(token: &str) -> Option<Value> {
    let extra = match token {
        "opaque-full" | "opaque-other" => json!({"authentication.kubernetes.io/credential-id": ["X509SHA256=1"]}),
        "opaque-narrow" => json!({SCOPES_EXTRA: ["user:info"], "authentication.kubernetes.io/pod-name": ["p"]}),
        _ => return None,
    };
    Some(json!({"username": "alice", "uid": "1", "groups": ["staff"], "extra": extra}))
}

/// Nobody may do anything in closed namespaces, nor create members with a narrow token.
fn denies(spec: &Value) -> bool {
    let asked = &spec["resourceAttributes"];
    let is_narrow = spec["extra"][SCOPES_EXTRA].is_array();
    let is_closed = asked["namespace"].as_str().is_some_and(|name| name.ends_with("-closed"));
    spec["user"] == "alice"
        && asked["group"] == "daypass.dev"
        && (is_closed || (is_narrow && asked["verb"] == "create"))
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        // Without walls, so that a token can be written as an earlier version did.
        let lab = Lab::without_walls();
        Webhooks { user_of, denies }.start(&lab);
        let open = lab.reader();
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        let reader = json!({"description": "A test's", "rules": rules});
        lab.apply(&lab.render_role("closed-by-closed", &reader));
        let closed = lab.wait_role("closed-by-closed");
        let (verbs, resources) = ("--verb=create,get,list,update,delete", "--resource=members.daypass.dev");
        lab.kubectl(&["create", "clusterrole", "staff", verbs, resources]);
        lab.kubectl(&["create", "clusterrolebinding", "staff", "--clusterrole=staff", "--group=staff"]);
        let tokens = [
            "create",
            "rolebinding",
            "staff",
            "-n",
            "daypass",
            "--clusterrole=daypass-tokens-generate",
            "--group=staff",
        ];
        lab.kubectl(&tokens);
        let args = vec!["--user-tokens".to_owned()];
        let daypass = Daypass::start(&lab, &Launch { args, ..Launch::default() });
        let alice = daypass.owner.with_token("opaque-full");
        eventually("alice has her rights", || {
            let made = alice.post("/tokens", &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES})).status;
            (made == 201 && alice.get("/members").status == 200).then_some(())
        });
        Site { lab, daypass, open, closed }
    })
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[test]
fn role_that_an_authorizer_denies_is_out_of_reach_for_who_is_allowed_everywhere() {
    let Site { lab, daypass, open, closed } = site();
    let alice = daypass.owner.with_token("opaque-full");
    let attributes = json!({"group": "daypass.dev", "resource": "members", "verb": "create"});
    let spec = json!({"user": "alice", "groups": ["staff"], "resourceAttributes": attributes});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    let file = lab.save(&review.to_string());
    let allowed = lab.kubectl(&["create", "-o", "jsonpath={.status.allowed}", "-f", file.to_str().unwrap()]);
    assert_eq!(allowed, "true", "asked about all namespaces");

    let mine = Created::new(&alice, open, 1);
    lab.apply_member(closed, "theirs", &json!({"duration": "1h"}));
    let theirs = format!("/members/{}.theirs", closed.id);
    alice.post("/members", &json!({"duration": "1", "roleId": closed.id})).refused_field("roleId");
    for answer in [alice.get(&theirs), alice.delete(&theirs), alice.patch(&theirs, &json!({"duration": "2"}))] {
        answer.problem(404, "DP_ERR_NOT_FOUND");
    }
    let (members, roles) = (alice.get("/members").expect(200).json(), alice.get("/members/roles").expect(200).json());
    assert!(ids(&members).contains(&mine.id.as_str()) && !ids(&members).iter().any(|id| id.ends_with(".theirs")));
    assert!(ids(&roles).contains(&open.id.as_str()) && !ids(&roles).contains(&closed.id.as_str()));
    let of_theirs = alice.get(&format!("/members?roleId={}", closed.id)).expect(200).json();
    assert_eq!(ids(&of_theirs), [""; 0]);
    assert_eq!(lab.names(&closed.namespace, "members.daypass.dev"), ["theirs"], "nothing was done");
    alice.get(&mine.path("")).expect(200);
}

#[test]
fn access_token_of_a_narrowed_identity_is_as_narrow() {
    let Site { lab, daypass, open, .. } = site();
    let [full, narrow] = ["opaque-full", "opaque-narrow"].map(|token| daypass.owner.with_token(token));
    let for_a_day = |caller: &Http| Pat::asked(caller, &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES}));
    let (of_full, of_narrow) = (for_a_day(&full), for_a_day(&narrow));
    let extra = |pat: &Pat| lab.stored(pat).unwrap()["spec"]["owner"]["extra"].clone();
    assert_eq!(extra(&of_full), json!({}), "what is of one credential is not kept");
    assert_eq!(extra(&of_narrow), json!({SCOPES_EXTRA: ["user:info"]}));

    let body = json!({"duration": "1", "roleId": open.id});
    let end = &of_narrow.body["expiresAt"];
    let child = Pat::asked(&of_narrow.http, &json!({"name": "n", "expiresAt": end, "scopes": SCOPES}));
    assert_eq!(extra(&child), extra(&of_narrow));
    for client in [&narrow, &of_narrow.http, &child.http, &of_narrow.sign_in().http] {
        client.get("/members").expect(200);
        client.post("/members", &body).problem(403, "DP_ERR_FORBIDDEN");
    }
    of_full.http.post("/members", &body).expect(201);
    // Nor does it get at the other by a rotation.
    let rotate = |caller: &Http, pat: &Pat| caller.post(&format!("{}/rotate", pat.path()), &json!({}));
    for client in [&narrow, &of_narrow.http] {
        rotate(client, &of_full).problem(403, "DP_ERR_FORBIDDEN");
    }
    rotate(&full, &of_narrow).problem(403, "DP_ERR_FORBIDDEN");
    let rotated = Pat::of(&narrow, &rotate(&narrow, &of_narrow).expect(200));
    assert_eq!(extra(&rotated), json!({SCOPES_EXTRA: ["user:info"]}));
    rotate(&full, &of_full).expect(200);
}

#[test]
fn users_token_from_before_attributes_were_kept_is_refused() {
    let Site { lab, daypass, .. } = site();
    let alice = daypass.owner.with_token("opaque-full");
    let pat = Pat::asked(&alice, &json!({"name": "n", "expiresInDays": 1, "scopes": SCOPES}));
    pat.http.get("/tokens/self").expect(200);
    let mut object = lab.stored(&pat).unwrap();
    object["spec"]["owner"].as_object_mut().unwrap().remove("extra").unwrap();
    object["metadata"] = json!({"name": pat.object(), "namespace": "daypass", "labels": object["metadata"]["labels"]});
    lab.kubectl(&["delete", "accesstoken", pat.object(), "-n", "daypass"]);
    lab.apply(&object.to_string());
    pat.http.assert_refused();
    assert_eq!(alice.get(&pat.path()).expect(200).json()["status"], "SUSPENDED");
    alice.post(&format!("{}/rotate", pat.path()), &json!({})).problem(403, "DP_ERR_FORBIDDEN");
    alice.delete(&pat.path()).expect(204);
}

#[test]
fn flood_of_forged_tokens_is_checked_slowly_and_right_ones_get_through() {
    let Site { lab, .. } = site();
    let args = vec!["--max-refused-credentials=10".to_owned()];
    let daypass = Daypass::start(lab, &Launch { args, ..Launch::default() });
    // One that has not been seen yet must queue.
    let opaque = daypass.owner.with_token("opaque-other");
    let signed = lab.token("default", "owner", "daypass");
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
                    // Its claims name the audience; only its signature is wrong.
                    let answer = client.with_token(&format!("{signed}{thread}x{n}")).get("/members");
                    assert!([401, 429, 503].contains(&answer.status), "{}", answer.text);
                }
            });
        }
        eventually("the address floods", || {
            (daypass.owner.with_token("garbage").get("/members").status == 429).then_some(())
        });
        eventually("the one that has not been seen gets through", || {
            first += 1;
            (opaque.get("/members").status == 200).then_some(())
        });
        while start.elapsed() < Duration::from_secs(5) {
            later += 1;
            assert_eq!(opaque.get("/members").status, 200, "seen lately, it does not queue");
        }
        over.store(true, Ordering::Relaxed);
    });
    let (reviews, seconds) = (daypass.calls("create_token_review") - before, start.elapsed().as_secs_f64());
    // Ten before it is a flood, eight under way then, and 80 a second.
    let most = 18.0 + 80.0 * (seconds + 1.0) + f64::from(first + later);
    println!("{reviews} reviews in {seconds:.1} s, {first} tries to get through, {later} after that");
    assert!(reviews <= most, "{reviews} reviews in {seconds} s");
}
