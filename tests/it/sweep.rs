//! What nobody announced: strays, objects that cannot be read, roles that come and go.

use serde_json::{Value, json};

use crate::support::bare::{Bare, KEEP};
use crate::support::{Created, Lab, Remains, eventually, wait_until};

/// The names of all objects of a kind in a namespace, `default` included.
fn all_names(lab: &Lab, namespace: &str, kind: &str) -> Vec<String> {
    let names = lab.kubectl(&["get", kind, "-n", namespace, "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn strays_in_a_role_are_removed_and_what_is_in_order_is_left() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let member = Created::new(&bare.daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    let object = |kind: &str, name: &str, labels: Value| {
        json!({"apiVersion": "v1", "kind": kind,
               "metadata": {"name": name, "namespace": role.namespace, "labels": labels}})
    };
    let of = |name: &str, uid: &str| json!({"daypass.dev/member": name, "daypass.dev/member-uid": uid});
    let nobody = "3f1c0a55-0000-4000-8000-000000000000";
    let mut held = object("ServiceAccount", "not.a.name", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/keep"]);
    let mut token = object("Secret", "token", json!({}));
    token["type"] = "kubernetes.io/service-account-token".into();
    token["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": "default"});
    let strays = [
        held,
        token,
        object("ServiceAccount", "stray", json!({})),
        object("ServiceAccount", &"a".repeat(63), json!({})),
        object("ServiceAccount", "orphan", of("orphan", nobody)),
        object("Secret", "stray", json!({})),
        object("Secret", "orphan.0", of("orphan", nobody)),
        object("Secret", "former.0", of(member.name(), nobody)),
        object("Secret", "bad.0", of("Not.A.Name", nobody)),
        object("ConfigMap", "kept", json!({})),
    ];
    lab.apply(&json!({"apiVersion": "v1", "kind": "List", "items": strays}).to_string());
    eventually("the strays are gone", || {
        let mut accounts = all_names(lab, &role.namespace, "serviceaccounts");
        accounts.retain(|name| name != "not.a.name");
        let mut expected = vec!["default".to_owned(), member.name().to_owned()];
        expected.sort();
        (accounts == expected && all_names(lab, &role.namespace, "secrets") == [format!("{}.0", member.name())])
            .then_some(())
    });
    let held = lab.object(&role.namespace, "serviceaccount", "not.a.name").unwrap();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert!(kubeconfig.is_accepted(lab));
    assert!(lab.object(&role.namespace, "configmap", "kept").is_some(), "nothing of Daypass's");
    assert_eq!(bare.daypass.kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED"]);
}

#[test]
fn a_stray_that_cannot_be_removed_keeps_no_other_from_being_removed() {
    let bare = Bare::shared();
    let (lab, role) = (&bare.lab, bare.role());
    let account = |name: &str, annotations: Value| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
               "metadata": {"name": name, "namespace": role.namespace, "annotations": annotations}})
    };
    let strays = [account("a.first", json!({KEEP: ""})), account("b.second", json!({})), account("third", json!({}))];
    lab.apply(&json!({"apiVersion": "v1", "kind": "List", "items": strays}).to_string());
    eventually("the others are gone", || {
        (all_names(lab, &role.namespace, "serviceaccounts") == ["a.first", "default"]).then_some(())
    });
    let log = bare.daypass.log();
    let is_reported = |line: &str| line.contains("\"ERROR\"") && line.contains(&format!("{}.a.first", role.id));
    assert!(log.lines().any(is_reported));
}

#[test]
fn an_object_that_cannot_be_read_is_reported_and_the_others_go_on() {
    let bare = Bare::shared();
    let (lab, daypass, role) = (&bare.lab, &bare.daypass, bare.role());
    let make = |name: &str, spec: Option<Value>| {
        let mut manifest = json!({
            "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
            "metadata": {"name": name, "namespace": role.namespace},
        });
        if let Some(spec) = spec {
            manifest["spec"] = spec;
        }
        lab.apply(&manifest.to_string());
    };
    let member = Created::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    let unreadable: [(&str, Option<Value>); 8] = [
        ("missing", None),
        ("null", Some(json!({"duration": null}))),
        ("number", Some(json!({"duration": 3}))),
        ("list", Some(json!([]))),
        ("weeks", Some(json!({"duration": "9999999999999 weeks"}))),
        ("long", Some(json!({"duration": "49h"}))),
        ("minus", Some(json!({"duration": "-1h"}))),
        ("never", Some(json!({"duration": "1h", "notAfter": "+10000-01-01T00:00:00Z"}))),
    ];
    for (name, spec) in &unreadable {
        make(name, spec.clone());
    }
    // One that was in order, until somebody wrote its status.
    let status = |name: &str, status: Value| {
        let patch = json!({"status": status}).to_string();
        let args =
            ["patch", "member", name, "-n", &role.namespace, "--subresource=status", "--type=merge", "-p", &patch];
        lab.kubectl(&args);
    };
    status(member.name(), json!({"phase": "Forever", "expiresAt": "+10000-01-01T00:00:00Z"}));
    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    member.engineer.get(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let held = Remains { member: true, account: false, secrets: 0 };
    eventually("nothing of it can be used", || (lab.remains(&role, member.name()) == held).then_some(()));
    kubeconfig.wait_refused(lab);

    // Far dates that can be read are no reason to live longer.
    let far =
        Created::applied(lab, daypass, &role, "far", &json!({"duration": "1h", "notAfter": "9999-12-31T23:59:59Z"}));
    assert_eq!(far.body["durationSeconds"], 3600);
    status("far", json!({"expiresAt": "9999-12-31T23:59:59Z"}));
    eventually("the recorded end is the right one again", || {
        let member = lab.object(&role.namespace, "member", "far").unwrap();
        (member["status"]["expiresAt"] == far.body["expiresAt"]).then_some(())
    });
    assert_eq!(daypass.owner.get(&far.path("")).expect(200).json()["expiresAt"], far.body["expiresAt"]);

    // Creating, listing, using and expiring go on.
    let other = Created::new(&daypass.owner, &role, 1);
    assert!(other.kubeconfig(lab).is_accepted(lab));
    let listed = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    assert_eq!(listed["total"], 2, "{listed}");
    lab.patch(&role.namespace, "member", "far", &json!({"spec": {"duration": "1s"}}));
    lab.wait_gone(&role, "far");
    daypass.recorded(&far.id, "EXPIRED");

    eventually("they are counted", || (daypass.metric("daypass_members_unreadable") >= 9.0).then_some(()));
    let log = daypass.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("a Member cannot be read")).collect();
    for name in unreadable.iter().map(|(name, _)| *name).chain([member.name()]) {
        assert!(warnings.iter().any(|line| line.contains("\"WARN\"") && line.contains(name)), "{name} is not reported");
        assert_eq!(lab.object(&role.namespace, "serviceaccount", name), None);
        assert!(lab.object(&role.namespace, "member", name).is_some(), "left for somebody to look at");
    }
    // One that is put right is a member.
    lab.patch(&role.namespace, "member", "number", &json!({"spec": {"duration": "1h"}}));
    let path = format!("/members/{}.number", role.id);
    eventually("it is active", || (daypass.owner.get(&path).expect(200).json()["status"] == "ACTIVE").then_some(()));
}

#[test]
fn a_namespace_that_loses_its_label_is_no_role_until_it_has_it_again() {
    let bare = Bare::shared();
    let (lab, daypass, role) = (&bare.lab, &bare.daypass, bare.role());
    let member = Created::new(&daypass.owner, &role, 1);
    let brief = Created::applied(lab, daypass, &role, "brief", &json!({"duration": "1h"}));
    let label = |label: &str| lab.kubectl(&["label", "namespace", &role.namespace, label]);
    label("daypass.dev/role-id-");
    let end = brief.end_in(lab, &role, 1);

    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    daypass.owner.post(&member.path("/credentials"), &json!({})).problem(404, "DP_ERR_NOT_FOUND");
    for path in ["/me", "/kubeconfig"] {
        member.engineer.get(&member.path(path)).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    let body = json!({"duration": 1, "roleId": role.id});
    daypass.owner.post("/members", &body).refused_field("roleId");
    let roles = daypass.owner.get("/members/roles").expect(200).text;
    assert!(!roles.contains(&format!("{:?}", role.id)), "{roles}");
    wait_until(end);

    label(&format!("daypass.dev/role-id={}", role.id));
    member.engineer.get(&member.path("/me")).expect(200);
    assert_eq!(daypass.owner.get(&member.path("")).expect(200).json()["status"], "ACTIVE");
    daypass.owner.get(&brief.path("")).problem(404, "DP_ERR_NOT_FOUND");
    lab.wait_gone(&role, "brief");
    daypass.recorded(&brief.id, "EXPIRED");
}

#[test]
fn a_role_that_is_deleted_ends_its_members_and_one_made_again_starts_afresh() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let first = Created::new(&daypass.owner, &role, 1);
    let second = Created::applied(lab, daypass, &role, "second", &json!({"duration": "1h"}));
    let kubeconfig = first.kubeconfig(lab);
    assert!(kubeconfig.is_accepted(lab));
    lab.kubectl(&["delete", "namespace", &role.namespace]);
    for member in [&first, &second] {
        daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
        member.engineer.get(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        assert_eq!(daypass.recorded(&member.id, "REVOKED")["actor"], json!({"type": "KUBERNETES"}));
    }
    kubeconfig.wait_refused(lab);
    daypass.owner.post("/members", &json!({"duration": 1, "roleId": role.id})).refused_field("roleId");

    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    lab.apply(&lab.render_role(&role.id, &json!({"description": "Made again", "rules": rules})));
    lab.wait_role(&role.id);
    let again = Created::applied(lab, daypass, &role, "second", &json!({"duration": "1h"}));
    second.engineer.get(&second.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert!(again.kubeconfig(lab).is_accepted(lab));
    assert!(!kubeconfig.is_accepted(lab));
    let listed = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    assert_eq!(listed["total"], 1);
}
