//! The documented flow, from the creation of a member to its end.

use serde_json::{Value, json};

use crate::support::{Cluster, eventually};

/// Creates a member for one hour in a shipped role. Returns the answer.
fn create(daypass: &crate::support::Daypass) -> Value {
    let body = json!({
        "duration": "1", "roleId": "projects-view", "description": "Case 0815", "username": "Talend support team",
    });
    let answer = daypass.owner.post("/members", &body).expect(201);
    assert_eq!(answer.header("cache-control"), "no-store");
    let member = answer.json();
    let id = member["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("{}/processing/data-planes/dp-1/members/{id}", daypass.url));
    member
}

#[test]
fn member_is_created_used_and_revoked() {
    let (cluster, daypass) = Cluster::shared();
    let member = create(daypass);
    let id = member["id"].as_str().unwrap();
    assert_eq!(member["roleId"], "projects-view");
    assert_eq!(member["createdBy"], "system:serviceaccount:default:owner");
    assert_eq!((&member["durationSeconds"], &member["status"]), (&3600.into(), &"ACTIVE".into()));

    let credentials = &member["credentials"];
    let engineer = daypass.owner.with_basic(id, credentials["password"].as_str().unwrap());
    let answer = engineer.get(credentials["kubeconfigUrl"].as_str().unwrap()).expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-disposition"), format!("attachment; filename=\"dp-1-{id}.kubeconfig\""));
    let expires = member["expiresAt"].as_str().unwrap();
    assert!(answer.text.starts_with('#') && answer.text.contains(expires), "{}", answer.text);
    let kubeconfig = cluster.save(&answer.text);
    let kubectl = |args: &[&str]| cluster.kubectl_with(&kubeconfig, args);

    assert!(kubectl(&["get", "pods", "-A"]).status.success());
    let whoami =
        String::from_utf8(kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).stdout).unwrap();
    assert_eq!(whoami, format!("system:serviceaccount:daypass-projects-view:{}", id.split('.').next_back().unwrap()));
    for forbidden in [&["create", "ns", "x"][..], &["get", "secrets", "-A"]] {
        let output = kubectl(forbidden);
        assert!(String::from_utf8_lossy(&output.stderr).contains("Forbidden"), "{forbidden:?}");
    }
    let context = String::from_utf8(kubectl(&["config", "current-context"]).stdout).unwrap();
    assert!(context.starts_with(&format!("dp-1-{id}-")), "{context}");

    daypass.owner.delete(&format!("/members/{id}")).expect(204);
    daypass.owner.get(&format!("/members/{id}")).problem(404, "DP_ERR_NOT_FOUND");
    engineer.get(&format!("/members/{id}/kubeconfig")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    eventually("the kubeconfig is refused", || {
        let output = kubectl(&["get", "pods", "-A"]);
        String::from_utf8_lossy(&output.stderr).contains("Unauthorized").then_some(())
    });
    let events: Vec<Value> = daypass.audit(id).into_iter().map(|event| event["event"].clone()).collect();
    assert_eq!(events, ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
}
