//! Connections to the API server for forwarded requests: HTTP/1.1, and no credential of Daypass's own.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::ConfigExt as _;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _, service_fn};

use super::failure::NoAnswer;

/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How often TCP asks whether the API server is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long after that it asks again.
const PROBE: Duration = Duration::from_secs(5);
/// How often it asks in vain.
const PROBES: u32 = 3;
/// How many bytes the kernel buffers each way; it doubles this for its own overhead (socket(7)). The default is
/// megabytes, which count against the container's memory limit.
const SOCKET_BUFFER: usize = 128 * 1024;
/// The largest body that goes over a pooled connection, in bytes: one that the connection can hold.
const POOLED_BODY: u64 = 32 * 1024;
/// How long an idle connection is kept: less than the API server keeps it (90 s), so that no request meets its close.
const IDLE: Duration = Duration::from_secs(45);
/// How much of an answer is read ahead, in bytes. Heads are smaller.
const BUFFER: usize = 64 * 1024;
/// How many idle connections are kept.
const IDLE_CONNECTIONS: usize = 32;

type Dial = BoxCloneSyncService<Uri, Wire, BoxError>;

/// The way to the API server.
#[derive(Clone)]
pub(super) struct Upstream {
    client: Client<Dial, Body>,
    dial: Dial,
    tasks: TaskTracker,
}

/// Keeps a connection open until it is dropped. An upgraded connection no longer needs it.
pub(super) struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upstream {
    /// Takes the address, the trusted CA and the proxy from `config`, and nothing else: a request that bears no
    /// member's token is anonymous.
    ///
    /// # Errors
    /// If the CA is unreadable, or the proxy's protocol is unknown.
    pub(super) fn new(config: &Config, tasks: TaskTracker) -> kube::Result<Self> {
        let mut bare = Config::new(config.cluster_url.clone());
        bare.root_cert.clone_from(&config.root_cert);
        bare.tls_server_name.clone_from(&config.tls_server_name);
        bare.accept_invalid_certs = config.accept_invalid_certs;
        bare.proxy_url.clone_from(&config.proxy_url);
        let dial = dial(&bare)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(BUFFER)
            .build(dial.clone());
        Ok(Self { client, dial, tasks })
    }

    /// Sends a request, and waits for the head of the answer. A large body has a connection of its own: if the API
    /// server does not read it, only closing the connection ends it.
    ///
    /// The library repeats a request only if none of it has been sent, because its connection has just been closed.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<(Response<Incoming>, Option<Driver>), NoAnswer> {
        let is_small = request.body().size_hint().upper().is_some_and(|size| size <= POOLED_BODY);
        if is_small {
            let answer = self.client.request(request).await;
            let is_unsent = |error: &legacy::Error| {
                error.is_connect() || error.source().and_then(|it| it.downcast_ref()).is_some_and(is_unsent)
            };
            return Ok((answer.map_err(|error| no_answer(&error, is_unsent(&error)))?, None));
        }
        let (answer, driver) = self.send_alone(request).await?;
        Ok((answer, Some(driver)))
    }

    /// Sends a request over a connection of its own, which the answer may upgrade.
    pub(super) async fn send_alone(
        &self,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Driver), NoAnswer> {
        let wire = self.dial.clone().oneshot(request.uri().clone()).await.map_err(|error| no_answer(&*error, true))?;
        let connected = http1::Builder::new().max_buf_size(BUFFER).handshake(wire).await;
        let (mut sender, connection) = connected.map_err(|error| no_answer(&error, true))?;
        let driver = Driver(self.tasks.spawn(connection.with_upgrades()).abort_handle());
        // The target of a request to an origin server is its path (RFC 9112, section 3.2.1).
        *request.uri_mut() = request.uri().path_and_query().map_or_else(Uri::default, |target| target.clone().into());
        let answer = sender.send_request(request).await;
        Ok((answer.map_err(|error| no_answer(&error, is_unsent(&error)))?, driver))
    }
}

fn no_answer(error: &(dyn Error + 'static), is_unsent: bool) -> NoAnswer {
    tracing::debug!(error, is_unsent, "could not forward a request");
    if is_unsent { NoAnswer::Unreachable } else { NoAnswer::BrokenOff }
}

/// Whether the connection ended before the library had begun to write the request.
fn is_unsent(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed()
}

/// The connector of kube, for each kind of proxy that kube knows.
fn dial(config: &Config) -> kube::Result<Dial> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(PROBE));
    tcp.set_keepalive_retries(Some(PROBES));
    tcp.set_recv_buffer_size(Some(SOCKET_BUFFER));
    tcp.set_send_buffer_size(Some(SOCKET_BUFFER));
    let Some(proxy) = config.proxy_url.clone() else {
        return Ok(bounded(config.rustls_https_connector_with_connector(tcp)?));
    };
    match proxy.scheme_str() {
        Some("http") => Ok(bounded(config.rustls_https_connector_with_connector(Tunnel::new(proxy, tcp))?)),
        Some("https") => {
            let tls = config.rustls_https_connector_with_connector(tcp)?;
            Ok(bounded(config.rustls_https_connector_with_connector(Tunnel::new(proxy, tls))?))
        }
        Some("socks5") => Ok(bounded(config.rustls_https_connector_with_connector(SocksV5::new(proxy, tcp))?)),
        _ => Err(kube::Error::ProxyProtocolUnsupported { proxy_url: Box::new(proxy) }),
    }
}

/// A connector with a time limit, whatever it connects through.
fn bounded<C>(connector: C) -> Dial
where
    C: Service<Uri, Response: Stream + 'static, Future: Send, Error: Into<BoxError>> + Clone + Send + Sync + 'static,
{
    BoxCloneSyncService::new(service_fn(move |uri: Uri| {
        let connector = connector.clone();
        async move {
            match timeout(CONNECT, connector.oneshot(uri)).await {
                Ok(stream) => Ok(Wire(Box::new(stream.map_err(Into::into)?))),
                Err(_) => Err("could not connect to the API server in time".into()),
            }
        }
    }))
}

trait Stream: Read + Write + Connection + Send + Unpin {}

impl<S: Read + Write + Connection + Send + Unpin> Stream for S {}

/// A connection to the API server, with or without a proxy.
struct Wire(Box<dyn Stream>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        self.0.connected()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures::stream::repeat_with;
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;
    use tokio::task::JoinSet;
    use tokio::time::interval;

    use super::*;

    #[tokio::test]
    async fn body_that_nobody_reads_ends_with_its_request() {
        // Fails if another test has installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let upstream = Upstream::new(&Config::new(url.clone()), TaskTracker::new()).unwrap();
        let (held, dropped) = oneshot::channel::<()>();
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let endless = repeat_with(move || {
            let _until_then = &held;
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Bytes::from_static(&[0; 4096]))
        });
        let request = Request::post(url).body(Body::from_stream(endless)).unwrap();
        let mut sending = JoinSet::new();
        sending.spawn(async move { upstream.send(request).await.map(drop) });
        let _reads_nothing = listener.accept().await.unwrap();
        let (mut ticks, mut last) = (interval(Duration::from_millis(100)), 0);
        loop {
            ticks.tick().await;
            let now = made.load(Ordering::Relaxed);
            if now > 0 && now == last {
                break;
            }
            last = now;
        }
        sending.abort_all();
        assert!(timeout(Duration::from_secs(60), dropped).await.expect("the body is dropped").is_err());
    }
}
