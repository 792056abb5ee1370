//! Somebody sets the clock of the machine that Daypass runs on.

use std::fs;

use chrono::TimeDelta;
use serde_json::json;

use super::refusals::refused;
use super::{Running, config_map};
use crate::support::{Cluster, Daypass, Http, NewMember, eventually, now, replica, wait_until};

const LIST: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn setting_the_clock_of_a_machine_ends_nobody_and_keeps_nobody() {
    let cluster = Cluster::breakable();
    let offset = cluster.fresh_folder("clock").join("offset");
    let set = |to: &str| fs::write(&offset, to).unwrap();
    set("+0");
    let mut launch = replica("set");
    launch.args.push("--kubeconfig-mode=gateway".to_owned());
    // libfaketime changes what the process takes for the machine's time, and no more (faketime(1)).
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    assert!(fs::exists(&library).unwrap(), "{library} is missing: use `make test`, which installs it");
    launch.env.extend([
        ("LD_PRELOAD", &*library.leak()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap().to_owned().leak()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ]);
    let mut daypass = Daypass::start(&cluster, &launch);
    eventually("it leads", || (daypass.metric("daypass_leader") > 0.5).then_some(()));
    let role = cluster.role(json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
    ]));
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.engineer.get(&member.path("/kubeconfig")).expect(200).text;
    let token: serde_json::Value = serde_yaml::from_str(&kubeconfig).unwrap();
    let token = token["users"][0]["user"]["token"].as_str().unwrap();
    let api = Http::new(&format!("{}/dp-1/gateway", daypass.url), &cluster.serving_certificate()).with_token(token);
    let watch = Running::start(&cluster, &cluster.save(&kubeconfig), &["get", "configmaps", "-w", "-n", "default"]);
    watch.wait_for("kube-root-ca.crt");
    let is_off_by = |seconds: f64| (daypass.metric("daypass_clock_offset_seconds") - seconds).abs() < 60.0;

    // The member has an hour. Until the API server answers, nothing tells Daypass that this is wrong, and the leader
    // looks at ends each second.
    cluster.pause_apiserver();
    set("+2h");
    wait_until(now() + TimeDelta::seconds(3));
    cluster.resume_apiserver();
    eventually("the machine is ahead", || is_off_by(-7200.0).then_some(()));
    assert!(daypass.probe("/readyz").1.starts_with("the clock differs"), "others answer meanwhile");
    let calls = || daypass.calls("update_lease");
    let before = calls();
    eventually("the leader has gone on", || (calls() > before + 3.0).then_some(()));
    cluster.create(&config_map(&format!("seen-{}", member.name())));
    watch.wait_for(&format!("seen-{}", member.name()));
    api.get(LIST).expect(200);
    assert_eq!(daypass.owner.get(&member.path("")).expect(200).json()["status"], "ACTIVE");

    set("-2h");
    eventually("the machine is behind", || is_off_by(7200.0).then_some(()));
    let end = member.end_in_seconds(&cluster, &role, 8);
    let (_, output) = watch.ended();
    assert!(output.contains("this membership ended at") && now() >= end, "{output}");
    refused(&api.get(LIST), 401, "this membership ended at");
    cluster.wait_gone(&role, member.name());
    daypass.stop();
}
