//! Slows down who goes on presenting wrong credentials. It counts what was *refused*, by the address it came from: a right credential is
//! never locked out, neither by somebody elsewhere who tries its owner's name nor by one behind the same address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In this time as many refusals are forgotten as are allowed at once.
const WINDOW: Duration = Duration::from_secs(60);
/// The most addresses that are remembered. Who commands more than these has no need to come from one twice.
const MAX_ADDRESSES: usize = 10_000;

/// The refusals of this replica, as one leaky bucket for each address.
#[derive(Debug)]
pub struct Attempts {
    /// How many refusals are allowed at once.
    burst: u32,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

/// What a refusal means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It may be tried again at once.
    Counted,
    /// Not before `wait` is over. The first of a flood says so.
    TooMany { wait: Duration, first: bool },
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Refusals that are not forgotten, as of `at`.
    level: f64,
    at: Instant,
    flooding: bool,
}

impl Attempts {
    /// Allows this many refusals at once, and as many a minute.
    pub fn new(burst: u32) -> Self {
        Self { burst, buckets: Mutex::default() }
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, address: Option<&str>) -> Refused {
        self.refused_at(address, Instant::now())
    }

    /// Whether so many were refused that the next would be one too many.
    pub(super) fn is_flooding(&self, address: Option<&str>) -> bool {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.get(&network(address));
        bucket.is_some_and(|bucket| self.level(bucket, Instant::now()) + 1.0 > f64::from(self.burst))
    }

    fn refused_at(&self, address: Option<&str>, now: Instant) -> Refused {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_ADDRESSES {
            buckets.retain(|_, bucket| self.level(bucket, now) > 0.0);
        }
        if buckets.len() >= MAX_ADDRESSES {
            buckets.clear();
        }
        let empty = Bucket { level: 0.0, at: now, flooding: false };
        let bucket = buckets.entry(network(address)).or_insert(empty);
        let level = self.level(bucket, now);
        if level + 1.0 <= f64::from(self.burst) {
            *bucket = Bucket { level: level + 1.0, at: now, flooding: false };
            return Refused::Counted;
        }
        // What comes meanwhile is not counted: waiting helps, however much came before.
        let over = level + 1.0 - f64::from(self.burst);
        let wait = WINDOW.mul_f64(over / f64::from(self.burst.max(1)));
        let first = !std::mem::replace(&mut bucket.flooding, true);
        Refused::TooMany { wait, first }
    }

    fn level(&self, bucket: &Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64() / WINDOW.as_secs_f64();
        (bucket.level - passed * f64::from(self.burst)).max(0.0)
    }
}

/// Who has one IPv6 address has the 2^64 of its network.
fn network(address: Option<&str>) -> IpAddr {
    match address.and_then(|text| text.parse().ok()) {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        Some(address) => address,
        None => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_as_many_a_minute() {
        let attempts = Attempts::new(10);
        let start = Instant::now();
        let at = |seconds| attempts.refused_at(Some("192.0.2.1"), start + Duration::from_secs(seconds));
        for _ in 0..10 {
            assert_eq!(at(0), Refused::Counted);
        }
        assert_eq!(at(0), Refused::TooMany { wait: Duration::from_secs(6), first: true });
        assert_eq!(at(3), Refused::TooMany { wait: Duration::from_secs(3), first: false });
        assert_eq!(at(6), Refused::Counted);
        assert!(matches!(at(6), Refused::TooMany { first: true, .. }), "said again after a pause");
        for _ in 0..10 {
            assert_eq!(at(100), Refused::Counted, "all is forgotten");
        }
    }

    #[test]
    fn each_address_counts_for_itself_and_an_ipv6_network_for_one() {
        let attempts = Attempts::new(1);
        for (address, counted) in [
            (Some("192.0.2.1"), true),
            (Some("192.0.2.1"), false),
            (Some("192.0.2.2"), true),
            (Some("2001:db8::1"), true),
            (Some("2001:db8::2"), false),
            (Some("2001:db8:0:1::1"), true),
            (None, true),
            (None, false),
        ] {
            assert_eq!(attempts.refused(address) == Refused::Counted, counted, "{address:?}");
        }
        assert!(attempts.is_flooding(Some("192.0.2.1")) && !attempts.is_flooding(Some("192.0.2.3")));
    }

    #[test]
    fn no_more_addresses_are_remembered_than_fit() {
        let attempts = Attempts::new(5);
        for number in 0..25_000u32 {
            attempts.refused(Some(&std::net::Ipv4Addr::from(number).to_string()));
        }
        assert!(attempts.buckets.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}
