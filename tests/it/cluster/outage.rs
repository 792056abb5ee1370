//! Daypass, the API server or etcd stops for a while. No answer is wrong meanwhile, and due work is done afterwards.

use daypass_local::{Component, Shutdown};
use serde_json::json;

use crate::support::{
    Answer, Cluster, Daypass, Fault, Http, Kubeconfig, Launch, Leftovers, NewMember, Proxy, Role, eventually, leaders,
    plain_client, replica, wait_until,
};

const ALL: Leftovers = Leftovers { member: true, account: true, secrets: 1 };

/// A member for one hour, with a kubeconfig.
fn member(cluster: &Cluster, daypass: &Daypass, role: &Role, name: &str) -> (NewMember, Kubeconfig) {
    let member = NewMember::applied(cluster, daypass, role, name, &json!({"duration": "1h"}));
    let kubeconfig = member.kubeconfig(cluster);
    assert!(kubeconfig.is_accepted(cluster));
    (member, kubeconfig)
}

#[test]
fn member_that_ended_during_downtime_is_reaped_at_start() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    for (name, stop) in [("terminated", Daypass::stop as fn(&mut Daypass)), ("killed", Daypass::kill)] {
        let mut daypass = Daypass::start(&cluster, &replica("a"));
        let (over, over_kubeconfig) = member(&cluster, &daypass, &role, &format!("over-{name}"));
        let (shorter, shorter_kubeconfig) = member(&cluster, &daypass, &role, &format!("shorter-{name}"));
        stop(&mut daypass);
        let end = over.end_in_seconds(&cluster, &role, 1);
        // Now the kubeconfig's token would outlive the member, and no Daypass runs to revoke it.
        cluster.patch(&role.namespace, "member", shorter.name(), &json!({"spec": {"duration": "30m"}}));
        wait_until(end);
        assert_eq!(cluster.leftovers(&role, over.name()), ALL);
        assert_eq!(cluster.leftovers(&role, shorter.name()), ALL);

        let daypass = Daypass::start(&cluster, &replica("a"));
        over.assert_dead(&daypass);
        cluster.wait_gone(&role, over.name());
        for kubeconfig in [&over_kubeconfig, &shorter_kubeconfig] {
            kubeconfig.wait_refused(&cluster);
        }
        daypass.wait_event(&over.id, "EXPIRED");
        daypass.wait_event(&shorter.id, "SHORTENED");
        daypass.owner.with_basic(&shorter.id, &shorter.password).get(&shorter.path("/kubeconfig")).expect(200);
        assert_eq!(daypass.event_kinds(&over.id), ["EXPIRED"]);
    }
}

#[test]
fn member_deleted_during_downtime_stays_dead() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let mut daypass = Daypass::start(&cluster, &replica("a"));
    let (owned, owned_kubeconfig) = member(&cluster, &daypass, &role, "owned");
    let (orphaned, orphaned_kubeconfig) = member(&cluster, &daypass, &role, "orphaned");
    daypass.kill();
    // The garbage collector completes the first deletion. The second one orphans: the collector strips owner
    // references, but not of what it has not seen yet, so this does not wait for it.
    cluster.kubectl(&["delete", "member", "owned", "-n", &role.namespace]);
    for (kind, name) in [("serviceaccount", "orphaned"), ("secret", "orphaned.0")] {
        cluster.patch(&role.namespace, kind, name, &json!({"metadata": {"ownerReferences": null}}));
    }
    cluster.kubectl(&["delete", "member", "orphaned", "-n", &role.namespace, "--cascade=orphan"]);
    cluster.wait_gone(&role, "owned");
    owned_kubeconfig.wait_refused(&cluster);
    assert_eq!(cluster.leftovers(&role, "orphaned"), Leftovers { member: false, account: true, secrets: 1 });

    let daypass = Daypass::start(&cluster, &replica("a"));
    for member in [&owned, &orphaned] {
        member.assert_dead(&daypass);
    }
    cluster.wait_gone(&role, "orphaned");
    orphaned_kubeconfig.wait_refused(&cluster);
}

/// Checks that Daypass answers 503 with `Retry-After` to every credential, valid or not.
#[track_caller]
fn assert_unavailable(daypass: &Daypass, role: &Role, member: &NewMember, token: &Http) {
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
    // Concurrently, since each waits for its timeout.
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
fn hanging_api_server_makes_daypass_unready() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let daypass = Daypass::start(&cluster, &replica("a"));
    eventually("Daypass leads", || (leaders(&[&daypass]).len() == 1).then_some(()));
    let (brief, kubeconfig) = member(&cluster, &daypass, &role, "brief");
    let (lasting, _) = member(&cluster, &daypass, &role, "lasting");
    let token = access_token(&daypass);
    let end = brief.end_in_seconds(&cluster, &role, 3);
    let timeouts = || -> u64 {
        let text = daypass.metrics();
        let counts = text.lines().filter(|line| line.contains(r#"outcome="timeout""#));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let before = timeouts();

    cluster.pause_apiserver();
    assert_unavailable(&daypass, &role, &lasting, &token);
    wait_until(end);
    assert_unavailable(&daypass, &role, &brief, &token);
    let said =
        eventually("Daypass is not ready", || Some(daypass.probe("/readyz")).filter(|(status, _)| *status == 503));
    assert!(said.1.starts_with("the Kubernetes API has not answered for "), "{said:?}");
    assert_eq!(daypass.probe("/livez").0, 200, "a restart would not help");
    eventually("Daypass does not report that it leads", || leaders(&[&daypass]).is_empty().then_some(()));
    assert!(timeouts() > before);

    cluster.resume_apiserver();
    eventually("Daypass is ready again", || (daypass.probe("/readyz").0 == 200).then_some(()));
    brief.assert_dead(&daypass);
    cluster.wait_gone(&role, "brief");
    kubeconfig.wait_refused(&cluster);
    lasting.engineer.get(&lasting.path("/kubeconfig")).expect(200);
    token.get(&lasting.path("")).expect(200);
    eventually("Daypass leads again", || (leaders(&[&daypass]).len() == 1).then_some(()));
    daypass.wait_event(&brief.id, "EXPIRED");
}

#[test]
fn due_work_is_done_after_api_server_outage() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let mut daypass = Daypass::start(&cluster, &replica("a"));
    let (brief, kubeconfig) = member(&cluster, &daypass, &role, "brief");
    let (lasting, _) = member(&cluster, &daypass, &role, "lasting");
    let token = access_token(&daypass);
    let end = brief.end_in_seconds(&cluster, &role, 3);
    cluster.plane.stop_component(Component::ApiServer, Shutdown::Kill).unwrap();
    assert_unavailable(&daypass, &role, &lasting, &token);
    wait_until(end);
    assert_unavailable(&daypass, &role, &brief, &token);
    // A Daypass started now waits for the API server too.
    let mut late = Daypass::start(&cluster, &Launch { impatient: true, ..replica("b") });
    eventually("Daypass is not ready", || (daypass.probe("/readyz").0 == 503).then_some(()));
    assert_eq!(daypass.probe("/livez").0, 200, "a restart would not help");
    eventually("the late one says why it is not ready", || {
        assert!(late.is_alive());
        // It may not listen yet.
        let answer = plain_client().get(format!("{}/readyz", late.admin_url)).send().ok()?;
        (answer.status() == 503 && answer.text().ok()? == "the Kubernetes API has not answered yet").then_some(())
    });

    cluster.plane.start_component(Component::ApiServer).unwrap();
    daypass.wait_ready();
    brief.assert_dead(&daypass);
    cluster.wait_gone(&role, "brief");
    kubeconfig.wait_refused(&cluster);
    late.wait_ready();
    let ends = [&daypass, &late].map(|replica| replica.event_kinds(&brief.id)).concat();
    assert_eq!(ends.iter().filter(|kind| *kind == "EXPIRED").count(), 1, "{ends:?}");
    lasting.engineer.get(&lasting.path("/kubeconfig")).expect(200);
    NewMember::new(&daypass.owner, &role, 1);
}

#[test]
fn due_work_is_done_after_etcd_outage() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let mut daypass = Daypass::start(&cluster, &replica("a"));
    let (brief, _) = member(&cluster, &daypass, &role, "brief");
    let (lasting, kubeconfig) = member(&cluster, &daypass, &role, "lasting");
    let end = brief.end_in_seconds(&cluster, &role, 3);
    cluster.plane.stop_component(Component::Etcd, Shutdown::Kill).unwrap();
    let answer = daypass.owner.get(&lasting.path(""));
    answer.problem(503, "DP_ERR_UNAVAILABLE");
    wait_until(end);
    lasting.engineer.get(&lasting.path("/kubeconfig")).problem(503, "DP_ERR_UNAVAILABLE");

    cluster.plane.start_component(Component::Etcd).unwrap();
    eventually("the API server has noticed", || {
        let answer = daypass.owner.get(&lasting.path(""));
        assert!([200, 503].contains(&answer.status), "{}", answer.text);
        (answer.status == 200).then_some(())
    });
    daypass.wait_ready();
    eventually("the ended member is not found", || {
        let answer = daypass.owner.get(&brief.path(""));
        assert!([404, 503].contains(&answer.status), "{}", answer.text);
        (answer.status == 404).then_some(())
    });
    cluster.wait_gone(&role, "brief");
    assert!(kubeconfig.is_accepted(&cluster));
    daypass.wait_event(&brief.id, "EXPIRED");
    NewMember::new(&daypass.owner, &role, 1);
}

#[test]
fn second_replica_takes_over_when_the_leader_dies() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let mut first = Daypass::start(&cluster, &replica("a"));
    eventually("a replica leads", || (leaders(&[&first]).len() == 1).then_some(()));
    let mut second = Daypass::start(&cluster, &replica("b"));
    let (one, _) = member(&cluster, &first, &role, "one");
    // Each answers with what the other wrote.
    let other = &second.owner.with_basic(&one.id, &one.password);
    other.get(&one.path("/kubeconfig")).expect(200);
    let two = NewMember::new(&second.owner, &role, 1);
    assert_eq!(first.owner.get(&two.path("")).expect(200).json()["status"], "ACTIVE");
    assert_eq!(leaders(&[&first, &second]), [first.pid()], "a replica leads");
    first.owner.delete(&two.path("")).expect(204);
    two.assert_dead(&second);
    assert_eq!(
        (second.event_kinds(&two.id), first.event_kinds(&two.id)),
        (vec!["MEMBER_CREATED".to_owned()], vec!["REVOKED".to_owned()])
    );

    let holder =
        || cluster.kubectl(&["get", "lease", "daypass", "-n", "daypass", "-o", "jsonpath={.spec.holderIdentity}"]);
    assert_eq!(holder(), "a");
    first.kill();
    let end = one.end_in_seconds(&cluster, &role, 1);
    eventually("the other takes over", || (leaders(&[&second]).len() == 1).then_some(()));
    assert_eq!(holder(), "b");
    wait_until(end);
    cluster.wait_gone(&role, "one");
    second.wait_event(&one.id, "EXPIRED");
    second.stop();
    assert_eq!(holder(), "", "the next leader need not wait");
}

#[test]
fn replicas_starting_together_make_one_certificate() {
    let cluster = Cluster::breakable();
    cluster.kubectl(&["delete", "secret", "daypass-tls", "-n", "daypass", "--ignore-not-found"]);
    let mut replicas =
        ["a", "b", "c"].map(|name| Daypass::start(&cluster, &Launch { impatient: true, ..replica(name) }));
    replicas.iter_mut().for_each(Daypass::wait_ready);
    let certificate = cluster.serving_certificate();
    let fingerprint = |daypass: &Daypass| {
        let log = daypass.log();
        let line = log.lines().find(|line| line.contains("serving with this certificate")).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["sha256"].clone()
    };
    for daypass in &replicas {
        // This client trusts only this certificate.
        Http::new(&format!("{}/dp-1", daypass.url), &certificate)
            .get("/members")
            .problem(401, "DP_ERR_NO_CREDENTIALS");
        assert_eq!(fingerprint(daypass), fingerprint(&replicas[0]));
    }
}

#[test]
fn sigterm_finishes_requests_in_flight() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let proxy = Proxy::start(&cluster);
    let body = json!({"duration": 1, "roleId": role.id});
    let created = eventually("the request is released within the ten seconds that its call has", || {
        let launch = Launch { kubeconfig: Some(proxy.kubeconfig.clone()), ..replica("a") };
        let mut daypass = Daypass::start(&cluster, &launch);
        proxy.plan(Fault::Hold, 1);
        let owner = daypass.owner.clone();
        let answer = std::thread::scope(|scope| {
            let request = scope.spawn(|| Answer::try_of(owner.request("POST", "/members").json(&body)));
            eventually("the proxy holds the request", || proxy.has_happened().then_some(()));
            daypass.terminate();
            eventually("Daypass is not ready", || (daypass.probe("/readyz").0 == 503).then_some(()));
            assert!(daypass.is_alive());
            proxy.release();
            request.join().unwrap().unwrap()
        });
        let ended = eventually("the process has exited", || daypass.ended());
        assert!(ended.contains("exit status: 0"), "{ended}");
        (answer.status != 503).then(|| answer.expect(201).json())
    });

    let daypass = Daypass::start(&cluster, &replica("a"));
    let (id, password) = (created["id"].as_str().unwrap(), created["credentials"]["password"].as_str().unwrap());
    daypass.owner.with_basic(id, password).get(&format!("/members/{id}/me")).expect(200);
    assert_eq!(daypass.owner.get(&format!("/members/{id}")).expect(200).json()["status"], "ACTIVE");
}
