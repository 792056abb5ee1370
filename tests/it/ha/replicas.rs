//! What one replica has answered, another knows at once: both ask the Kubernetes API and share nothing else.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, NewMember, Role, eventually};

/// The replica that all tests share, and a second one.
fn two() -> (&'static Cluster, &'static Daypass, &'static Daypass) {
    let (cluster, first) = Cluster::shared();
    let second = Daypass::second();
    assert_ne!(first.url, second.url);
    (cluster, first, second)
}

fn listed(replica: &Daypass, role: &Role) -> Vec<Value> {
    let list = replica.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    list["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect()
}

#[test]
fn replica_reads_what_another_wrote() {
    let (cluster, first, second) = two();
    let role = cluster.reader();
    for (a, b) in [(first, second), (second, first)] {
        let member = NewMember::new(&a.owner, &role, 1);
        let engineer = b.owner.with_basic(&member.id, &member.password);
        eventually("its list has it", || (listed(b, &role) == [json!(member.id)]).then_some(()));
        assert_eq!(b.owner.get(&member.path("")).expect(200).json()["status"], "ACTIVE");
        engineer.get(&member.path("/me")).expect(200);
        engineer.get(&member.path("/kubeconfig")).expect(200);
        assert_eq!(member.listed(&a.owner).len(), 1, "the other replica's kubeconfig");

        let end = a.owner.patch(&member.path(""), &json!({"duration": 3})).expect(200).json()["expiresAt"].clone();
        assert_eq!(b.owner.get(&member.path("")).expect(200).json()["expiresAt"], end);

        let renewed = a.owner.post(&member.path("/credentials"), &json!({})).expect(201).json();
        engineer.get(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        let engineer = b.owner.with_basic(&member.id, renewed["password"].as_str().unwrap());
        engineer.get(&member.path("/me")).expect(200);

        a.owner.delete(&member.path("")).expect(204);
        engineer.get(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        member.assert_dead(b);
        eventually("its list has it no longer", || listed(b, &role).is_empty().then_some(()));
    }
}

#[test]
fn token_and_session_work_and_end_on_all_replicas_at_once() {
    let (_, first, second) = two();
    for (a, b) in [(first, second), (second, first)] {
        let body =
            json!({"name": "ha", "expiresInDays": 1, "scopes": ["members:read", "tokens:read", "tokens:write"]});
        let made = a.owner.post("/tokens", &body).expect(201).json();
        let path = format!("/tokens/{}", made["id"].as_str().unwrap());
        let with = |answer: &Value| b.owner.with_token(answer["token"].as_str().unwrap());
        with(&made).get("/members").expect(200);
        assert_eq!(b.owner.get(&path).expect(200).json()["status"], "ACTIVE");
        let session = a.owner.with_token(with(&made).token()).post("/sessions", &json!({})).expect(201).json();
        with(&session).get("/members").expect(200);

        let rotated = a.owner.post(&format!("{path}/rotate"), &json!({})).expect(200).json();
        for old in [&made, &session] {
            assert_eq!(with(old).get("/members").status, 401, "the old token and its session");
        }
        with(&rotated).get("/members").expect(200);
        let session = a.owner.with_token(with(&rotated).token()).post("/sessions", &json!({})).expect(201).json();
        a.owner.with_token(with(&session).token()).delete("/sessions/current").expect(204);
        assert_eq!(with(&session).get("/members").status, 401, "signed out");

        a.owner.delete(&path).expect(204);
        assert_eq!(with(&rotated).get("/members").status, 401);
        b.owner.get(&path).problem(404, "DP_ERR_NOT_FOUND");
    }
}

#[test]
fn all_replicas_see_changes_by_kubectl() {
    let (cluster, first, second) = two();
    let role = cluster.reader();
    cluster.apply_member(&role, "outside", &json!({"duration": "1h"}));
    let made = Instant::now();
    let path = format!("/members/{}.outside", role.id);
    for replica in [first, second] {
        replica.owner.get(&path).expect(200);
        eventually("it is listed", || (listed(replica, &role).len() == 1).then_some(()));
    }
    println!("both knew the new Member {:?} after kubectl was done", made.elapsed());
    eventually("the member is active", || {
        let active = |replica: &Daypass| replica.owner.get(&path).expect(200).json()["status"] == "ACTIVE";
        let (one, other) = (active(first), active(second));
        (one && other).then_some(())
    });
    cluster.kubectl(&["delete", "member", "outside", "-n", &role.namespace]);
    let deleted = Instant::now();
    for replica in [first, second] {
        replica.owner.get(&path).problem(404, "DP_ERR_NOT_FOUND");
        eventually("it is listed no longer", || listed(replica, &role).is_empty().then_some(()));
    }
    println!("both knew of its deletion {:?} after kubectl was done", deleted.elapsed());
}
