//! Kubeconfigs: their content, their number, and their end.

use std::collections::BTreeSet;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::{Cluster, Kubeconfig, NewMember, eventually, time, wait_until};

/// The end of its token.
fn end(kubeconfig: &Kubeconfig) -> DateTime<Utc> {
    DateTime::from_timestamp(kubeconfig.exp(), 0).unwrap()
}

/// The name of its context, cluster and user.
fn context_of(member: &NewMember, kubeconfig: &Kubeconfig) -> String {
    format!("dp-1-{}-{}", member.id, &kubeconfig.jti()[..8])
}

/// The token must end 70 s before the member: 60 s of leeway and 10 s of cache in the API server.
#[track_caller]
fn assert_ends_in_time(kubeconfig: &Kubeconfig, member: &Value) {
    let left = time(&member["expiresAt"]) - end(kubeconfig);
    assert!(left.num_seconds() >= 70, "{left} from the token's end to the member's");
    assert!(left.num_seconds() < 600, "{left}: and not much earlier");
}

fn wait_refused(cluster: &Cluster, kubeconfigs: &[&Kubeconfig]) {
    eventually("the API server has forgotten the tokens", || {
        kubeconfigs.iter().all(|kubeconfig| !kubeconfig.is_accepted(cluster)).then_some(())
    });
}

#[test]
fn kubeconfig_holds_only_what_kubectl_needs() {
    let (cluster, daypass) = Cluster::shared();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let kubeconfig = member.kubeconfig(cluster);
    let ca = STANDARD.encode(cluster.plane.ca_pem().trim_end().to_owned() + "\n");
    let name = context_of(&member, &kubeconfig);
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": name, "cluster": {"server": cluster.plane.server_url(), "certificate-authority-data": ca},
        }],
        "users": [{"name": name, "user": {"token": kubeconfig.token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    });
    let as_yaml: Value = serde_yaml::from_str(&kubeconfig.text).unwrap();
    assert_eq!(as_yaml, expected);
    let seen = cluster.kubectl_with(&kubeconfig.file, &["config", "view", "--raw", "-o", "json"]).stdout;
    let mut seen: Value = serde_json::from_slice(&seen).unwrap();
    seen.as_object_mut().unwrap().remove("preferences");
    assert_eq!(seen, expected, "as kubectl reads it");

    let comments: Vec<&str> = kubeconfig.text.lines().take_while(|line| line.starts_with('#')).collect();
    let comments = comments.join("\n");
    let token_end = end(&kubeconfig).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let url = member.body["credentials"]["kubeconfigUrl"].as_str().unwrap();
    for said in [member.body["expiresAt"].as_str().unwrap(), &token_end, &member.id, "dp-1", url] {
        assert!(comments.contains(said), "{said} in {comments}");
    }
    assert_eq!(kubeconfig.text.matches(&kubeconfig.token).count(), 1);
    assert!(!kubeconfig.text.contains(&member.password));
}

#[test]
fn kubeconfigs_merge_beside_expired_ones() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let (ended, member) = (NewMember::new(&daypass.owner, &role, 1), NewMember::new(&daypass.owner, &role, 1));
    // One of a member that has ended, one that was revoked, and the one to use.
    let kubeconfigs = [ended.kubeconfig(cluster), member.kubeconfig(cluster), member.kubeconfig(cluster)];
    let [expired, revoked, live] = &kubeconfigs;
    ended.engineer.delete(&ended.path("/me")).expect(204);
    member.engineer.delete(&member.path(&format!("/kubeconfigs/{}", revoked.jti()))).expect(204);
    wait_refused(cluster, &[expired, revoked]);

    let merged = kubeconfigs.each_ref().map(|kubeconfig| kubeconfig.file.display().to_string()).join(":");
    let kubectl = |args: &[&str]| cluster.kubectl_with(merged.as_ref(), args);
    let listed = String::from_utf8(kubectl(&["config", "get-contexts", "-o", "name"]).stdout).unwrap();
    let contexts = [context_of(&ended, expired), context_of(&member, revoked), context_of(&member, live)];
    let listed: BTreeSet<&str> = listed.lines().collect();
    assert_eq!(listed, contexts.iter().map(String::as_str).collect());
    assert!(kubectl(&["--context", &contexts[2], "get", "pods", "-n", "default"]).status.success());
    for dead in [&[][..], &["--context", &contexts[1]]] {
        let output = kubectl(&[dead, &["get", "pods", "-n", "default"]].concat());
        assert!(String::from_utf8_lossy(&output.stderr).contains("Unauthorized"), "{dead:?}");
    }
}

#[test]
fn kubeconfig_token_ends_with_its_member_and_secret() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let (one, two) = (member.kubeconfig(cluster), member.kubeconfig(cluster));
    let status = || cluster.object(&role.namespace, "member", member.name()).unwrap()["status"].clone();
    let records = status()["kubeconfigs"].clone();
    let mut secrets = BTreeSet::new();
    for (slot, kubeconfig) in [&one, &two].into_iter().enumerate() {
        assert_ends_in_time(kubeconfig, &member.body);
        let bound = &kubeconfig.claims["kubernetes.io"];
        assert_eq!(
            (&bound["namespace"], &bound["serviceaccount"]["name"]),
            (&json!(role.namespace), &json!(member.name()))
        );
        assert!(bound.get("pod").is_none() && bound.get("node").is_none(), "{bound}");
        let name = bound["secret"]["name"].as_str().unwrap();
        let secret = cluster.object(&role.namespace, "secret", name).unwrap();
        let meta = &secret["metadata"];
        assert_eq!(meta["uid"], bound["secret"]["uid"]);
        assert_eq!((&secret["type"], secret.get("data")), (&json!("Opaque"), None));
        assert_eq!(name, format!("{}.{slot}", member.name()));
        assert_eq!(meta["labels"]["daypass.dev/member"], member.name());
        let record = &records[slot];
        assert_eq!((&record["slot"], &record["mode"]), (&json!(slot), &json!("direct")));
        assert_eq!((&record["id"], &record["secretUid"]), (&json!(kubeconfig.jti()), &meta["uid"]));
        assert_eq!((&record["from"], time(&record["tokenExpiresAt"])), (&json!("127.0.0.1"), end(kubeconfig)));
        assert!(!record.to_string().contains(&kubeconfig.token));
        let uid = cluster.uid(&role.namespace, "members.daypass.dev", member.name());
        assert_eq!(
            (&meta["labels"]["daypass.dev/member-uid"], &meta["ownerReferences"][0]["uid"]),
            (&json!(uid), &json!(uid))
        );
        secrets.insert(name.to_owned());
    }
    assert_eq!(secrets.len(), 2, "one each");
    let account = cluster.uid(&role.namespace, "serviceaccount", member.name());
    assert_eq!(status()["serviceAccountUid"], account);
    // kubectl reports the token's id, as the API server's audit log has it.
    let whoami = cluster.kubectl_with(&one.file, &["auth", "whoami", "-o", "json"]).stdout;
    let whoami: Value = serde_json::from_slice(&whoami).unwrap();
    let credential = &whoami["status"]["userInfo"]["extra"]["authentication.kubernetes.io/credential-id"];
    assert_eq!(*credential, json!([format!("JTI={}", one.jti())]));

    let by_owner = daypass.owner.get(&member.path("/kubeconfigs")).expect(200).json();
    assert_eq!(by_owner, member.engineer.get(&member.path("/kubeconfigs")).expect(200).json());
    for (item, kubeconfig) in by_owner["items"].as_array().unwrap().iter().zip([&one, &two]) {
        assert_eq!((&item["jti"], time(&item["expiresAt"])), (&json!(kubeconfig.jti()), end(kubeconfig)));
        assert_eq!(item["from"], "127.0.0.1");
        assert!(
            time(&item["issuedAt"]) >= time(&member.body["createdAt"]) && time(&item["issuedAt"]) < end(kubeconfig)
        );
    }
    for kubeconfig in [&one, &two] {
        let issued = daypass.audit(&member.id).into_iter().filter(|event| event["jti"] == kubeconfig.jti());
        assert_eq!(issued.map(|event| event["event"].clone()).collect::<Vec<_>>(), ["KUBECONFIG_ISSUED"]);
    }
}

#[test]
fn revoking_one_kubeconfig_keeps_the_others() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let (member, other) = (NewMember::new(&daypass.owner, &role, 1), NewMember::new(&daypass.owner, &role, 1));
    let [one, two, three] = [(); 3].map(|()| member.kubeconfig(cluster));
    let foreign = other.kubeconfig(cluster);
    for kubeconfig in [&one, &two, &three, &foreign] {
        assert!(kubeconfig.is_accepted(cluster));
    }
    let path = |kubeconfig: &Kubeconfig| member.path(&format!("/kubeconfigs/{}", kubeconfig.jti()));
    daypass.owner.delete(&path(&one)).expect(204);
    member.engineer.delete(&path(&two)).expect(204);
    for client in [&daypass.owner, &member.engineer] {
        assert_eq!(member.listed(client), [three.jti()]);
        client.delete(&path(&one)).problem(404, "DP_ERR_NOT_FOUND");
        client.delete(&path(&foreign)).problem(404, "DP_ERR_NOT_FOUND");
        client.delete(&member.path("/kubeconfigs/x,y")).problem(404, "DP_ERR_NOT_FOUND");
    }
    wait_refused(cluster, &[&one, &two]);
    assert!(three.is_accepted(cluster) && foreign.is_accepted(cluster));
    let revoked: Vec<Value> = daypass.audit(&member.id);
    let revoked = revoked.iter().filter(|event| event["event"] == "KUBECONFIG_REVOKED");
    let revoked: Vec<_> = revoked.map(|event| (&event["jti"], &event["actor"]["type"])).collect();
    assert_eq!(revoked, [(&json!(one.jti()), &json!("CALLER")), (&json!(two.jti()), &json!("MEMBER"))]);
}

#[test]
fn ten_of_fifteen_concurrent_kubeconfigs_are_issued() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let get = || member.engineer.get(&member.path("/kubeconfig"));
    let answers = thread::scope(|scope| {
        let threads = [(); 15].map(|()| scope.spawn(get));
        threads.map(|thread| thread.join().unwrap())
    });
    let (issued, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    refused.iter().for_each(|answer| drop(answer.problem(409, "DP_ERR_TOO_MANY_KUBECONFIGS")));
    let jtis: BTreeSet<String> =
        issued.iter().map(|answer| Kubeconfig::new(cluster, answer).jti().to_owned()).collect();
    assert_eq!((jtis.len(), issued.len()), (10, 10));
    assert_eq!(member.listed(&daypass.owner).into_iter().collect::<BTreeSet<_>>(), jtis);
    assert_eq!(cluster.names(&role.namespace, "secrets").len(), 10);

    get().problem(409, "DP_ERR_TOO_MANY_KUBECONFIGS");
    member.engineer.delete(&member.path(&format!("/kubeconfigs/{}", jtis.first().unwrap()))).expect(204);
    get().expect(200);
    get().problem(409, "DP_ERR_TOO_MANY_KUBECONFIGS");
}

#[test]
fn kubeconfig_without_its_secret_is_no_longer_listed() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let (one, two) = (member.kubeconfig(cluster), member.kubeconfig(cluster));
    cluster.kubectl(&["delete", "secret", &format!("{}.0", member.name()), "-n", &role.namespace]);
    wait_refused(cluster, &[&one]);
    // The next one takes another slot: the record still holds this one.
    let three = member.kubeconfig(cluster);
    assert_eq!(three.claims["kubernetes.io"]["secret"]["name"], format!("{}.2", member.name()));
    // It may be of a Secret that is still being created.
    let records = cluster.object(&role.namespace, "member", member.name()).unwrap()["status"]["kubeconfigs"].clone();
    let first = records.as_array().unwrap().iter().find(|record| record["slot"] == 0).unwrap();
    wait_until(time(&first["issuedAt"]) + TimeDelta::minutes(2));
    eventually("the sweep has taken the record out", || {
        (member.listed(&daypass.owner) == [two.jti(), three.jti()]).then_some(())
    });
    assert!(two.is_accepted(cluster) && three.is_accepted(cluster));
    let four = member.kubeconfig(cluster);
    assert_eq!(four.claims["kubernetes.io"]["secret"]["name"], format!("{}.0", member.name()));
}

#[test]
fn member_close_to_its_end_gets_no_kubeconfig() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    // A TokenRequest lasts at least 600 s, and must end 70 s before the member.
    let member = NewMember::applied(cluster, daypass, &role, "short", &json!({"duration": "600s"}));
    let problem = member.engineer.get(&member.path("/kubeconfig")).problem(409, "DP_ERR_MEMBERSHIP_TOO_SHORT");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("600 seconds") && detail.contains("70 seconds"), "{detail}");
    assert_eq!(cluster.names(&role.namespace, "secrets"), [""; 0]);
    assert_eq!(member.engineer.get(&member.path("/me")).expect(200).json()["id"], member.id);
    daypass.owner.patch(&member.path(""), &json!({"duration": "1"})).expect(200);
    assert!(member.kubeconfig(cluster).is_accepted(cluster));
}

#[test]
fn new_credential_revokes_the_old_one_and_its_kubeconfigs() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let old = [member.kubeconfig(cluster), member.kubeconfig(cluster)];
    assert!(old.iter().all(|kubeconfig| kubeconfig.is_accepted(cluster)));

    let answer = daypass.owner.post(&member.path("/credentials"), &json!({})).expect(201);
    assert_eq!(answer.header("cache-control"), "no-store");
    let credentials = answer.json();
    assert_eq!((&credentials["username"], credentials["password"] == *member.password), (&json!(member.id), false));
    let engineer = daypass.owner.with_basic(&member.id, credentials["password"].as_str().unwrap());
    assert_eq!(member.listed(&engineer), [""; 0]);
    for path in ["/me", "/kubeconfig", "/kubeconfigs"] {
        member.engineer.get(&member.path(path)).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    assert_eq!(cluster.names(&role.namespace, "secrets"), [""; 0]);
    let new = Kubeconfig::new(cluster, &engineer.get(&member.path("/kubeconfig")).expect(200));
    assert!(new.is_accepted(cluster));
    wait_refused(cluster, &[&old[0], &old[1]]);
    assert!(new.is_accepted(cluster));
    let after = daypass.owner.get(&member.path("")).expect(200).json();
    assert_eq!(after["expiresAt"], member.body["expiresAt"], "it is no extension");
    let expected =
        ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "KUBECONFIG_ISSUED", "CREDENTIAL_ISSUED", "KUBECONFIG_ISSUED"];
    assert_eq!(daypass.event_kinds(&member.id), expected);
}

#[test]
fn shortening_revokes_kubeconfigs_that_would_outlive_it() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let short = member.kubeconfig(cluster);
    let patch = |hours: u8| daypass.owner.patch(&member.path(""), &json!({"duration": hours})).expect(200).json();
    let extended = patch(8);
    assert_eq!((time(&extended["expiresAt"]) - time(&extended["createdAt"])).num_hours(), 8);
    let long = member.kubeconfig(cluster);
    assert_ends_in_time(&long, &extended);
    assert_eq!(member.listed(&daypass.owner), [short.jti(), long.jti()], "an extension revokes nothing");
    assert!(short.is_accepted(cluster) && long.is_accepted(cluster));

    let shortened = patch(2);
    // At once, before the controller acts.
    assert_eq!(member.listed(&daypass.owner), [short.jti()]);
    let kept = short.claims["kubernetes.io"]["secret"]["name"].as_str().unwrap();
    assert_eq!(cluster.names(&role.namespace, "secrets"), [kept]);
    let new = member.kubeconfig(cluster);
    assert_ends_in_time(&new, &shortened);
    wait_refused(cluster, &[&long]);
    assert!(short.is_accepted(cluster) && new.is_accepted(cluster));
}

#[test]
fn change_during_issuance_revokes_the_kubeconfig() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 8);
    for hours in [4_u8, 1] {
        let issued = thread::scope(|scope| {
            let issuing = [(); 4].map(|()| scope.spawn(|| member.engineer.get(&member.path("/kubeconfig"))));
            daypass.owner.patch(&member.path(""), &json!({"duration": hours})).expect(200);
            issuing.map(|thread| thread.join().unwrap())
        });
        let end = time(&daypass.owner.get(&member.path("")).expect(200).json()["expiresAt"]);
        let list = daypass.owner.get(&member.path("/kubeconfigs")).expect(200).json();
        for item in list["items"].as_array().unwrap() {
            assert!((end - time(&item["expiresAt"])).num_seconds() >= 70, "{item} of a member until {end}");
        }
        for answer in issued {
            // An answered kubeconfig is listed or has been revoked since; one that was not answered does not exist.
            match answer.status {
                200 => assert_ends_or_gone(&Kubeconfig::new(cluster, &answer), end, &list),
                _ => drop(answer.problem(409, "DP_ERR_CONFLICT")),
            }
        }
        for item in list["items"].as_array().unwrap() {
            daypass.owner.delete(&member.path(&format!("/kubeconfigs/{}", item["jti"].as_str().unwrap()))).expect(204);
        }
        assert_eq!(cluster.names(&role.namespace, "secrets"), [""; 0], "every issued kubeconfig is listed");
    }
}

#[track_caller]
fn assert_ends_or_gone(kubeconfig: &Kubeconfig, member_end: DateTime<Utc>, list: &Value) {
    let in_time = (member_end - end(kubeconfig)).num_seconds() >= 70;
    let listed = list["items"].as_array().unwrap().iter().any(|item| item["jti"] == kubeconfig.jti());
    assert_eq!(in_time, listed);
}
