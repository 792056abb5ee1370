//! Members end on time after the leader is killed.

use std::fs;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::{Answer, Cluster, Daypass, NewMember, Role, eventually, leaders, now, replica, time, wait_until};

/// The time at which the API server deleted a Member, from its audit log.
fn deleted_at(cluster: &Cluster, role: &Role, name: &str) -> Option<DateTime<Utc>> {
    let log = fs::read_to_string(cluster.plane.audit_log()).unwrap();
    let deleted = |line: &str| {
        let event: Value = serde_json::from_str(line).ok()?;
        let object = &event["objectRef"];
        let is_it =
            event["verb"] == "delete" && object["resource"] == "members" && object["namespace"] == *role.namespace;
        let is_it = is_it && object["name"] == name;
        (is_it && event["responseStatus"]["code"] == 200).then(|| time(&event["stageTimestamp"]))
    };
    log.lines().filter(|line| line.contains("\"delete\"") && line.contains(&role.namespace)).find_map(deleted)
}

/// Polls around the end: an answer before it must be 200, a request after it must be refused.
fn assert_ends_at(end: DateTime<Utc>, ask: impl Fn() -> Answer, refused: impl Fn(&Answer)) {
    wait_until(end - TimeDelta::seconds(10));
    let (mut good, mut last) = (0, now());
    while last < end + TimeDelta::seconds(2) {
        let asked = now();
        let answer = ask();
        last = now();
        std::thread::sleep(Duration::from_millis(50));
        if last < end {
            answer.expect(200);
            good += 1;
        } else if asked >= end {
            refused(&answer);
        } else {
            assert!([200, 401, 404].contains(&answer.status), "{}", answer.text);
        }
    }
    assert!(good > 0, "the credential worked before the end");
}

#[test]
fn members_end_on_time_after_the_leader_is_killed() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let mut first = Daypass::start(&cluster, &replica("a"));
    eventually("a replica leads", || (leaders(&[&first]).len() == 1).then_some(()));
    let second = Daypass::start(&cluster, &replica("b"));
    let members =
        ["one", "two"].map(|name| NewMember::applied(&cluster, &first, &role, name, &json!({"duration": "1h"})));
    let kubeconfig = members[0].kubeconfig(&cluster);

    // Both end after the leader is killed and before the other replica may take the freshly renewed Lease.
    let ends = [members[0].end_in_seconds(&cluster, &role, 30), members[1].end_in_seconds(&cluster, &role, 32)];
    let renewed = || cluster.object("daypass", "lease", "daypass").unwrap()["spec"]["renewTime"].clone();
    let killed = std::thread::scope(|scope| {
        for (member, end) in members.iter().zip(ends) {
            let (owner, engineer) = (&second.owner, second.owner.with_basic(&member.id, &member.password));
            scope.spawn(move || {
                let refused = |answer: &Answer| drop(answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED"));
                assert_ends_at(end, || engineer.get(&member.path("/me")), refused);
            });
            scope.spawn(move || {
                let unknown = |answer: &Answer| drop(answer.problem(404, "DP_ERR_NOT_FOUND"));
                assert_ends_at(end, || owner.get(&member.path("")), unknown);
            });
        }
        // Eight seconds are enough for a slow machine to see a renewal before the first end.
        wait_until(ends[0] - TimeDelta::seconds(8));
        let before = renewed();
        eventually("the Lease is renewed", || (renewed() != before).then_some(()));
        first.kill();
        now()
    });
    for (member, end) in members.iter().zip(ends) {
        wait_until(end);
        member.assert_dead(&second);
        cluster.wait_gone(&role, member.name());
        let reaped = eventually("the API server's audit log has it", || deleted_at(&cluster, &role, member.name()));
        assert!(reaped >= end, "the member was not reaped early");
        let lag = (reaped - end).as_seconds_f64();
        let after = (end - killed).as_seconds_f64();
        println!("reaped {lag:.1} s after its end, which was {after:.1} s after the leader was killed");
        second.wait_event(&member.id, "EXPIRED");
    }
    kubeconfig.wait_refused(&cluster);
    assert_eq!(leaders(&[&second]), [second.pid()]);
}
