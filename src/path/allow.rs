//! Who may send to a source or take from an output: allow-lists of networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A list of networks; an empty one allows everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Box<[Cidr]>);

impl AllowList {
    /// Entries that a list may have. Judgement: a list is searched from end to end for every new peer.
    pub const ENTRIES_MAX: usize = 256;

    /// A list of `entries`.
    ///
    /// # Errors
    /// [`TooManyEntries`] above [`AllowList::ENTRIES_MAX`].
    pub fn new(entries: Vec<Cidr>) -> Result<Self, TooManyEntries> {
        if entries.len() > Self::ENTRIES_MAX {
            return Err(TooManyEntries { count: entries.len() });
        }
        Ok(Self(entries.into()))
    }

    /// Whether `address` is in one of the networks, or there are none. An IPv4 address written as IPv6
    /// (`::ffff:192.0.2.1`, as sockets that take both show it) counts as the IPv4 address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.0.is_empty() || self.0.iter().any(|network| network.contains(address))
    }
}

/// Too long a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} networks, at most {} are allowed", AllowList::ENTRIES_MAX)]
pub struct TooManyEntries {
    /// Networks given.
    pub count: usize,
}

/// A network: an address whose first bits count. Bits after those are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix_bits: u8,
}

impl Cidr {
    /// Whether `address` lies in the network, with IPv4 addresses in either notation.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => mask_v4(address, self.prefix_bits) == network,
            (IpAddr::V6(network), IpAddr::V6(address)) => mask_v6(address, self.prefix_bits) == network,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Reads `192.0.2.0/24`, `2001:db8::/32`, or a single address. Bits after the prefix are cleared; an IPv4 network
/// written as IPv6 (`::ffff:192.0.2.0/120`) becomes the IPv4 network.
impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, ParseCidrError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| ParseCidrError::Address)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Some(bits_max), parse_prefix).filter(|bits| *bits <= bits_max);
        let prefix_bits = prefix_bits.ok_or(ParseCidrError::Prefix { bits_max })?;
        Ok(match (address, address.to_canonical()) {
            (IpAddr::V4(address), _) => Self { network: mask_v4(address, prefix_bits).into(), prefix_bits },
            (IpAddr::V6(_), IpAddr::V4(address)) if prefix_bits >= MAPPED_PREFIX_BITS => {
                let prefix_bits = prefix_bits - MAPPED_PREFIX_BITS;
                Self { network: mask_v4(address, prefix_bits).into(), prefix_bits }
            }
            (IpAddr::V6(address), _) => Self { network: mask_v6(address, prefix_bits).into(), prefix_bits },
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCidrError {
    /// What stands before the slash is no address; names are not looked up.
    #[error("not an IP address or network: write 192.0.2.0/24 or 2001:db8::/32")]
    Address,
    /// What stands after the slash is no number of bits.
    #[error("the number after the slash must be between 0 and {bits_max}")]
    Prefix {
        /// Bits of such an address.
        bits_max: u8,
    },
}

/// Digits only: `u8::from_str` would take a plus sign.
fn parse_prefix(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn mask_v4(address: Ipv4Addr, prefix_bits: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn mask_v6(address: Ipv6Addr, prefix_bits: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

/// IPv4-mapped addresses share their first 96 bits (RFC 4291 2.5.5.2).
const MAPPED_PREFIX_BITS: u8 = 96;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_list_allows_everyone() {
        assert!(AllowList::default().allows(ip("203.0.113.9")));
    }

    #[test]
    fn only_listed_networks_are_allowed() {
        let list = list(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]);
        for inside in ["10.255.0.1", "192.0.2.7", "2001:db8:ffff::1", "::ffff:10.1.2.3"] {
            assert!(list.allows(ip(inside)), "{inside}");
        }
        for outside in ["11.0.0.0", "192.0.2.8", "2001:db9::", "::ffff:11.0.0.1", "::10.1.2.3"] {
            assert!(!list.allows(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn everything_of_one_family_is_nothing_of_the_other() {
        assert!(list(&["0.0.0.0/0"]).allows(ip("255.255.255.255")));
        assert!(!list(&["0.0.0.0/0"]).allows(ip("::1")));
        assert!(list(&["::/0"]).allows(ip("::1")));
        assert!(!list(&["::/0"]).allows(ip("::ffff:127.0.0.1")));
    }

    #[test]
    fn networks_are_shown_in_their_shortest_true_form() {
        for (text, shown) in [
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.77", "192.0.2.77/32"),
            ("2001:DB8:0::5/48", "2001:db8::/48"),
            ("::ffff:192.0.2.77/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.77/64", "::/64"),
        ] {
            assert_eq!(text.parse::<Cidr>().map(|cidr| cidr.to_string()), Ok(shown.into()));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "/", "/8", "10.0.0/8", "example.org/8", "10.0.0.0 /8", "010.0.0.0/8"] {
            assert_eq!(text.parse::<Cidr>(), Err(ParseCidrError::Address), "{text}");
        }
        for text in ["10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/-1", "10.0.0.0/8/8", "10.0.0.0/256"] {
            assert_eq!(text.parse::<Cidr>(), Err(ParseCidrError::Prefix { bits_max: 32 }), "{text}");
        }
        assert_eq!("::/129".parse::<Cidr>(), Err(ParseCidrError::Prefix { bits_max: 128 }));
    }

    #[test]
    fn a_list_is_bounded() {
        let entries = vec!["10.0.0.0/8".parse().unwrap(); 257];
        assert_eq!(AllowList::new(entries), Err(TooManyEntries { count: 257 }));
    }

    proptest! {
        #[test]
        fn a_network_contains_what_shares_its_first_bits(network: u32, address: u32, bits in 0u8..=32) {
            let cidr: Cidr = format!("{}/{bits}", Ipv4Addr::from_bits(network)).parse().unwrap();
            let shared = (network ^ address).leading_zeros() >= u32::from(bits);
            prop_assert_eq!(cidr.contains(Ipv4Addr::from_bits(address).into()), shared);
            prop_assert_eq!(cidr.contains(Ipv4Addr::from_bits(address).to_ipv6_mapped().into()), shared);
            prop_assert_eq!(cidr.to_string().parse(), Ok(cidr));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[0-9a-f:./]{0,48}") {
            if let Ok(cidr) = text.parse::<Cidr>() {
                prop_assert!(cidr.contains(cidr.network));
            }
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn list(entries: &[&str]) -> AllowList {
        AllowList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect()).unwrap()
    }
}
