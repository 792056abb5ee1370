//! What was made in a role's namespace before the walls stood.

use std::path::PathBuf;

use chrono::TimeDelta;
use serde_json::json;

use crate::support::{Created, Daypass, Lab, Launch, eventually, time, wait_until};

/// How often Daypass has asked a policy.
fn looks(daypass: &Daypass) -> f64 {
    let metrics = daypass.metrics();
    let calls = metrics.lines().filter(|line| line.contains("call=\"probe_walls\""));
    calls.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn tokens_of_default_from_before_are_refused_once_the_walls_stand() {
    let lab = Lab::without_walls();
    let role = lab.reader();
    let mut daypass = Daypass::start(&lab, &Launch::default());
    let member = Created::new(&daypass.owner, &role, 1).kubeconfig(&lab);

    // One that was asked for, and one that never ends.
    eventually("the namespace has its account", || lab.object(&role.namespace, "serviceaccount", "default"));
    let asked = lab.token(&role.namespace, "default", "");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "lasting", "namespace": role.namespace, "annotations": {"kubernetes.io/service-account.name": "default"}},
    });
    // Daypass removes it as soon as it sweeps: until then there is a token in it.
    let lasting = eventually("the Secret has its token", || {
        let _ = lab.try_apply(&[], &secret.to_string());
        let get =
            ["get", "secret", "lasting", "-n", &role.namespace, "-o", r"go-template={{.data.token | base64decode}}"];
        let output = lab.try_kubectl(&get);
        let token = String::from_utf8(output.stdout).unwrap();
        (output.status.success() && token.starts_with("ey")).then_some(token)
    });
    let tokens = [&asked, &lasting].map(|token| {
        let file = lab.fresh_folder("default").join("config");
        lab.plane.write_token_kubeconfig(&file, token).unwrap();
        file
    });
    let works = |file: &PathBuf| lab.kubectl_with(file, &["get", "pods", "-A"]).status.success();
    assert!(works(&tokens[0]), "whoever has it has the role");
    let old = lab.uid(&role.namespace, "serviceaccount", "default");

    let walls = lab.chart.render(
        &lab.plane,
        &{
            let mut values = lab.values();
            values["walls"] = json!({"enabled": true});
            values
        },
        &["templates/walls.yaml"],
    );
    lab.apply(&walls.unwrap());
    eventually("they are seen to stand", || (daypass.metric("daypass_walls") == 1.0).then_some(()));
    let policy = lab.object("", "validatingadmissionpolicybinding", "daypass-role-tokens").unwrap();
    wait_until(time(&policy["metadata"]["creationTimestamp"]) + TimeDelta::seconds(31));
    let new = eventually("the account is another", || {
        let account = lab.object(&role.namespace, "serviceaccount", "default")?;
        let uid = account["metadata"]["uid"].as_str().unwrap().to_owned();
        (uid != old).then_some(uid)
    });
    eventually("its tokens are refused", || (!tokens.iter().any(works)).then_some(()));
    eventually("the Secret is gone", || {
        lab.names(&role.namespace, "secret").iter().all(|name| name != "lasting").then_some(())
    });
    assert!(member.is_accepted(&lab), "a member goes on");

    // Once: neither the next looks nor those of the next leader replace the new one.
    daypass.stop();
    let mut daypass = Daypass::start(&lab, &Launch::default());
    eventually("it has looked twice", || (looks(&daypass) >= 2.0).then_some(()));
    assert_eq!(lab.uid(&role.namespace, "serviceaccount", "default"), new);
    // What is made from now on is left alone as well.
    let later = lab.reader();
    eventually("the namespace has its account", || lab.object(&later.namespace, "serviceaccount", "default"));
    let kept = lab.uid(&later.namespace, "serviceaccount", "default");
    let seen = looks(&daypass);
    eventually("it has looked twice more", || (looks(&daypass) >= seen + 2.0).then_some(()));
    assert_eq!(lab.uid(&later.namespace, "serviceaccount", "default"), kept);
    daypass.stop();
}
