//! Programs that others wrote, through the gateway: they work, and at the end they are cut and say why.
//! `make test-clients` installs them.

mod kubelet;
mod libraries;
mod nginx;
mod rolling;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use daypass_local::Tools;
use reqwest::blocking::Response;
use serde_json::{Value, json};

use super::causes::EARLY as REASON;
use super::{Gateways, Guest, Running, config_map};
use crate::support::{Answer, Role};

/// The path in an environment variable that `make test-clients` sets.
#[track_caller]
fn installed(variable: &str) -> PathBuf {
    let path = env::var_os(variable).unwrap_or_else(|| {
        panic!("the environment variable {variable} must name the program: use `make test-clients`, which installs it")
    });
    PathBuf::from(path)
}

/// A file in tests/clients.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a program to its end. Returns its status and what it has printed.
fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().unwrap_or(-1), text)
}

/// Runs a program that must succeed. Returns what it has printed.
#[track_caller]
fn succeed(command: &mut Command) -> String {
    let (status, text) = run(command);
    assert_eq!(status, 0, "{command:?}: {text}");
    text
}

impl Guest {
    /// Ends the membership early.
    #[track_caller]
    fn end(&self, gateways: &Gateways) {
        gateways.first.owner.delete(&self.member.path("")).expect(204);
    }
}

#[track_caller]
fn kubectl_works_and_is_cut(program: &Path, version: &str) {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let cache = gateways.cluster.fresh_folder("kubectl-cache");
    let kubectl = |args: &[&str]| {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &guest.file).env("KUBECACHEDIR", &cache).args(args);
        command
    };
    let versions = succeed(&mut kubectl(&["version"]));
    assert!(versions.contains(&format!("Client Version: {version}")) && versions.contains("Server Version"));
    assert!(succeed(&mut kubectl(&["api-resources"])).contains("members"));
    assert!(succeed(&mut kubectl(&["explain", "configmaps.data"])).contains("map[string]string"));

    let name = format!("cm-{}", guest.member.name());
    let mut manifest = config_map(&name);
    for (data, done) in [("1", "created"), ("2", "configured")] {
        manifest["data"] = json!({"a": data});
        let manifest = gateways.cluster.save(&manifest.to_string());
        assert!(succeed(kubectl(&["apply", "-f"]).arg(manifest)).contains(done));
    }
    assert!(succeed(&mut kubectl(&["get", "configmaps", "-n", "default"])).contains(&name));
    let wait = |data: &str, timeout: &str| {
        let (data, timeout) = (format!("--for=jsonpath={{.data.a}}={data}"), format!("--timeout={timeout}"));
        kubectl(&["wait", &format!("configmap/{name}"), "-n", "default", &data, &timeout])
    };
    assert!(succeed(&mut wait("2", "60s")).contains("condition met"));
    // kubernetes/kubernetes#120282: through some proxies it waits forever.
    let (status, text) = run(&mut wait("3", "1s"));
    assert!(status == 1 && text.contains("timed out waiting"), "{status}: {text}");

    watch_is_cut(gateways, &guest, &name, kubectl);
}

/// Ends the member while `kubectl get -w` shows this ConfigMap, and checks that both it and the next command say why.
#[track_caller]
fn watch_is_cut(gateways: &Gateways, guest: &Guest, name: &str, kubectl: impl Fn(&[&str]) -> Command) {
    let watch = Running::of(gateways.cluster, kubectl(&["get", "configmaps", "-w", "-n", "default"]));
    watch.wait_for(name);
    guest.end(gateways);
    let (_, output) = watch.ended();
    let row = output.lines().find(|line| line.starts_with("Failure")).unwrap_or_else(|| panic!("{output}"));
    assert!(row.contains(REASON), "{output}");
    let (status, text) = run(&mut kubectl(&["get", "configmaps", "-n", "default"]));
    assert!(status == 1 && text.contains(REASON), "{status}: {text}");
}

#[test]
#[ignore = "needs `make test-clients`"]
fn old_kubectl_works_and_is_cut() {
    kubectl_works_and_is_cut(&installed("OLD_KUBECTL"), "v1.28.");
}

#[test]
#[ignore = "needs `make test-clients`"]
fn new_kubectl_works_and_is_cut() {
    kubectl_works_and_is_cut(&installed("NEW_KUBECTL"), "v1.37.");
}

/// A role whose members may do what helm does in one namespace: releases are Secrets.
fn releaser(gateways: &Gateways, namespace: &str) -> Role {
    gateways.cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    gateways.cluster.role_of(&json!({
        "description": "A test's", "namespaces": [namespace],
        "rules": [{"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": verbs}],
    }))
}

#[test]
#[ignore = "needs `make test-clients`"]
fn helm_works_and_is_refused_at_the_end() {
    let gateways = Gateways::shared();
    let namespace = "helm-releases";
    let guest = gateways.member(&releaser(gateways, namespace));
    let chart = gateways.cluster.fresh_folder("chart");
    fs::create_dir(chart.join("templates")).unwrap();
    fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: tiny\nversion: 1.0.0\n").unwrap();
    fs::write(chart.join("values.yaml"), "a: one\n").unwrap();
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tiny}\ndata: {a: {{ .Values.a }}}\n";
    fs::write(chart.join("templates/tiny.yaml"), template).unwrap();

    let home = gateways.cluster.fresh_folder("helm");
    let helm = |args: &[&str]| {
        let mut command = Command::new(Tools::helm().unwrap());
        command.env("KUBECONFIG", &guest.file).env("HOME", &home).args(args).args(["-n", namespace]);
        command
    };
    let installed = || gateways.cluster.object(namespace, "configmap", "tiny").map(|map| map["data"]["a"].clone());
    succeed(helm(&["install", "tiny", "--wait", "--timeout=120s"]).arg(&chart));
    assert_eq!(installed(), Some(json!("one")));
    succeed(helm(&["upgrade", "tiny", "--set=a=two", "--wait", "--timeout=120s"]).arg(&chart));
    assert_eq!(installed(), Some(json!("two")));
    assert!(succeed(&mut helm(&["list"])).contains("tiny-1.0.0"));
    succeed(&mut helm(&["rollback", "tiny", "1"]));
    assert_eq!(installed(), Some(json!("one")));
    succeed(&mut helm(&["uninstall", "tiny"]));
    assert_eq!(installed(), None);

    guest.end(gateways);
    let (status, text) = run(helm(&["install", "tiny"]).arg(&chart));
    assert!(status != 0 && text.contains(REASON), "{status}: {text}");
    assert_eq!(installed(), None);
}

/// k9s asks for tables in lists, and watches everything that it shows at once.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json";

#[test]
#[ignore = "needs `make test-clients`"]
fn requests_of_k9s_work_and_its_watches_are_cut() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    assert!(guest.api.get("/version").expect(200).json()["gitVersion"].is_string());
    assert_eq!(guest.api.get("/api").expect(200).json()["kind"], "APIVersions");
    let groups = guest.api.get("/apis").expect(200).json();
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "daypass.dev"), "{groups}");

    let may = |resource: &str| {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "list", "resource": resource}},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        guest.api.post(path, &review).expect(201).json()["status"]["allowed"].clone()
    };
    assert_eq!((may("pods"), may("secrets")), (json!(true), json!(false)));

    let paths = ["/api/v1/namespaces", "/api/v1/pods", "/api/v1/configmaps", "/api/v1/namespaces/default/configmaps"];
    let ask = |path: &str| guest.api.request("GET", path).header("accept", TABLE);
    let versions = paths.map(|path| {
        let table = Answer::of(ask(&format!("{path}?limit=500"))).expect(200).json();
        assert_eq!(table["kind"], "Table", "{path}");
        table["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    });
    let mut watches: Vec<Response> = Vec::new();
    for (path, version) in paths.iter().zip(versions) {
        for query in ["", "&allowWatchBookmarks=true&timeoutSeconds=3000"] {
            let watch = ask(&format!("{path}?watch=true&resourceVersion={version}{query}")).send().unwrap();
            assert_eq!(watch.status(), 200, "{path}");
            watches.push(watch);
        }
    }
    // They are open at the same time, and do not keep others waiting.
    guest.api.get("/api/v1/namespaces/default/configmaps").expect(200);
    guest.end(gateways);
    for watch in watches {
        let text = watch.text().unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap();
        assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(401)), "{text}");
        assert!(last["object"]["message"].as_str().unwrap().contains(REASON), "{text}");
    }
}
