//! Connections: how they are accepted, how long each may take for what, and which one makes way when there are too
//! many.

mod accept;
mod caps;
mod limits;
mod wire;

pub use accept::{Listener, serve};
pub use caps::Caps;
pub use limits::Limits;

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// What the kernel keeps, at most, of what a client does not take: with its own overhead, twice as much (socket(7),
/// SO_SNDBUF). By itself it keeps megabytes, which count against the container's limit.
const SEND_BUFFER: u32 = 128 * 1024;
/// Connections that the kernel has accepted and this process has not.
const BACKLOG: u32 = 1024;

/// Listens on this address.
///
/// # Errors
/// When it is taken, or is none of this machine's.
pub fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Not to wait for the connections of a process before it.
    socket.set_reuseaddr(true)?;
    // Those that are accepted inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
