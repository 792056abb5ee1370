//! Access tokens, their owners, and what is stored of them.

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
use super::{Daypass, Lab, eventually};

/// All that there are.
pub const SCOPES: [&str; 4] = ["members:read", "members:write", "tokens:read", "tokens:write"];

/// Who may make tokens for itself, and who may for everybody.
pub const GENERATE: &str = "generate";
pub const MANAGE: &str = "manage";

/// An access token, or a session of one.
pub struct Pat {
    pub id: String,
    pub secret: String,
    /// What was answered.
    pub body: Value,
    /// A client that sends it.
    pub http: Http,
}

impl Pat {
    /// One for thirty days with these scopes.
    #[track_caller]
    pub fn new(caller: &Http, scopes: &[&str]) -> Self {
        Self::asked(caller, &json!({"name": "a test's", "expiresInDays": 30, "scopes": scopes}))
    }

    /// One as it is asked for.
    #[track_caller]
    pub fn asked(caller: &Http, body: &Value) -> Self {
        Self::of(caller, &caller.post("/tokens", body).expect(201))
    }

    /// A session of it.
    #[track_caller]
    pub fn sign_in(&self) -> Self {
        let answer = self.http.post("/sessions", &json!({})).expect(201);
        let secret = answer.json()["token"].as_str().unwrap().to_owned();
        let id = parse(&secret).subject().to_string();
        Self { id, http: self.http.with_token(&secret), body: answer.json(), secret }
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

    /// What a thief would make up: a token of this id, right by its form and its checksum.
    pub fn forged(&self) -> String {
        forged(&self.id)
    }
}

/// A token of any id, right by its form and its checksum.
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

    /// Checks that what it sends is refused, and that nobody is told why.
    #[track_caller]
    pub fn assert_refused(&self) {
        self.get("/tokens/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }

    /// The ids of the tokens that are listed for it.
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

    /// A problem without what is different in every answer.
    pub fn comparable(&self) -> Value {
        let mut body = self.json();
        body.as_object_mut().unwrap().remove("requestId").unwrap();
        body
    }
}

impl Lab {
    /// A service account in `default` that may make tokens for itself.
    pub fn generator(&self, daypass: &Daypass) -> Http {
        self.with_privilege(self.caller(daypass, &[], &[], None), GENERATE)
    }

    /// A service account in `default` that may make tokens for everybody.
    pub fn manager(&self, daypass: &Daypass) -> Http {
        self.with_privilege(self.caller(daypass, &[], &[], None), MANAGE)
    }

    /// Gives a caller this right on tokens, in Daypass's namespace.
    pub fn with_privilege(&self, caller: Http, privilege: &str) -> Http {
        self.may_make_tokens(&caller, privilege);
        caller
    }

    /// Waits until somebody has a right on tokens, or has it no more.
    pub fn wait_privilege(&self, username: &str, privilege: &str, wanted: bool) {
        eventually("the right is as it should be", || {
            (self.has_privilege(username, privilege, "daypass") == wanted).then_some(())
        });
    }

    /// Whether somebody has a right on tokens in a namespace. `kubectl auth can-i` knows no resource without a type.
    pub fn has_privilege(&self, username: &str, privilege: &str, namespace: &str) -> bool {
        let attributes = json!({
            "group": "daypass.dev", "resource": "personalaccesstokens", "verb": privilege, "namespace": namespace,
        });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": username, "resourceAttributes": attributes},
        });
        let file = self.save(&review.to_string());
        self.kubectl(&["create", "-o", "jsonpath={.status.allowed}", "-f", file.to_str().unwrap()]) == "true"
    }

    /// What is stored of a token.
    pub fn stored(&self, pat: &Pat) -> Option<Value> {
        self.object("daypass", "accesstokens.daypass.dev", pat.object())
    }

    /// Waits until nothing is stored of a token.
    #[track_caller]
    pub fn wait_token_gone(&self, pat: &Pat) {
        eventually("its object is deleted", || {
            self.stored(pat).is_none_or(|it| it["spec"]["id"] != pat.id).then_some(())
        });
    }

    /// Writes a token's status, as only Daypass may.
    #[track_caller]
    pub fn write_token_status(&self, pat: &Pat, status: &Value) {
        self.write_token(pat, "/status", &json!({"status": status}));
    }

    /// Writes a token's end, as only Daypass may.
    #[track_caller]
    pub fn write_token_end(&self, pat: &Pat, end: DateTime<Utc>) {
        self.write_token(pat, "", &json!({"spec": {"expiresAt": end}}));
    }

    /// Writes when a token got its secret, as only Daypass may.
    #[track_caller]
    pub fn write_token_rotation(&self, pat: &Pat, at: DateTime<Utc>) {
        self.write_token(pat, "", &json!({"spec": {"rotatedAt": at}}));
    }

    /// By Daypass's own account, whose rights are too few for kubectl: that reads what it patches.
    #[track_caller]
    fn write_token(&self, pat: &Pat, subresource: &str, patch: &Value) {
        let kubeconfig: Value = serde_yaml::from_str(&fs::read_to_string(&self.kubeconfig).unwrap()).unwrap();
        let token = kubeconfig["users"][0]["user"]["token"].as_str().unwrap();
        let api = format!("{}/apis/daypass.dev/v1alpha1/namespaces/daypass", self.plane.server_url());
        let path = format!("/accesstokens/{}{subresource}", pat.object());
        let request = Http::new(&api, self.plane.ca_pem()).with_token(token).request("PATCH", &path);
        Answer::of(request.header(CONTENT_TYPE, "application/merge-patch+json").body(patch.to_string())).expect(200);
    }

    /// The accepted calls on an object that the API server's audit log has: verb and subresource.
    pub fn audited(&self, resource: &str, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.plane.audit_log()).unwrap();
        let events = text.lines().filter(|line| line.contains(name)).map(serde_json::from_str::<Value>);
        // A line that is just being written is of a call that nobody was answered yet.
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

    /// `daypass token …` against a Daypass, with a kubeconfig.
    pub fn token_command(&self, daypass: &Daypass, kubeconfig: &Path, args: &[&str]) -> Output {
        let ca = self.fresh_folder("token").join("ca.pem");
        fs::write(&ca, self.serving_certificate()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_daypass"));
        command.env("KUBECONFIG", kubeconfig).env("DAYPASS_URL", &daypass.url);
        command.env("DAYPASS_DATA_PLANE", "dp-1").env("DAYPASS_CA", ca);
        command.arg("token").args(args).output().unwrap()
    }
}

impl Daypass {
    /// How often it made a call of this name, whatever came of it.
    pub fn calls(&self, name: &str) -> f64 {
        let text = self.metrics();
        let of = format!("daypass_kubernetes_calls_total{{call=\"{name}\"");
        let lines = text.lines().filter(|line| line.starts_with(&of));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// How many calls it made in all, but those for the Lease.
    pub fn all_calls(&self) -> f64 {
        let text = self.metrics();
        let lines = text.lines().filter(|line| line.starts_with("daypass_kubernetes_calls_total"));
        let lines = lines.filter(|line| !line.contains("_lease\""));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// The audit events that it recorded about a token, by the token's id.
    pub fn token_events(&self, id: &str) -> Vec<Value> {
        self.audit_events().into_iter().filter(|event| event["token"]["id"] == id).collect()
    }

    /// Waits for the first audit event of a kind about a token.
    #[track_caller]
    pub fn token_event(&self, id: &str, kind: &str) -> Value {
        eventually(&format!("{kind} of {id} is recorded"), || {
            self.token_events(id).into_iter().find(|event| event["event"] == kind)
        })
    }
}

/// Sends all of these at once; what each came to.
pub fn at_once<T: Send>(count: usize, send: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let send = &send;
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || send(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
