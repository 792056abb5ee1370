//! What must not wait goes on while a stranger floods Daypass, and while the API server has no room.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, Created, DAYPASS, Daypass, Http, Lab, Launch, eventually, leaders, now, replica};

/// Longer than the Lease lasts, and than silence may.
const LONG: Duration = Duration::from_secs(20);

/// Who holds the Lease, and how often that has changed.
fn lease(lab: &Lab) -> String {
    let fields = "jsonpath={.spec.holderIdentity} {.spec.leaseTransitions}";
    lab.kubectl(&["get", "lease", "daypass", "-n", "daypass", "-o", fields])
}

/// Checks, while all threads load, that the Lease is kept and that this Daypass is ready; that a member ends in
/// time and is removed.
fn assert_unharmed(lab: &Lab, daypass: &Daypass, load: &[&(dyn Fn() + Sync)]) {
    let role = lab.reader();
    let brief = Created::applied(lab, daypass, &role, "brief", &json!({"duration": "1h"}));
    let held = lease(lab);
    let end = brief.end_in(lab, &role, 8);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for work in load {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    work();
                }
            });
        }
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let start = Instant::now();
            while start.elapsed() < LONG {
                assert_eq!(daypass.probe("/readyz"), (200, "ok".to_owned()));
                assert_eq!(leaders(&[daypass]), [daypass.pid()]);
                let sent = now();
                let answer = brief.engineer.get(&brief.path("/me"));
                assert!(answer.status != 200 || sent < end, "past its end: {}", answer.text);
                assert!([200, 401, 503].contains(&answer.status), "{}", answer.text);
            }
        }));
        over.store(true, Ordering::Relaxed);
        checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    // Its end is its own; what is left of it is removed as soon as there is room.
    lab.wait_gone(&role, "brief");
    daypass.recorded(&brief.id, "EXPIRED");
    assert_eq!(lease(lab), held, "nobody else had the Lease meanwhile");
}

/// A client of the API server that is nobody's administrator: those are never refused for want of room.
fn of_api_server(lab: &Lab) -> Http {
    Http::new(&lab.plane.server_url(), lab.plane.ca_pem()).with_token(&lab.token("default", "owner", ""))
}

#[test]
fn stranger_who_floods_takes_neither_the_lease_nor_readiness() {
    let lab = Lab::private();
    let daypass = Daypass::start(
        &lab,
        &Launch { args: ["--identity=a", "--max-denied-requests=30"].map(str::to_owned).into(), ..replica("a") },
    );
    eventually("it leads", || (leaders(&[&daypass]).len() == 1).then_some(()));
    let nobody = lab.caller(&daypass, &[], &[], None);
    let list = || drop(nobody.get("/members"));
    let give = || drop(nobody.post("/members", &json!({"duration": "1", "roleId": "projects-view"})));
    let look = || drop(nobody.get("/members/nowhere.nobody"));
    let forge = || drop(nobody.with_token("garbage").get("/members"));
    assert_unharmed(&lab, &daypass, &[&list, &give, &look, &forge]);
}

#[test]
fn api_server_without_room_takes_neither_the_lease_nor_readiness() {
    let lab = Lab::private();
    lab.restart_apiserver(&[
        "--enable-priority-and-fairness=false",
        "--max-requests-inflight=1",
        "--max-mutating-requests-inflight=1",
    ]);
    let daypass = Daypass::start(&lab, &replica("a"));
    eventually("it leads", || (leaders(&[&daypass]).len() == 1).then_some(()));
    let client = of_api_server(&lab);
    let read = || drop(Answer::of(client.request("GET", "/openapi/v2")));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
        "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let change = || drop(client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review));
    assert_unharmed(&lab, &daypass, &[&read, &read, &read, &change, &change, &change]);

    let log = fs::read_to_string(lab.plane.audit_log()).unwrap();
    let refused = log.lines().filter(|line| line.contains(DAYPASS) && line.contains("\"code\":429"));
    let refused: Vec<Value> = refused.filter_map(|line| serde_json::from_str(line).ok()).collect();
    println!("the API server refused {} calls of Daypass for want of room", refused.len());
    assert!(!refused.is_empty());
}
