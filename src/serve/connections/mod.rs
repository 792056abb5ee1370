//! Accepts connections, limits how long each may take, and evicts one when there are too many.

mod accept;
mod caps;
mod limits;
mod strict;
mod wire;

pub use accept::{App, Listener, serve};
pub use caps::Caps;
pub use limits::Limits;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::SockRef;
use tokio::net::TcpSocket;

/// How many bytes the kernel buffers for a client that does not read; it doubles this for its own overhead (socket(7),
/// SO_SNDBUF). The default is megabytes, which count against the container's memory limit.
const SEND_BUFFER: u32 = 128 * 1024;
/// How many connections the kernel queues until this process accepts them.
const BACKLOG: u32 = 1024;

/// Listens on this address; on `[::]`, for IPv4 as well.
///
/// # Errors
/// When the address is in use or does not belong to this machine.
pub fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let everywhere = address.ip() == Ipv6Addr::UNSPECIFIED;
    let (socket, address) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, address),
        SocketAddr::V6(_) => match TcpSocket::new_v6() {
            // A kernel without IPv6.
            Err(_) if everywhere => (TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, address.port()).into()),
            socket => (socket?, address),
        },
    };
    if everywhere && address.is_ipv6() {
        // The system's default may be IPv6 alone (RFC 3493, section 5.3).
        SockRef::from(&socket).set_only_v6(false)?;
    }
    // Otherwise connections of an earlier process keep the address in use for a while.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn unspecified_address_listens_for_both_families() {
        let listener = bind("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if TcpSocket::new_v6().is_ok() {
            TcpStream::connect(("::1", port)).unwrap();
        }
        assert!(bind(listener.local_addr().unwrap()).is_err(), "the port is taken");
    }
}
