//! Answers through the gateway are those of the API server, over HTTP/1.1 and HTTP/2.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use serde_json::{Value, json};

use super::{Gateways, config_map};
use crate::support::eventually;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ONE: &str = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
const TABLE: &str = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "Accept: application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "Accept: application/vnd.kubernetes.protobuf";

/// What differs between any two answers, and what the gateway sets or leaves out.
const OWN: [&str; 8] = [
    "audit-id",
    "content-security-policy",
    "x-content-type-options",
    "connection",
    "date",
    "transfer-encoding",
    "x-kubernetes-pf-flowschema-uid",
    "x-kubernetes-pf-prioritylevel-uid",
];

/// A request: its method, its path, a header and a body, which may be empty.
type Asked<'a> = (&'a str, &'a str, &'a str, &'a str);

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: String,
    headers: BTreeMap<String, Vec<String>>,
    body: String,
}

/// An address, and curl's options for it.
struct Server {
    base: String,
    options: Vec<String>,
}

impl Server {
    fn ask(&self, gateways: &Gateways, version: &str, (method, path, header, body): Asked<'_>) -> Seen {
        let folder = gateways.cluster.fresh_folder("curl");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--path-as-is", version]).args(&self.options);
        curl.arg("--output").arg(folder.join("body")).arg("--dump-header").arg(folder.join("head"));
        if method == "HEAD" {
            curl.arg("--head");
        } else {
            curl.args(["--request", method]);
        }
        if !header.is_empty() {
            curl.args(["--header", header]);
        }
        if !body.is_empty() {
            curl.args(["--data-binary", body]);
            if !header.starts_with("Content-Type") {
                curl.args(["--header", "Content-Type: application/json"]);
            }
        }
        let output = curl.arg(format!("{}{path}", self.base)).output().unwrap();
        assert!(output.status.success(), "{method} {path}: {}", String::from_utf8_lossy(&output.stderr));
        let head = fs::read_to_string(folder.join("head")).unwrap();
        let mut lines = head.lines().filter(|line| !line.is_empty());
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let mut headers = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in lines.map(|line| line.split_once(':').unwrap()) {
            headers.entry(name.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
        // Some documents of the API server are as new as each answer.
        let at = |name: &str| DateTime::parse_from_rfc2822(headers.get(name)?.first()?).ok();
        if at("last-modified").zip(at("date")).is_some_and(|(made, sent)| (sent - made).num_seconds() <= 30) {
            headers.insert("last-modified".to_owned(), vec!["now".to_owned()]);
        }
        headers.retain(|name, _| !OWN.contains(&name.as_str()));
        let body = if method == "HEAD" { Vec::new() } else { fs::read(folder.join("body")).unwrap_or_default() };
        Seen { status, headers, body: body.escape_ascii().to_string() }
    }
}

/// The API server, asked by its administrator.
fn direct(gateways: &Gateways) -> Server {
    let plane = &gateways.cluster.plane;
    let folder = gateways.cluster.fresh_folder("admin");
    let kubeconfig: Value = serde_yaml::from_str(&fs::read_to_string(plane.kubeconfig()).unwrap()).unwrap();
    let user = &kubeconfig["users"][0]["user"];
    let pem = ["client-certificate-data", "client-key-data"]
        .map(|field| STANDARD.decode(user[field].as_str().unwrap()).unwrap());
    fs::write(folder.join("pem"), pem.concat()).unwrap();
    fs::write(folder.join("ca"), plane.ca_pem()).unwrap();
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let options = vec!["--cacert".to_owned(), file("ca"), "--cert".to_owned(), file("pem")];
    Server { base: plane.server_url(), options }
}

#[test]
fn every_kind_of_answer_passes() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let folder = gateways.cluster.fresh_folder("member");
    fs::write(folder.join("ca"), gateways.cluster.serving_certificate()).unwrap();
    let options =
        ["--cacert", &format!("{}/ca", folder.display()), "--oauth2-bearer", &guest.token].map(str::to_owned);
    let through = Server { base: guest.api.base().to_owned(), options: options.into() };
    let direct = direct(gateways);

    let etag = |path: &str| direct.ask(gateways, "--http1.1", ("GET", path, "", "")).headers["etag"][0].clone();
    let unchanged = format!("If-None-Match: {}", etag("/openapi/v2"));
    let name = format!("never-{}", guest.member.name());
    let new = config_map(&name).to_string();
    let mut invalid = config_map(&name);
    invalid["metadata"]["name"] = json!("NOT/VALID");
    let invalid = invalid.to_string();
    let watch = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dkube-root-ca.crt");
    let old = format!("{watch}&resourceVersion=1");
    // The API server may end a watch before it has begun to say what there is.
    let bookmarks = format!(
        "{}&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        watch.replace("timeoutSeconds=1", "timeoutSeconds=10")
    );
    let legacy = "/api/v1/watch/namespaces/default/configmaps/kube-root-ca.crt?timeoutSeconds=1";
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    let applied = format!("{CONFIG_MAPS}/{name}?dryRun=All&fieldManager=a");
    // What the gateway answers, and what the API server does. Other tests change that, so it answers the same before
    // and after; of an answer that has times in its body, the headers do.
    let ask = |asked: Asked<'_>, has_times: bool| {
        eventually("nothing changes meanwhile", || {
            // The gateway speaks HTTP/1.1 to the API server.
            let before = direct.ask(gateways, "--http1.1", asked);
            let seen = ["--http1.1", "--http2"].map(|version| (version, through.ask(gateways, version, asked)));
            let after = direct.ask(gateways, "--http1.1", asked);
            let is_same = if has_times { after.headers == before.headers } else { after == before };
            let [(_, first), (_, second)] = &seen;
            let bodies = [first, second, &before, &after].map(|seen| seen.body.is_empty());
            // A watch of a second can end before its first event.
            let is_cut_short = asked.1.contains("watch") && bodies.contains(&true) && bodies.contains(&false);
            (is_same && !is_cut_short).then_some((seen, before))
        })
    };
    for asked in [
        ("GET", ONE, "", ""),
        ("GET", ONE, METADATA, ""),
        ("GET", ONE, PROTOBUF, ""),
        ("GET", ONE, "Accept: application/yaml", ""),
        ("GET", ONE, "Accept: application/cbor", ""),
        ("GET", ONE, "Accept: text/html", ""),
        ("HEAD", ONE, "", ""),
        ("HEAD", CONFIG_MAPS, "", ""),
        ("GET", "/openapi/v2", &unchanged, ""),
        ("GET", "/openapi/v2", "Accept-Encoding: gzip", ""),
        ("GET", "/openapi/v3", "", ""),
        ("GET", "/apis", "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", ""),
        ("GET", &format!("{ONE}?a=b;c=d&%zz"), "", ""),
        ("GET", "/version?", "Range: bytes=0-3", ""),
        ("POST", CONFIG_MAPS, "", "{"),
        ("POST", CONFIG_MAPS, "", &invalid),
        ("POST", CONFIG_MAPS, "Content-Type: text/plain", "a"),
        ("PUT", ONE, "", &new),
        ("PATCH", &applied, "Content-Type: application/apply-patch+yaml", "a: b"),
        ("DELETE", &format!("{CONFIG_MAPS}/missing"), "", "{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\"}"),
        ("GET", &watch, "", ""),
        ("GET", &watch.replace("watch=1", "watch=True"), "", ""),
        ("GET", &watch, PROTOBUF, ""),
        ("GET", &format!("{watch}&resourceVersion=0"), METADATA, ""),
        ("GET", &old, "", ""),
        ("GET", legacy, "", ""),
        ("HEAD", &watch, "", ""),
    ] {
        let (answers, expected) = ask(asked, false);
        for (version, seen) in answers {
            assert_eq!(seen, expected, "{asked:?} {version}");
        }
    }
    // These have times and versions in their bodies.
    for (asked, status, has) in [
        (("POST", dry.as_str(), "", new.as_str()), "201", "creationTimestamp"),
        (
            ("PATCH", applied.as_str(), "Content-Type: application/apply-patch+yaml", new.as_str()),
            "201",
            "creationTimestamp",
        ),
        (("GET", ONE, TABLE, ""), "200", "kube-root-ca.crt"),
        (("GET", watch.as_str(), TABLE, ""), "200", "kube-root-ca.crt"),
        (("GET", bookmarks.as_str(), "", ""), "200", "k8s.io/initial-events-end"),
        (("GET", bookmarks.as_str(), PROTOBUF, ""), "200", "k8s.io/initial-events-end"),
    ] {
        let (answers, expected) = ask(asked, true);
        for (version, seen) in answers {
            assert_eq!((seen.status.as_str(), &seen.headers), (status, &expected.headers), "{asked:?} {version}");
            assert!(seen.body.contains(has), "{asked:?} {version}: {}", seen.body);
        }
    }
}
