//! Slows down clients that keep presenting wrong credentials. It counts *refused* ones by client address. A right
//! credential is never locked out: not by attempts on its owner's name from elsewhere, and not by others behind the
//! same address.

use std::net::{IpAddr, Ipv6Addr};

use super::leaky_bucket::{Count, RateLimit};
use crate::domain::network::network;

/// The refusals of this replica.
#[derive(Debug)]
pub(super) struct AuthRateLimiter(RateLimit<IpAddr>);

impl AuthRateLimiter {
    /// Allows each address this many refusals at once, and as many per minute.
    pub(super) fn new(burst: u32) -> Self {
        Self(RateLimit::new(burst))
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, address: Option<&str>) -> Count {
        self.0.count(bucket_of(address))
    }

    /// Whether the next refusal would be one too many.
    pub(super) fn is_flooding(&self, address: Option<&str>) -> bool {
        self.0.is_full(&bucket_of(address))
    }
}

/// The bucket of an address. All unknown ones share one.
fn bucket_of(address: Option<&str>) -> IpAddr {
    address.and_then(|text| text.parse().ok()).map_or(Ipv6Addr::UNSPECIFIED.into(), network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_separately_and_an_ipv6_network_counts_as_one() {
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
