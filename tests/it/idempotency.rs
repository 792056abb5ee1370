//! The same request again, and many at the same time.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use crate::support::{Answer, Created, Http, Lab, Role, eventually, time};

fn create(client: &Http, role: &Role, key: &str) -> Answer {
    let body = json!({"duration": "1", "roleId": role.id});
    Answer::of(client.request("POST", "/members").header("Idempotency-Key", key).json(&body))
}

fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// All at the same time, as far as the machine can.
fn at_once<const N: usize>(call: impl Fn(usize) -> Answer + Sync) -> [Answer; N] {
    let call = &call;
    thread::scope(|scope| {
        let threads: [_; N] = std::array::from_fn(|n| scope.spawn(move || call(n)));
        threads.map(|thread| thread.join().unwrap())
    })
}

#[test]
fn a_repeat_is_told_where_the_member_is_and_creates_nothing() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
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
    assert_eq!(lab.names(&role.namespace, "members.daypass.dev").len(), 1);
    let engineer = daypass.owner.with_basic(&id(&first), first.json()["credentials"]["password"].as_str().unwrap());
    engineer.get(&format!("/members/{}/me", id(&first))).expect(200);
    assert_eq!(daypass.kinds(&id(&first)), ["MEMBER_CREATED"]);
}

#[test]
fn of_ten_with_one_key_at_once_exactly_one_creates() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let answers = at_once::<10>(|_| create(&daypass.owner, &role, "key"));
    let (created, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    let [created] = created[..] else { panic!("{created:?}") };
    for answer in refused {
        answer.problem(409, "DP_ERR_IDEMPOTENCY_KEY_REUSED");
        assert_eq!(answer.header("location"), created.header("location"));
    }
    for kind in ["members.daypass.dev", "serviceaccounts"] {
        assert_eq!(lab.names(&role.namespace, kind), [id(created).split_once('.').unwrap().1], "{kind}");
    }
    let engineer = daypass.owner.with_basic(&id(created), created.json()["credentials"]["password"].as_str().unwrap());
    engineer.get(&format!("/members/{}/me", id(created))).expect(200);
}

#[test]
fn a_key_is_one_callers_in_one_role() {
    let (lab, daypass) = Lab::shared();
    let (role, other_role) = (lab.reader(), lab.reader());
    let other_caller = lab.caller(daypass, &["create"], &["members"], Some(&role));
    let created = [
        create(&daypass.owner, &role, "key"),
        create(&other_caller, &role, "key"),
        create(&daypass.owner, &other_role, "key"),
        create(&daypass.owner, &role, "another key"),
    ];
    let ids: BTreeSet<String> = created.map(|answer| id(&answer.expect(201))).into();
    assert_eq!(ids.len(), 4, "{ids:?}");
}

#[test]
fn a_key_creates_anew_once_its_member_has_ended() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let mut credentials = Vec::new();
    for _ in 0..3 {
        let created = create(&daypass.owner, &role, "key").expect(201);
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
fn creations_without_a_key_at_once_are_all_members() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let body = json!({"duration": "1", "roleId": role.id});
    let ids: BTreeSet<String> =
        at_once::<10>(|_| daypass.owner.post("/members", &body).expect(201)).iter().map(id).collect();
    let listed = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
    let listed: BTreeSet<String> =
        listed["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((ids.len(), ids), (10, listed));
}

#[test]
fn of_changes_at_once_the_last_one_stands() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let created = daypass.owner.post("/members", &json!({"duration": "1", "roleId": role.id})).expect(201);
    let path = format!("/members/{}", id(&created));
    let answers = at_once::<8>(|n| daypass.owner.patch(&path, &json!({"duration": n + 2})));
    let mut answered = BTreeSet::new();
    for (n, answer) in answers.iter().enumerate() {
        match answer.status {
            200 => drop(answered.insert(i64::try_from(n + 2).unwrap() * 3600)),
            // Too many at once: said, and not done.
            _ => drop(answer.problem(409, "DP_ERR_CONFLICT")),
        }
    }
    assert!(!answered.is_empty());
    let now = daypass.owner.get(&path).expect(200).json();
    assert!(answered.contains(&now["durationSeconds"].as_i64().unwrap()), "{now} of {answered:?}");
    eventually("the status says so too", || {
        let name = id(&created).split_once('.').unwrap().1.to_owned();
        let member = lab.object(&role.namespace, "members.daypass.dev", &name).unwrap();
        (time(&member["status"]["expiresAt"]) == time(&now["expiresAt"])).then_some(())
    });
}

#[test]
fn of_deletions_at_once_one_is_recorded_and_none_fails() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let created = daypass.owner.post("/members", &json!({"duration": "1", "roleId": role.id})).expect(201);
    let path = format!("/members/{}", id(&created));
    for answer in at_once::<8>(|_| daypass.owner.delete(&path)) {
        assert!([204, 404].contains(&answer.status), "{}", answer.text);
    }
    daypass.owner.get(&path).problem(404, "DP_ERR_NOT_FOUND");
    for kind in ["members.daypass.dev", "serviceaccounts"] {
        assert_eq!(lab.names(&role.namespace, kind), [""; 0], "{kind}");
    }
    let ends: Vec<Value> =
        daypass.audit(&id(&created)).into_iter().filter(|event| event["event"] == "REVOKED").collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
}

#[test]
fn of_credentials_issued_at_once_one_works() {
    let (lab, daypass) = Lab::shared();
    let created = daypass.owner.post("/members", &json!({"duration": "1", "roleId": lab.reader().id})).expect(201);
    let id = id(&created);
    let answers = at_once::<8>(|_| daypass.owner.post(&format!("/members/{id}/credentials"), &json!({})));
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
fn changing_a_member_takes_nothing_of_the_quota() {
    let (lab, daypass) = Lab::shared();
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    // Three service accounts, then: `default`, the member's, and one to spare.
    let role = lab.role_of(&json!({"description": "A test's", "rules": rules, "maxMembers": 1}));
    let member = Created::new(&daypass.owner, &role, 1);
    for change in 0..12 {
        daypass.owner.patch(&member.path(""), &json!({"duration": 2 + change % 2})).expect(200);
        daypass.owner.post(&member.path("/credentials"), &json!({})).expect(201);
    }
}
