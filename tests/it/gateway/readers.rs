//! Clients that do not read, do not send, or break off: none keeps what its member no longer has.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::limits::at;
use super::refusals::refused;
use super::{Gateways, Guest};
use crate::support::{DEADLINE, Daypass, Stranger, eventually};

pub(super) const CONFIG_MAPS: &str = "/dp-1/gateway/api/v1/namespaces/default/configmaps";
pub(super) const WATCH: &str = "/dp-1/gateway/api/v1/namespaces/default/configmaps?watch=1";

pub(super) fn bearer(guest: &Guest) -> String {
    format!("Bearer {}", guest.token)
}

/// Waits until the gateway refuses the member.
fn wait_until_refused(guest: &Guest) {
    eventually("the gateway refuses the member", || {
        let answer = guest.api.get("/api/v1/namespaces/default/configmaps");
        (answer.status == 401).then(|| refused(&answer, 401, "this membership was ended early"))
    });
}

#[test]
fn http2_client_with_a_closed_window_loses_its_connection_after_the_cut() {
    let (runtime, gateways) = (Runtime::new().unwrap(), Gateways::shared());
    let guest = gateways.member(&gateways.role());
    let stranger = Stranger::new(gateways.cluster, &gateways.first);
    let mut connection = runtime.block_on(stranger.http2(0)).unwrap();
    let authorization = bearer(&guest);
    let answer = runtime.block_on(connection.get(WATCH, &[("authorization", &authorization)])).unwrap();
    assert_eq!(answer.status(), 200);
    assert!(runtime.block_on(connection.is_open()));
    gateways.first.owner.delete(&guest.member.path("")).expect(204);
    runtime.block_on(connection.ended());
}

/// The HTTP library takes a whole piece for a window of one byte, and the rest of the answer with it. The request's
/// place is taken all the same, and what is left is discarded at the end.
#[test]
fn answers_that_are_taken_byte_by_byte_keep_their_places() {
    let (runtime, gateways) = (Runtime::new().unwrap(), Gateways::shared());
    let args = ["--kubeconfig-mode=gateway", "--gateway-member-requests=5"];
    let daypass = Daypass::with_args(gateways.cluster, &args);
    let guest = gateways.member(&gateways.role());
    let authorization = bearer(&guest);
    let mut connection = runtime.block_on(Stranger::new(gateways.cluster, &daypass).http2(1)).unwrap();
    let path = "/dp-1/gateway/api/v1";
    let mut get = || runtime.block_on(connection.get(path, &[("authorization", &authorization)])).unwrap();
    let held: Vec<_> = (0..5).map(|_| get()).collect();
    assert!(held.iter().all(|answer| answer.status() == 200));
    assert_eq!(get().status(), 429);
    daypass.owner.delete(&guest.member.path("")).expect(204);
    runtime.block_on(connection.ended());
    // A connection that nobody reads from would be cut after 30 s.
    assert!(daypass.metric("daypass_gateway_overdue_seconds") < 25.0);
}

#[test]
fn slow_reader_of_a_large_watch_gets_no_end_that_looks_whole() {
    let (runtime, gateways) = (Runtime::new().unwrap(), Gateways::shared());
    let guest = gateways.member(&gateways.role());
    let namespace = format!("large-{}", guest.member.name());
    gateways.cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
    for number in 0..8 {
        gateways.cluster.create(&json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("c{number}"), "namespace": namespace}, "data": {"a": "a".repeat(900_000)},
        }));
    }
    let stranger = Stranger::new(gateways.cluster, &gateways.first);
    let stream = stranger.tls("http/1.1");
    let mut stream = runtime.block_on(stream).unwrap();
    let head = format!(
        "GET /dp-1/gateway/api/v1/namespaces/{namespace}/configmaps?watch=1 HTTP/1.1\r\nHost: a\r\n\
         Authorization: {}\r\n\r\n",
        bearer(&guest)
    );
    runtime.block_on(stream.write_all(head.as_bytes())).unwrap();
    let mut first = [0; 15];
    runtime.block_on(stream.read_exact(&mut first)).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    gateways.first.owner.delete(&guest.member.path("")).expect(204);
    wait_until_refused(&guest);
    gateways.cluster.delete_namespace(&namespace);
    let mut rest = Vec::new();
    let reading = async { timeout(DEADLINE, stream.read_to_end(&mut rest)).await };
    let read = runtime.block_on(reading).expect("the connection ends");
    // What the kernels held may still arrive. The end of a chunked body must not, unless it follows the reason.
    assert!(rest.len() < 7 << 20, "{} bytes", rest.len());
    let text = String::from_utf8_lossy(&rest);
    let says_why = text.contains("\"ERROR\"") && text.contains("this membership was ended early");
    assert!(read.is_err() || !text.ends_with("0\r\n\r\n") || says_why, "it looks whole");
}

#[test]
fn request_whose_body_never_ends_is_cut() {
    let (runtime, gateways) = (Runtime::new().unwrap(), Gateways::shared());
    let guest = gateways.member(&gateways.role());
    let stranger = Stranger::new(gateways.cluster, &gateways.first);
    let mut connection = runtime.block_on(stranger.http2(1 << 16)).unwrap();
    let authorization = bearer(&guest);
    let headers = [("authorization", &*authorization), ("content-type", "application/json")];
    let (answer, mut body) = runtime.block_on(connection.send(Method::POST, CONFIG_MAPS, &headers, true)).unwrap();
    body.send_data(Bytes::from_static(b"{\"metadata\":"), false).unwrap();
    runtime.block_on(connection.settle()).unwrap();
    gateways.first.owner.delete(&guest.member.path("")).expect(204);
    let answer = runtime.block_on(async { timeout(DEADLINE, answer).await }).expect("an answer in time");
    // Refused, or reset with what is left of the body.
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 401));
}

#[test]
fn places_of_answers_that_nobody_reads_are_given_to_others() {
    let (runtime, gateways) = (Runtime::new().unwrap(), Gateways::shared());
    let args = ["--kubeconfig-mode=gateway", "--gateway-requests=1", "--gateway-audit=all"];
    let daypass = Daypass::with_args(gateways.cluster, &args);
    let role = gateways.role();
    let guest = gateways.member(&role);
    let mut connection = runtime.block_on(Stranger::new(gateways.cluster, &daypass).http2(1)).unwrap();
    let authorization = bearer(&guest);
    let path = "/dp-1/gateway/api/v1";
    let held = runtime.block_on(connection.get(path, &[("authorization", &authorization)])).unwrap();
    assert_eq!(held.status(), 200);
    let other = at(&gateways.member(&role), &daypass, gateways.cluster);
    let list = "/api/v1/namespaces/default/configmaps";
    refused(&other.get(list), 429, "too many requests are open");
    eventually("there is a place", || (other.get(list).status == 200).then_some(()));
    runtime.block_on(connection.ended());
    let cut = eventually("its end is recorded", || {
        daypass.audit(&guest.member.id).into_iter().find(|event| event["event"] == "REQUEST_FORWARDED")
    });
    assert_eq!(cut["reason"], "UNREAD", "{cut}");
}

#[test]
fn members_that_share_a_connection_stay_themselves() {
    let (runtime, gateways) = (Runtime::new().unwrap(), Gateways::shared());
    let role = gateways.role();
    let guests = [gateways.member(&role), gateways.member(&role)];
    let stranger = Stranger::new(gateways.cluster, &gateways.first);
    let mut connection = runtime.block_on(stranger.http2(1 << 16)).unwrap();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let path = "/dp-1/gateway/apis/authentication.k8s.io/v1/selfsubjectreviews";
    for guest in guests.iter().cycle().take(6) {
        let authorization = bearer(guest);
        let headers = [("authorization", &*authorization), ("content-type", "application/json")];
        let text = runtime.block_on(async {
            let (answer, mut body) = connection.send(Method::POST, path, &headers, true).await.unwrap();
            body.send_data(Bytes::from(review.clone()), true).unwrap();
            let mut answer = answer.await.unwrap().into_body();
            let mut text = Vec::new();
            while let Some(chunk) = answer.data().await {
                text.extend_from_slice(&chunk.unwrap());
            }
            text
        });
        let seen: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(seen["status"]["userInfo"]["username"], guest.username());
    }
    // One ends; the other's watch on the same connection goes on.
    let [ended, staying] = &guests;
    let authorization = bearer(staying);
    let mut watch = runtime.block_on(connection.get(WATCH, &[("authorization", &authorization)])).unwrap().into_body();
    gateways.first.owner.delete(&ended.member.path("")).expect(204);
    wait_until_refused(ended);
    let wanted = format!("after-{}", ended.member.name());
    gateways.cluster.create(&super::config_map(&wanted));
    let mut seen = String::new();
    let shown = async {
        while !seen.contains(&wanted) {
            let chunk = watch.data().await.expect("the watch goes on").unwrap();
            watch.flow_control().release_capacity(chunk.len()).unwrap();
            seen.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    runtime.block_on(async { timeout(DEADLINE, shown).await }).expect("the other's watch goes on");
}

/// The API server allows a hundred streams on an HTTP/2 connection. Whoever forwards watches over one has the next
/// request wait until one of them ends.
#[test]
fn many_watches_keep_no_other_request_waiting() {
    let (runtime, gateways) = (Runtime::new().unwrap(), Gateways::shared());
    let guest = gateways.member(&gateways.role());
    // Of its own: how many places there are for a member depends on what others have open.
    let daypass = Daypass::with_args(gateways.cluster, &["--kubeconfig-mode=gateway"]);
    let (stranger, authorization) = (Stranger::new(gateways.cluster, &daypass), bearer(&guest));
    runtime.block_on(async {
        let headers = [("authorization", &*authorization)];
        let (mut connections, mut watches) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            // One that sends no request at first is closed soon.
            let mut connection = stranger.http2(1 << 16).await.unwrap();
            for _ in 0..99 {
                watches.push(connection.get(WATCH, &headers).await.unwrap());
            }
            connections.push(connection);
        }
        assert!(watches.iter().all(|watch| watch.status() == 200));
        for connection in &mut connections {
            let other = timeout(DEADLINE, connection.get(CONFIG_MAPS, &headers)).await.expect("an answer").unwrap();
            assert_eq!(other.status(), 200);
        }
    });
}

/// An answer over HTTP/1.0 ends with its connection, so one that is cut would look whole.
#[test]
fn http_1_0_is_refused() {
    let (runtime, gateways) = (Runtime::new().unwrap(), Gateways::shared());
    let guest = gateways.member(&gateways.role());
    let stranger = Stranger::new(gateways.cluster, &gateways.first);
    let mut text = String::new();
    let head = format!("GET /dp-1/gateway/version HTTP/1.0\r\nAuthorization: {}\r\n\r\n", bearer(&guest));
    runtime.block_on(async {
        let mut stream = stranger.tls("http/1.1").await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let _end = timeout(DEADLINE, stream.read_to_string(&mut text)).await.expect("the connection ends");
    });
    assert!(text.starts_with("HTTP/1.0 505") && text.contains("the gateway needs HTTP/1.1"), "{text}");
}
