//! A rolling upgrade under load loses no request. `make bench-rolling` sends more requests than the test does.

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

use crate::support::{
    Cluster, Daypass, Launch, NewMember, RawConnection, eventually, now, plain_client, replica, wait_until,
};

const CLIENTS: u32 = 5;
/// Requests a second of each client.
const INTERVAL: Duration = Duration::from_millis(100);
/// The number of requests after which a client reconnects.
const REQUESTS_OF_CONNECTION: usize = 40;
/// The probe's period: for this long a Service still sends connections to a terminating replica.
const PROBE: Duration = Duration::from_secs(1);

/// A TCP load balancer like a Service: each connection goes to the next ready replica.
struct Service {
    address: String,
    /// The addresses of API and probe, and the last readiness.
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
            let answer = plain_client().get(format!("{probe}/readyz")).send();
            let ready = answer.is_ok_and(|answer| answer.status().is_success());
            for replica in self.replicas.lock().unwrap().iter_mut().filter(|replica| replica.1 == probe) {
                replica.2 = ready;
            }
        }
    }
}

/// Copies bytes in both directions until both ends have closed.
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

/// A client that keeps its connection and reconnects after `Connection: close`. It never retries: every error counts.
struct Client<'a> {
    service: &'a Service,
    certificate: &'a str,
    token: &'a str,
    path: String,
    connection: Option<(RawConnection, usize)>,
}

impl Client<'_> {
    /// Sends the `n`th request: every tenth changes the member, the others read it.
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
            None => (RawConnection::to(&self.service.address, self.certificate)?, 0),
        };
        connection.try_send(text)?;
        let answer = connection.try_answer()?;
        if !answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n") && sent < REQUESTS_OF_CONNECTION {
            self.connection = Some((connection, sent + 1));
        }
        Ok(answer)
    }
}

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

/// The results of the requests.
#[derive(Default)]
struct Tally {
    took: Vec<Duration>,
    failures: Vec<String>,
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
        // Like a Deployment: one by one, including the leader, each new replica ready before an old one stops.
        while upgrades < 2 || sent.load(Ordering::Relaxed) < least {
            let new = Daypass::start(&cluster, &launch(format!("r{}", upgrades + 2)));
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
        "{} failed of {} at {rate:.0} a second while {upgrades} replicas were replaced; median {:?}, 99 % {:?}",
        failures.len(),
        took.len(),
        at(50),
        at(99),
    );
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(took.len() >= least.max(100), "{}", took.len());
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
