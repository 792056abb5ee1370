//! The chart without its policies: Daypass works, and says that they are not there.

use serde_json::{Value, json};

use crate::support::{Created, Daypass, Lab, Launch, Role, eventually};

#[test]
fn without_the_policies_daypass_works_and_says_so() {
    let lab = Lab::without_walls();
    let daypass = Daypass::start(&lab, &Launch::default());
    let notes = {
        let mut helm = lab.chart.helm(&lab.plane);
        let output = helm.args(["get", "notes", "daypass", "-n", "daypass"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(notes.contains("WARNING: walls.enabled is false"), "{notes}");

    // What the policies are for.
    let token = lab.token("daypass-projects-view", "default", "");
    assert!(!token.is_empty());

    let role = Role { id: "projects-view".to_owned(), namespace: "daypass-projects-view".to_owned() };
    let member = Created::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(&lab);
    assert!(lab.kubectl_with(&kubeconfig.file, &["get", "pods", "-A"]).status.success());

    let roles = daypass.owner.get("/members/roles").expect(200).json();
    assert_eq!(roles["walls"], false, "{roles}");
    let escapes = |id: &str| {
        let role = roles["items"].as_array().unwrap().iter().find(|role| role["id"] == id).unwrap();
        (role["contained"].clone(), role["escapes"].clone())
    };
    assert_eq!(escapes("pods-restart"), (json!(false), json!(["NO_WALLS"])));
    assert_eq!(escapes("projects-view"), (json!(true), json!([])), "who only reads leaves nothing");
    eventually("it says so", || daypass.log().contains("the walls are not in force").then_some(()));
    assert_eq!(daypass.metric("daypass_walls"), 0.0);

    daypass.owner.delete(&member.path("")).expect(204);
    eventually("the kubeconfig is refused", || (!kubeconfig.is_accepted(&lab)).then_some(()));
    let events: Vec<Value> = daypass.audit(&member.id).into_iter().map(|event| event["event"].clone()).collect();
    assert_eq!(events, ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
}

#[test]
fn with_the_policies_the_metric_is_one_and_the_notes_warn_of_nothing() {
    let (lab, daypass) = Lab::shared();
    eventually("it has looked", || (daypass.metric("daypass_walls") == 1.0).then_some(()));
    assert_eq!(daypass.owner.get("/members/roles").expect(200).json()["walls"], true);
    let output = lab.chart.helm(&lab.plane).args(["get", "notes", "daypass", "-n", "daypass"]).output().unwrap();
    let notes = String::from_utf8(output.stdout).unwrap();
    assert!(notes.contains("Daypass is installed") && !notes.contains("WARNING"), "{notes}");
}

#[test]
fn one_policy_that_only_audits_is_noticed_and_named() {
    let lab = Lab::alone();
    let mut daypass = Daypass::start(&lab, &Launch::default());
    eventually("they are in force", || (daypass.metric("daypass_walls") == 1.0).then_some(()));
    assert_eq!(daypass.owner.get("/members/roles").expect(200).json()["walls"], true);
    let act = |action: &str| {
        let patch = json!({"spec": {"validationActions": [action]}});
        lab.patch("", "validatingadmissionpolicybinding", "daypass-role-pods", &patch);
    };
    act("Audit");
    eventually("the metric tells", || (daypass.metric("daypass_walls") == 0.0).then_some(()));
    let roles = daypass.owner.get("/members/roles").expect(200).json();
    assert_eq!(roles["walls"], false, "{roles}");
    assert!(daypass.log().contains("daypass-role-pods: the binding differs from the one that this version ships"));
    act("Deny");
    eventually("the metric tells", || (daypass.metric("daypass_walls") == 1.0).then_some(()));
    assert_eq!(daypass.owner.get("/members/roles").expect(200).json()["walls"], true);
    daypass.stop();
}
