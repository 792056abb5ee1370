//! Daypass works without the policies and reports it.

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, Launch, NewMember, Role, eventually};

#[test]
fn daypass_without_walls_works_and_warns() {
    let cluster = Cluster::breakable();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let notes = {
        let mut helm = cluster.chart.helm(&cluster.plane);
        let output = helm.args(["get", "notes", "daypass", "-n", "daypass"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(notes.contains("WARNING: walls.enabled is false"), "{notes}");

    // The policies would refuse this.
    let token = cluster.token("daypass-projects-view", "default", "");
    assert!(!token.is_empty());

    let role = Role { id: "projects-view".to_owned(), namespace: "daypass-projects-view".to_owned() };
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(&cluster);
    assert!(cluster.kubectl_with(&kubeconfig.file, &["get", "pods", "-A"]).status.success());

    let roles = daypass.owner.get("/members/roles").expect(200).json();
    assert_eq!(roles["walls"], false, "{roles}");
    let escapes = |id: &str| {
        let role = roles["items"].as_array().unwrap().iter().find(|role| role["id"] == id).unwrap();
        (role["contained"].clone(), role["escapes"].clone())
    };
    assert_eq!(escapes("pods-restart"), (json!(false), json!(["NO_WALLS"])));
    assert_eq!(escapes("projects-view"), (json!(true), json!([])), "a read-only role leaves nothing behind");
    eventually("the log says so", || daypass.log().contains("the walls are not in force").then_some(()));
    assert_eq!(daypass.metric("daypass_walls"), 0.0);

    daypass.owner.delete(&member.path("")).expect(204);
    eventually("the kubeconfig is refused", || (!kubeconfig.is_accepted(&cluster)).then_some(()));
    let events: Vec<Value> = daypass.audit(&member.id).into_iter().map(|event| event["event"].clone()).collect();
    assert_eq!(events, ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
    daypass.stop();
}

#[test]
fn daypass_with_walls_reports_them_without_warning() {
    let (cluster, daypass) = Cluster::shared();
    eventually("Daypass has probed the policies", || (daypass.metric("daypass_walls") == 1.0).then_some(()));
    // An API server that was too slow for a check counts as one without walls for a while.
    eventually("the API says so", || {
        (daypass.owner.get("/members/roles").expect(200).json()["walls"] == true).then_some(())
    });
    let output =
        cluster.chart.helm(&cluster.plane).args(["get", "notes", "daypass", "-n", "daypass"]).output().unwrap();
    let notes = String::from_utf8(output.stdout).unwrap();
    assert!(notes.contains("Daypass is installed") && !notes.contains("WARNING"), "{notes}");
}

#[test]
fn policy_set_to_audit_is_reported() {
    let cluster = Cluster::exclusive();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    eventually("the policies are in force", || (daypass.metric("daypass_walls") == 1.0).then_some(()));
    assert_eq!(daypass.owner.get("/members/roles").expect(200).json()["walls"], true);
    let act = |action: &str| {
        let patch = json!({"spec": {"validationActions": [action]}});
        cluster.patch("", "validatingadmissionpolicybinding", "daypass-role-pods", &patch);
    };
    act("Audit");
    eventually("the metric shows it", || (daypass.metric("daypass_walls") == 0.0).then_some(()));
    let roles = daypass.owner.get("/members/roles").expect(200).json();
    assert_eq!(roles["walls"], false, "{roles}");
    assert!(daypass.log().contains("daypass-role-pods: the binding differs from the one that this version ships"));
    act("Deny");
    eventually("the metric shows it", || (daypass.metric("daypass_walls") == 1.0).then_some(()));
    assert_eq!(daypass.owner.get("/members/roles").expect(200).json()["walls"], true);
    daypass.stop();
}
