//! Tokens made in a role's namespace before the walls existed.

use std::path::PathBuf;

use chrono::TimeDelta;
use serde_json::json;

use crate::support::{Cluster, Daypass, Launch, NewMember, eventually, time, wait_until};

/// How often Daypass has probed the policies.
fn looks(daypass: &Daypass) -> f64 {
    let metrics = daypass.metrics();
    let calls = metrics.lines().filter(|line| line.contains("call=\"probe_walls\""));
    calls.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn default_account_tokens_from_before_the_walls_are_revoked() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let member = NewMember::new(&daypass.owner, &role, 1).kubeconfig(&cluster);

    // A requested token, and one that never ends.
    eventually("the namespace has its account", || cluster.object(&role.namespace, "serviceaccount", "default"));
    let asked = cluster.token(&role.namespace, "default", "");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "lasting", "namespace": role.namespace,
            "annotations": {"kubernetes.io/service-account.name": "default"},
        },
    });
    // Daypass's next sweep removes the Secret. Until then it holds a token.
    let lasting = eventually("the Secret has its token", || {
        let _ = cluster.try_apply(&[], &secret.to_string());
        let get =
            ["get", "secret", "lasting", "-n", &role.namespace, "-o", r"go-template={{.data.token | base64decode}}"];
        let output = cluster.try_kubectl(&get);
        let token = String::from_utf8(output.stdout).unwrap();
        (output.status.success() && token.starts_with("ey")).then_some(token)
    });
    let tokens = [&asked, &lasting].map(|token| {
        let file = cluster.fresh_folder("default").join("config");
        cluster.plane.write_token_kubeconfig(&file, token).unwrap();
        file
    });
    let works = |file: &PathBuf| cluster.kubectl_with(file, &["get", "pods", "-A"]).status.success();
    assert!(works(&tokens[0]), "the token has the role's rights");
    let old = cluster.uid(&role.namespace, "serviceaccount", "default");

    let mut values = cluster.values();
    values["walls"] = json!({"enabled": true});
    let walls = cluster.chart.render(&cluster.plane, &values, &["templates/walls.yaml"]).unwrap();
    cluster.apply(&walls);
    eventually("Daypass has seen the walls", || (daypass.metric("daypass_walls") == 1.0).then_some(()));
    let policy = cluster.object("", "validatingadmissionpolicybinding", "daypass-role-tokens").unwrap();
    wait_until(time(&policy["metadata"]["creationTimestamp"]) + TimeDelta::seconds(31));
    let new = eventually("the account is replaced", || {
        let account = cluster.object(&role.namespace, "serviceaccount", "default")?;
        let uid = account["metadata"]["uid"].as_str().unwrap().to_owned();
        (uid != old).then_some(uid)
    });
    eventually("its tokens are refused", || (!tokens.iter().any(works)).then_some(()));
    eventually("the Secret is gone", || {
        cluster.names(&role.namespace, "secret").iter().all(|name| name != "lasting").then_some(())
    });
    assert!(member.is_accepted(&cluster), "the member still works");

    // Only once: neither later probes nor the next leader replace the new account.
    daypass.stop();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    eventually("Daypass has probed twice", || (looks(&daypass) >= 2.0).then_some(()));
    assert_eq!(cluster.uid(&role.namespace, "serviceaccount", "default"), new);
    // Daypass keeps accounts made from now on, too.
    let later = cluster.reader();
    eventually("the namespace has its account", || cluster.object(&later.namespace, "serviceaccount", "default"));
    let kept = cluster.uid(&later.namespace, "serviceaccount", "default");
    let seen = looks(&daypass);
    eventually("Daypass has probed twice more", || (looks(&daypass) >= seen + 2.0).then_some(()));
    assert_eq!(cluster.uid(&later.namespace, "serviceaccount", "default"), kept);
    daypass.stop();

    cluster.kubectl(&["delete", "-f", cluster.save(&walls).to_str().unwrap()]);
    eventually("the walls are gone", || {
        let token = cluster.try_kubectl(&["create", "token", "default", "-n", &role.namespace]);
        token.status.success().then_some(())
    });
}
