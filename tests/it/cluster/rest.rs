//! What Daypass asks of the API server while nothing happens, or nothing that concerns the leader.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::json;

use crate::support::{Call, Cluster, Daypass, Launch, Leftovers, NewMember, collection, eventually, now, time};

/// Begins the names of the members.
const NAME: &str = "resting";

/// How many renewals of the Lease the test waits for: a minute, or longer on a slow machine.
const RENEWALS: usize = 30;
/// How many renewals without a call about a member show that nothing is left to do.
const CALM: usize = 5;
/// Daypass makes no call more often than this, in seconds, except for the Lease.
const PERIOD: usize = 30;

fn is_lease(call: &&Call) -> bool {
    call.what.ends_with(" leases")
}

fn is_of_sweep(call: &&Call) -> bool {
    ["list members", "list serviceaccounts", "list secrets"].contains(&&*call.what)
}

fn is_about_member(call: &&Call) -> bool {
    call.uri.contains(NAME)
}

/// The last calls, since this many renewals of the Lease. `None` while there are too few.
fn last_calls(calls: &[Call], renewals: usize) -> Option<&[Call]> {
    let mut leases = calls.iter().enumerate().rev().filter(|(_, call)| is_lease(call));
    leases.nth(renewals).map(|(at, _)| &calls[at + 1..])
}

#[test]
fn calls_at_rest_do_not_grow_with_the_number_of_members() {
    assert_rest(3, 100);
}

#[test]
fn calls_at_rest_do_not_grow_with_the_number_of_roles() {
    assert_rest(16, 5);
}

/// Counts the calls at rest with so many roles of so many members.
#[track_caller]
fn assert_rest(roles: usize, members: usize) {
    let cluster = Cluster::own();
    // As in production. Other tests have the sweep rest less.
    let env = vec![("DAYPASS_MAX_SWEEP_INTERVAL_SECONDS", "300")];
    let mut daypass = Daypass::start(&cluster, &Launch { env, ..Launch::default() });
    let made: Vec<_> = (0..roles).map(|_| cluster.reader()).collect();
    for role in &made {
        for n in 0..members {
            cluster.create(&json!({
                "apiVersion": "daypass.dev/v1alpha1", "kind": "Member", "spec": {"duration": "2h"},
                "metadata": {"name": format!("{NAME}{n}"), "namespace": role.namespace},
            }));
        }
    }
    for role in &made {
        eventually("all members are active", || {
            let members = cluster.api.get(&collection(&role.namespace, "member")).expect(200).json();
            let is_active = |member: &serde_json::Value| member["status"]["phase"] == "Active";
            members["items"].as_array().unwrap().iter().all(is_active).then_some(())
        });
    }
    let start = eventually("nothing is left to do", || {
        let calls = cluster.background_calls();
        let last = last_calls(&calls, CALM)?;
        (!last.iter().any(|call| is_about_member(&call))).then_some(calls.len())
    });
    let calls = eventually("the Lease was renewed often enough", || {
        let calls = cluster.background_calls().split_off(start);
        (calls.iter().filter(is_lease).count() > RENEWALS).then_some(calls)
    });
    daypass.stop();

    let seconds = (calls.last().unwrap().at - calls[0].at).num_seconds();
    let most = usize::try_from(seconds).unwrap() / PERIOD + 2;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for call in calls.iter().filter(|call| !is_lease(call) && !call.what.starts_with("watch ")) {
        *counts.entry(format!("{} {}", call.what, call.uri)).or_default() += 1;
    }
    eprintln!("{} calls in {seconds} s with {} members: {counts:#?}", calls.len(), roles * members);
    let about_members = calls.iter().filter(is_about_member).count();
    assert_eq!(about_members, 0, "no call is about a single member");
    let leases: Vec<&str> = calls.iter().filter(is_lease).map(|call| call.what.as_str()).collect();
    assert!(leases.iter().all(|what| *what == "update leases"), "one call renews the Lease: {leases:?}");
    counts.retain(|_, count| *count > most);
    assert!(counts.is_empty(), "more than {most} times in {seconds} s: {counts:#?}");
    // The chart has four roles of its own. The sweep rests for 3 s for each of its calls, after the last of them.
    let one_sweep = 1 + 2 * (roles + 4);
    let sweep = calls.iter().filter(is_of_sweep).count();
    let most = usize::try_from(seconds).unwrap() / 2 + 1 + one_sweep;
    assert!(sweep <= most, "the sweep made {sweep} calls in {seconds} s, at most {most} are due");
}

#[test]
fn leader_makes_no_call_about_what_requests_do() {
    let (cluster, daypass) = Cluster::without_controllers();
    let role = cluster.reader();
    // A sweep that reads a member while a request changes it would have the leader look at it.
    let sweeps = daypass.metric("daypass_sweeps_total");
    eventually("a sweep has just ended", || (daypass.metric("daypass_sweeps_total") > sweeps).then_some(()));
    let extended = NewMember::applied(cluster, daypass, &role, "extended", &json!({"duration": "60s"}));
    let start = now();
    let old_end = time(&extended.body["expiresAt"]);
    daypass.owner.patch(&extended.path(""), &json!({"duration": 1})).expect(200);
    let [created, deleted] = [(); 2].map(|()| NewMember::new(&daypass.owner, &role, 1));
    deleted.kubeconfig(cluster);
    daypass.owner.delete(&deleted.path("")).expect(204);
    assert_eq!(cluster.leftovers(&role, deleted.name()), Leftovers::NOTHING);

    // By then its claims and the old end are over.
    let end = old_end.max(now() + TimeDelta::seconds(13)) + TimeDelta::seconds(2);
    let calls = eventually("the leader has gone on", || {
        let calls = cluster.background_calls();
        calls.last().is_some_and(|call| call.at > end).then_some(calls)
    });
    let names = [&extended, &created, &deleted].map(NewMember::name);
    let is_about = |call: &&Call| {
        // A creation does not have the name in its address.
        let is_of = |name| call.uri.contains(name) || call.what.starts_with("create ");
        call.uri.contains(&role.namespace) && names.into_iter().any(is_of)
    };
    let (before, after): (Vec<&Call>, Vec<&Call>) = calls.iter().filter(is_about).partition(|call| call.at < start);
    assert!(before.iter().any(|call| call.what == "create serviceaccounts"), "it made the first one's: {before:#?}");
    assert!(after.is_empty(), "{after:#?}");
    assert!(extended.kubeconfig(cluster).is_accepted(cluster));
}
