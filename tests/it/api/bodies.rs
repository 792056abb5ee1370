//! Bodies as various clients encode them, and values as people write them.

use std::io::Write as _;

use chrono::{NaiveTime, SecondsFormat, TimeDelta};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{Answer, Cluster, Http, NewMember, now, time};

/// gzip of a text, in stored blocks.
fn gzip(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    bytes.extend(length.to_le_bytes());
    bytes.extend((!length).to_le_bytes());
    bytes.write_all(text.as_bytes()).unwrap();
    bytes
}

fn send(client: &Http, (method, path): (&str, &str), headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let request = client.request(method, path).body(body.to_vec());
    let value = |value: &str| HeaderValue::from_bytes(value.as_bytes()).unwrap();
    Answer::of(headers.iter().fold(request, |request, (name, text)| request.header(*name, value(text))))
}

/// Every operation that reads a body, with a valid one.
fn operations(cluster: &Cluster, client: &Http, owner: &Http) -> Vec<(&'static str, String, Value)> {
    let role = cluster.reader();
    let member = NewMember::new(client, &role, 1);
    let token = AccessToken::new(owner, &SCOPES);
    vec![
        ("POST", "/members".to_owned(), json!({"duration": 1, "roleId": role.id})),
        ("PATCH", member.path(""), json!({"duration": 2})),
        ("POST", "/tokens".to_owned(), json!({"name": "n", "scopes": SCOPES, "expiresInDays": 1})),
        ("PATCH", token.path(), json!({"name": "n"})),
        ("POST", format!("{}/rotate", token.path()), json!({})),
    ]
}

#[test]
fn body_with_a_content_coding_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    for (method, path, body) in operations(cluster, &daypass.owner, &owner) {
        let client = if path.starts_with("/tokens") { &owner } else { &daypass.owner };
        let body = body.to_string();
        let json = (CONTENT_TYPE.as_str(), "application/json");
        let coded = |coding: &str, body: &[u8]| {
            send(client, (method, &path), &[json, (CONTENT_ENCODING.as_str(), coding)], body)
        };
        for coding in ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "compress", "aws-chunked", "identity, gzip"]
        {
            for bytes in [gzip(&body), body.clone().into_bytes()] {
                let answer = coded(coding, &bytes);
                answer.problem(415, "DP_ERR_UNSUPPORTED_MEDIA_TYPE");
                assert_eq!(answer.header("accept-encoding"), "identity", "{method} {path} {coding}");
            }
        }
        let unlabelled = send(client, (method, &path), &[json], &gzip(&body));
        unlabelled.problem(400, "DP_ERR_MALFORMED_BODY");
        let answer = coded("identity", body.as_bytes());
        assert!(answer.status < 300, "{method} {path}: {}", answer.text);
    }
}

#[test]
fn byte_order_mark_is_ignored() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    for (method, path, body) in operations(cluster, &daypass.owner, &owner) {
        let client = if path.starts_with("/tokens") { &owner } else { &daypass.owner };
        let json = [(CONTENT_TYPE.as_str(), "application/json")];
        let twice = format!("\u{feff}\u{feff}{body}");
        send(client, (method, &path), &json, twice.as_bytes()).problem(400, "DP_ERR_MALFORMED_BODY");
        let utf16: Vec<u8> = body.to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
        send(client, (method, &path), &json, &[b"\xff\xfe", &*utf16].concat()).problem(400, "DP_ERR_MALFORMED_BODY");
        let answer = send(client, (method, &path), &json, format!("\u{feff}{body}").as_bytes());
        assert!(answer.status < 300, "{method} {path}: {}", answer.text);
    }
}

#[test]
fn merge_patch_is_accepted_for_patch_alone() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    for (method, path, body) in operations(cluster, &daypass.owner, &owner) {
        let client = if path.starts_with("/tokens") { &owner } else { &daypass.owner };
        let body = body.to_string();
        let typed = |types: &[&str]| {
            let types: Vec<_> = types.iter().map(|value| (CONTENT_TYPE.as_str(), *value)).collect();
            send(client, (method, &path), &types, body.as_bytes())
        };
        for refused in [
            &["application/json-patch+json"][..],
            &["application/strategic-merge-patch+json"],
            &["application/merge-patch"],
            &["application/json", "text/plain"],
            &["application/json, text/plain"],
        ] {
            typed(refused).problem(415, "DP_ERR_UNSUPPORTED_MEDIA_TYPE");
        }
        for accepted in ["application/merge-patch+json", "Application/Merge-Patch+JSON ; charset=utf-8"] {
            let answer = typed(&[accepted]);
            if method == "PATCH" {
                assert!(answer.status < 300, "{path}: {}", answer.text);
            } else {
                answer.problem(415, "DP_ERR_UNSUPPORTED_MEDIA_TYPE");
            }
        }
    }
}

#[test]
fn time_of_any_form_is_accepted_or_named() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let token = AccessToken::requested(&owner, &json!({"name": "n", "scopes": SCOPES, "expiresInDays": 360}));
    // Between 24 and 48 hours from now, so a member may have it too.
    let day = now().date_naive() + TimeDelta::days(2);
    let midnight = day.and_time(NaiveTime::MIN).and_utc();
    let utc = midnight.to_rfc3339_opts(SecondsFormat::Secs, true);
    let (date, evening) = (day.to_string(), day.pred_opt().unwrap());
    let create = |end: &str| owner.post("/tokens", &json!({"name": "n", "scopes": SCOPES, "expiresAt": end}));
    let rotate = |end: &str| owner.post(&format!("{}/rotate", token.path()), &json!({"expiresAt": end}));
    let change = |end: &str| daypass.owner.patch(&member.path(""), &json!({"expiresAt": end}));
    for good in [
        utc.clone(),
        date.clone(),
        utc.to_lowercase(),
        format!("{date}T00:00:00.999999999999Z"),
        format!("{date}T00:00:00-00:00"),
        format!("{date}T05:45:00+05:45"),
        format!("{evening}T12:00:00-12:00"),
    ] {
        for answer in [create(&good).expect(201), rotate(&good).expect(200), change(&good).expect(200)] {
            assert_eq!(answer.json()["expiresAt"], utc, "{good}");
        }
    }
    for bad in [
        format!("{evening}T23:59:60Z"),
        format!("{evening}T23:59:60.5Z"),
        format!("{date}T01:59:60+02:00"),
        format!("{date} 00:00:00Z"),
        format!("{date}T00:00:00"),
        format!("{date}T00:00Z"),
        format!("{date}T24:00:00Z"),
        format!("{date}T00:00:00+0000"),
        format!("{date}T00:00:00+24:00"),
        format!(" {date}"),
        format!("{date}\n"),
        format!("+{utc}"),
        "0000-01-01T00:00:00Z".to_owned(),
        "0000-01-01T00:00:00+01:00".to_owned(),
        "2101-01-01".to_owned(),
        "9999-12-31T23:59:59Z".to_owned(),
        "9999-12-31T23:59:59-01:00".to_owned(),
        "10000-01-01T00:00:00Z".to_owned(),
        "+262142-12-31T23:59:59Z".to_owned(),
        "-262143-01-01T00:00:00Z".to_owned(),
        String::new(),
    ] {
        for answer in [create(&bad), rotate(&bad), change(&bad)] {
            assert_eq!(answer.status, 400, "{bad:?}: {}", answer.text);
            answer.assert_invalid_field("expiresAt");
        }
    }
    let told = create(&format!("{evening}T23:59:60Z")).json();
    assert_eq!(told["detail"], "expiresAt: must not be a leap second (:60)");
}

#[test]
fn days_are_numbers_or_strings() {
    let (cluster, daypass) = Cluster::shared();
    let owner = cluster.generator(daypass);
    for days in [json!(90), json!(90.0), json!("90")] {
        let answer = owner.post("/tokens", &json!({"name": "n", "scopes": SCOPES, "expiresInDays": days}));
        let life = time(&answer.expect(201).json()["expiresAt"]) - now();
        assert!((89..=90).contains(&life.num_days()), "{days}: {life}");
    }
    for days in ["90.5", "\"90.0\"", "\"90 \"", "\"\"", "\"ninety\"", "\"1e2\"", "0", "\"0\"", "1e999", "true", "[90]"]
    {
        let body = format!(r#"{{"name":"n","scopes":["tokens:read"],"expiresInDays":{days}}}"#);
        let json = [(CONTENT_TYPE.as_str(), "application/json")];
        send(&owner, ("POST", "/tokens"), &json, body.as_bytes()).assert_invalid_field("expiresInDays");
    }
}
