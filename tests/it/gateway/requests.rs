//! What is forwarded, and as whom.

use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use super::limits::at;
use super::{Gateways, Running, config_map};
use crate::support::{eventually, plain_client};

const LIST: &str = "/api/v1/namespaces/default/configmaps";

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
fn member_of_minutes_gets_a_kubeconfig() {
    let gateways = Gateways::shared();
    let guest = gateways.member_for(&gateways.role(), "brief", 300);
    assert_eq!(guest.api.get("/api/v1/namespaces/default/configmaps").expect(200).json()["kind"], "ConfigMapList");
}

#[test]
fn last_quarter_of_an_hour_has_a_warning() {
    let gateways = Gateways::shared();
    let role = gateways.role();
    let guest = gateways.member_for(&role, "ending", 800);
    let end = guest.member.engineer.get(&guest.member.path("/me")).expect(200).json()["expiresAt"].clone();
    let text = format!("this membership ends at {}", end.as_str().unwrap());
    for path in [LIST, &format!("{LIST}?watch=1&timeoutSeconds=1")] {
        assert_eq!(guest.api.get(path).expect(200).header("warning"), format!("299 - \"{text}\""));
    }
    let output = gateways.cluster.kubectl_with(&guest.file, &["get", "configmaps", "-n", "default"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("Warning: {text}")), "{output:?}");
    assert_eq!(gateways.member(&role).api.get(LIST).expect(200).header("warning"), "");
}

/// The writes to a Member's status that the API server has accepted.
fn status_writes(gateways: &Gateways, member: &str) -> usize {
    let log = std::fs::read_to_string(gateways.cluster.plane.audit_log()).unwrap();
    let path = format!("/members/{member}/status");
    let of_it = log.lines().filter(|line| line.contains(&path) && line.contains("ResponseComplete"));
    // The last line may be incomplete.
    let events = of_it.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["verb"] == "patch" && event["responseStatus"]["code"] == 200).count()
}

#[test]
fn use_is_recorded_once_in_ten_minutes_and_no_request_fails_by_it() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let (owner, name) = (&gateways.first.owner, guest.member.name());
    let listed = || owner.get(&guest.member.path("/kubeconfigs")).expect(200).json()["items"][0].clone();
    assert_eq!((&listed()["mode"], &listed()["lastUsedAt"]), (&json!("GATEWAY"), &Value::Null));
    // It was issued a moment ago.
    let before = eventually("its record is written", || match status_writes(gateways, name) {
        0 | 1 => None,
        writes => Some(writes),
    });
    let apis = [&gateways.first, &gateways.second].map(|daypass| at(&guest, daypass, gateways.cluster));
    let use_all = || {
        thread::scope(|scope| {
            let asked: Vec<_> = apis.iter().cycle().take(16).map(|api| scope.spawn(|| api.get(LIST).status)).collect();
            assert!(asked.into_iter().all(|asked| asked.join().unwrap() == 200));
        });
    };
    use_all();
    eventually("the use is recorded", || listed()["lastUsedAt"].is_string().then_some(()));
    use_all();
    // Its end is a write, too. Any other would come before it, or fail.
    owner.delete(&guest.member.path("")).expect(204);
    eventually("its end is written", || (status_writes(gateways, name) >= before + 2).then_some(()));
    assert_eq!(status_writes(gateways, name), before + 2);
    // However many requests wait, each replica mints one token.
    for daypass in [&gateways.first, &gateways.second] {
        let minted = daypass.event_kinds(&guest.member.id).into_iter().filter(|kind| kind == "GATEWAY_TOKEN_MINTED");
        assert_eq!(minted.count(), 1);
    }
}

#[test]
fn answers_pass_unchanged() {
    let gateways = Gateways::shared();
    let (cluster, guest) = (gateways.cluster, gateways.member(&gateways.role()));
    for path in
        ["/api", "/apis", "/version", "/openapi/v2", "/api/v1/namespaces/default/configmaps?limit=1", "/healthz"]
    {
        let is_fixed = path != "/api/v1/namespaces/default/configmaps?limit=1";
        // Other tests create and remove types.
        let (direct, through) = eventually("the answer stays the same meanwhile", || {
            let (before, through, after) = (cluster.api.get(path), guest.api.get(path), cluster.api.get(path));
            (before.text == after.text || !is_fixed).then_some((before, through))
        });
        assert_eq!((through.status, through.header("content-type")), (direct.status, direct.header("content-type")));
        if is_fixed {
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
        // The last line may be incomplete.
        lines.find_map(|line| serde_json::from_str(line).ok())
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
