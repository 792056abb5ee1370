//! Quotas in a role's namespace: the role's own limit on members, and those of the cluster's owner.

use serde_json::json;

use crate::support::{Answer, Cluster, DAYPASS, NewMember, Role, eventually};

/// Sets the quota `team` in a role's namespace and waits until Kubernetes has counted so many.
fn limit(cluster: &Cluster, role: &Role, resource: &str, most: u8, used: u8) {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team", "namespace": role.namespace},
        "spec": {"hard": {resource: most.to_string()}},
    });
    cluster.apply(&quota.to_string());
    eventually("the quota is counted", || {
        let quota = cluster.object(&role.namespace, "resourcequota", "team")?;
        let status = &quota["status"];
        (status["hard"] == quota["spec"]["hard"] && status["used"][resource] == *used.to_string()).then_some(())
    });
}

/// Checks that the answer names this quota.
#[track_caller]
fn assert_exceeded(answer: &Answer, resource: &str) {
    let body = answer.problem(409, "DP_ERR_QUOTA_EXCEEDED");
    assert_eq!(body["detail"], format!("the ResourceQuota team leaves no room for {resource}"));
    assert_eq!(answer.header("retry-after"), "");
}

#[test]
fn exceeded_foreign_quota_is_named() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    limit(cluster, &role, "count/secrets", 0, 0);
    assert_exceeded(&member.engineer.get(&member.path("/kubeconfig")), "count/secrets");

    // `default` and the member's.
    cluster.wait_default_account(&role.namespace);
    limit(cluster, &role, "count/serviceaccounts", 2, 2);
    let body = json!({"duration": 1, "roleId": role.id});
    assert_exceeded(&daypass.owner.post("/members", &body), "count/serviceaccounts");
    assert_eq!(cluster.names(&role.namespace, "members"), [member.name()], "nothing half done stays");

    limit(cluster, &role, "count/members.daypass.dev", 1, 1);
    assert_exceeded(&daypass.owner.post("/members", &body), "count/members.daypass.dev");

    cluster.kubectl(&["delete", "resourcequota", "team", "-n", &role.namespace]);
    eventually("the quota is gone", || (member.engineer.get(&member.path("/kubeconfig")).status == 200).then_some(()));
}

#[test]
fn role_with_all_its_members_takes_no_more() {
    let (cluster, daypass) = Cluster::shared();
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let role = cluster.role_of(&json!({"description": "A test's", "rules": rules, "maxMembers": 1}));
    let member = NewMember::new(&daypass.owner, &role, 1);
    let answer = daypass.owner.post("/members", &json!({"duration": 1, "roleId": role.id}));
    answer.problem(409, "DP_ERR_TOO_MANY_MEMBERS");
    member.kubeconfig(cluster);
}

/// Kubernetes counts an attempt to create an account that exists already, until it counts the quota again.
#[test]
fn refused_attempts_use_up_no_quota() {
    let (cluster, daypass) = Cluster::shared();
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let role = cluster.role_of(&json!({"description": "A test's", "rules": rules, "maxMembers": 1}));
    let body = json!({"duration": 1, "roleId": role.id});
    let create = || {
        Answer::of(daypass.owner.request("POST", "/members").json(&body).header("Idempotency-Key", "one and the same"))
    };
    let first = create().expect(201).json();
    let path = format!("/members/{}", first["id"].as_str().unwrap());
    let name = path.rsplit_once('.').unwrap().1;
    daypass.owner.delete(&path).expect(204);

    // An account of another Member holds the name. A finalizer keeps it from being removed.
    let uid = "3f1c0a55-0000-4000-8000-000000000000";
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {
            "name": name, "namespace": role.namespace, "finalizers": ["example.com/keep"],
            "labels": {"daypass.dev/member": name, "daypass.dev/member-uid": uid},
            "ownerReferences": [{"apiVersion": "daypass.dev/v1alpha1", "kind": "Member", "name": name, "uid": uid}],
        },
    });
    let applied = cluster.try_apply(&["--as", DAYPASS, "--server-side=false"], &account.to_string());
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    // More than the quota has room for: one for `default`, and two for each of one member.
    for _ in 0..4 {
        eventually("the answer tells the conflict", || (create().status == 409).then_some(()));
        assert_eq!(cluster.names(&role.namespace, "members"), [""; 0], "nothing half done stays");
    }
    cluster.patch(&role.namespace, "serviceaccount", name, &json!({"metadata": {"finalizers": null}}));
    eventually("the member is created", || (create().status == 201).then_some(()));
}
