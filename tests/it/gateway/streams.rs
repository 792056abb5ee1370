//! What is open is cut the moment the membership ends, on every replica, and says why.

use std::net::TcpListener;

use serde_json::json;

use super::causes::{self, Cause};
use super::limits::at;
use super::{Gateways, Guest, Running, config_map};
use crate::support::{Daypass, RawConnection, eventually, now, time};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Watches through both replicas that have shown the first event.
fn watches(gateways: &Gateways, guest: &Guest) -> [Running; 2] {
    let watch = |file| Running::start(gateways.cluster, file, &["get", "configmaps", "-w", "-n", "default"]);
    let watches = [watch(&guest.file), watch(&guest.elsewhere)];
    watches.iter().for_each(|watch| watch.wait_for("kube-root-ca.crt"));
    watches
}

/// Ends the membership in a way, and checks that both watches end with its reason, and that it refuses what comes
/// after.
#[track_caller]
fn cuts(gateways: &Gateways, guest: &Guest, Cause { reason, end, .. }: Cause) {
    let watches = watches(gateways, guest);
    end(gateways, guest);
    for watch in watches {
        let (_, output) = watch.ended();
        assert!(output.contains(reason), "{reason} in {output}");
    }
    for file in [&guest.file, &guest.elsewhere] {
        let output = gateways.cluster.kubectl_with(file, &["get", "configmaps", "-n", "default"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(reason), "{reason} in {text}");
    }
}

#[test]
fn revocation_cuts_watches() {
    let gateways = Gateways::shared();
    cuts(gateways, &gateways.member(&gateways.role()), causes::DELETE);
}

#[test]
fn member_deleted_with_kubectl_cuts_watches() {
    let gateways = Gateways::shared();
    cuts(gateways, &gateways.member(&gateways.role()), causes::KUBECTL);
}

#[test]
fn new_credential_cuts_watches() {
    let gateways = Gateways::shared();
    cuts(gateways, &gateways.member(&gateways.role()), causes::REPLACED);
}

#[test]
fn revoked_kubeconfig_cuts_its_watches_and_no_others() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let other = gateways.cluster.save(&guest.member.engineer.get(&guest.member.path("/kubeconfig")).expect(200).text);
    let mut lives = Running::start(gateways.cluster, &other, &["get", "configmaps", "-w", "-n", "default"]);
    lives.wait_for("kube-root-ca.crt");
    cuts(gateways, &guest, causes::REVOKED);
    gateways.cluster.create(&config_map(&format!("after-{}", guest.member.name())));
    lives.wait_for(&format!("after-{}", guest.member.name()));
    assert!(lives.is_running());
}

#[test]
fn removed_role_cuts_watches() {
    let gateways = Gateways::shared();
    cuts(gateways, &gateways.member(&gateways.role()), causes::ROLE);
}

#[test]
fn expiry_cuts_watches() {
    let gateways = Gateways::shared();
    let guest = gateways.member_for(&gateways.role(), "short", 90);
    let end = time(&guest.member.body["expiresAt"]);
    cuts(gateways, &guest, Cause { end: |_, _| {}, ..causes::EXPIRY });
    assert!(now() >= end, "not before its end");
}

#[test]
fn shortening_cuts_watches_at_the_new_end() {
    let gateways = Gateways::shared();
    cuts(gateways, &gateways.member(&gateways.role()), causes::EXPIRY);
    cuts(gateways, &gateways.member(&gateways.role()), causes::SHORTER);
}

#[test]
fn watch_lives_past_the_old_end_after_an_extension() {
    let gateways = Gateways::shared();
    let role = gateways.role();
    let guest = gateways.member(&role);
    let mut watches = watches(gateways, &guest);
    let old = now() + chrono::TimeDelta::seconds(60);
    let path = guest.member.path("");
    gateways.first.owner.patch(&path, &json!({"expiresAt": old.to_rfc3339()})).expect(200);
    gateways.first.owner.patch(&path, &json!({"duration": "1"})).expect(200);
    eventually("the old end is over", || (now() > old + chrono::TimeDelta::seconds(2)).then_some(()));
    gateways.cluster.create(&config_map("after-the-old-end"));
    for watch in &mut watches {
        watch.wait_for("after-the-old-end");
        assert!(watch.is_running());
    }
}

#[test]
fn stream_is_in_the_audit_trail_from_its_opening_to_its_end() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.role());
    let jti = guest.member.listed(&gateways.first.owner)[0].clone();
    let watches = watches(gateways, &guest);
    gateways.first.owner.delete(&guest.member.path("")).expect(204);
    watches.into_iter().for_each(|watch| drop(watch.ended()));
    let closed = eventually("the end of the stream is recorded", || {
        let events = gateways.first.audit(&guest.member.id);
        events.into_iter().find(|event| event["event"] == "STREAM_CLOSED")
    });
    assert_eq!((&closed["jti"], &closed["reason"]), (&json!(jti), &json!("REVOKED")), "{closed}");
    assert_eq!(closed["call"]["verb"], "watch");
    assert_eq!((&closed["call"]["resource"], &closed["call"]["namespace"]), (&json!("configmaps"), &json!("default")));
    assert!(closed["bytesToClient"].is_u64(), "{closed}");
    let events = gateways.first.audit(&guest.member.id);
    let opened = events.iter().find(|event| event["event"] == "STREAM_OPENED").unwrap();
    assert_eq!(opened["requestId"], closed["requestId"]);
    let minted = events.iter().find(|event| event["event"] == "GATEWAY_TOKEN_MINTED").unwrap();
    assert_eq!(minted["jti"], json!(jti));
    assert!(minted["minted"]["jti"].is_string() && minted["minted"]["jti"] != json!(jti));
}

#[test]
fn upgrade_that_waits_for_an_answer_is_cut() {
    let gateways = Gateways::shared();
    let guest = gateways.member(&gateways.executor());
    // A kubelet that takes connections and says nothing.
    let kubelet = TcpListener::bind("127.0.0.1:0").unwrap();
    let pod = gateways.pod(&guest, Some(kubelet.local_addr().unwrap().port()));
    let mut connection = RawConnection::connect(gateways.cluster, &gateways.first);
    connection.send(&format!(
        "POST /dp-1/gateway/api/v1/namespaces/default/pods/{pod}/exec?command=a&command=b+c&container=a&stdout=1 HTTP/1.1\r\nHost: a\r\n\
         Authorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\
         X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
        guest.token
    ));
    let _silent = kubelet.accept().unwrap();
    gateways.first.owner.delete(&guest.member.path("")).expect(204);
    let answer = connection.answer();
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("this membership was ended early"), "{answer}");
    let events = gateways.first.audit(&guest.member.id);
    let call = &events.iter().find(|event| event["event"] == "STREAM_OPENED").unwrap()["call"];
    assert_eq!((&call["subresource"], &call["name"]), (&json!("exec"), &json!(pod)), "{call}");
    assert_eq!((&call["command"], &call["container"]), (&json!(["a", "b c"]), &json!("a")), "{call}");
}

#[test]
fn audit_trail_has_the_requests_that_were_chosen() {
    let gateways = Gateways::shared();
    let role = gateways.role();
    for (chosen, verbs) in [("none", vec![]), ("writes", vec!["create", "delete"])] {
        let args = ["--kubeconfig-mode=gateway", &format!("--gateway-audit={chosen}")];
        let (daypass, guest) = (Daypass::with_args(gateways.cluster, &args), gateways.member(&role));
        let (api, name) = (at(&guest, &daypass, gateways.cluster), format!("audited-{}", guest.member.name()));
        api.get(CONFIG_MAPS).expect(200);
        api.post(CONFIG_MAPS, &config_map(&name)).expect(201);
        api.get(&format!("{CONFIG_MAPS}/{name}")).expect(200);
        api.delete(&format!("{CONFIG_MAPS}/{name}")).expect(200);
        // Streams are always in it.
        api.get(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).expect(200);
        let closed = || daypass.audit(&guest.member.id).into_iter().find(|event| event["event"] == "STREAM_CLOSED");
        eventually("the end of the stream is recorded", closed);
        let events = daypass.audit(&guest.member.id);
        let forwarded = events.iter().filter(|event| event["event"] == "REQUEST_FORWARDED");
        assert_eq!(forwarded.map(|event| &event["call"]["verb"]).collect::<Vec<_>>(), verbs, "{chosen}");
    }
}
