//! Which addresses a name may stand for.
//!
//! What is not globally reachable unicast is refused, by IANA's special-purpose registries and a few addresses beside them under
//! which clouds hand out credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Kinds of addresses that a host with `private = true` may have; never those under which metadata services answer.
const PRIVATE: [&str; 4] = ["loopback", "private", "shared (CGNAT)", "unique local"];

/// Where clouds answer whoever asks with credentials, outside 169.254.0.0/16.
const METADATA_V4: [Ipv4Addr; 3] = [
    // Azure's is a public address.
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Networks by address, length of the prefix and what they are; the first that fits counts.
const V4: [([u8; 4], u32, &str); 16] = [
    ([0, 0, 0, 0], 8, "unspecified"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "shared (CGNAT)"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved"),
    ([192, 0, 2, 0], 24, "documentation"),
    ([192, 88, 99, 0], 24, "6to4"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "benchmarking"),
    ([198, 51, 100, 0], 24, "documentation"),
    ([203, 0, 113, 0], 24, "documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([255, 255, 255, 255], 32, "broadcast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

const V6: [([u16; 8], u32, &str); 20] = [
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    // A way around every check of IPv4, whatever is inside.
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "IPv4-mapped"),
    ([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "IPv4-translated"),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, "IPv4-compatible"),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 32, "NAT64"),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discard"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique local"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "Teredo"),
    ([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "benchmarking"),
    ([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "reserved"),
    ([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, "reserved"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "reserved"),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "6to4"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation"),
    ([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "reserved"),
];

/// What kind of address this is, when no request may go there.
pub(super) fn forbidden(address: IpAddr, private_allowed: bool) -> Option<&'static str> {
    let kind = kind(address)?;
    (!private_allowed || !PRIVATE.contains(&kind)).then_some(kind)
}

/// None for globally reachable unicast.
fn kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) if METADATA_V4.contains(&address) => Some("metadata"),
        IpAddr::V6(address) if METADATA_V6.contains(&address) => Some("metadata"),
        IpAddr::V4(address) => {
            let within = |&&(network, length, _): &&([u8; 4], u32, &str)| {
                let differ = address.to_bits() ^ Ipv4Addr::from(network).to_bits();
                differ.leading_zeros() >= length
            };
            V4.iter().find(within).map(|(_, _, kind)| *kind)
        }
        IpAddr::V6(address) => {
            let within = |&&(network, length, _): &&([u16; 8], u32, &str)| {
                let differ = address.to_bits() ^ Ipv6Addr::from(network).to_bits();
                differ.leading_zeros() >= length
            };
            let known = V6.iter().find(within).map(|(_, _, kind)| *kind);
            // Only 2000::/3 was ever given out.
            known.or((address.segments()[0] >> 13 != 1).then_some("reserved"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_every_forbidden_network_are_forbidden_and_its_neighbours_are_what_they_are() {
        for (text, expected) in [
            ("0.0.0.0", Some("unspecified")),
            ("0.255.255.255", Some("unspecified")),
            ("1.0.0.0", None),
            ("9.255.255.255", None),
            ("10.0.0.0", Some("private")),
            ("10.255.255.255", Some("private")),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.0", Some("shared (CGNAT)")),
            ("100.100.100.200", Some("metadata")),
            ("100.127.255.255", Some("shared (CGNAT)")),
            ("100.128.0.0", None),
            ("126.255.255.255", None),
            ("127.255.255.255", Some("loopback")),
            ("168.63.129.16", Some("metadata")),
            ("169.253.255.255", None),
            ("169.254.169.254", Some("link-local")),
            ("169.255.0.0", None),
            ("172.15.255.255", None),
            ("172.16.0.0", Some("private")),
            ("172.31.255.255", Some("private")),
            ("172.32.0.0", None),
            ("192.0.0.192", Some("metadata")),
            ("192.0.0.1", Some("reserved")),
            ("192.0.1.0", None),
            ("192.0.2.9", Some("documentation")),
            ("192.88.99.1", Some("6to4")),
            ("192.168.255.255", Some("private")),
            ("192.169.0.0", None),
            ("198.17.255.255", None),
            ("198.18.0.0", Some("benchmarking")),
            ("198.19.255.255", Some("benchmarking")),
            ("198.20.0.0", None),
            ("203.0.113.1", Some("documentation")),
            ("223.255.255.255", None),
            ("224.0.0.0", Some("multicast")),
            ("239.255.255.255", Some("multicast")),
            ("240.0.0.0", Some("reserved")),
            ("255.255.255.255", Some("broadcast")),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("::2", Some("IPv4-compatible")),
            ("::8.8.8.8", Some("IPv4-compatible")),
            ("::ffff:8.8.8.8", Some("IPv4-mapped")),
            ("::ffff:0:8.8.8.8", Some("IPv4-translated")),
            ("64:ff9b::8.8.8.8", Some("NAT64")),
            ("64:ff9b:1::1", Some("NAT64")),
            ("100::1", Some("discard")),
            ("1fff::1", Some("reserved")),
            ("2000::1", None),
            ("2001::1", Some("Teredo")),
            ("2001:2::1", Some("benchmarking")),
            ("2001:20::1", Some("reserved")),
            ("2001:1ff::1", Some("reserved")),
            ("2001:200::1", None),
            ("2001:db8::1", Some("documentation")),
            ("2002:7f00:1::", Some("6to4")),
            ("2606:4700:4700::1111", None),
            ("3fff:fff::1", Some("documentation")),
            ("3fff:1000::1", None),
            ("4000::1", Some("reserved")),
            ("5f00::1", Some("reserved")),
            ("fc00::1", Some("unique local")),
            ("fd00:ec2::254", Some("metadata")),
            ("fd20:ce::254", Some("metadata")),
            ("fe80::1", Some("link-local")),
            ("febf::1", Some("link-local")),
            ("fec0::1", Some("site-local")),
            ("ff02::1", Some("multicast")),
        ] {
            assert_eq!(forbidden(text.parse().unwrap(), false), expected, "{text}");
        }
    }

    #[test]
    fn a_private_host_may_be_near_but_is_never_a_metadata_service() {
        for near in ["127.0.0.1", "::1", "10.1.2.3", "100.64.1.1", "fd12::1"] {
            assert_eq!(forbidden(near.parse().unwrap(), true), None, "{near}");
        }
        for never in [
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::127.0.0.1",
            "2002:7f00:1::",
            "224.0.0.1",
        ] {
            assert!(forbidden(never.parse().unwrap(), true).is_some(), "{never}");
        }
    }
}
