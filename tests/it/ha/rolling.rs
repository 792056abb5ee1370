//! A rolling upgrade under load loses no request. `make bench-rolling` sends more requests than the test does.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

use chrono::TimeDelta;

use super::load::{CLIENTS, Service, under_load};
use crate::support::{Cluster, Daypass, Launch, NewMember, RawConnection, eventually, now, replica, wait_until};

/// Starts curl with ten HTTP/2 requests a second. It writes status, version and new connections of each to a file.
fn curl(cluster: &Cluster, service: &Service, token: &str, path: &str) -> (Child, PathBuf) {
    let folder = cluster.fresh_folder("curl");
    let (ca, log) = (folder.join("ca.pem"), folder.join("log"));
    fs::write(&ca, cluster.serving_certificate()).unwrap();
    let mut command = Command::new("curl");
    // Unbuffered.
    command.args(["--silent", "--show-error", "--config", "-"]).stderr(File::create(&log).unwrap());
    let mut curl = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let config = format!(
        "cacert = \"{}\"\nheader = \"Authorization: Bearer {token}\"\n\
         url = \"https://{}/dp-1{path}#[1-1000000]\"\nrate = \"10/s\"\n\
         output = \"/dev/null\"\nwrite-out = \"%{{stderr}}%{{http_code}} %{{http_version}} %{{num_connects}}\\n\"\n",
        ca.display(),
        service.address,
    );
    curl.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    (curl, log)
}

#[test]
fn rolling_upgrade_under_load_loses_no_request() {
    let least: usize = env::var("DAYPASS_ROLLING_REQUESTS").map_or(0, |number| number.parse().unwrap());
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    // With the chart's options.
    let launch = |name: String| {
        let mut launch: Launch = replica(&name);
        launch.args.push("--shutdown-delay-seconds=10".to_owned());
        launch
    };
    let mut replicas = ["r0", "r1"].map(|name| Daypass::start(&cluster, &launch(name.to_owned())));
    let service = Service::start();
    replicas.iter().for_each(|replica| service.add(replica));
    let owner = replicas[0].owner.clone();
    let certificate = cluster.serving_certificate();
    let members: Vec<NewMember> = (0..CLIENTS).map(|_| NewMember::new(&owner, &role, 2)).collect();

    let (mut curl, curl_log) = curl(&cluster, &service, owner.token(), &members[0].path(""));
    // The last line may be incomplete.
    let by_curl = || -> Vec<String> {
        let log = fs::read_to_string(&curl_log).unwrap();
        log.rsplit_once('\n').map_or(vec![], |(lines, _)| lines.lines().map(str::to_owned).collect())
    };
    let connections = |lines: &[String]| lines.iter().filter(|line| line.ends_with(" 1")).count();
    let mut upgrades = 0;
    let tally = under_load(&service, &certificate, owner.token(), &members, |sent| {
        // Like a Deployment: one by one, including the leader, each new replica ready before an old one stops.
        while upgrades < 2 || sent.load(Ordering::Relaxed) < least {
            let new = Daypass::start(&cluster, &launch(format!("r{}", upgrades + 2)));
            service.add(&new);
            let mut old = std::mem::replace(&mut replicas[upgrades % 2], new);
            old.terminate();
            let ended = eventually("the old one ends", || old.ended());
            assert!(ended.contains("exit status: 0") && !old.log().contains("cut off"), "{ended}");
            service.remove(&old);
            upgrades += 1;
        }
        eventually("curl has gone to a new one", || (connections(&by_curl()) > 1).then_some(()));
    });

    curl.kill().unwrap();
    curl.wait().unwrap();
    let by_curl = by_curl();
    println!("curl: {} requests over {} connections", by_curl.len(), connections(&by_curl));
    assert!(by_curl.iter().all(|line| line.starts_with("200 2 ")), "{by_curl:#?}");

    let at = |part: usize| tally.took[tally.took.len() * part / 100];
    println!(
        "{} failed of {} at {:.0} a second while {upgrades} replicas were replaced; median {:?}, 99 % {:?}",
        tally.failures.len(),
        tally.took.len(),
        tally.rate,
        at(50),
        at(99),
    );
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    assert!(tally.took.len() >= least.max(100), "{}", tally.took.len());
}

#[test]
fn idle_connection_survives_client_pauses() {
    let (cluster, daypass) = Cluster::shared();
    let mut connection = RawConnection::connect(cluster, daypass);
    for _ in 0..2 {
        connection.send("GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        assert!(connection.answer().starts_with("HTTP/1.1 200 "));
        // Longer than the time in which a new client has to send a request.
        wait_until(now() + TimeDelta::seconds(12));
    }
}
