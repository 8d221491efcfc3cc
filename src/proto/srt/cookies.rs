//! Cookies that callers bring back, so that nothing need be kept of those who do not (draft 4.3.1.1).

use std::net::{IpAddr, SocketAddr};

use super::entropy::Entropy;
use crate::units::Time;

/// Makes cookies and knows them again.
#[derive(Debug)]
pub(super) struct Cookies(Entropy);

impl Cookies {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self(Entropy::new(secret))
    }

    /// Belongs to the caller's address and this minute.
    pub(super) fn bake(&self, now: Time, peer: SocketAddr) -> u32 {
        self.at(now, peer, 0)
    }

    /// Whether we made it for this address, in this minute or the last.
    pub(super) fn knows(&self, now: Time, peer: SocketAddr, cookie: u32) -> bool {
        [0, 1].into_iter().any(|age| self.at(now, peer, age) == cookie)
    }

    fn at(&self, now: Time, peer: SocketAddr, age: u64) -> u32 {
        let minute = (now.as_ns() / 60_000_000_000).wrapping_sub(age).to_be_bytes();
        let port = peer.port().to_be_bytes();
        match peer.ip() {
            IpAddr::V4(ip) => self.0.tag(&[b"cookie", &ip.octets(), &port, &minute]),
            IpAddr::V6(ip) => self.0.tag(&[b"cookie", &ip.octets(), &port, &minute]),
        }
    }
}
