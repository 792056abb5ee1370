//! What is forwarded, and as whom.

use std::process::Command;

use serde_json::json;

use super::{Gateways, Running, config_map};
use crate::support::{eventually, plain_client};

#[test]
fn kubectl_works_as_against_the_api_server() {
    let gateways = Gateways::shared();
    let (cluster, guest) = (gateways.cluster, gateways.member(&gateways.role()));
    let kubectl = |args: &[&str]| {
        let output = cluster.kubectl_with(&guest.file, args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    assert!(kubectl(&["auth", "whoami"]).contains(&guest.username()));
    kubectl(&["get", "pods", "-A"]);
    let name = format!("cm-{}", guest.member.name());
    let manifest = cluster.save(&config_map(&name).to_string());
    kubectl(&["apply", "-f", manifest.to_str().unwrap()]);
    kubectl(&["patch", "configmap", &name, "-n", "default", "-p", r#"{"data":{"a":"1"}}"#]);
    assert_eq!(kubectl(&["get", "configmap", &name, "-n", "default", "-o", "jsonpath={.data.a}"]), "1");
    assert!(kubectl(&["explain", "configmaps"]).contains("ConfigMap"));
    assert!(kubectl(&["api-resources"]).contains("members"));
    kubectl(&["wait", &format!("configmap/{name}"), "-n", "default", "--for=jsonpath={.data.a}=1", "--timeout=60s"]);
    kubectl(&["delete", "configmap", &name, "-n", "default"]);
    let refused = cluster.kubectl_with(&guest.file, &["get", "secrets", "-n", "default"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains(&format!("User \"{}\" cannot list", guest.username())), "{text}");
}

#[test]
fn member_of_a_minute_gets_a_kubeconfig() {
    let gateways = Gateways::shared();
    let guest = gateways.member_for(&gateways.role(), "brief", 60);
    assert_eq!(guest.api.get("/api/v1/namespaces/default/configmaps").expect(200).json()["kind"], "ConfigMapList");
}

#[test]
fn answers_pass_unchanged() {
    let gateways = Gateways::shared();
    let (cluster, guest) = (gateways.cluster, gateways.member(&gateways.role()));
    for path in
        ["/api", "/apis", "/version", "/openapi/v2", "/api/v1/namespaces/default/configmaps?limit=1", "/healthz"]
    {
        let direct = cluster.api.get(path);
        let through = guest.api.get(path);
        assert_eq!((through.status, through.header("content-type")), (direct.status, direct.header("content-type")));
        if path != "/api/v1/namespaces/default/configmaps?limit=1" {
            assert_eq!(through.text, direct.text, "{path}");
        }
        assert_eq!(through.header("content-security-policy"), "sandbox");
        assert_eq!(through.header("x-content-type-options"), "nosniff");
    }
    // Errors too, with their body.
    let missing = guest.api.get("/api/v1/namespaces/default/configmaps/missing");
    assert_eq!((missing.status, missing.json()["reason"].clone()), (404, json!("NotFound")));
}

/// What the API server's audit log has of a request, by its path.
fn audited(gateways: &Gateways, path: &str) -> serde_json::Value {
    eventually("the request is in the API server's audit log", || {
        let log = std::fs::read_to_string(gateways.cluster.plane.audit_log()).unwrap();
        let mut lines = log.lines().filter(|line| line.contains(path) && line.contains("ResponseComplete"));
        lines.next().map(|line| serde_json::from_str(line).unwrap())
    })
}

#[test]
fn audit_trails_join_and_no_request_is_our_own() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let path = format!("/api/v1/namespaces/default/configmaps/joined-{}", guest.member.name());
    guest.api.get(&path).expect(404);
    let theirs = audited(gateways, &path);
    assert_eq!(theirs["user"]["username"], guest.username());
    assert_eq!(theirs["impersonatedUser"], serde_json::Value::Null);
    let ours = eventually("the request is in the audit trail", || {
        let events = gateways.first.audit(&guest.member.id);
        let is_it = |event: &&serde_json::Value| event["call"]["name"] == format!("joined-{}", guest.member.name());
        events.iter().find(is_it).cloned()
    });
    assert_eq!(ours["requestId"], theirs["auditID"]);
    assert_eq!((&ours["event"], &ours["call"]["verb"]), (&json!("REQUEST_FORWARDED"), &json!("get")));
    assert_eq!(theirs["sourceIPs"][0], "127.0.0.1");
}

#[test]
fn raw_path_reaches_the_api_server() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    // curl sends the path as it is.
    let folder = gateways.cluster.fresh_folder("curl");
    std::fs::write(folder.join("ca.pem"), gateways.cluster.serving_certificate()).unwrap();
    let name = guest.member.name();
    for rest in [format!("/api/v1/namespaces/default/configmaps/%2e%2e%2f{name}"), format!("/api//v1/../{name}?a=%26")]
    {
        let url = format!("{}{rest}", guest.api.base());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--path-as-is", "--cacert"]).arg(folder.join("ca.pem"));
        curl.args(["--oauth2-bearer", &guest.token, &url]);
        assert!(curl.output().unwrap().status.success());
        assert_eq!(audited(gateways, &rest)["requestURI"], rest);
    }
}

/// kubectl asks for a WebSocket, then for SPDY, and shows the second answer.
#[test]
fn refused_exec_shows_the_answer_of_the_api_server() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.executor());
    let pod = gateways.pod(&guest, None);
    let output = gateways.cluster.kubectl_with(&guest.file, &["exec", &pod, "-n", "default", "--", "a"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("does not have a host assigned"), "{text}");
}

/// `kubectl proxy` drops the path of the server's URL unless told otherwise.
#[test]
fn kubectl_proxy_works_with_the_path_of_the_url() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let proxy = Running::start(gateways.cluster, &guest.file, &["proxy", "--append-server-path", "--port=0"]);
    let started = "Starting to serve on ";
    proxy.wait_for(started);
    let output = proxy.output();
    let address = output.trim().strip_prefix(started).unwrap();
    let url = format!("http://{address}/api/v1/namespaces/default/configmaps");
    let answer = plain_client().get(url).send().unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().unwrap().contains("kube-root-ca.crt"));
}
