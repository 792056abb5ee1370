//! Daypass alone removes every access of a member, however it ends.

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, Leftovers, NewMember, Role, eventually};

/// What is left of a member with a foreign finalizer.
const HELD: Leftovers = Leftovers { member: true, account: false, secrets: 0 };

/// Deletes a Member with kubectl and does not wait for finalizers.
fn kubectl_delete(cluster: &Cluster, role: &Role, name: &str, cascade: &str) {
    let cascade = format!("--cascade={cascade}");
    cluster.kubectl(&["delete", "member", name, "-n", &role.namespace, "--wait=false", &cascade]);
}

/// Waits until Daypass has handled all earlier changes of Members.
fn flush(cluster: &Cluster, daypass: &Daypass, role: &Role) {
    cluster.apply_member(role, "flush", &json!({"duration": "1h"}));
    kubectl_delete(cluster, role, "flush", "background");
    daypass.wait_event(&format!("{}.flush", role.id), "REVOKED");
}

#[test]
fn kubectl_delete_revokes_the_member() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    assert!(kubeconfig.is_accepted(cluster));
    assert_eq!(cluster.leftovers(&role, member.name()), Leftovers { member: true, account: true, secrets: 1 });
    kubectl_delete(cluster, &role, member.name(), "background");
    member.assert_dead(daypass);
    cluster.wait_gone(&role, member.name());
    kubeconfig.wait_refused(cluster);
    assert_eq!(daypass.wait_event(&member.id, "REVOKED")["actor"], json!({"type": "KUBERNETES"}));
    flush(cluster, daypass, &role);
    assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
}

#[test]
fn foreign_finalizer_keeps_only_the_object() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    assert!(kubeconfig.is_accepted(cluster));
    let finalizers = |list: Value| {
        cluster.patch(&role.namespace, "member", member.name(), &json!({"metadata": {"finalizers": list}}));
    };
    finalizers(json!(["example.com/keep"]));
    kubectl_delete(cluster, &role, member.name(), "background");
    member.assert_dead(daypass);
    eventually("only the object is left", || (cluster.leftovers(&role, member.name()) == HELD).then_some(()));
    kubeconfig.wait_refused(cluster);
    assert_eq!(daypass.wait_event(&member.id, "REVOKED")["actor"], json!({"type": "KUBERNETES"}));
    let listed = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    assert_eq!(listed["total"], 0);
    let status = cluster.object(&role.namespace, "member", member.name()).unwrap()["status"].clone();
    assert_eq!(status["phase"], "Terminating");

    // Neither a change nor its end restores any access.
    cluster.patch(&role.namespace, "member", member.name(), &json!({"spec": {"duration": "48h"}}));
    flush(cluster, daypass, &role);
    member.assert_dead(daypass);
    assert_eq!(cluster.leftovers(&role, member.name()), HELD);
    finalizers(Value::Null);
    cluster.wait_gone(&role, member.name());
    flush(cluster, daypass, &role);
    assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"], "once");
}

#[test]
fn orphaning_deletion_revokes_the_member() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    assert!(kubeconfig.is_accepted(cluster));
    // Removes the owner references, as the garbage collector would for an orphaning deletion.
    let orphan = json!({"metadata": {"ownerReferences": null}});
    cluster.patch(&role.namespace, "serviceaccount", member.name(), &orphan);
    cluster.patch(&role.namespace, "secret", &format!("{}.0", member.name()), &orphan);
    kubectl_delete(cluster, &role, member.name(), "orphan");
    member.assert_dead(daypass);
    // Daypass's deletion also removes the finalizer that only the garbage collector would.
    cluster.wait_gone(&role, member.name());
    kubeconfig.wait_refused(cluster);
    flush(cluster, daypass, &role);
    assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
}

#[test]
fn held_member_ends_on_time() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let member = NewMember::applied(cluster, daypass, &role, "held", &json!({"duration": "1h"}));
    let change = json!({"metadata": {"finalizers": ["example.com/keep"]}, "spec": {"duration": "1s"}});
    cluster.patch(&role.namespace, "member", "held", &change);
    eventually("only the object is left", || (cluster.leftovers(&role, "held") == HELD).then_some(()));
    member.assert_dead(daypass);
    let held = cluster.object(&role.namespace, "member", "held").unwrap();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    cluster.patch(&role.namespace, "member", "held", &json!({"metadata": {"finalizers": null}}));
    cluster.wait_gone(&role, "held");
    flush(cluster, daypass, &role);
    let ends: Vec<Value> = daypass.audit(&member.id).into_iter().filter(|event| event["event"] == "EXPIRED").collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(ends[0]["actor"], json!({"type": "DAYPASS"}));
    assert_eq!(daypass.event_kinds(&member.id).last().unwrap(), "EXPIRED");
}

#[test]
fn held_service_account_is_never_reused() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let first = NewMember::applied(cluster, daypass, &role, "otto", &json!({"duration": "1h"}));
    let kubeconfig = first.kubeconfig(cluster);
    assert!(kubeconfig.is_accepted(cluster));
    let old = cluster.uid(&role.namespace, "serviceaccount", "otto");
    let finalizers = |list: Value| {
        cluster.patch(&role.namespace, "serviceaccount", "otto", &json!({"metadata": {"finalizers": list}}))
    };
    finalizers(json!(["example.com/keep"]));
    daypass.owner.delete(&first.path("")).expect(204);
    // The token alone would be valid for another minute; it ends with its Secret.
    assert_eq!(cluster.leftovers(&role, "otto"), Leftovers { member: false, account: true, secrets: 0 });
    kubeconfig.wait_refused(cluster);

    cluster.apply_member(&role, "otto", &json!({"duration": "1h"}));
    eventually("Daypass has tried", || {
        let log = daypass.log();
        let tried = |line: &str| line.contains("could not be reconciled") && line.contains(&first.id);
        log.lines().any(tried).then_some(())
    });
    let body = daypass.owner.get(&first.path("")).expect(200).json();
    assert_eq!(body["status"], "PENDING");
    // Daypass issues no credential to a member without a service account of its own.
    let answer = daypass.owner.post(&first.path("/credentials"), &json!({}));
    assert!(answer.status >= 400, "{}", answer.text);
    assert_eq!(cluster.uid(&role.namespace, "serviceaccount", "otto"), old);
    finalizers(Value::Null);
    eventually("the new member has its own account", || {
        let account = cluster.object(&role.namespace, "serviceaccount", "otto")?;
        let new = cluster.uid(&role.namespace, "member", "otto");
        (account["metadata"]["labels"]["daypass.dev/member-uid"] == new).then_some(())
    });
    eventually("the member is active", || {
        (daypass.owner.get(&first.path("")).expect(200).json()["status"] == "ACTIVE").then_some(())
    });
}

#[test]
fn existing_service_account_is_not_adopted() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    // As Daypass would have made it for an earlier member of this name.
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "otto", "namespace": role.namespace, "labels": {
            "daypass.dev/member": "otto", "daypass.dev/member-uid": "3f1c0a55-0000-4000-8000-000000000000"}},
    });
    cluster.apply(&account.to_string());
    let old = cluster.uid(&role.namespace, "serviceaccount", "otto");
    let member = NewMember::applied(cluster, daypass, &role, "otto", &json!({"duration": "1h"}));
    assert_ne!(cluster.uid(&role.namespace, "serviceaccount", "otto"), old);
    assert!(member.kubeconfig(cluster).is_accepted(cluster));
}

#[test]
fn deleted_service_account_is_recreated_without_its_kubeconfigs() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    let old = cluster.uid(&role.namespace, "serviceaccount", member.name());
    cluster.kubectl(&["delete", "serviceaccount", member.name(), "-n", &role.namespace]);
    eventually("a sweep has found it missing", || {
        let account = cluster.object(&role.namespace, "serviceaccount", member.name())?;
        assert_ne!(account["metadata"]["uid"], old);
        Some(())
    });
    kubeconfig.wait_refused(cluster);
    assert!(member.kubeconfig(cluster).is_accepted(cluster), "the credential is still good");
    assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "KUBECONFIG_ISSUED"]);
}

#[test]
fn undeletable_member_has_no_access() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let member = NewMember::applied(cluster, daypass, &role, "kept", &json!({"duration": "1h"}));
    let kubeconfig = member.kubeconfig(cluster);
    assert!(kubeconfig.is_accepted(cluster));
    cluster.keep(&role, "member", "kept", true);
    cluster.patch(&role.namespace, "member", "kept", &json!({"spec": {"duration": "1s"}}));
    eventually("only the object is left", || (cluster.leftovers(&role, "kept") == HELD).then_some(()));
    member.assert_dead(daypass);
    kubeconfig.wait_refused(cluster);
    eventually("the member is counted as overdue", || (daypass.metric("daypass_overdue_seconds") > 0.0).then_some(()));
    cluster.keep(&role, "member", "kept", false);
    cluster.wait_gone(&role, "kept");
    flush(cluster, daypass, &role);
    let ends = daypass.event_kinds(&member.id).into_iter().filter(|kind| kind == "EXPIRED").count();
    assert_eq!(ends, 1, "one event for all attempts");
}

#[test]
fn undeletable_service_account_keeps_no_token_alive() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    assert!(kubeconfig.is_accepted(cluster));
    cluster.keep(&role, "serviceaccount", member.name(), true);
    // The answer says that the deletion is incomplete.
    daypass.owner.delete(&member.path("")).problem(403, "DP_ERR_REFUSED_BY_CLUSTER_POLICY");
    member.assert_dead(daypass);
    assert_eq!(cluster.leftovers(&role, member.name()), Leftovers { member: false, account: true, secrets: 0 });
    kubeconfig.wait_refused(cluster);
    cluster.keep(&role, "serviceaccount", member.name(), false);
    cluster.wait_gone(&role, member.name());
    assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
}
