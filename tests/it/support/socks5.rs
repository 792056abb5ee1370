//! A SOCKS proxy (RFC 1928) that forwards to the addresses it is asked for.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// The proxy; it runs until the tests end.
pub struct Socks5 {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    gate: Arc<Gate>,
}

/// Whether nothing passes.
#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, is_closed: bool) {
        *self.is_closed.lock().unwrap() = is_closed;
        self.changed.notify_all();
    }

    /// Waits until it is open.
    fn pass(&self) {
        drop(self.changed.wait_while(self.is_closed.lock().unwrap(), |is_closed| *is_closed).unwrap());
    }
}

impl Socks5 {
    /// Starts one. It resolves names itself, and takes each for this machine.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("socks5://{}", listener.local_addr().unwrap());
        let (asked, gate) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Gate>::default());
        let (seen, open) = (asked.clone(), gate.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (seen, gate) = (seen.clone(), open.clone());
                thread::spawn(move || serve(client, &seen, &gate));
            }
        });
        Self { url, asked, gate }
    }

    /// From now on nothing arrives, in either direction, and no connection is closed: as if all packets were lost.
    pub fn cut_off(&self) {
        self.gate.set(true);
    }

    /// What was sent meanwhile arrives, as TCP sends it again.
    pub fn reconnect(&self) {
        self.gate.set(false);
    }

    /// The hosts it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, asked: &Mutex<Vec<String>>, gate: &Arc<Gate>) -> Option<()> {
    gate.pass();
    let [_, methods] = read(&mut client)?;
    client.read_exact(&mut vec![0; usize::from(methods)]).ok()?;
    client.write_all(&[5, 0]).ok()?;
    let [_, _, _, kind] = read(&mut client)?;
    let host = match kind {
        1 => std::net::Ipv4Addr::from(read::<4>(&mut client)?).to_string(),
        _ => {
            let [length] = read(&mut client)?;
            let mut name = vec![0; usize::from(length)];
            client.read_exact(&mut name).ok()?;
            String::from_utf8(name).ok()?
        }
    };
    let port = u16::from_be_bytes(read(&mut client)?);
    asked.lock().unwrap().push(host);
    let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let up = gate.clone();
    thread::spawn(move || {
        copy(&mut from, &mut to, &up);
        let _ = to.shutdown(Shutdown::Write);
    });
    copy(&mut server, &mut client, gate);
    client.shutdown(Shutdown::Both).ok()
}

/// Copies while the gate is open, until either side ends.
fn copy(from: &mut TcpStream, to: &mut TcpStream, gate: &Gate) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        gate.pass();
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

fn read<const N: usize>(client: &mut TcpStream) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).ok().map(|()| bytes)
}
