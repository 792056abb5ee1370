//! The address of a client behind proxies.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";
/// How many of its entries are read: more than any chain of proxies has.
const MAX_HOPS: usize = 100;

/// The client's address. `X-Forwarded-For` counts only as far as trusted proxies wrote it: it is read from its end up
/// to the first address that is not a trusted proxy's. Nothing before that is parsed.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let entries = headers.get_all(FORWARDED_FOR).iter().rev();
    let entries = entries.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')).take(MAX_HOPS);
    // Empty entries of a list are ignored (RFC 9110, section 5.6.1).
    let entries = entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty());
    let mut client = peer;
    for entry in entries {
        if !is_trusted(&client) {
            break;
        }
        // A trusted proxy writes nothing but addresses.
        let Some(address) = forwarded_address(entry) else { break };
        client = address.to_canonical();
    }
    client
}

/// The address in an entry of `X-Forwarded-For`, which has no standard. Proxies write `203.0.113.1`, `2001:db8::1`
/// and, with the client's port, `203.0.113.1:4711` and `[2001:db8::1]:4711` (Azure's Application Gateway); some add
/// the zone of a link-local address, or quote as in `Forwarded` (RFC 7239).
fn forwarded_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let text = text.strip_prefix('"').map_or(Some(text), |quoted| quoted.strip_suffix('"'))?;
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (address, port) = match (bracketed, text.split_once(':')) {
        (Some((address, "")), _) => (address, None),
        (Some((address, rest)), _) => (address, Some(rest.strip_prefix(':')?)),
        // A single colon precedes a port; an IPv6 address has more.
        (None, Some((address, port))) if !port.contains(':') => (address, Some(port)),
        (None, _) => (text, None),
    };
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    if !port.is_none_or(is_port) {
        return None;
    }
    if bracketed.is_none() && !address.contains(':') {
        return address.parse().map(IpAddr::V4).ok();
    }
    let (address, _zone) = address.split_once('%').unwrap_or((address, ""));
    address.parse().map(IpAddr::V6).ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn address<T: AsRef<[u8]>>(peer: &str, forwarded: &[T], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(value.as_ref()).unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn forwarded_for_counts_only_as_far_as_trusted_proxies_wrote_it() {
        let ours = ["10.0.0.0/8"];
        assert_eq!(address("192.0.2.9", &["203.0.113.1"], &[]), "192.0.2.9");
        for forwarded in [
            &["203.0.113.1"][..],
            &["6.6.6.6, 203.0.113.1, 10.0.0.2"],
            &["6.6.6.6", "203.0.113.1"],
            &["6.6.6.6, \u{e4}, 203.0.113.1"],
            &["6.6.6.6,,203.0.113.1\t, ,10.0.0.2,", " , "],
            &["[2001:db8::1]:1, 203.0.113.1:4711,10.0.0.2:80"],
        ] {
            assert_eq!(address("10.0.0.1", forwarded, &ours), "203.0.113.1", "{forwarded:?}");
        }
        for no_address in ["junk", "", "unknown", "_hidden", "203.0.113.1;proto=https"] {
            assert_eq!(address("10.0.0.1", &[no_address], &ours), "10.0.0.1", "{no_address}");
            let after = format!("6.6.6.6, {no_address}, 10.0.0.2:443");
            let expected = if no_address.is_empty() { "6.6.6.6" } else { "10.0.0.2" };
            assert_eq!(address("10.0.0.1", &[&after], &ours), expected, "{after}");
        }
        assert_eq!(address::<&str>("10.0.0.1", &[], &ours), "10.0.0.1");
    }

    #[test]
    fn entry_is_an_address_with_or_without_a_port() {
        let read = |text: &str| forwarded_address(text.as_bytes()).map(|address| address.to_string());
        for (text, address) in [
            ("203.0.113.1:4711", "203.0.113.1"),
            ("203.0.113.1:0", "203.0.113.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:65535", "2001:db8::1"),
            ("\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("\"203.0.113.1\"", "203.0.113.1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:443", "fe80::1"),
            ("::ffff:203.0.113.1", "::ffff:203.0.113.1"),
        ] {
            assert_eq!(read(text).as_deref(), Some(address), "{text}");
        }
        for text in [
            "203.0.113.1:",
            "203.0.113.1:65536",
            "203.0.113.1:+80",
            "203.0.113.1:80:80",
            "203.0.113.1%eth0",
            "[203.0.113.1]:80",
            "[2001:db8::1",
            "[2001:db8::1]x",
            "[2001:db8::1]80",
            "[[2001:db8::1]]",
            "2001:db8::1]:80",
            "\"203.0.113.1",
            "203.0.113.1\"",
            "203.0.113",
            "010.0.0.1",
            "2001:db8::1 ",
            ":80",
            "[]:80",
            "%eth0",
            "\"",
            "",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(forwarded_address(b"\xff"), None);
        // The same client in another notation.
        assert_eq!(address("10.0.0.1", &["[::ffff:203.0.113.1]:80"], &["10.0.0.0/8"]), "203.0.113.1");
    }

    proptest! {
        #[test]
        fn entries_before_the_clients_address_are_ignored(
            client: IpAddr, port: u16, form in 0..6, before in "[ -~]{0,60}", hops in 0..5usize,
        ) {
            let ours = ["10.0.0.0/8"];
            prop_assume!(!"10.0.0.0/8".parse::<IpNet>().unwrap().contains(&client.to_canonical()));
            let entry = match (form, client) {
                (0, _) => client.to_string(),
                (1, _) => SocketAddr::new(client, port).to_string(),
                (2, _) => format!("\"{}\"", SocketAddr::new(client, port)),
                (3, IpAddr::V6(_)) => format!("[{client}]"),
                (4, IpAddr::V6(_)) => format!("{client}%eth0"),
                _ => format!("\"{client}\""),
            };
            let header = format!("{before},{entry}{}", ", 10.9.8.7:6".repeat(hops));
            prop_assert_eq!(address("10.0.0.1", &[header], &ours), client.to_canonical().to_string());
        }

        #[test]
        fn header_of_an_untrusted_peer_is_ignored(
            values in prop::collection::vec("[^\r\n\x00]{0,80}", 0..4),
        ) {
            let is_valid = |value: &&String| HeaderValue::from_bytes(value.as_bytes()).is_ok();
            let values: Vec<&String> = values.iter().filter(is_valid).collect();
            prop_assert_eq!(address("192.0.2.9", &values, &["10.0.0.0/8"]), "192.0.2.9");
            address("10.0.0.1", &values, &["0.0.0.0/0", "::/0"]);
        }
    }

    #[test]
    fn long_list_is_read_only_up_to_the_hop_limit() {
        let long = format!("203.0.113.1{}", ",10.0.0.2".repeat(60_000));
        assert_eq!(address("10.0.0.1", &[long], &["10.0.0.0/8"]), "10.0.0.2");
    }
}
