//! Limits for clients that have not authenticated, and service for clients that have.

use std::fs;

use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::{Builder, Runtime};

use crate::support::{Cluster, Daypass, Http2, Launch, Stranger, eventually};

/// The memory limit of the chart's container.
const MEMORY_LIMIT: usize = 256 << 20;
const ROLES: &str = "/dp-1/members/roles";
const UNAUTHENTICATED: &str = r#"daypass_connections{state="unauthenticated"}"#;
/// The caps on unauthenticated connections, in total and for one address.
const CONNECTIONS: usize = 192;
const OF_AN_ADDRESS: usize = 128;
/// The number of ways in `hold`. The first five hold a connection for as long as Daypass allows.
const WAYS: usize = 8;
const LASTING: usize = 5;
/// The cap on streams of an HTTP/2 connection.
const STREAMS: usize = 100;
/// The number of reset streams after which Daypass closes a connection.
const RESETS: usize = 100;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The peak resident memory of the process, in bytes.
fn peak_memory(daypass: &Daypass) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daypass.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// A well-formed token with a wrong signature, which only the API server can refuse.
fn forged() -> String {
    // {"alg":"RS256"}, {"aud":["daypass"]}
    format!("Bearer eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOlsiZGF5cGFzcyJdfQ.{}", "a".repeat(342))
}

/// Holds a connection in one of several ways. Returns what has to stay open.
async fn hold(stranger: &Stranger, way: usize) -> std::io::Result<Box<dyn Send>> {
    let failed = std::io::Error::other::<h2::Error>;
    Ok(match way {
        // Answers that the client does not read.
        0 => {
            let mut connection = stranger.http2(0).await?;
            let mut answers = Vec::new();
            for _ in 0..STREAMS {
                answers.push(connection.send(Method::GET, "/openapi.json", &[], false).await.map_err(failed)?);
            }
            connection.settle().await.map_err(failed)?;
            Box::new((connection, answers))
        }
        // Large heads, and bodies that do not end.
        1 => {
            let mut connection = stranger.http2(65_535).await?;
            let mut bodies = Vec::new();
            let filler = "a".repeat(3_000);
            for _ in 0..STREAMS {
                let headers = [("content-type", "application/json"), ("x-filler", &*filler)];
                let sent = connection.send(Method::POST, "/dp-1/members", &headers, true).await;
                let Ok((answer, mut body)) = sent else { break };
                let _refused = body.send_data(Bytes::from(vec![b' '; 1024]), false);
                bodies.push((answer, body));
            }
            connection.settle().await.map_err(failed)?;
            Box::new((connection, bodies))
        }
        // Streams that are reset once the server has read them.
        2 => {
            let mut connection = stranger.http2(65_535).await?;
            reset_streams(&mut connection, "/openapi.json", &[]).await.map_err(failed)?;
            Box::new(connection)
        }
        // A hundred small requests whose answers the client does not read.
        3 => {
            let mut connection = stranger.http2(0).await?;
            let mut answers = Vec::new();
            for _ in 0..STREAMS {
                answers.push(connection.send(Method::GET, "/dp-1/members", &[], false).await.map_err(failed)?);
            }
            connection.settle().await.map_err(failed)?;
            Box::new((connection, answers))
        }
        // Nothing after one answer.
        4 => {
            let mut connection = stranger.http2(65_535).await?;
            connection.get("/", &[]).await.map_err(failed)?;
            Box::new(connection)
        }
        // An HTTP/1.1 body that never ends.
        5 => {
            let mut stream = stranger.tls("http/1.1").await?;
            let head = "POST /dp-1/members HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
            stream.write_all(format!("{head}{}", " ".repeat(50_000)).as_bytes()).await?;
            stream.flush().await?;
            Box::new(stream)
        }
        // A head that never ends.
        6 => {
            let mut stream = stranger.tls("http/1.1").await?;
            stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(30_000)).as_bytes()).await?;
            stream.flush().await?;
            Box::new(stream)
        }
        // Half a handshake: the header of a 16 KiB record and a small part of it.
        _ => {
            let mut stream = stranger.tcp().await?;
            stream.write_all(&[&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..], &[0; 8_000]].concat()).await?;
            Box::new(stream)
        }
    })
}

/// Sends many requests and resets each once the server has read it.
async fn reset_streams(connection: &mut Http2, path: &str, headers: &[(&str, &str)]) -> Result<(), h2::Error> {
    for _ in 0..RESETS / 10 {
        let mut streams = Vec::new();
        for _ in 0..10 {
            streams.push(connection.send(Method::GET, path, headers, false).await?);
        }
        connection.settle().await?;
        streams.iter_mut().for_each(|(_, stream)| stream.send_reset(h2::Reason::CANCEL));
        connection.settle().await?;
    }
    Ok(())
}

#[test]
fn full_connection_caps_keep_memory_low_and_serve_clients() {
    let (cluster, _) = Cluster::shared();
    let daypass = Daypass::start(cluster, &Launch::default());
    let certificate = cluster.serving_certificate();
    // Opens a connection before the strangers come.
    let earlier = daypass.owner.keeping_connections(&certificate);
    earlier.get("/members/roles").expect(200);
    let stranger = Stranger::new(cluster, &daypass);
    let other = stranger.from([127, 0, 0, 2]);
    let runtime = runtime();
    let attacks = stream::iter(0..CONNECTIONS).map(|n| {
        let stranger = if n % 2 == 0 { &stranger } else { &other };
        hold(stranger, if n % 9 == 0 { n / 9 % WAYS } else { n / 2 % LASTING })
    });
    // A few at a time: the strangers use this machine's cores too.
    let held: Vec<_> = runtime.block_on(attacks.buffer_unordered(8).collect());
    println!("{} of {CONNECTIONS} are held", daypass.metric(UNAUTHENTICATED));
    for _ in 0..5 {
        let evicted = daypass.metric("daypass_connections_evicted_total");
        // They come from the same address as the normal client, before it.
        let crowd = join_all((0..=OF_AN_ADDRESS).map(|_| stranger.tcp()));
        let crowd: Vec<_> = runtime.block_on(crowd);
        daypass.owner.reconnected(&certificate).get("/members/roles").expect(200);
        assert!(daypass.metric("daypass_connections_evicted_total") > evicted, "a connection was evicted");
        assert!(crowd.iter().all(Result::is_ok));
    }
    eventually("the cap holds", || (daypass.metric(UNAUTHENTICATED) <= CONNECTIONS as f64).then_some(()));
    // The connection from before still works.
    earlier.get("/members/roles").expect(200);
    let peak = peak_memory(&daypass);
    println!("at most {} MiB were resident", peak >> 20);
    assert!(peak < MEMORY_LIMIT, "{} MiB", peak >> 20);
    drop(held);
}

/// Sends GETs concurrently over these connections; the status, presence of `Retry-After` and text of each answer.
async fn get_at_once(connections: &mut [Http2], each: usize, token: &str) -> Vec<(u16, bool, String)> {
    let mut answers = Vec::new();
    for connection in connections {
        for _ in 0..each {
            let sent = connection.send(Method::GET, ROLES, &[("authorization", token)], false).await;
            answers.push(sent.unwrap().0);
        }
    }
    let read = answers.into_iter().map(|answer| async {
        let mut answer = answer.await.unwrap();
        let text = answer.body_mut().data().await.unwrap().unwrap();
        let waits = answer.headers().contains_key("retry-after");
        (answer.status().as_u16(), waits, String::from_utf8_lossy(&text).into_owned())
    });
    join_all(read).await
}

#[test]
fn abandoned_requests_count_against_the_capacity() {
    let cluster = Cluster::breakable();
    let daypass = Daypass::start(&cluster, &Launch::default());
    let stranger = Stranger::new(&cluster, &daypass);
    let token = format!("Bearer {}", daypass.owner.token());
    let authorized = [("authorization", &*token)];
    let runtime = runtime();
    let mut known = runtime.block_on(async {
        let mut known = Vec::new();
        for _ in 0..3 {
            let mut connection = stranger.http2(65_535).await.unwrap();
            assert_eq!(connection.get(ROLES, &authorized).await.unwrap().status(), 200);
            known.push(connection);
        }
        known
    });

    cluster.pause_apiserver();
    let (reviews, refused) = (daypass.calls("create_token_review"), "daypass_http_requests_refused_total");
    let forged = forged();
    let _abandoning = runtime.block_on(async {
        // Opened only now: a connection has ten seconds for its first request.
        let mut unknown = stranger.http2(65_535).await.unwrap();
        reset_streams(&mut unknown, ROLES, &[("authorization", &forged)]).await.unwrap();
        unknown
    });
    assert_eq!(daypass.metric(refused), 0.0, "abandoned requests made room");
    // More requests than Daypass handles concurrently.
    let answers = runtime.block_on(get_at_once(&mut known, STREAMS - 1, &token));
    let turned_away = answers.iter().filter(|(_, _, text)| text.contains("too many requests at once")).count();
    assert!((1..=3 * STREAMS - 256).contains(&turned_away), "{turned_away} of {}", answers.len());
    assert_eq!(daypass.metric(refused), turned_away as f64);
    for (status, waits, text) in &answers {
        assert!(*status == 503 && *waits && text.contains("DP_ERR_UNAVAILABLE"), "{status}: {text}");
    }
    // Only a few of the hundred reset requests had begun; each holds its slot until its call times out.
    let begun = daypass.calls("create_token_review") - reviews - (answers.len() - turned_away) as f64;
    assert!(begun <= 12.0, "{begun}");
    assert!(daypass.audit_events().is_empty(), "the audit trail is empty");

    cluster.resume_apiserver();
    eventually("the same connections are served", || {
        let served = known.iter_mut().map(|it| it.get(ROLES, &authorized));
        let served = runtime.block_on(join_all(served));
        served.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 200)).then_some(())
    });
}

#[test]
fn caller_without_rights_and_with_slow_bodies_leaves_places_for_others() {
    let (cluster, _) = Cluster::shared();
    // Its own: for a moment it has no place for anybody else's requests.
    let daypass = &Daypass::start(cluster, &Launch::default());
    // Over this connection, which has authenticated, a request gets one of the places that all callers share.
    let owner = daypass.owner.keeping_connections(&cluster.serving_certificate());
    owner.get("/members").expect(200);
    let nobody = cluster.caller(daypass, &[], &[], None);
    let bearer = format!("Bearer {}", nobody.token());
    let stranger = Stranger::new(cluster, daypass);
    runtime().block_on(async {
        let mut connections = Vec::new();
        for _ in 0..4 {
            let mut connection = stranger.http2(65_535).await.unwrap();
            let answer = connection.get("/dp-1/members", &[("authorization", &bearer)]).await.unwrap();
            assert_eq!(answer.status(), 403);
            connections.push(connection);
        }
        let mut bodies = Vec::new();
        for connection in &mut connections {
            for _ in 0..STREAMS {
                let headers = [("authorization", &*bearer), ("content-type", "application/json")];
                bodies.push(connection.send(Method::POST, "/dp-1/members", &headers, true).await.unwrap());
            }
            connection.settle().await.unwrap();
        }
        let answers = tokio::task::spawn_blocking(move || {
            // Whose the requests are is known when they are authenticated. Until then they fill the places.
            eventually("what is beyond one caller's share is refused", || {
                (owner.get("/members").status == 200).then_some(())
            });
            (0..20).map(|_| owner.get("/members").status).collect()
        });
        let answers: Vec<u16> = answers.await.unwrap();
        assert_eq!(answers, [200; 20]);
        drop(bodies);
    });
}
