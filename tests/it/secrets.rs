//! No secret leaves Daypass but in the one answer that shows it.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Created, Curl, Daypass, Http, Kubeconfig, Lab, Launch};

/// Texts that must be nowhere, and what each is.
#[derive(Default)]
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn credential(&mut self, id: &str, password: &str) {
        let random = password.rsplit_once('_').unwrap().1;
        self.0.push(("a credential's random part", random.to_owned()));
        let digest: String = Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.push(("a credential's hash", digest));
        // As the header has it; half of it is enough to know it by.
        let basic = STANDARD.encode(format!("{id}:{password}"));
        self.0.push(("a credential as Basic", basic[..basic.len() / 2].to_owned()));
    }

    /// The signature is what nobody can make up.
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

/// A request of the owner's by HTTP/2, whose frames are logged elsewhere than HTTP/1's lines.
fn by_http2(lab: &Lab, daypass: &Daypass, header: &str, path: &str) -> (u16, String) {
    Curl::new(lab, daypass, path).with("http2", "").with("header", header).send()
}

/// Everything that shows, takes or refuses a secret, by both versions of HTTP.
fn use_all(lab: &Lab, daypass: &Daypass, secrets: &mut Secrets) {
    let role = lab.reader();
    let owner = &daypass.owner;
    secrets.token("the owner's token", owner.token());
    let member = Created::new(owner, &role, 1);
    secrets.credential(&member.id, &member.password);
    let mut keep = |kubeconfig: &Kubeconfig| secrets.token("a kubeconfig's token", &kubeconfig.token);
    keep(&member.kubeconfig(lab));
    let basic = format!("Authorization: Basic {}", STANDARD.encode(format!("{}:{}", member.id, member.password)));
    let (status, text) = by_http2(lab, daypass, &basic, &member.path("/kubeconfig"));
    assert_eq!(status, 200, "{text}");
    let parsed: Value = serde_yaml::from_str(&text).unwrap();
    secrets.token("a kubeconfig's token by HTTP/2", parsed["users"][0]["user"]["token"].as_str().unwrap());
    let bearer = format!("Authorization: Bearer {}", owner.token());
    assert_eq!(by_http2(lab, daypass, &bearer, "/members").0, 200);
    owner.patch(&member.path(""), &json!({"duration": "2"})).expect(200);

    // Refused: unknown, mistyped, another's, in the wrong place.
    let wrong = "dpm_t.x_SECRETSECRETSECRETSECRETSECRETSECRETSECRETSECRETS";
    let foreign = lab.token("default", "default", "daypass");
    secrets.token("a token without rights", &foreign);
    secrets.0.push(("a wrong credential", wrong[6..].to_owned()));
    for client in [owner.with_token(wrong), owner.with_basic(&member.id, wrong), owner.with_token(&member.password)] {
        assert_eq!(client.get("/members").status, 401);
        assert_ne!(client.get(&member.path("/kubeconfigs")).status, 403);
    }
    assert_eq!(owner.with_token(&foreign).get("/members").status, 403);
    assert_eq!(by_http2(lab, daypass, &format!("Authorization: Bearer {wrong}"), "/members").0, 401);
    assert_eq!(owner.get(&member.path(&format!("/kubeconfigs/{wrong}"))).status, 405);
    assert_eq!(owner.delete(&member.path(&format!("/kubeconfigs/{wrong}"))).status, 404);
    for client in [owner, &owner.with_token("wrong")] {
        let answer = client.get(&format!("/members/{}", member.password));
        assert!([401, 404].contains(&answer.status) && !answer.text.contains(&member.password[8..]), "{}", answer.text);
    }
    assert_eq!(owner.get(&format!("/members?password={wrong}")).status, 400);

    let renewed = owner.post(&member.path("/credentials"), &json!({})).expect(201).json();
    let password = renewed["password"].as_str().unwrap();
    secrets.credential(&member.id, password);
    let engineer: Http = owner.with_basic(&member.id, password);
    let kubeconfig = Kubeconfig::new(lab, &engineer.get(&member.path("/kubeconfig")).expect(200));
    secrets.token("a later kubeconfig's token", &kubeconfig.token);
    owner.delete(&member.path(&format!("/kubeconfigs/{}", kubeconfig.jti()))).expect(204);
    engineer.delete(&member.path("/me")).expect(204);
}

#[test]
fn the_scanners_patterns_match_what_daypass_gives_out_and_no_more() {
    let (lab, daypass) = Lab::shared();
    let patterns = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/secret-scanning.toml")).unwrap();
    let patterns = patterns.lines().filter_map(|line| line.strip_prefix("regex = '''")?.strip_suffix("'''"));
    let patterns: Vec<regex::Regex> = patterns.map(|pattern| regex::Regex::new(pattern).unwrap()).collect();
    assert_eq!(patterns.len(), 2);
    let body = json!({"name": "scanned", "expiresInDays": 1, "scopes": ["members:read"]});
    let token = daypass.owner.post("/tokens", &body).expect(201).json()["token"].as_str().unwrap().to_owned();
    let session = daypass.owner.with_token(&token).post("/sessions", &Value::Null).expect(201).json();
    let member = Created::new(&daypass.owner, &lab.reader(), 1);
    for secret in [&token, session["token"].as_str().unwrap(), &member.password] {
        let text = format!("export TOKEN=\"{secret}\"; curl");
        let found: Vec<&str> = patterns.iter().filter_map(|pattern| Some(pattern.find(&text)?.as_str())).collect();
        assert_eq!(found, [secret]);
        assert!(!patterns.iter().any(|pattern| pattern.is_match(&text[..text.len() - 8])), "all of it or nothing");
    }
    let documented = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tokens.md")).unwrap();
    for pattern in &patterns {
        assert!(documented.contains(&pattern.as_str().replace("(?:", "(")), "{pattern} in docs/tokens.md");
    }
}

#[test]
fn no_secret_is_in_logs_audit_trail_metrics_or_arguments_however_much_is_logged() {
    let (lab, _) = Lab::shared();
    let daypass = Daypass::start(lab, &Launch { log: Some("trace".to_owned()), ..Launch::default() });
    let mut secrets = Secrets::default();
    let kubeconfig: Value = serde_yaml::from_str(&fs::read_to_string(&lab.kubeconfig).unwrap()).unwrap();
    secrets.token("Daypass's own token", kubeconfig["users"][0]["user"]["token"].as_str().unwrap());
    let key = lab.kubectl(&["get", "secret", "daypass-tls", "-n", "daypass", "-o", r"jsonpath={.data.tls\.key}"]);
    let key = String::from_utf8(STANDARD.decode(key).unwrap()).unwrap();
    secrets.0.push(("the private key", key.lines().nth(1).unwrap().to_owned()));
    use_all(lab, &daypass, &mut secrets);

    let log = daypass.log();
    assert!(log.contains("TRACE"), "the test would show nothing");
    secrets.assert_absent("the log", &log);
    let trail = daypass.audit_events();
    assert!(trail.len() > 5, "{trail:?}");
    secrets.assert_absent("the audit trail", &Value::Array(trail).to_string());
    secrets.assert_absent("the metrics", &daypass.metrics());
    let process = Path::new("/proc").join(daypass.pid().to_string());
    for file in ["cmdline", "environ"] {
        secrets.assert_absent(file, &String::from_utf8_lossy(&fs::read(process.join(file)).unwrap()));
    }
    // What is kept of a credential is in the Member's status alone, and events in the namespace name nobody.
    let events = lab.kubectl(&["get", "events,secrets,serviceaccounts", "-A", "-o", "json"]);
    secrets.0.retain(|(what, _)| what.contains("credential") || what.contains("kubeconfig"));
    secrets.assert_absent("the cluster", &events);
}
