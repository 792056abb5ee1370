//! What fails for one object hides no other: each is dealt with all the same.

use serde_json::{Value, json};

use crate::support::bare::Bare;
use crate::support::{Created, Daypass, Lab, Launch, Remains, Role, eventually, site};

/// A member of a role that has three kubeconfigs, of which the first cannot be deleted.
fn member_with_a_kept_kubeconfig(bare: &Bare, role: &Role) -> Created {
    let member = Created::new(&bare.daypass.owner, role, 4);
    for _ in 0..3 {
        member.kubeconfig(&bare.lab);
    }
    bare.lab.keep(role, "secret", &format!("{}.0", member.name()), true);
    member
}

/// Checks, when a change has been answered, that only the kept kubeconfig is left, and then lets that go.
#[track_caller]
fn assert_others_dead(bare: &Bare, role: &Role, member: &Created, answer: &crate::support::Answer) {
    answer.problem(503, "DP_ERR_UNAVAILABLE");
    let secrets = bare.lab.names(&role.namespace, "secrets");
    let kept = format!("{}.0", member.name());
    assert_eq!(secrets, [kept.as_str()]);
    bare.lab.keep(role, "secret", &kept, false);
    eventually("it goes too", || (bare.lab.names(&role.namespace, "secrets") == [""; 0]).then_some(()));
    assert_eq!(bare.daypass.owner.get(&member.path("")).expect(200).json()["status"], "ACTIVE");
}

#[test]
fn a_kubeconfig_that_cannot_be_deleted_keeps_no_other_alive() {
    let bare = Bare::shared();
    let owner = &bare.daypass.owner;
    let role = bare.role();
    let member = member_with_a_kept_kubeconfig(bare, &role);
    let answer = owner.post(&member.path("/credentials"), &json!({}));
    assert_others_dead(bare, &role, &member, &answer);

    let role = bare.role();
    let member = member_with_a_kept_kubeconfig(bare, &role);
    let answer = owner.patch(&member.path(""), &json!({"duration": 1}));
    assert_others_dead(bare, &role, &member, &answer);
}

/// Has the API server refuse what Daypass writes into the status of a Member of this name, or no longer.
fn refuse_status(lab: &Lab, role: &Role, name: &str, refuse: bool) {
    let version = "admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": ["daypass.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["members/status"]});
    let policy = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "partial"}, "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"reason": "Forbidden", "expression": format!("object.metadata.name != '{name}'")}],
        }},
        {"apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "partial"},
         "spec": {"policyName": "partial", "validationActions": ["Deny"]}},
    ]});
    if refuse {
        lab.apply(&policy.to_string());
    } else {
        lab.kubectl(&["delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "partial"]);
    }
    let patch = r#"{"status":{"observedGeneration":1}}"#;
    let args = ["patch", "member", name, "-n", &role.namespace, "--subresource=status", "--type=merge", "-p", patch];
    eventually("the policy is in force, or gone", || {
        let output = lab.try_kubectl(&[&args[..], &["--dry-run=server"]].concat());
        (output.status.success() != refuse).then_some(())
    });
}

#[test]
fn a_status_that_cannot_be_written_hides_no_other_change_of_a_role() {
    let lab = site();
    let rules = |verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]);
    let set_rules = |role: &Role, verbs: &[&str]| {
        lab.apply(&lab.render_role(&role.id, &json!({"description": "A test's", "rules": rules(verbs)})))
    };
    let [grows, shrinks] = [(); 2].map(|()| lab.role(rules(&["get", "list"])));
    let mut daypass = Daypass::start(&lab, &Launch::default());
    let create = |role: &Role| {
        let mut names = [(); 2].map(|()| Created::new(&daypass.owner, role, 1).name().to_owned());
        // The first is looked at first.
        names.sort();
        names
    };
    let ([held, other], [shrunk, _]) = (create(&grows), create(&shrinks));
    let hash = |role: &Role, name: &str| {
        lab.object(&role.namespace, "member", name).unwrap()["status"]["roleHash"].as_str().unwrap().to_owned()
    };
    let widened = |daypass: &Daypass, role: &Role, name: &str| {
        daypass.kinds(&format!("{}.{name}", role.id)).iter().filter(|kind| *kind == "ROLE_WIDENED").count()
    };
    // One that has just begun to lead knows the roles as they are now.
    daypass.stop();
    let mut daypass = Daypass::start(&lab, &Launch::default());
    daypass.wait_rights_read();
    let (granted, before) = (hash(&grows, &held), hash(&shrinks, &shrunk));
    refuse_status(&lab, &grows, &held, true);
    set_rules(&grows, &["get", "list", "watch"]);
    set_rules(&shrinks, &["get"]);
    eventually("the other member is recorded", || (widened(&daypass, &grows, &other) == 1).then_some(()));
    eventually("and the other role", || (hash(&shrinks, &shrunk) != before).then_some(()));
    assert_eq!((hash(&grows, &held), widened(&daypass, &grows, &held)), (granted, 0));

    // Now it can do less than when it was given to both, which is known until both are recorded.
    let grown = hash(&grows, &other);
    set_rules(&grows, &["list"]);
    eventually("the other member is recorded", || (hash(&grows, &other) != grown).then_some(()));
    refuse_status(&lab, &grows, &held, false);
    eventually("it is recorded at last", || (hash(&grows, &held) == hash(&grows, &other)).then_some(()));
    assert_eq!((widened(&daypass, &grows, &held), widened(&daypass, &shrinks, &shrunk)), (0, 0));
    daypass.stop();
}

#[test]
fn an_end_does_not_wait_for_secrets_that_cannot_be_listed() {
    let lab = site();
    let role = lab.reader();
    let mut daypass = Daypass::start(&lab, &Launch::default());
    let member = Created::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(&lab);
    let rules = lab.object(&role.namespace, "role", "daypass").unwrap()["rules"].as_array().unwrap().clone();
    let mut less = rules.clone();
    for rule in less.iter_mut().filter(|rule| rule["resources"] == json!(["secrets"])) {
        rule["verbs"].as_array_mut().unwrap().retain(|verb| verb != "list");
    }
    assert_ne!(less, rules);
    let set = |rules: &[Value]| lab.patch(&role.namespace, "role", "daypass", &json!({"rules": rules}));
    let may_list = || {
        let who = format!("--as={}", crate::support::DAYPASS);
        lab.try_kubectl(&["auth", "can-i", "list", "secrets", "-n", &role.namespace, &who]).status.success()
    };
    set(&less);
    eventually("the right is gone", || (!may_list()).then_some(()));
    member.end_in(&lab, &role, 3);
    eventually("the member and its account are gone", || {
        let left = lab.remains(&role, member.name());
        (!left.member && !left.account).then_some(())
    });
    kubeconfig.wait_refused(&lab);
    set(&rules);
    eventually("nothing is left", || (lab.remains(&role, member.name()) == Remains::NOTHING).then_some(()));
    daypass.stop();
}
