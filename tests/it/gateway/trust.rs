//! When a replica no longer hears from the API server, nothing of a member goes through.

use std::thread;
use std::time::{Duration, Instant};

use chrono::SubsecRound as _;
use daypass_local::{Component, Shutdown};
use serde_json::json;

use super::causes::end_soon;
use super::limits::at;
use super::refusals::refused;
use super::{Gateways, Guest, Running, config_map};
use crate::support::{
    Answer, Cluster, Daypass, Fault, Http, Launch, NewMember, Proxy, Role, Socks5, eventually, now, send_signal,
};

const LIST: &str = "/api/v1/namespaces/default/configmaps";
const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1";
/// The writes that tell a replica how old its feed is.
const BEAT: &str = "PATCH /apis/daypass.dev/v1alpha1/namespaces/daypass/members/heartbeat";

/// A member on a cluster whose parts a test stops, with a watch that has shown the first event.
fn watching(cluster: &Cluster, daypass: &Daypass) -> (NewMember, Http, Running) {
    let role = cluster.role(json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
    ]));
    let member = NewMember::new(&daypass.owner, &role, 1);
    let text = member.engineer.get(&member.path("/kubeconfig")).expect(200).text;
    let token =
        text.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap().trim_matches('"').to_owned();
    let watch = Running::start(cluster, &cluster.save(&text), &["get", "configmaps", "-w", "-n", "default", "--v=1"]);
    watch.wait_for("kube-root-ca.crt");
    let api = Http::new(&format!("{}/dp-1/gateway", daypass.url), &cluster.serving_certificate()).with_token(&token);
    (member, api, watch)
}

/// Pauses a component and checks that the open watch is cut and requests are refused, and that all is well afterwards.
fn is_cut_while_paused(component: Component) {
    let cluster = Cluster::breakable();
    let daypass = Daypass::with_args(&cluster, &["--kubeconfig-mode=gateway", "--gateway-max-staleness-seconds=20"]);
    let (_member, api, watch) = watching(&cluster, &daypass);
    let pid = cluster.plane.pid(component).unwrap();
    send_signal(pid, "STOP");
    eventually("the watch is cut", || {
        (daypass.metric("daypass_gateway_cuts_total{reason=\"STALE\"}") > 0.0).then_some(())
    });
    let (_, output) = watch.ended();
    let refused = api.get("/api/v1/namespaces/default/configmaps");
    send_signal(pid, "CONT");
    assert!(output.contains("cannot tell whether this membership is still in force"), "{output}");
    assert_eq!(refused.status, 503, "{}", refused.text);
    eventually("requests go through again", || {
        (api.get("/api/v1/namespaces/default/configmaps").status == 200).then_some(())
    });
}

#[test]
fn silent_etcd_cuts_everything() {
    is_cut_while_paused(Component::Etcd);
}

#[test]
fn silent_api_server_cuts_everything() {
    is_cut_while_paused(Component::ApiServer);
}

#[test]
fn dead_api_server_ends_streams_and_requests() {
    let cluster = Cluster::breakable();
    let daypass = Daypass::with_args(&cluster, &["--kubeconfig-mode=gateway"]);
    let (_member, api, watch) = watching(&cluster, &daypass);
    drop(watch);
    let stream = api.request("GET", WATCH).send().unwrap();
    assert_eq!(stream.status(), 200);
    cluster.plane.stop_component(Component::ApiServer, Shutdown::Kill).unwrap();
    stream.text().expect_err("the watch breaks off");
    let refused = api.get(LIST);
    assert!(matches!(refused.status, 502 | 503), "{}", refused.text);
    cluster.plane.start_component(Component::ApiServer).unwrap();
    eventually("requests go through again", || (api.get(LIST).status == 200).then_some(()));
}

#[test]
fn daypass_that_slept_over_an_expiry_lets_nothing_through() {
    let cluster = Cluster::breakable();
    let daypass = Daypass::with_args(&cluster, &["--kubeconfig-mode=gateway"]);
    let (member, api, watch) = watching(&cluster, &daypass);
    let soon = end_soon(&daypass.owner, &member, 4);
    send_signal(daypass.pid(), "STOP");
    eventually("the end is over", || (now() > soon + chrono::TimeDelta::seconds(2)).then_some(()));
    // It waits in the connection to the API server.
    cluster.create(&config_map("unseen"));
    send_signal(daypass.pid(), "CONT");
    let (_, output) = watch.ended();
    assert!(output.contains("this membership ended at") && !output.contains("unseen"), "{output}");
    assert_eq!(api.get("/api/v1/namespaces/default/configmaps").status, 401);
}

/// A replica behind a proxy. It goes on for a minute without hearing from the API server, unless `args` say otherwise.
fn behind_a_proxy(args: &[&str]) -> (Proxy, Daypass) {
    let cluster = Gateways::shared().cluster;
    let proxy = Proxy::start(cluster);
    let args = [&["--kubeconfig-mode=gateway"], args].concat();
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let kubeconfig = Some(proxy.kubeconfig.clone());
    let daypass = Daypass::start(cluster, &Launch { kubeconfig, args, ..Launch::default() });
    (proxy, daypass)
}

/// kubectl's watch of ConfigMaps, at this replica.
fn watch_at(guest: &Guest, daypass: &Daypass) -> Running {
    let gateways = Gateways::shared();
    let kubeconfig = std::fs::read_to_string(&guest.file).unwrap().replace(&gateways.first.url, &daypass.url);
    let kubeconfig = gateways.cluster.save(&kubeconfig);
    let watch = Running::start(gateways.cluster, &kubeconfig, &["get", "configmaps", "-w", "-n", "default"]);
    watch.wait_for("kube-root-ca.crt");
    watch
}

fn live_read(role: &Role, guest: &Guest) -> String {
    format!("GET /apis/daypass.dev/v1alpha1/namespaces/{}/members/{}", role.namespace, guest.member.name())
}

#[test]
fn member_deleted_while_no_watch_runs_is_cut_by_the_next_list() {
    let gateways = Gateways::shared();
    let (cluster, role) = (gateways.cluster, gateways.role());
    let (proxy, daypass) = behind_a_proxy(&[]);
    let guest = gateways.member(&role);
    let watch = watch_at(&guest, &daypass);
    // The list and the watch of all Members.
    proxy.block("GET /apis/daypass.dev/v1alpha1/members?");
    cluster.kubectl(&["delete", "dpm", guest.member.name(), "-n", &role.namespace]);
    let unaware = format!("unaware-{}", guest.member.name());
    cluster.create(&config_map(&unaware));
    watch.wait_for(&unaware);
    proxy.unblock();
    let (_, output) = watch.ended();
    assert!(output.contains("this membership was ended early"), "{output}");
    refused(&at(&guest, &daypass, cluster).get(LIST), 401, "this membership was ended early");
}

/// An extension may come a moment before the end, and its event after it.
#[test]
fn member_is_read_before_its_end_and_is_cut_without_an_answer() {
    // The extension must be there in time, however slow the machine is.
    assert!([10, 20, 40, 80].into_iter().any(extended_without_its_event), "no extension was in time");
}

/// A member is extended, and another is not. Daypass hears of neither, and can read the first only. Their end is so
/// many seconds away. Returns whether the extension was in time; nothing is shown unless it was.
fn extended_without_its_event(seconds: i64) -> bool {
    let gateways = Gateways::shared();
    let (cluster, owner, role) = (gateways.cluster, &gateways.first.owner, gateways.role());
    let (proxy, daypass) = behind_a_proxy(&[]);
    let guests @ [extended, ended] = &[(); 2].map(|()| gateways.member(&role));
    let [mut goes_on, ends] = guests.each_ref().map(|guest| watch_at(guest, &daypass));
    // An end has whole seconds.
    let end = (now() + chrono::TimeDelta::seconds(seconds)).trunc_subsecs(0);
    for guest in guests {
        if owner.patch(&guest.member.path(""), &json!({"expiresAt": end.to_rfc3339()})).status != 200 {
            return false;
        }
    }
    let has_heard = eventually("Daypass has heard of the end, or it is too late", || {
        if now() >= end - chrono::TimeDelta::seconds(3) {
            return Some(false);
        }
        let list = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
        let members = list["items"].as_array().unwrap();
        (members.len() == 2 && members.iter().all(|member| member["durationSeconds"] != 3600)).then_some(true)
    });
    if !has_heard {
        return false;
    }
    proxy.block("GET /apis/daypass.dev/v1alpha1/members?");
    proxy.block(&live_read(&role, ended));
    let answer = owner.patch(&extended.member.path(""), &json!({"duration": "1"}));
    // Two seconds before the end, Daypass looks once more.
    if now() >= end - chrono::TimeDelta::seconds(3) {
        return false;
    }
    answer.expect(200);
    let (_, output) = ends.ended();
    assert!(output.contains("this membership ended at 20") && now() >= end, "{output}");
    eventually("the end is over", || (now() > end + chrono::TimeDelta::seconds(2)).then_some(()));
    let later = format!("later-{}", extended.member.name());
    cluster.create(&config_map(&later));
    goes_on.wait_for(&later);
    assert!(goes_on.is_running());
    true
}

#[test]
fn live_read_over_a_revocation_admits_nobody() {
    let gateways = Gateways::shared();
    let (cluster, owner, role) = (gateways.cluster, &gateways.first.owner, gateways.role());
    let revoke = |guest: &Guest, what: &str| match what {
        "member" => owner.delete(&guest.member.path("")).expect(204),
        "credential" => owner.post(&guest.member.path("/credentials"), &json!({})).expect(201),
        _ => {
            let jti = guest.member.listed(owner)[0].clone();
            owner.delete(&guest.member.path(&format!("/kubeconfigs/{jti}"))).expect(204)
        }
    };
    for (what, reason) in [
        ("member", "this membership was ended early"),
        ("credential", "the member's credential was replaced"),
        ("kubeconfig", "this kubeconfig was revoked"),
    ] {
        let answer = eventually("the answer is there within the ten seconds of a live read", || {
            let (proxy, daypass) = behind_a_proxy(&[]);
            let guest = gateways.member(&role);
            // So each request is decided on a live read.
            proxy.block(BEAT);
            let api = at(&guest, &daypass, cluster);
            let watch = api.request("GET", WATCH).send().unwrap();
            assert_eq!(watch.status(), 200);
            proxy.plan_of(Fault::HoldAnswer, 1, &live_read(&role, &guest));
            let answer = thread::scope(|scope| {
                let asked = scope.spawn(|| api.get(LIST));
                eventually("the API server has answered the live read", || proxy.has_happened().then_some(()));
                revoke(&guest, what);
                // This replica knows.
                assert!(watch.text().unwrap().contains(reason));
                proxy.release();
                asked.join().unwrap()
            });
            (answer.status != 503).then_some(answer)
        });
        refused(&answer, 401, reason);
    }
}

/// The connection breaks when the API server has carried out a request, before its answer has come.
#[test]
fn request_is_not_sent_again_when_its_connection_breaks() {
    let gateways = Gateways::shared();
    let (cluster, role) = (gateways.cluster, gateways.role());
    let (proxy, daypass) = behind_a_proxy(&[]);
    let guest = gateways.member(&role);
    let api = at(&guest, &daypass, cluster);
    let name = format!("once-{}", guest.member.name());
    let mut new = config_map("");
    new["metadata"] = json!({"generateName": name, "labels": {"once": name}});
    let mut large = new.clone();
    large["data"] = json!({"a": "a".repeat(100_000)});
    let labelled = format!("{LIST}?labelSelector=once%3D{name}");
    let broken = |call: &str, ask: &dyn Fn() -> Answer| {
        // Over a connection that has been used before, which a client may take for one that was closed meanwhile.
        api.get(LIST).expect(200);
        proxy.plan_of(Fault::BreakOff, 1, call);
        let answer = ask().expect(502).json();
        let is_read = call.starts_with("GET ");
        let advice = if is_read { "try again" } else { "a change may have been made" };
        assert!(answer["message"].as_str().unwrap().ends_with(&format!("had answered; {advice}")), "{answer}");
        let made = proxy.made().iter().filter(|made| made.starts_with(call)).count();
        assert_eq!(made, usize::from(!is_read), "{:?}", proxy.made());
        assert!(proxy.cancel().is_some());
    };
    let post = format!("POST {LIST}");
    broken(&post, &|| api.post(LIST, &new));
    // A large body has a connection of its own.
    broken(&post, &|| api.post(LIST, &large));
    assert_eq!(api.get(&labelled).expect(200).json()["items"].as_array().unwrap().len(), 2);
    let one = api.get(&labelled).json()["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let path = format!("{LIST}/{one}");
    broken(&format!("GET {path}"), &|| api.get(&path));
    broken(&format!("DELETE {path}"), &|| api.delete(&path));
    assert_eq!(api.get(&labelled).expect(200).json()["items"].as_array().unwrap().len(), 1);
}

/// A request is cut when the API server has carried it out, before its answer has come.
#[test]
fn change_that_is_cut_before_its_answer_may_have_been_made() {
    let gateways = Gateways::shared();
    let (cluster, owner, role) = (gateways.cluster, &gateways.first.owner, gateways.role());
    let (proxy, daypass) = behind_a_proxy(&["--gateway-max-staleness-seconds=20"]);
    let (early, stale) = ("if you still need access, ask for a new one", "whether this membership is still in force");
    for (status, reason, usual) in [(401, early, ""), (503, stale, "; try again")] {
        for (method, advice) in [("GET", usual), ("POST", "; a change may have been made")] {
            proxy.unblock();
            let guest = gateways.member(&role);
            let api = at(&guest, &daypass, cluster);
            eventually("the replica hears from the API server", || (api.get(LIST).status == 200).then_some(()));
            let new = config_map(&format!("cut-{}", guest.member.name()));
            proxy.plan_of(Fault::HoldAnswer, 1, &format!("{method} {LIST}"));
            let answer = thread::scope(|scope| {
                let asked = scope.spawn(|| if method == "GET" { api.get(LIST) } else { api.post(LIST, &new) });
                eventually("the API server has answered", || proxy.has_happened().then_some(()));
                match status {
                    401 => drop(owner.delete(&guest.member.path("")).expect(204)),
                    _ => proxy.block(BEAT),
                }
                asked.join().unwrap()
            });
            let message = answer.expect(status).json()["message"].as_str().unwrap().to_owned();
            assert!(message.ends_with(&format!("{reason}{advice}")), "{message}");
        }
    }
}

#[test]
fn replica_that_is_cut_off_lets_nothing_through() {
    let gateways = Gateways::shared();
    let (cluster, role) = (gateways.cluster, gateways.role());
    let proxy = Socks5::start();
    let server = format!("server: {}", cluster.plane.server_url());
    let kubeconfig = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
    assert!(kubeconfig.contains(&server), "{kubeconfig}");
    let args = ["--kubeconfig-mode=gateway", "--gateway-max-staleness-seconds=15"].map(str::to_owned).to_vec();
    let kubeconfig = cluster.save(&kubeconfig.replace(&server, &format!("{server}\n    proxy-url: {}", proxy.url)));
    let daypass = Daypass::start(cluster, &Launch { kubeconfig: Some(kubeconfig), args, ..Launch::default() });
    let [ended, other] = [(); 2].map(|()| gateways.member(&role));
    let apis = [&ended, &other].map(|guest| at(guest, &daypass, cluster));
    let watches = [&ended, &other].map(|guest| watch_at(guest, &daypass));

    proxy.cut_off();
    let lost = Instant::now();
    gateways.first.owner.delete(&ended.member.path("")).expect(204);
    let unseen = format!("unseen-{}", ended.member.name());
    cluster.create(&config_map(&unseen));
    let refusals = thread::scope(|scope| {
        // What was admitted before the limit breaks off, and what comes after is refused.
        let ask = |api: &Http| loop {
            match Answer::try_of(api.request("GET", LIST)) {
                Ok(answer) if answer.status == 503 => return lost.elapsed(),
                answer => assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 502)),
            }
        };
        apis.each_ref().map(|api| scope.spawn(move || ask(api))).map(|asked| asked.join().unwrap())
    });
    // A request that waits for a live read has ten seconds. Without the limit of 15, one that waits for an answer
    // has more than a minute, and a watch never ends.
    assert!(refusals.iter().all(|after| *after < Duration::from_secs(60)), "{refusals:?}");
    for watch in watches {
        let (_, output) = watch.ended();
        assert!(!output.contains(&unseen), "{output}");
    }

    proxy.reconnect();
    eventually("the other member is back", || (apis[1].get(LIST).status == 200).then_some(()));
    refused(&apis[0].get(LIST), 401, "this membership was ended early");
}

#[test]
fn requests_that_wait_for_a_live_read_are_limited() {
    let gateways = Gateways::shared();
    let (cluster, role) = (gateways.cluster, gateways.role());
    let (proxy, daypass) = behind_a_proxy(&["--gateway-member-requests=2"]);
    let (guest, other) = (gateways.member(&role), gateways.member(&role));
    let apis = [&guest, &other].map(|guest| at(guest, &daypass, cluster));
    // The replica knows them, and cannot know how old what it knows is.
    proxy.block(BEAT);
    apis.iter().for_each(|api| drop(api.get(LIST).expect(200)));
    proxy.block(&live_read(&role, &guest));
    thread::scope(|scope| {
        let asked = [(); 3].map(|()| scope.spawn(|| apis[0].get(LIST)));
        eventually("one of them is refused", || asked.iter().any(|asked| asked.is_finished()).then_some(()));
        apis[1].get(LIST).expect(200);
        proxy.unblock();
        let statuses = asked.map(|asked| asked.join().unwrap().status);
        assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 1, "{statuses:?}");
    });
}
