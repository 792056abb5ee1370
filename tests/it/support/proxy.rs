//! A reverse proxy between Daypass and the API server that kills Daypass at a chosen call, or holds a call up.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::stream;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, Method};
use tokio::sync::Notify;

use super::daypass::send_signal;
use super::lab::Lab;

/// The proxy; it runs until the tests end.
pub struct Proxy {
    /// The chart's rights for Daypass, at the proxy's address.
    pub kubeconfig: PathBuf,
    shared: Arc<Shared>,
}

/// What is to happen to the process of this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// It is killed; the API server never hears of the call.
    KillBefore(u32),
    /// It is killed when the API server has answered; it never hears of the answer.
    KillAfter(u32),
    /// Its call waits until [`Proxy::release`].
    Hold,
}

struct Shared {
    server: String,
    client: reqwest::Client,
    state: Mutex<Progress>,
    released: Notify,
}

#[derive(Default)]
struct Progress {
    /// What is to happen, at the how manyth change from now.
    trap: Option<(Trap, usize)>,
    /// The change that was trapped.
    trapped: Option<String>,
    /// The changes that the API server made.
    made: Vec<String>,
    /// Texts (names of members): calls that have one of them do not count.
    ignored: Vec<String>,
}

/// What to do with a call.
enum Verdict {
    Forward,
    Trap(Trap),
    /// It comes from a process that is being killed.
    Drop,
}

impl Proxy {
    /// Starts one before the API server of `lab`.
    pub fn start(lab: &Lab) -> Self {
        let ca = reqwest::Certificate::from_pem(lab.plane.ca_pem().as_bytes()).unwrap();
        // An idle connection that the API server is about to close must not be used again.
        let idle = Duration::from_secs(5);
        let client =
            reqwest::Client::builder().tls_certs_only([ca]).no_proxy().pool_idle_timeout(idle).build().unwrap();
        let (server, state) = (lab.plane.server_url(), Mutex::default());
        let shared = Arc::new(Shared { server, client, state, released: Notify::new() });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kubeconfig = lab.fresh_folder("proxy").join("kubeconfig");
        let text = fs::read_to_string(&lab.kubeconfig).unwrap().replace(&shared.server, &url);
        fs::write(&kubeconfig, text).unwrap();
        let router = Router::new().fallback(serve).with_state(shared.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { kubeconfig, shared }
    }

    /// Sets a trap at the `nth` change from now (the next is the first), and forgets what was trapped and made before.
    pub fn set(&self, trap: Trap, nth: usize) {
        let mut state = self.state();
        (state.trap, state.trapped) = (Some((trap, nth)), None);
        state.made.clear();
    }

    /// Removes the trap; the change that went into it, if one did.
    pub fn disarm(&self) -> Option<String> {
        let mut state = self.state();
        state.trap = None;
        state.trapped.take()
    }

    /// Whether a change went into the trap.
    pub fn has_trapped(&self) -> bool {
        self.state().trapped.is_some()
    }

    /// Lets the held call go on.
    pub fn release(&self) {
        self.shared.released.notify_one();
    }

    /// The changes that the API server made since the trap was set: method and path.
    pub fn made(&self) -> Vec<String> {
        self.state().made.clone()
    }

    /// From now on calls about this member do not count.
    pub fn ignore(&self, name: &str) {
        self.state().ignored.push(name.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, Progress> {
        self.shared.state.lock().unwrap()
    }
}

impl Progress {
    fn judge(&mut self, change: Option<&str>) -> Verdict {
        if self.trapped.is_some() && matches!(self.trap, Some((Trap::KillBefore(_) | Trap::KillAfter(_), _))) {
            return Verdict::Drop;
        }
        let Some(change) = change else { return Verdict::Forward };
        let hit = match &mut self.trap {
            Some((trap, left)) => {
                *left = left.saturating_sub(1);
                (*left == 0 && self.trapped.is_none()).then_some(*trap)
            }
            None => None,
        };
        if hit.is_some() {
            self.trapped = Some(change.to_owned());
        }
        hit.map_or(Verdict::Forward, Verdict::Trap)
    }
}

impl Shared {
    fn judge(&self, request: &Parts, body: &Bytes) -> Verdict {
        let target = request.uri.to_string();
        let asks =
            ["tokenreviews", "subjectaccessreviews", "/leases", "dryRun="].iter().any(|part| target.contains(part));
        let change = format!("{} {target}", request.method);
        let about = format!("{change} {}", String::from_utf8_lossy(body));
        let mut state = self.state.lock().unwrap();
        let counts = request.method != Method::GET && !asks && !state.ignored.iter().any(|name| about.contains(name));
        state.judge(counts.then_some(&change))
    }

    async fn send(&self, request: Parts, body: Bytes) -> Response {
        let change = format!("{} {}", request.method, request.uri);
        let is_change = request.method != Method::GET;
        let url = format!("{}{}", self.server, request.uri);
        let sent = self.client.request(request.method, url).headers(end_to_end(request.headers)).body(body);
        let Ok(mut answer) = sent.send().await else {
            return Response::builder().status(502).body(Body::empty()).unwrap();
        };
        if is_change && answer.status().is_success() {
            self.state.lock().unwrap().made.push(change);
        }
        let mut response = Response::builder().status(answer.status());
        *response.headers_mut().unwrap() = end_to_end(std::mem::take(answer.headers_mut()));
        // A watch is answered for as long as it lasts.
        let chunks = stream::unfold(answer, |mut answer| async {
            answer.chunk().await.transpose().map(|chunk| (chunk, answer))
        });
        response.body(Body::from_stream(chunks)).unwrap()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    match shared.judge(&request, &body) {
        Verdict::Forward => return shared.send(request, body).await,
        Verdict::Trap(Trap::Hold) => {
            shared.released.notified().await;
            return shared.send(request, body).await;
        }
        Verdict::Trap(Trap::KillBefore(pid)) => send_signal(pid, "KILL"),
        Verdict::Trap(Trap::KillAfter(pid)) => {
            drop(shared.send(request, body).await);
            send_signal(pid, "KILL");
        }
        Verdict::Drop => {}
    }
    std::future::pending().await
}

/// Without what belongs to one connection only (RFC 9110, section 7.6.1).
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}
