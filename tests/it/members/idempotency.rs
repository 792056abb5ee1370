//! Repeated and concurrent requests. Tests share a caller, so each takes a role's id as its key.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use crate::support::{Answer, Cluster, Http, NewMember, Role, eventually, time};

fn create(client: &Http, role: &Role, key: &str) -> Answer {
    let body = json!({"duration": "1", "roleId": role.id});
    Answer::of(client.request("POST", "/members").header("Idempotency-Key", key).json(&body))
}

fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Calls N times concurrently.
fn concurrently<const N: usize>(call: impl Fn(usize) -> Answer + Sync) -> [Answer; N] {
    let call = &call;
    thread::scope(|scope| {
        let threads: [_; N] = std::array::from_fn(|n| scope.spawn(move || call(n)));
        threads.map(|thread| thread.join().unwrap())
    })
}

#[test]
fn repeated_key_names_the_member_and_creates_nothing() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let first = create(&daypass.owner, &role, "case 0815").expect(201);
    let url = format!("{}/processing/data-planes/dp-1/members/{}", daypass.url, id(&first));
    assert_eq!(first.header("location"), url);
    for _ in 0..2 {
        let repeat = create(&daypass.owner, &role, "case 0815");
        repeat.problem(409, "DP_ERR_IDEMPOTENCY_KEY_REUSED");
        assert_eq!(repeat.header("location"), url);
        assert!(!repeat.text.contains("dpm_"), "{}", repeat.text);
    }
    assert_eq!(daypass.owner.get(&url).expect(200).json()["id"], id(&first));
    assert_eq!(cluster.names(&role.namespace, "members.daypass.dev").len(), 1);
    let engineer = daypass.owner.with_basic(&id(&first), first.json()["credentials"]["password"].as_str().unwrap());
    engineer.get(&format!("/members/{}/me", id(&first))).expect(200);
    assert_eq!(daypass.event_kinds(&id(&first)), ["MEMBER_CREATED"]);
}

#[test]
fn key_of_a_member_in_another_role_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let (role, other) = (cluster.reader(), cluster.reader());
    let first = create(&daypass.owner, &role, "one key").expect(201);
    create(&daypass.owner, &other, "one key").problem(422, "DP_ERR_IDEMPOTENCY_KEY_MISMATCH");
    assert_eq!(cluster.names(&other.namespace, "members.daypass.dev").len(), 0);
    daypass.owner.delete(&format!("/members/{}", id(&first))).expect(204);
    create(&daypass.owner, &other, "one key").expect(201);
}

#[test]
fn repeated_key_with_another_body_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let ask = |body: Value| {
        let request = daypass.owner.request("POST", "/members").header("Idempotency-Key", &role.id);
        Answer::of(request.json(&body))
    };
    let created = ask(json!({"duration": 2, "roleId": role.id, "username": "ann"})).expect(201);
    // The same in another notation, also after a change of the member.
    daypass.owner.patch(&format!("/members/{}", id(&created)), &json!({"duration": 3})).expect(200);
    for body in [
        json!({"duration": "2", "username": "ann", "roleId": role.id}),
        json!({"duration": 2.0, "roleId": role.id, "username": "ann", "description": null}),
    ] {
        let repeat = ask(body);
        repeat.problem(409, "DP_ERR_IDEMPOTENCY_KEY_REUSED");
        assert_eq!(repeat.header("location"), created.header("location"));
    }
    for body in [
        json!({"duration": 3, "roleId": role.id, "username": "ann"}),
        json!({"duration": 2, "roleId": role.id, "username": "bob"}),
        json!({"duration": 2, "roleId": role.id}),
        json!({"duration": 2, "roleId": role.id, "username": "ann", "description": ""}),
        json!({"duration": 2, "roleId": role.id, "description": "ann"}),
    ] {
        let refused = ask(body.clone());
        refused.problem(422, "DP_ERR_IDEMPOTENCY_KEY_MISMATCH");
        assert_eq!(refused.header("location"), "", "{body}");
    }
    let name = cluster.names(&role.namespace, "members.daypass.dev");
    assert_eq!(name.len(), 1);
    // A member of an earlier version.
    let member = json!({"metadata": {"annotations": {"daypass.dev/request-hash": null}}});
    cluster.patch(&role.namespace, "members.daypass.dev", &name[0], &member);
    ask(json!({"duration": 4, "roleId": role.id})).problem(409, "DP_ERR_IDEMPOTENCY_KEY_REUSED");
    daypass.owner.delete(&format!("/members/{}", id(&created))).expect(204);
    ask(json!({"duration": 4, "roleId": role.id})).expect(201);
}

#[test]
fn concurrent_requests_with_one_key_and_other_bodies_create_one_member() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let answers = concurrently::<10>(|n| {
        let request = daypass.owner.request("POST", "/members").header("Idempotency-Key", &role.id);
        Answer::of(request.json(&json!({"duration": n + 1, "roleId": role.id})))
    });
    let (created, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(created.len(), 1);
    for answer in refused {
        answer.problem(422, "DP_ERR_IDEMPOTENCY_KEY_MISMATCH");
    }
}

#[test]
fn ten_concurrent_requests_with_one_key_create_one_member() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let answers = concurrently::<10>(|_| create(&daypass.owner, &role, &role.id));
    let (created, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    let [created] = created[..] else { panic!("{created:?}") };
    for answer in refused {
        answer.problem(409, "DP_ERR_IDEMPOTENCY_KEY_REUSED");
        assert_eq!(answer.header("location"), created.header("location"));
    }
    for kind in ["members.daypass.dev", "serviceaccounts"] {
        assert_eq!(cluster.names(&role.namespace, kind), [id(created).split_once('.').unwrap().1], "{kind}");
    }
    let engineer = daypass.owner.with_basic(&id(created), created.json()["credentials"]["password"].as_str().unwrap());
    engineer.get(&format!("/members/{}/me", id(created))).expect(200);
}

#[test]
fn key_belongs_to_one_caller() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let other_caller = cluster.caller(daypass, &["create"], &["members"], Some(&role));
    let created = [
        create(&daypass.owner, &role, &role.id),
        create(&other_caller, &role, &role.id),
        create(&daypass.owner, &role, &format!("another of {}", role.id)),
    ];
    let ids: BTreeSet<String> = created.map(|answer| id(&answer.expect(201))).into();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[test]
fn key_of_an_ended_member_creates_a_new_one() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let mut credentials = Vec::new();
    for _ in 0..3 {
        let created = create(&daypass.owner, &role, &role.id).expect(201);
        let path = format!("/members/{}", id(&created));
        let engineer =
            daypass.owner.with_basic(&id(&created), created.json()["credentials"]["password"].as_str().unwrap());
        engineer.get(&format!("{path}/me")).expect(200);
        for earlier in &credentials {
            Http::get(earlier, &format!("{path}/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
        credentials.push(engineer);
        daypass.owner.delete(&path).expect(204);
    }
}

#[test]
fn concurrent_creations_without_key_all_create() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let body = json!({"duration": "1", "roleId": role.id});
    let ids: BTreeSet<String> =
        concurrently::<10>(|_| daypass.owner.post("/members", &body).expect(201)).iter().map(id).collect();
    let listed = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    let listed: BTreeSet<String> =
        listed["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((ids.len(), ids), (10, listed));
}

#[test]
fn last_of_concurrent_changes_wins() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let created = daypass.owner.post("/members", &json!({"duration": "1", "roleId": role.id})).expect(201);
    let path = format!("/members/{}", id(&created));
    let answers = concurrently::<8>(|n| daypass.owner.patch(&path, &json!({"duration": n + 2})));
    let mut answered = BTreeSet::new();
    for (n, answer) in answers.iter().enumerate() {
        match answer.status {
            200 => drop(answered.insert(i64::try_from(n + 2).unwrap() * 3600)),
            // Refused because of too many concurrent changes.
            _ => drop(answer.problem(409, "DP_ERR_CONFLICT")),
        }
    }
    assert!(!answered.is_empty());
    let now = daypass.owner.get(&path).expect(200).json();
    assert!(answered.contains(&now["durationSeconds"].as_i64().unwrap()), "{now} of {answered:?}");
    eventually("the status has the end", || {
        let name = id(&created).split_once('.').unwrap().1.to_owned();
        let member = cluster.object(&role.namespace, "members.daypass.dev", &name).unwrap();
        (time(&member["status"]["expiresAt"]) == time(&now["expiresAt"])).then_some(())
    });
}

#[test]
fn concurrent_deletions_succeed_and_one_is_audited() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let created = daypass.owner.post("/members", &json!({"duration": "1", "roleId": role.id})).expect(201);
    let path = format!("/members/{}", id(&created));
    let mut deleted = 0;
    for answer in concurrently::<8>(|_| daypass.owner.delete(&path)) {
        match answer.status {
            204 => deleted += 1,
            _ => drop(answer.problem(404, "DP_ERR_NOT_FOUND")),
        }
    }
    assert!(deleted > 0);
    daypass.owner.get(&path).problem(404, "DP_ERR_NOT_FOUND");
    for kind in ["members.daypass.dev", "serviceaccounts"] {
        assert_eq!(cluster.names(&role.namespace, kind), [""; 0], "{kind}");
    }
    let ends: Vec<Value> =
        daypass.audit(&id(&created)).into_iter().filter(|event| event["event"] == "REVOKED").collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
}

#[test]
fn one_of_concurrently_issued_credentials_works() {
    let (cluster, daypass) = Cluster::shared();
    let created = daypass.owner.post("/members", &json!({"duration": "1", "roleId": cluster.reader().id})).expect(201);
    let id = id(&created);
    let answers = concurrently::<8>(|_| daypass.owner.post(&format!("/members/{id}/credentials"), &json!({})));
    let mut passwords = vec![created.json()["credentials"]["password"].clone()];
    for answer in &answers {
        match answer.status {
            201 => passwords.push(answer.json()["password"].clone()),
            _ => drop(answer.problem(409, "DP_ERR_CONFLICT")),
        }
    }
    let works = |password: &&Value| {
        let answer = daypass.owner.with_basic(&id, password.as_str().unwrap()).get(&format!("/members/{id}/me"));
        assert!([200, 401].contains(&answer.status), "{}", answer.text);
        answer.status == 200
    };
    assert_eq!(passwords.iter().filter(works).count(), 1, "of {}", passwords.len());
    assert!(!works(&&passwords[0]), "the first one is replaced");
}

#[test]
fn changing_a_member_uses_no_quota() {
    let (cluster, daypass) = Cluster::shared();
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    // The quota allows three service accounts: `default`, the member's, and one spare.
    let role = cluster.role_of(&json!({"description": "A test's", "rules": rules, "maxMembers": 1}));
    let member = NewMember::new(&daypass.owner, &role, 1);
    for change in 0..12 {
        daypass.owner.patch(&member.path(""), &json!({"duration": 2 + change % 2})).expect(200);
        daypass.owner.post(&member.path("/credentials"), &json!({})).expect(201);
    }
}
