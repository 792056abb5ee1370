//! Clusters that are set up in another way: limits in every namespace, GitOps, IPv6, proxies.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use daypass_local::{Chart, RELEASE};
use serde_json::{Value, json};

use crate::cluster::clouds::assert_works;
use crate::support::{CHART, Cluster, Daypass, Launch, NewMember, eventually};

#[test]
fn pods_are_admitted_under_limits_and_the_restricted_profile_everywhere() {
    let cluster = Cluster::own();
    cluster.kubectl(&["label", "namespaces", "--all", "pod-security.kubernetes.io/enforce=restricted"]);
    let limits =
        json!([{"type": "Container", "max": {"memory": "512Mi"}, "default": {"cpu": "1", "memory": "512Mi"}}]);
    cluster.apply(&list(&[
        ("LimitRange", json!({"limits": limits})),
        (
            "ResourceQuota",
            json!({"hard": {"requests.cpu": "2", "limits.cpu": "4", "limits.memory": "2Gi", "pods": "4"}}),
        ),
    ]));
    let mut values = cluster.values();
    values["replicas"] = json!(2);
    values["imagePullSecrets"] = json!([{"name": "registry"}]);
    cluster.upgrade(&values);
    eventually("both pods are admitted", || (cluster.names(RELEASE, "pods").len() == 2).then_some(()));
    let test = cluster.chart.render_tests(&cluster.plane, &values).unwrap();
    let admitted = cluster.apply(&test);
    assert!(admitted.contains("pod/daypass-test created"), "{admitted}");
    for pod in cluster.list(RELEASE, "pods") {
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "registry"}]), "{pod}");
        for container in pod["spec"]["containers"].as_array().unwrap() {
            // Ours where the chart sets one, else the namespace's.
            assert!(container["resources"]["limits"]["cpu"].is_string(), "{pod}");
        }
    }
    let mut daypass = Daypass::with_args(&cluster, &[]);
    assert_works(&cluster, &daypass);
    daypass.stop();
}

/// A List of objects in Daypass's namespace.
fn list(objects: &[(&str, Value)]) -> String {
    let metadata = json!({"name": "theirs", "namespace": RELEASE});
    let object =
        |(kind, spec): &(&str, Value)| json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec});
    let items: Vec<Value> = objects.iter().map(object).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

#[test]
fn second_upgrade_with_the_same_values_changes_nothing() {
    let cluster = Cluster::exclusive();
    let values = cluster.values();
    let rendered = cluster.chart.render(&cluster.plane, &values, &[]).unwrap();
    assert_eq!(rendered, cluster.chart.render(&cluster.plane, &values, &[]).unwrap(), "nothing in it is random");
    let file = cluster.save(&rendered);
    let versions = || -> BTreeMap<String, Value> {
        let found = cluster.kubectl(&["get", "-o", "json", "-f", file.to_str().unwrap()]);
        let found: Value = serde_json::from_str(&found).unwrap();
        let objects = found["items"].as_array().unwrap().clone();
        objects.into_iter().map(|it| (format!("{} {}", it["kind"], it["metadata"]["uid"]), it)).collect()
    };
    cluster.upgrade(&values);
    let before = versions();
    assert!(before.len() > 40, "{}", before.len());
    cluster.upgrade(&values);
    for (object, after) in versions() {
        // What Kubernetes counts and reports is not the chart's.
        let of = |object: &Value| {
            let mut object = object.clone();
            object.as_object_mut().unwrap().remove("status");
            for field in ["resourceVersion", "managedFields"] {
                object["metadata"].as_object_mut().unwrap().remove(field);
            }
            object
        };
        assert_eq!(of(&before[&object]), of(&after));
    }
}

#[test]
fn subchart_works_and_is_switched_off_by_its_condition() {
    let cluster = Cluster::own();
    let folder = cluster.fresh_folder("platform");
    fs::create_dir(folder.join("charts")).unwrap();
    let copied = Command::new("cp").arg("-r").arg(CHART).arg(folder.join("charts")).status().unwrap();
    assert!(copied.success());
    let chart = json!({
        "apiVersion": "v2", "name": "platform", "version": "1.0.0",
        "dependencies": [{"name": "daypass", "version": ">=0", "condition": "daypass.enabled"}],
    });
    fs::write(folder.join("Chart.yaml"), chart.to_string()).unwrap();
    let platform = Chart::new(&folder).unwrap();
    let mut values = json!({"daypass": cluster.values(), "global": {"team": "platform"}});
    platform.install(&cluster.plane, &values).unwrap();
    let mut daypass = Daypass::with_args(&cluster, &[]);
    assert_works(&cluster, &daypass);
    daypass.stop();
    values["daypass"]["enabled"] = json!(false);
    platform.install(&cluster.plane, &values).unwrap();
    eventually("it is gone", || {
        cluster.kubectl(&["get", "deployments", "-n", RELEASE, "-o", "name"]).is_empty().then_some(())
    });
}

#[test]
fn ipv6_alone_reaches_daypass_and_the_api_server() {
    let cluster = Cluster::own();
    cluster.expect_refusals();
    cluster.restart_apiserver(&["--bind-address=::", "--service-cluster-ip-range=10.0.0.0/24,fd00:1::/112"]);
    let mut values = cluster.values();
    values["service"] = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]});
    cluster.upgrade(&values);
    let service: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "service", "-n", RELEASE, "-o", "json"])).unwrap();
    assert_eq!(service["items"][0]["spec"]["clusterIPs"].as_array().unwrap().len(), 2, "{service}");
    let kubeconfig = cluster.fresh_folder("ipv6").join("kubeconfig");
    let text = fs::read_to_string(&cluster.kubeconfig).unwrap();
    assert!(text.contains("https://127.0.0.1:"));
    fs::write(&kubeconfig, text.replace("https://127.0.0.1:", "https://[::1]:")).unwrap();
    let launch = Launch { kubeconfig: Some(kubeconfig), ipv6: true, ..Launch::default() };
    let mut daypass = Daypass::start(&cluster, &launch);
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let url = member.body["credentials"]["kubeconfigUrl"].as_str().unwrap();
    assert!(url.starts_with("https://[::1]:"), "{url}");
    let kubeconfig = member.kubeconfig(&cluster).text;
    assert!(kubeconfig.contains("https://[::1]:"), "{kubeconfig}");
    let handover = member.body["credentials"]["handover"].as_str().unwrap();
    assert!(handover.contains("https://[::1]:"), "{handover}");
    // Its kubectl calls go there too.
    assert_works(&cluster, &daypass);
    daypass.stop();
}

#[test]
fn proxy_for_the_outside_does_not_come_between_daypass_and_the_api_server() {
    let (cluster, _) = Cluster::shared();
    // As administrators inject them into every pod. Nothing listens there.
    let nowhere = "http://127.0.0.1:9";
    let env = vec![
        ("HTTP_PROXY", nowhere),
        ("HTTPS_PROXY", nowhere),
        ("ALL_PROXY", nowhere),
        ("NO_PROXY", "10.0.0.0/8,127.0.0.1,.svc"),
    ];
    let mut daypass = Daypass::start(cluster, &Launch { env, ..Launch::default() });
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    assert!(member.kubeconfig(cluster).is_accepted(cluster));
    daypass.stop();
}
