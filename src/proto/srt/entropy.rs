//! Unpredictable numbers from one secret, so that the cores need no source of randomness of their own.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::handshake::GROUP_ID;

/// HMAC-SHA1 of a counter: nobody who does not know the secret can tell its output from chance.
#[derive(Debug)]
pub(super) struct Entropy {
    keyed: Hmac<Sha1>,
    drawn: u64,
}

impl Entropy {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        let keyed = Hmac::new_from_slice(&secret).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        Self { keyed, drawn: 0 }
    }

    /// The next 20 bytes.
    pub(super) fn draw(&mut self) -> [u8; 20] {
        self.drawn += 1;
        self.digest(&[b"draw", &self.drawn.to_be_bytes()])
    }

    /// Another one, which tells nothing of this one.
    pub(super) fn child(&mut self) -> Self {
        Self::new(self.secret())
    }

    /// A secret for another one.
    pub(super) fn secret(&mut self) -> [u8; 32] {
        let mut secret = [0; 32];
        secret[..20].copy_from_slice(&self.draw());
        secret[20..].copy_from_slice(&self.draw()[..12]);
        secret
    }

    /// The next word.
    pub(super) fn word(&mut self) -> u32 {
        first_word(self.draw())
    }

    /// A number that is fit for a socket: libsrt keeps bit 30 for groups, and zero is the listener.
    pub(super) fn socket_id(&mut self) -> u32 {
        (self.word() & 0x3fff_ffff).max(1)
    }

    /// A number that is fit for a group.
    pub(super) fn group_id(&mut self) -> u32 {
        self.socket_id() | GROUP_ID
    }

    /// A word that belongs to `parts` and to nothing else.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> u32 {
        first_word(self.digest(parts))
    }

    fn digest(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut mac = self.keyed.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

const fn first_word(bytes: [u8; 20]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
