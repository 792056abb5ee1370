//! Paths and methods.

use serde_json::{Value, json};

use crate::support::{Answer, Cluster, Http, NewMember, RawConnection};

/// The paths of the OpenAPI document, and the methods of each.
fn documented(client: &Http, url: &str) -> Vec<(String, Vec<String>)> {
    let document = client.get(&format!("{url}/openapi.json")).expect(200).json();
    let methods = |item: &Value| item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
    document["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[test]
fn unknown_path_answers_with_a_problem() {
    let (_, daypass) = Cluster::shared();
    let url = &daypass.url;
    for client in [&daypass.owner, &daypass.owner.anonymous()] {
        for path in [
            "/nope",
            "/members",
            "/dp-1",
            "/dp-1/",
            "/dp-1/nope",
            "/dp-1/members/",
            "/dp-1//members",
            "/processing/data-planes",
            "/processing/data-planes/dp-1",
            "/processing/data-planes/dp-1/members/a/b/c/d",
            "/metrics",
            "/readyz",
            "/livez",
            "/dp-1/members/a.b/kubeconfigs/x/y",
        ] {
            for method in ["GET", "POST", "DELETE"] {
                let answer = Answer::of(client.request(method, &format!("{url}{path}")));
                assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
                answer.problem(404, "DP_ERR_NOT_FOUND");
            }
        }
    }
}

#[test]
fn malformed_id_is_not_found() {
    let (_, daypass) = Cluster::shared();
    for id in
        ["%FF", "%00", "a", "a.b.c", "..%2f..", "projects-view.default", "projects-view.", "%E2%82%AC.a", "a%20b.c"]
    {
        let answer = daypass.owner.get(&format!("/members/{id}"));
        assert_eq!(answer.status, 404, "{id}: {}", answer.text);
        answer.problem(404, "DP_ERR_NOT_FOUND");
        let answer = daypass.owner.with_basic(id, "dpm_x").get(&format!("/members/{id}/kubeconfig"));
        // A path that is not UTF-8 matches no route. The others reach the check of the credential.
        answer.expect(if id == "%FF" { 404 } else { 401 });
    }
}

#[test]
fn wrong_method_names_the_allowed_ones() {
    let (cluster, daypass) = Cluster::shared();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    for (path, methods) in documented(&daypass.owner, &daypass.url) {
        let target = path.replace("{id}", &member.id).replace("{jti}", "x");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"] {
            if methods.iter().any(|known| known == method) {
                continue;
            }
            let answer = Answer::of(daypass.owner.request(method, &target));
            answer.problem(405, "DP_ERR_METHOD_NOT_ALLOWED");
            let mut allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
            allowed.retain(|method| *method != "HEAD");
            allowed.sort_unstable();
            let mut expected: Vec<&str> = methods.iter().map(String::as_str).collect();
            expected.sort_unstable();
            assert_eq!(allowed, expected, "{method} {path}");
        }
    }
    daypass.owner.get(&member.path("")).expect(200);
}

#[test]
fn head_on_kubeconfig_is_refused_and_issues_nothing() {
    let (cluster, daypass) = Cluster::shared();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    for client in [&member.engineer, &daypass.owner, &daypass.owner.anonymous()] {
        let answer = Answer::of(client.request("HEAD", &member.path("/kubeconfig")));
        assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
    }
    let other = Answer::of(member.engineer.request("POST", &member.path("/kubeconfig")));
    other.problem(405, "DP_ERR_METHOD_NOT_ALLOWED");
    assert_eq!(other.header("allow"), "GET", "no HEAD here");
    assert_eq!(member.listed(&member.engineer), [""; 0]);
    // HEAD works where it is harmless.
    let head = Answer::of(daypass.owner.request("HEAD", &member.path("")));
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(Answer::of(daypass.owner.anonymous().request("HEAD", &member.path(""))).status, 401);
}

#[test]
fn other_data_plane_is_not_found_on_any_path() {
    let (cluster, daypass) = Cluster::shared();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    for (path, methods) in documented(&daypass.owner, &daypass.url) {
        let path = path.replace("{id}", &member.id).replace("{jti}", "x");
        for method in methods {
            for base in ["/dp-2", "/processing/data-planes/dp-2", "/DP-1", "/dp-1%20", "/%FF"] {
                let answer = Answer::of(daypass.owner.request(&method, &format!("{}{base}{path}", daypass.url)));
                assert_eq!(answer.status, 404, "{method} {base}{path}: {}", answer.text);
                answer.problem(404, "DP_ERR_NOT_FOUND");
            }
        }
    }
    daypass.owner.get(&member.path("")).expect(200);
}

#[test]
fn both_base_paths_serve_the_same_routes() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    let long = format!("{}/processing/data-planes/dp-1", daypass.url);
    let get = |client: &Http, path: &str| {
        // The two are issued seconds apart.
        let stable = |mut body: Value| {
            let fields = body.as_object_mut().unwrap();
            ["secondsLeft", "requestId", "instance"].into_iter().for_each(|field| drop(fields.remove(field)));
            body
        };
        let (short, long) = (client.get(path), client.get(&format!("{long}{path}")));
        assert_eq!((short.status, stable(short.json())), (long.status, stable(long.json())), "{path}");
        short.status
    };
    for path in ["", "/kubeconfigs"] {
        assert_eq!(get(&daypass.owner, &member.path(path)), 200);
    }
    assert_eq!(get(&member.engineer, &member.path("/me")), 200);
    assert_eq!(get(&cluster.caller(daypass, &["create"], &["members"], Some(&role)), "/members/roles"), 200);
    assert_eq!(get(&daypass.owner, "/members?limit=0"), 400);
    assert_eq!(get(&daypass.owner.anonymous(), "/members"), 401);
    let revoke = member.path(&format!("/kubeconfigs/{}", kubeconfig.jti()));
    daypass.owner.delete(&format!("{long}{revoke}")).expect(204);
    assert_eq!(get(&daypass.owner, &member.path("/kubeconfigs")), 200);
    daypass.owner.delete(&format!("{long}{}", member.path(""))).expect(204);
    assert_eq!(get(&daypass.owner, &member.path("")), 404);
}

#[test]
fn every_answer_has_a_unique_request_id() {
    let (_, daypass) = Cluster::shared();
    let answers = [
        daypass.owner.get("/members/roles"),
        daypass.owner.get("/members/roles"),
        daypass.owner.get("/nope"),
        daypass.owner.anonymous().get("/members"),
        daypass.owner.get(&format!("{}/openapi.json", daypass.url)),
    ];
    let mut ids: Vec<&str> = answers.iter().map(|answer| answer.header("x-request-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() == answers.len() && ids.iter().all(|id| id.len() == 36), "{ids:?}");
    // Daypass ignores an id from the client: it could forge a log line.
    let made_up = Answer::of(daypass.owner.request("GET", "/members/roles").header("x-request-id", "made-up"));
    assert_ne!(made_up.header("x-request-id"), "made-up");
}

#[test]
fn refusal_before_the_body_keeps_the_connection_usable() {
    let (cluster, daypass) = Cluster::shared();
    let body = r#"{"duration":"1"}"#;
    for (path, status) in
        [("/dp-1/members", 401), ("/dp-2/members", 404), ("/nope", 404), ("/dp-1/members/roles", 405)]
    {
        let mut connection = RawConnection::connect(cluster, daypass);
        for _ in 0..5 {
            connection.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
            connection.send(body);
            let answer = connection.answer();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        }
    }
}

#[test]
fn overlong_target_is_refused_harmlessly() {
    let (cluster, daypass) = Cluster::shared();
    let get = |target: &str, more: &str| {
        let mut connection = RawConnection::connect(cluster, daypass);
        connection.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        connection.answer()
    };
    // Recursion over each part once overflowed a debug build's stack. Daypass refuses heads over 32 KiB earlier.
    assert!(get(&"/dpm_".repeat(10_900), "").starts_with("HTTP/1.1 431 "));
    for target in [
        "/dpm_".repeat(5_000),
        "/dpp_x/dpm_y".repeat(2_000),
        "/dp-1/members/".to_owned() + &"%2f".repeat(9_000),
        "/%E2%82%AC".repeat(2_700),
        "/dp-1/members/projects-view.".to_owned() + &"a".repeat(29_000),
        "/".repeat(29_000),
        format!("/dp-1/members?roleId={}", "a".repeat(29_000)),
        format!("/dp-1/members?{}", "limit=1&".repeat(3_600)),
    ] {
        let answer = get(&target, &format!("Authorization: Bearer {}\r\n", daypass.owner.token()));
        let start = answer.get(..400).unwrap_or(&answer);
        assert!(answer.starts_with("HTTP/1.1 414 "), "{start}");
        assert!(answer.contains(r#""code":"DP_ERR_URI_TOO_LONG""#) && answer.contains("x-request-id"), "{start}");
        // The answer, the log and the audit trail show no more of it than of a valid path.
        assert!(answer.len() < 5_000, "{}", answer.len());
    }
    let told = format!("{}{}", daypass.log(), Value::Array(daypass.audit_events()));
    for part in ["a".repeat(2_000), "%2f".repeat(700), "/".repeat(2_000), "dpm_/".repeat(400)] {
        assert!(!told.contains(&part), "{part}");
    }
    // The longest possible id and owner, percent-encoded, are accepted.
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let id = encoded(&format!("{}.{}", "r".repeat(55), "n".repeat(40)));
    daypass.owner.get(&format!("/members/{id}")).problem(404, "DP_ERR_NOT_FOUND");
    daypass.owner.get(&format!("/tokens?owner={}", encoded(&"\u{1F600}".repeat(1024)))).expect(200);
    // Daypass truncates the client's text that it repeats.
    let unknown = daypass.owner.get(&format!("/members?{}=1", "a".repeat(9_000)));
    unknown.problem(400, "DP_ERR_VALIDATION");
    assert!(unknown.text.len() < 2_000, "{}", unknown.text.len());
    let unknown = daypass.owner.post("/members", &serde_json::json!({("a".repeat(60_000)): 1}));
    unknown.problem(400, "DP_ERR_VALIDATION");
    assert!(unknown.text.len() < 2_000, "{}", unknown.text.len());
}

#[test]
fn invisible_characters_of_a_path_are_escaped() {
    let (cluster, daypass) = Cluster::shared();
    let mut connection = RawConnection::connect(cluster, daypass);
    let mark = format!("bidi{}", std::process::id());
    let path = |middle: &str| format!("/dp-1/members/{mark}{middle}x");
    connection
        .send(&format!("GET {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\n\r\n", path("\u{202E}\u{200B}")));
    let answer = connection.answer();
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let shown = path(r"\u{202e}\u{200b}");
    assert_eq!(body["instance"], shown, "{answer}");
    let events = daypass.audit_events_with(&mark);
    let requests: Vec<&Value> = events.iter().map(|event| &event["request"]).collect();
    assert_eq!(requests, [&json!(format!("GET {shown}"))]);
}
