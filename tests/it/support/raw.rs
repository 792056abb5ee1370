//! A connection with hand-written requests.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Cluster, DEADLINE, Daypass};

/// A TLS connection to Daypass for HTTP/1.1.
pub struct RawConnection(StreamOwned<ClientConnection, TcpStream>);

impl RawConnection {
    pub fn connect(cluster: &Cluster, daypass: &Daypass) -> Self {
        Self::to(daypass.url.strip_prefix("https://").unwrap(), &cluster.serving_certificate()).unwrap()
    }

    /// Connects to an address and trusts only this certificate.
    pub fn to(address: &str, certificate: &str) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        Ok(Self(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)))
    }

    /// Sends a text and flushes it.
    pub fn send(&mut self, text: &str) {
        self.try_send(text).unwrap();
    }

    /// The next answer, head and body.
    pub fn answer(&mut self) -> String {
        self.try_answer().unwrap()
    }

    /// Reads up to this text. Panics when the connection ends before it.
    #[track_caller]
    pub fn read_to(&mut self, text: &str) {
        let mut bytes = Vec::new();
        while !bytes.ends_with(text.as_bytes()) {
            let mut byte = [0];
            let read = self.read_exact(&mut byte);
            read.unwrap_or_else(|error| panic!("{error} instead of {text} after {}", bytes.escape_ascii()));
            bytes.extend_from_slice(&byte);
        }
    }

    /// What comes until the connection ends, in whatever way.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        let (mut bytes, mut byte) = (Vec::new(), [0]);
        let error = loop {
            match self.read_exact(&mut byte) {
                Ok(()) => bytes.extend_from_slice(&byte),
                Err(error) => break error,
            }
        };
        assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it does not end");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// [`RawConnection::send`] that returns the connection's error.
    pub fn try_send(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())?;
        self.0.flush()
    }

    /// [`RawConnection::answer`] that returns the connection's error.
    pub fn try_answer(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            bytes.extend_from_slice(&byte);
        }
        let mut text = String::from_utf8(bytes).unwrap();
        let length =
            text.to_ascii_lowercase().split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse();
        let mut body = vec![0; length.unwrap()];
        self.read_exact(&mut body)?;
        text.push_str(&String::from_utf8(body).unwrap());
        Ok(text)
    }

    /// Reads without writing: rustls' stream would try to send what is left of a request first, and fail where an
    /// answer to the beginning has arrived.
    fn read_exact(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match self.0.conn.reader().read(into) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => into = &mut into[read..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.0.conn.read_tls(&mut self.0.sock)?;
                    self.0.conn.process_new_packets().map_err(io::Error::other)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
