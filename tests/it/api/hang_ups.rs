//! Clients that hang up in the middle of a request.

use std::time::{Duration, Instant};

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use crate::support::{
    Cluster, Daypass, Fault, Launch, NewMember, Proxy, RawConnection, eventually, now, replica, time, wait_until,
};

/// More calls than any change of a member makes.
const MOST_CALLS: usize = 10;

/// Less than the ten seconds after which Daypass gives a call up, and the controller takes an abandoned change over.
const HELD: Duration = Duration::from_secs(8);

/// Connections whose client has authenticated.
const AUTHENTICATED: &str = r#"daypass_connections{state="authenticated"}"#;

/// A PATCH that makes a member last so many hours.
fn change(daypass: &Daypass, member: &NewMember, hours: usize) -> String {
    let (token, body) = (daypass.owner.token(), json!({"duration": hours}).to_string());
    let head = format!("PATCH /dp-1{} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n", member.path(""));
    format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn change_by_caller_that_hangs_up_is_audited_as_the_callers() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let proxy = Proxy::start(&cluster);
    let launch = Launch { kubeconfig: Some(proxy.kubeconfig.clone()), ..replica("hang-ups") };
    let mut daypass = Daypass::start(&cluster, &launch);
    let member = NewMember::new(&daypass.owner, &role, 1);
    let created = time(&member.body["createdAt"]);
    let connections = daypass.metric(AUTHENTICATED);
    let (mut nth, mut hours) = (1, 1);
    // The client hangs up while Daypass waits for the nth call of the change, until the change makes no more calls.
    while nth <= MOST_CALLS {
        hours += 1;
        let end = created + TimeDelta::hours(i64::try_from(hours).unwrap());
        let end = json!(end.to_rfc3339_opts(SecondsFormat::Secs, true));
        let changed = || -> Option<Value> {
            daypass.audit(&member.id).into_iter().find(|event| event["member"]["expiresAt"] == end)
        };
        let begun = Instant::now();
        proxy.plan(Fault::Hold, nth);
        let mut connection = RawConnection::connect(&cluster, &daypass);
        connection.send(&change(&daypass, &member, hours));
        eventually("a call is held, or the change is done", || {
            (proxy.has_happened() || changed().is_some()).then_some(())
        });
        drop(connection);
        if proxy.cancel().is_none() {
            break;
        }
        eventually("Daypass has noticed", || (daypass.metric(AUTHENTICATED) <= connections).then_some(()));
        proxy.release();
        if begun.elapsed() > HELD {
            // Once more, when the controller has gone on with the change.
            assert!(hours < 40, "this machine is too slow");
            wait_until(now() + TimeDelta::seconds(15));
            continue;
        }
        let event = eventually("the change is recorded", changed);
        assert_eq!((&event["event"], &event["actor"]["type"]), (&json!("EXTENDED"), &json!("CALLER")), "{event}");
        assert_eq!(daypass.owner.get(&member.path("")).expect(200).json()["expiresAt"], end);
        nth += 1;
    }
    assert!((2..=MOST_CALLS).contains(&nth), "{nth}");
    assert!(daypass.event_kinds(&member.id).iter().skip(1).all(|kind| kind == "EXTENDED"));
    daypass.stop();
}
