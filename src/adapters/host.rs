//! Host names and addresses as users write them.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// An address, or a name that is looked up when the socket is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Used as it is.
    Ip(IpAddr),
    /// Looked up at every opening.
    Name(String),
}

/// Not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host: write an IPv4 address, an IPv6 address or a host name")]
pub struct ParseHostError;

impl FromStr for Host {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Ip(ip));
        }
        if text == "localhost" {
            // Not left to the resolver, which may prefer ::1 where a source listens on 127.0.0.1.
            return Ok(Self::Ip(Ipv4Addr::LOCALHOST.into()));
        }
        let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // All digits and dots is a mistyped address, never a name.
        let is_name = !text.is_empty()
            && text.len() <= DNS_NAME_BYTES_MAX
            && text.chars().all(label)
            && text.chars().any(|c| c.is_ascii_alphabetic());
        if is_name { Ok(Self::Name(text.to_string())) } else { Err(ParseHostError) }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Where.
    pub host: Host,
    /// Never zero.
    pub port: u16,
}

impl Host {
    /// The address; asks the resolver if the host is a name, and may block for as long as that takes.
    ///
    /// # Errors
    /// What the resolver says.
    pub fn resolve(&self) -> io::Result<IpAddr> {
        let first = self.addresses()?.first().copied();
        first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }

    /// All its addresses, the best ones first (RFC 6724); otherwise as [`Host::resolve`].
    pub(super) fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::Ip(ip) => Ok(vec![*ip]),
            Self::Name(name) => Ok((name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect()),
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// RFC 1035 2.3.4.
const DNS_NAME_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_names() {
        assert_eq!("127.0.0.1".parse(), Ok(Host::Ip([127, 0, 0, 1].into())));
        assert_eq!("[::1]".parse::<Host>().map(|host| host.to_string()), Ok("[::1]".into()));
        assert_eq!("play-out.example".parse(), Ok(Host::Name("play-out.example".into())));
    }

    #[test]
    fn mistyped_addresses_are_no_names() {
        for text in ["", "127.0.0.256", "1.2.3", "a b", "x/y", "[::1"] {
            assert_eq!(text.parse::<Host>(), Err(ParseHostError), "{text}");
        }
    }
}
