//! Connections of HTTP/1 that nobody uses any more are closed, in order: with TLS' own end (`close_notify`), so that a client can tell it
//! from a connection that broke. HTTP/2 connections are left to their clients.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

/// Accepts TLS connections that end when they were idle for so long.
#[derive(Clone)]
pub struct IdleAcceptor {
    tls: RustlsAcceptor,
    limit: Duration,
}

impl IdleAcceptor {
    /// `limit` is longer than any request takes: to HTTP, a connection is idle while a request is worked on.
    pub fn new(tls: RustlsAcceptor, limit: Duration) -> Self {
        Self { tls, limit }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for IdleAcceptor {
    type Stream = Idle<TlsStream<TcpStream>>;
    type Service = <RustlsAcceptor as Accept<TcpStream, S>>::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let (accepted, limit) = (self.tls.accept(stream, service), self.limit);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let end = (!is_http2).then(|| Box::pin(tokio::time::sleep(limit)));
            Ok((Idle { stream, limit, end }, service))
        })
    }
}

/// A connection whose client seems to have closed it once nothing went over it for a while: the server answers that by closing it.
#[derive(Debug)]
pub struct Idle<S> {
    stream: S,
    limit: Duration,
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Idle<S> {
    fn used(&mut self) {
        if let Some(end) = &mut self.end {
            end.as_mut().reset(Instant::now() + self.limit);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Idle<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            self.used();
            return Poll::Ready(read);
        }
        let Some(end) = &mut self.end else { return Poll::Pending };
        ready!(end.as_mut().poll(cx));
        // Nothing in the buffer: the end.
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Idle<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.used();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.used();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Arc;

    use axum::Router;
    use axum::routing::get;
    use axum_server::tls_rustls::RustlsConfig;
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
    async fn an_idle_connection_is_closed_and_not_cut() {
        let _set_by_another_test = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let pair = crate::tls::self_signed(&["localhost".to_owned()], crate::clock::Clock::default().local()).unwrap();
        let key = pair.key.expose_secret().as_bytes().to_vec();
        let config = RustlsConfig::from_pem(pair.certificate.clone().into_bytes(), key).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = IdleAcceptor::new(RustlsAcceptor::new(config), Duration::from_secs(2));
        let server = axum_server::from_tcp(listener).unwrap().acceptor(acceptor);
        let router = Router::new().route("/", get(|| async { "hello" }));
        let asked = tokio::task::spawn_blocking(move || ask(address, &pair.certificate));
        tokio::select! {
            served = server.serve(router.into_make_service()) => panic!("{served:?}"),
            asked = asked => {
                let (answer, end) = asked.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "{answer}");
                // Without `close_notify` this is an error.
                end.unwrap();
            }
        }
    }
}
