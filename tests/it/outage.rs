//! Daypass, the API server or etcd is away for a while: what is due is done when it is back, and nothing is answered wrongly meanwhile.

use daypass_local::{Component, Shutdown};
use serde_json::json;

use crate::support::{
    Answer, Created, Daypass, Http, Kubeconfig, Lab, Launch, Proxy, Remains, Role, Trap, eventually, leaders, replica,
    send_signal, site, wait_until,
};

const ALL: Remains = Remains { member: true, account: true, secrets: 1 };

/// A member for an hour, and one kubeconfig of it.
fn member(lab: &Lab, daypass: &Daypass, role: &Role, name: &str) -> (Created, Kubeconfig) {
    let member = Created::applied(lab, daypass, role, name, &json!({"duration": "1h"}));
    let kubeconfig = member.kubeconfig(lab);
    assert!(kubeconfig.is_accepted(lab));
    (member, kubeconfig)
}

#[test]
fn what_ended_while_daypass_was_away_is_reaped_when_it_is_back() {
    let lab = site();
    let role = lab.reader();
    for (name, stop) in [("terminated", Daypass::stop as fn(&mut Daypass)), ("killed", Daypass::kill)] {
        let mut daypass = Daypass::start(&lab, &replica("a"));
        let (over, over_kubeconfig) = member(&lab, &daypass, &role, &format!("over-{name}"));
        let (shorter, shorter_kubeconfig) = member(&lab, &daypass, &role, &format!("shorter-{name}"));
        stop(&mut daypass);
        let end = over.end_in(&lab, &role, 1);
        // Shorter than the token in its kubeconfig, which nobody is there to take back.
        lab.patch(&role.namespace, "member", shorter.name(), &json!({"spec": {"duration": "30m"}}));
        wait_until(end);
        assert_eq!(lab.remains(&role, over.name()), ALL);
        assert_eq!(lab.remains(&role, shorter.name()), ALL);

        let daypass = Daypass::start(&lab, &replica("a"));
        over.assert_dead(&daypass);
        lab.wait_gone(&role, over.name());
        for kubeconfig in [&over_kubeconfig, &shorter_kubeconfig] {
            kubeconfig.wait_refused(&lab);
        }
        daypass.recorded(&over.id, "EXPIRED");
        daypass.recorded(&shorter.id, "SHORTENED");
        daypass.owner.with_basic(&shorter.id, &shorter.password).get(&shorter.path("/kubeconfig")).expect(200);
        assert_eq!(daypass.kinds(&over.id), ["EXPIRED"]);
    }
}

#[test]
fn what_kubectl_deleted_while_daypass_was_away_stays_dead() {
    let lab = site();
    let role = lab.reader();
    let mut daypass = Daypass::start(&lab, &replica("a"));
    let (owned, owned_kubeconfig) = member(&lab, &daypass, &role, "owned");
    let (orphaned, orphaned_kubeconfig) = member(&lab, &daypass, &role, "orphaned");
    daypass.kill();
    // Kubernetes finishes the first alone, and was told not to finish the second.
    lab.kubectl(&["delete", "member", "owned", "-n", &role.namespace]);
    lab.kubectl(&["delete", "member", "orphaned", "-n", &role.namespace, "--cascade=orphan"]);
    lab.wait_gone(&role, "owned");
    owned_kubeconfig.wait_refused(&lab);
    assert_eq!(lab.remains(&role, "orphaned"), Remains { member: false, account: true, secrets: 1 });

    let daypass = Daypass::start(&lab, &replica("a"));
    for member in [&owned, &orphaned] {
        member.assert_dead(&daypass);
    }
    lab.wait_gone(&role, "orphaned");
    orphaned_kubeconfig.wait_refused(&lab);
}

/// Checks that Daypass says that it cannot tell, and when to ask again: whatever credential it is shown, a wrong one too.
#[track_caller]
fn assert_unavailable(daypass: &Daypass, role: &Role, member: &Created, token: &Http) {
    let engineer = daypass.owner.with_basic(&member.id, &member.password);
    let forged = daypass.owner.with_token(&format!("{}x", daypass.owner.token()));
    let body = json!({"duration": 1, "roleId": role.id});
    let path = |rest: &str| member.path(rest);
    let requests = [
        daypass.owner.request("GET", &path("")),
        daypass.owner.request("POST", "/members").json(&body),
        daypass.owner.request("DELETE", &path("")),
        engineer.request("GET", &path("/me")),
        engineer.request("GET", &path("/kubeconfig")),
        token.request("GET", &path("")),
        token.request("GET", "/members"),
        forged.request("GET", "/members"),
    ];
    // At the same time: where nothing answers at all, each waits until its time is up.
    std::thread::scope(|scope| {
        let asked = requests.map(|request| scope.spawn(move || Answer::of(request)));
        for answer in asked.map(|asked| asked.join().unwrap()) {
            answer.problem(503, "DP_ERR_UNAVAILABLE");
            assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
        }
    });
}

/// An access token that may read members.
fn access_token(daypass: &Daypass) -> Http {
    let body = json!({"name": "ci", "expiresInDays": 1, "scopes": ["members:read"]});
    let made = daypass.owner.post("/tokens", &body).expect(201).json();
    daypass.owner.with_token(made["token"].as_str().unwrap())
}

#[test]
fn an_api_server_that_hangs_is_told_from_one_that_answers() {
    let lab = site();
    let role = lab.reader();
    let daypass = Daypass::start(&lab, &replica("a"));
    eventually("it leads", || (leaders(&[&daypass]).len() == 1).then_some(()));
    let (brief, kubeconfig) = member(&lab, &daypass, &role, "brief");
    let (lasting, _) = member(&lab, &daypass, &role, "lasting");
    let token = access_token(&daypass);
    let end = brief.end_in(&lab, &role, 3);
    let timeouts = || -> u64 {
        let text = daypass.metrics();
        let counts = text.lines().filter(|line| line.contains(r#"outcome="timeout""#));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let before = timeouts();

    let pid = lab.plane.pid(Component::ApiServer).unwrap();
    send_signal(pid, "STOP");
    assert_unavailable(&daypass, &role, &lasting, &token);
    wait_until(end);
    assert_unavailable(&daypass, &role, &brief, &token);
    let said = eventually("it is not ready", || Some(daypass.probe("/readyz")).filter(|(status, _)| *status == 503));
    assert!(said.1.starts_with("the Kubernetes API has not answered for "), "{said:?}");
    assert_eq!(daypass.probe("/livez").0, 200, "a restart would help nobody");
    eventually("it does not say that it reaps", || leaders(&[&daypass]).is_empty().then_some(()));
    assert!(timeouts() > before);

    send_signal(pid, "CONT");
    eventually("it is ready again", || (daypass.probe("/readyz").0 == 200).then_some(()));
    brief.assert_dead(&daypass);
    lab.wait_gone(&role, "brief");
    kubeconfig.wait_refused(&lab);
    lasting.engineer.get(&lasting.path("/kubeconfig")).expect(200);
    token.get(&lasting.path("")).expect(200);
    eventually("it leads again", || (leaders(&[&daypass]).len() == 1).then_some(()));
    daypass.recorded(&brief.id, "EXPIRED");
}

#[test]
fn without_the_api_server_nothing_is_answered_and_with_it_everything_due_is_done() {
    let lab = site();
    let role = lab.reader();
    let mut daypass = Daypass::start(&lab, &replica("a"));
    let (brief, kubeconfig) = member(&lab, &daypass, &role, "brief");
    let (lasting, _) = member(&lab, &daypass, &role, "lasting");
    let token = access_token(&daypass);
    let end = brief.end_in(&lab, &role, 3);
    lab.plane.stop_component(Component::ApiServer, Shutdown::Kill).unwrap();
    assert_unavailable(&daypass, &role, &lasting, &token);
    wait_until(end);
    assert_unavailable(&daypass, &role, &brief, &token);
    // One that is started now waits for it too.
    let mut late = Daypass::start(&lab, &Launch { impatient: true, ..replica("b") });
    eventually("it is not ready", || (daypass.probe("/readyz").0 == 503).then_some(()));
    assert_eq!(daypass.probe("/livez").0, 200, "a restart would help nobody");
    assert!(late.probe("/readyz") == (503, "the Kubernetes API has not answered yet".to_owned()) && late.is_alive());

    lab.plane.start_component(Component::ApiServer).unwrap();
    daypass.wait_ready();
    brief.assert_dead(&daypass);
    lab.wait_gone(&role, "brief");
    kubeconfig.wait_refused(&lab);
    late.wait_ready();
    let ends = [&daypass, &late].map(|replica| replica.kinds(&brief.id)).concat();
    assert_eq!(ends.iter().filter(|kind| *kind == "EXPIRED").count(), 1, "{ends:?}");
    lasting.engineer.get(&lasting.path("/kubeconfig")).expect(200);
    Created::new(&daypass.owner, &role, 1);
}

#[test]
fn without_etcd_nothing_is_answered_and_with_it_everything_due_is_done() {
    let lab = site();
    let role = lab.reader();
    let mut daypass = Daypass::start(&lab, &replica("a"));
    let (brief, _) = member(&lab, &daypass, &role, "brief");
    let (lasting, kubeconfig) = member(&lab, &daypass, &role, "lasting");
    let end = brief.end_in(&lab, &role, 3);
    lab.plane.stop_component(Component::Etcd, Shutdown::Kill).unwrap();
    let answer = daypass.owner.get(&lasting.path(""));
    answer.problem(503, "DP_ERR_UNAVAILABLE");
    wait_until(end);
    lasting.engineer.get(&lasting.path("/kubeconfig")).problem(503, "DP_ERR_UNAVAILABLE");

    lab.plane.start_component(Component::Etcd).unwrap();
    eventually("the API server has noticed", || {
        let answer = daypass.owner.get(&lasting.path(""));
        assert!([200, 503].contains(&answer.status), "{}", answer.text);
        (answer.status == 200).then_some(())
    });
    daypass.wait_ready();
    eventually("the dead one is found dead", || {
        let answer = daypass.owner.get(&brief.path(""));
        assert!([404, 503].contains(&answer.status), "{}", answer.text);
        (answer.status == 404).then_some(())
    });
    lab.wait_gone(&role, "brief");
    assert!(kubeconfig.is_accepted(&lab));
    daypass.recorded(&brief.id, "EXPIRED");
    Created::new(&daypass.owner, &role, 1);
}

#[test]
fn of_two_replicas_one_reaps_and_the_other_takes_over_when_it_dies() {
    let lab = site();
    let role = lab.reader();
    let mut first = Daypass::start(&lab, &replica("a"));
    eventually("one leads", || (leaders(&[&first]).len() == 1).then_some(()));
    let mut second = Daypass::start(&lab, &replica("b"));
    let (one, _) = member(&lab, &first, &role, "one");
    // Both answer, and both with what the other did.
    let other = &second.owner.with_basic(&one.id, &one.password);
    other.get(&one.path("/kubeconfig")).expect(200);
    let two = Created::new(&second.owner, &role, 1);
    assert_eq!(first.owner.get(&two.path("")).expect(200).json()["status"], "ACTIVE");
    assert_eq!(leaders(&[&first, &second]), [first.pid()], "one leads");
    first.owner.delete(&two.path("")).expect(204);
    two.assert_dead(&second);
    assert_eq!(
        (second.kinds(&two.id), first.kinds(&two.id)),
        (vec!["MEMBER_CREATED".to_owned()], vec!["REVOKED".to_owned()])
    );

    let holder = || lab.kubectl(&["get", "lease", "daypass", "-n", "daypass", "-o", "jsonpath={.spec.holderIdentity}"]);
    assert_eq!(holder(), "a");
    first.kill();
    let end = one.end_in(&lab, &role, 1);
    eventually("the other takes over", || (leaders(&[&second]).len() == 1).then_some(()));
    assert_eq!(holder(), "b");
    wait_until(end);
    lab.wait_gone(&role, "one");
    second.recorded(&one.id, "EXPIRED");
    second.stop();
    assert_eq!(holder(), "", "the next one need not wait");
}

#[test]
fn replicas_that_start_together_make_one_certificate() {
    let lab = site();
    lab.kubectl(&["delete", "secret", "daypass-tls", "-n", "daypass", "--ignore-not-found"]);
    let mut replicas = ["a", "b", "c"].map(|name| Daypass::start(&lab, &Launch { impatient: true, ..replica(name) }));
    replicas.iter_mut().for_each(Daypass::wait_ready);
    let certificate = lab.serving_certificate();
    let fingerprint = |daypass: &Daypass| {
        let log = daypass.log();
        let line = log.lines().find(|line| line.contains("serving with this certificate")).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["sha256"].clone()
    };
    for daypass in &replicas {
        // A client that trusts this one alone.
        Http::new(&format!("{}/dp-1", daypass.url), &certificate).get("/members").problem(401, "DP_ERR_NO_CREDENTIALS");
        assert_eq!(fingerprint(daypass), fingerprint(&replicas[0]));
    }
}

#[test]
fn told_to_stop_it_finishes_what_it_has_begun() {
    let lab = site();
    let role = lab.reader();
    let proxy = Proxy::start(&lab);
    let mut daypass = Daypass::start(&lab, &Launch { kubeconfig: Some(proxy.kubeconfig.clone()), ..replica("a") });
    proxy.set(Trap::Hold, 1);
    let owner = daypass.owner.clone();
    let body = json!({"duration": 1, "roleId": role.id});
    let answer = std::thread::scope(|scope| {
        let request = scope.spawn(|| Answer::try_of(owner.request("POST", "/members").json(&body)));
        eventually("the request is under way", || proxy.has_trapped().then_some(()));
        daypass.terminate();
        eventually("no more requests are asked for", || (daypass.probe("/readyz").0 == 503).then_some(()));
        assert!(daypass.is_alive());
        proxy.release();
        request.join().unwrap()
    });
    let created = answer.unwrap().expect(201).json();
    let ended = eventually("it ends", || daypass.ended());
    assert!(ended.contains("exit status: 0"), "{ended}");

    let daypass = Daypass::start(&lab, &replica("a"));
    let (id, password) = (created["id"].as_str().unwrap(), created["credentials"]["password"].as_str().unwrap());
    daypass.owner.with_basic(id, password).get(&format!("/members/{id}/me")).expect(200);
    assert_eq!(daypass.owner.get(&format!("/members/{id}")).expect(200).json()["status"], "ACTIVE");
}
