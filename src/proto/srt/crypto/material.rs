//! Key material messages (draft 3.2.2), and the key that wraps the keys (draft 6.1).

use aes_kw::cipher::KeyInit;
use aes_kw::{KwAes128, KwAes192, KwAes256};
use hmac::Hmac;
use sha1::Sha1;
use zeroize::Zeroizing;

use super::cipher::{SALT_BYTES, Salt};
use super::{CipherMode, KeyLength, Passphrase};

/// A key material message, still wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Material {
    pub has_even: bool,
    pub has_odd: bool,
    pub mode: CipherMode,
    pub salt: Salt,
    pub length: KeyLength,
    /// The keys, even first, with 8 bytes of check before them.
    pub wrapped: Vec<u8>,
}

impl Material {
    /// `None` for anything but a message of this form whose lengths agree.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_at_checked(FIXED_BYTES)?;
        let (salt, wrapped) = rest.split_at_checked(SALT_BYTES)?;
        let is_known = fixed[..3] == MARK && fixed[4..8] == [0; 4] && usize::from(fixed[14]) * 4 == SALT_BYTES;
        let mode = match (fixed[8], fixed[9]) {
            (2, 0) => CipherMode::Ctr,
            (4, 1) => CipherMode::Gcm,
            _ => return None,
        };
        let length = KeyLength::of_bytes(usize::from(fixed[15]) * 4)?;
        let (has_even, has_odd) = (fixed[3] & 1 != 0, fixed[3] & 2 != 0);
        let keys = usize::from(has_even) + usize::from(has_odd);
        let fits = keys > 0 && wrapped.len() == keys * length.bytes() + CHECK_BYTES;
        let salt = salt.try_into().ok()?;
        (is_known && fits).then(|| Self { has_even, has_odd, mode, salt, length, wrapped: wrapped.to_vec() })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + SALT_BYTES + self.wrapped.len());
        out.extend_from_slice(&MARK);
        out.push(u8::from(self.has_even) | (u8::from(self.has_odd) << 1));
        out.extend_from_slice(&[0; 4]);
        // Cipher, authentication, and a stream of TS or SRT packets.
        out.extend_from_slice(match self.mode {
            CipherMode::Ctr => &[2, 0, 2, 0],
            CipherMode::Gcm => &[4, 1, 2, 0],
        });
        out.extend_from_slice(&[0, 0, (SALT_BYTES / 4) as u8, (self.length.bytes() / 4) as u8]);
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.wrapped);
        out
    }
}

/// Key encrypting key: wraps and unwraps stream keys.
pub(super) struct WrappingKey {
    key: Zeroizing<Vec<u8>>,
    salt: Salt,
}

impl WrappingKey {
    /// Takes half a millisecond, by intent: whoever guesses passphrases shall have it hard.
    pub(super) fn derive(passphrase: &Passphrase, salt: Salt, length: KeyLength) -> Self {
        let mut key = Zeroizing::new(vec![0; length.bytes()]);
        let half = &salt[SALT_BYTES - KDF_SALT_BYTES..];
        let derived = pbkdf2::pbkdf2::<Hmac<Sha1>>(passphrase.bytes(), half, KDF_ROUNDS, &mut key);
        debug_assert!(derived.is_ok(), "HMAC takes keys of any length");
        Self { key, salt }
    }

    /// Whether it is the one that `salt` and `length` lead to.
    pub(super) fn is_for(&self, salt: &Salt, length: KeyLength) -> bool {
        self.salt == *salt && self.key.len() == length.bytes()
    }

    pub(super) fn wrap(&self, keys: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; keys.len() + CHECK_BYTES];
        match self.key.len() {
            16 => KwAes128::new_from_slice(&self.key).ok()?.wrap_key(keys, &mut out).ok()?.len(),
            24 => KwAes192::new_from_slice(&self.key).ok()?.wrap_key(keys, &mut out).ok()?.len(),
            _ => KwAes256::new_from_slice(&self.key).ok()?.wrap_key(keys, &mut out).ok()?.len(),
        };
        Some(out)
    }

    /// `None` if they were wrapped with another key: the passphrases differ.
    pub(super) fn unwrap(&self, wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(vec![0; wrapped.len().checked_sub(CHECK_BYTES)?]);
        match self.key.len() {
            16 => KwAes128::new_from_slice(&self.key).ok()?.unwrap_key(wrapped, &mut out).ok()?.len(),
            24 => KwAes192::new_from_slice(&self.key).ok()?.unwrap_key(wrapped, &mut out).ok()?.len(),
            _ => KwAes256::new_from_slice(&self.key).ok()?.unwrap_key(wrapped, &mut out).ok()?.len(),
        };
        Some(out)
    }
}

/// Version 1, packet type 2, and the sign "HAI" in PnP vendor form.
const MARK: [u8; 3] = [0x12, 0x20, 0x29];
const FIXED_BYTES: usize = 16;
/// What RFC 3394 adds.
const CHECK_BYTES: usize = 8;
/// Of the salt, its last bytes go into the derivation (draft 6.1.4).
const KDF_SALT_BYTES: usize = 8;
const KDF_ROUNDS: u32 = 2_048;
