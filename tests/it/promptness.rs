//! What REST answers is done: not left to the controller, which here never runs.

use serde_json::{Value, json};

use crate::support::{Created, Daypass, Lab, Launch, Remains};

/// A Daypass that may not hold the Lease.
fn without_a_controller(lab: &Lab) -> Daypass {
    lab.expect_refusals();
    let role = lab.object("daypass", "role", "daypass").unwrap();
    let mut rules = role["rules"].as_array().unwrap().clone();
    rules.retain(|rule| rule["resources"] != json!(["leases"]));
    lab.patch("daypass", "role", "daypass", &json!({"rules": rules}));
    Daypass::start(lab, &Launch::default())
}

#[test]
fn what_is_answered_is_done_even_if_no_controller_runs() {
    let lab = Lab::private();
    let daypass = without_a_controller(&lab);
    let role = lab.reader();
    let owner = &daypass.owner;
    let member = Created::new(owner, &role, 1);
    assert_eq!(member.body["status"], "ACTIVE");
    let short = member.kubeconfig(&lab);
    assert!(short.is_accepted(&lab), "the service account is there");
    owner.patch(&member.path(""), &json!({"duration": "8"})).expect(200);
    member.kubeconfig(&lab);

    owner.patch(&member.path(""), &json!({"duration": "2"})).expect(200);
    assert_eq!(member.listed(owner), [short.jti()], "the kubeconfig that would outlive the member");
    assert_eq!(lab.names(&role.namespace, "secrets").len(), 1);
    let status = lab.object(&role.namespace, "members.daypass.dev", member.name()).unwrap()["status"].clone();
    assert_eq!(status["expiresAt"], owner.get(&member.path("")).expect(200).json()["expiresAt"]);

    let renewed: Value = owner.post(&member.path("/credentials"), &json!({})).expect(201).json();
    assert_eq!(lab.names(&role.namespace, "secrets"), [""; 0], "the old credential's kubeconfigs");
    let engineer = owner.with_basic(&member.id, renewed["password"].as_str().unwrap());
    engineer.get(&member.path("/kubeconfig")).expect(200);

    owner.delete(&member.path("")).expect(204);
    assert_eq!(lab.remains(&role, member.name()), Remains::NOTHING);
    let kinds = daypass.kinds(&member.id);
    let issued = "KUBECONFIG_ISSUED";
    assert_eq!(
        kinds,
        ["MEMBER_CREATED", issued, "EXTENDED", issued, "SHORTENED", "CREDENTIAL_ISSUED", issued, "REVOKED"]
    );
    assert_eq!(daypass.metric("daypass_leader"), 0.0, "no controller ran");
}
