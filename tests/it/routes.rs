//! Paths and methods.

use serde_json::Value;

use crate::support::{Answer, Created, Http, Lab, Raw};

/// The paths of the OpenAPI document, and the methods of each.
fn documented(client: &Http, url: &str) -> Vec<(String, Vec<String>)> {
    let document = client.get(&format!("{url}/openapi.json")).expect(200).json();
    let methods = |item: &Value| item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
    document["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[test]
fn an_unknown_path_is_a_problem_too() {
    let (_, daypass) = Lab::shared();
    let url = &daypass.url;
    for client in [&daypass.owner, &daypass.owner.anonymous()] {
        for path in [
            "",
            "/",
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
fn what_cannot_be_an_id_is_not_found() {
    let (_, daypass) = Lab::shared();
    for id in
        ["%FF", "%00", "a", "a.b.c", "..%2f..", "projects-view.default", "projects-view.", "%E2%82%AC.a", "a%20b.c"]
    {
        let answer = daypass.owner.get(&format!("/members/{id}"));
        assert_eq!(answer.status, 404, "{id}: {}", answer.text);
        answer.problem(404, "DP_ERR_NOT_FOUND");
        let answer = daypass.owner.with_basic(id, "dpm_x").get(&format!("/members/{id}/kubeconfig"));
        assert!([401, 404].contains(&answer.status), "{id}: {}", answer.text);
    }
}

#[test]
fn every_path_says_which_methods_it_has() {
    let (lab, daypass) = Lab::shared();
    let member = Created::new(&daypass.owner, &lab.reader(), 1);
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
fn head_on_a_kubeconfig_is_not_allowed_and_mints_nothing() {
    let (lab, daypass) = Lab::shared();
    let member = Created::new(&daypass.owner, &lab.reader(), 1);
    for client in [&member.engineer, &daypass.owner, &daypass.owner.anonymous()] {
        let answer = Answer::of(client.request("HEAD", &member.path("/kubeconfig")));
        assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
    }
    let other = Answer::of(member.engineer.request("POST", &member.path("/kubeconfig")));
    other.problem(405, "DP_ERR_METHOD_NOT_ALLOWED");
    assert_eq!(other.header("allow"), "GET", "no HEAD here");
    assert_eq!(member.listed(&member.engineer), [""; 0]);
    // Where it is harmless it is what HTTP says.
    let head = Answer::of(daypass.owner.request("HEAD", &member.path("")));
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(Answer::of(daypass.owner.anonymous().request("HEAD", &member.path(""))).status, 401);
}

#[test]
fn another_data_plane_is_not_here_on_any_path() {
    let (lab, daypass) = Lab::shared();
    let member = Created::new(&daypass.owner, &lab.reader(), 1);
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
fn both_base_paths_serve_the_same() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let member = Created::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    let long = format!("{}/processing/data-planes/dp-1", daypass.url);
    let get = |client: &Http, path: &str| {
        // Seconds go by between the two.
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
    assert_eq!(get(&lab.caller(daypass, &["create"], &["members"], Some(&role)), "/members/roles"), 200);
    assert_eq!(get(&daypass.owner, "/members?limit=0"), 400);
    assert_eq!(get(&daypass.owner.anonymous(), "/members"), 401);
    let revoke = member.path(&format!("/kubeconfigs/{}", kubeconfig.jti()));
    daypass.owner.delete(&format!("{long}{revoke}")).expect(204);
    assert_eq!(get(&daypass.owner, &member.path("/kubeconfigs")), 200);
    daypass.owner.delete(&format!("{long}{}", member.path(""))).expect(204);
    assert_eq!(get(&daypass.owner, &member.path("")), 404);
}

#[test]
fn every_answer_has_a_request_id_of_its_own() {
    let (_, daypass) = Lab::shared();
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
    // One that the client makes up is not taken over: it could be anybody's, or forge a line of the log.
    let made_up = Answer::of(daypass.owner.request("GET", "/members/roles").header("x-request-id", "made-up"));
    assert_ne!(made_up.header("x-request-id"), "made-up");
}

#[test]
fn a_request_refused_before_its_body_was_sent_leaves_the_connection_to_the_next() {
    let (lab, daypass) = Lab::shared();
    let body = r#"{"duration":"1"}"#;
    for (path, status) in [("/dp-1/members", 401), ("/dp-2/members", 404), ("/nope", 404), ("/dp-1/members/roles", 405)]
    {
        let mut connection = Raw::connect(lab, daypass);
        for _ in 0..5 {
            connection.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
            connection.send(body);
            let answer = connection.answer();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        }
    }
}

#[test]
fn a_target_longer_than_any_valid_one_is_refused_and_ends_nothing() {
    let (lab, daypass) = Lab::shared();
    let get = |target: &str, more: &str| {
        let mut connection = Raw::connect(lab, daypass);
        connection.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        connection.answer()
    };
    // This one ended a debug build: a call on the stack for each. A head of over 32 KiB gets no further than its reader.
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
        // The answer, the log and the audit trail have no more of it than a valid path has.
        assert!(answer.len() < 5_000, "{}", answer.len());
    }
    let told = format!("{}{}", daypass.log(), Value::Array(daypass.audit_events()));
    for part in ["a".repeat(2_000), "%2f".repeat(700), "/".repeat(2_000), "dpm_/".repeat(400)] {
        assert!(!told.contains(&part), "{part}");
    }
    // The longest id there may be, percent-encoded, is a path like any other; and so is the longest owner.
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let id = encoded(&format!("{}.{}", "r".repeat(55), "n".repeat(40)));
    daypass.owner.get(&format!("/members/{id}")).problem(404, "DP_ERR_NOT_FOUND");
    daypass.owner.get(&format!("/tokens?owner={}", encoded(&"\u{1F600}".repeat(1024)))).expect(200);
    // What is repeated of a client's words is cut.
    let unknown = daypass.owner.get(&format!("/members?{}=1", "a".repeat(9_000)));
    unknown.problem(400, "DP_ERR_VALIDATION");
    assert!(unknown.text.len() < 2_000, "{}", unknown.text.len());
    let unknown = daypass.owner.post("/members", &serde_json::json!({("a".repeat(60_000)): 1}));
    unknown.problem(400, "DP_ERR_VALIDATION");
    assert!(unknown.text.len() < 2_000, "{}", unknown.text.len());
}
