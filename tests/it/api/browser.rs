//! A browser adds remembered Basic credentials to every request of any page. Only Daypass's own pages and a link to
//! the kubeconfig may use them.

use reqwest::header::{HeaderValue, ORIGIN};
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Answer, Cluster, Daypass, Http, NewMember};

const REFUSED: &str = "DP_ERR_CROSS_SITE";

type Headers = Vec<(&'static str, String)>;

fn headers(text: &[(&'static str, &str)]) -> Headers {
    text.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

fn fetch(site: &str, mode: &str, dest: &str) -> Headers {
    headers(&[("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)])
}

/// The headers of requests from pages of other sites, and headers that no browser sends.
fn hostile(daypass: &Daypass) -> Vec<Headers> {
    let ours = daypass.url.as_str();
    let mut all = vec![
        fetch("cross-site", "no-cors", "image"),
        fetch("cross-site", "navigate", "iframe"),
        fetch("same-site", "cors", "empty"),
        headers(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]),
        headers(&[("sec-fetch-site", "none"), ("sec-fetch-site", "none")]),
        headers(&[("origin", ours), ("origin", ours)]),
        headers(&[("origin", ours), ("sec-fetch-site", "cross-site")]),
        headers(&[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")]),
    ];
    for site in ["cross-site", "same-site", "Same-Origin", "same-origin, none", "junk", ""] {
        all.push(headers(&[("sec-fetch-site", site)]));
    }
    let http = ours.replace("https:", "http:");
    let named = ours.replace("127.0.0.1", "localhost");
    for origin in ["https://evil.example", "null", "", "https://127.0.0.1", &http, &named, &format!("{ours}/")] {
        all.push(headers(&[("origin", origin)]));
    }
    all
}

/// The headers of Daypass's own pages and of a URL typed into the address bar.
fn friendly(daypass: &Daypass) -> Vec<Headers> {
    vec![
        headers(&[]),
        fetch("none", "navigate", "document"),
        fetch("same-origin", "cors", "empty"),
        headers(&[("origin", &daypass.url), ("sec-fetch-site", "same-origin")]),
        headers(&[("origin", &daypass.url)]),
    ]
}

/// The headers of a link in a chat.
fn link() -> Headers {
    fetch("cross-site", "navigate", "document")
}

fn send(client: &Http, method: &str, path: &str, headers: &Headers) -> Answer {
    let mut request = client.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    Answer::of(request)
}

/// An operation that takes Basic credentials, with clients that send valid and invalid ones.
struct Operation {
    method: String,
    path: String,
    right: Http,
    made_up: Http,
}

/// Every operation of the OpenAPI document that takes Basic credentials of a member or an access token.
fn operations(client: &Http, member: &NewMember, pat: &AccessToken) -> Vec<Operation> {
    let document = client.get(&format!("{}/openapi.json", base(client))).expect(200).json();
    let mut found = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            let takes = |scheme: &str| security.iter().any(|it| it.get(scheme).is_some());
            let id = if template.starts_with("/tokens") { "self" } else { &member.id };
            let path = template.replace("{id}", id).replace("{jti}", "x");
            let (method, wrong) = (method.to_uppercase(), daypass_credential(member));
            if takes("memberCredential") {
                let (right, made_up) = (member.engineer.clone(), client.with_basic(&member.id, &wrong));
                found.push(Operation { method: method.clone(), path: path.clone(), right, made_up });
            }
            if takes("accessTokenBasic") {
                let (right, made_up) =
                    (client.with_basic(&pat.id, &pat.secret), client.with_basic(&pat.id, &pat.forged()));
                found.push(Operation { method, path, right, made_up });
            }
        }
    }
    found
}

fn base(client: &Http) -> String {
    client.base().rsplit_once('/').unwrap().0.to_owned()
}

/// A well-formed credential of this member.
fn daypass_credential(member: &NewMember) -> String {
    use daypass::domain::{member::Credential, member_id::MemberId};
    Credential::new(MemberId::parse(&member.id).unwrap(), &[7; 32]).expose().to_owned()
}

#[test]
fn cross_site_request_with_basic_credentials_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let verbs = ["create", "list", "get", "update", "delete"];
    let resources = ["members", "members/credentials", "members/kubeconfigs"];
    let caller = cluster.with_privilege(cluster.caller(daypass, &verbs, &resources, Some(&role)), "generate");
    let member = NewMember::new(&caller, &role, 1);
    let pat = AccessToken::new(&caller, &SCOPES);
    let operations = operations(&caller, &member, &pat);
    assert!(operations.len() >= 22, "{}", operations.len());
    let count = |wanted: &dyn Fn(&Operation) -> bool| operations.iter().filter(|it| wanted(it)).count();
    assert!(count(&|it| it.method == "POST") >= 5 && count(&|it| it.path.ends_with("/kubeconfig")) == 1);

    for Operation { method, path, right, made_up } in &operations {
        for headers in hostile(daypass) {
            let answer = send(right, method, path, &headers);
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}: {}", answer.text);
            answer.problem(403, REFUSED);
            // Daypass refuses them before it looks anything up.
            send(made_up, method, path, &headers).problem(403, REFUSED);
        }
        let bytes = right.request(method, path).header(ORIGIN, HeaderValue::from_bytes(b"\xff").unwrap());
        Answer::of(bytes).problem(403, REFUSED);
        if !path.ends_with("/kubeconfig") {
            send(right, method, path, &link()).problem(403, REFUSED);
        }
        for headers in friendly(daypass) {
            let answer = send(made_up, method, path, &headers);
            assert_eq!(answer.status, 401, "{method} {path} {headers:?}: {}", answer.text);
            answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
        // A browser adds no bearer token by itself, so its origin does not matter.
        let foreign = headers(&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]);
        send(&caller.with_token("garbage"), method, path, &foreign).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    // Nothing has changed.
    assert_eq!(caller.get(&member.path("")).expect(200).json()["status"], "ACTIVE");
    assert_eq!(member.listed(&member.engineer), [""; 0]);
    assert!(caller.get(&pat.path()).expect(200).json().get("lastUsedAt").is_none());
    assert_eq!(caller.token_ids(""), [pat.id.as_str()]);
    assert_eq!(daypass.audit(&member.id).len(), 1, "its creation");
    let events = daypass.audit_events();
    let event = events.iter().find(|event| event["reason"] == REFUSED).unwrap();
    assert_eq!((&event["event"], &event["sourceAddress"]), (&json!("AUTH_FAILED"), &json!("127.0.0.1")));
    // Daypass's own pages may call everything.
    for headers in friendly(daypass) {
        let client = caller.with_basic(&pat.id, &pat.secret);
        assert_eq!(send(&client, "GET", "/tokens/self", &headers).expect(200).json()["id"], pat.id.as_str());
        let session: Value = send(&client, "POST", "/sessions", &headers).expect(201).json();
        assert_eq!(session["tokenId"], pat.id.as_str());
    }
}

#[test]
fn kubeconfig_link_works_and_embedding_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let url = member.body["credentials"]["kubeconfigUrl"].as_str().unwrap();
    // A browser first asks without credentials. The redirect to the console is followed.
    let asked = send(&daypass.owner.anonymous(), "GET", url, &link()).expect(200);
    assert!(asked.text.contains(&format!("value=\"{}\"", member.id)), "the form to sign in, with the user name");
    for (n, site) in ["cross-site", "same-site", "none", "same-origin"].into_iter().enumerate() {
        let answer = send(&member.engineer, "GET", url, &fetch(site, "navigate", "document")).expect(200);
        assert!(answer.header("content-disposition").starts_with("attachment"));
        assert_eq!(member.listed(&member.engineer).len(), n + 1);
    }
    let mut refused = Vec::new();
    for dest in ["image", "iframe", "frame", "object", "embed", "empty", "script", "style", "video", "worker", ""] {
        refused.push(fetch("cross-site", "navigate", dest));
        refused.push(fetch("cross-site", "no-cors", dest));
    }
    for mode in ["cors", "no-cors", "same-origin", "websocket", ""] {
        refused.push(fetch("cross-site", mode, "document"));
    }
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
        ("origin", "https://chat.example"),
        ("origin", "null"),
    ] {
        refused.push([link(), headers(&[(name, value)])].concat());
    }
    refused.push(headers(&[("sec-fetch-mode", "navigate"), ("sec-fetch-site", "cross-site")]));
    for headers in refused {
        let answer = send(&member.engineer, "GET", url, &headers);
        assert_eq!(answer.status, 403, "{headers:?}: {}", answer.text);
        answer.problem(403, REFUSED);
    }
    for path in ["/me", "/kubeconfigs"] {
        send(&member.engineer, "GET", &member.path(path), &link()).problem(403, REFUSED);
    }
    send(&member.engineer, "DELETE", &member.path("/me"), &link()).problem(403, REFUSED);
    assert_eq!(member.listed(&member.engineer).len(), 4);
}
