//! An uninstall removes what Daypass itself created in its namespace.

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, Launch, eventually};

/// What Daypass creates; the chart creates the rest.
const MADE: [(&str, &str); 2] = [("lease", "daypass"), ("secret", "daypass-tls")];

fn metadata(cluster: &Cluster, (kind, name): (&str, &str)) -> Option<Value> {
    cluster.object("daypass", kind, name).map(|object| object["metadata"].clone())
}

#[test]
fn uninstall_removes_lease_and_certificate() {
    let cluster = Cluster::own();
    cluster.expect_refusals();
    let daypass = Daypass::start(&cluster, &Launch::default());
    let account = json!([{
        "apiVersion": "v1", "kind": "ServiceAccount",
        "name": "daypass", "uid": cluster.uid("daypass", "serviceaccount", "daypass"),
    }]);
    for made in MADE {
        let metadata = eventually("Daypass has created it", || metadata(&cluster, made));
        assert_eq!(metadata["ownerReferences"], account, "{made:?}");
        assert_eq!(metadata["finalizers"], Value::Null, "{made:?}");
    }

    let mut helm = cluster.chart.helm(&cluster.plane);
    let uninstalled = helm.args(["uninstall", "daypass", "-n", "daypass"]).output().unwrap();
    assert!(uninstalled.status.success(), "{}", String::from_utf8_lossy(&uninstalled.stderr));
    for made in MADE {
        eventually("the object is gone", || metadata(&cluster, made).is_none().then_some(()));
    }
    // From now on the API server refuses its token, so it cannot create them again.
    eventually("its account is refused", || daypass.log().contains("unauthorized").then_some(()));
    assert!(MADE.iter().all(|made| metadata(&cluster, *made).is_none()));
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
