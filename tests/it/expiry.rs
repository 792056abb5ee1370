//! Members end by themselves, at their time, and never live longer than they may.

use std::fs;

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use crate::support::{Created, Http, Lab, Role, eventually, now, time, wait_until};

/// Makes a Member with kubectl; the object as it was made, whatever became of it since.
fn make(lab: &Lab, role: &Role, name: &str, spec: &Value) -> Value {
    let manifest = json!({
        "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
        "metadata": {"name": name, "namespace": role.namespace}, "spec": spec,
    });
    let output = lab.try_apply(&["-o", "json"], &manifest.to_string());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_member_of_a_few_seconds_is_gone_at_its_end_without_anybody_asking() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let spec = json!({"duration": "4s", "username": "Talend support team", "description": "Case 0815"});
    let made = &make(lab, &role, "brief", &spec)["metadata"];
    let end = time(&made["creationTimestamp"]) + TimeDelta::seconds(4);
    lab.wait_gone(&role, "brief");
    assert!(now() >= end, "not before its time");

    let id = format!("{}.brief", role.id);
    let ended = daypass.recorded(&id, "EXPIRED");
    assert_eq!(ended["actor"], json!({"type": "DAYPASS"}));
    assert!(time(&ended["time"]) >= end);
    let grant = json!({
        "id": id, "uid": made["uid"], "roleId": role.id, "username": "Talend support team", "description": "Case 0815",
        "createdAt": made["creationTimestamp"], "expiresAt": end.to_rfc3339_opts(SecondsFormat::Secs, true),
    });
    assert_eq!(ended["member"], grant, "the record of the end answers who, why, from when to when");
    let ends = daypass.kinds(&id).into_iter().filter(|kind| kind != "MEMBER_CREATED");
    assert_eq!(ends.collect::<Vec<_>>(), ["EXPIRED"]);
}

#[test]
fn a_member_is_there_until_its_end_and_not_a_moment_longer() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let member = Created::applied(lab, daypass, &role, "exact", &json!({"duration": "1h"}));
    assert!(lab.remains(&role, "exact").account);
    let end = member.end_in(lab, &role, 4);
    // Whatever is answered is right for some moment between asking and being answered; how fast either is does not matter.
    let check = |path: &str, client: &Http, over: u16| {
        eventually("its end", || {
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
    let listed = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    assert_eq!(listed["total"], 0);
    daypass.owner.post(&member.path("/credentials"), &json!({})).problem(404, "DP_ERR_NOT_FOUND");
    daypass.owner.patch(&member.path(""), &json!({"duration": 4})).problem(404, "DP_ERR_NOT_FOUND");
    daypass.owner.delete(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    lab.wait_gone(&role, "exact");
}

#[test]
fn a_member_made_by_kubectl_is_one_like_any_other() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let spec = json!({"duration": "1h30m", "username": "Otto", "description": "Case 0815"});
    let member = Created::applied(lab, daypass, &role, "otto", &spec);
    assert_eq!((&member.body["durationSeconds"], &member.body["username"]), (&5400.into(), &"Otto".into()));
    assert_eq!(member.body.get("createdBy"), None, "nobody said who");

    let account = lab.object(&role.namespace, "serviceaccount", "otto").unwrap();
    let owner = &account["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"]), (&"Member".into(), &lab.uid(&role.namespace, "member", "otto").into()));
    assert_eq!((&owner["blockOwnerDeletion"], &account["metadata"]["finalizers"]), (&Value::Null, &Value::Null));
    for secret in ["Otto", "Case 0815"] {
        assert!(!account.to_string().contains(secret), "whoever lists service accounts need not know of {secret}");
    }
    let kubeconfig = member.kubeconfig(lab);
    assert!(kubeconfig.is_accepted(lab));
    let status = lab.object(&role.namespace, "member", "otto").unwrap()["status"].clone();
    let ready = &status["conditions"][0];
    assert_eq!((&ready["type"], &ready["status"]), (&"Ready".into(), &"True".into()));
    assert_eq!(time(&status["expiresAt"]), time(&member.body["expiresAt"]));

    let created = daypass.recorded(&member.id, "MEMBER_CREATED");
    assert_eq!(created["actor"], json!({"type": "KUBERNETES"}));
    assert_eq!(daypass.kinds(&member.id), ["MEMBER_CREATED", "CREDENTIAL_ISSUED", "KUBECONFIG_ISSUED"]);
}

#[test]
fn a_duration_changed_by_kubectl_extends_and_shortens_and_kills_what_would_outlive_it() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let member = Created::applied(lab, daypass, &role, "otto", &json!({"duration": "2h"}));
    let created = time(&member.body["createdAt"]);
    let change = |duration: &str, kind: &str, hours: i64| {
        lab.patch(&role.namespace, "member", "otto", &json!({"spec": {"duration": duration}}));
        let event = daypass.recorded(&member.id, kind);
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
    let long = member.kubeconfig(lab);
    assert!(long.is_accepted(lab));
    change("1h", "SHORTENED", 1);
    long.wait_refused(lab);
    assert_eq!(member.listed(&daypass.owner), [""; 0]);

    let short = member.kubeconfig(lab);
    assert!(
        short.exp() + 70 <= (created + TimeDelta::hours(1)).timestamp(),
        "the credential works on, for what is left"
    );
    assert!(short.is_accepted(lab));
    // A spec is reported as it is recorded, once, whoever looks at it how often.
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
    lab.wait_gone(&role, "otto");
    assert_eq!(daypass.kinds(&member.id), kinds);
}

#[test]
fn a_member_shortened_into_the_past_is_over_at_once() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let member = Created::applied(lab, daypass, &role, "otto", &json!({"duration": "2h"}));
    let kubeconfig = member.kubeconfig(lab);
    lab.patch(&role.namespace, "member", "otto", &json!({"spec": {"duration": "1s"}}));
    wait_until(time(&member.body["createdAt"]) + TimeDelta::seconds(1));
    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    lab.wait_gone(&role, "otto");
    kubeconfig.wait_refused(lab);
    assert_eq!(daypass.recorded(&member.id, "EXPIRED")["actor"], json!({"type": "DAYPASS"}));
    assert_eq!(daypass.kinds(&member.id).last().unwrap(), "EXPIRED");
}

#[test]
fn a_hard_end_holds_against_a_longer_duration() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    // With a fraction: nobody may take the end that was recorded for another one, and record it again and again.
    let hard_end = (now() + TimeDelta::hours(2)).to_rfc3339_opts(SecondsFormat::Millis, true);
    let spec = json!({"duration": "1h", "notAfter": hard_end});
    let member = Created::applied(lab, daypass, &role, "hard", &spec);
    daypass.owner.patch(&member.path(""), &json!({"duration": 5})).refused_field("duration");
    daypass.owner.patch(&member.path(""), &json!({"expiresAt": "2099-01-01T00:00:00Z"})).refused_field("expiresAt");
    lab.patch(&role.namespace, "member", "hard", &json!({"spec": {"duration": "48h"}}));
    daypass.recorded(&member.id, "EXTENDED");
    let status = lab.object(&role.namespace, "member", "hard").unwrap()["status"].clone();
    assert_eq!(time(&status["expiresAt"]), time(&json!(hard_end)));
    let body = daypass.owner.get(&member.path("")).expect(200).json();
    let left = time(&json!(hard_end)) - time(&body["expiresAt"]);
    assert!(left >= TimeDelta::zero() && left < TimeDelta::seconds(1), "whole seconds, never more: {left}");
    let kubeconfig = member.kubeconfig(lab);
    assert!(kubeconfig.exp() + 70 <= time(&json!(hard_end)).timestamp());
    lab.patch(&role.namespace, "member", "hard", &json!({"spec": {"duration": "47h"}}));
    daypass.owner.delete(&member.path("")).expect(204);
    let kinds = ["MEMBER_CREATED", "CREDENTIAL_ISSUED", "EXTENDED", "KUBECONFIG_ISSUED", "REVOKED"];
    assert_eq!(daypass.kinds(&member.id), kinds, "a duration that changes no end is no event");
}

/// The service accounts that were ever made in a role, by the API server's own account.
fn accounts_made(lab: &Lab, role: &Role) -> Vec<String> {
    let log = fs::read_to_string(lab.plane.audit_log()).unwrap();
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
    made.map(|event| event["objectRef"]["name"].as_str().unwrap().to_owned()).filter(|name| name != "default").collect()
}

#[test]
fn a_member_past_its_hard_end_is_never_provisioned() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let spec = json!({"duration": "4h", "notAfter": "2020-01-01T00:00:00Z"});
    lab.apply_member(&role, "late", &spec);
    let id = format!("{}.late", role.id);
    daypass.owner.get(&format!("/members/{id}")).problem(404, "DP_ERR_NOT_FOUND");
    lab.wait_gone(&role, "late");
    daypass.recorded(&id, "EXPIRED");
    assert_eq!(daypass.kinds(&id), ["EXPIRED"]);
    // One that is provisioned shows that the log would tell.
    Created::applied(lab, daypass, &role, "timely", &json!({"duration": "1h"}));
    assert_eq!(accounts_made(lab, &role), ["timely"]);
}

/// Deletes a Member and applies it again from what `kubectl get -o yaml` said of it, as a restore does; apply refuses nothing in it
/// but the version.
fn restore(lab: &Lab, role: &Role, name: &str, user: &[&str]) {
    let yaml = lab.kubectl(&["get", "member", name, "-n", &role.namespace, "-o", "yaml"]);
    let manifest: String =
        yaml.lines().filter(|line| !line.starts_with("  resourceVersion:")).map(|line| format!("{line}\n")).collect();
    assert!(manifest.contains("credentialHash") && manifest.contains("  uid:"), "{manifest}");
    lab.kubectl(&["delete", "member", name, "-n", &role.namespace]);
    let output = lab.try_apply(user, &manifest);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_member_applied_again_from_its_own_yaml_is_another_one() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let first = Created::new(&daypass.owner, &role, 2);
    let kubeconfig = first.kubeconfig(lab);
    let not_after = |name: &str| lab.object(&role.namespace, "member", name).unwrap()["spec"]["notAfter"].clone();
    let (uid, end) = (lab.uid(&role.namespace, "member", first.name()), not_after(first.name()));
    // As its creator: an admission policy lets nobody else be named as such.
    restore(lab, &role, first.name(), &["--as=system:serviceaccount:default:owner"]);

    first.engineer.get(&first.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    eventually("the new member is provisioned", || {
        let account = lab.object(&role.namespace, "serviceaccount", first.name());
        let labels = account.map(|account| account["metadata"]["labels"]["daypass.dev/member-uid"].clone());
        let new = lab.uid(&role.namespace, "member", first.name());
        assert_ne!(new, uid);
        let active = daypass.owner.get(&first.path("")).expect(200).json()["status"] == "ACTIVE";
        (active && labels == Some(new.into())).then_some(())
    });
    first.engineer.get(&first.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    first.engineer.get(&first.path("/kubeconfig")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    kubeconfig.wait_refused(lab);
    assert_eq!(not_after(first.name()), end, "its time does not start again");
    assert_eq!(daypass.owner.get(&first.path("/kubeconfigs")).expect(200).json()["items"], json!([]));
    let uids: Vec<Value> = daypass.audit(&first.id).iter().map(|event| event["member"]["uid"].clone()).collect();
    assert_eq!(uids.iter().filter(|it| **it == uid).count(), 3, "created, kubeconfig issued, revoked: {uids:?}");
}

#[test]
fn a_member_applied_again_after_its_hard_end_is_dead_from_the_start() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let hard_end = (now() + TimeDelta::seconds(4)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut made = make(lab, &role, "again", &json!({"duration": "4h", "notAfter": hard_end}));
    lab.wait_gone(&role, "again");
    assert!(now() >= time(&json!(hard_end)));
    let before = accounts_made(lab, &role);
    made["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    lab.apply(&made.to_string());
    daypass.owner.get(&format!("/members/{}.again", role.id)).problem(404, "DP_ERR_NOT_FOUND");
    lab.wait_gone(&role, "again");
    assert_eq!(accounts_made(lab, &role), before);
}

#[test]
fn a_kubeconfigs_token_is_refused_from_the_members_end_on_by_the_api_server_alone() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let member = Created::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    let end = time(&member.body["expiresAt"]).timestamp();
    assert!(kubeconfig.exp() <= end - 70, "{} {end}", kubeconfig.exp());
    assert!(kubeconfig.exp() > end - 120, "and not much earlier");

    // The member lives, its service account and Secret are there: nothing but the date in the token counts.
    let whoami = |token: &str| {
        let file = lab.save(&kubeconfig.text.replace(&kubeconfig.token, token));
        let output = lab.kubectl_with(&file, &["auth", "whoami"]);
        assert!(
            output.status.success() || String::from_utf8_lossy(&output.stderr).contains("Unauthorized"),
            "{output:?}"
        );
        output.status.success()
    };
    let ending = |exp: i64| {
        lab.resign(&kubeconfig.token, |claims| {
            claims["exp"] = exp.into();
            // A token that ends before it begins would be refused for that.
            for begin in ["iat", "nbf"] {
                claims[begin] = (exp - 600).into();
            }
        })
    };
    let now = now().timestamp();
    assert!(whoami(&ending(now + 600)), "one signed here is as good as the API server's own");
    // 60 s of leeway, and 10 s that it remembers one that it took: no later than 70 s after its exp a token is dead.
    assert!(!whoami(&ending(now - 61)));
    assert!(!whoami(&ending(now - 70)));
}
