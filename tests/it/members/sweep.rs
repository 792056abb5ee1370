//! The sweep: strays, unreadable objects, and roles that appear or vanish.

use serde_json::{Value, json};

use crate::support::without_controllers::KEEP;
use crate::support::{Cluster, Leftovers, NewMember, eventually, wait_until};

/// The names of all objects of a kind in a namespace, `default` included.
fn all_names(cluster: &Cluster, namespace: &str, kind: &str) -> Vec<String> {
    let objects = cluster.list(namespace, kind);
    objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn strays_are_removed_and_valid_objects_kept() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
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
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": strays}).to_string());
    eventually("the strays are gone", || {
        let mut accounts = all_names(cluster, &role.namespace, "serviceaccounts");
        accounts.retain(|name| name != "not.a.name");
        let mut expected = vec!["default".to_owned(), member.name().to_owned()];
        expected.sort();
        (accounts == expected && all_names(cluster, &role.namespace, "secrets") == [format!("{}.0", member.name())])
            .then_some(())
    });
    let held = cluster.object(&role.namespace, "serviceaccount", "not.a.name").unwrap();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert!(kubeconfig.is_accepted(cluster));
    assert!(cluster.object(&role.namespace, "configmap", "kept").is_some(), "nothing of Daypass's");
    assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED", "KUBECONFIG_ISSUED"]);
}

#[test]
fn undeletable_stray_does_not_protect_others() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let account = |name: &str, annotations: Value| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
               "metadata": {"name": name, "namespace": role.namespace, "annotations": annotations}})
    };
    let strays = [account("a.first", json!({KEEP: ""})), account("b.second", json!({})), account("third", json!({}))];
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": strays}).to_string());
    eventually("the others are gone", || {
        (all_names(cluster, &role.namespace, "serviceaccounts") == ["a.first", "default"]).then_some(())
    });
    let log = daypass.log();
    let is_reported = |line: &str| line.contains("\"ERROR\"") && line.contains(&format!("{}.a.first", role.id));
    assert!(log.lines().any(is_reported));
}

#[test]
fn unreadable_object_is_reported_and_others_work() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let make = |name: &str, spec: Option<Value>| {
        let mut manifest = json!({
            "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
            "metadata": {"name": name, "namespace": role.namespace},
        });
        if let Some(spec) = spec {
            manifest["spec"] = spec;
        }
        cluster.apply(&manifest.to_string());
    };
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
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
    // This one was valid until somebody wrote its status.
    let status = |name: &str, status: Value| {
        let patch = json!({"status": status}).to_string();
        let args =
            ["patch", "member", name, "-n", &role.namespace, "--subresource=status", "--type=merge", "-p", &patch];
        cluster.kubectl(&args);
    };
    status(member.name(), json!({"phase": "Forever", "expiresAt": "+10000-01-01T00:00:00Z"}));
    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    member.engineer.get(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let held = Leftovers { member: true, account: false, secrets: 0 };
    eventually("no access is left", || (cluster.leftovers(&role, member.name()) == held).then_some(()));
    kubeconfig.wait_refused(cluster);

    // A readable date in the far future does not prolong a member.
    let far = NewMember::applied(
        cluster,
        daypass,
        &role,
        "far",
        &json!({"duration": "1h", "notAfter": "9999-12-31T23:59:59Z"}),
    );
    assert_eq!(far.body["durationSeconds"], 3600);
    status("far", json!({"expiresAt": "9999-12-31T23:59:59Z"}));
    eventually("the recorded end is correct again", || {
        let member = cluster.object(&role.namespace, "member", "far").unwrap();
        (member["status"]["expiresAt"] == far.body["expiresAt"]).then_some(())
    });
    assert_eq!(daypass.owner.get(&far.path("")).expect(200).json()["expiresAt"], far.body["expiresAt"]);

    // Creating, listing, using and expiring members still work.
    let other = NewMember::new(&daypass.owner, &role, 1);
    assert!(other.kubeconfig(cluster).is_accepted(cluster));
    let listed = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    assert_eq!(listed["total"], 2, "{listed}");
    cluster.patch(&role.namespace, "member", "far", &json!({"spec": {"duration": "1s"}}));
    cluster.wait_gone(&role, "far");
    daypass.wait_event(&far.id, "EXPIRED");

    eventually("the tokens are counted", || (daypass.metric("daypass_members_unreadable") >= 9.0).then_some(()));
    let log = daypass.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("a Member cannot be read")).collect();
    for name in unreadable.iter().map(|(name, _)| *name).chain([member.name()]) {
        assert!(
            warnings.iter().any(|line| line.contains("\"WARN\"") && line.contains(name)),
            "{name} is not reported"
        );
        assert_eq!(cluster.object(&role.namespace, "serviceaccount", name), None);
        assert!(cluster.object(&role.namespace, "member", name).is_some(), "left for somebody to look at");
    }
    // A repaired object is a member again.
    cluster.patch(&role.namespace, "member", "number", &json!({"spec": {"duration": "1h"}}));
    let path = format!("/members/{}.number", role.id);
    eventually("the member is active", || {
        (daypass.owner.get(&path).expect(200).json()["status"] == "ACTIVE").then_some(())
    });
}

#[test]
fn namespace_without_its_label_is_no_role() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let brief = NewMember::applied(cluster, daypass, &role, "brief", &json!({"duration": "1h"}));
    let label = |label: &str| cluster.kubectl(&["label", "namespace", &role.namespace, label]);
    label("daypass.dev/role-id-");
    let end = brief.end_in_seconds(cluster, &role, 1);

    eventually("Daypass knows", || (daypass.owner.get(&member.path("")).status == 404).then_some(()));
    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    daypass.owner.post(&member.path("/credentials"), &json!({})).problem(404, "DP_ERR_NOT_FOUND");
    for path in ["/me", "/kubeconfig"] {
        member.engineer.get(&member.path(path)).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    let body = json!({"duration": 1, "roleId": role.id});
    daypass.owner.post("/members", &body).assert_invalid_field("roleId");
    let roles = daypass.owner.get("/members/roles").expect(200).text;
    assert!(!roles.contains(&format!("{:?}", role.id)), "{roles}");
    wait_until(end);

    label(&format!("daypass.dev/role-id={}", role.id));
    eventually("Daypass knows", || (daypass.owner.get(&member.path("")).status == 200).then_some(()));
    member.engineer.get(&member.path("/me")).expect(200);
    assert_eq!(daypass.owner.get(&member.path("")).expect(200).json()["status"], "ACTIVE");
    daypass.owner.get(&brief.path("")).problem(404, "DP_ERR_NOT_FOUND");
    cluster.wait_gone(&role, "brief");
    daypass.wait_event(&brief.id, "EXPIRED");
}

#[test]
fn deleted_role_ends_its_members() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let first = NewMember::new(&daypass.owner, &role, 1);
    let second = NewMember::applied(cluster, daypass, &role, "second", &json!({"duration": "1h"}));
    let kubeconfig = first.kubeconfig(cluster);
    assert!(kubeconfig.is_accepted(cluster));
    cluster.kubectl(&["delete", "namespace", &role.namespace]);
    for member in [&first, &second] {
        daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
        member.engineer.get(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        assert_eq!(daypass.wait_event(&member.id, "REVOKED")["actor"], json!({"type": "KUBERNETES"}));
    }
    kubeconfig.wait_refused(cluster);
    daypass.owner.post("/members", &json!({"duration": 1, "roleId": role.id})).assert_invalid_field("roleId");

    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    cluster.apply(&cluster.render_role(&role.id, &json!({"description": "Made again", "rules": rules})));
    cluster.wait_role(&role.id);
    let again = NewMember::applied(cluster, daypass, &role, "second", &json!({"duration": "1h"}));
    second.engineer.get(&second.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert!(again.kubeconfig(cluster).is_accepted(cluster));
    assert!(!kubeconfig.is_accepted(cluster));
    let listed = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    assert_eq!(listed["total"], 1);
}
