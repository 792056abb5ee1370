//! A rolling upgrade under load loses no request. `make bench-rolling` sends as many as are named there; here it is one upgrade's.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::json;

use crate::support::{Created, Daypass, Lab, Launch, Raw, eventually, now, replica, site, wait_until};

const CLIENTS: u32 = 5;
/// Of each client.
const INTERVAL: Duration = Duration::from_millis(100);
/// After as many requests a client connects anew.
const REQUESTS_OF_CONNECTION: usize = 40;
/// How often readiness is asked for: the time for which a Service sends connections to a replica that is about to end.
const PROBE: Duration = Duration::from_secs(1);

/// What a Service is to its clients: it gives each connection to the next of the replicas that are ready, and does not look into it.
struct Service {
    address: String,
    /// The API's address and the probe's, and whether it was ready at the last look.
    replicas: Mutex<Vec<(String, String, bool)>>,
    next: AtomicUsize,
}

impl Service {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = Arc::new(Self { address, replicas: Mutex::default(), next: AtomicUsize::new(0) });
        let (accepting, probing) = (service.clone(), Arc::downgrade(&service));
        thread::spawn(move || {
            for client in listener.incoming() {
                let Some(target) = accepting.target() else { continue };
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) {
                    pass(client, server);
                }
            }
        });
        thread::spawn(move || {
            while let Some(service) = probing.upgrade() {
                service.probe();
                thread::sleep(PROBE);
            }
        });
        service
    }

    fn add(&self, daypass: &Daypass) {
        let address = daypass.url.strip_prefix("https://").unwrap().to_owned();
        self.replicas.lock().unwrap().push((address, daypass.admin_url.clone(), true));
    }

    fn target(&self) -> Option<String> {
        let replicas = self.replicas.lock().unwrap();
        let ready: Vec<_> = replicas.iter().filter(|(_, _, ready)| *ready).collect();
        let next = self.next.fetch_add(1, Ordering::Relaxed) % ready.len().max(1);
        ready.get(next).map(|(address, _, _)| address.clone())
    }

    fn probe(&self) {
        let probes: Vec<String> = self.replicas.lock().unwrap().iter().map(|(_, probe, _)| probe.clone()).collect();
        for probe in probes {
            let answer = reqwest::blocking::get(format!("{probe}/readyz"));
            let ready = answer.is_ok_and(|answer| answer.status().is_success());
            for replica in self.replicas.lock().unwrap().iter_mut().filter(|replica| replica.1 == probe) {
                replica.2 = ready;
            }
        }
    }
}

/// Passes bytes on in both directions, and the end of each.
fn pass(client: TcpStream, server: TcpStream) {
    for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
        to.set_nodelay(true).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            let _already_closed = to.shutdown(Shutdown::Write);
        });
    }
}

/// One that keeps its connection, connects anew when it is told to, and tries nothing again: whatever goes wrong is a failure.
struct Client<'a> {
    service: &'a Service,
    certificate: &'a str,
    token: &'a str,
    path: String,
    connection: Option<(Raw, usize)>,
}

impl Client<'_> {
    /// The `n`th request: the member is read, and at every tenth one changed.
    fn request(&mut self, n: usize) -> Result<(), String> {
        let (method, body) = match n % 10 {
            9 => ("PATCH", json!({"duration": 2 + n / 10 % 2}).to_string()),
            _ => ("GET", String::new()),
        };
        let (path, token, length) = (&self.path, self.token, body.len());
        let head = format!("{method} /dp-1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n");
        let text = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        let answer = self.send(&text).map_err(|error| format!("{method}: {error}"))?;
        let is_ok = answer.starts_with("HTTP/1.1 200 ");
        if is_ok { Ok(()) } else { Err(format!("{method}: {answer}")) }
    }

    fn send(&mut self, text: &str) -> io::Result<String> {
        let (mut connection, sent) = match self.connection.take() {
            Some(kept) => kept,
            None => (Raw::to(&self.service.address, self.certificate)?, 0),
        };
        connection.try_send(text)?;
        let answer = connection.try_answer()?;
        if !answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n") && sent < REQUESTS_OF_CONNECTION {
            self.connection = Some((connection, sent + 1));
        }
        Ok(answer)
    }
}

/// curl, which speaks HTTP/2, ten times a second: status, version and new connections of each request go to this file.
fn curl(lab: &Lab, service: &Service, token: &str, path: &str) -> (Child, PathBuf) {
    let folder = lab.fresh_folder("curl");
    let (ca, log) = (folder.join("ca.pem"), folder.join("log"));
    fs::write(&ca, lab.serving_certificate()).unwrap();
    let mut command = Command::new("curl");
    // What it writes there is not held back.
    command.args(["--silent", "--show-error", "--config", "-"]).stderr(File::create(&log).unwrap());
    let mut curl = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let config = format!(
        "cacert = \"{}\"\nheader = \"Authorization: Bearer {token}\"\nurl = \"https://{}/dp-1{path}#[1-1000000]\"\nrate = \"10/s\"\n\
         output = \"/dev/null\"\nwrite-out = \"%{{stderr}}%{{http_code}} %{{http_version}} %{{num_connects}}\\n\"\n",
        ca.display(),
        service.address,
    );
    curl.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    (curl, log)
}

/// What became of the requests.
#[derive(Default)]
struct Tally {
    took: Vec<Duration>,
    failures: Vec<String>,
}

#[test]
fn a_rolling_upgrade_under_load_loses_no_request() {
    let least: usize = env::var("DAYPASS_ROLLING_REQUESTS").map_or(0, |number| number.parse().unwrap());
    let lab = site();
    let role = lab.reader();
    // As the chart starts them.
    let launch = |name: String| {
        let mut launch: Launch = replica(&name);
        launch.args.push("--shutdown-delay-seconds=10".to_owned());
        launch
    };
    let mut replicas = ["r0", "r1"].map(|name| Daypass::start(&lab, &launch(name.to_owned())));
    let service = Service::start();
    replicas.iter().for_each(|replica| service.add(replica));
    let owner = replicas[0].owner.clone();
    let certificate = lab.serving_certificate();
    let members: Vec<Created> = (0..CLIENTS).map(|_| Created::new(&owner, &role, 2)).collect();

    let (mut curl, curl_log) = curl(&lab, &service, owner.token(), &members[0].path(""));
    // It may be writing the last line.
    let by_curl = || -> Vec<String> {
        let log = fs::read_to_string(&curl_log).unwrap();
        log.rsplit_once('\n').map_or(vec![], |(lines, _)| lines.lines().map(str::to_owned).collect())
    };
    let connections = |lines: &[String]| lines.iter().filter(|line| line.ends_with(" 1")).count();
    let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    let mut upgrades = 0;
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .zip(&members)
            .map(|(client, member)| {
                let mut client_of = Client {
                    service: &service,
                    certificate: &certificate,
                    token: owner.token(),
                    path: member.path(""),
                    connection: None,
                };
                let (is_over, sent) = (&is_over, &sent);
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    let mut due = start + INTERVAL * client / CLIENTS;
                    for n in 0.. {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        due += INTERVAL;
                        let begun = Instant::now();
                        tally.failures.extend(client_of.request(n).err());
                        tally.took.push(begun.elapsed());
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    tally
                })
            })
            .collect();
        // One after the other, the leader among them, as a Deployment does: a new one is ready before an old one goes.
        while upgrades < 2 || sent.load(Ordering::Relaxed) < least {
            let new = Daypass::start(&lab, &launch(format!("r{}", upgrades + 2)));
            service.add(&new);
            let mut old = std::mem::replace(&mut replicas[upgrades % 2], new);
            old.terminate();
            let ended = eventually("the old one ends", || old.ended());
            assert!(ended.contains("exit status: 0") && !old.log().contains("cut off"), "{ended}");
            service.replicas.lock().unwrap().retain(|(_, probe, _)| *probe != old.admin_url);
            upgrades += 1;
        }
        eventually("curl has gone to a new one", || (connections(&by_curl()) > 1).then_some(()));
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });

    curl.kill().unwrap();
    curl.wait().unwrap();
    let by_curl = by_curl();
    println!("curl: {} requests over {} connections", by_curl.len(), connections(&by_curl));
    assert!(by_curl.iter().all(|line| line.starts_with("200 2 ")), "{by_curl:#?}");

    let mut took: Vec<Duration> = tallies.iter().flat_map(|tally| tally.took.clone()).collect();
    let failures: Vec<&String> = tallies.iter().flat_map(|tally| &tally.failures).collect();
    took.sort_unstable();
    let (rate, at) = (took.len() as f64 / start.elapsed().as_secs_f64(), |part: usize| took[took.len() * part / 100]);
    println!(
        "{} failed of {} at {rate:.0} a second while {upgrades} replicas were replaced; median {:?}, 99th percentile {:?}",
        failures.len(),
        took.len(),
        at(50),
        at(99),
    );
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(took.len() >= least.max(100), "{}", took.len());
}

#[test]
fn a_connection_outlives_the_pauses_of_its_client() {
    let (lab, daypass) = Lab::shared();
    let mut connection = Raw::connect(lab, daypass);
    for _ in 0..2 {
        connection.send("GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        assert!(connection.answer().starts_with("HTTP/1.1 200 "));
        // Longer than a new client may take to send anything at all.
        wait_until(now() + TimeDelta::seconds(12));
    }
}
