//! A reverse proxy between Daypass and the API server that kills Daypass at a chosen call, or holds calls and answers.

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
use tokio::sync::{Notify, watch};
use tower::BoxError;

use super::cluster::Cluster;
use super::daypass::send_signal;

/// The proxy; it runs until the tests end.
pub struct Proxy {
    /// A kubeconfig with the chart's rights and the proxy's address.
    pub kubeconfig: PathBuf,
    shared: Arc<Shared>,
}

/// What happens at the chosen call. The number is Daypass's process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Kills Daypass and drops the call.
    KillBefore(u32),
    /// Forwards the call, then kills Daypass before it gets the answer.
    KillAfter(u32),
    /// Holds the call until [`Proxy::release`].
    Hold,
    /// Forwards the call, and holds its answer until [`Proxy::release`].
    HoldAnswer,
    /// Forwards the call, and closes the connection instead of answering.
    BreakOff,
}

struct Shared {
    server: String,
    client: reqwest::Client,
    state: Mutex<Progress>,
    released: Notify,
    /// Texts of the calls that get no answer.
    blocked: watch::Sender<Vec<String>>,
}

#[derive(Default)]
struct Progress {
    /// The fault, and the number of changes until it happens.
    fault: Option<(Fault, usize)>,
    /// A text of the changes that count.
    of: String,
    /// The change at which it happened.
    happened_at: Option<String>,
    /// The changes that succeeded.
    made: Vec<String>,
    /// Names of members whose calls do not count.
    ignored: Vec<String>,
}

/// What to do with a call.
enum Verdict {
    Forward,
    Fault(Fault),
    /// The process that sent it is being killed.
    Drop,
}

impl Proxy {
    /// Starts one before the API server of `cluster`.
    pub fn start(cluster: &Cluster) -> Self {
        let ca = reqwest::Certificate::from_pem(cluster.plane.ca_pem().as_bytes()).unwrap();
        // Do not reuse an idle connection that the API server is about to close.
        let idle = Duration::from_secs(5);
        let client =
            reqwest::Client::builder().tls_certs_only([ca]).no_proxy().pool_idle_timeout(idle).build().unwrap();
        let (server, state) = (cluster.plane.server_url(), Mutex::default());
        let (released, blocked) = (Notify::new(), watch::Sender::new(Vec::new()));
        let shared = Arc::new(Shared { server, client, state, released, blocked });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kubeconfig = cluster.fresh_folder("proxy").join("kubeconfig");
        let text = fs::read_to_string(&cluster.kubeconfig).unwrap().replace(&shared.server, &url);
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

    /// Plans a fault at the `nth` change from now (the next is the first) and forgets earlier changes.
    pub fn plan(&self, fault: Fault, nth: usize) {
        self.plan_of(fault, nth, "");
    }

    /// The same, and counts only changes whose method and path contain this text; reads, too, if it has their method.
    pub fn plan_of(&self, fault: Fault, nth: usize, text: &str) {
        let mut state = self.state();
        (state.fault, state.happened_at, state.of) = (Some((fault, nth)), None, text.to_owned());
        state.made.clear();
    }

    /// Cancels the fault. Returns the change at which it happened, if it did.
    pub fn cancel(&self) -> Option<String> {
        let mut state = self.state();
        state.fault = None;
        state.happened_at.take()
    }

    /// Whether the fault has happened.
    pub fn has_happened(&self) -> bool {
        self.state().happened_at.is_some()
    }

    /// Forwards the held call, or passes on the held answer.
    pub fn release(&self) {
        self.shared.released.notify_one();
    }

    /// From now on, calls whose method and path contain this text wait, and answers to such calls break off.
    pub fn block(&self, text: &str) {
        self.shared.blocked.send_modify(|texts| texts.push(text.to_owned()));
    }

    /// Blocks nothing any more.
    pub fn unblock(&self) {
        self.shared.blocked.send_replace(Vec::new());
    }

    /// The changes that succeeded since the fault was planned: method and path.
    pub fn made(&self) -> Vec<String> {
        self.state().made.clone()
    }

    /// Stops counting calls for this member.
    pub fn ignore(&self, name: &str) {
        self.state().ignored.push(name.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, Progress> {
        self.shared.state.lock().unwrap()
    }
}

impl Progress {
    fn judge(&mut self, change: Option<&str>) -> Verdict {
        if self.happened_at.is_some() && matches!(self.fault, Some((Fault::KillBefore(_) | Fault::KillAfter(_), _))) {
            return Verdict::Drop;
        }
        let Some(change) = change else { return Verdict::Forward };
        let hit = match &mut self.fault {
            Some((fault, left)) => {
                *left = left.saturating_sub(1);
                (*left == 0 && self.happened_at.is_none()).then_some(*fault)
            }
            None => None,
        };
        if hit == Some(Fault::HoldAnswer) {
            // It happens when the API server has answered.
            self.fault = None;
        } else if hit.is_some() {
            self.happened_at = Some(change.to_owned());
        }
        hit.map_or(Verdict::Forward, Verdict::Fault)
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
        let counts = (request.method != Method::GET || state.of.starts_with("GET "))
            && !asks
            && change.contains(&state.of)
            && !state.ignored.iter().any(|name| about.contains(name));
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
            self.state.lock().unwrap().made.push(change.clone());
        }
        let mut response = Response::builder().status(answer.status());
        *response.headers_mut().unwrap() = end_to_end(std::mem::take(answer.headers_mut()));
        // Stream the body: a watch's answer lasts for minutes.
        let state = (answer, self.blocked.subscribe());
        let chunks = stream::unfold(state, move |(mut answer, mut blocked)| {
            let change = change.clone();
            async move {
                let chunk: Option<Result<Bytes, BoxError>> = tokio::select! {
                    chunk = answer.chunk() => chunk.map_err(Into::into).transpose(),
                    _ = blocked.wait_for(|texts| is_blocked(texts, &change)) => Some(Err("blocked".into())),
                };
                chunk.map(|chunk| (chunk, (answer, blocked)))
            }
        });
        response.body(Body::from_stream(chunks)).unwrap()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let call = format!("{} {}", request.method, request.uri);
    let _ = shared.blocked.subscribe().wait_for(|texts| !is_blocked(texts, &call)).await;
    match shared.judge(&request, &body) {
        Verdict::Forward => return shared.send(request, body).await,
        Verdict::Fault(Fault::Hold) => {
            shared.released.notified().await;
            return shared.send(request, body).await;
        }
        Verdict::Fault(Fault::HoldAnswer) => {
            let answer = shared.send(request, body).await;
            shared.state.lock().unwrap().happened_at = Some(call);
            shared.released.notified().await;
            return answer;
        }
        Verdict::Fault(Fault::BreakOff) => {
            drop(shared.send(request, body).await);
            // It ends the task of the connection.
            std::panic::resume_unwind(Box::new("as planned"));
        }
        Verdict::Fault(Fault::KillBefore(pid)) => send_signal(pid, "KILL"),
        Verdict::Fault(Fault::KillAfter(pid)) => {
            drop(shared.send(request, body).await);
            send_signal(pid, "KILL");
        }
        Verdict::Drop => {}
    }
    std::future::pending().await
}

fn is_blocked(texts: &[String], call: &str) -> bool {
    texts.iter().any(|text| call.contains(text))
}

/// Without hop-by-hop headers (RFC 9110, section 7.6.1).
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}
