//! The gateway at a host of its own, without a prefix (`gateway.publicUrl`).

use serde_json::Value;

use super::limits::at;
use super::{Gateways, Running};
use crate::support::{Daypass, Launch, RawConnection, eventually};

const LIST: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn gateway_has_a_host_of_its_own() {
    let gateways = Gateways::shared();
    let cluster = gateways.cluster;
    // Its port may be another's, such as a proxy's.
    let args = ["--kubeconfig-mode=gateway", "--gateway-public-url=https://localhost"];
    let daypass = Daypass::with_args(cluster, &args);
    assert!(daypass.log().contains("does not cover the host of a public URL"), "the shared pair has no such name");
    let guest = gateways.member(&gateways.role());
    let member = guest.member.at(&daypass);
    let text = member.engineer.get(&member.path("/kubeconfig")).expect(200).text;
    let parsed: Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(parsed["clusters"][0]["cluster"]["server"], "https://localhost");
    let (_, port) = daypass.url.rsplit_once(':').unwrap();
    let mut reached = parsed;
    reached["clusters"][0]["cluster"]["server"] = format!("https://localhost:{port}").into();
    reached["clusters"][0]["cluster"]["tls-server-name"] = "127.0.0.1".into();
    let file = cluster.save(&reached.to_string());
    let watch = Running::start(cluster, &file, &["get", "configmaps", "-w", "-n", "default"]);
    watch.wait_for("kube-root-ca.crt");

    // The path below the public URL goes on to work.
    at(&guest, &daypass, cluster).get(LIST).expect(200);
    let ask = |host: &str, path: &str, token: &str| {
        let mut raw = RawConnection::connect(cluster, &daypass);
        raw.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"));
        raw.answer()
    };
    // The API is at the other host only, and the gateway's credential opens nothing there.
    let members = "/processing/data-planes/dp-1/members";
    let (owner, token) = (daypass.owner.token(), guest.token.as_str());
    assert!(ask("127.0.0.1", members, owner).starts_with("HTTP/1.1 200 "));
    assert!(ask("127.0.0.1", members, token).starts_with("HTTP/1.1 401 "));
    assert!(ask("127.0.0.1", LIST, token).starts_with("HTTP/1.1 404 "));
    let refused = ask("localhost", members, owner);
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("\"kind\":\"Status\""), "{refused}");

    daypass.owner.delete(&member.path("")).expect(204);
    let (_, output) = watch.ended();
    assert!(output.contains("this membership was ended early"), "{output}");
}

#[test]
fn gateway_does_not_take_the_host_of_the_api() {
    let args = ["--kubeconfig-mode=gateway", "--gateway-public-url=https://127.0.0.1:1"].map(str::to_owned);
    let launch = Launch { args: args.into(), impatient: true, ..Launch::default() };
    let mut daypass = Daypass::start(Gateways::shared().cluster, &launch);
    let ended = eventually("it ends", || daypass.ended());
    assert!(ended.contains("--gateway-public-url needs another host than --public-url"), "{ended}");
}
