//! A failure with one object does not stop work on the others.

use serde_json::{Value, json};

use crate::support::{Answer, Cluster, Daypass, Http, Launch, Leftovers, NewMember, Role, eventually};

/// A member with three kubeconfigs, the first of which cannot be deleted.
fn member_with_a_kept_kubeconfig(cluster: &Cluster, owner: &Http, role: &Role) -> NewMember {
    let member = NewMember::new(owner, role, 4);
    for _ in 0..3 {
        member.kubeconfig(cluster);
    }
    cluster.keep(role, "secret", &format!("{}.0", member.name()), true);
    member
}

/// Checks after an answered change that only the undeletable kubeconfig is left, then makes it deletable.
#[track_caller]
fn assert_others_dead(cluster: &Cluster, owner: &Http, role: &Role, member: &NewMember, answer: &Answer) {
    answer.problem(403, "DP_ERR_REFUSED_BY_CLUSTER_POLICY");
    let secrets = cluster.names(&role.namespace, "secrets");
    let kept = format!("{}.0", member.name());
    assert_eq!(secrets, [kept.as_str()]);
    cluster.keep(role, "secret", &kept, false);
    eventually("the last kubeconfig is deleted", || {
        (cluster.names(&role.namespace, "secrets") == [""; 0]).then_some(())
    });
    assert_eq!(owner.get(&member.path("")).expect(200).json()["status"], "ACTIVE");
}

#[test]
fn undeletable_kubeconfig_does_not_keep_others_alive() {
    let (cluster, daypass) = Cluster::without_controllers();
    let owner = &daypass.owner;
    let role = cluster.reader();
    let member = member_with_a_kept_kubeconfig(cluster, owner, &role);
    let answer = owner.post(&member.path("/credentials"), &json!({}));
    assert_others_dead(cluster, owner, &role, &member, &answer);

    let role = cluster.reader();
    let member = member_with_a_kept_kubeconfig(cluster, owner, &role);
    let answer = owner.patch(&member.path(""), &json!({"duration": 1}));
    assert_others_dead(cluster, owner, &role, &member, &answer);
}

/// Makes the API server refuse writes to the status of Members of this name, or stops that.
fn refuse_status(cluster: &Cluster, role: &Role, name: &str, refuse: bool) {
    let version = "admissionregistration.k8s.io/v1";
    let rule = json!({
        "apiGroups": ["daypass.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["members/status"],
    });
    let policy = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "partial"}, "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"reason": "Forbidden", "expression": format!("object.metadata.name != '{name}'")}],
        }},
        {"apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "partial"},
         "spec": {"policyName": "partial", "validationActions": ["Deny"]}},
    ]});
    if refuse {
        cluster.apply(&policy.to_string());
    } else {
        cluster.kubectl(&["delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "partial"]);
    }
    let patch = r#"{"status":{"observedGeneration":1}}"#;
    let args = ["patch", "member", name, "-n", &role.namespace, "--subresource=status", "--type=merge", "-p", patch];
    eventually("the policy is in force, or gone", || {
        let output = cluster.try_kubectl(&[&args[..], &["--dry-run=server"]].concat());
        (output.status.success() != refuse).then_some(())
    });
}

#[test]
fn unwritable_status_does_not_hide_other_role_changes() {
    let cluster = Cluster::breakable();
    let rules = |verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]);
    let set_rules = |role: &Role, verbs: &[&str]| {
        cluster.apply(&cluster.render_role(&role.id, &json!({"description": "A test's", "rules": rules(verbs)})))
    };
    let [grows, shrinks] = [(); 2].map(|()| cluster.role(rules(&["get", "list"])));
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let create = |role: &Role| {
        let mut names = [(); 2].map(|()| NewMember::new(&daypass.owner, role, 1).name().to_owned());
        // Daypass handles them in this order.
        names.sort();
        names
    };
    let ([held, other], [shrunk, _]) = (create(&grows), create(&shrinks));
    let hash = |role: &Role, name: &str| {
        cluster.object(&role.namespace, "member", name).unwrap()["status"]["roleHash"].as_str().unwrap().to_owned()
    };
    let widened = |daypass: &Daypass, role: &Role, name: &str| {
        daypass.event_kinds(&format!("{}.{name}", role.id)).iter().filter(|kind| *kind == "ROLE_WIDENED").count()
    };
    // A new leader reads the roles as they are now.
    daypass.stop();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    daypass.wait_roles_compared();
    let (granted, before) = (hash(&grows, &held), hash(&shrinks, &shrunk));
    refuse_status(&cluster, &grows, &held, true);
    set_rules(&grows, &["get", "list", "watch"]);
    set_rules(&shrinks, &["get"]);
    eventually("the other member is recorded", || (widened(&daypass, &grows, &other) == 1).then_some(()));
    eventually("the other role is recorded", || (hash(&shrinks, &shrunk) != before).then_some(()));
    assert_eq!((hash(&grows, &held), widened(&daypass, &grows, &held)), (granted, 0));

    // Now the role allows less than at both creations. Daypass remembers that until both statuses are written.
    let grown = hash(&grows, &other);
    set_rules(&grows, &["list"]);
    eventually("the other member is recorded", || (hash(&grows, &other) != grown).then_some(()));
    refuse_status(&cluster, &grows, &held, false);
    eventually("the change is recorded", || (hash(&grows, &held) == hash(&grows, &other)).then_some(()));
    assert_eq!((widened(&daypass, &grows, &held), widened(&daypass, &shrinks, &shrunk)), (0, 0));
    daypass.stop();
}

#[test]
fn member_ends_although_secrets_cannot_be_listed() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(&cluster);
    let rules = cluster.object(&role.namespace, "role", "daypass").unwrap()["rules"].as_array().unwrap().clone();
    let mut less = rules.clone();
    for rule in less.iter_mut().filter(|rule| rule["resources"] == json!(["secrets"])) {
        rule["verbs"].as_array_mut().unwrap().retain(|verb| verb != "list");
    }
    assert_ne!(less, rules);
    let set = |rules: &[Value]| cluster.patch(&role.namespace, "role", "daypass", &json!({"rules": rules}));
    let may_list = || {
        let who = format!("--as={}", crate::support::DAYPASS);
        cluster.try_kubectl(&["auth", "can-i", "list", "secrets", "-n", &role.namespace, &who]).status.success()
    };
    set(&less);
    eventually("the right is gone", || (!may_list()).then_some(()));
    member.end_in_seconds(&cluster, &role, 3);
    eventually("the member and its account are gone", || {
        let left = cluster.leftovers(&role, member.name());
        (!left.member && !left.account).then_some(())
    });
    kubeconfig.wait_refused(&cluster);
    set(&rules);
    eventually("nothing is left", || (cluster.leftovers(&role, member.name()) == Leftovers::NOTHING).then_some(()));
    daypass.stop();
}
