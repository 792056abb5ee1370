//! Members end on time, without a request.

use std::fs;

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use crate::support::{Cluster, Http, NewMember, Role, eventually, now, time, wait_until};

/// Creates a Member with kubectl. Returns the object as it was created.
fn make(cluster: &Cluster, role: &Role, name: &str, spec: &Value) -> Value {
    let manifest = json!({
        "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
        "metadata": {"name": name, "namespace": role.namespace}, "spec": spec,
    });
    let output = cluster.try_apply(&["-o", "json"], &manifest.to_string());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn member_lasting_seconds_expires() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let spec = json!({"duration": "4s", "username": "Talend support team", "description": "Case 0815"});
    let made = &make(cluster, &role, "brief", &spec)["metadata"];
    let end = time(&made["creationTimestamp"]) + TimeDelta::seconds(4);
    cluster.wait_gone(&role, "brief");
    assert!(now() >= end, "not before its time");

    let id = format!("{}.brief", role.id);
    let ended = daypass.wait_event(&id, "EXPIRED");
    assert_eq!(ended["actor"], json!({"type": "DAYPASS"}));
    assert!(time(&ended["time"]) >= end);
    let grant = json!({
        "id": id, "uid": made["uid"], "roleId": role.id, "username": "Talend support team", "description": "Case 0815",
        "createdAt": made["creationTimestamp"], "expiresAt": end.to_rfc3339_opts(SecondsFormat::Secs, true),
    });
    assert_eq!(ended["member"], grant, "the event says who, why, from when to when");
    let ends = daypass.event_kinds(&id).into_iter().filter(|kind| kind != "MEMBER_CREATED");
    assert_eq!(ends.collect::<Vec<_>>(), ["EXPIRED"]);
}

#[test]
fn member_works_until_exactly_its_end() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::applied(cluster, daypass, &role, "exact", &json!({"duration": "1h"}));
    assert!(cluster.leftovers(&role, "exact").account);
    let end = member.end_in_seconds(cluster, &role, 4);
    // An answer must be right for some moment between request and answer; speed does not matter.
    let check = |path: &str, client: &Http, over: u16| {
        eventually("the member has ended", || {
            let asked = now();
            let answer = client.get(path);
            let answered = now();
            match answer.status {
                200 => assert!(asked < end, "{path} was there at {asked}, after {end}"),
                status => {
                    assert_eq!(status, over);
                    assert!(answered >= end, "{path} was gone at {answered}, before {end}");
                }
            }
            (answer.status != 200).then_some(())
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check(&member.path(""), &daypass.owner, 404));
        scope.spawn(|| check(&member.path("/me"), &member.engineer, 401));
    });
    eventually("it is listed no longer", || {
        let listed = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
        (listed["total"] == 0).then_some(())
    });
    daypass.owner.post(&member.path("/credentials"), &json!({})).problem(404, "DP_ERR_NOT_FOUND");
    daypass.owner.patch(&member.path(""), &json!({"duration": 4})).problem(404, "DP_ERR_NOT_FOUND");
    daypass.owner.delete(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    cluster.wait_gone(&role, "exact");
}

#[test]
fn member_created_by_kubectl_works_over_rest() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let spec = json!({"duration": "1h30m", "username": "Otto", "description": "Case 0815"});
    let member = NewMember::applied(cluster, daypass, &role, "otto", &spec);
    assert_eq!((&member.body["durationSeconds"], &member.body["username"]), (&5400.into(), &"Otto".into()));
    assert_eq!(member.body.get("createdBy"), None, "kubectl sets no creator");

    let account = cluster.object(&role.namespace, "serviceaccount", "otto").unwrap();
    let owner = &account["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&"Member".into(), &cluster.uid(&role.namespace, "member", "otto").into())
    );
    assert_eq!((&owner["blockOwnerDeletion"], &account["metadata"]["finalizers"]), (&Value::Null, &Value::Null));
    for secret in ["Otto", "Case 0815"] {
        assert!(!account.to_string().contains(secret), "whoever lists service accounts need not know of {secret}");
    }
    let kubeconfig = member.kubeconfig(cluster);
    assert!(kubeconfig.is_accepted(cluster));
    let status = cluster.object(&role.namespace, "member", "otto").unwrap()["status"].clone();
    let ready = &status["conditions"][0];
    assert_eq!((&ready["type"], &ready["status"]), (&"Ready".into(), &"True".into()));
    assert_eq!(time(&status["expiresAt"]), time(&member.body["expiresAt"]));

    let created = daypass.wait_event(&member.id, "MEMBER_CREATED");
    assert_eq!(created["actor"], json!({"type": "KUBERNETES"}));
    assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED", "CREDENTIAL_ISSUED", "KUBECONFIG_ISSUED"]);
}

#[test]
fn duration_changed_by_kubectl_revokes_outliving_kubeconfigs() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::applied(cluster, daypass, &role, "otto", &json!({"duration": "2h"}));
    let created = time(&member.body["createdAt"]);
    let change = |duration: &str, kind: &str, hours: i64| {
        cluster.patch(&role.namespace, "member", "otto", &json!({"spec": {"duration": duration}}));
        let event = daypass.wait_event(&member.id, kind);
        assert_eq!(event["actor"], json!({"type": "KUBERNETES"}));
        assert_eq!(
            time(&event["member"]["expiresAt"]),
            created + TimeDelta::hours(hours),
            "measured from the creation"
        );
        let body = daypass.owner.get(&member.path("")).expect(200).json();
        assert_eq!(time(&body["expiresAt"]), created + TimeDelta::hours(hours));
    };
    change("3h", "EXTENDED", 3);
    let long = member.kubeconfig(cluster);
    assert!(long.is_accepted(cluster));
    change("1h", "SHORTENED", 1);
    long.wait_refused(cluster);
    assert_eq!(member.listed(&daypass.owner), [""; 0]);

    let short = member.kubeconfig(cluster);
    assert!(
        short.exp() + 70 <= (created + TimeDelta::hours(1)).timestamp(),
        "the credential works on, for what is left"
    );
    assert!(short.is_accepted(cluster));
    // Each change is audited once, however many readers see it.
    daypass.owner.delete(&member.path("")).expect(204);
    let kinds = [
        "MEMBER_CREATED",
        "CREDENTIAL_ISSUED",
        "EXTENDED",
        "KUBECONFIG_ISSUED",
        "SHORTENED",
        "KUBECONFIG_ISSUED",
        "REVOKED",
    ];
    cluster.wait_gone(&role, "otto");
    assert_eq!(daypass.event_kinds(&member.id), kinds);
}

#[test]
fn member_shortened_into_the_past_ends_at_once() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::applied(cluster, daypass, &role, "otto", &json!({"duration": "2h"}));
    let kubeconfig = member.kubeconfig(cluster);
    cluster.patch(&role.namespace, "member", "otto", &json!({"spec": {"duration": "1s"}}));
    wait_until(time(&member.body["createdAt"]) + TimeDelta::seconds(1));
    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    cluster.wait_gone(&role, "otto");
    kubeconfig.wait_refused(cluster);
    assert_eq!(daypass.wait_event(&member.id, "EXPIRED")["actor"], json!({"type": "DAYPASS"}));
    assert_eq!(daypass.event_kinds(&member.id).last().unwrap(), "EXPIRED");
}

#[test]
fn hard_end_limits_a_longer_duration() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    // With a fraction of a second: Daypass must not see the recorded end as another one and audit it again.
    let hard_end = (now() + TimeDelta::hours(2)).to_rfc3339_opts(SecondsFormat::Millis, true);
    let spec = json!({"duration": "1h", "notAfter": hard_end});
    let member = NewMember::applied(cluster, daypass, &role, "hard", &spec);
    daypass.owner.patch(&member.path(""), &json!({"duration": 5})).assert_invalid_field("duration");
    daypass
        .owner
        .patch(&member.path(""), &json!({"expiresAt": "2099-01-01T00:00:00Z"}))
        .assert_invalid_field("expiresAt");
    cluster.patch(&role.namespace, "member", "hard", &json!({"spec": {"duration": "48h"}}));
    daypass.wait_event(&member.id, "EXTENDED");
    let status = cluster.object(&role.namespace, "member", "hard").unwrap()["status"].clone();
    assert_eq!(time(&status["expiresAt"]), time(&json!(hard_end)));
    let body = daypass.owner.get(&member.path("")).expect(200).json();
    let left = time(&json!(hard_end)) - time(&body["expiresAt"]);
    assert!(left >= TimeDelta::zero() && left < TimeDelta::seconds(1), "whole seconds, never more: {left}");
    let kubeconfig = member.kubeconfig(cluster);
    assert!(kubeconfig.exp() + 70 <= time(&json!(hard_end)).timestamp());
    cluster.patch(&role.namespace, "member", "hard", &json!({"spec": {"duration": "47h"}}));
    daypass.owner.delete(&member.path("")).expect(204);
    let kinds = ["MEMBER_CREATED", "CREDENTIAL_ISSUED", "EXTENDED", "KUBECONFIG_ISSUED", "REVOKED"];
    assert_eq!(daypass.event_kinds(&member.id), kinds, "a duration that changes no end is not audited");
}

/// All service accounts ever created in a role, from the API server's audit log.
fn accounts_made(cluster: &Cluster, role: &Role) -> Vec<String> {
    let log = fs::read_to_string(cluster.plane.audit_log()).unwrap();
    // The last line may be half-written.
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let made = events.filter(|event| {
        event["verb"] == "create"
            && event["stage"] == "ResponseComplete"
            && event["responseStatus"]["code"] == 201
            && event["objectRef"]["resource"] == "serviceaccounts"
            && event["objectRef"]["subresource"].is_null()
            && event["objectRef"]["namespace"] == role.namespace
            && !event["requestURI"].as_str().unwrap().contains("dryRun")
    });
    made.map(|event| event["objectRef"]["name"].as_str().unwrap().to_owned())
        .filter(|name| name != "default")
        .collect()
}

#[test]
fn member_past_its_hard_end_is_not_provisioned() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let spec = json!({"duration": "4h", "notAfter": "2020-01-01T00:00:00Z"});
    cluster.apply_member(&role, "late", &spec);
    let id = format!("{}.late", role.id);
    daypass.owner.get(&format!("/members/{id}")).problem(404, "DP_ERR_NOT_FOUND");
    cluster.wait_gone(&role, "late");
    daypass.wait_event(&id, "EXPIRED");
    assert_eq!(daypass.event_kinds(&id), ["EXPIRED"]);
    // A provisioned member shows that the audit log has such entries.
    NewMember::applied(cluster, daypass, &role, "timely", &json!({"duration": "1h"}));
    assert_eq!(accounts_made(cluster, &role), ["timely"]);
}

/// Deletes a Member and applies the output of `kubectl get -o yaml` again, as a restore does. Only the resource
/// version must be removed.
fn restore(cluster: &Cluster, role: &Role, name: &str, user: &[&str]) {
    let yaml = cluster.kubectl(&["get", "member", name, "-n", &role.namespace, "-o", "yaml"]);
    let manifest: String =
        yaml.lines().filter(|line| !line.starts_with("  resourceVersion:")).map(|line| format!("{line}\n")).collect();
    assert!(manifest.contains("credentialHash") && manifest.contains("  uid:"), "{manifest}");
    cluster.kubectl(&["delete", "member", name, "-n", &role.namespace]);
    let output = cluster.try_apply(user, &manifest);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn member_reapplied_from_its_yaml_is_a_new_member() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let first = NewMember::new(&daypass.owner, &role, 2);
    let kubeconfig = first.kubeconfig(cluster);
    let not_after = |name: &str| cluster.object(&role.namespace, "member", name).unwrap()["spec"]["notAfter"].clone();
    let (uid, end) = (cluster.uid(&role.namespace, "member", first.name()), not_after(first.name()));
    // As its creator, since an admission policy refuses other names.
    restore(cluster, &role, first.name(), &["--as=system:serviceaccount:default:owner"]);

    first.engineer.get(&first.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    eventually("the new member is provisioned", || {
        let account = cluster.object(&role.namespace, "serviceaccount", first.name());
        let labels = account.map(|account| account["metadata"]["labels"]["daypass.dev/member-uid"].clone());
        let new = cluster.uid(&role.namespace, "member", first.name());
        assert_ne!(new, uid);
        let active = daypass.owner.get(&first.path("")).expect(200).json()["status"] == "ACTIVE";
        (active && labels == Some(new.into())).then_some(())
    });
    first.engineer.get(&first.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    first.engineer.get(&first.path("/kubeconfig")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    kubeconfig.wait_refused(cluster);
    assert_eq!(not_after(first.name()), end, "the hard end stays");
    assert_eq!(daypass.owner.get(&first.path("/kubeconfigs")).expect(200).json()["items"], json!([]));
    let uids: Vec<Value> = daypass.audit(&first.id).iter().map(|event| event["member"]["uid"].clone()).collect();
    assert_eq!(uids.iter().filter(|it| **it == uid).count(), 3, "created, kubeconfig issued, revoked: {uids:?}");
}

#[test]
fn member_reapplied_after_its_hard_end_never_works() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let hard_end = (now() + TimeDelta::seconds(4)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut made = make(cluster, &role, "again", &json!({"duration": "4h", "notAfter": hard_end}));
    cluster.wait_gone(&role, "again");
    assert!(now() >= time(&json!(hard_end)));
    let before = accounts_made(cluster, &role);
    made["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    cluster.apply(&made.to_string());
    daypass.owner.get(&format!("/members/{}.again", role.id)).problem(404, "DP_ERR_NOT_FOUND");
    cluster.wait_gone(&role, "again");
    assert_eq!(accounts_made(cluster, &role), before);
}

#[test]
fn api_server_refuses_kubeconfig_from_the_members_end_on() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    let end = time(&member.body["expiresAt"]).timestamp();
    assert!(kubeconfig.exp() <= end - 70, "{} {end}", kubeconfig.exp());
    assert!(kubeconfig.exp() > end - 120, "and not much earlier");

    // The member, its service account and its Secret exist, so only the token's date counts.
    let whoami = |token: &str| {
        let file = cluster.save(&kubeconfig.text.replace(&kubeconfig.token, token));
        let output = cluster.kubectl_with(&file, &["auth", "whoami"]);
        assert!(
            output.status.success() || String::from_utf8_lossy(&output.stderr).contains("Unauthorized"),
            "{output:?}"
        );
        output.status.success()
    };
    let ending = |exp: i64| {
        cluster.resign(&kubeconfig.token, |claims| {
            claims["exp"] = exp.into();
            // The API server refuses a token that ends before it begins.
            for begin in ["iat", "nbf"] {
                claims[begin] = (exp - 600).into();
            }
        })
    };
    let now = now().timestamp();
    assert!(whoami(&ending(now + 600)), "the API server accepts a token signed here");
    // With 60 s of leeway and 10 s of cache, a token is refused at the latest 70 s after its `exp`.
    assert!(!whoami(&ending(now - 61)));
    assert!(!whoami(&ending(now - 70)));
}
