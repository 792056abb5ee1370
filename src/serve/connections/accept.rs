//! Accepts connections, each of which is one task, and speaks HTTP over them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::gauge::Gauge;
use rustls::ServerConfig;
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
use super::limits::{State, Verdict};
use super::wire::{Blocked, Wire};
use crate::api::Connection;
use crate::observability::metrics::{ConnectionLabels, Metrics};

/// How often each connection is looked at.
const TICK: Duration = Duration::from_secs(1);
/// After a failure to accept; most are for want of file descriptors.
const PAUSE: Duration = Duration::from_secs(1);
/// The largest head, in bytes. A request can hold one token, and the API server takes none of half this size.
const MAX_HEAD: usize = 32 * 1024;
/// The same over HTTP/2, where a header counts 32 bytes more than its text (RFC 9113, section 6.5.2).
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// What a client of HTTP/2 may send of one body, and of all, before somebody reads it.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// As many as the API server allows.
const STREAMS: u32 = 100;
/// What HTTP/2, and TLS, keep of an answer that the kernel does not take.
const WRITE_BUFFER: usize = 32 * 1024;

/// Where connections come from, and what they may do.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What to serve TLS with at the moment; plain HTTP without.
    pub tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// What they may do.
    pub limits: Limits,
    /// Where they are counted.
    pub metrics: Option<Metrics>,
    /// Where streams of HTTP/2 are answered.
    pub tasks: TaskTracker,
}

/// Serves until `stop`; then for as long as requests are under way, and no longer than `drain`.
pub async fn serve(listener: Listener, router: Router, stop: CancellationToken, drain: Duration) {
    let Listener { socket, tls, limits, metrics, tasks } = listener;
    let registry = Registry::new(limits.caps);
    let server = Arc::new(Server { router, tls, limits, metrics, builder: builder(&limits, tasks), stop });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = server.stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_clients(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (admitted, crowded) = registry.admit(peer.ip());
        if let Some(metrics) = server.metrics.as_ref().filter(|_| crowded) {
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

/// Whether accepting failed for what the client did.
fn is_clients(error: &std::io::Error) -> bool {
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
        // It counts the idle time before a head as well, and cuts where [`Limits::judge`] parts.
        .header_read_timeout(limits.idle + limits.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(WRITE_BUFFER)
        // A client that has vanished answers no ping.
        .keep_alive_interval(limits.pong * 3)
        .keep_alive_timeout(limits.pong);
    builder
}

/// Starts the tasks of HTTP/2's streams.
#[derive(Debug, Clone)]
struct Tasks(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

struct Server {
    router: Router,
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
            () = self.open(stream, peer, &admitted.connection, counted) => {}
        }
    }

    /// Begins with TLS, where that is spoken.
    async fn open(&self, stream: TcpStream, peer: SocketAddr, connection: &Connection, counted: Option<Counted<'_>>) {
        let accepted = Instant::now();
        // Answers are small; none waits for another.
        let _ = stream.set_nodelay(true);
        let blocked = Blocked::default();
        let wire = Wire { stream, connection: connection.clone(), blocked: blocked.clone() };
        let Some(tls) = &self.tls else {
            let session = Session { server: self, peer, connection, counted, accepted, blocked };
            return session.run(wire).await;
        };
        let acceptor = TlsAcceptor::from(tls.borrow().clone());
        let handshake = acceptor.accept_with(wire, |tls| tls.set_buffer_limit(Some(WRITE_BUFFER)));
        let stream = tokio::select! {
            stream = timeout(self.limits.head, handshake) => stream,
            () = self.stop.cancelled() => return,
        };
        if let Ok(Ok(stream)) = stream {
            let session = Session { server: self, peer, connection, counted, accepted, blocked };
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
    blocked: Blocked,
}

impl Session<'_> {
    async fn run(mut self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let (server, connection) = (self.server, self.connection);
        let service = service_fn(|request| answer(server.router.clone(), connection.clone(), self.peer, request));
        let http = server.builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut http = std::pin::pin!(http);
        let opened = Instant::now();
        let mut parting = None;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_to_part = tokio::select! {
                _ended = &mut http => return,
                () = server.stop.cancelled(), if parting.is_none() => true,
                () = connection.authenticated(), if self.counted.as_ref().is_some_and(|it| !it.authenticated) => {
                    self.counted.iter_mut().for_each(Counted::authenticate);
                    false
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    let state = State { accepted: self.accepted, opened, parting, blocked: self.blocked.at(now) };
                    match server.limits.judge(&state, &connection.usage(now), now) {
                        Verdict::Keep => false,
                        Verdict::Part => true,
                        Verdict::Cut => return,
                    }
                }
            };
            if is_to_part {
                parting = Some(Instant::now());
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(
    router: Router,
    connection: Connection,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let _under_way = connection.begin();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(connection);
    router.oneshot(request).await
}

/// A connection in the metrics.
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

    /// Sends a request over one connection, and reads until that ends: what was answered, and how it ended.
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
        let router = Router::new().route("/", get(|| async { "hello" }));
        let asked = tokio::task::spawn_blocking(move || ask(address, &pair.certificate));
        tokio::select! {
            () = serve(listener, router, CancellationToken::new(), Duration::ZERO) => panic!("it has ended"),
            asked = asked => {
                let (answer, end) = asked.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
                // Without `close_notify` this is an error.
                end.unwrap();
            }
        }
    }
}
