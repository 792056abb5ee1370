//! A role's own limit on how long its members may last, over REST and with kubectl.

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, NewMember, Role, eventually};

const ANNOTATION: &str = "daypass.dev/max-duration";

/// A role with this limit, which Daypass has seen.
fn role(cluster: &'static Cluster, daypass: &Daypass, limit: &str, seconds: u32) -> Role {
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let role = cluster.role_of(&json!({"description": "A test's", "rules": rules, "maxDuration": limit}));
    shows(daypass, &role, seconds);
    role
}

/// Waits until Daypass shows this limit.
fn shows(daypass: &Daypass, role: &Role, seconds: u32) {
    eventually("the role's limit is shown", || {
        (daypass.listed_role(&role.id)["maxDurationSeconds"] == seconds).then_some(())
    });
}

/// What kubectl says when it makes a Member of this duration; `None` if that is admitted.
fn made(cluster: &Cluster, role: &Role, name: &str, duration: &str) -> Option<String> {
    applied(cluster, role, name, duration, &[])
}

/// The same with more options.
fn applied(cluster: &Cluster, role: &Role, name: &str, duration: &str, options: &[&str]) -> Option<String> {
    let member = json!({
        "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
        "metadata": {"name": name, "namespace": role.namespace}, "spec": {"duration": duration},
    });
    let output = cluster.try_apply(options, &member.to_string());
    (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
}

/// The same when it changes one.
fn changed(cluster: &Cluster, role: &Role, name: &str, duration: &str) -> Option<String> {
    let patch = json!({"spec": {"duration": duration}}).to_string();
    let output = cluster.try_kubectl(&["patch", "member", name, "-n", &role.namespace, "--type=merge", "-p", &patch]);
    (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
}

#[test]
fn longer_duration_than_the_role_allows_is_refused_at_creation_and_extension() {
    let (cluster, daypass) = Cluster::shared();
    let role = role(cluster, daypass, "4h", 4 * 3600);
    let problem = |answer: Value, field: &str| {
        let said = answer["detail"].to_string() + &answer["errors"].to_string();
        assert!(said.contains("at most 4h") && said.contains(field), "{answer}");
    };
    let asked = json!({"duration": "5", "roleId": role.id});
    problem(daypass.owner.post("/members", &asked).problem(400, "DP_ERR_VALIDATION"), "duration");
    let said = made(cluster, &role, "long", "4h1s").expect("the wall refuses it");
    assert!(said.contains("daypass-members") && said.contains("at most 4h"), "{said}");
    assert!(cluster.names(&role.namespace, "members").is_empty());

    let member = NewMember::new(&daypass.owner, &role, 4);
    let path = format!("/members/{}", member.id);
    let name = member.id.split_once('.').unwrap().1;
    problem(daypass.owner.patch(&path, &json!({"duration": 5})).problem(400, "DP_ERR_VALIDATION"), "duration");
    let created = daypass.owner.get(&path).expect(200).json();
    let created: chrono::DateTime<chrono::Utc> = created["createdAt"].as_str().unwrap().parse().unwrap();
    let late = json!({"expiresAt": created + chrono::TimeDelta::minutes(241)});
    problem(daypass.owner.patch(&path, &late).problem(400, "DP_ERR_VALIDATION"), "expiresAt");
    let said = changed(cluster, &role, name, "5h").expect("the wall refuses it");
    assert!(said.contains("at most 4h"), "{said}");
    assert_eq!(daypass.owner.patch(&path, &json!({"duration": 3})).expect(200).json()["durationSeconds"], 3 * 3600);
    assert_eq!(daypass.owner.patch(&path, &json!({"duration": 4})).expect(200).json()["durationSeconds"], 4 * 3600);
}

#[test]
fn lowered_limit_shortens_nobody() {
    let (cluster, daypass) = Cluster::shared();
    let role = role(cluster, daypass, "6h", 6 * 3600);
    let member = NewMember::new(&daypass.owner, &role, 6);
    let path = format!("/members/{}", member.id);
    let name = member.id.split_once('.').unwrap().1;
    cluster.kubectl(&["annotate", "--overwrite", "namespace", &role.namespace, &format!("{ANNOTATION}=2h")]);
    shows(daypass, &role, 2 * 3600);
    // The wall's copy of the namespace follows a moment later.
    eventually("the wall knows the new limit", || applied(cluster, &role, "probe", "3h", &["--dry-run=server"]));
    assert_eq!(daypass.owner.get(&path).expect(200).json()["durationSeconds"], 6 * 3600);
    assert_eq!(daypass.owner.patch(&path, &json!({"duration": 5})).expect(200).json()["durationSeconds"], 5 * 3600);
    daypass.owner.patch(&path, &json!({"duration": 6})).problem(400, "DP_ERR_VALIDATION");
    assert_eq!(changed(cluster, &role, name, "4h"), None);
    assert!(changed(cluster, &role, name, "5h").is_some());
    // Its other fields can change, and Daypass can still write its status.
    assert_eq!(member.engineer.get(&format!("{path}/me")).expect(200).json()["id"], *member.id);
    daypass.owner.post(&format!("{path}/credentials"), &json!({})).expect(201);
}

#[test]
fn limit_that_is_no_duration_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let role = role(cluster, daypass, "90m", 5400);
    for bad in ["", "4", "0h", "49h", "-1h", "1.5h", "1m2h", "four", "1h ", "99999999999h"] {
        let argument = format!("{ANNOTATION}={bad}");
        let output = cluster.try_kubectl(&["annotate", "--overwrite", "namespace", &role.namespace, &argument]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("max-duration must be a duration"), "{bad:?}: {said}");
    }
    assert_eq!(made(cluster, &role, "short", "1h30m"), None);
    for good in ["1h30m", "48h", "30s", "2880m"] {
        let argument = format!("{ANNOTATION}={good}");
        cluster.kubectl(&["annotate", "--overwrite", "namespace", &role.namespace, &argument]);
    }
}
