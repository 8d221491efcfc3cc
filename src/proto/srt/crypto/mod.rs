//! Encryption of a connection: keys made from a passphrase, announced, changed while packets flow (draft 6).
//!
//! ```text
//!   packets sent:   0 ............ refresh - announce ...... refresh ........ refresh + announce
//!   even key        in use                in use              known            forgotten
//!   odd key                               announced           in use           in use
//! ```

mod cipher;
mod material;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use zeroize::Zeroizing;

use self::cipher::{Salt, StreamKey};
use self::material::{Material, WrappingKey};
use super::entropy::Entropy;
use super::error::Rejection;
use super::packet::{HEADER_BYTES, KeyFlag};
use crate::units::Time;

pub use self::cipher::TAG_BYTES;

/// What keys are made from; shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

/// Not a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a passphrase has 10 to 79 bytes")]
pub struct PassphraseError;

impl FromStr for Passphrase {
    type Err = PassphraseError;

    fn from_str(text: &str) -> Result<Self, PassphraseError> {
        let fits = (PASSPHRASE_BYTES_MIN..=PASSPHRASE_BYTES_MAX).contains(&text.len());
        if fits { Ok(Self(Zeroizing::new(text.to_string()))) } else { Err(PassphraseError) }
    }
}

impl Passphrase {
    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(***)")
    }
}

/// Length of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyLength {
    /// 16 bytes.
    #[default]
    Aes128,
    /// 24 bytes.
    Aes192,
    /// 32 bytes.
    Aes256,
}

impl KeyLength {
    /// Of a key with so many bytes; `None` if AES has none such.
    #[must_use]
    pub const fn of_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            16 => Some(Self::Aes128),
            24 => Some(Self::Aes192),
            32 => Some(Self::Aes256),
            _ => None,
        }
    }

    /// Bytes of a key.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
}

/// How payload is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CipherMode {
    /// AES-CTR, which every peer knows.
    #[default]
    Ctr,
    /// AES-GCM, which also proves that nobody changed anything; libsrt 1.5.2 and later.
    Gcm,
}

/// When keys change, in packets sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refresh {
    pub every: u64,
    pub announce: u64,
}

/// The keys of one connection.
pub(super) struct Crypto {
    mode: CipherMode,
    length: KeyLength,
    passphrase: Passphrase,
    sending: Keys,
    receiving: Keys,
    refresh: Refresh,
    /// Packets sealed with the key in use.
    sealed: u64,
    in_use: KeyFlag,
    /// The announcement under way, when it is due again, and how often yet.
    announcement: Option<Announcement>,
}

/// Both keys of one direction, and what wraps them.
struct Keys {
    wrapping: WrappingKey,
    salt: Salt,
    even: Option<StreamKey>,
    odd: Option<StreamKey>,
}

#[derive(Debug)]
struct Announcement {
    bytes: Vec<u8>,
    due: Time,
    attempts_left: u32,
}

impl Crypto {
    /// A caller's: makes the first key, and says what to announce it with.
    pub(super) fn initiate(
        passphrase: &Passphrase,
        length: KeyLength,
        mode: CipherMode,
        refresh: Refresh,
        entropy: &mut Entropy,
    ) -> Option<(Self, Vec<u8>)> {
        let mut salt = Salt::default();
        salt.copy_from_slice(&entropy.draw()[..16]);
        let wrapping = WrappingKey::derive(passphrase, salt, length);
        let secret = new_secret(entropy, length);
        let bytes =
            Material { has_even: true, has_odd: false, mode, salt, length, wrapped: wrapping.wrap(&secret)? }.bytes();
        Self::respond(passphrase, mode, refresh, &bytes).ok().map(|crypto| (crypto, bytes))
    }

    /// From a peer's announcement: both directions begin with its keys.
    ///
    /// # Errors
    /// What the peer shall be told.
    pub(super) fn respond(
        passphrase: &Passphrase,
        mode: CipherMode,
        refresh: Refresh,
        announcement: &[u8],
    ) -> Result<Self, Rejection> {
        let material = Material::parse(announcement).ok_or(Rejection::ROGUE)?;
        if material.mode != mode {
            return Err(Rejection::CRYPTO);
        }
        let wrapping = || WrappingKey::derive(passphrase, material.salt, material.length);
        let receiving = Keys::unwrap(wrapping(), &material).ok_or(Rejection::BAD_SECRET)?;
        let sending = Keys::unwrap(wrapping(), &material).ok_or(Rejection::BAD_SECRET)?;
        Ok(Self {
            mode,
            length: material.length,
            passphrase: passphrase.clone(),
            sending,
            receiving,
            refresh,
            sealed: 0,
            in_use: if material.has_even { KeyFlag::Even } else { KeyFlag::Odd },
            announcement: None,
        })
    }

    pub(super) const fn length(&self) -> KeyLength {
        self.length
    }

    /// Bytes that sealing adds.
    pub(super) const fn overhead(&self) -> usize {
        match self.mode {
            CipherMode::Ctr => 0,
            CipherMode::Gcm => TAG_BYTES,
        }
    }

    /// The key that the next packet is sealed with.
    pub(super) const fn in_use(&self) -> KeyFlag {
        self.in_use
    }

    /// Encrypts a payload in place, in GCM with room for the tag at its end; `header` names the key in use.
    pub(super) fn seal(&mut self, now: Time, header: &[u8; HEADER_BYTES], payload: &mut [u8], entropy: &mut Entropy) {
        if let Some(key) = self.sending.key(self.in_use) {
            key.seal(header, payload);
        }
        self.sealed += 1;
        if self.refresh.every == 0 {
            return;
        }
        if self.sealed == self.refresh.every.saturating_sub(self.refresh.announce).max(1) {
            self.announce_next(now, entropy);
        }
        // Not before the peer has said that it knows the key, or the announcements have run out.
        let is_known = self.announcement.is_none() && self.sending.key(other(self.in_use)).is_some();
        if self.sealed >= self.refresh.every && is_known {
            self.in_use = other(self.in_use);
            self.sealed = 0;
        } else if self.sealed == self.refresh.announce {
            // Nothing sealed with the old one is on its way any more.
            self.sending.forget(other(self.in_use));
        }
    }

    /// Decrypts a payload in place; `None` if there is no such key, or it does not fit.
    pub(super) fn open(&self, key: KeyFlag, header: &[u8; HEADER_BYTES], payload: &mut [u8]) -> Option<usize> {
        self.receiving.key(key)?.open(header, payload)
    }

    /// A peer announces keys; says what to answer.
    pub(super) fn handle_request(&mut self, announcement: &[u8]) -> Vec<u8> {
        match self.learn(announcement) {
            Ok(()) => announcement.to_vec(),
            Err(state) => state.to_be_bytes().to_vec(),
        }
    }

    /// A peer answers our announcement.
    pub(super) fn handle_response(&mut self, answer: &[u8]) {
        if self.announcement.as_ref().is_some_and(|announcement| announcement.bytes == answer) {
            self.announcement = None;
        }
    }

    /// The announcement to send now; it is sent until it is answered.
    pub(super) fn poll_announcement(&mut self, now: Time, round_trip: Duration) -> Option<Vec<u8>> {
        let announcement = self.announcement.as_mut().filter(|announcement| announcement.due <= now)?;
        let bytes = announcement.bytes.clone();
        announcement.due = now + (round_trip * 3 / 2).max(ANNOUNCE_AGAIN_MIN);
        announcement.attempts_left -= 1;
        if announcement.attempts_left == 0 {
            self.announcement = None;
        }
        Some(bytes)
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.announcement.as_ref().map(|announcement| announcement.due)
    }

    fn learn(&mut self, announcement: &[u8]) -> Result<(), u32> {
        let material = Material::parse(announcement).ok_or(STATE_BAD_SECRET)?;
        if material.mode != self.mode {
            return Err(STATE_BAD_CRYPTO_MODE);
        }
        if !self.receiving.wrapping.is_for(&material.salt, material.length) {
            self.receiving.wrapping = WrappingKey::derive(&self.passphrase, material.salt, material.length);
        }
        let keys = self.receiving.wrapping.unwrap(&material.wrapped).ok_or(STATE_BAD_SECRET)?;
        self.receiving.salt = material.salt;
        self.receiving.take(&keys, &material);
        Ok(())
    }

    fn announce_next(&mut self, now: Time, entropy: &mut Entropy) {
        let secret = new_secret(entropy, self.length);
        let key = StreamKey::new(self.mode, self.length, &secret, self.sending.salt);
        match other(self.in_use) {
            KeyFlag::Even => self.sending.even = key,
            KeyFlag::Odd | KeyFlag::Clear | KeyFlag::Both => self.sending.odd = key,
        }
        let both = [&self.sending.even, &self.sending.odd].into_iter().flatten();
        let secrets: Zeroizing<Vec<u8>> = Zeroizing::new(both.flat_map(|key| key.secret().to_vec()).collect());
        let wrapped = self.sending.wrapping.wrap(&secrets);
        self.announcement = wrapped.map(|wrapped| {
            let (has_even, has_odd) = (self.sending.even.is_some(), self.sending.odd.is_some());
            let (mode, salt, length) = (self.mode, self.sending.salt, self.length);
            let bytes = Material { has_even, has_odd, mode, salt, length, wrapped }.bytes();
            Announcement { bytes, due: now, attempts_left: ANNOUNCEMENTS_MAX }
        });
    }
}

impl fmt::Debug for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crypto").field("mode", &self.mode).field("length", &self.length).finish_non_exhaustive()
    }
}

impl Keys {
    fn unwrap(wrapping: WrappingKey, material: &Material) -> Option<Self> {
        let keys = wrapping.unwrap(&material.wrapped)?;
        let mut both = Self { wrapping, salt: material.salt, even: None, odd: None };
        both.take(&keys, material);
        Some(both)
    }

    fn take(&mut self, keys: &[u8], material: &Material) {
        let mut each = keys.chunks_exact(material.length.bytes());
        let key = |secret| StreamKey::new(material.mode, material.length, secret, material.salt);
        if material.has_even {
            self.even = each.next().and_then(key);
        }
        if material.has_odd {
            self.odd = each.next().and_then(key);
        }
    }

    const fn key(&self, flag: KeyFlag) -> Option<&StreamKey> {
        match flag {
            KeyFlag::Even => self.even.as_ref(),
            KeyFlag::Odd => self.odd.as_ref(),
            KeyFlag::Clear | KeyFlag::Both => None,
        }
    }

    fn forget(&mut self, flag: KeyFlag) {
        match flag {
            KeyFlag::Even => self.even = None,
            KeyFlag::Odd => self.odd = None,
            KeyFlag::Clear | KeyFlag::Both => {}
        }
    }
}

/// A message that is read is written again as it was.
#[cfg(any(test, fuzzing))]
pub(super) fn check_any_bytes(bytes: &[u8]) {
    if let Some(material) = Material::parse(bytes) {
        assert_eq!(Material::parse(&material.bytes()), Some(material));
    }
}

fn new_secret(entropy: &mut Entropy, length: KeyLength) -> Zeroizing<Vec<u8>> {
    let mut secret = Zeroizing::new(Vec::with_capacity(2 * 20));
    secret.extend_from_slice(&entropy.draw());
    secret.extend_from_slice(&entropy.draw());
    secret.truncate(length.bytes());
    secret
}

const fn other(flag: KeyFlag) -> KeyFlag {
    match flag {
        KeyFlag::Even => KeyFlag::Odd,
        KeyFlag::Clear | KeyFlag::Odd | KeyFlag::Both => KeyFlag::Even,
    }
}

const PASSPHRASE_BYTES_MIN: usize = 10;
const PASSPHRASE_BYTES_MAX: usize = 79;
/// What a key response says instead of the keys (libsrt's SRT_KM_STATE).
const STATE_BAD_SECRET: u32 = 4;
const STATE_BAD_CRYPTO_MODE: u32 = 5;
/// As often as libsrt.
const ANNOUNCEMENTS_MAX: u32 = 10;
const ANNOUNCE_AGAIN_MIN: Duration = Duration::from_millis(20);
