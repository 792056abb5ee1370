//! How much a member may have open, and what a replica that stops or dies does with it.

use std::process::{Command, Stdio};

use super::refusals::refused;
use super::{Gateways, Guest, Running, config_map};
use crate::support::{Cluster, Daypass, Http, NewMember, RawConnection, eventually, replica};

const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1";

/// The same member at another replica.
pub(super) fn at(guest: &Guest, daypass: &Daypass, cluster: &Cluster) -> Http {
    Http::new(&format!("{}/dp-1/gateway", daypass.url), &cluster.serving_certificate()).with_token(&guest.token)
}

#[test]
fn streams_of_a_member_are_limited() {
    let gateways = Gateways::shared();
    let cluster = gateways.cluster;
    let daypass = Daypass::with_args(cluster, &["--kubeconfig-mode=gateway", "--gateway-member-streams=2"]);
    let guest = gateways.member(&gateways.role());
    let other = gateways.member(&gateways.role());
    let open = |guest: &Guest| at(guest, &daypass, cluster).request("GET", WATCH).send().unwrap();
    let streams = [open(&guest), open(&guest)];
    assert!(streams.iter().all(|stream| stream.status() == 200));
    refused(&at(&guest, &daypass, cluster).get(WATCH), 429, "this member has too many requests open");
    assert_eq!(open(&other).status(), 200, "the limit is a member's own");
    at(&guest, &daypass, cluster).get("/api/v1/namespaces/default/configmaps").expect(200);
    drop(streams);
    eventually("a closed stream makes room", || (open(&guest).status() == 200).then_some(()));
}

#[test]
fn watch_over_http1_ends_with_an_error_event() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let folder = gateways.cluster.fresh_folder("curl");
    std::fs::write(folder.join("ca.pem"), gateways.cluster.serving_certificate()).unwrap();
    let out = std::fs::File::create(folder.join("out")).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--http1.1", "--silent", "--no-buffer", "--cacert"]).arg(folder.join("ca.pem"));
    curl.args(["--oauth2-bearer", &guest.token, &format!("{}{WATCH}", guest.api.base())]);
    let mut curl = curl.stdout(Stdio::from(out)).spawn().unwrap();
    let seen = || std::fs::read_to_string(folder.join("out")).unwrap();
    eventually("the first event", || seen().contains("kube-root-ca.crt").then_some(()));
    gateways.first.owner.delete(&guest.member.path("")).expect(204);
    let status = eventually("curl ends", || curl.try_wait().unwrap());
    let text = seen();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(status.success(), "{status}");
    assert_eq!((&last["type"], &last["object"]["code"]), (&"ERROR".into(), &401.into()), "{text}");
}

/// A watch that has shown its first event.
fn watch_over_a_websocket(guest: &Guest, daypass: &Daypass, cluster: &Cluster) -> RawConnection {
    let mut connection = RawConnection::connect(cluster, daypass);
    connection.send(&format!(
        "GET /dp-1/gateway{WATCH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        guest.token
    ));
    connection.read_to("HTTP/1.1 101 ");
    connection.read_to("kube-root-ca.crt");
    connection
}

#[test]
fn watch_over_a_websocket_ends_with_an_error_event() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let mut connection = watch_over_a_websocket(&guest, &gateways.first, gateways.cluster);
    gateways.first.owner.delete(&guest.member.path("")).expect(204);
    connection.read_to("this membership was ended early");
}

#[test]
fn replica_that_stops_ends_watches_without_an_error() {
    let gateways = Gateways::shared();
    let cluster = gateways.cluster;
    let mut daypass = Daypass::with_args(cluster, &["--kubeconfig-mode=gateway", "--gateway-drain-seconds=2"]);
    let guest = gateways.member(&gateways.role());
    let text = std::fs::read_to_string(&guest.file).unwrap().replace(&gateways.first.url, &daypass.url);
    let watch = Running::start(cluster, &cluster.save(&text), &["get", "configmaps", "-w", "-n", "default"]);
    watch.wait_for("kube-root-ca.crt");
    let mut socket = watch_over_a_websocket(&guest, &daypass, cluster);
    daypass.stop();
    let (_, output) = watch.ended();
    assert!(!output.contains("Failure"), "{output}");
    // A closing frame with the code 1000 (RFC 6455) is the last that is said.
    let rest = socket.rest();
    assert!(!rest.contains("ERROR") && rest.ends_with("\u{2}\u{3}\u{fffd}"), "{rest:?}");
    // Informers go on at another replica.
    gateways.cluster.create(&config_map(&format!("after-{}", guest.member.name())));
    assert!(guest.api.get("/api/v1/namespaces/default/configmaps").text.contains(guest.member.name()));
}

#[test]
fn replica_that_stops_tells_http1_clients_to_connect_anew() {
    let gateways = Gateways::shared();
    // The delay is longer than the test, which kills it at the end.
    let args = ["--kubeconfig-mode=gateway", "--shutdown-delay-seconds=3600"];
    let mut daypass = Daypass::with_args(gateways.cluster, &args);
    let guest = gateways.member(&gateways.role());
    let api = at(&guest, &daypass, gateways.cluster);
    let list = "/api/v1/namespaces/default/configmaps";
    assert_eq!(api.get(list).expect(200).header("connection"), "");
    daypass.terminate();
    eventually("it stops", || (daypass.probe("/readyz").0 == 503).then_some(()));
    assert_eq!(api.get(list).expect(200).header("connection"), "close");
    daypass.kill();
}

#[test]
fn revocation_cuts_at_once_after_the_leader_was_killed() {
    let cluster = Cluster::breakable();
    let start = |name: &str| {
        let mut launch = replica(name);
        launch.args.push("--kubeconfig-mode=gateway".to_owned());
        Daypass::start(&cluster, &launch)
    };
    let mut leader = start("first");
    eventually("it leads", || (leader.metric("daypass_leader") > 0.5).then_some(()));
    let other = start("second");
    let role = cluster.role(serde_json::json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
    ]));
    let member = NewMember::new(&other.owner, &role, 1);
    let file = cluster.save(&member.engineer.get(&member.path("/kubeconfig")).expect(200).text);
    let watch = Running::start(&cluster, &file, &["get", "configmaps", "-w", "-n", "default"]);
    watch.wait_for("kube-root-ca.crt");
    leader.kill();
    cluster.kubectl(&["delete", "dpm", member.name(), "-n", &role.namespace, "--wait=false"]);
    let (_, output) = watch.ended();
    assert!(output.contains("this membership was ended early"), "{output}");
}
