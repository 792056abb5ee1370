//! What somebody with some rights, or a bad connection, does to Daypass.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Created, Lab, eventually};

/// A time that the API server takes and that the types of its clients cannot hold, in the bookkeeping of this object.
fn poison(lab: &Lab, namespace: &str, kind: &str, name: &str) {
    let patch = json!([
        {"op": "replace", "path": "/metadata/managedFields/0/time", "value": "9999-12-31T23:59:59Z"},
        // So that it is a change: of its own, the API server passes one of the bookkeeping over.
        {"op": "add", "path": "/metadata/annotations", "value": {"poisoned": "true"}},
    ]);
    lab.kubectl(&["patch", kind, name, "-n", namespace, "--type=json", "-p", &patch.to_string()]);
    let times = lab.kubectl(&["get", kind, name, "-n", namespace, "--show-managed-fields", "-o", "json"]);
    assert!(times.contains("9999-12-31T23:59:59Z"), "{times}");
}

#[test]
fn a_member_with_an_absurd_time_in_its_bookkeeping_is_one_like_any_other() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let (poisoned, other) = (Created::new(&daypass.owner, &role, 1), Created::new(&daypass.owner, &role, 1));
    poison(lab, &role.namespace, "member", poisoned.name());
    let page = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    assert_eq!(page["total"], 2);
    daypass.owner.get(&poisoned.path("")).expect(200);
    poisoned.engineer.get(&poisoned.path("/kubeconfig")).expect(200);
    daypass.owner.delete(&poisoned.path("")).expect(204);
    lab.wait_gone(&role, poisoned.name());
    daypass.owner.get(&other.path("")).expect(200);
}

#[test]
fn one_of_a_few_seconds_ends_all_the_same() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    lab.apply_member(&role, "short", &json!({"duration": "5s"}));
    poison(lab, &role.namespace, "member", "short");
    lab.wait_gone(&role, "short");
    assert_eq!(daypass.recorded(&format!("{}.short", role.id), "EXPIRED")["actor"]["type"], "DAYPASS");
}

#[test]
fn a_namespace_with_an_absurd_time_in_its_bookkeeping_keeps_nothing_from_being_swept() {
    let (lab, daypass) = Lab::shared();
    lab.kubectl(&["create", "namespace", "absurd"]);
    poison(lab, "absurd", "namespace", "absurd");
    let before = daypass.metric("daypass_sweeps_total");
    eventually("another sweep", || (daypass.metric("daypass_sweeps_total") > before).then_some(()));
}

#[test]
fn a_caller_that_hangs_up_is_still_the_one_who_did_it() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let member = Created::new(&daypass.owner, &role, 1);
    // Wherever in the request the connection breaks.
    for (hours, after) in (2..48).zip([3, 6, 9, 12, 15, 20, 25, 30, 40, 60].into_iter().cycle().take(20)) {
        let request = daypass.owner.request("PATCH", &member.path("")).json(&json!({"duration": hours}));
        let _ = request.timeout(Duration::from_millis(after)).send();
    }
    daypass.owner.patch(&member.path(""), &json!({"duration": 48})).expect(200);
    // One that was sent before may be done after: then the last change is a shorter end.
    let changed = |event: &Value| event["event"] == "EXTENDED" || event["event"] == "SHORTENED";
    let ends = || daypass.audit(&member.id).into_iter().filter(changed);
    eventually("the last one", || {
        let last = ends().next_back()?;
        (last["member"]["expiresAt"] == daypass.owner.get(&member.path("")).json()["expiresAt"]).then_some(())
    });
    for event in ends() {
        assert_eq!(event["actor"]["type"], "CALLER", "{event}");
    }
}
