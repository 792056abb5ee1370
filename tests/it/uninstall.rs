//! What Daypass makes in its own namespace goes with it.

use serde_json::{Value, json};

use crate::support::{Daypass, Lab, Launch, eventually};

/// What Daypass itself makes there; the chart makes the rest.
const MADE: [(&str, &str); 2] = [("lease", "daypass"), ("secret", "daypass-tls")];

fn metadata(lab: &Lab, (kind, name): (&str, &str)) -> Option<Value> {
    lab.object("daypass", kind, name).map(|object| object["metadata"].clone())
}

#[test]
fn an_uninstall_takes_the_lease_and_the_certificate_along_while_daypass_runs_on() {
    let lab = Lab::private();
    lab.expect_refusals();
    let daypass = Daypass::start(&lab, &Launch::default());
    let account = json!([{
        "apiVersion": "v1", "kind": "ServiceAccount",
        "name": "daypass", "uid": lab.uid("daypass", "serviceaccount", "daypass"),
    }]);
    for made in MADE {
        let metadata = eventually("it is made", || metadata(&lab, made));
        assert_eq!(metadata["ownerReferences"], account, "{made:?}");
        assert_eq!(metadata["finalizers"], Value::Null, "{made:?}");
    }

    assert!(lab.chart.helm(&lab.plane).args(["uninstall", "daypass", "-n", "daypass"]).status().unwrap().success());
    for made in MADE {
        eventually("it is gone", || metadata(&lab, made).is_none().then_some(()));
    }
    // Its token is refused from now on, so it cannot have made them again.
    eventually("its account is refused", || daypass.log().contains("unauthorized").then_some(()));
    assert!(MADE.iter().all(|made| metadata(&lab, *made).is_none()));
}

#[test]
fn where_daypass_runs_as_a_user_it_says_that_they_stay() {
    let lab = Lab::private();
    let launch = Launch { kubeconfig: Some(lab.plane.kubeconfig()), ..Launch::default() };
    let daypass = Daypass::start(&lab, &launch);
    for made in MADE {
        let metadata = eventually("it is made", || metadata(&lab, made));
        assert_eq!(metadata["ownerReferences"], Value::Null, "{made:?}");
    }
    assert!(daypass.log().contains("stays after an uninstall"));
}
