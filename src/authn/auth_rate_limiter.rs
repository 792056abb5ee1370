//! Slows down who goes on presenting wrong credentials. It counts what was *refused*, by the address it came from: a right credential is
//! never locked out, neither by somebody elsewhere who tries its owner's name nor by one behind the same address.

use std::net::{IpAddr, Ipv6Addr};

use super::rate_limit::{Count, RateLimit};
use crate::domain::network::network;

/// The refusals of this replica.
#[derive(Debug)]
pub(super) struct AuthRateLimiter(RateLimit<IpAddr>);

impl AuthRateLimiter {
    /// Allows each address this many refusals at once, and as many a minute.
    pub(super) fn new(burst: u32) -> Self {
        Self(RateLimit::new(burst))
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, address: Option<&str>) -> Count {
        self.0.count(bucket_of(address))
    }

    /// Whether so many were refused that the next would be one too many.
    pub(super) fn is_flooding(&self, address: Option<&str>) -> bool {
        self.0.is_full(&bucket_of(address))
    }
}

/// The bucket of an address that is known only as text.
fn bucket_of(address: Option<&str>) -> IpAddr {
    address.and_then(|text| text.parse().ok()).map_or(Ipv6Addr::UNSPECIFIED.into(), network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_counts_for_itself_and_an_ipv6_network_for_one() {
        let limiter = AuthRateLimiter::new(1);
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
            assert_eq!(limiter.refused(address).wait.is_none(), counted, "{address:?}");
        }
        assert!(limiter.is_flooding(Some("192.0.2.1")) && !limiter.is_flooding(Some("192.0.2.3")));
    }
}
