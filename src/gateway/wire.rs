//! Tests over hyper, as bytes on the wire: what a client sends, and what the API server gets.

use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use http::{HeaderValue, Request, Response, Uri};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::headers::{self, Ours};
use super::target::Prefix;

/// The requests that the API server gets when a client sends these bytes, and what the client gets.
async fn forwarded(sent: &[u8]) -> (Vec<String>, String) {
    let (mut client, server) = duplex(1 << 20);
    let requests = Mutex::new(Vec::new());
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let requests = &requests;
        async move {
            let code = match forward(request).await {
                Ok(bytes) => {
                    requests.lock().unwrap().push(bytes);
                    200
                }
                Err(code) => code,
            };
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(Body::empty()).unwrap())
        }
    });
    client.write_all(sent).await.unwrap();
    client.shutdown().await.unwrap();
    // What is not HTTP is an error here, and an answer or nothing to the client.
    let _ = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service)
        .await;
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    (requests.into_inner().unwrap(), answers)
}

async fn forward(request: Request<hyper::body::Incoming>) -> Result<String, u16> {
    let prefix = Prefix::new("dp-1", &Uri::from_static("https://api:6443")).unwrap();
    let target = prefix.target(&request).map_err(|_| 400_u16)?;
    headers::bearer(request.headers()).map_err(headers::Refused::code)?;
    let upgrade = headers::upgrade(request.headers(), request.version()).map_err(headers::Refused::code)?;
    let ours = Ours {
        origin: None,
        host: prefix.host(),
        client: Some([192, 0, 2, 7].into()),
        request_id: HeaderValue::from_static("our-id"),
        authorization: HeaderValue::from_static("Bearer member"),
    };
    let headers = headers::request(request.headers(), upgrade, ours).map_err(headers::Refused::code)?;
    let (parts, body) = request.into_parts();
    // A body that breaks off must not look whole.
    let body = to_bytes(Body::new(body), usize::MAX).await.map_err(|_| 400_u16)?;
    let mut request = Request::new(Body::from(body));
    (*request.method_mut(), *request.headers_mut()) = (parts.method, headers);
    *request.uri_mut() = target.uri.path_and_query().unwrap().clone().into();
    Ok(on_the_wire(request).await)
}

/// The bytes of a request as hyper's client sends them.
async fn on_the_wire(request: Request<Body>) -> String {
    let (client, mut server) = duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    let answer = async {
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|it| it == b"\r\n\r\n") {
            assert_ne!(server.read_buf(&mut bytes).await.unwrap(), 0);
        }
        server.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        server.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let (_, _, bytes) = futures::join!(sender.send_request(request), connection, answer);
    bytes
}

const OURS: &str =
    "x-forwarded-for: 192.0.2.7\r\nhost: api:6443\r\naudit-id: our-id\r\nauthorization: Bearer member\r\n";

/// What the client sends besides the first line, its host and its token.
async fn sent(line: &str, rest: &str) -> (Vec<String>, String) {
    forwarded(format!("{line}\r\nHost: daypass\r\nAuthorization: Bearer dpg_x\r\n{rest}").as_bytes()).await
}

#[tokio::test]
async fn path_reaches_the_api_server_byte_by_byte() {
    for path in [
        "/",
        "//",
        "//evil.example/x",
        "/api/../..//%2e%2E/%2f%00;a=b",
        "/?",
        "/api?watch=1&a=%20+%zz?/..",
        "/ü",
        "/\"{}|\\^",
    ] {
        let (requests, _) = sent(&format!("GET /dp-1/gateway{path} HTTP/1.1"), "\r\n").await;
        assert_eq!(requests, [format!("GET {path} HTTP/1.1\r\n{OURS}\r\n")]);
    }
}

#[tokio::test]
async fn target_that_is_no_path_is_refused() {
    for line in [
        "GET http://evil.example/dp-1/gateway/api HTTP/1.1",
        "GET https://api:6443/dp-1/gateway/api HTTP/1.1",
        "CONNECT evil.example:443 HTTP/1.1",
        "CONNECT /dp-1/gateway/api HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET dp-1/gateway/api HTTP/1.1",
        "GET /dp-1/gateway/\u{1} HTTP/1.1",
        "GET /dp-1/gateway/a b HTTP/1.1",
        "GET /dp-1/../dp-1/gateway/ HTTP/1.1",
    ] {
        let (requests, answers) = sent(line, "\r\n").await;
        assert!(requests.is_empty() && answers.starts_with("HTTP/1.1 400"), "{line}: {requests:?} {answers}");
    }
}

#[tokio::test]
async fn body_is_framed_by_what_arrived() {
    let chunks = "\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for rest in [
        "Content-Length: 5\r\n\r\nhello",
        "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        &format!("Transfer-Encoding: chunked{chunks}"),
        &format!("Connection: transfer-encoding\r\nTRANSFER-encoding: Chunked{chunks}"),
        // Chunks count, the length does not.
        &format!("Content-Length: 3\r\nTransfer-Encoding: chunked{chunks}"),
        &format!("Transfer-Encoding: chunked\r\nContent-Length: 30{chunks}"),
        // What follows the last chunk is no header.
        "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n5\r\nhello\r\n0\r\nImpersonate-User: a\r\nX-A: b\r\n\r\n",
    ] {
        let (requests, _) = sent("POST /dp-1/gateway/api HTTP/1.1", rest).await;
        assert_eq!(requests, [format!("POST /api HTTP/1.1\r\n{OURS}content-length: 5\r\n\r\nhello")], "{rest}");
    }
}

#[tokio::test]
async fn ambiguous_heads_reach_nobody() {
    for rest in [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "Content-Length: 5, 5\r\n\r\nhello",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: 9\r\n\r\nhello",
        "Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "X-A: b\r\n Impersonate-User: admin\r\n\r\n",
        "X-A: b\r\n\tc\r\n\r\n",
        "Impersonate-User : admin\r\n\r\n",
        " Impersonate-User: admin\r\n\r\n",
        "X-A: b\rImpersonate-User: admin\r\n\r\n",
        "X-A: \0\r\n\r\n",
        "Impersonate-User: admin\r\n\r\n",
        "iMpErSoNaTe-UsEr:admin\r\n\r\n",
        "Connection: Impersonate-User\r\n\r\n",
        "Authorization: Bearer dpg_y\r\n\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello",
        "Sec-Fetch-Mode: navigate\r\n\r\n",
    ] {
        let (requests, answers) = sent("POST /dp-1/gateway/api HTTP/1.1", rest).await;
        assert!(requests.is_empty() && answers.starts_with("HTTP/1.1 40"), "{rest:?}: {requests:?} {answers}");
    }
    let (requests, answers) =
        sent("POST /dp-1/gateway/api HTTP/1.0", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert!(requests.is_empty() && answers.starts_with("HTTP/1.1 400"), "{requests:?} {answers}");
}

#[tokio::test]
async fn bytes_after_a_request_are_the_next_one_and_need_a_token_of_their_own() {
    let rest = "Content-Length: 0\r\n\r\nGET /dp-1/gateway/api HTTP/1.1\r\nHost: daypass\r\n\r\n";
    let (requests, answers) = sent("POST /dp-1/gateway/x HTTP/1.1", rest).await;
    assert_eq!(requests, [format!("POST /x HTTP/1.1\r\n{OURS}\r\n")]);
    assert!(answers.contains("HTTP/1.1 200") && answers.contains("HTTP/1.1 401"), "{answers}");
}
