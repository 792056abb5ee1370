//! What a replica does between SIGTERM and its end.

use serde_json::json;

use crate::support::{Daypass, Lab, Launch, eventually};

#[test]
fn during_the_delay_requests_are_answered_and_clients_told_to_go_elsewhere() {
    let (lab, _) = Lab::shared();
    // Longer than the test takes; it is killed at the end.
    let args = vec!["--shutdown-delay-seconds=3600".to_owned()];
    let mut daypass = Daypass::start(lab, &Launch { args, ..Launch::default() });
    let role = lab.reader();
    let before = daypass.owner.get("/members/roles").expect(200);
    assert!(!before.headers.contains_key("connection"));

    daypass.terminate();
    eventually("it is not ready", || (daypass.probe("/readyz") == (503, "stopping".to_owned())).then_some(()));
    assert_eq!(daypass.probe("/livez").0, 200, "and not restarted");
    let during = daypass.owner.post("/members", &json!({"duration": "1", "roleId": role.id})).expect(201);
    assert_eq!(during.header("connection"), "close");
    // A new connection, as from a load balancer that has not noticed yet.
    let fresh = daypass
        .owner
        .reconnected(&lab.serving_certificate())
        .get(&format!("/members/{}", during.json()["id"].as_str().unwrap()));
    assert_eq!(fresh.expect(200).header("connection"), "close");
    assert!(daypass.is_alive());
    daypass.kill();
}

#[test]
fn after_the_delay_it_ends() {
    let (lab, _) = Lab::shared();
    let args = vec!["--shutdown-delay-seconds=1".to_owned()];
    let mut daypass = Daypass::start(lab, &Launch { args, ..Launch::default() });
    daypass.stop();
    assert!(daypass.log().contains("stopping"));
}

#[test]
fn it_is_not_ready_before_it_has_a_certificate() {
    let (lab, _) = Lab::shared();
    // Without a right to anything, the Secret of the certificate included.
    lab.kubectl(&["create", "serviceaccount", "no-certificate", "-n", "default"]);
    let kubeconfig = lab.fresh_folder("kubeconfig").join("config");
    lab.plane.write_token_kubeconfig(&kubeconfig, &lab.token("default", "no-certificate", "")).unwrap();
    let daypass = Daypass::start(lab, &Launch { kubeconfig: Some(kubeconfig), impatient: true, ..Launch::default() });
    eventually("it says why it is not ready", || {
        let answer = reqwest::blocking::get(format!("{}/readyz", daypass.admin_url)).ok()?;
        (answer.text().unwrap() == "there is no certificate to serve with yet").then_some(())
    });
    assert_eq!(daypass.metric("daypass_certificate_expiry_timestamp_seconds"), 0.0);
}
