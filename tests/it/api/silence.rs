//! Clients that connect and then send or read nothing: Daypass closes their connections.
//!
//! All wait at the same time. The test asserts which connections are closed, never when.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, join3};
use h2::SendStream;
use http::Method;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::support::{Cluster, DEADLINE, Daypass, Launch, Stranger, eventually};

const AUTHENTICATED: &str = r#"daypass_connections{state="authenticated"}"#;
const UNAUTHENTICATED: &str = r#"daypass_connections{state="unauthenticated"}"#;
const ROLES: &str = "/dp-1/members/roles";
/// The type of a PING frame (RFC 9113, section 6.7).
const PING: u8 = 6;

/// Sends a text and returns all that the server sends until it closes the connection.
async fn until_closed(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &[u8]) -> String {
    stream.write_all(text).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(2 * DEADLINE, stream.read_to_end(&mut answer)).await;
    let _closed_or_cut: io::Result<usize> = read.expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Clients that have not sent a request.
async fn without_a_request(stranger: &Stranger) {
    let half = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 100]].concat();
    let handshakes = [&b""[..], &half].map(|sent| async move {
        assert_eq!(until_closed(stranger.tcp().await.unwrap(), sent).await, "");
    });
    let heads = ["", "GET /openapi.json HTTP/1.1\r\nHost: a\r\nX: "].map(|head| async move {
        let answer = until_closed(stranger.tls("http/1.1").await.unwrap(), head.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    });
    tokio::join!(join_all(handshakes), join_all(heads), async {
        until_closed(stranger.tls("h2").await.unwrap(), b"").await;
    });
}

/// Clients that never finish their bodies.
async fn without_a_body(stranger: &Stranger, token: &str) {
    let head = |authorization: &str| {
        let head =
            "POST /dp-1/members HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n";
        format!("{head}{authorization}\r\n{{")
    };
    let [unknown, known] = [String::new(), format!("Authorization: {token}\r\n")].map(|it| head(&it));
    let over_http1 = async |head: &str| until_closed(stranger.tls("http/1.1").await.unwrap(), head.as_bytes()).await;
    let over_http2 = async {
        let mut connection = stranger.http2(65_535).await.unwrap();
        let headers = [("content-type", "application/json"), ("authorization", token)];
        let (answer, mut body) = connection.send(Method::POST, "/dp-1/members", &headers, true).await.unwrap();
        body.send_data(Bytes::from_static(b"{"), false).unwrap();
        let mut answer = answer.await.unwrap();
        assert_eq!(answer.status(), 400);
        let text = answer.body_mut().data().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&text).contains("did not arrive"), "{text:?}");
        assert_eq!(
            connection.get(ROLES, &[("authorization", token)]).await.unwrap().status(),
            200,
            "one stream's fault"
        );
        drop::<SendStream<_>>(body);
    };
    let (unknown, known, ()) = join3(over_http1(&unknown), over_http1(&known), over_http2).await;
    assert!(unknown.starts_with("HTTP/1.1 401 "), "answered at once: {unknown}");
    assert!(known.starts_with("HTTP/1.1 400 ") && known.contains("did not arrive"), "{known}");
}

/// An authenticated HTTP/2 client that reads everything and answers no ping.
async fn without_a_pong(stranger: &Stranger, token: &str) {
    let mut stream = stranger.tls("h2").await.unwrap();
    let text = |value: &str| {
        // A length with a prefix of 7 bits (RFC 7541, section 5.1), and no Huffman code.
        let (mut bytes, mut rest) = (Vec::new(), value.len());
        match rest.checked_sub(127) {
            None => bytes.push(rest as u8),
            Some(more) => {
                bytes.push(127);
                rest = more;
                while rest >= 128 {
                    bytes.push((rest % 128 + 128) as u8);
                    rest /= 128;
                }
                bytes.push(rest as u8);
            }
        }
        bytes.extend_from_slice(value.as_bytes());
        bytes
    };
    // GET, https; then path, authority and authorization by their numbers in the static table.
    let head = [&[0x82, 0x87, 0x04][..], &text(ROLES), &[0x01], &text("a"), &[0x0f, 0x08], &text(token)].concat();
    let length = (head.len() as u32).to_be_bytes();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &length[1..], &[1, 5, 0, 0, 0, 1], &head].concat();
    stream.write_all(&preface).await.unwrap();
    let mut kinds = Vec::new();
    let reading = async {
        let mut frame = [0; 9];
        while stream.read_exact(&mut frame).await.is_ok() {
            let mut payload = vec![0; u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                break;
            }
            kinds.push(frame[3]);
        }
    };
    timeout(2 * DEADLINE, reading).await.expect("the server closes the connection");
    assert!(kinds.contains(&0) && kinds.contains(&PING), "an answer, and a ping: {kinds:?}");
}

/// An authenticated HTTP/2 client that answers pings and reads no body.
async fn without_a_window(stranger: &Stranger, token: &str) {
    let mut connection = stranger.http2(0).await.unwrap();
    let answer = connection.get(ROLES, &[("authorization", token)]).await.unwrap();
    assert_eq!(answer.status(), 200);
    connection.ended().await;
}

/// An HTTP/2 client without credentials that answers pings and reads its answers.
async fn without_a_credential(stranger: &Stranger) {
    let mut connection = stranger.http2(65_535).await.unwrap();
    assert_eq!(connection.get(ROLES, &[]).await.unwrap().status(), 401);
    connection.ended().await;
}

/// Clients of the admin listener.
async fn at_the_admin_listener(address: SocketAddr) {
    let heads = ["", "GET /metrics HTTP/1.1\r\nX: "].map(|head| async move {
        let answer = until_closed(TcpStream::connect(address).await.unwrap(), head.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    });
    join_all(heads).await;
    let answer =
        until_closed(TcpStream::connect(address).await.unwrap(), b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
}

#[test]
fn silent_clients_are_disconnected_and_active_ones_kept() {
    let (cluster, _) = Cluster::shared();
    let daypass = Daypass::start(cluster, &Launch::default());
    let stranger = Stranger::new(cluster, &daypass);
    let token = format!("Bearer {}", daypass.owner.token());
    let admin = daypass.admin_url.strip_prefix("http://").unwrap().parse().unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut good = stranger.http2(65_535).await.unwrap();
        assert_eq!(good.get(ROLES, &[("authorization", &token)]).await.unwrap().status(), 200);
        let silent = async {
            tokio::join!(
                without_a_request(&stranger),
                without_a_body(&stranger, &token),
                without_a_pong(&stranger, &token),
                without_a_window(&stranger, &token),
                without_a_credential(&stranger),
                at_the_admin_listener(admin),
            )
        };
        // Idle for two minutes, it would be closed as well.
        let active = async {
            loop {
                tokio::time::sleep(Duration::from_secs(30)).await;
                assert_eq!(good.get(ROLES, &[("authorization", &token)]).await.unwrap().status(), 200);
            }
        };
        tokio::select! { _ = silent => {}, () = active => {} }
        assert!(good.is_open().await);
        assert_eq!(good.get(ROLES, &[("authorization", &token)]).await.unwrap().status(), 200);
    });
}

#[test]
fn client_that_reads_nothing_is_disconnected() {
    let (cluster, _) = Cluster::shared();
    let daypass = Daypass::start(cluster, &Launch::default());
    let stranger = Stranger::new(cluster, &daypass);
    let token = daypass.owner.token().to_owned();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut stream = runtime.block_on(stranger.tls("http/1.1")).unwrap();
    let first = format!("GET {ROLES} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    runtime.block_on(stream.write_all(first.as_bytes())).unwrap();
    eventually("the client has authenticated", || (daypass.metric(AUTHENTICATED) > 0.0).then_some(()));
    // More answers than the socket buffers hold.
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let _full = runtime.block_on(async { timeout(DEADLINE / 10, stream.write_all(requests.as_bytes())).await });
    eventually("the connection is closed", || {
        (daypass.metric(AUTHENTICATED) + daypass.metric(UNAUTHENTICATED) == 0.0).then_some(())
    });
    drop(stream);
}
