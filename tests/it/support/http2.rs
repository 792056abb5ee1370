//! Connections to Daypass that a test controls to the last byte.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::{Method, Request, Response};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Cluster, DEADLINE, Daypass};

/// A client without credentials that connects from one address.
#[derive(Clone)]
pub struct Stranger {
    server: SocketAddr,
    from: IpAddr,
    config: Arc<ClientConfig>,
}

impl Stranger {
    /// From 127.0.0.1, like all other clients of the tests.
    pub fn new(cluster: &Cluster, daypass: &Daypass) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(cluster.serving_certificate().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let server = daypass.url.strip_prefix("https://").unwrap().parse().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        Self { server, from: [127, 0, 0, 1].into(), config }
    }

    /// The same from another address.
    pub fn from(&self, from: [u8; 4]) -> Self {
        Self { from: from.into(), ..self.clone() }
    }

    /// A TCP connection.
    pub async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.from, 0))?;
        socket.connect(self.server).await
    }

    /// A TLS connection, for HTTP/1.1 (`http/1.1`) or HTTP/2 (`h2`).
    pub async fn tls(&self, protocol: &str) -> io::Result<TlsStream<TcpStream>> {
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.tcp().await?).await
    }

    /// An HTTP/2 connection that answers pings, with this initial window for each stream.
    pub async fn http2(&self, window: u32) -> io::Result<Http2> {
        let stream = self.tls("h2").await?;
        let mut builder = Builder::new();
        builder.initial_window_size(window);
        let (send, mut connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        let pings = connection.ping_pong().unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _how = connection.await;
        });
        Ok(Http2 { base: format!("https://{}", self.server), send, pings, driver })
    }
}

/// An HTTP/2 connection.
pub struct Http2 {
    base: String,
    send: SendRequest<bytes::Bytes>,
    pings: PingPong,
    driver: JoinSet<()>,
}

impl Http2 {
    /// Sends a request's headers. With `has_body`, the returned stream takes the body.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        has_body: bool,
    ) -> Result<(ResponseFuture, SendStream<bytes::Bytes>), h2::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut ready = self.send.clone().ready().await?;
        ready.send_request(request.body(()).unwrap(), !has_body)
    }

    /// The answer to a GET.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Response<h2::RecvStream>, h2::Error> {
        self.send(Method::GET, path, headers, false).await?.0.await
    }

    /// Waits until the server has read everything sent, by a ping.
    pub async fn settle(&mut self) -> Result<(), h2::Error> {
        self.pings.ping(Ping::opaque()).await.map(drop)
    }

    /// Waits until the server has closed the connection.
    pub async fn ended(&mut self) {
        tokio::time::timeout(2 * DEADLINE, self.driver.join_next()).await.expect("the server closes the connection");
    }

    /// Whether the connection is open.
    pub async fn is_open(&mut self) -> bool {
        tokio::time::timeout(Duration::ZERO, self.driver.join_next()).await.is_err()
    }
}
