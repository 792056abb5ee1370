//! However a membership ends, Daypass alone makes sure that nothing of it is left to be used.

use serde_json::{Value, json};

use crate::support::bare::Bare;
use crate::support::{Created, Remains, Role, eventually};

/// What is left of a member whose object something holds.
const HELD: Remains = Remains { member: true, account: false, secrets: 0 };

/// Deletes a Member with kubectl, without waiting for whoever holds it.
fn kubectl_delete(bare: &Bare, role: &Role, name: &str, cascade: &str) {
    let cascade = format!("--cascade={cascade}");
    bare.lab.kubectl(&["delete", "member", name, "-n", &role.namespace, "--wait=false", &cascade]);
}

/// Returns when Daypass has seen all that happened to Members before.
fn flush(bare: &Bare, role: &Role) {
    bare.lab.apply_member(role, "flush", &json!({"duration": "1h"}));
    kubectl_delete(bare, role, "flush", "background");
    bare.daypass.recorded(&format!("{}.flush", role.id), "REVOKED");
}

#[test]
fn kubectl_delete_revokes() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let member = Created::new(&bare.daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    assert!(kubeconfig.is_accepted(lab));
    assert_eq!(lab.remains(&role, member.name()), Remains { member: true, account: true, secrets: 1 });
    kubectl_delete(bare, &role, member.name(), "background");
    member.assert_dead(&bare.daypass);
    lab.wait_gone(&role, member.name());
    kubeconfig.wait_refused(lab);
    assert_eq!(bare.daypass.recorded(&member.id, "REVOKED")["actor"], json!({"type": "KUBERNETES"}));
    flush(bare, &role);
    assert_eq!(bare.daypass.kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
}

#[test]
fn a_foreign_finalizer_keeps_the_object_and_nothing_else() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let member = Created::new(&bare.daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    assert!(kubeconfig.is_accepted(lab));
    let finalizers = |list: Value| {
        lab.patch(&role.namespace, "member", member.name(), &json!({"metadata": {"finalizers": list}}));
    };
    finalizers(json!(["example.com/keep"]));
    kubectl_delete(bare, &role, member.name(), "background");
    member.assert_dead(&bare.daypass);
    eventually("only the object is left", || (lab.remains(&role, member.name()) == HELD).then_some(()));
    kubeconfig.wait_refused(lab);
    assert_eq!(bare.daypass.recorded(&member.id, "REVOKED")["actor"], json!({"type": "KUBERNETES"}));
    let listed = bare.daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    assert_eq!(listed["total"], 0);
    let status = lab.object(&role.namespace, "member", member.name()).unwrap()["status"].clone();
    assert_eq!(status["phase"], "Terminating");

    // Neither a change of it nor its end brings anything back.
    lab.patch(&role.namespace, "member", member.name(), &json!({"spec": {"duration": "48h"}}));
    flush(bare, &role);
    member.assert_dead(&bare.daypass);
    assert_eq!(lab.remains(&role, member.name()), HELD);
    finalizers(Value::Null);
    lab.wait_gone(&role, member.name());
    flush(bare, &role);
    assert_eq!(bare.daypass.kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"], "once");
}

#[test]
fn an_orphaning_deletion_revokes_too() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let member = Created::new(&bare.daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    assert!(kubeconfig.is_accepted(lab));
    // What the garbage collector does for such a deletion, and is not here to do: it takes the owners off.
    let orphan = json!({"metadata": {"ownerReferences": null}});
    lab.patch(&role.namespace, "serviceaccount", member.name(), &orphan);
    lab.patch(&role.namespace, "secret", &format!("{}.0", member.name()), &orphan);
    kubectl_delete(bare, &role, member.name(), "orphan");
    member.assert_dead(&bare.daypass);
    // Daypass's own deletion takes the finalizer off too, which only the garbage collector could otherwise.
    lab.wait_gone(&role, member.name());
    kubeconfig.wait_refused(lab);
    flush(bare, &role);
    assert_eq!(bare.daypass.kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
}

#[test]
fn a_member_that_is_held_ends_at_its_time() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let member = Created::applied(lab, &bare.daypass, &role, "held", &json!({"duration": "1h"}));
    let change = json!({"metadata": {"finalizers": ["example.com/keep"]}, "spec": {"duration": "1s"}});
    lab.patch(&role.namespace, "member", "held", &change);
    eventually("only the object is left", || (lab.remains(&role, "held") == HELD).then_some(()));
    member.assert_dead(&bare.daypass);
    let held = lab.object(&role.namespace, "member", "held").unwrap();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    lab.patch(&role.namespace, "member", "held", &json!({"metadata": {"finalizers": null}}));
    lab.wait_gone(&role, "held");
    flush(bare, &role);
    let ends: Vec<Value> =
        bare.daypass.audit(&member.id).into_iter().filter(|event| event["event"] == "EXPIRED").collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(ends[0]["actor"], json!({"type": "DAYPASS"}));
    assert_eq!(bare.daypass.kinds(&member.id).last().unwrap(), "EXPIRED");
}

#[test]
fn a_held_service_account_is_dead_and_never_anothers() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let first = Created::applied(lab, &bare.daypass, &role, "otto", &json!({"duration": "1h"}));
    let kubeconfig = first.kubeconfig(lab);
    assert!(kubeconfig.is_accepted(lab));
    let old = lab.uid(&role.namespace, "serviceaccount", "otto");
    let finalizers =
        |list: Value| lab.patch(&role.namespace, "serviceaccount", "otto", &json!({"metadata": {"finalizers": list}}));
    finalizers(json!(["example.com/keep"]));
    bare.daypass.owner.delete(&first.path("")).expect(204);
    // Alone it would be good for a minute more: its token dies with the Secret.
    assert_eq!(lab.remains(&role, "otto"), Remains { member: false, account: true, secrets: 0 });
    kubeconfig.wait_refused(lab);

    lab.apply_member(&role, "otto", &json!({"duration": "1h"}));
    eventually("Daypass has tried", || {
        let log = bare.daypass.log();
        let tried = |line: &str| line.contains("could not be reconciled") && line.contains(&first.id);
        log.lines().any(tried).then_some(())
    });
    let body = bare.daypass.owner.get(&first.path("")).expect(200).json();
    assert_eq!(body["status"], "PENDING");
    // Nor is a credential issued for a member that has no service account of its own.
    let answer = bare.daypass.owner.post(&first.path("/credentials"), &json!({}));
    assert!(answer.status >= 400, "{}", answer.text);
    assert_eq!(lab.uid(&role.namespace, "serviceaccount", "otto"), old);
    finalizers(Value::Null);
    eventually("the new member has one of its own", || {
        let account = lab.object(&role.namespace, "serviceaccount", "otto")?;
        let new = lab.uid(&role.namespace, "member", "otto");
        (account["metadata"]["labels"]["daypass.dev/member-uid"] == new).then_some(())
    });
    eventually("and is active", || {
        (bare.daypass.owner.get(&first.path("")).expect(200).json()["status"] == "ACTIVE").then_some(())
    });
}

#[test]
fn a_service_account_that_was_there_before_is_not_adopted() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    // Made by hand as Daypass would have made it for an earlier member of the name.
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "otto", "namespace": role.namespace, "labels": {
            "daypass.dev/member": "otto", "daypass.dev/member-uid": "3f1c0a55-0000-4000-8000-000000000000"}},
    });
    lab.apply(&account.to_string());
    let old = lab.uid(&role.namespace, "serviceaccount", "otto");
    let member = Created::applied(lab, &bare.daypass, &role, "otto", &json!({"duration": "1h"}));
    assert_ne!(lab.uid(&role.namespace, "serviceaccount", "otto"), old);
    assert!(member.kubeconfig(lab).is_accepted(lab));
}

#[test]
fn a_service_account_that_somebody_deleted_is_made_again_and_its_kubeconfigs_stay_dead() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let member = Created::new(&bare.daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    let old = lab.uid(&role.namespace, "serviceaccount", member.name());
    lab.kubectl(&["delete", "serviceaccount", member.name(), "-n", &role.namespace]);
    eventually("a sweep has found it missing", || {
        let account = lab.object(&role.namespace, "serviceaccount", member.name())?;
        assert_ne!(account["metadata"]["uid"], old);
        Some(())
    });
    kubeconfig.wait_refused(lab);
    assert!(member.kubeconfig(lab).is_accepted(lab), "the credential is still good");
    assert_eq!(bare.daypass.kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "KUBECONFIG_ISSUED"]);
}

#[test]
fn a_member_that_cannot_be_deleted_is_dead_all_the_same() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let member = Created::applied(lab, &bare.daypass, &role, "kept", &json!({"duration": "1h"}));
    let kubeconfig = member.kubeconfig(lab);
    assert!(kubeconfig.is_accepted(lab));
    lab.keep(&role, "member", "kept", true);
    lab.patch(&role.namespace, "member", "kept", &json!({"spec": {"duration": "1s"}}));
    eventually("only the object is left", || (lab.remains(&role, "kept") == HELD).then_some(()));
    member.assert_dead(&bare.daypass);
    kubeconfig.wait_refused(lab);
    eventually("it is counted as overdue", || (bare.daypass.metric("daypass_overdue_seconds") > 0.0).then_some(()));
    lab.keep(&role, "member", "kept", false);
    lab.wait_gone(&role, "kept");
    flush(bare, &role);
    let ends = bare.daypass.kinds(&member.id).into_iter().filter(|kind| kind == "EXPIRED").count();
    assert_eq!(ends, 1, "however often its deletion was tried");
}

#[test]
fn a_service_account_that_cannot_be_deleted_keeps_no_token_alive() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let member = Created::new(&bare.daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    assert!(kubeconfig.is_accepted(lab));
    lab.keep(&role, "serviceaccount", member.name(), true);
    // It is not done, and that is said.
    bare.daypass.owner.delete(&member.path("")).problem(503, "DP_ERR_UNAVAILABLE");
    member.assert_dead(&bare.daypass);
    assert_eq!(lab.remains(&role, member.name()), Remains { member: false, account: true, secrets: 0 });
    kubeconfig.wait_refused(lab);
    lab.keep(&role, "serviceaccount", member.name(), false);
    lab.wait_gone(&role, member.name());
    assert_eq!(bare.daypass.kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
}
