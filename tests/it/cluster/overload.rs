//! Lease, readiness and ends of members under load on Daypass or on the API server.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Answer, Cluster, DAYPASS, Daypass, Http, NewMember, eventually, leaders, now, replica};

/// Longer than the Lease's duration and the readiness probe's tolerance.
const LONG: Duration = Duration::from_secs(20);

/// The holder of the Lease and its number of transitions.
fn lease(cluster: &Cluster) -> String {
    let fields = "jsonpath={.spec.holderIdentity} {.spec.leaseTransitions}";
    cluster.kubectl(&["get", "lease", "daypass", "-n", "daypass", "-o", fields])
}

/// Checks that Daypass stays leader and ready under this load, one thread for each function, and that a member ends on
/// time and is removed.
fn assert_unharmed(cluster: &Cluster, daypass: &Daypass, load: &[&(dyn Fn() + Sync)]) {
    let role = cluster.reader();
    let brief = NewMember::applied(cluster, daypass, &role, "brief", &json!({"duration": "1h"}));
    let held = lease(cluster);
    let end = brief.end_in_seconds(cluster, &role, 8);
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
    // Its access ended on time; Daypass removes its objects when the API server has room.
    cluster.wait_gone(&role, "brief");
    daypass.wait_event(&brief.id, "EXPIRED");
    assert_eq!(lease(cluster), held, "the Lease has not changed hands");
}

/// A client of the API server without administrator rights: the API server never refuses administrators with 429.
fn of_api_server(cluster: &Cluster) -> Http {
    Http::new(&cluster.plane.server_url(), cluster.plane.ca_pem()).with_token(&cluster.token("default", "owner", ""))
}

/// How many calls of Daypass the API server has refused with 429.
fn refused(cluster: &Cluster) -> usize {
    let log = fs::read_to_string(cluster.plane.audit_log()).unwrap();
    log.lines().filter(|line| line.contains(DAYPASS) && line.contains("\"code\":429")).count()
}

#[test]
fn flood_of_denied_requests_keeps_lease_and_readiness() {
    let cluster = Cluster::exclusive();
    let mut daypass = Daypass::with_args(&cluster, &["--identity=a", "--max-denied-requests=30"]);
    eventually("Daypass leads", || (leaders(&[&daypass]).len() == 1).then_some(()));
    let nobody = cluster.caller(&daypass, &[], &[], None);
    let list = || drop(nobody.get("/members"));
    let give = || drop(nobody.post("/members", &json!({"duration": "1", "roleId": "projects-view"})));
    let look = || drop(nobody.get("/members/nowhere.nobody"));
    let forge = || drop(nobody.with_token("garbage").get("/members"));
    assert_unharmed(&cluster, &daypass, &[&list, &give, &look, &forge]);
    daypass.stop();
}

#[test]
fn overloaded_api_server_keeps_lease_and_readiness() {
    let cluster = Cluster::breakable();
    cluster.restart_apiserver(&[
        "--enable-priority-and-fairness=false",
        "--max-requests-inflight=1",
        "--max-mutating-requests-inflight=1",
    ]);
    let mut daypass = Daypass::start(&cluster, &replica("a"));
    eventually("Daypass leads", || (leaders(&[&daypass]).len() == 1).then_some(()));
    let client = of_api_server(&cluster);
    let before = refused(&cluster);
    let read = || drop(Answer::of(client.request("GET", "/openapi/v2")));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
        "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let change = || drop(client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review));
    assert_unharmed(&cluster, &daypass, &[&read, &read, &read, &change, &change, &change]);

    let refused = refused(&cluster) - before;
    println!("the API server refused {refused} calls of Daypass for want of room");
    assert!(refused > 0);
    daypass.stop();
    cluster.restart_apiserver(&[]);
}
