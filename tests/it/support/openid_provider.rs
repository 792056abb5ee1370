//! A real OpenID provider (tests/oidc-provider), whose people sign in and whose tokens say what a test wants.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::objects::now;
use super::{Cluster, DEADLINE};

/// Where the client's codes go. Nobody listens there.
const REDIRECT: &str = "http://127.0.0.1/callback";

/// A provider with the client `daypass`. It ends with the tests, or when it is dropped.
pub struct OpenIdProvider {
    child: Child,
    /// Its URL.
    pub issuer: String,
    /// Its CA, PEM.
    pub ca_file: PathBuf,
    admin: String,
    client: Client,
}

impl OpenIdProvider {
    /// Starts one.
    pub fn start() -> Self {
        let Some(program) = std::env::var_os("OIDC_PROVIDER") else {
            panic!("the environment variable OIDC_PROVIDER must name the program: use `make test`, which builds it");
        };
        let mut command = Command::new(program);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        let ca_file = PathBuf::from(text("caFile"));
        let ca = reqwest::Certificate::from_pem(&fs::read(&ca_file).unwrap()).unwrap();
        let client = Client::builder().tls_certs_only([ca]).redirect(Policy::none()).timeout(DEADLINE);
        let client = client.build().unwrap();
        let provider = Self { child, issuer: text("issuer"), ca_file, admin: text("admin"), client };
        provider.post("/clients", &json!({"clientId": "daypass", "redirectUris": [REDIRECT]}));
        provider.new_key(&json!({"algorithm": "ES256", "kid": "main", "active": true}));
        provider
    }

    /// Asks its admin interface (tests/oidc-provider/admin.go).
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> String {
        let answer = self.client.post(format!("{}{path}", self.admin)).json(body).send().unwrap();
        let (status, text) = (answer.status(), answer.text().unwrap());
        assert!(status.is_success(), "{path}: {text}");
        text
    }

    /// Makes a key, and returns its id.
    #[track_caller]
    pub fn new_key(&self, key: &Value) -> String {
        let made: Value = serde_json::from_str(&self.post("/keys", key)).unwrap();
        made["id"].as_str().unwrap().to_owned()
    }

    /// How often its keys were asked for.
    pub fn key_requests(&self) -> u64 {
        self.requests("jwks")
    }

    /// How often somebody followed its redirects.
    pub fn redirected(&self) -> u64 {
        self.requests("redirected")
    }

    fn requests(&self, what: &str) -> u64 {
        let text = self.client.get(format!("{}/requests", self.admin)).send().unwrap().text().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[what].as_u64().unwrap()
    }

    /// The claims of a good ID token for Daypass, with these changes; `null` takes a claim away.
    pub fn claims(&self, changes: &Value) -> Value {
        let now = now().timestamp();
        let claims = json!({
            "iss": self.issuer, "sub": "1", "aud": "daypass", "iat": now, "exp": now + 300,
            "email": "ada@example.com", "email_verified": true, "groups": ["platform"],
        });
        changed(claims, changes)
    }

    /// A token with a good ID token's claims and these changes, signed with its usual key.
    #[track_caller]
    pub fn token(&self, changes: &Value) -> String {
        self.signed(&json!({"kid": "main", "claims": self.claims(changes)}))
    }

    /// A token as tests/oidc-provider/sign.go makes it.
    #[track_caller]
    pub fn signed(&self, request: &Value) -> String {
        self.post("/sign", request)
    }

    /// Signs a user in by the authorization code flow with PKCE (RFC 7636), as a person with a browser does. Returns
    /// the answer with its tokens.
    #[track_caller]
    pub fn sign_in(&self, user: &str) -> Value {
        let verifier = "v".repeat(43);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let discovery = format!("{}/.well-known/openid-configuration", self.issuer);
        let discovery: Value = self.client.get(discovery).send().unwrap().json().unwrap();
        let mut url = reqwest::Url::parse(discovery["authorization_endpoint"].as_str().unwrap()).unwrap();
        url.query_pairs_mut().extend_pairs([
            ("client_id", "daypass"),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("scope", "openid profile email groups"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("login_hint", user),
            ("state", "s"),
        ]);
        while !url.as_str().starts_with(REDIRECT) {
            let answer = self.client.get(url.clone()).send().unwrap();
            let location = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
            let Some(location) = location else { panic!("no redirect: {}", answer.text().unwrap()) };
            url = url.join(&location).unwrap();
        }
        let code = url.query_pairs().find(|(name, _)| name == "code").map(|(_, value)| value.into_owned());
        let Some(code) = code else { panic!("refused: {url}") };
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "daypass"),
            ("redirect_uri", REDIRECT),
            ("code", &code),
            ("code_verifier", &verifier),
        ];
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.client.post(discovery["token_endpoint"].as_str().unwrap()).body(form);
        let answer = request.header("content-type", "application/x-www-form-urlencoded").send().unwrap();
        let tokens: Value = answer.json().unwrap();
        assert!(tokens["id_token"].is_string(), "{tokens}");
        tokens
    }

    /// The usual settings of this issuer for Daypass, with these changes.
    pub fn settings(&self, changes: &Value) -> Value {
        let settings = json!({
            "name": "corp", "url": self.issuer, "audiences": ["daypass"], "authorizedParties": ["cli"],
            "caFile": self.ca_file, "usernameClaim": "email", "usernamePrefix": "corp:", "groupsClaim": "groups",
            "groupsPrefix": "corp:", "uidClaim": "sub",
        });
        changed(settings, changes)
    }

    /// Restarts the API server so that it trusts this issuer for an audience, with the usual mapping.
    pub fn trusted_by_api_server(&self, cluster: &Cluster, audience: &str) {
        let jwt = json!({
            "issuer": {
                "url": self.issuer, "certificateAuthority": fs::read_to_string(&self.ca_file).unwrap(),
                "audiences": [audience], "audienceMatchPolicy": "MatchAny",
            },
            "claimMappings": {
                "username": {"claim": "email", "prefix": "corp:"},
                "groups": {"claim": "groups", "prefix": "corp:"},
                "uid": {"claim": "sub"},
            },
        });
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "AuthenticationConfiguration", "jwt": [jwt],
        });
        let file = cluster.save(&config.to_string());
        cluster.restart_apiserver(&[&format!("--authentication-config={}", file.display())]);
    }
}

/// The object with these changes; `null` takes a field away.
fn changed(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => object[name] = value.clone(),
        }
    }
    object
}

impl Drop for OpenIdProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The options of `daypass serve` for these issuers.
pub fn oidc_args(cluster: &Cluster, issuers: &[Value]) -> Vec<String> {
    let file = cluster.save(&json!(issuers).to_string());
    vec![
        "--auth-methods=kubernetes,access-token,oidc".to_owned(),
        format!("--oidc-issuers-file={}", file.display()),
        "--user-tokens".to_owned(),
    ]
}
