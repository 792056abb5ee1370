//! Access tokens, their owners, and their stored objects.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use chrono::{DateTime, Utc};
use daypass::domain::access_token::{TokenId, TokenSecret};
use daypass::domain::secret::SecretSubject as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};

use super::http::{Answer, Http};
use super::jwt::claims;
use super::{Cluster, Daypass, eventually};

/// All scopes.
pub const SCOPES: [&str; 4] = ["members:read", "members:write", "tokens:read", "tokens:write"];

/// The rights to create one's own tokens, and to manage everybody's.
pub const GENERATE: &str = "generate";
pub const MANAGE: &str = "manage";

/// An access token or a session.
pub struct AccessToken {
    pub id: String,
    pub secret: String,
    /// The answer.
    pub body: Value,
    /// A client that sends this token.
    pub http: Http,
}

impl AccessToken {
    /// Creates a token for thirty days with these scopes.
    #[track_caller]
    pub fn new(caller: &Http, scopes: &[&str]) -> Self {
        Self::requested(caller, &json!({"name": "a test's", "expiresInDays": 30, "scopes": scopes}))
    }

    /// Creates a token by this request body.
    #[track_caller]
    pub fn requested(caller: &Http, body: &Value) -> Self {
        Self::of(caller, &caller.post("/tokens", body).expect(201))
    }

    /// Opens a session.
    #[track_caller]
    pub fn sign_in(&self) -> Self {
        Self::session_of(&self.http)
    }

    /// Opens a session with a client's credential.
    #[track_caller]
    pub fn session_of(client: &Http) -> Self {
        let answer = client.post("/sessions", &json!({})).expect(201);
        let secret = answer.json()["token"].as_str().unwrap().to_owned();
        let id = parse(&secret).subject().to_string();
        Self { id, http: client.with_token(&secret), body: answer.json(), secret }
    }

    #[track_caller]
    pub fn of(client: &Http, answer: &Answer) -> Self {
        let body = answer.json();
        let text = |field: &str| body[field].as_str().unwrap().to_owned();
        let (id, secret) = (text("id"), text("token"));
        Self { http: client.with_token(&secret), id, secret, body }
    }

    /// The name of its object.
    pub fn object(&self) -> &str {
        self.id.rsplit_once('-').unwrap().0
    }

    /// Its path in the REST API.
    pub fn path(&self) -> String {
        format!("/tokens/{}", self.id)
    }

    /// The same token at another replica.
    pub fn at(&self, daypass: &Daypass) -> Http {
        daypass.owner.with_token(&self.secret)
    }

    /// A forged token with this id, a valid form and a valid checksum.
    pub fn forged(&self) -> String {
        forged(&self.id)
    }
}

/// A forged token with any id, a valid form and a valid checksum.
pub fn forged(id: &str) -> String {
    TokenSecret::new(TokenId::parse(id).unwrap(), &[7; 32]).expose().to_owned()
}

fn parse(secret: &str) -> TokenSecret {
    TokenSecret::parse(secret).unwrap()
}

impl Http {
    /// The Kubernetes user name of the token that it sends.
    pub fn username(&self) -> String {
        claims(self.token())["sub"].as_str().unwrap().to_owned()
    }

    /// A GET with any Authorization header.
    pub fn get_as(&self, authorization: &str, path: &str) -> Answer {
        Answer::of(self.anonymous().request("GET", path).header(AUTHORIZATION, authorization))
    }

    /// Checks that Daypass refuses its credentials without a reason.
    #[track_caller]
    pub fn assert_refused(&self) {
        self.get("/tokens/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }

    /// The ids of the tokens in its list.
    #[track_caller]
    pub fn token_ids(&self, query: &str) -> Vec<String> {
        let page = self.get(&format!("/tokens?limit=1000{query}")).expect(200).json();
        let items = page["items"].as_array().unwrap();
        assert_eq!(page["total"], items.len());
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }
}

impl Answer {
    /// All headers of a name.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// A problem document without the fields that differ in every answer.
    pub fn comparable(&self) -> Value {
        let mut body = self.json();
        body.as_object_mut().unwrap().remove("requestId").unwrap();
        body
    }
}

impl Cluster {
    /// A service account in `default` that may create its own access tokens.
    pub fn generator(&self, daypass: &Daypass) -> Http {
        self.with_privilege(self.caller(daypass, &[], &[], None), GENERATE)
    }

    /// A service account in `default` that may create access tokens for everybody.
    pub fn manager(&self, daypass: &Daypass) -> Http {
        self.with_privilege(self.caller(daypass, &[], &[], None), MANAGE)
    }

    /// Gives a caller this right on access tokens.
    pub fn with_privilege(&self, caller: Http, privilege: &str) -> Http {
        self.may_make_tokens(&caller, privilege);
        caller
    }

    /// Waits until a user has a right on access tokens, or has lost it.
    pub fn wait_privilege(&self, username: &str, privilege: &str, wanted: bool) {
        eventually("the right has changed", || {
            (self.has_privilege(username, privilege, "daypass") == wanted).then_some(())
        });
    }

    /// Whether a user has a right on access tokens in a namespace.
    pub fn has_privilege(&self, username: &str, privilege: &str, namespace: &str) -> bool {
        let attributes = json!({
            "group": "daypass.dev", "resource": "personalaccesstokens", "verb": privilege, "namespace": namespace,
        });
        self.api.allows(username, &attributes)
    }

    /// The stored object of a token.
    pub fn stored(&self, pat: &AccessToken) -> Option<Value> {
        self.object("daypass", "accesstokens.daypass.dev", pat.object())
    }

    /// Waits until a token's object is deleted.
    #[track_caller]
    pub fn wait_token_gone(&self, pat: &AccessToken) {
        eventually("its object is deleted", || {
            self.stored(pat).is_none_or(|it| it["spec"]["id"] != pat.id).then_some(())
        });
    }

    /// Writes a token's status, as only Daypass may.
    #[track_caller]
    pub fn write_token_status(&self, pat: &AccessToken, status: &Value) {
        self.write_token(pat, "/status", &json!({"status": status}));
    }

    /// Writes a token's end, as only Daypass may.
    #[track_caller]
    pub fn write_token_end(&self, pat: &AccessToken, end: DateTime<Utc>) {
        self.write_token(pat, "", &json!({"spec": {"expiresAt": end}}));
    }

    /// Writes when a token got its secret, as only Daypass may.
    #[track_caller]
    pub fn write_token_rotation(&self, pat: &AccessToken, at: DateTime<Utc>) {
        self.write_token(pat, "", &json!({"spec": {"rotatedAt": at}}));
    }

    /// As Daypass. Not with kubectl, which reads an object before it patches it: Daypass may not.
    #[track_caller]
    fn write_token(&self, pat: &AccessToken, subresource: &str, patch: &Value) {
        let kubeconfig: Value = serde_yaml::from_str(&fs::read_to_string(&self.kubeconfig).unwrap()).unwrap();
        let token = kubeconfig["users"][0]["user"]["token"].as_str().unwrap();
        let api = format!("{}/apis/daypass.dev/v1alpha1/namespaces/daypass", self.plane.server_url());
        let path = format!("/accesstokens/{}{subresource}", pat.object());
        let request = Http::new(&api, self.plane.ca_pem()).with_token(token).request("PATCH", &path);
        Answer::of(request.header(CONTENT_TYPE, "application/merge-patch+json").body(patch.to_string())).expect(200);
    }

    /// The successful calls on an object in the API server's audit log: verb and subresource.
    pub fn audited(&self, resource: &str, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.plane.audit_log()).unwrap();
        let events = text.lines().filter(|line| line.contains(name)).map(serde_json::from_str::<Value>);
        // An incomplete line belongs to a call that has no answer yet.
        events
            .filter_map(Result::ok)
            .filter(|event| {
                event["stage"] == "ResponseComplete" && event["responseStatus"]["code"].as_u64() < Some(300)
            })
            .filter(|event| event["objectRef"]["resource"] == resource && event["objectRef"]["name"] == name)
            .map(|event| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                format!("{} {}", text(&event["verb"]), text(&event["objectRef"]["subresource"])).trim().to_owned()
            })
            .collect()
    }

    /// Runs `daypass token …` with a kubeconfig.
    pub fn token_command(&self, daypass: &Daypass, kubeconfig: &Path, args: &[&str]) -> Output {
        self.new_token_command(daypass, kubeconfig, args).output().unwrap()
    }

    /// `daypass token …` with a kubeconfig, to be changed and run.
    pub fn new_token_command(&self, daypass: &Daypass, kubeconfig: &Path, args: &[&str]) -> Command {
        let ca = self.fresh_folder("token").join("ca.pem");
        fs::write(&ca, self.serving_certificate()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_daypass"));
        command.env("KUBECONFIG", kubeconfig).env("DAYPASS_URL", &daypass.url);
        command.env("DAYPASS_DATA_PLANE", "dp-1").env("DAYPASS_CA", ca);
        command.arg("token").args(args);
        command
    }
}

impl Daypass {
    /// How many calls of this name it made, successful or not.
    pub fn calls(&self, name: &str) -> f64 {
        let text = self.metrics();
        let of = format!("daypass_kubernetes_calls_total{{call=\"{name}\"");
        let lines = text.lines().filter(|line| line.starts_with(&of));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// How many calls it made, except those for the Lease and those that follow RBAC, which other tests cause.
    pub fn all_calls(&self) -> f64 {
        let text = self.metrics();
        let lines = text.lines().filter(|line| line.starts_with("daypass_kubernetes_calls_total"));
        let background = ["_lease\"", "_cluster_role", "_role_binding", "\"get_role\"", "_roles\""];
        let lines = lines.filter(|line| !background.iter().any(|name| line.contains(name)));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// The audit events that it recorded about a token, by the token's id.
    pub fn token_events(&self, id: &str) -> Vec<Value> {
        self.audit_events_with(id).into_iter().filter(|event| event["token"]["id"] == id).collect()
    }

    /// Waits for the first audit event of a kind about a token.
    #[track_caller]
    pub fn wait_token_event(&self, id: &str, kind: &str) -> Value {
        eventually(&format!("{kind} of {id} is recorded"), || {
            self.token_events(id).into_iter().find(|event| event["event"] == kind)
        })
    }
}

/// Runs `send` this many times concurrently and returns all results.
pub fn concurrently<T: Send>(count: usize, send: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let send = &send;
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || send(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
