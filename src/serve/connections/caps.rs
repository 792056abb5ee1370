//! Caps on the number of connections, and the choice of the one to evict for a new one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::authn::{Connection, Usage};
use crate::domain::network::network;

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// In all, without those that forward requests: the gateway bounds these by its own places.
    pub all: usize,
    /// Connections that have not authenticated.
    pub unauthenticated: usize,
    /// Connections that have not authenticated, from one client network.
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
    /// By number, in the order of acceptance.
    connections: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    network: IpAddr,
    connection: Connection,
    close: CancellationToken,
}

/// An admitted connection. Dropping this takes it out of the count.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) connection: Connection,
    /// Cancelled when the connection is evicted.
    pub(super) close: CancellationToken,
    id: u64,
    registry: Arc<Registry>,
}

/// An open connection, as [`Caps::room`] needs to know it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u64,
    network: IpAddr,
    authenticated: bool,
    forwarding: bool,
    idle: Option<Duration>,
}

/// The room for a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// After this connection is evicted.
    Evict(u64),
    None,
}

impl Registry {
    pub(super) fn new(caps: Caps) -> Arc<Self> {
        Arc::new(Self { caps, open: Mutex::default() })
    }

    /// Admits a new connection, or refuses it with `None`. Also returns whether a cap was reached: another connection
    /// was evicted, or this one refused.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> (Option<Admitted>, bool) {
        let (network, now) = (network(address), Instant::now());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates: Vec<Candidate> = open
            .connections
            .iter()
            .map(|(id, entry)| {
                let Usage { authenticated, forwarding, idle, .. } = entry.connection.usage(now);
                Candidate { id: *id, network: entry.network, authenticated, forwarding, idle }
            })
            .collect();
        let room = self.caps.room(&candidates, network);
        match room {
            Room::Free => {}
            Room::Evict(id) => {
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
    /// Finds room for a connection from the network `from`. `open` is in the order of acceptance.
    ///
    /// When a cap is reached, the new connection replaces **the oldest unauthenticated one**: of its own network if
    /// that has reached its cap, otherwise of the network with the most. Genuine clients authenticate within moments,
    /// so a client that fills the caps evicts only its own connections. An authenticated connection is evicted only
    /// when there is no other, and only while it is idle.
    fn room(&self, open: &[Candidate], from: IpAddr) -> Room {
        let strangers: Vec<&Candidate> = open.iter().filter(|it| !it.authenticated).collect();
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for stranger in &strangers {
            *counts.entry(stranger.network).or_default() += 1;
        }
        let oldest_of = |network: IpAddr| {
            strangers.iter().find(|it| it.network == network).map_or(Room::None, |it| Room::Evict(it.id))
        };
        if counts.get(&from).is_some_and(|count| *count >= self.of_network) {
            return oldest_of(from);
        }
        // Members with many streams must not keep their owner out.
        let counted = open.iter().filter(|it| !it.forwarding).count();
        if strangers.len() < self.unauthenticated && counted < self.all {
            return Room::Free;
        }
        if let Some((most, _)) = counts.into_iter().max_by_key(|(network, count)| (*count, *network)) {
            return oldest_of(most);
        }
        let idlest = open.iter().filter(|it| it.idle.is_some()).max_by_key(|it| it.idle);
        idlest.map_or(Room::None, |it| Room::Evict(it.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { all: 6, unauthenticated: 4, of_network: 3 };

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// Unauthenticated connections from these addresses, in this order.
    fn strangers(of: &[u8]) -> Vec<Candidate> {
        let one = |(id, last): (u64, &u8)| Candidate {
            id,
            network: address(*last),
            authenticated: false,
            forwarding: false,
            idle: None,
        };
        (0..).zip(of).map(one).collect()
    }

    #[test]
    fn new_connection_evicts_the_oldest_of_its_own_address() {
        assert_eq!(CAPS.room(&strangers(&[1, 2, 1]), address(1)), Room::Free);
        assert_eq!(CAPS.room(&strangers(&[2, 1, 1, 1]), address(1)), Room::Evict(1));
    }

    #[test]
    fn new_connection_evicts_the_oldest_of_the_address_with_the_most() {
        assert_eq!(CAPS.room(&strangers(&[3, 1, 2, 1]), address(4)), Room::Evict(1));
        assert_eq!(CAPS.room(&strangers(&[3, 1, 2, 1]), address(3)), Room::Evict(1));
    }

    #[test]
    fn authenticated_connection_is_evicted_last_and_only_while_idle() {
        let mut open = strangers(&[1, 1, 1, 1, 1]);
        open.iter_mut().for_each(|it| it.authenticated = true);
        assert_eq!(CAPS.room(&open, address(1)), Room::Free);
        open.push(Candidate { id: 5, authenticated: false, ..open[0] });
        assert_eq!(CAPS.room(&open, address(2)), Room::Evict(5), "the unauthenticated one goes first");
        open[5].authenticated = true;
        assert_eq!(CAPS.room(&open, address(2)), Room::None, "all are busy");
        open[3].idle = Some(Duration::from_secs(1));
        open[4].idle = Some(Duration::from_secs(2));
        assert_eq!(CAPS.room(&open, address(2)), Room::Evict(4), "the longest idle");
    }

    #[test]
    fn connections_that_forward_take_no_place_of_others() {
        let mut open = strangers(&[1; 9]);
        open.iter_mut().for_each(|it| (it.authenticated, it.forwarding) = (true, true));
        assert_eq!(CAPS.room(&open, address(2)), Room::Free);
        open[3..].iter_mut().for_each(|it| it.forwarding = false);
        assert_eq!(CAPS.room(&open, address(2)), Room::None, "six of others are busy");
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
