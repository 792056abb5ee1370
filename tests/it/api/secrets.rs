//! A secret appears only in the one answer that shows it.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Cluster, Curl, Daypass, Http, Kubeconfig, Launch, NewMember};

/// Texts that must not appear, with their descriptions.
#[derive(Default)]
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn credential(&mut self, id: &str, password: &str) {
        let random = password.rsplit_once('_').unwrap().1;
        self.0.push(("a credential's random part", random.to_owned()));
        let digest: String = Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.push(("a credential's hash", digest));
        // As in the header. Half of it identifies it.
        let basic = STANDARD.encode(format!("{id}:{password}"));
        self.0.push(("a credential as Basic", basic[..basic.len() / 2].to_owned()));
    }

    /// The signature is the secret part.
    fn token(&mut self, what: &'static str, token: &str) {
        self.0.push((what, token.rsplit_once('.').map_or(token, |(_, signature)| signature).to_owned()));
    }

    fn assert_absent(&self, place: &str, text: &str) {
        for (what, secret) in &self.0 {
            assert!(secret.len() > 20, "{what}: {secret}");
            let Some(at) = text.find(secret.as_str()) else { continue };
            let line = text[..at].rsplit('\n').next().unwrap();
            panic!("{what} in {place}, after: {}", &line[line.len().saturating_sub(400)..]);
        }
    }
}

/// A request over HTTP/2, whose frames other code logs than HTTP/1.
fn by_http2(cluster: &Cluster, daypass: &Daypass, header: &str, path: &str) -> (u16, String) {
    Curl::new(cluster, daypass, path).with("http2", "").with("header", header).send()
}

/// Calls everything that shows, accepts or refuses a secret, over HTTP/1.1 and HTTP/2.
fn use_all(cluster: &Cluster, daypass: &Daypass, secrets: &mut Secrets) {
    let role = cluster.reader();
    let owner = &daypass.owner;
    secrets.token("the owner's token", owner.token());
    let member = NewMember::new(owner, &role, 1);
    secrets.credential(&member.id, &member.password);
    let mut keep = |kubeconfig: &Kubeconfig| secrets.token("a kubeconfig's token", &kubeconfig.token);
    keep(&member.kubeconfig(cluster));
    let basic = format!("Authorization: Basic {}", STANDARD.encode(format!("{}:{}", member.id, member.password)));
    let (status, text) = by_http2(cluster, daypass, &basic, &member.path("/kubeconfig"));
    assert_eq!(status, 200, "{text}");
    let parsed: Value = serde_yaml::from_str(&text).unwrap();
    secrets.token("a kubeconfig's token by HTTP/2", parsed["users"][0]["user"]["token"].as_str().unwrap());
    let bearer = format!("Authorization: Bearer {}", owner.token());
    assert_eq!(by_http2(cluster, daypass, &bearer, "/members").0, 200);
    owner.patch(&member.path(""), &json!({"duration": "2"})).expect(200);

    // Refused credentials: unknown, mistyped, somebody else's, in the wrong place.
    let wrong = "dpm_t.x_SECRETSECRETSECRETSECRETSECRETSECRETSECRETSECRETS";
    let foreign = cluster.token("default", "default", "daypass");
    secrets.token("a token without rights", &foreign);
    secrets.0.push(("a wrong credential", wrong[6..].to_owned()));
    for client in [owner.with_token(wrong), owner.with_basic(&member.id, wrong)] {
        client.get("/members").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        client.get(&member.path("/kubeconfigs")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    let bearer = owner.with_token(&member.password);
    bearer.get("/members").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    bearer.get(&member.path("/kubeconfigs")).expect(200);
    assert_eq!(owner.with_token(&foreign).get("/members").status, 403);
    assert_eq!(by_http2(cluster, daypass, &format!("Authorization: Bearer {wrong}"), "/members").0, 401);
    assert_eq!(owner.get(&member.path(&format!("/kubeconfigs/{wrong}"))).status, 405);
    assert_eq!(owner.delete(&member.path(&format!("/kubeconfigs/{wrong}"))).status, 404);
    for (client, status) in [(owner, 404), (&owner.with_token("wrong"), 401)] {
        let answer = client.get(&format!("/members/{}", member.password)).expect(status);
        assert!(!answer.text.contains(&member.password[8..]), "{}", answer.text);
    }
    assert_eq!(owner.get(&format!("/members?password={wrong}")).status, 400);

    let renewed = owner.post(&member.path("/credentials"), &json!({})).expect(201).json();
    let password = renewed["password"].as_str().unwrap();
    secrets.credential(&member.id, password);
    let engineer: Http = owner.with_basic(&member.id, password);
    let kubeconfig = Kubeconfig::new(cluster, &engineer.get(&member.path("/kubeconfig")).expect(200));
    secrets.token("a later kubeconfig's token", &kubeconfig.token);
    owner.delete(&member.path(&format!("/kubeconfigs/{}", kubeconfig.jti()))).expect(204);
    engineer.delete(&member.path("/me")).expect(204);
}

#[test]
fn scanner_patterns_match_exactly_the_secrets() {
    let (cluster, daypass) = Cluster::shared();
    let patterns =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/secret-scanning.toml")).unwrap();
    let patterns = patterns.lines().filter_map(|line| line.strip_prefix("regex = '''")?.strip_suffix("'''"));
    let patterns: Vec<regex::Regex> = patterns.map(|pattern| regex::Regex::new(pattern).unwrap()).collect();
    assert_eq!(patterns.len(), 3);
    let body = json!({"name": "scanned", "expiresInDays": 1, "scopes": ["members:read"]});
    let token = daypass.owner.post("/tokens", &body).expect(201).json()["token"].as_str().unwrap().to_owned();
    let session = daypass.owner.with_token(&token).post("/sessions", &Value::Null).expect(201).json();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let gateway = Daypass::with_args(cluster, &["--kubeconfig-mode=gateway"]);
    let kubeconfig = member.at(&gateway).kubeconfig(cluster).token;
    for secret in [&token, session["token"].as_str().unwrap(), &member.password, &kubeconfig] {
        let text = format!("export TOKEN=\"{secret}\"; curl");
        let found: Vec<&str> = patterns.iter().filter_map(|pattern| Some(pattern.find(&text)?.as_str())).collect();
        assert_eq!(found, [secret]);
        assert!(
            !patterns.iter().any(|pattern| pattern.is_match(&text[..text.len() - 8])),
            "a truncated secret does not match"
        );
    }
    let documented = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tokens.md")).unwrap();
    for pattern in &patterns {
        assert!(documented.contains(&pattern.as_str().replace("(?:", "(")), "{pattern} in docs/tokens.md");
    }
}

#[test]
fn trace_log_audit_trail_metrics_and_arguments_hold_no_secret() {
    let (cluster, _) = Cluster::shared();
    let daypass = Daypass::start(cluster, &Launch { log: Some("trace".to_owned()), ..Launch::default() });
    let mut secrets = Secrets::default();
    let kubeconfig: Value = serde_yaml::from_str(&fs::read_to_string(&cluster.kubeconfig).unwrap()).unwrap();
    secrets.token("Daypass's own token", kubeconfig["users"][0]["user"]["token"].as_str().unwrap());
    let key = cluster.kubectl(&["get", "secret", "daypass-tls", "-n", "daypass", "-o", r"jsonpath={.data.tls\.key}"]);
    let key = String::from_utf8(STANDARD.decode(key).unwrap()).unwrap();
    secrets.0.push(("the private key", key.lines().nth(1).unwrap().to_owned()));
    use_all(cluster, &daypass, &mut secrets);

    let log = daypass.log();
    assert!(log.contains("TRACE"), "the log level must be trace");
    secrets.assert_absent("the log", &log);
    let trail = daypass.audit_events();
    assert!(trail.len() > 5, "{trail:?}");
    // A secret in a path is replaced once, however many layers redact it.
    let request = "GET /dp-1/members/dpm_…";
    assert!(trail.iter().any(|event| event["request"] == request), "{trail:?}");
    secrets.assert_absent("the audit trail", &Value::Array(trail).to_string());
    secrets.assert_absent("the metrics", &daypass.metrics());
    let process = Path::new("/proc").join(daypass.pid().to_string());
    for file in ["cmdline", "environ"] {
        secrets.assert_absent(file, &String::from_utf8_lossy(&fs::read(process.join(file)).unwrap()));
    }
    // Only the Member's status keeps a credential's hash.
    let events = cluster.kubectl(&["get", "events,secrets,serviceaccounts", "-A", "-o", "json"]);
    secrets.0.retain(|(what, _)| what.contains("credential") || what.contains("kubeconfig"));
    secrets.assert_absent("the cluster", &events);
}
