//! What Daypass asks of the API server while nothing happens.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{Call, Cluster, Daypass, Launch, collection, eventually};

/// How many members each of three roles has.
const MEMBERS: usize = 100;
/// Begins the names of the members.
const NAME: &str = "resting";

/// How many renewals of the Lease the test waits for: a minute and a half.
const RENEWALS: usize = 45;
/// How many renewals without a call about a member show that nothing is left to do.
const CALM: usize = 5;
/// Daypass makes no call more often than this, in seconds, except for the Lease.
const PERIOD: usize = 30;
/// The most pages of a list of all members, after the first.
const MORE_PAGES: usize = 3 * MEMBERS / 100;
const NEXT_PAGE: &str = "continue";

fn is_lease(call: &&Call) -> bool {
    call.what.ends_with(" leases")
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
    let cluster = Cluster::own();
    let mut daypass = Daypass::start(&cluster, &Launch::default());
    let roles = [(); 3].map(|()| cluster.reader());
    for role in &roles {
        for n in 0..MEMBERS {
            cluster.create(&json!({
                "apiVersion": "daypass.dev/v1alpha1", "kind": "Member", "spec": {"duration": "2h"},
                "metadata": {"name": format!("{NAME}{n}"), "namespace": role.namespace},
            }));
        }
    }
    for role in &roles {
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
    // By the request without the place of its page.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for call in calls.iter().filter(|call| !is_lease(call) && !call.what.starts_with("watch ")) {
        let (request, page) = call.uri.split_once("continue=").map_or((&*call.uri, ""), |(it, _)| (it, NEXT_PAGE));
        *counts.entry(format!("{} {request}{page}", call.what)).or_default() += 1;
    }
    println!("{} calls in {seconds} s with {} members: {counts:#?}", calls.len(), 3 * MEMBERS);
    let about_members = calls.iter().filter(is_about_member).count();
    assert_eq!(about_members, 0, "no call is about a single member");
    let leases: Vec<&str> = calls.iter().filter(is_lease).map(|call| call.what.as_str()).collect();
    assert!(leases.iter().all(|what| *what == "update leases"), "one call renews the Lease: {leases:?}");
    counts.retain(|request, count| *count > if request.ends_with(NEXT_PAGE) { most * MORE_PAGES } else { most });
    assert!(counts.is_empty(), "more than {most} times in {seconds} s: {counts:#?}");
}
