//! The chart, installed by helm and by a GitOps controller.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use daypass_local::{Chart, ControlPlane, Options, RELEASE, Tools, fresh_state_dir};
use serde_json::{Value, json};

use super::sso::{issuer, with_issuers};
use crate::support::{Cluster, DAYPASS, Daypass, Launch, eventually};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/charts/daypass");

/// Go modules with the CRDs of objects that the chart can render. The go command checks their checksums.
const CRDS: [(&str, &str); 2] = [
    ("sigs.k8s.io/gateway-api@v1.6.3", "config/crd/standard"),
    ("github.com/cert-manager/cert-manager@v1.19.1", "deploy/crds"),
];

/// Values that render everything except the Prometheus operator's objects, whose CRDs no small module has.
fn everything(cluster: &Cluster) -> Value {
    let mut values = cluster.values();
    let more = json!({
        "replicas": 2,
        "server": {"publicUrl": "https://daypass.example.com"},
        "tls": {"certManager": {"enabled": true, "issuerRef": {"name": "ca"}}, "caKey": "ca.crt"},
        "ingress": {"enabled": true, "className": "nginx", "tlsSecretName": "edge"},
        "httpRoute": {"enabled": true, "parentRefs": [{"name": "edge", "namespace": "gateways"}],
                      "backendTLSPolicy": {"caConfigMap": "ca"}},
        "tlsRoute": {"enabled": true, "parentRefs": [{"name": "edge", "sectionName": "tls"}]},
        "networkPolicy": {"enabled": true, "apiFrom": [{"namespaceSelector": {}}],
                          "metricsFrom": [{"podSelector": {}}],
                          "egress": [{"ports": [{"port": 6443, "protocol": "TCP"}]}]},
    });
    for (key, value) in more.as_object().unwrap() {
        values[key] = value.clone();
    }
    let mut issuer = issuer();
    issuer["caConfigMap"] = json!("id-ca");
    with_issuers(values, &json!([issuer]))
}

fn folder_of(module: &str) -> PathBuf {
    let output = Command::new("go").args(["mod", "download", "-json", module]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["Dir"].as_str().unwrap_or_else(|| panic!("{module}: {answer}")).into()
}

fn install_crds(cluster: &Cluster) {
    for (module, folder) in CRDS {
        let folder = folder_of(module).join(folder);
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
            if fs::read_to_string(&file).unwrap().contains("kind: CustomResourceDefinition") {
                cluster.kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
            }
        }
    }
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=180s"]);
}

/// Runs kubectl on these manifests.
fn kubectl_on(cluster: &Cluster, args: &[&str], manifests: &str) -> Output {
    let file = cluster.fresh_folder("manifests").join("all.yaml");
    fs::write(&file, manifests).unwrap();
    let mut command = cluster.plane.kubectl();
    command.args(args).arg("-f").arg(file).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

/// The objects of the manifests as stored by the API server.
fn live(cluster: &Cluster, manifests: &str) -> Vec<Value> {
    let list = succeeds(&kubectl_on(cluster, &["get", "--show-managed-fields=false", "-o", "json"], manifests));
    serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().clone()
}

pub(super) fn objects(manifests: &str) -> Vec<Value> {
    serde_yaml::from_multiple::<Value>(manifests).unwrap().into_iter().filter(|object| !object.is_null()).collect()
}

#[test]
fn installed_objects_match_the_rendered_chart() {
    let cluster = Cluster::own();
    install_crds(&cluster);
    let values = everything(&cluster);
    cluster.upgrade(&values);
    let rendered = cluster.chart.render(&cluster.plane, &values, &[]).unwrap();

    // Argo CD and Flux compare by such a diff. kubectl exits with 1 if there is a difference.
    for args in [&["diff"][..], &["diff", "--server-side", "--force-conflicts", "--field-manager=gitops"]] {
        assert_eq!(succeeds(&kubectl_on(&cluster, args, &rendered)), "");
    }

    // A GitOps controller applies it again and again. Only the first time may change anything.
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=gitops"];
    succeeds(&kubectl_on(&cluster, &apply, &rendered));
    let versions = |cluster: &Cluster| -> Vec<Value> {
        // Controllers change statuses; only an apply changes a generation.
        let of =
            |object: &Value| json!([object["kind"], object["metadata"]["name"], object["metadata"]["generation"]]);
        live(cluster, &rendered).iter().map(of).collect()
    };
    let first = versions(&cluster);
    succeeds(&kubectl_on(&cluster, &apply, &rendered));
    assert_eq!(versions(&cluster), first);
    assert_eq!(succeeds(&kubectl_on(&cluster, &["diff", "--server-side", "--field-manager=gitops"], &rendered)), "");

    // Older controllers compare field by field, as written: to them 2000 is not 2k. They do not know a CRD's defaults
    // either, so the chart sets every default of such an object.
    let mut stored = live(&cluster, &rendered);
    for object in objects(&rendered) {
        let same = |other: &Value| {
            ["apiVersion", "kind"].iter().all(|key| other[key] == object[key])
                && ["name", "namespace"].iter().all(|key| other["metadata"][key] == object["metadata"][key])
        };
        let at = stored.iter().position(same).unwrap_or_else(|| panic!("{object}"));
        let stored = stored.swap_remove(at);
        let mut differences = Vec::new();
        compare(&object, &stored, &format!("{}", object["kind"]), &mut differences);
        assert!(differences.is_empty(), "{differences:#?}");
        let version = object["apiVersion"].as_str().unwrap();
        if version.starts_with("gateway.networking.k8s.io/") || version.starts_with("cert-manager.io/") {
            assert_eq!(stored["spec"], object["spec"]);
        }
    }
}

/// Finds the rendered fields that differ from the stored ones. The API server may add fields.
fn compare(rendered: &Value, stored: &Value, path: &str, differences: &mut Vec<String>) {
    match (rendered, stored) {
        (Value::Object(fields), Value::Object(_)) => {
            for (key, field) in fields {
                compare(field, &stored[key], &format!("{path}.{key}"), differences);
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (item, other) in items.iter().zip(others) {
                compare(item, other, &format!("{path}[]"), differences);
            }
        }
        _ if rendered == stored => {}
        _ => differences.push(format!("{path}: {rendered} is stored as {stored}")),
    }
}

#[test]
fn rendered_chart_can_be_applied_without_helm() {
    // Names that YAML would read as numbers and booleans.
    let (release, namespace) = ("20240115", "12345");
    let state = fresh_state_dir(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let plane = ControlPlane::start(&Tools::find_or_build().unwrap(), &state, Options::default()).unwrap();
    let values = json!({
        "dataPlane": {"id": "1e3", "server": "https://a", "tlsServerName": "a: b # c"},
        "server": {"publicUrl": "https://b", "tokenAudience": "no"},
        "managers": [{"kind": "ServiceAccount", "namespace": "on", "name": "20240115"}],
    });
    let file = state.join("all.yaml");
    fs::write(&file, values.to_string()).unwrap();
    let mut helm = Chart::new(Path::new(CHART)).unwrap().helm(&plane);
    helm.args(["template", release, CHART, "--namespace", namespace, "--skip-tests", "--values"]).arg(&file);
    fs::write(&file, succeeds(&helm.output().unwrap())).unwrap();
    succeeds(&plane.kubectl().args(["create", "namespace", namespace]).output().unwrap());
    let kubectl = |args: &[&str]| {
        succeeds(&plane.kubectl().args(args).arg("--server-side").arg("-f").arg(&file).output().unwrap())
    };
    kubectl(&["apply"]);
    assert_eq!(kubectl(&["diff"]), "");
}

#[test]
fn pods_meet_the_restricted_profile() {
    let cluster = Cluster::exclusive();
    let mut values = cluster.values();
    values["replicas"] = json!(1);
    cluster.kubectl(&["label", "namespace", RELEASE, "pod-security.kubernetes.io/enforce=restricted"]);
    cluster.upgrade(&values);
    eventually("the pod is admitted", || (!cluster.names(RELEASE, "pods").is_empty()).then_some(()));

    let test = cluster.chart.render_tests(&cluster.plane, &values).unwrap();
    let admitted = cluster.apply(&test);
    assert!(admitted.contains("pod/daypass-test created"), "{admitted}");

    cluster.kubectl(&["delete", "pod", "daypass-test", "-n", RELEASE, "--now"]);
    cluster.kubectl(&["label", "namespace", RELEASE, "pod-security.kubernetes.io/enforce-"]);
    cluster.upgrade(&cluster.values());
}

#[test]
fn crds_are_upgraded_with_the_chart_and_survive_uninstall() {
    let cluster = Cluster::own();
    let keep = |cluster: &Cluster| cluster.object("", "crd", "members.daypass.dev").expect("the CRD");
    let id = keep(&cluster)["metadata"]["uid"].clone();

    let newer = cluster.fresh_folder("chart").join("daypass");
    copy(Path::new(CHART), &newer);
    let file = newer.join("files/members.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("Why the membership exists."));
    fs::write(&file, text.replace("Why the membership exists.", "Newer than that.")).unwrap();
    Chart::new(&newer).unwrap().install(&cluster.plane, &cluster.values()).unwrap();
    assert!(keep(&cluster)["spec"].to_string().contains("Newer than that."));

    let uninstall =
        || cluster.chart.helm(&cluster.plane).args(["uninstall", RELEASE, "-n", RELEASE]).output().unwrap();
    let said = succeeds(&uninstall());
    assert!(said.contains("members.daypass.dev"), "{said}");
    assert_eq!(keep(&cluster)["metadata"]["uid"], id);

    // A new release adopts the CRD, restores this version, and removes it on uninstall with `crds.keep: false`.
    eventually("the roles are gone", || {
        let namespaces = cluster.list("", "namespace");
        let is_left = |it: &Value| it["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm";
        (!namespaces.iter().any(is_left)).then_some(())
    });
    let mut values = cluster.values();
    values["crds"] = json!({"keep": false});
    cluster.upgrade(&values);
    assert_eq!(keep(&cluster)["metadata"]["uid"], id);
    assert!(!keep(&cluster)["spec"].to_string().contains("Newer than that."));
    succeeds(&uninstall());
    eventually("the CRD is gone", || cluster.object("", "crd", "members.daypass.dev").is_none().then_some(()));
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
fn role_added_by_upgrade_works_without_restart() {
    let cluster = Cluster::exclusive();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let offered = || -> BTreeSet<String> {
        let roles = daypass.owner.get("/members/roles").expect(200).json();
        let roles = roles.as_array().or_else(|| roles["items"].as_array()).unwrap().clone();
        roles.iter().map(|role| role["id"].as_str().unwrap().to_owned()).collect()
    };
    let body = json!({"duration": "1", "roleId": "added"});
    let before = offered();
    let certificate = cluster.serving_certificate();
    assert!(!before.contains("added"));
    daypass.owner.post("/members", &body).expect(400);

    let mut values = cluster.values();
    values["roles"] = json!({"added": {
        "name": "Added later", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
    }});
    cluster.upgrade(&values);
    eventually("Daypass offers the role", || offered().contains("added").then_some(()));
    let member = daypass.owner.post("/members", &body).expect(201).json();
    let engineer =
        daypass.owner.with_basic(member["id"].as_str().unwrap(), member["credentials"]["password"].as_str().unwrap());
    let kubeconfig = engineer.get(&format!("/members/{}/kubeconfig", member["id"].as_str().unwrap())).expect(200).text;
    let kubeconfig = cluster.save(&kubeconfig);
    assert!(cluster.kubectl_with(&kubeconfig, &["get", "pods", "-n", "default"]).status.success());
    assert!(!cluster.kubectl_with(&kubeconfig, &["get", "configmaps", "-n", "default"]).status.success());

    assert_eq!(cluster.serving_certificate(), certificate, "the self-signed pair is kept");
    // The policies cover the new role.
    let stray = ["create", "serviceaccount", "stray", "-n", "daypass-added", "--dry-run=server"];
    let refused = cluster.try_kubectl(&[&stray[..], &[&format!("--as={DAYPASS}")]].concat());
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("Daypass (policy daypass-role-serviceaccounts)"), "{error}");

    // Removed from the values: Daypass no longer offers it and ends its members.
    cluster.upgrade(&cluster.values());
    eventually("Daypass no longer offers the role", || (offered() == before).then_some(()));
    eventually("its members are gone", || {
        let answer = daypass.owner.get(&format!("/members/{}", member["id"].as_str().unwrap()));
        (answer.status == 404).then_some(())
    });
    daypass.owner.post("/members", &body).expect(400);
    eventually("its kubeconfig is refused", || {
        (!cluster.kubectl_with(&kubeconfig, &["get", "pods", "-n", "default"]).status.success()).then_some(())
    });
    daypass.stop();
}

#[test]
fn role_removed_with_enabled_false_stays_removed() {
    let cluster = Cluster::exclusive();
    let mut values = cluster.values();
    values["roles"] = json!({"removed": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}]}});
    cluster.upgrade(&values);
    let reuse = |set: &str| {
        let mut helm = cluster.chart.helm(&cluster.plane);
        helm.args(["upgrade", RELEASE, CHART, "-n", RELEASE, "--reuse-values", "--set", set]);
        succeeds(&helm.output().unwrap());
        cluster.object("", "clusterrole", "daypass-role-removed").is_some()
    };
    // Helm drops a null here, so the chart cannot see it.
    assert!(reuse("roles.removed=null"));
    assert!(!reuse("roles.removed.enabled=false"));
    assert!(!reuse("logFormat=text"));
    let namespace = || cluster.object("", "namespace", "daypass-removed");
    eventually("its namespace is gone", || namespace().is_none().then_some(()));
    assert!(reuse("roles.removed.enabled=true"));
    cluster.upgrade(&cluster.values());
}

#[test]
fn alerts_and_dashboard_use_existing_metrics() {
    let (cluster, _) = Cluster::shared();
    let file = cluster.fresh_folder("oidc").join("issuers.yaml");
    let mut issuer = issuer();
    issuer["console"] = json!({"clientId": "daypass"});
    fs::write(&file, json!([issuer]).to_string()).unwrap();
    let file = format!("--oidc-issuers-file={}", file.display());
    let daypass = Daypass::with_args(cluster, &["--kubeconfig-mode=both", "--auth-methods=kubernetes,oidc", &file]);
    let mut values = with_issuers(cluster.values(), &json!([issuer]));
    let enabled = json!({"enabled": true});
    values["metrics"] = json!({"serviceMonitor": enabled, "prometheusRule": enabled, "dashboard": enabled});
    let templates = ["templates/metrics/prometheusrule.yaml", "templates/metrics/dashboard.yaml"];
    let rendered = cluster.chart.render(&cluster.plane, &values, &templates).unwrap();
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
