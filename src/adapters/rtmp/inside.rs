//! Which addresses are of networks that are nobody else's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is this machine's, of a network of our own, or of nobody alone: what somebody out there has no business
/// to lead us to (RFC 6890).
pub(super) fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_inside_v4(ip),
        IpAddr::V6(ip) => is_inside_v6(ip),
    }
}

/// Whether an address is surely of this machine or a network of our own: from there we may be led to others of them. Some
/// resolvers give whole networks of nobody's as names of whoever is out there.
pub(super) fn is_ours(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_ours_v4(ip),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

const fn is_ours_v4(ip: Ipv4Addr) -> bool {
    ip.is_private() || ip.is_loopback() || ip.is_link_local()
}

fn is_inside_v4(ip: Ipv4Addr) -> bool {
    is_ours_v4(ip)
        || ip.is_multicast()
        || matches!(
            ip.octets(),
            // This network; carriers' (RFC 6598); the IETF's; of benchmarks (RFC 2544); reserved, with broadcast.
            [0, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..]
        )
}

fn is_inside_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| is_inside_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match [a, b, c, d, e, f] {
        // Mapped and compatible, with what is unspecified and the loopback; translated (RFC 6052); 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        [0x2002, ..] => v4(b, c),
        // Translated by a network of our own (RFC 8215).
        [0x64, 0xff9b, 1, ..] => true,
        // Of sites, as they once were (RFC 3879).
        [0xfec0..=0xfeff, ..] => true,
        _ => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_lead_us_anywhere_is_surely_ours() {
        for ours in ["127.0.0.1", "10.0.0.1", "169.254.1.1", "::1", "::ffff:192.168.1.1", "fd00::1", "fe80::1"] {
            assert!(is_ours(ours.parse().unwrap()), "{ours}");
        }
        for others in ["198.18.0.1", "100.64.0.1", "0.0.0.0", "64:ff9b:1::1", "2002:a00:1::1", "224.0.0.1", "8.8.8.8"] {
            assert!(!is_ours(others.parse().unwrap()), "{others}");
        }
    }

    #[test]
    fn networks_of_our_own_are_told_from_those_out_there() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:100.64.0.1",
            "64:ff9b::192.168.1.1",
            "64:ff9b:1::192.0.2.1",
            "2002:a00:1::1",
            "2002:c0a8:101::",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(is_inside(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "128.0.0.1",
            "169.253.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::8.8.8.8",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:4860:4860::8888",
            "2a00::1",
        ] {
            assert!(!is_inside(outside.parse().unwrap()), "{outside}");
        }
    }
}
