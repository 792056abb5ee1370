//! The chart, as helm and a GitOps controller put it into a real API server.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use daypass_local::{Chart, ControlPlane, Options, RELEASE, Tools, fresh_state_dir};
use serde_json::{Value, json};

use crate::support::{Daypass, Lab, Launch, eventually};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/charts/daypass");

/// Modules with the CRDs of what the chart can make. Their sums are checked by the go command.
const CRDS: [(&str, &str); 2] = [
    ("sigs.k8s.io/gateway-api@v1.6.3", "config/crd/standard"),
    ("github.com/cert-manager/cert-manager@v1.19.1", "deploy/crds"),
];

/// Everything that the chart can make, but for what the Prometheus operator reads: its CRDs are in no module of their own.
fn everything(lab: &Lab) -> Value {
    let mut values = lab.values();
    let more = json!({
        "replicas": 2,
        "server": {"publicUrl": "https://daypass.example.com"},
        "tls": {"certManager": {"enabled": true, "issuerRef": {"name": "ca"}}, "caKey": "ca.crt"},
        "ingress": {"enabled": true, "className": "nginx", "tlsSecretName": "edge"},
        "httpRoute": {"enabled": true, "parentRefs": [{"name": "edge", "namespace": "gateways"}],
                      "backendTLSPolicy": {"caConfigMap": "ca"}},
        "tlsRoute": {"enabled": true, "parentRefs": [{"name": "edge", "sectionName": "tls"}]},
        "networkPolicy": {"enabled": true, "apiFrom": [{"namespaceSelector": {}}], "metricsFrom": [{"podSelector": {}}],
                          "egress": [{"ports": [{"port": 6443, "protocol": "TCP"}]}]},
    });
    for (key, value) in more.as_object().unwrap() {
        values[key] = value.clone();
    }
    values
}

fn folder_of(module: &str) -> PathBuf {
    let output = Command::new("go").args(["mod", "download", "-json", module]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["Dir"].as_str().unwrap_or_else(|| panic!("{module}: {answer}")).into()
}

fn install_crds(lab: &Lab) {
    for (module, folder) in CRDS {
        let folder = folder_of(module).join(folder);
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
            if fs::read_to_string(&file).unwrap().contains("kind: CustomResourceDefinition") {
                lab.kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
            }
        }
    }
    lab.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
}

/// kubectl with these manifests on its standard input.
fn kubectl_on(lab: &Lab, args: &[&str], manifests: &str) -> Output {
    let file = lab.fresh_folder("manifests").join("all.yaml");
    fs::write(&file, manifests).unwrap();
    let mut command = lab.plane.kubectl();
    command.args(args).arg("-f").arg(file).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

/// The objects of the manifests, as the API server has them.
fn live(lab: &Lab, manifests: &str) -> Vec<Value> {
    let list = succeeds(&kubectl_on(lab, &["get", "--show-managed-fields=false", "-o", "json"], manifests));
    serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().clone()
}

fn objects(manifests: &str) -> Vec<Value> {
    serde_yaml::from_multiple::<Value>(manifests).unwrap().into_iter().filter(|object| !object.is_null()).collect()
}

#[test]
fn what_is_installed_is_what_is_rendered() {
    let lab = Lab::private();
    install_crds(&lab);
    let values = everything(&lab);
    lab.upgrade(&values);
    let rendered = lab.chart.render(&lab.plane, &values, &[]).unwrap();

    // As Argo CD and Flux compare: what an apply would change. kubectl ends with 1 where there is a difference.
    for args in [&["diff"][..], &["diff", "--server-side", "--force-conflicts", "--field-manager=gitops"]] {
        assert_eq!(succeeds(&kubectl_on(&lab, args, &rendered)), "");
    }

    // A GitOps controller applies it again and again: nothing changes after the first time.
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=gitops"];
    succeeds(&kubectl_on(&lab, &apply, &rendered));
    let versions = |lab: &Lab| -> Vec<Value> {
        // The controllers' own objects move on by themselves; a generation only by what is applied.
        let of = |object: &Value| json!([object["kind"], object["metadata"]["name"], object["metadata"]["generation"]]);
        live(lab, &rendered).iter().map(of).collect()
    };
    let first = versions(&lab);
    succeeds(&kubectl_on(&lab, &apply, &rendered));
    assert_eq!(versions(&lab), first);
    assert_eq!(succeeds(&kubectl_on(&lab, &["diff", "--server-side", "--field-manager=gitops"], &rendered)), "");

    // Older ones compare field by field, and do not know the defaults of a CRD: none of them is left to be filled in.
    let own = |object: &Value| {
        let version = object["apiVersion"].as_str().unwrap();
        version.starts_with("gateway.networking.k8s.io/") || version.starts_with("cert-manager.io/")
    };
    let specs = |objects: Vec<Value>| -> BTreeSet<String> {
        objects
            .iter()
            .filter(|object| own(object))
            .map(|object| format!("{} {}", object["kind"], object["spec"]))
            .collect()
    };
    let expected = specs(objects(&rendered));
    assert_eq!(expected.len(), 4, "{expected:?}");
    assert_eq!(specs(live(&lab, &rendered)), expected);
}

#[test]
fn it_can_be_applied_without_helm_in_one_go() {
    let state = fresh_state_dir(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let plane = ControlPlane::start(&Tools::find_or_build().unwrap(), &state, Options::default()).unwrap();
    let chart = Chart::new(Path::new(CHART)).unwrap();
    let values = json!({"dataPlane": {"id": "a", "server": "https://a"}, "server": {"publicUrl": "https://b"}});
    let file = state.join("all.yaml");
    fs::write(&file, chart.render(&plane, &values, &[]).unwrap()).unwrap();
    assert!(plane.kubectl().args(["create", "namespace", RELEASE]).status().unwrap().success());
    let kubectl = |args: &[&str]| {
        succeeds(&plane.kubectl().args(args).arg("--server-side").arg("-f").arg(&file).output().unwrap())
    };
    kubectl(&["apply"]);
    assert_eq!(kubectl(&["diff"]), "");
}

#[test]
fn pods_are_admitted_under_the_restricted_profile() {
    let lab = Lab::private();
    let mut values = lab.values();
    values["replicas"] = json!(1);
    lab.kubectl(&["label", "namespace", RELEASE, "pod-security.kubernetes.io/enforce=restricted"]);
    lab.upgrade(&values);
    eventually("the pod is admitted", || (!lab.names(RELEASE, "pods").is_empty()).then_some(()));

    let test = lab.chart.render_tests(&lab.plane, &values).unwrap();
    let admitted = lab.apply(&test);
    assert!(admitted.contains("pod/daypass-test created"), "{admitted}");
}

#[test]
fn the_crds_are_upgraded_with_the_chart_and_kept_by_an_uninstall() {
    let lab = Lab::private();
    let keep = |lab: &Lab| lab.object("", "crd", "members.daypass.dev").expect("the CRD");
    let id = keep(&lab)["metadata"]["uid"].clone();

    let newer = lab.fresh_folder("chart").join("daypass");
    copy(Path::new(CHART), &newer);
    let file = newer.join("files/members.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("What the membership is for."));
    fs::write(&file, text.replace("What the membership is for.", "Newer than that.")).unwrap();
    Chart::new(&newer).unwrap().install(&lab.plane, &lab.values()).unwrap();
    assert!(keep(&lab)["spec"].to_string().contains("Newer than that."));

    let uninstall = || lab.chart.helm(&lab.plane).args(["uninstall", RELEASE, "-n", RELEASE]).output().unwrap();
    let said = succeeds(&uninstall());
    assert!(said.contains("members.daypass.dev"), "{said}");
    assert_eq!(keep(&lab)["metadata"]["uid"], id);

    // It is taken over again, brought back to this version, and goes with the release where that is asked for.
    eventually("the roles are gone", || lab.object("", "namespace", "daypass-nodes-view").is_none().then_some(()));
    let mut values = lab.values();
    values["crds"] = json!({"keep": false});
    lab.upgrade(&values);
    assert_eq!(keep(&lab)["metadata"]["uid"], id);
    assert!(!keep(&lab)["spec"].to_string().contains("Newer than that."));
    succeeds(&uninstall());
    eventually("the CRD is gone", || lab.object("", "crd", "members.daypass.dev").is_none().then_some(()));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_role_that_an_upgrade_adds_can_be_given_without_a_restart() {
    let lab = Lab::private();
    let daypass = Daypass::start(&lab, &Launch::default());
    let offered = || -> BTreeSet<String> {
        let roles = daypass.owner.get("/members/roles").expect(200).json();
        let roles = roles.as_array().or_else(|| roles["items"].as_array()).unwrap().clone();
        roles.iter().map(|role| role["id"].as_str().unwrap().to_owned()).collect()
    };
    let body = json!({"duration": "1", "roleId": "added"});
    let before = offered();
    let certificate = lab.serving_certificate();
    assert!(!before.contains("added"));
    daypass.owner.post("/members", &body).expect(400);

    let mut values = lab.values();
    values["roles"] = json!({"added": {
        "name": "Added later", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
    }});
    lab.upgrade(&values);
    eventually("it is offered", || offered().contains("added").then_some(()));
    let member = daypass.owner.post("/members", &body).expect(201).json();
    let engineer =
        daypass.owner.with_basic(member["id"].as_str().unwrap(), member["credentials"]["password"].as_str().unwrap());
    let kubeconfig = engineer.get(&format!("/members/{}/kubeconfig", member["id"].as_str().unwrap())).expect(200).text;
    let kubeconfig = lab.save(&kubeconfig);
    assert!(lab.kubectl_with(&kubeconfig, &["get", "pods", "-n", "default"]).status.success());
    assert!(!lab.kubectl_with(&kubeconfig, &["get", "configmaps", "-n", "default"]).status.success());

    assert_eq!(lab.serving_certificate(), certificate, "the self-signed pair is kept");

    // Dropped again: not offered, and its members are gone.
    lab.upgrade(&lab.values());
    eventually("it is not offered", || (offered() == before).then_some(()));
    eventually("its members are gone", || {
        let answer = daypass.owner.get(&format!("/members/{}", member["id"].as_str().unwrap()));
        (answer.status == 404).then_some(())
    });
    daypass.owner.post("/members", &body).expect(400);
    eventually("its kubeconfig is refused", || {
        (!lab.kubectl_with(&kubeconfig, &["get", "pods", "-n", "default"]).status.success()).then_some(())
    });
}

#[test]
fn alerts_and_the_dashboard_name_metrics_that_there_are() {
    let (lab, daypass) = Lab::shared();
    let mut values = lab.values();
    let enabled = json!({"enabled": true});
    values["metrics"] = json!({"serviceMonitor": enabled, "prometheusRule": enabled, "dashboard": enabled});
    let templates = ["templates/metrics/prometheusrule.yaml", "templates/metrics/dashboard.yaml"];
    let rendered = lab.chart.render(&lab.plane, &values, &templates).unwrap();
    daypass.owner.get("/members").expect(200);
    let metrics = daypass.metrics();
    let mut named = BTreeSet::new();
    for rest in rendered.split("daypass_").skip(1) {
        named.insert(rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap());
    }
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        let line = format!("\ndaypass_{name}");
        assert!(metrics.contains(&format!("{line} ")) || metrics.contains(&format!("{line}{{")), "daypass_{name}");
    }
}
