//! Finding a free TCP port.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Returns a port of 127.0.0.1 that nothing listens on, between 16000 and 31999.
///
/// Linux gives ports from 32768 on to outgoing connections. One of those could be taken before the program that it is
/// meant for listens on it, or while that program restarts.
///
/// # Errors
/// When all of them are taken.
pub fn free_port() -> Result<u16> {
    const FIRST: u32 = 16_000;
    const COUNT: u32 = 16_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Each process starts at its own offset, so that processes running side by side rarely try the same port.
    let start = std::process::id().wrapping_mul(257);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 is free")
}
