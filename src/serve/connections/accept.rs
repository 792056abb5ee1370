//! Accepts connections and serves HTTP over them, one task for each.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::gauge::Gauge;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::Limits;
use super::caps::{Admitted, Registry};
use super::limits::{ConnectionState, Verdict};
use super::strict::Strict;
use super::wire::Wire;
use crate::authn::Connection;
use crate::gateway::Gateway;
use crate::observability::metrics::{ConnectionLabels, Metrics};

/// How often each connection is checked against its limits.
const TICK: Duration = Duration::from_secs(1);
/// The delay after a failure to accept. Most failures are a lack of file descriptors.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a connection may be silent before TCP asks whether the client is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long after that it asks again.
const PROBE: Duration = Duration::from_secs(5);
/// How often it asks in vain.
const PROBES: u32 = 3;
/// The largest request head over HTTP/1, in bytes. It carries one token, and the API server accepts none of half this
/// size.
const MAX_HEAD: usize = 32 * 1024;
/// The largest request head over HTTP/2, where each header counts 32 bytes extra (RFC 9113, section 6.5.2).
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// How many bytes of one body an HTTP/2 client may send ahead of the reader.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all bodies of a connection together.
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// How many requests an HTTP/2 connection may carry at once: as many as the API server allows.
const STREAMS: u32 = 100;
/// How many bytes of an answer HTTP/2 and TLS buffer while the kernel accepts no more.
const WRITE_BUFFER: usize = 32 * 1024;

/// What answers requests.
#[derive(Clone)]
pub struct App {
    /// Answers all but the gateway's.
    pub router: Router,
    /// The gateway. No layer of the router may come near it: it passes on what it gets.
    pub gateway: Option<Arc<Gateway>>,
    /// Whether this process is shutting down.
    pub stopping: Arc<AtomicBool>,
}

impl App {
    async fn answer(&self, request: axum::extract::Request) -> Result<Response, Infallible> {
        let version = request.version();
        let mut response = match self.gateway.as_ref().filter(|gateway| gateway.is_asked(&request)) {
            Some(gateway) => gateway.answer(request).await,
            None => self.router.clone().oneshot(request).await?,
        };
        // So that HTTP/1 clients connect anew, to another replica: one that sends its next request just as the
        // connection closes would lose it. HTTP/2 has GOAWAY for this, and forbids the header.
        let is_over = response.status() != StatusCode::SWITCHING_PROTOCOLS && version < Version::HTTP_2;
        if is_over && self.stopping.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// A listening socket and the rules for its connections.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// The current TLS configuration; plain HTTP without one.
    pub tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// The limits of its connections.
    pub limits: Limits,
    /// The metrics that count its connections.
    pub metrics: Option<Metrics>,
    /// Tracks the tasks that answer HTTP/2 requests.
    pub tasks: TaskTracker,
}

/// Serves until `stop` is cancelled, then finishes the requests in progress for up to `drain`.
pub async fn serve(listener: Listener, app: App, stop: CancellationToken, drain: Duration) {
    let Listener { socket, tls, limits, metrics, tasks } = listener;
    let registry = Registry::new(limits.caps);
    let server = Arc::new(Server { app, tls, limits, metrics, builder: builder(&limits, tasks), stop });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = server.stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_client_fault(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection; retrying");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (admitted, is_full) = registry.admit(peer.ip());
        if let Some(metrics) = server.metrics.as_ref().filter(|_| is_full) {
            metrics.connections_evicted.inc();
        }
        if let Some(admitted) = admitted {
            connections.spawn(server.clone().run(stream, peer, admitted));
        }
    }
    drop(socket);
    let ended = timeout(drain, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut off");
    }
}

/// Whether the client caused the failure to accept its connection.
fn is_client_fault(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn builder(limits: &Limits, tasks: TaskTracker) -> auto::Builder<Tasks> {
    let mut builder = auto::Builder::new(Tasks(tasks));
    builder
        .http1()
        .timer(TokioTimer::new())
        .keep_alive(limits.keep_alive)
        .max_buf_size(MAX_HEAD)
        // This timeout includes the idle time before a head, and cuts the connection. It must be longer than the idle
        // limit, after which `Limits::judge` closes gracefully.
        .header_read_timeout(limits.idle + limits.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(WRITE_BUFFER)
        // Detects clients that have vanished.
        .keep_alive_interval(limits.pong * 3)
        .keep_alive_timeout(limits.pong);
    builder
}

/// Spawns the tasks of HTTP/2 streams on the tracker.
#[derive(Debug, Clone)]
struct Tasks(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

struct Server {
    app: App,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    limits: Limits,
    metrics: Option<Metrics>,
    builder: auto::Builder<Tasks>,
    stop: CancellationToken,
}

impl Server {
    async fn run(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, admitted: Admitted) {
        let counted = self.metrics.as_ref().map(Counted::new);
        tokio::select! {
            () = admitted.close.cancelled() => {}
            () = admitted.connection.must_reset() => {}
            () = self.open(stream, peer, &admitted.connection, counted) => {}
        }
    }

    /// Performs the TLS handshake, if the listener has TLS, and serves HTTP.
    async fn open(&self, stream: TcpStream, peer: SocketAddr, connection: &Connection, counted: Option<Counted<'_>>) {
        let accepted = Instant::now();
        // Send small answers at once. A failure only costs time.
        let _ = stream.set_nodelay(true);
        // Finds out that a client has vanished while nothing is sent.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(PROBE).with_retries(PROBES);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let wire = Wire { stream, connection: connection.clone() };
        let Some(tls) = &self.tls else {
            let session = Session { server: self, peer, connection, counted, accepted };
            return session.run(wire).await;
        };
        let acceptor = TlsAcceptor::from(tls.borrow().clone());
        let handshake = acceptor.accept_with(wire, |tls| tls.set_buffer_limit(Some(WRITE_BUFFER)));
        let stream = tokio::select! {
            stream = timeout(self.limits.head, handshake) => stream,
            () = self.stop.cancelled() => return,
        };
        if let Ok(Ok(stream)) = stream {
            let session = Session { server: self, peer, connection, counted, accepted };
            session.run(stream).await;
        }
    }
}

/// HTTP over one connection.
struct Session<'a> {
    server: &'a Server,
    peer: SocketAddr,
    connection: &'a Connection,
    counted: Option<Counted<'a>>,
    accepted: Instant,
}

impl Session<'_> {
    async fn run(mut self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let (server, connection) = (self.server, self.connection);
        let service = service_fn(|request| answer(server.app.clone(), connection.clone(), self.peer, request));
        let http = server
            .builder
            .serve_connection_with_upgrades(TokioIo::new(Strict::new(stream, connection.clone())), service);
        let mut http = std::pin::pin!(http);
        let opened = Instant::now();
        let mut closing = None;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let must_close = tokio::select! {
                _ended = &mut http => return,
                () = server.stop.cancelled(), if closing.is_none() => true,
                () = connection.authenticated(), if self.counted.as_ref().is_some_and(|it| !it.authenticated) => {
                    self.counted.iter_mut().for_each(Counted::authenticate);
                    false
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    let state = ConnectionState { accepted: self.accepted, opened, closing };
                    match server.limits.judge(&state, &connection.usage(now), now) {
                        Verdict::Keep => false,
                        Verdict::Close => true,
                        Verdict::Cut => return,
                    }
                }
            };
            if must_close {
                closing = Some(Instant::now());
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(
    app: App,
    connection: Connection,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let _in_progress = connection.begin();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(connection);
    app.answer(request).await
}

/// A connection that the metrics count.
struct Counted<'a> {
    metrics: &'a Metrics,
    authenticated: bool,
}

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        let counted = Self { metrics, authenticated: false };
        counted.gauge(|gauge| gauge.inc());
        counted
    }

    fn authenticate(&mut self) {
        self.gauge(|gauge| gauge.dec());
        self.authenticated = true;
        self.gauge(|gauge| gauge.inc());
    }

    fn gauge(&self, change: impl FnOnce(&Gauge) -> i64) {
        let state =
            if self.authenticated { ConnectionLabels::AUTHENTICATED } else { ConnectionLabels::UNAUTHENTICATED };
        change(&self.metrics.connections.get_or_create(&state));
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.gauge(|gauge| gauge.dec());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _, Write as _};

    use axum::routing::get;
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
    use secrecy::ExposeSecret as _;

    use super::*;

    /// Sends a request and reads until the connection ends. Returns the answer and how the connection ended.
    fn ask(address: SocketAddr, certificate: &str) -> (String, io::Result<usize>) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let socket = std::net::TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        (String::from_utf8(answer).unwrap(), end)
    }

    #[tokio::test]
    async fn idle_connection_is_closed_and_not_cut() {
        let _set_by_another_test = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let pair =
            crate::serve::tls::self_signed(&["localhost".to_owned()], crate::clock::Clock::default().local()).unwrap();
        let config = crate::serve::tls::server_config(&pair.certificate, pair.key.expose_secret().as_bytes()).unwrap();
        let (_renewed, tls) = watch::channel(config);
        let socket = super::super::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let limits = Limits { idle: Duration::from_secs(2), ..Limits::API };
        let listener = Listener { socket, tls: Some(tls), limits, metrics: None, tasks: TaskTracker::new() };
        let app = App {
            router: Router::new().route("/", get(|| async { "hello" })),
            gateway: None,
            stopping: Arc::default(),
        };
        let asked = tokio::task::spawn_blocking(move || ask(address, &pair.certificate));
        tokio::select! {
            () = serve(listener, app, CancellationToken::new(), Duration::ZERO) => panic!("the server has ended"),
            asked = asked => {
                let (answer, end) = asked.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
                // An error without `close_notify`.
                end.unwrap();
            }
        }
    }
}
