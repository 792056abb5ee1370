//! An uninstall removes what Daypass itself created in its namespace.

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, Launch, NewMember, eventually};

/// What Daypass creates; the chart creates the rest.
const MADE: [(&str, &str); 2] = [("lease", "daypass"), ("secret", "daypass-tls")];
/// What the gateway creates when it is used.
const HEARTBEAT: (&str, &str) = ("members.daypass.dev", "heartbeat");

fn metadata(cluster: &Cluster, (kind, name): (&str, &str)) -> Option<Value> {
    cluster.object("daypass", kind, name).map(|object| object["metadata"].clone())
}

#[test]
fn uninstall_removes_what_daypass_has_made() {
    let cluster = Cluster::own();
    cluster.expect_refusals();
    let launch = Launch { args: vec!["--kubeconfig-mode=gateway".to_owned()], ..Launch::default() };
    let daypass = Daypass::start(&cluster, &launch);
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let kubeconfig = cluster.save(&member.engineer.get(&member.path("/kubeconfig")).expect(200).text);
    assert!(cluster.kubectl_with(&kubeconfig, &["get", "pods", "-n", "default"]).status.success());
    let account = json!([{
        "apiVersion": "v1", "kind": "ServiceAccount",
        "name": "daypass", "uid": cluster.uid("daypass", "serviceaccount", "daypass"),
    }]);
    let made = || MADE.into_iter().chain([HEARTBEAT]);
    for made in made() {
        let metadata = eventually("Daypass has created it", || metadata(&cluster, made));
        assert_eq!(metadata["ownerReferences"], account, "{made:?}");
        assert_eq!(metadata["finalizers"], Value::Null, "{made:?}");
    }

    let mut helm = cluster.chart.helm(&cluster.plane);
    let uninstalled = helm.args(["uninstall", "daypass", "-n", "daypass"]).output().unwrap();
    assert!(uninstalled.status.success(), "{}", String::from_utf8_lossy(&uninstalled.stderr));
    for made in made() {
        eventually("the object is gone", || metadata(&cluster, made).is_none().then_some(()));
    }
    // From now on the API server refuses its token, so it cannot create them again.
    eventually("its account is refused", || daypass.log().contains("unauthorized").then_some(()));
    assert!(made().all(|made| metadata(&cluster, made).is_none()));
}

#[test]
fn daypass_run_as_a_user_logs_that_they_stay() {
    let cluster = Cluster::exclusive();
    let remove = || {
        let made = ["lease/daypass", "secret/daypass-tls"];
        cluster.kubectl(&[&["delete", "-n", "daypass", "--ignore-not-found"][..], &made].concat());
    };
    remove();
    let launch = Launch { kubeconfig: Some(cluster.plane.kubeconfig()), ..Launch::default() };
    let mut daypass = Daypass::start(&cluster, &launch);
    for made in MADE {
        let metadata = eventually("Daypass has created it", || metadata(&cluster, made));
        assert_eq!(metadata["ownerReferences"], Value::Null, "{made:?}");
    }
    assert!(daypass.log().contains("stays after an uninstall"));
    daypass.stop();
    remove();
}
