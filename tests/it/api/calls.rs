//! How many calls to the API server each operation makes, compared with `calls.txt`.
//!
//! `make calls` rewrites that file. Review the difference: a call that creeps in shows there.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::time::{Duration, Instant};

use daypass_local::{Component, RELEASE, Shutdown};
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{
    Answer, Call, Cluster, Daypass, Http, Launch, NewMember, OpenIdProvider, Role, eventually, oidc_args, wait_until,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/api/calls.txt");

/// Explains the table, in its file.
const HEAD: &str = "\
# The calls to the API server that each operation makes, from the API server's audit log: their number, then the verb
# and resource of each, and its status if it failed. Concurrent calls may come in another order.
#
# `make calls` rewrites this file. The cluster has 6 roles; a controller runs for the expiry only. What is cached:
# - Daypass reads the issuer of the API server's tokens at most once a second. It has a row of its own and is left out
#   of the others.
# - GET /members/roles checks the walls unless the last check is less than 30 s old.
# - The use of an access token is recorded at most once in ten minutes.
# - A denial is remembered for 10 s.
# - The API server is asked once about each ID token, until that ends.
";

/// The call for the issuer, which is cached for a time that tests cannot control.
const ISSUER: &str = "get /.well-known/openid-configuration";

/// How long Daypass uses the last check of the walls.
const WALLS_AGE: Duration = Duration::from_secs(30);
/// How long Daypass remembers a denial.
const DENIAL_AGE: Duration = Duration::from_secs(10);

struct Table<'a> {
    cluster: &'a Cluster,
    text: String,
    /// The operations in it, as method and path.
    operations: BTreeSet<String>,
}

impl<'a> Table<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, text: HEAD.to_owned(), operations: BTreeSet::new() }
    }

    /// Adds the calls of a request. Its name begins with method and path.
    #[track_caller]
    fn request(&mut self, name: &str, answer: Answer, status: u16) -> Answer {
        let answer = answer.expect(status);
        self.operations.insert(name.split([',', '?']).next().unwrap().to_owned());
        self.row(name, &self.cluster.calls_of(&answer));
        answer
    }

    fn row(&mut self, name: &str, calls: &[Call]) {
        let labels: Vec<String> = calls.iter().map(Call::label).filter(|label| label != ISSUER).collect();
        self.lines(name, &labels);
    }

    fn lines(&mut self, name: &str, labels: &[String]) {
        let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
        labels.iter().for_each(|label| *counts.entry(label).or_default() += 1);
        self.text += &format!("\n{name}: {}\n", labels.len());
        for label in labels {
            match counts.remove(label) {
                Some(1) => self.text += &format!("    {label}\n"),
                Some(count) => self.text += &format!("    {count} × {label}\n"),
                None => {}
            }
        }
    }

    /// Compares the table with the file, or rewrites the file.
    fn check(&self, documented: &BTreeSet<String>) {
        assert_eq!(&self.operations, documented, "the operations of the OpenAPI document");
        if env::var_os("DAYPASS_WRITE_CALLS").is_some() {
            return fs::write(FILE, &self.text).unwrap();
        }
        let checked_in = fs::read_to_string(FILE).unwrap_or_default();
        let is_same = comparable(&self.text) == comparable(&checked_in);
        assert!(is_same, "tests/it/api/calls.txt differs; `make calls` rewrites it:\n{}", self.text);
    }
}

/// The rows of a table, each with its lines in a fixed order.
fn comparable(table: &str) -> Vec<Vec<&str>> {
    let rows = table.split("\n\n").map(|row| row.trim().lines().collect());
    rows.map(|mut lines: Vec<&str>| {
        lines.sort_unstable();
        lines
    })
    .collect()
}

/// The operations of the OpenAPI document.
fn documented(daypass: &Daypass) -> BTreeSet<String> {
    let document = daypass.owner.get(&format!("{}/openapi.json", daypass.url)).expect(200).json();
    let paths = document["paths"].as_object().unwrap().iter();
    let of_path = |(path, methods): (&String, &Value)| -> Vec<String> {
        methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())).collect()
    };
    paths.flat_map(of_path).collect()
}

#[test]
fn each_operation_makes_the_calls_in_the_table() {
    // The chart's roles and two more.
    let cluster = Cluster::own();
    cluster.expect_refusals();
    let (role, other) = (cluster.reader(), cluster.reader());
    // A controller would end what a request is just ending.
    let rules = cluster.keep_from_leading();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    // Afterwards, no creation waits for a new role's quota.
    let [_, member] = [&role, &other].map(|role| {
        let asked = json!({"duration": 1, "roleId": role.id});
        let created = eventually("the quota is counted", || {
            Some(daypass.owner.post("/members", &asked)).filter(|answer| answer.status == 201)
        });
        NewMember::created(&daypass.owner, &created)
    });
    let nobodies = [(); 5].map(|()| cluster.caller(&daypass, &[], &[], None));
    // So would Kubernetes' garbage collector.
    cluster.plane.stop_component(Component::ControllerManager, Shutdown::Graceful).unwrap();

    let mut table = Table::new(&cluster);
    let pat = of_tokens(&mut table, &daypass);
    of_members(&mut table, &daypass, &role, &pat);
    of_refusals(&mut table, &daypass, &nobodies);
    of_people(&mut table, &role);
    of_last_token_operations(&mut table, &daypass, &pat);
    table.lines("the issuer, at most once a second", &[ISSUER.to_owned()]);

    let documented = documented(&daypass);
    member.kubeconfig(&cluster);
    member.kubeconfig(&cluster);
    daypass.stop();
    cluster.let_lead(&rules);
    of_expiry(&mut table, &other, &member);
    table.check(&documented);
}

/// Returns an access token with all scopes whose use is recorded.
fn of_tokens(table: &mut Table<'_>, daypass: &Daypass) -> AccessToken {
    let owner = &daypass.owner;
    let asked = json!({"name": "a test's", "expiresInDays": 30, "scopes": SCOPES});
    let pat = AccessToken::of(owner, &table.request("POST /tokens", owner.post("/tokens", &asked), 201));
    let mut for_other = asked.clone();
    for_other["owner"] = json!("system:serviceaccount:default:default");
    table.request("POST /tokens, for another owner", owner.post("/tokens", &for_other), 201);
    let path = pat.path();
    table.request("GET /tokens/{id}, access token, its use is recorded", pat.http.get("/tokens/self"), 200);
    table.request("GET /tokens/{id}, access token", pat.http.get("/tokens/self"), 200);
    table.request("GET /tokens/{id}", owner.get(&path), 200);
    table.request("GET /tokens", owner.get("/tokens"), 200);
    table.request("GET /tokens?owner=*", owner.get("/tokens?owner=*"), 200);
    table.request("PATCH /tokens/{id}", owner.patch(&path, &json!({"name": "another"})), 200);
    table.request("GET /self", owner.get("/self"), 200);
    table.request("GET /self, access token", pat.http.get("/self"), 200);
    pat
}

/// The calls for an ID token, beside those of the operation. None goes to the issuer: its keys are known.
fn of_people(table: &mut Table<'_>, role: &Role) {
    let provider = OpenIdProvider::start();
    let args = oidc_args(table.cluster, &[provider.settings(&json!({}))]);
    let mut daypass = Daypass::start(table.cluster, &Launch { args, ..Launch::default() });
    // With both privileges, whose lack would be remembered.
    for right in ["generate", "manage"] {
        let (name, role) = (format!("platform-{right}"), format!("--clusterrole=daypass-tokens-{right}"));
        let binding = ["create", "rolebinding", &name, "-n", RELEASE, &role, "--group=corp:platform"];
        table.cluster.kubectl(&binding);
    }
    let first = daypass.owner.with_token(&provider.token(&json!({"jti": "first"})));
    eventually("the group has its rights", || {
        let rights = first.get("/self").expect(200).json()["privileges"].take();
        rights.as_object().unwrap().values().all(|right| *right == json!(true)).then_some(())
    });
    let (person, asked) = (daypass.owner.with_token(&provider.token(&json!({}))), provider.key_requests());
    table.request("GET /self, an ID token that is new to the replica", person.get("/self"), 200);
    table.request("GET /self, ID token", person.get("/self"), 200);
    let of_role = person.get(&format!("/self?roleId={}", role.id));
    table.request("GET /self?roleId, ID token", of_role, 200);
    assert_eq!(provider.key_requests(), asked);
    daypass.stop();
}

/// Ends the sessions and tokens.
fn of_last_token_operations(table: &mut Table<'_>, daypass: &Daypass, pat: &AccessToken) {
    let answer = table.request("POST /sessions, access token", pat.http.post("/sessions", &json!({})), 201);
    let session = pat.http.with_token(answer.json()["token"].as_str().unwrap());
    table.request("GET /members, session", session.get("/members"), 200);
    table.request("DELETE /sessions/current", session.delete("/sessions/current"), 204);
    let answer = daypass.owner.post("/sessions", &json!({}));
    let answer = table.request("POST /sessions, Kubernetes token", answer, 201);
    let session = daypass.owner.with_token(answer.json()["token"].as_str().unwrap());
    let by_session = session.get("/self");
    table.request("GET /self, session of a Kubernetes token", by_session, 200);
    table.request("DELETE /sessions, 1 session of a Kubernetes token", session.delete("/sessions"), 204);
    let path = pat.path();
    let rotate = format!("{path}/rotate");
    table.request("POST /tokens/{id}/rotate", daypass.owner.post(&rotate, &json!({})), 200);
    table.request("DELETE /tokens/{id}", daypass.owner.delete(&path), 204);
}

fn of_members(table: &mut Table<'_>, daypass: &Daypass, role: &Role, pat: &AccessToken) {
    let (cluster, owner) = (table.cluster, &daypass.owner);
    let asked = json!({"duration": 1, "roleId": role.id});
    let keyed = || Answer::of(owner.request("POST", "/members").header("Idempotency-Key", "key").json(&asked));
    let member = NewMember::created(owner, &table.request("POST /members", owner.post("/members", &asked), 201));
    let brief = table.request("POST /members, access token", pat.http.post("/members", &asked), 201);
    table.request("POST /members, Idempotency-Key", keyed(), 201);
    table.request("POST /members, a repeat of the Idempotency-Key", keyed(), 409);
    table.request("GET /members/{id}", owner.get(&member.path("")), 200);
    table.request("GET /members/{id}, access token", pat.http.get(&member.path("")), 200);
    table.request("GET /members", owner.get("/members"), 200);
    table.request("GET /members?roleId", owner.get(&format!("/members?roleId={}", role.id)), 200);
    of_roles(table, owner);

    table.request("PATCH /members/{id}, longer", owner.patch(&member.path(""), &json!({"duration": 8})), 200);
    let kubeconfig = member.path("/kubeconfig");
    table.request("GET /members/{id}/kubeconfig", member.engineer.get(&kubeconfig), 200);
    member.kubeconfig(cluster);
    table.request("GET /members/{id}/kubeconfigs", owner.get(&member.path("/kubeconfigs")), 200);
    let by_member = member.engineer.get(&member.path("/kubeconfigs"));
    table.request("GET /members/{id}/kubeconfigs, by the member", by_member, 200);
    table.request("GET /members/{id}/me", member.engineer.get(&member.path("/me")), 200);
    let answer = member.engineer.post("/sessions", &json!({}));
    let session = table.request("POST /sessions, a member's credential", answer, 201).json();
    let session = owner.with_token(session["token"].as_str().unwrap());
    table.request("GET /members/{id}/me, session", session.get(&member.path("/me")), 200);
    let shorter = owner.patch(&member.path(""), &json!({"duration": 2}));
    table.request("PATCH /members/{id}, shorter, 2 kubeconfigs would outlive it", shorter, 200);

    member.kubeconfig(cluster);
    let revoked = member.kubeconfig(cluster);
    let path = member.path(&format!("/kubeconfigs/{}", revoked.jti()));
    table.request("DELETE /members/{id}/kubeconfigs/{jti}", owner.delete(&path), 204);
    member.kubeconfig(cluster);
    let renewed = owner.post(&member.path("/credentials"), &json!({}));
    let renewed = table.request("POST /members/{id}/credentials, 2 kubeconfigs", renewed, 201).json();
    table.request("GET /members/{id}/me, replaced credential", member.engineer.get(&member.path("/me")), 401);
    let engineer = owner.with_basic(&member.id, renewed["password"].as_str().unwrap());
    engineer.get(&kubeconfig).expect(200);
    engineer.get(&kubeconfig).expect(200);
    table.request("DELETE /members/{id}, 2 kubeconfigs", owner.delete(&member.path("")), 204);
    table.request("GET /members/{id}, ended", owner.get(&member.path("")), 404);
    let brief = NewMember::created(owner, &brief);
    let gateway = Daypass::with_args(cluster, &["--kubeconfig-mode=gateway"]);
    let downloaded = brief.at(&gateway).engineer.get(&brief.path("/kubeconfig"));
    table.request("GET /members/{id}/kubeconfig, gateway", downloaded, 200);
    let extended = owner.patch(&brief.path(""), &json!({"duration": 8}));
    table.request("PATCH /members/{id}, longer, 1 gateway kubeconfig", extended, 200);
    table.request("DELETE /members/{id}/me, 1 gateway kubeconfig", brief.engineer.delete(&brief.path("/me")), 204);
}

fn of_roles(table: &mut Table<'_>, owner: &Http) {
    let mut checked = Instant::now();
    let first = owner.get("/members/roles");
    table.request("GET /members/roles, the walls are not checked yet", first, 200);
    // On a slow machine, that was too long ago.
    let second = loop {
        let (start, answer) = (Instant::now(), owner.get("/members/roles"));
        if checked.elapsed() < WALLS_AGE {
            break answer;
        }
        checked = start;
    };
    table.request("GET /members/roles", second, 200);
}

fn of_refusals(table: &mut Table<'_>, daypass: &Daypass, nobodies: &[Http]) {
    let (owner, path) = (&daypass.owner, "/members/projects-view.x");
    table.request("GET /members/{id}, no credentials", owner.anonymous().get(path), 401);
    let forged = owner.with_token(&format!("{}x", owner.token()));
    table.request("GET /members/{id}, forged Kubernetes token", forged.get(path), 401);
    let forged = owner.with_token(&crate::support::tokens::forged(&format!("{}-0-abcdef", "a".repeat(16))));
    table.request("GET /members/{id}, forged access token", forged.get(path), 401);
    // On a slow machine, the denial may be forgotten before the second request.
    let in_time = |nobody: &Http| {
        let (start, first, second) = (Instant::now(), nobody.get(path), nobody.get(path));
        (start.elapsed() < DENIAL_AGE).then_some((first, second))
    };
    let (first, second) = nobodies.iter().find_map(in_time).expect("two requests within ten seconds");
    table.request("GET /members/{id}, denied in every role", first, 403);
    table.request("GET /members/{id}, denied again within 10 s", second, 403);
}

/// The calls for a member that ends by its expiry, until nothing is left of it. It is the only one in its role.
fn of_expiry(table: &mut Table<'_>, role: &Role, member: &NewMember) {
    let cluster = table.cluster;
    // While no Daypass runs: one would delete the kubeconfigs that would outlive the new end.
    let end = member.end_in_seconds(cluster, role, 1);
    wait_until(end);
    let uid = cluster.uid(&role.namespace, "member", member.name());
    let mut daypass = Daypass::start(cluster, &Launch::default());
    cluster.wait_gone(role, member.name());
    daypass.stop();
    let mut calls = cluster.background_calls();
    // The sweep lists whole namespaces.
    let is_about_it = |call: &Call| {
        let name = member.name();
        let is_its_role = call.what == "get namespaces" && call.name == role.namespace;
        is_its_role || call.name.starts_with(name) || call.uri.contains(name) || call.uri.contains(&uid)
    };
    calls.retain(|call| call.at >= end && is_about_it(call));
    let last = calls.iter().rposition(|call| call.what.starts_with("delete") && call.status < 300).unwrap();
    table.row("expiry, 2 kubeconfigs", &calls[..=last]);
}

#[test]
fn audit_id_from_a_client_does_not_reach_the_api_server() {
    let (cluster, daypass) = Cluster::shared();
    let mark = format!("made-up-{}", std::process::id());
    let request = daypass.owner.request("GET", "/members/roles").header("Audit-ID", &mark);
    let answer = Answer::of(request.header("X-Request-Id", &mark)).expect(200);
    assert!(!cluster.calls_of(&answer).is_empty());
    assert!(!fs::read_to_string(cluster.plane.audit_log()).unwrap().contains(&mark));
}
