//! A SOCKS proxy (RFC 1928) that forwards to the addresses it is asked for.

use std::io::{Read as _, Write as _, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The proxy; it runs until the tests end.
pub struct Socks5 {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Socks5 {
    /// Starts one. It resolves names itself, and takes each for this machine.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("socks5://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = asked.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = seen.clone();
                thread::spawn(move || serve(client, &seen));
            }
        });
        Self { url, asked }
    }

    /// The hosts it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> Option<()> {
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
    thread::spawn(move || {
        let _ = copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = copy(&mut server, &mut client);
    client.shutdown(Shutdown::Both).ok()
}

fn read<const N: usize>(client: &mut TcpStream) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).ok().map(|()| bytes)
}
