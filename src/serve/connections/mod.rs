//! Accepts connections, limits how long each may take, and evicts one when there are too many.

mod accept;
mod caps;
mod limits;
mod wire;

pub use accept::{Listener, serve};
pub use caps::Caps;
pub use limits::Limits;

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// How many bytes the kernel buffers for a client that does not read; it doubles this for its own overhead (socket(7),
/// SO_SNDBUF). The default is megabytes, which count against the container's memory limit.
const SEND_BUFFER: u32 = 128 * 1024;
/// How many connections the kernel queues until this process accepts them.
const BACKLOG: u32 = 1024;

/// Listens on this address.
///
/// # Errors
/// When the address is in use or does not belong to this machine.
pub fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Otherwise connections of an earlier process keep the address in use for a while.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
