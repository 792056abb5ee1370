//! Requests that are no proper HTTP, and requests whose length is ambiguous.

use http::Method;

use crate::support::{Cluster, Daypass, RawConnection, Stranger};

const BODY: &str = r#"{"name":"n"}"#;

/// The answer to a hand-written request with these headers, and whether the connection stays open.
fn ask(cluster: &Cluster, daypass: &Daypass, before: &str, headers: &str) -> (String, bool) {
    let mut connection = RawConnection::connect(cluster, daypass);
    if !before.is_empty() {
        connection.send(before);
        assert!(connection.answer().starts_with("HTTP/1.1 404 "));
    }
    let bearer = daypass.owner.token();
    let head =
        format!("PATCH /dp-1/tokens/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {bearer}\r\n{headers}\r\n\r\n");
    connection.send(&format!("{head}{BODY}"));
    let answer = connection.try_answer().unwrap_or_else(|error| panic!("{before:?} {headers:?}: {error}"));
    let next = connection.try_send("GET /nope HTTP/1.1\r\nHost: a\r\n\r\n").and_then(|()| connection.try_answer());
    (answer, next.is_ok())
}

#[test]
fn http1_request_with_an_ambiguous_length_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let json = "Content-Type: application/json";
    let length = format!("Content-Length: {}", BODY.len());
    let (answer, open) = ask(cluster, daypass, "", &format!("{json}\r\n{length}"));
    assert!(answer.starts_with("HTTP/1.1 404 ") && open, "the request itself is fine: {answer}");
    let before =
        ["", "GET /nope HTTP/1.1\r\nHost: a\r\n\r\n", "POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"];
    let before = before
        .into_iter()
        .chain(["POST /nope HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]);
    for before in before {
        for lengths in [
            format!("{length}\r\n{length}"),
            format!("{length}\r\nX: y\r\ncontent-length:0{}", BODY.len()),
            format!("{length}\r\nContent-Length: 1"),
            format!("{length}, {}", BODY.len()),
            format!("{length}\r\nTransfer-Encoding: chunked"),
            format!("Transfer-Encoding: chunked\r\n{length}"),
            "Content-Length: -1".to_owned(),
            "Content-Length: +12".to_owned(),
            "Content-Length: 0x0c".to_owned(),
            "Content-Length: 99999999999999999999".to_owned(),
            "Content-Length:".to_owned(),
            "Transfer-Encoding: gzip".to_owned(),
        ] {
            let (answer, open) = ask(cluster, daypass, before, &format!("{json}\r\n{lengths}"));
            assert!(answer.starts_with("HTTP/1.1 400 ") && !open, "{before:?} {lengths:?}: {answer}");
            assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
        }
    }
}

#[test]
fn http2_request_with_two_lengths_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let bearer = format!("Bearer {}", daypass.owner.token());
    let stranger = Stranger::new(cluster, daypass);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = stranger.http2(65_535).await.unwrap();
        for (lengths, expected) in [(&["12"][..], Some(404)), (&["12", "12"], Some(400)), (&["12", "13"], None)] {
            let mut headers = vec![("authorization", &*bearer), ("content-type", "application/json")];
            headers.extend(lengths.iter().map(|length| ("content-length", *length)));
            let (answer, mut body) = connection.send(Method::PATCH, "/dp-1/tokens/x", &headers, true).await.unwrap();
            // The server may have reset the stream by now.
            let _sent = body.send_data(BODY.into(), true);
            match (answer.await, expected) {
                (Ok(mut answer), Some(status)) => {
                    assert_eq!(answer.status(), status, "{lengths:?}");
                    let text = answer.body_mut().data().await.unwrap().unwrap();
                    let text = String::from_utf8_lossy(&text);
                    assert_eq!(text.contains("Content-Length: is given twice"), status == 400, "{text}");
                }
                (Err(error), None) => assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR), "{lengths:?}"),
                (answer, _) => panic!("{lengths:?}: {answer:?}"),
            }
        }
        // Others of the connection's requests go on.
        assert_eq!(connection.get("/dp-1/members", &[("authorization", &bearer)]).await.unwrap().status(), 200);
        // A head of more than 16 KiB.
        let long = "a".repeat(17_000);
        let mut answer = connection.get("/dp-1/members", &[("x-long", &long)]).await.unwrap();
        assert_eq!(answer.status(), 431);
        assert!(answer.body_mut().data().await.is_none());
    });
}

/// As docs/errors.md says.
#[test]
fn malformed_head_is_answered_without_a_body() {
    let (cluster, daypass) = Cluster::shared();
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /\u{1} HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nNo header\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/3.0\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(33_000)), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101)), 431),
    ] {
        let mut connection = RawConnection::connect(cluster, daypass);
        let start = &request[..request.floor_char_boundary(60)];
        // The server may have answered before it has read everything.
        let _sent = connection.try_send(&request);
        let answer = connection.answer();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{start:?}: {answer}");
        assert!(answer.ends_with("\r\n\r\n") && connection.try_answer().is_err(), "{start:?}: {answer}");
    }
}
