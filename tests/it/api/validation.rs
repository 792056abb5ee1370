//! Invalid requests get a clear answer and change nothing.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::blocking::Body;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use crate::support::{Answer, Cluster, Curl, Daypass, Http, NewMember, Role, eventually, time};

/// Sends a raw body.
fn send(client: &Http, method: &str, path: &str, body: impl Into<Body>) -> Answer {
    Answer::of(client.request(method, path).header(CONTENT_TYPE, "application/json").body(body))
}

fn seconds(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn assert_nothing_in(cluster: &Cluster, role: &Role) {
    for kind in ["members.daypass.dev", "serviceaccounts", "secrets"] {
        assert_eq!(cluster.names(&role.namespace, kind), [""; 0], "{kind}");
    }
}

#[test]
fn invalid_field_is_named_and_nothing_is_created() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let long = "a".repeat(10_000);
    let with_duration = |value: &str| format!(r#"{{"duration":{value},"roleId":"{}"}}"#, role.id);
    let with = |field: &str| format!(r#"{{"duration":"1","roleId":"{}",{field}}}"#, role.id);
    let mut bad: Vec<(String, &str)> = Vec::new();
    for value in [
        r#""49""#,
        r#""0""#,
        r#""-1""#,
        r#""+1""#,
        r#""1.5""#,
        r#""abc""#,
        r#""1e3""#,
        r#""""#,
        r#"" 1""#,
        r#""1h""#,
        r#""0x1""#,
        r#""１""#,
        r#""99999999999999999999""#,
        "49",
        "0",
        "-1",
        "1.5",
        "1e3",
        "99999999999999999999",
        "null",
        "true",
        "[1]",
        "{}",
    ] {
        bad.push((with_duration(value), "duration"));
    }
    bad.push((format!(r#"{{"roleId":"{}"}}"#, role.id), "duration"));
    bad.push((r#"{"duration":"1"}"#.to_owned(), "roleId"));
    for value in [r#""nowhere""#, r#""""#, r#""Not a role""#, r#""../default""#, "null", "7", "{}"] {
        bad.push((format!(r#"{{"duration":"1","roleId":{value}}}"#), "roleId"));
    }
    bad.push((format!(r#"{{"duration":"1","roleId":"{long}"}}"#), "roleId"));
    for field in ["username", "description"] {
        for value in [r#""a\u0007""#, r#""a\nb""#, r#""\u001b[2J""#, r#""a\u0085b""#, r#""a\u0000""#, "7", "[]", "{}"]
        {
            bad.push((with(&format!(r#""{field}":{value}"#)), field));
        }
        bad.push((with(&format!(r#""{field}":"{long}""#)), field));
    }
    bad.push((with(r#""username":"Ada\u202egnp""#), "username"));
    bad.push((with(&format!(r#""username":"{}""#, "ü".repeat(256))), "username"));
    bad.push((with(&format!(r#""description":"{}""#, "ü".repeat(1025))), "description"));
    for (field, value) in
        [("owner", "\"me\""), ("createdBy", "\"me\""), ("notAfter", "null"), ("Duration", "1"), ("", "1")]
    {
        bad.push((with(&format!(r#""{field}":{value}"#)), field));
    }
    for (field, value) in [("duration", "\"2\""), ("roleId", "\"x\"")] {
        bad.push((with(&format!(r#""{field}":{value}"#)), field));
    }
    bad.push((with(r#""username":"a","username":"b""#), "username"));
    bad.push((with(r#""description":"a","description":null"#), "description"));
    for (body, field) in &bad {
        let answer = send(&daypass.owner, "POST", "/members", body.clone());
        assert_eq!(answer.status, 400, "{} for {}", answer.text, &body[..body.len().min(200)]);
        answer.assert_invalid_field(field);
        assert!(answer.text.len() < 1000, "no echo of what was sent: {}", answer.text);
    }
    assert_nothing_in(cluster, &role);
}

#[test]
fn body_other_than_json_object_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let good = json!({"duration": "1", "roleId": role.id}).to_string();
    let truncated = &good[..good.len() - 1];
    for body in ["", "{", truncated, "nonsense", "\u{feff}{", &format!("{good} x"), &format!("{good}{good}")] {
        let problem = send(&daypass.owner, "POST", "/members", body.to_owned()).problem(400, "DP_ERR_MALFORMED_BODY");
        assert!(problem["detail"].as_str().unwrap().starts_with("line "), "{problem}");
    }
    let latin = send(&daypass.owner, "POST", "/members", b"{\"username\":\"Zo\xeb\"}".to_vec());
    assert_eq!(latin.problem(400, "DP_ERR_MALFORMED_BODY")["detail"], "the body must be UTF-8");
    // serde reads an array as the fields in their order.
    let fields = json!(["1", role.id, "description", "username"]).to_string();
    for body in ["null", "7", "[]", "\"x\"", "true", &fields, &"[".repeat(10_000)] {
        let problem = send(&daypass.owner, "POST", "/members", body.to_owned()).problem(400, "DP_ERR_VALIDATION");
        assert_eq!(problem["detail"], "the body must be a JSON object");
    }
    for content_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "text/json",
        "application/problem+json",
    ] {
        let mut request = daypass.owner.request("POST", "/members").body(good.clone());
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        Answer::of(request).problem(415, "DP_ERR_UNSUPPORTED_MEDIA_TYPE");
    }
    assert_nothing_in(cluster, &role);
    let request =
        daypass.owner.request("POST", "/members").header(CONTENT_TYPE, "Application/JSON; charset=UTF-8").body(good);
    Answer::of(request).expect(201);
}

#[test]
fn body_of_two_megabytes_is_too_large() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let body = json!({"duration": "1", "roleId": role.id, "description": "a".repeat(2 << 20)}).to_string();
    send(&daypass.owner, "POST", "/members", body.clone()).problem(413, "DP_ERR_BODY_TOO_LARGE");
    send(&daypass.owner.anonymous(), "POST", "/members", body.clone()).problem(401, "DP_ERR_NO_CREDENTIALS");
    // Clients that are still sending get the answer too, with and without a Content-Length.
    let file = cluster.save(&body);
    let authorization = format!("Authorization: Bearer {}", cluster.token("default", "owner", "daypass"));
    for version in ["http1.1", "http2"] {
        for length in ["Expect:", "Transfer-Encoding: chunked"] {
            for _ in 0..3 {
                let curl =
                    Curl::new(cluster, daypass, "/members").with("data-binary", &format!("@{}", file.display()));
                let headers = [&authorization, "Content-Type: application/json", "Expect:", length];
                let curl = headers.iter().fold(curl, |curl, header| curl.with("header", header));
                let (status, text) = curl.with(version, "").send();
                assert!(
                    status == 413 && text.contains("DP_ERR_BODY_TOO_LARGE"),
                    "{version} {length}: {status} {text}"
                );
                let stranger =
                    Curl::new(cluster, daypass, "/members").with("data-binary", &format!("@{}", file.display()));
                assert_eq!(stranger.with("header", length).with(version, "").send().0, 401);
            }
        }
    }
    assert_nothing_in(cluster, &role);
}

#[test]
fn idempotency_key_is_one_short_visible_text() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let request = || daypass.owner.request("POST", "/members").json(&json!({"duration": "1", "roleId": role.id}));
    let key = |bytes: &[u8]| HeaderValue::from_bytes(bytes).unwrap();
    for bad in [&b""[..], &[b'a'; 256], b"caf\xc3\xa9", b"a\tb"] {
        Answer::of(request().header("Idempotency-Key", key(bad))).assert_invalid_field("Idempotency-Key");
    }
    let twice = request().header("Idempotency-Key", "a").header("Idempotency-Key", "b");
    Answer::of(twice).assert_invalid_field("Idempotency-Key");
    assert_nothing_in(cluster, &role);
    Answer::of(request().header("Idempotency-Key", key(&[b'a'; 255]))).expect(201);
}

#[test]
fn longest_and_shortest_values_are_kept_as_given() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let (username, description) = ("ü".repeat(255), "🙂".repeat(1024));
    for (duration, hours) in [(json!("1"), 1), (json!(1), 1), (json!("48"), 48), (json!(48), 48)] {
        let body = json!({"duration": duration, "roleId": role.id, "username": username, "description": description});
        let member = daypass.owner.post("/members", &body).expect(201).json();
        assert_eq!((&member["username"], &member["description"]), (&json!(username), &json!(description)));
        assert_eq!(member["durationSeconds"], hours * 3600);
        assert_eq!(time(&member["expiresAt"]) - time(&member["createdAt"]), TimeDelta::hours(hours));
        assert!((1..=hours * 3600).contains(&member["secondsLeft"].as_i64().unwrap()));
    }
    let bare = daypass
        .owner
        .post("/members", &json!({"duration": 1, "roleId": role.id, "username": null}))
        .expect(201)
        .json();
    let fields: Vec<&String> = bare.as_object().unwrap().keys().collect();
    let expected = [
        "createdAt",
        "createdBy",
        "credentialUsed",
        "credentials",
        "durationSeconds",
        "expiresAt",
        "id",
        "kubeconfigs",
        "roleId",
        "secondsLeft",
        "status",
    ];
    assert_eq!(fields, expected, "nothing is null");
}

#[test]
fn invalid_change_changes_nothing() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 2);
    let created = time(&member.body["createdAt"]);
    let after = |delta: TimeDelta| seconds(created + delta);
    let both = json!({"duration": "4", "expiresAt": after(TimeDelta::hours(4))}).to_string();
    let expires = |text: &str| json!({"expiresAt": text}).to_string();
    for (body, field) in [
        (both, "expiresAt"),
        ("{}".to_owned(), "duration"),
        (r#"{"duration":null}"#.to_owned(), "duration"),
        (r#"{"expiresAt":null}"#.to_owned(), "expiresAt"),
        (r#"{"duration":"1","expiresAt":null}"#.to_owned(), "expiresAt"),
        (r#"{"duration":"49"}"#.to_owned(), "duration"),
        (r#"{"duration":"0"}"#.to_owned(), "duration"),
        (r#"{"duration":1.5}"#.to_owned(), "duration"),
        (r#"{"duration":"1","duration":"2"}"#.to_owned(), "duration"),
        (r#"{"roleId":"x"}"#.to_owned(), "roleId"),
        (r#"{"expiresAt":7}"#.to_owned(), "expiresAt"),
        (expires("tomorrow"), "expiresAt"),
        (expires("2030-01-01"), "expiresAt"),
        (expires("2030-01-01T00:00:00"), "expiresAt"),
        (expires(&after(TimeDelta::zero())), "expiresAt"),
        (expires(&after(TimeDelta::seconds(-1))), "expiresAt"),
        (expires("0000-01-01T00:00:00Z"), "expiresAt"),
        (expires("9999-12-31T23:59:59Z"), "expiresAt"),
        (expires(&after(TimeDelta::seconds(48 * 3600 + 1))), "expiresAt"),
        (expires(&after(TimeDelta::days(365))), "expiresAt"),
    ] {
        let answer = send(&daypass.owner, "PATCH", &member.path(""), body.clone());
        assert_eq!(answer.status, 400, "{} for {body}", answer.text);
        answer.assert_invalid_field(field);
    }
    let past = daypass.owner.patch(&member.path(""), &json!({"expiresAt": after(TimeDelta::seconds(-1))})).json();
    assert!(past["detail"].as_str().unwrap().contains("DELETE"), "{past}");
    send(&daypass.owner, "PATCH", &member.path(""), "{").problem(400, "DP_ERR_MALFORMED_BODY");
    let text = daypass.owner.request("PATCH", &member.path("")).body(r#"{"duration":"1"}"#);
    Answer::of(text).problem(415, "DP_ERR_UNSUPPORTED_MEDIA_TYPE");

    let now = daypass.owner.get(&member.path("")).expect(200).json();
    assert_eq!((&now["durationSeconds"], &now["expiresAt"]), (&json!(7200), &member.body["expiresAt"]));
    assert_eq!(
        cluster.object(&role.namespace, "members.daypass.dev", member.name()).unwrap()["metadata"]["generation"],
        1
    );
}

#[test]
fn end_is_set_in_hours_or_as_a_timestamp() {
    let (cluster, daypass) = Cluster::shared();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 2);
    let created = time(&member.body["createdAt"]);
    let patch = |body: Value| daypass.owner.patch(&member.path(""), &body).expect(200).json();
    let end = created + TimeDelta::seconds(5000);
    let precise = (end + TimeDelta::milliseconds(999)).to_rfc3339_opts(SecondsFormat::Millis, true);
    let elsewhere = end.with_timezone(&chrono::FixedOffset::east_opt(2 * 3600).unwrap()).to_rfc3339();
    for body in [json!({"expiresAt": precise}), json!({"expiresAt": elsewhere}), json!({"expiresAt": seconds(end)})] {
        let changed = patch(body.clone());
        assert_eq!(
            (&changed["expiresAt"], &changed["durationSeconds"]),
            (&json!(seconds(end)), &json!(5000)),
            "{body}"
        );
    }
    for (body, hours) in [
        (json!({"duration": "48"}), 48),
        (json!({"duration": 3}), 3),
        (json!({"expiresAt": seconds(created + TimeDelta::hours(48))}), 48),
    ] {
        assert_eq!(patch(body)["expiresAt"], seconds(created + TimeDelta::hours(hours)));
    }
    assert_eq!(patch(json!({"duration": "48"}))["durationSeconds"], 48 * 3600, "to what it is already");
    assert_eq!(daypass.event_kinds(&member.id), ["MEMBER_CREATED", "SHORTENED", "EXTENDED", "SHORTENED", "EXTENDED"]);
}

#[test]
fn change_past_the_hard_end_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    // By the API server's clock.
    let start = time(&NewMember::new(&daypass.owner, &role, 1).body["createdAt"]);
    let not_after = seconds(start + TimeDelta::minutes(90));
    let member =
        NewMember::applied(cluster, daypass, &role, "bounded", &json!({"duration": "1h", "notAfter": not_after}));
    let patch = |body: Value| daypass.owner.patch(&member.path(""), &body);
    patch(json!({"duration": "2"})).assert_invalid_field("duration");
    patch(json!({"expiresAt": seconds(start + TimeDelta::minutes(91))})).assert_invalid_field("expiresAt");
    assert_eq!(patch(json!({"expiresAt": not_after})).expect(200).json()["expiresAt"], not_after);
}

/// Five members whose names sort by creation.
fn five(cluster: &Cluster, daypass: &Daypass, role: &Role) -> Vec<String> {
    (0..5).map(|n| format!("m{n}")).for_each(|name| cluster.apply_member(role, &name, &json!({"duration": "1h"})));
    eventually("all are listed", || {
        let all = ids(&daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json());
        (all.len() == 5).then_some(all)
    })
}

fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn member_list_is_paged_and_filtered_by_role() {
    let (cluster, daypass) = Cluster::shared();
    let (role, other) = (cluster.reader(), cluster.reader());
    let caller = cluster.caller(daypass, &["list"], &["members"], Some(&role));
    NewMember::new(&daypass.owner, &other, 1);
    let all = five(cluster, daypass, &role);
    assert_eq!(all, (0..5).map(|n| format!("{}.m{n}", role.id)).collect::<Vec<_>>());

    let page = |query: &str| caller.get(&format!("/members{query}")).expect(200).json();
    for (query, limit, offset, items) in [
        ("", 100, 0, &all[..]),
        ("?limit=2", 2, 0, &all[..2]),
        ("?limit=2&offset=2", 2, 2, &all[2..4]),
        ("?offset=4&limit=2", 2, 4, &all[4..]),
        ("?offset=5", 100, 5, &[]),
        ("?offset=1000000", 100, 1_000_000, &[]),
        ("?limit=1000", 1000, 0, &all),
        ("?limit=00001", 1, 0, &all[..1]),
    ] {
        let page = page(query);
        assert_eq!(ids(&page), items, "{query}");
        assert_eq!(
            (&page["limit"], &page["offset"], &page["total"]),
            (&json!(limit), &json!(offset), &json!(5)),
            "{query}"
        );
    }
    for (role, total) in [(&*role.id, 5), (&*other.id, 0), ("nowhere", 0), ("%00%ff", 0)] {
        let page = page(&format!("?roleId={role}&limit=1"));
        assert_eq!((page["total"].clone(), ids(&page).len()), (json!(total), total.min(1)), "{role}");
    }
    for item in daypass.owner.get("/members").expect(200).json()["items"].as_array().unwrap() {
        assert!(item.get("credentials").is_none());
    }
}

#[test]
fn invalid_query_names_its_parameter() {
    let (_, daypass) = Cluster::shared();
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("limit=x", "limit"),
        ("limit=1.0", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("offset=-1", "offset"),
        ("offset=x", "offset"),
        ("offset=99999999999999999999999999", "offset"),
        ("limit=1&limit=2", "limit"),
        ("offset=1&offset=1", "offset"),
        ("roleId=a&roleId=b", "roleId"),
        ("roleId=", "roleId"),
        ("roleId", "roleId"),
        ("page=1", "page"),
        ("roleid=a", "roleid"),
    ] {
        daypass.owner.get(&format!("/members?{query}")).assert_invalid_field(parameter);
    }
    daypass.owner.get("/tokens?owner=").assert_invalid_field("owner");
}
