//! How many connections there may be, and which one makes way for a new one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::api::Connection;
use crate::domain::network::network;

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// In all: fewer than the file descriptors that a process is given by custom (1024).
    pub all: usize,
    /// Of those over which nobody has authenticated.
    pub unauthenticated: usize,
    /// Of those, from one address.
    pub of_network: usize,
}

/// The connections of a listener.
#[derive(Debug)]
pub(super) struct Registry {
    caps: Caps,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// In the order in which they were accepted.
    connections: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    network: IpAddr,
    connection: Connection,
    close: CancellationToken,
}

/// A connection that may be; it is out of the count when this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) connection: Connection,
    /// Cancelled when it has to make way.
    pub(super) close: CancellationToken,
    id: u64,
    registry: Arc<Registry>,
}

/// What there is to decide by, of one connection.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u64,
    network: IpAddr,
    authenticated: bool,
    idle: Option<Duration>,
}

/// What a new connection takes.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// This one makes way.
    Instead(u64),
    None,
}

impl Registry {
    pub(super) fn new(caps: Caps) -> Arc<Self> {
        Arc::new(Self { caps, open: Mutex::default() })
    }

    /// Lets a new connection in, and whether another had to make way; `None` when it is refused.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> (Option<Admitted>, bool) {
        let (network, now) = (network(address), Instant::now());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates: Vec<Candidate> = open
            .connections
            .iter()
            .map(|(id, entry)| {
                let usage = entry.connection.usage(now);
                Candidate { id: *id, network: entry.network, authenticated: usage.authenticated, idle: usage.idle }
            })
            .collect();
        let room = self.caps.room(&candidates, network);
        match room {
            Room::Free => {}
            Room::Instead(id) => {
                if let Some(evicted) = open.connections.remove(&id) {
                    evicted.close.cancel();
                }
            }
            Room::None => return (None, true),
        }
        let (connection, close, id) = (Connection::default(), CancellationToken::new(), open.next);
        open.next += 1;
        open.connections.insert(id, Entry { network, connection: connection.clone(), close: close.clone() });
        (Some(Admitted { connection, close, id, registry: self.clone() }), room != Room::Free)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.registry.open.lock().unwrap_or_else(PoisonError::into_inner).connections.remove(&self.id);
    }
}

impl Caps {
    /// Whether there is room for a connection from `from` beside these, which are in the order in which they were
    /// accepted.
    ///
    /// A newcomer is always let in, and **the unauthenticated connection that has been open for longest** makes way:
    /// of its own address where that has too many, of the address that has most where all together are too many. A
    /// client that means to authenticate does so within its first moments; whoever fills the caps pushes out only what
    /// it holds itself. An authenticated connection makes way only when there is no other, and only while it is idle.
    fn room(&self, open: &[Candidate], from: IpAddr) -> Room {
        let strangers: Vec<&Candidate> = open.iter().filter(|it| !it.authenticated).collect();
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for stranger in &strangers {
            *counts.entry(stranger.network).or_default() += 1;
        }
        let oldest_of = |network: IpAddr| {
            strangers.iter().find(|it| it.network == network).map_or(Room::None, |it| Room::Instead(it.id))
        };
        if counts.get(&from).is_some_and(|count| *count >= self.of_network) {
            return oldest_of(from);
        }
        if strangers.len() < self.unauthenticated && open.len() < self.all {
            return Room::Free;
        }
        if let Some((most, _)) = counts.into_iter().max_by_key(|(network, count)| (*count, *network)) {
            return oldest_of(most);
        }
        let idlest = open.iter().filter(|it| it.idle.is_some()).max_by_key(|it| it.idle);
        idlest.map_or(Room::None, |it| Room::Instead(it.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { all: 6, unauthenticated: 4, of_network: 3 };

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// Unauthenticated ones of these addresses, in this order.
    fn strangers(of: &[u8]) -> Vec<Candidate> {
        let one = |(id, last): (u64, &u8)| Candidate { id, network: address(*last), authenticated: false, idle: None };
        (0..).zip(of).map(one).collect()
    }

    #[test]
    fn newcomer_pushes_out_the_oldest_of_its_own_address() {
        assert_eq!(CAPS.room(&strangers(&[1, 2, 1]), address(1)), Room::Free);
        assert_eq!(CAPS.room(&strangers(&[2, 1, 1, 1]), address(1)), Room::Instead(1));
    }

    #[test]
    fn newcomer_pushes_out_the_oldest_of_the_address_with_most() {
        assert_eq!(CAPS.room(&strangers(&[3, 1, 2, 1]), address(4)), Room::Instead(1));
        assert_eq!(CAPS.room(&strangers(&[3, 1, 2, 1]), address(3)), Room::Instead(1));
    }

    #[test]
    fn authenticated_connections_count_only_in_all() {
        let mut open = strangers(&[1, 1, 1, 1, 1]);
        open.iter_mut().for_each(|it| it.authenticated = true);
        assert_eq!(CAPS.room(&open, address(1)), Room::Free);
        open.push(Candidate { id: 5, authenticated: false, ..open[0] });
        assert_eq!(CAPS.room(&open, address(2)), Room::Instead(5), "the stranger goes first");
        open[5].authenticated = true;
        assert_eq!(CAPS.room(&open, address(2)), Room::None, "all are at work");
        open[3].idle = Some(Duration::from_secs(1));
        open[4].idle = Some(Duration::from_secs(2));
        assert_eq!(CAPS.room(&open, address(2)), Room::Instead(4), "the one that is idle for longest");
    }

    #[test]
    fn connection_leaves_the_caps_when_it_ends() {
        let registry = Registry::new(Caps { all: 9, unauthenticated: 9, of_network: 1 });
        let (first, evicted) = registry.admit(address(1));
        assert!(first.is_some() && !evicted);
        let (second, evicted) = registry.admit(address(1));
        assert!(evicted && first.as_ref().unwrap().close.is_cancelled());
        drop((first, second));
        let (third, evicted) = registry.admit(address(1));
        assert!(third.is_some() && !evicted);
        assert_eq!(registry.open.lock().unwrap().connections.len(), 1);
    }
}
