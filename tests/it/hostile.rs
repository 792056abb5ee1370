//! What a bad connection does to Daypass.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Created, Lab, eventually};

#[test]
fn a_caller_that_hangs_up_is_still_the_one_who_did_it() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let member = Created::new(&daypass.owner, &role, 1);
    // Wherever in the request the connection breaks.
    for (hours, after) in (2..48).zip([3, 6, 9, 12, 15, 20, 25, 30, 40, 60].into_iter().cycle().take(20)) {
        let request = daypass.owner.request("PATCH", &member.path("")).json(&json!({"duration": hours}));
        let _ = request.timeout(Duration::from_millis(after)).send();
    }
    // Those that were sent before may still be at work on the member.
    eventually("it is changed", || {
        let answer = daypass.owner.patch(&member.path(""), &json!({"duration": 48}));
        assert!([200, 409].contains(&answer.status), "{}", answer.text);
        (answer.status == 200).then_some(())
    });
    // One that was sent before may be done after: then the last change is a shorter end.
    let changed = |event: &Value| event["event"] == "EXTENDED" || event["event"] == "SHORTENED";
    let ends = || daypass.audit(&member.id).into_iter().filter(changed);
    eventually("the last one", || {
        let last = ends().next_back()?;
        (last["member"]["expiresAt"] == daypass.owner.get(&member.path("")).json()["expiresAt"]).then_some(())
    });
    for event in ends() {
        assert_eq!(event["actor"]["type"], "CALLER", "{event}");
    }
}
