//! Passphrase, stream keys, and the key that wraps them (draft 6.1.4, 6.1.5).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aes_kw::{KeyInit, KwAes128, KwAes192, KwAes256};
use arrayvec::ArrayVec;
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::super::entropy::Entropy;

/// Bytes of a salt; other lengths are allowed by the draft's layout and used by nobody.
pub const SALT_BYTES: usize = 16;
/// Bytes of the longest key.
pub(super) const KEY_BYTES_MAX: usize = 32;
/// What wrapping adds (RFC 3394 2.2.1).
pub(super) const WRAP_BYTES: usize = 8;
/// Two of the longest keys, wrapped.
pub(super) const WRAPPED_BYTES_MAX: usize = 2 * KEY_BYTES_MAX + WRAP_BYTES;

/// Two ends that know it can talk. Cloning shares the memory, and the last owner wipes it.
#[derive(Clone)]
pub struct Passphrase(Arc<Zeroizing<Vec<u8>>>);

/// A text that is no passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a passphrase must have 10 to 79 bytes")]
pub struct PassphraseError;

impl FromStr for Passphrase {
    type Err = PassphraseError;

    fn from_str(text: &str) -> Result<Self, PassphraseError> {
        // The bounds of SRTO_PASSPHRASE in libsrt.
        if !(10..=79).contains(&text.len()) {
            return Err(PassphraseError);
        }
        Ok(Self(Arc::new(Zeroizing::new(text.as_bytes().to_vec()))))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Passphrase {}

/// Length of the keys, as SRTO_PBKEYLEN says it in bytes.
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
    /// The length of `bytes` bytes; `None` for any but 16, 24 and 32.
    #[must_use]
    pub const fn of_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            16 => Some(Self::Aes128),
            24 => Some(Self::Aes192),
            32 => Some(Self::Aes256),
            _ => None,
        }
    }

    /// In bytes. A handshake says it in units of 8 bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
}

/// A key that encrypts packets (SEK). Wiped when dropped.
#[derive(Clone)]
pub struct StreamKey {
    bytes: Zeroizing<[u8; KEY_BYTES_MAX]>,
    length: KeyLength,
}

impl StreamKey {
    /// The key that starts `bytes`; `None` if those are too few.
    #[must_use]
    pub fn new(bytes: &[u8], length: KeyLength) -> Option<Self> {
        let mut key = Self { bytes: Zeroizing::default(), length };
        key.bytes[..length.bytes()].copy_from_slice(bytes.get(..length.bytes())?);
        Some(key)
    }

    /// A new one.
    pub(super) fn draw(entropy: &mut Entropy, length: KeyLength) -> Self {
        let mut key = Self { bytes: Zeroizing::default(), length };
        for part in key.bytes.chunks_mut(16) {
            part.copy_from_slice(&entropy.draw()[..16]);
        }
        key
    }

    /// Its length.
    #[must_use]
    pub const fn length(&self) -> KeyLength {
        self.length
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length.bytes()]
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamKey({:?}, ..)", self.length)
    }
}

/// The slow part of agreeing on keys, half a millisecond of hashing: whoever runs the core takes it to wherever that
/// holds up nobody, and brings back what comes out.
#[derive(Clone, Debug)]
pub struct Derivation {
    pub(super) passphrase: Passphrase,
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) length: KeyLength,
}

impl Derivation {
    /// Under a new salt.
    pub(in crate::proto::srt) fn draw(passphrase: &Passphrase, length: KeyLength, entropy: &mut Entropy) -> Self {
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&entropy.draw()[..SALT_BYTES]);
        Self { passphrase: passphrase.clone(), salt, length }
    }

    /// Does it.
    #[must_use]
    pub fn run(&self) -> Kek {
        let mut bytes = Zeroizing::new([0; KEY_BYTES_MAX]);
        // Only the last eight bytes of the salt count (draft 6.1.4).
        let salt = &self.salt[SALT_BYTES - 8..];
        pbkdf2::pbkdf2_hmac::<Sha1>(&self.passphrase.0, salt, ROUNDS, &mut bytes[..self.length.bytes()]);
        Kek { salt: self.salt, key: StreamKey { bytes, length: self.length } }
    }
}

/// The key that wraps stream keys (KEK), good for one salt and one length. Wiped when dropped.
#[derive(Clone, Debug)]
pub struct Kek {
    salt: [u8; SALT_BYTES],
    key: StreamKey,
}

/// Keys wrapped with another passphrase, or changed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the passphrases differ")]
pub struct WrongSecret;

impl Kek {
    /// A key that came another way than from a passphrase.
    #[must_use]
    pub const fn new(salt: [u8; SALT_BYTES], key: StreamKey) -> Self {
        Self { salt, key }
    }

    /// Whether it is for this salt and length.
    #[must_use]
    pub fn fits(&self, salt: &[u8; SALT_BYTES], length: KeyLength) -> bool {
        self.salt == *salt && self.key.length == length
    }

    pub(super) const fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.salt
    }

    /// Its length, and that of the keys that it wraps.
    #[must_use]
    pub const fn length(&self) -> KeyLength {
        self.key.length
    }

    /// Wraps one key, or two one after the other (RFC 3394 2.2.1); `None` for what is not.
    pub(super) fn wrap(&self, plain: &[u8]) -> Option<ArrayVec<u8, WRAPPED_BYTES_MAX>> {
        let mut out = [0; WRAPPED_BYTES_MAX];
        let key = self.key.bytes();
        let wrapped = match self.key.length {
            KeyLength::Aes128 => KwAes128::new_from_slice(key).ok()?.wrap_key(plain, &mut out).ok()?,
            KeyLength::Aes192 => KwAes192::new_from_slice(key).ok()?.wrap_key(plain, &mut out).ok()?,
            KeyLength::Aes256 => KwAes256::new_from_slice(key).ok()?.wrap_key(plain, &mut out).ok()?,
        };
        wrapped.try_into().ok()
    }

    /// Takes wrapped keys apart into `out`, whose length is theirs (RFC 3394 2.2.2).
    pub(super) fn unwrap(&self, wrapped: &[u8], out: &mut [u8]) -> Result<(), WrongSecret> {
        let key = self.key.bytes();
        let plain = match self.key.length {
            KeyLength::Aes128 => KwAes128::new_from_slice(key).map(|kek| kek.unwrap_key(wrapped, out).is_ok()),
            KeyLength::Aes192 => KwAes192::new_from_slice(key).map(|kek| kek.unwrap_key(wrapped, out).is_ok()),
            KeyLength::Aes256 => KwAes256::new_from_slice(key).map(|kek| kek.unwrap_key(wrapped, out).is_ok()),
        };
        if plain == Ok(true) { Ok(()) } else { Err(WrongSecret) }
    }
}

/// Rounds of PBKDF2 (draft 6.1.4).
const ROUNDS: u32 = 2_048;

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;

    fn kek(key: &[u8]) -> Kek {
        let length = KeyLength::of_bytes(key.len()).unwrap();
        Kek::new([0; 16], StreamKey::new(key, length).unwrap())
    }

    /// RFC 6070 2.
    #[test]
    fn pbkdf2_gives_what_its_test_vectors_say() {
        let cases: [(&str, &str, u32, &str); 5] = [
            ("password", "salt", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
            ("password", "salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"),
            ("password", "salt", 4_096, "4b007901b765489abead49d926f721d065a429c1"),
            (
                "passwordPASSWORDpassword",
                "saltSALTsaltSALTsaltSALTsaltSALTsalt",
                4_096,
                "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038",
            ),
            ("pass\0word", "sa\0lt", 4_096, "56fa6aa75548099dcc37d7f03425e0c3"),
        ];
        for (passphrase, salt, rounds, expected) in cases {
            let expected = hex(expected);
            let mut out = vec![0; expected.len()];
            pbkdf2::pbkdf2_hmac::<Sha1>(passphrase.as_bytes(), salt.as_bytes(), rounds, &mut out);
            assert_eq!(out, expected, "{passphrase} {rounds}");
        }
    }

    /// RFC 3394 4.1, 4.4, 4.6.
    #[test]
    fn keys_are_wrapped_as_the_test_vectors_say() {
        let key = hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
        let data = hex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f");
        let cases = [
            (16, "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"),
            (24, "031d33264e15d33268f24ec260743edce1c6c7ddee725a936ba814915c6762d2"),
            (32, "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"),
        ];
        for (bytes, expected) in cases {
            let kek = kek(&key[..bytes]);
            let wrapped = kek.wrap(&data[..bytes]).unwrap();
            assert_eq!(wrapped.as_slice(), hex(expected), "{bytes}");
            let mut plain = vec![0; bytes];
            assert_eq!(kek.unwrap(&wrapped, &mut plain), Ok(()));
            assert_eq!(plain, data[..bytes]);
        }
    }

    #[test]
    fn any_changed_bit_of_wrapped_keys_is_noticed() {
        let kek = kek(&[7; 24]);
        let wrapped = kek.wrap(&[9; 48]).unwrap();
        for bit in 0..wrapped.len() * 8 {
            let mut changed = wrapped.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut plain = [1; 48];
            assert_eq!(kek.unwrap(&changed, &mut plain), Err(WrongSecret));
            assert_eq!(plain, [0; 48], "nothing of the keys is left");
        }
    }

    #[test]
    fn only_the_second_half_of_the_salt_and_the_passphrase_make_the_key() {
        let derive = |passphrase: &str, salt: [u8; 16], length| {
            Derivation { passphrase: passphrase.parse().unwrap(), salt, length }.run().key.bytes().to_vec()
        };
        let first = derive("thelocalmanager", [0; 16], KeyLength::Aes256);
        let mut salt = [0; 16];
        salt[7] = 1;
        assert_eq!(derive("thelocalmanager", salt, KeyLength::Aes256), first);
        salt[8] = 1;
        assert_ne!(derive("thelocalmanager", salt, KeyLength::Aes256), first);
        assert_ne!(derive("thelocalmanagers", [0; 16], KeyLength::Aes256), first);
        assert_eq!(derive("thelocalmanager", [0; 16], KeyLength::Aes128), first[..16]);
    }

    #[test]
    fn a_passphrase_has_10_to_79_bytes_and_is_never_shown() {
        assert!("123456789".parse::<Passphrase>().is_err());
        assert!("x".repeat(80).parse::<Passphrase>().is_err());
        let passphrase: Passphrase = "x".repeat(79).parse().unwrap();
        assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
        assert_eq!("1234567890".parse::<Passphrase>(), Ok("1234567890".parse().unwrap()));
        assert_ne!("1234567890".parse::<Passphrase>(), "1234567891".parse());
        let job = Derivation { passphrase, salt: [0; 16], length: KeyLength::Aes128 };
        assert!(!format!("{job:?} {:?}", job.run()).contains("xx"));
    }
}
