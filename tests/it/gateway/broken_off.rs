//! Requests that are broken off, in great numbers and at any point: they leave nothing behind.

use std::fs;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::limits::at;
use super::readers::{CONFIG_MAPS, WATCH, bearer};
use super::{Gateways, Guest};
use crate::support::{DEADLINE, Daypass, Stranger, eventually};

/// How many requests are broken off before the memory is measured, and afterwards.
const BEFORE: usize = 2_000;
const AFTER: usize = 8_000;
/// How many connections break requests off at once.
const AT_ONCE: usize = 8;
/// How many requests one HTTP/2 connection breaks off. A server closes those that reset too many (CVE-2023-44487).
const OF_A_CONNECTION: usize = 50;
/// One in so many is sent over HTTP/1.1, on a connection of its own that is reset.
const HTTP1: usize = 20;
/// How much more memory may be resident after the second part, in bytes: 8 KiB for each request would be more.
const GROWTH: usize = 48 << 20;
/// How many connections to the API server may stay, idle, and how many other files.
const FILES: usize = 50;

/// Breaks off requests over HTTP/2: before the server has seen them, before their answer, within it, and within their
/// own body. Returns how many.
async fn over_http2(stranger: &Stranger, authorization: &str, first: usize) -> Result<usize, h2::Error> {
    let mut connection = stranger.http2(1 << 16).await.map_err(|_| h2::Reason::CONNECT_ERROR)?;
    for number in first..first + OF_A_CONNECTION {
        let path = if number % 2 == 0 { WATCH } else { CONFIG_MAPS };
        let headers = [("authorization", authorization), ("content-type", "application/json")];
        let has_body = number % 5 == 4;
        let method = if has_body { Method::POST } else { Method::GET };
        let path = if has_body { CONFIG_MAPS } else { path };
        let (answer, mut body) = connection.send(method, path, &headers, has_body).await?;
        match number % 5 {
            // At once. A server that has not seen a request yet counts its reset.
            0 if number % 25 == 0 => {}
            0 | 1 => connection.settle().await?,
            2 => drop(answer.await?),
            3 => drop(answer.await?.into_body().data().await),
            _ => {
                body.send_data(Bytes::from_static(b"{\"metadata\":"), false)?;
                connection.settle().await?;
            }
        }
    }
    Ok(OF_A_CONNECTION)
}

/// Breaks off a request over HTTP/1.1 with a reset: within its head, or after some bytes of its answer.
async fn over_http1(stranger: &Stranger, authorization: &str, number: usize) -> io::Result<()> {
    let mut stream = stranger.tls("http/1.1").await?;
    let head = format!("GET {WATCH} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n");
    let cut = number * 37 % (2 * head.len());
    stream.write_all(&head.as_bytes()[..cut.min(head.len())]).await?;
    if let Some(beyond @ 1..) = cut.checked_sub(head.len()) {
        stream.read_exact(&mut vec![0; beyond]).await?;
    }
    SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO))
}

/// Breaks off this many requests.
async fn break_off(stranger: &Stranger, guest: &Guest, many: usize) {
    let authorization = bearer(guest);
    let mut parts = JoinSet::new();
    for part in 0..AT_ONCE {
        let (stranger, authorization) = (stranger.clone(), authorization.clone());
        parts.spawn(async move {
            let mut done = 0;
            while done < many / AT_ONCE {
                for number in 0..OF_A_CONNECTION / HTTP1 {
                    over_http1(&stranger, &authorization, done + part + number).await.unwrap();
                    done += 1;
                }
                done += over_http2(&stranger, &authorization, done + part).await.unwrap();
            }
        });
    }
    timeout(10 * DEADLINE, parts.join_all()).await.expect("all are broken off in time");
}

/// The resident memory, in bytes, and the number of open files.
fn resources(daypass: &Daypass) -> (usize, usize) {
    let process = format!("/proc/{}", daypass.pid());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10;
    (memory, fs::read_dir(format!("{process}/fd")).unwrap().count())
}

/// Waits until nothing is open. Each request is in the registry as long as a task forwards it, and an empty registry
/// measures no age.
fn wait_until_idle(daypass: &Daypass) {
    eventually("nothing is open", || {
        let streams = daypass.metric("daypass_gateway_streams{kind=\"watch\"}");
        (streams == 0.0 && daypass.metric("daypass_gateway_feed_age_seconds") == 0.0).then_some(())
    });
}

#[test]
fn requests_that_are_broken_off_leave_nothing_behind() {
    let (runtime, gateways) = (Runtime::new().unwrap(), Gateways::shared());
    let mut daypass = Daypass::with_args(
        gateways.cluster,
        &[
            "--kubeconfig-mode=gateway",
            "--gateway-member-streams=50",
            "--gateway-member-requests=50",
            "--gateway-drain-seconds=1",
        ],
    );
    let guest = gateways.member(&gateways.role());
    let stranger = Stranger::new(gateways.cluster, &daypass);
    let api = at(&guest, &daypass, gateways.cluster);
    api.get("/api/v1/namespaces/default/configmaps").expect(200);
    let (_, files) = resources(&daypass);
    runtime.block_on(break_off(&stranger, &guest, BEFORE));
    wait_until_idle(&daypass);
    let (memory, _) = resources(&daypass);
    runtime.block_on(break_off(&stranger, &guest, AFTER));
    wait_until_idle(&daypass);

    let grown = resources(&daypass).0.saturating_sub(memory);
    println!("{} MiB resident before the last {AFTER}, {} KiB more after them", memory >> 20, grown >> 10);
    assert!(grown < GROWTH, "{} KiB more after {AFTER} requests", grown >> 10);
    eventually("the connections are closed", || (resources(&daypass).1 < files + FILES).then_some(()));
    for path in ["/api/v1/namespaces/default/configmaps?watch=1", "/api/v1/namespaces/default/pods"] {
        let answers = (0..50).map(|_| api.request("GET", path).send().unwrap()).collect::<Vec<_>>();
        assert!(answers.iter().all(|answer| answer.status() == 200), "all places are free: {path}");
    }
    // It waits for the tasks that forward.
    daypass.stop();
    assert!(!daypass.log().contains("were aborted") && !daypass.log().contains("cut off"));
}
