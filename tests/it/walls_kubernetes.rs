//! With the policies in force, Kubernetes' own controllers go on, and so does the chart.

use serde_json::json;

use crate::support::{Created, DAYPASS, Daypass, Lab, Launch, Stage, eventually};

#[test]
fn a_new_roles_namespace_gets_what_every_namespace_gets_and_a_deleted_one_ends() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    for (kind, name) in [("serviceaccount", "default"), ("configmap", "kube-root-ca.crt")] {
        eventually(name, || lab.object(&role.namespace, kind, name));
    }
    Created::new(&daypass.owner, &role, 1).kubeconfig(lab);
    lab.kubectl(&["delete", "namespace", &role.namespace, "--timeout=60s"]);
    assert_eq!(lab.object("default", "namespace", &role.namespace), None);
}

#[test]
fn a_deleted_members_service_account_and_secrets_go_without_daypass() {
    let lab = Lab::alone();
    let mut daypass = Daypass::start(&lab, &Launch::default());
    let role = lab.reader();
    let member = Created::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(&lab);
    daypass.stop();
    assert_eq!(lab.names(&role.namespace, "serviceaccount"), [member.name()]);
    assert_eq!(lab.names(&role.namespace, "secret"), [format!("{}.0", member.name())]);
    lab.kubectl(&["delete", "member", member.name(), "-n", &role.namespace]);
    eventually("the garbage collector has taken both", || {
        let left = [lab.names(&role.namespace, "serviceaccount"), lab.names(&role.namespace, "secret")].concat();
        left.is_empty().then_some(())
    });
    eventually("the kubeconfig is refused", || (!kubeconfig.is_accepted(&lab)).then_some(()));
}

#[test]
fn a_role_added_by_values_and_helm_upgrade_is_there_without_a_restart() {
    let lab = Lab::alone();
    let mut daypass = Daypass::start(&lab, &Launch::default());
    let stage = Stage::new(&lab);
    let mut values = lab.values();
    values["roles"] = json!({"added": {
        "name": "Added", "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
    }});
    lab.upgrade(&values);
    let role = lab.wait_role("added");
    let roles = daypass.owner.get("/members/roles").expect(200).json();
    let ids: Vec<&str> = roles["items"].as_array().unwrap().iter().map(|role| role["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"added") && ids.contains(&"projects-view"), "{ids:?}");
    let kubeconfig = Created::new(&daypass.owner, &role, 1).kubeconfig(&lab).file;
    // The API server needs a moment to notice a new binding.
    eventually("the role holds", || {
        lab.kubectl_with(&kubeconfig, &["get", "configmaps", "-A"]).status.success().then_some(())
    });
    assert!(!lab.kubectl_with(&kubeconfig, &["get", "pods", "-A"]).status.success());
    // The new role is behind the policies like the others.
    let refused = stage.run(DAYPASS, "create serviceaccount stray -n daypass-added", "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Daypass (policy daypass-role-serviceaccounts)"));
    daypass.stop();
}

/// The policy is told the API server's own audiences by a value.
#[test]
fn no_kubeconfig_is_issued_for_an_audience_that_the_policy_does_not_know() {
    const REFUSAL: &str = "Daypass (policy daypass-role-tokens): a token is for the API server alone";
    let lab = Lab::alone();
    let mut daypass = Daypass::start(&lab, &Launch::default());
    let role = lab.reader();
    let member = Created::new(&daypass.owner, &role, 1);
    let mut stage = Stage::new(&lab);
    stage.set("ROLE", &role.namespace).set("MEMBER", member.name());
    // Bound to a Secret that is not there, which is looked at after the policies.
    let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": "none", "uid": "none"});
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": ["https://kubernetes.default.svc"], "boundObjectRef": bound},
    });
    let set_audiences = |audiences: &[&str], refused: bool| {
        let mut values = lab.values();
        values["walls"] = json!({"apiAudiences": audiences});
        lab.apply(&lab.chart.render(&lab.plane, &values, &["templates/walls.yaml"]).unwrap());
        let path = "create --raw /api/v1/namespaces/$ROLE/serviceaccounts/$MEMBER/token?dryRun=All -f -";
        eventually("the policy has changed", || {
            let output = stage.run(DAYPASS, path, &request.to_string());
            (String::from_utf8_lossy(&output.stderr).contains(REFUSAL) == refused).then_some(())
        });
    };
    set_audiences(&["https://elsewhere.example.com"], true);
    member.engineer.get(&member.path("/kubeconfig")).problem(503, "DP_ERR_UNAVAILABLE");
    assert!(daypass.log().contains(REFUSAL), "the log tells what a client is not told");
    assert_eq!(lab.names(&role.namespace, "secret"), [] as [&str; 0], "nothing is left of it");
    set_audiences(&["https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"], false);
    member.kubeconfig(&lab);
    daypass.stop();
}
