//! What a replica does between SIGTERM and its exit.

use serde_json::json;

use crate::support::{Cluster, Daypass, Launch, eventually, plain_client};

#[test]
fn shutdown_delay_answers_requests_and_closes_connections() {
    let (cluster, _) = Cluster::shared();
    // Longer than the test, which kills it at the end.
    let args = vec!["--shutdown-delay-seconds=3600".to_owned()];
    let mut daypass = Daypass::start(cluster, &Launch { args, ..Launch::default() });
    let role = cluster.reader();
    let before = daypass.owner.get("/members/roles").expect(200);
    assert!(!before.headers.contains_key("connection"));

    daypass.terminate();
    eventually("Daypass is not ready", || (daypass.probe("/readyz") == (503, "stopping".to_owned())).then_some(()));
    assert_eq!(daypass.probe("/livez").0, 200, "and not restarted");
    let during = daypass.owner.post("/members", &json!({"duration": "1", "roleId": role.id})).expect(201);
    assert_eq!(during.header("connection"), "close");
    // A new connection, as from a load balancer that has not noticed the shutdown.
    let fresh = daypass
        .owner
        .reconnected(&cluster.serving_certificate())
        .get(&format!("/members/{}", during.json()["id"].as_str().unwrap()));
    assert_eq!(fresh.expect(200).header("connection"), "close");
    assert!(daypass.is_alive());
    daypass.kill();
}

#[test]
fn process_ends_after_the_shutdown_delay() {
    let (cluster, _) = Cluster::shared();
    let args = vec!["--shutdown-delay-seconds=1".to_owned()];
    let mut daypass = Daypass::start(cluster, &Launch { args, ..Launch::default() });
    daypass.stop();
    assert!(daypass.log().contains("stopping"));
}

#[test]
fn daypass_without_certificate_is_not_ready() {
    let (cluster, _) = Cluster::shared();
    // Its account has no rights, not even to the certificate's Secret.
    cluster.kubectl(&["create", "serviceaccount", "no-certificate", "-n", "default"]);
    let kubeconfig = cluster.fresh_folder("kubeconfig").join("config");
    cluster.plane.write_token_kubeconfig(&kubeconfig, &cluster.token("default", "no-certificate", "")).unwrap();
    let daypass =
        Daypass::start(cluster, &Launch { kubeconfig: Some(kubeconfig), impatient: true, ..Launch::default() });
    eventually("the probe gives the reason", || {
        let answer = plain_client().get(format!("{}/readyz", daypass.admin_url)).send().ok()?;
        (answer.text().unwrap() == "the API has no certificate yet").then_some(())
    });
    assert_eq!(daypass.metric("daypass_certificate_expiry_timestamp_seconds"), 0.0);
}
