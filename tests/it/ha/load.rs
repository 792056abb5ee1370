//! A steady load over a Service: clients that count every failed request, while replicas come and go.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Daypass, NewMember, RawConnection, plain_client};

/// How many clients send requests at once.
pub const CLIENTS: u32 = 5;
/// Requests a second of each client.
const INTERVAL: Duration = Duration::from_millis(100);
/// The number of requests after which a client reconnects.
const REQUESTS_OF_CONNECTION: usize = 40;
/// The probe's period: for this long a Service still sends connections to a terminating replica.
const PROBE: Duration = Duration::from_secs(1);

/// A TCP load balancer like a Service: each connection goes to the next ready replica.
pub struct Service {
    pub address: String,
    /// The addresses of API and probe, and the last readiness.
    replicas: Mutex<Vec<(String, String, bool)>>,
    next: AtomicUsize,
}

impl Service {
    pub fn start() -> Arc<Self> {
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

    pub fn add(&self, daypass: &Daypass) {
        let address = daypass.url.strip_prefix("https://").unwrap().to_owned();
        self.replicas.lock().unwrap().push((address, daypass.admin_url.clone(), true));
    }

    /// Sends no more connections to this replica.
    pub fn remove(&self, daypass: &Daypass) {
        self.replicas.lock().unwrap().retain(|(_, probe, _)| *probe != daypass.admin_url);
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

/// The results of the requests.
pub struct Tally {
    /// How long each took, sorted.
    pub took: Vec<Duration>,
    pub failures: Vec<String>,
    /// Requests a second.
    pub rate: f64,
}

/// Reads and changes each of these members over the Service, ten requests a second, as long as `during` runs. It gets
/// the number of requests so far.
pub fn under_load(
    service: &Service,
    certificate: &str,
    token: &str,
    members: &[NewMember],
    during: impl FnOnce(&AtomicUsize),
) -> Tally {
    let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    let results: Vec<(Vec<Duration>, Vec<String>)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..)
            .zip(members)
            .map(|(client, member)| {
                let mut client_of = Client { service, certificate, token, path: member.path(""), connection: None };
                let (is_over, sent) = (&is_over, &sent);
                scope.spawn(move || {
                    let (mut took, mut failures) = (Vec::new(), Vec::new());
                    let mut due = start + INTERVAL * client / u32::try_from(members.len()).unwrap();
                    for n in 0.. {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        due += INTERVAL;
                        let begun = Instant::now();
                        failures.extend(client_of.request(n).err());
                        took.push(begun.elapsed());
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    (took, failures)
                })
            })
            .collect();
        // If `during` panics, the clients must end, since the scope waits for them.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = End(&is_over);
        during(&sent);
        drop(end);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (took, failures): (Vec<_>, Vec<_>) = results.into_iter().unzip();
    let mut took: Vec<Duration> = took.concat();
    took.sort_unstable();
    Tally { rate: took.len() as f64 / start.elapsed().as_secs_f64(), took, failures: failures.concat() }
}
