//! Who may call which operation. The table covers every operation of the OpenAPI document.

use std::collections::BTreeSet;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};

use crate::support::tokens::AccessToken;
use crate::support::{Answer, Cluster, Daypass, Http, NewMember, Role, eventually};

/// The kind of client that an operation is for.
#[derive(Clone, Copy, PartialEq)]
enum For {
    Callers,
    Members,
    Both,
    /// Callers, for themselves and their access tokens. tests/it/tokens tests which right each needs.
    Tokens,
    /// Whoever can sign in.
    Sessions,
}

/// An operation, the client it is for, and the right that a caller needs.
struct Operation {
    id: &'static str,
    method: &'static str,
    path: &'static str,
    audience: For,
    right: (&'static str, &'static str),
}

const CREATE: (&str, &str) = ("create", "members");
const LIST: (&str, &str) = ("list", "members");
const GET: (&str, &str) = ("get", "members");
const UPDATE: (&str, &str) = ("update", "members");
const DELETE: (&str, &str) = ("delete", "members");
const RENEW: (&str, &str) = ("create", "members/credentials");
const REVOKE: (&str, &str) = ("delete", "members/kubeconfigs");
const NONE: (&str, &str) = ("", "");

const RIGHTS: [(&str, &str); 7] = [CREATE, LIST, GET, UPDATE, DELETE, RENEW, REVOKE];

const fn op(
    id: &'static str,
    method: &'static str,
    path: &'static str,
    audience: For,
    right: (&'static str, &'static str),
) -> Operation {
    Operation { id, method, path, audience, right }
}

/// Ordered so that all of them can be called on one member.
const OPERATIONS: [Operation; 22] = [
    op("get_self", "GET", "/self", For::Tokens, NONE),
    op("list_tokens", "GET", "/tokens", For::Tokens, NONE),
    op("create_token", "POST", "/tokens", For::Tokens, NONE),
    op("get_token", "GET", "/tokens/{id}", For::Tokens, NONE),
    op("update_token", "PATCH", "/tokens/{id}", For::Tokens, NONE),
    op("rotate_token", "POST", "/tokens/{id}/rotate", For::Tokens, NONE),
    op("delete_token", "DELETE", "/tokens/{id}", For::Tokens, NONE),
    op("create_session", "POST", "/sessions", For::Sessions, NONE),
    op("delete_session", "DELETE", "/sessions/current", For::Sessions, NONE),
    op("delete_sessions", "DELETE", "/sessions", For::Sessions, NONE),
    op("list_members", "GET", "/members", For::Callers, LIST),
    op("create_member", "POST", "/members", For::Callers, CREATE),
    op("list_roles", "GET", "/members/roles", For::Callers, CREATE),
    op("get_member", "GET", "/members/{id}", For::Callers, GET),
    op("update_member", "PATCH", "/members/{id}", For::Callers, UPDATE),
    op("list_kubeconfigs", "GET", "/members/{id}/kubeconfigs", For::Both, GET),
    op("delete_kubeconfig", "DELETE", "/members/{id}/kubeconfigs/{jti}", For::Both, REVOKE),
    op("create_credentials", "POST", "/members/{id}/credentials", For::Callers, RENEW),
    op("get_kubeconfig", "GET", "/members/{id}/kubeconfig", For::Members, NONE),
    op("get_me", "GET", "/members/{id}/me", For::Members, NONE),
    op("delete_me", "DELETE", "/members/{id}/me", For::Members, NONE),
    op("delete_member", "DELETE", "/members/{id}", For::Callers, DELETE),
];

impl Operation {
    /// Calls the operation with a valid body.
    fn call(&self, client: &Http, id: &str, jti: &str, role: &str) -> Answer {
        Answer::of(self.request(client, id, jti, role))
    }

    fn request(&self, client: &Http, id: &str, jti: &str, role: &str) -> reqwest::blocking::RequestBuilder {
        let request = client.request(self.method, &self.path.replace("{id}", id).replace("{jti}", jti));
        match self.id {
            "create_member" => request.json(&json!({"duration": "1", "roleId": role})),
            "update_member" => request.json(&json!({"duration": "2"})),
            "create_token" => request.json(&json!({"name": "x", "expiresInDays": 1, "scopes": ["members:read"]})),
            "update_token" => request.json(&json!({"name": "y"})),
            _ => request,
        }
    }

    /// The status for a client that may call it.
    fn success(&self) -> u16 {
        match (self.method, self.id) {
            ("DELETE", _) => 204,
            ("POST", _) => 201,
            _ => 200,
        }
    }

    /// The `WWW-Authenticate` header for other clients.
    fn challenge(&self) -> &'static str {
        if self.audience == For::Members { "Basic realm=" } else { "Bearer realm=" }
    }
}

/// The operations for callers on members.
fn for_callers() -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().filter(|op| matches!(op.audience, For::Callers | For::Both))
}

/// The operations for members.
fn for_engineers() -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().filter(|op| matches!(op.audience, For::Members | For::Both))
}

#[track_caller]
fn assert_refused(op: &Operation, answer: &Answer, code: &str) {
    assert_eq!(answer.status, 401, "{}: {}", op.id, answer.text);
    answer.problem(401, code);
    assert!(answer.header("www-authenticate").starts_with(op.challenge()), "{}: {answer:?}", op.id);
}

#[test]
fn authorization_table_covers_every_operation() {
    let (_, daypass) = Cluster::shared();
    let document = daypass.owner.anonymous().get(&format!("{}/openapi.json", daypass.url)).expect(200).json();
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let audience: BTreeSet<&str> = operation["security"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|scheme| scheme.as_object().unwrap().keys().map(String::as_str))
                .collect();
            let id = operation["operationId"].as_str().unwrap().to_owned();
            documented.insert((id, method.to_uppercase(), path.clone(), audience));
        }
    }
    let audience = |op: &Operation| match op.audience {
        For::Callers | For::Tokens => ["kubernetesToken", "idToken", "accessToken", "accessTokenBasic"].into(),
        For::Members => ["memberCredential"].into(),
        For::Both | For::Sessions => {
            ["kubernetesToken", "idToken", "accessToken", "accessTokenBasic", "memberCredential"].into()
        }
    };
    let tested = OPERATIONS.iter().map(|op| (op.id.into(), op.method.into(), op.path.into(), audience(op))).collect();
    assert_eq!(documented, tested, "left: the document, right: the authorization test");
}

#[test]
fn operations_refuse_credentials_of_the_wrong_kind() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let (member, other) = (NewMember::new(&daypass.owner, &role, 1), NewMember::new(&daypass.owner, &role, 1));
    let kubeconfig = member.kubeconfig(cluster);
    let owner = &daypass.owner;

    let malformed = ["Bearer", "Digest abc", "Basic ???", "nonsense"];
    let for_the_api_server = cluster.token("default", "owner", "");
    // The API server issues no such token for a member's account, so the test signs one.
    let of_an_account = cluster.resign(&kubeconfig.token, |claims| claims["aud"] = json!(["daypass"]));
    let account = format!("system:serviceaccount:{}:{}", role.namespace, member.name());
    assert_eq!(cluster.token_review(&of_an_account, "daypass"), Some(account), "the API server vouches for it");
    let unsigned = format!("{}x", cluster.token("default", "owner", "daypass"));
    let typo = member.password.replace("dpm_", "dpm-");
    let refused_by_all = [
        ("garbage", owner.with_token("garbage")),
        ("a broken signature", owner.with_token(&unsigned)),
        ("another audience", owner.with_token(&for_the_api_server)),
        ("a direct kubeconfig's token", owner.with_token(&kubeconfig.token)),
        ("a role's service account", owner.with_token(&of_an_account)),
        ("another member's, under the name of this one", owner.with_basic(&member.id, &other.password)),
        ("the member's, under another name", owner.with_basic(&other.id, &member.password)),
        ("a wrong password", owner.with_basic(&member.id, &typo)),
        ("an owner's token as a password", owner.with_basic("owner", &cluster.token("default", "owner", "daypass"))),
    ];
    let refused_by_callers = [
        ("the member's", member.engineer.clone()),
        ("as a token", owner.with_token(&member.password)),
        ("the member's session", AccessToken::session_of(&member.engineer).http),
    ];
    let refused_by_members = [("the owner's", owner.clone()), ("its session", AccessToken::session_of(owner).http)];
    let refused_at_a_member = [
        ("another member's", owner.with_basic(&other.id, &other.password)),
        ("another member's, as a token", owner.with_token(&other.password)),
        ("another member's session", AccessToken::session_of(&other.engineer).http),
    ];

    for op in &OPERATIONS {
        let call = |client: &Http| op.call(client, &member.id, kubeconfig.jti(), &role.id);
        assert_refused(op, &call(&owner.anonymous()), "DP_ERR_NO_CREDENTIALS");
        for header in malformed {
            let request = op.request(&owner.anonymous(), &member.id, kubeconfig.jti(), &role.id);
            let answer = Answer::of(request.header(AUTHORIZATION, HeaderValue::from_str(header).unwrap()));
            assert_refused(op, &answer, "DP_ERR_MALFORMED_AUTHORIZATION");
        }
        let mut refused: Vec<&(&str, Http)> = refused_by_all.iter().collect();
        match op.audience {
            For::Callers | For::Tokens => refused.extend(refused_by_callers.iter().chain(&refused_at_a_member)),
            For::Members => refused.extend(refused_by_members.iter().chain(&refused_at_a_member)),
            For::Both => refused.extend(&refused_at_a_member),
            For::Sessions => {}
        }
        for (what, client) in refused {
            let answer = call(client);
            // A refused member credential gets a challenge for a member credential.
            let challenge = answer.header("www-authenticate");
            assert!(challenge.starts_with("Basic ") || challenge.starts_with("Bearer "), "{} with {what}", op.id);
            assert_eq!(answer.status, 401, "{} with {what}: {}", op.id, answer.text);
            answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
    }
    assert_eq!(member.listed(owner), [kubeconfig.jti()], "nothing has changed");
    assert_eq!(owner.get(&member.path("")).expect(200).json()["durationSeconds"], 3600);
    assert_eq!(cluster.names(&role.namespace, "members.daypass.dev").len(), 2);
    member.engineer.get(&member.path("/me")).expect(200);
}

#[test]
fn caller_without_rights_is_forbidden_every_operation() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let nobody = cluster.caller(daypass, &[], &[], None);
    for op in for_callers() {
        for (id, role) in [(&*member.id, &*role.id), ("nowhere.nobody", "nowhere"), ("Not-an-id", "Not an id")] {
            let answer = op.call(&nobody, id, "x", role);
            assert_eq!(answer.status, 403, "{} {id}: {}", op.id, answer.text);
            answer.problem(403, "DP_ERR_FORBIDDEN");
        }
    }
    daypass.owner.get(&member.path("")).expect(200);
}

#[test]
fn member_of_another_role_is_not_found() {
    let (cluster, daypass) = Cluster::shared();
    let (own, foreign) = (cluster.reader(), cluster.reader());
    let verbs = ["create", "list", "get", "update", "delete"];
    let caller =
        cluster.caller(daypass, &verbs, &["members", "members/credentials", "members/kubeconfigs"], Some(&own));
    let mine = NewMember::new(&caller, &own, 1);
    let theirs = NewMember::new(&daypass.owner, &foreign, 1);
    let jti = theirs.kubeconfig(cluster).jti().to_owned();

    for op in for_callers().filter(|op| op.path.contains("{id}")) {
        let answer = op.call(&caller, &theirs.id, &jti, &foreign.id);
        assert_eq!(answer.status, 404, "{}: {}", op.id, answer.text);
        answer.problem(404, "DP_ERR_NOT_FOUND");
        // Apart from the path, the answer equals that for an id that does not exist.
        let nobody = format!("{}.nobody", own.id);
        let missing = op.call(&caller, &nobody, &jti, &own.id);
        let path = |answer: &Answer, id: &str| answer.json()["instance"].as_str().unwrap().replace(id, "-");
        assert_eq!(path(&answer, &theirs.id), path(&missing, &nobody));
        let text = |answer: &Answer| ["code", "title", "detail"].map(|field| answer.json()[field].clone());
        assert_eq!(text(&answer), text(&missing), "{}", op.id);
    }

    let give = |role: &str| caller.post("/members", &json!({"duration": "1", "roleId": role}));
    let refused = give(&foreign.id);
    refused.assert_invalid_field("roleId");
    for unknown in ["nowhere", "only-labelled", "only-named", "", "No role's id", "a.b", &"a".repeat(56)] {
        assert_eq!(refused.comparable(), give(unknown).comparable(), "{unknown}");
    }

    let ids = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&caller.get("/members/roles").expect(200).json()), std::slice::from_ref(&own.id));
    let all = caller.get("/members").expect(200).json();
    assert_eq!((ids(&all), &all["total"]), (vec![mine.id.clone()], &json!(1)));
    let of_theirs = caller.get(&format!("/members?roleId={}", foreign.id)).expect(200).json();
    assert_eq!((ids(&of_theirs), &of_theirs["total"]), (vec![], &json!(0)));

    assert_eq!(theirs.listed(&daypass.owner), [jti], "nothing has changed");
    assert_eq!(cluster.names(&foreign.namespace, "members.daypass.dev"), [theirs.name()]);
}

/// Checks that a caller with exactly one right may call exactly the table's operations; with one in all roles, by its
/// session.
fn assert_grants_exactly(cluster: &Cluster, daypass: &Daypass, role: &Role, right: (&str, &str), everywhere: bool) {
    let caller = cluster.caller(daypass, &[right.0], &[right.1], (!everywhere).then_some(role));
    let caller = if everywhere { AccessToken::session_of(&caller).http } else { caller };
    let member = NewMember::new(&daypass.owner, role, 1);
    let jti = member.kubeconfig(cluster).jti().to_owned();
    for op in for_callers() {
        let answer = op.call(&caller, &member.id, &jti, &role.id);
        if op.right == right {
            assert_eq!(answer.status, op.success(), "{right:?} grants {}: {}", op.id, answer.text);
        } else {
            assert_eq!(answer.status, 403, "{right:?} does not grant {}: {}", op.id, answer.text);
        }
    }
}

#[test]
fn right_in_one_role_allows_exactly_its_operations() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    RIGHTS.into_iter().for_each(|right| assert_grants_exactly(cluster, daypass, &role, right, false));
}

#[test]
fn right_in_all_roles_allows_exactly_its_operations() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    RIGHTS.into_iter().for_each(|right| assert_grants_exactly(cluster, daypass, &role, right, true));
}

#[test]
fn member_credential_reaches_only_its_own_member() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let (one, two) = (NewMember::new(&daypass.owner, &role, 1), NewMember::new(&daypass.owner, &role, 1));
    let jti = two.kubeconfig(cluster).jti().to_owned();
    let session = AccessToken::session_of(&one.engineer).http;
    for op in for_engineers() {
        for client in [&one.engineer, &daypass.owner.with_token(&one.password), &session] {
            op.call(client, &two.id, &jti, &role.id).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
    }
    assert_eq!(two.listed(&two.engineer), [jti]);
    for op in for_engineers().filter(|op| op.id != "delete_kubeconfig") {
        let answer = op.call(&one.engineer, &one.id, "", &role.id);
        assert_eq!(answer.status, op.success(), "{}: {}", op.id, answer.text);
        let session = AccessToken::session_of(&two.engineer).http;
        let answer = op.call(&session, &two.id, "", &role.id);
        assert_eq!(answer.status, op.success(), "{}: {}", op.id, answer.text);
    }
}

#[test]
fn same_name_in_two_roles_is_two_members() {
    let (cluster, daypass) = Cluster::shared();
    let (first_role, second_role) = (cluster.reader(), cluster.reader());
    let spec = json!({"duration": "1h"});
    let first = NewMember::applied(cluster, daypass, &first_role, "twin", &spec);
    let second = NewMember::applied(cluster, daypass, &second_role, "twin", &spec);
    first.engineer.get(&second.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    // A credential names its member, so Daypass need not compare hashes.
    daypass
        .owner
        .with_basic(&second.id, &first.password)
        .get(&second.path("/me"))
        .problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let kubeconfig = second.kubeconfig(cluster);

    daypass.owner.delete(&first.path("")).expect(204);
    daypass.owner.get(&first.path("")).problem(404, "DP_ERR_NOT_FOUND");
    first.engineer.get(&first.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert_eq!(cluster.names(&first_role.namespace, "serviceaccounts"), [""; 0]);

    second.engineer.get(&second.path("/me")).expect(200);
    assert!(kubeconfig.is_accepted(cluster));
    assert_eq!(cluster.names(&second_role.namespace, "serviceaccounts"), ["twin"]);
}

#[test]
fn namespace_needs_both_name_and_label_to_be_a_role() {
    let (cluster, daypass) = Cluster::shared();
    for namespace in ["daypass-only-named", "only-labelled"] {
        cluster.kubectl(&["get", "namespace", namespace]);
    }
    let roles = daypass.owner.get("/members/roles").expect(200).json();
    let listed: Vec<&str> =
        roles["items"].as_array().unwrap().iter().map(|role| role["id"].as_str().unwrap()).collect();
    assert!(listed.contains(&"projects-view") && !listed.iter().any(|id| id.starts_with("only-")), "{listed:?}");
    for role in ["only-named", "only-labelled"] {
        daypass.owner.post("/members", &json!({"duration": "1", "roleId": role})).assert_invalid_field("roleId");
        daypass.owner.get(&format!("/members/{role}.a")).problem(404, "DP_ERR_NOT_FOUND");
    }
    eventually("both are counted", || (daypass.metric("daypass_namespaces_ignored") == 2.0).then_some(()));
}

#[test]
fn refusal_is_audited_with_its_request_id() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let nobody = cluster.caller(daypass, &[], &[], None);
    let denied = [nobody.get("/members"), nobody.delete(&member.path("")), nobody.get("/members/roles")];
    let refused = [
        (daypass.owner.with_token("garbage").get("/members"), "DP_ERR_CREDENTIAL_REFUSED"),
        (daypass.owner.with_basic(&member.id, "wrong").get(&member.path("/kubeconfig")), "DP_ERR_CREDENTIAL_REFUSED"),
        (
            Answer::of(daypass.owner.anonymous().request("GET", "/members").header(AUTHORIZATION, "x")),
            "DP_ERR_MALFORMED_AUTHORIZATION",
        ),
    ];
    let asked = daypass.owner.anonymous().get(&member.path("/kubeconfig"));

    let events = daypass.audit_events();
    let of = |answer: &Answer| -> Vec<&Value> {
        events.iter().filter(|event| event["requestId"] == answer.header("x-request-id")).collect()
    };
    for answer in &denied {
        let [event] = of(answer)[..] else { panic!("{:?}", of(answer)) };
        assert_eq!((&event["event"], &event["reason"]), (&json!("DENIED"), &json!("DP_ERR_FORBIDDEN")));
        assert_eq!(event["actor"]["type"], "CALLER");
        assert!(event["actor"]["username"].as_str().unwrap().starts_with("system:serviceaccount:default:caller"));
        assert_eq!(event["sourceAddress"], "127.0.0.1");
    }
    for (answer, code) in &refused {
        let [event] = of(answer)[..] else { panic!("{:?}", of(answer)) };
        assert_eq!((&event["event"], &event["reason"]), (&json!("AUTH_FAILED"), &json!(code)));
        assert_eq!((&event["actor"], &event["sourceAddress"]), (&json!({"type": "ANONYMOUS"}), &json!("127.0.0.1")));
    }
    assert_eq!(of(&asked), [&Value::Null; 0], "a browser asks without credentials first");
}
