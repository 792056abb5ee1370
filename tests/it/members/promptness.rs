//! What REST answers is complete. No controller runs here.

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, Launch, Leftovers, NewMember};

#[test]
fn answered_requests_are_complete_without_a_controller() {
    let cluster = Cluster::breakable();
    let rules = cluster.keep_from_leading();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let role = cluster.reader();
    let owner = &daypass.owner;
    let member = NewMember::new(owner, &role, 1);
    assert_eq!(member.body["status"], "ACTIVE");
    let short = member.kubeconfig(&cluster);
    assert!(short.is_accepted(&cluster), "the service account is there");
    owner.patch(&member.path(""), &json!({"duration": "8"})).expect(200);
    member.kubeconfig(&cluster);

    owner.patch(&member.path(""), &json!({"duration": "2"})).expect(200);
    assert_eq!(member.listed(owner), [short.jti()], "the kubeconfig that would outlive the member");
    assert_eq!(cluster.names(&role.namespace, "secrets").len(), 1);
    let status = cluster.object(&role.namespace, "members.daypass.dev", member.name()).unwrap()["status"].clone();
    assert_eq!(status["expiresAt"], owner.get(&member.path("")).expect(200).json()["expiresAt"]);

    let renewed: Value = owner.post(&member.path("/credentials"), &json!({})).expect(201).json();
    assert_eq!(cluster.names(&role.namespace, "secrets"), [""; 0], "the old credential's kubeconfigs");
    let engineer = owner.with_basic(&member.id, renewed["password"].as_str().unwrap());
    engineer.get(&member.path("/kubeconfig")).expect(200);

    owner.delete(&member.path("")).expect(204);
    assert_eq!(cluster.leftovers(&role, member.name()), Leftovers::NOTHING);
    let kinds = daypass.event_kinds(&member.id);
    let issued = "KUBECONFIG_ISSUED";
    assert_eq!(
        kinds,
        ["MEMBER_CREATED", issued, "EXTENDED", issued, "SHORTENED", "CREDENTIAL_ISSUED", issued, "REVOKED"]
    );
    assert_eq!(daypass.metric("daypass_leader"), 0.0, "no controller ran");
    daypass.stop();
    cluster.let_lead(&rules);
}
