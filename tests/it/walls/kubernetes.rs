//! Kubernetes' own controllers and the chart work with the policies in force.

use serde_json::json;

use crate::support::{Cluster, DAYPASS, Daypass, Launch, NewMember, WallTest, eventually};

#[test]
fn role_namespace_is_completed_and_can_be_deleted() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    for (kind, name) in [("serviceaccount", "default"), ("configmap", "kube-root-ca.crt")] {
        eventually(name, || cluster.object(&role.namespace, kind, name));
    }
    NewMember::new(&daypass.owner, &role, 1).kubeconfig(cluster);
    cluster.delete_namespace(&role.namespace);
}

#[test]
fn garbage_collector_removes_a_deleted_members_objects() {
    let cluster = Cluster::exclusive();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(&cluster);
    daypass.stop();
    assert_eq!(cluster.names(&role.namespace, "serviceaccount"), [member.name()]);
    assert_eq!(cluster.names(&role.namespace, "secret"), [format!("{}.0", member.name())]);
    cluster.kubectl(&["delete", "member", member.name(), "-n", &role.namespace]);
    eventually("the garbage collector has deleted both", || {
        let left =
            [cluster.names(&role.namespace, "serviceaccount"), cluster.names(&role.namespace, "secret")].concat();
        left.is_empty().then_some(())
    });
    eventually("the kubeconfig is refused", || (!kubeconfig.is_accepted(&cluster)).then_some(()));
}

/// A value of the chart tells the policy the API server's audiences.
#[test]
fn kubeconfig_for_unknown_audience_is_refused() {
    const REFUSAL: &str = "Daypass (policy daypass-role-tokens): a token must be for the API server alone";
    let cluster = Cluster::exclusive();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let mut test = WallTest::new(&cluster);
    test.set("ROLE", &role.namespace).set("MEMBER", member.name());
    // Bound to a Secret that does not exist; the API server checks that after the policies.
    let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": "none", "uid": "none"});
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": ["https://kubernetes.default.svc"], "boundObjectRef": bound},
    });
    let set_audiences = |audiences: &[&str], refused: bool| {
        let mut values = cluster.values();
        values["walls"] = json!({"apiAudiences": audiences});
        cluster.apply(&cluster.chart.render(&cluster.plane, &values, &["templates/walls.yaml"]).unwrap());
        let path = "create --raw /api/v1/namespaces/$ROLE/serviceaccounts/$MEMBER/token?dryRun=All -f -";
        eventually("the policy has changed", || {
            let output = test.run(DAYPASS, path, &request.to_string());
            (String::from_utf8_lossy(&output.stderr).contains(REFUSAL) == refused).then_some(())
        });
    };
    set_audiences(&["https://elsewhere.example.com"], true);
    member.engineer.get(&member.path("/kubeconfig")).problem(503, "DP_ERR_UNAVAILABLE");
    assert!(daypass.log().contains(REFUSAL), "only the log has the reason");
    assert_eq!(cluster.names(&role.namespace, "secret"), [] as [&str; 0], "nothing is left of it");
    set_audiences(&["https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"], false);
    member.kubeconfig(&cluster);
    daypass.stop();
}
