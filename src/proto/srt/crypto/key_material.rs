//! Messages about keys, bytes to types and back (draft 3.2.2).
//!
//! ```text
//!  0                   1                   2                   3
//! |0|  V=1  | PT=2  |        signature 0x2029       |  reserved |KK |
//! |                     KEK index, here always 0                    |
//! |    cipher     |     auth      |     SE=2      |   reserved    |
//! |           reserved            |    salt/4     |     key/4     |
//! |                        salt, 16 bytes                         |
//! |        wrapped keys: 8 bytes, then even before odd            |
//! ```

use arrayvec::ArrayVec;
use zeroize::Zeroizing;

use super::super::error::Rejection;
use super::super::packet::KeyFlag;
use super::secret::{KEY_BYTES_MAX, Kek, KeyLength, SALT_BYTES, StreamKey, WRAP_BYTES, WRAPPED_BYTES_MAX, WrongSecret};

/// Longest message: two keys of 32 bytes.
pub const KEY_MATERIAL_BYTES_MAX: usize = FIXED_BYTES + SALT_BYTES + WRAPPED_BYTES_MAX;

/// Bytes of a message about keys: the body of a control packet or the content of a handshake extension.
pub type Message = ArrayVec<u8, KEY_MATERIAL_BYTES_MAX>;

/// How payload is encrypted (SRTO_CRYPTOMODE).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CipherMode {
    /// AES-CTR, which every peer knows: hides, but does not tell whether anybody changed anything.
    #[default]
    Ctr,
    /// AES-GCM, which tells that too; libsrt 1.5.2 and later.
    Gcm,
}

/// How far an agreement on keys has come, as SRTO_RCVKMSTATE and SRTO_SNDKMSTATE tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KmState {
    /// No encryption.
    #[default]
    Unsecured,
    /// Encrypted, and keys are being exchanged.
    Securing,
    /// Both ends have the keys.
    Secured,
    /// One end has a passphrase and the other has none.
    NoSecret,
    /// The passphrases differ.
    BadSecret,
    /// One end wants CTR, the other GCM.
    BadCryptoMode,
}

impl KmState {
    const fn of(number: u32) -> Self {
        match number {
            0 => Self::Unsecured,
            1 => Self::Securing,
            2 => Self::Secured,
            4 => Self::BadSecret,
            5 => Self::BadCryptoMode,
            // As libsrt takes any other number.
            _ => Self::NoSecret,
        }
    }

    /// What a handshake is refused with in this state; `None` if nothing is wrong with it.
    #[must_use]
    pub const fn rejection(self) -> Option<Rejection> {
        match self {
            Self::Securing | Self::Secured => None,
            Self::Unsecured | Self::NoSecret => Some(Rejection::UNSECURE),
            Self::BadSecret => Some(Rejection::BAD_SECRET),
            Self::BadCryptoMode => Some(Rejection::CRYPTO),
        }
    }

    /// The body of a KMRSP that refuses, one word. libsrt sends it in the byte order of its machine, which in practice
    /// is little-endian, while all else is big-endian; draft 3.2.1.2 knows the word but not its order.
    #[must_use]
    pub fn message(self) -> Message {
        (self as u32).to_le_bytes().into_iter().collect()
    }
}

/// A key message that says which keys, for what, wrapped: KMREQ, and KMRSP if all went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMaterial {
    bytes: Message,
    keys: KeyFlag,
    mode: CipherMode,
    length: KeyLength,
    salt: [u8; SALT_BYTES],
}

/// Why bytes are no key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMaterial {
    /// Shorter than its fixed part.
    #[error("too short")]
    Short,
    /// Not a multiple of four bytes.
    #[error("not made of words")]
    Unaligned,
    /// Another version, kind, signature, encapsulation or cipher.
    #[error("unknown kind")]
    Unknown,
    /// Says to carry no key.
    #[error("without a key")]
    NoKey,
    /// Lengths that are not allowed or contradict each other.
    #[error("contradictory lengths")]
    Contradictory,
}

/// The even and the odd key of a message; one of them may be missing.
#[derive(Clone, Debug, Default)]
pub struct StreamKeys {
    /// For packets marked [`KeyFlag::Even`].
    pub even: Option<StreamKey>,
    /// For packets marked [`KeyFlag::Odd`].
    pub odd: Option<StreamKey>,
}

impl KeyMaterial {
    /// Reads a message. What the draft reserves is not looked at.
    ///
    /// # Errors
    /// Anything that libsrt 1.5 would not take either, and salts that are not 16 bytes long.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadMaterial> {
        if !bytes.len().is_multiple_of(4) {
            return Err(BadMaterial::Unaligned);
        }
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_BYTES>().ok_or(BadMaterial::Short)?;
        let (salt, wrapped) = rest.split_first_chunk::<SALT_BYTES>().ok_or(BadMaterial::Short)?;
        if fixed[..3] != START || fixed[ENCAPSULATION] != SE_SRT {
            return Err(BadMaterial::Unknown);
        }
        let mode = CipherMode::of(fixed[CIPHER], fixed[AUTH]).ok_or(BadMaterial::Unknown)?;
        let keys = KeyFlag::of(u32::from(fixed[3]));
        if keys == KeyFlag::Clear || fixed[KEY_WORDS] == 0 {
            return Err(BadMaterial::NoKey);
        }
        let length = KeyLength::of_bytes(usize::from(fixed[KEY_WORDS]) * 4).ok_or(BadMaterial::Contradictory)?;
        let count = if keys == KeyFlag::Both { 2 } else { 1 };
        if usize::from(fixed[SALT_WORDS]) * 4 != SALT_BYTES || wrapped.len() != count * length.bytes() + WRAP_BYTES {
            return Err(BadMaterial::Contradictory);
        }
        let bytes = bytes.try_into().map_err(|_| BadMaterial::Contradictory)?;
        Ok(Self { bytes, keys, mode, length, salt: *salt })
    }

    /// Wraps `keys` for the peer; `None` if there is none, or if their length is not that of `kek`.
    #[must_use]
    pub fn wrap(keys: &StreamKeys, mode: CipherMode, kek: &Kek) -> Option<Self> {
        let flag = match (&keys.even, &keys.odd) {
            (Some(_), Some(_)) => KeyFlag::Both,
            (Some(_), None) => KeyFlag::Even,
            (None, Some(_)) => KeyFlag::Odd,
            (None, None) => return None,
        };
        let length = kek.length();
        let mut plain = Zeroizing::new([0; 2 * KEY_BYTES_MAX]);
        let mut end = 0;
        for key in [&keys.even, &keys.odd].into_iter().flatten().filter(|key| key.length() == length) {
            plain[end..end + length.bytes()].copy_from_slice(key.bytes());
            end += length.bytes();
        }
        if end != length.bytes() * if flag == KeyFlag::Both { 2 } else { 1 } {
            return None;
        }
        let mut fixed = [0; FIXED_BYTES];
        fixed[..3].copy_from_slice(&START);
        fixed[3] = flag.bits() as u8;
        (fixed[CIPHER], fixed[AUTH]) = mode.numbers();
        fixed[ENCAPSULATION] = SE_SRT;
        fixed[SALT_WORDS] = (SALT_BYTES / 4) as u8;
        fixed[KEY_WORDS] = (length.bytes() / 4) as u8;
        let wrapped = kek.wrap(&plain[..end])?;
        let bytes = fixed.into_iter().chain(*kek.salt()).chain(wrapped).collect();
        Some(Self { bytes, keys: flag, mode, length, salt: *kek.salt() })
    }

    /// Takes the keys out.
    ///
    /// # Errors
    /// They were wrapped with another passphrase.
    pub fn unwrap(&self, kek: &Kek) -> Result<StreamKeys, WrongSecret> {
        if !kek.fits(&self.salt, self.length) {
            return Err(WrongSecret);
        }
        let mut plain = Zeroizing::new([0; 2 * KEY_BYTES_MAX]);
        let wrapped = &self.bytes[FIXED_BYTES + SALT_BYTES..];
        let plain = &mut plain[..wrapped.len() - WRAP_BYTES];
        kek.unwrap(wrapped, plain)?;
        let first = StreamKey::new(plain, self.length);
        Ok(match self.keys {
            KeyFlag::Odd => StreamKeys { even: None, odd: first },
            KeyFlag::Both => {
                StreamKeys { even: first, odd: StreamKey::new(&plain[self.length.bytes()..], self.length) }
            }
            KeyFlag::Even | KeyFlag::Clear => StreamKeys { even: first, odd: None },
        })
    }

    /// As on the wire. A peer that agrees sends back exactly these bytes.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.bytes
    }

    /// Which keys are in it.
    #[must_use]
    pub const fn keys(&self) -> KeyFlag {
        self.keys
    }

    /// What they are for.
    #[must_use]
    pub const fn mode(&self) -> CipherMode {
        self.mode
    }

    /// How long they are.
    #[must_use]
    pub const fn length(&self) -> KeyLength {
        self.length
    }

    /// Salt of the passphrase, and of every packet.
    #[must_use]
    pub const fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.salt
    }
}

impl CipherMode {
    const fn of(cipher: u8, auth: u8) -> Option<Self> {
        match (cipher, auth) {
            (2, 0) => Some(Self::Ctr),
            (4, 1) => Some(Self::Gcm),
            _ => None,
        }
    }

    const fn numbers(self) -> (u8, u8) {
        match self {
            Self::Ctr => (2, 0),
            Self::Gcm => (4, 1),
        }
    }
}

/// A KMRSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyResponse<'body> {
    /// The request comes back: the peer has the keys.
    Echo(&'body [u8]),
    /// The peer's state, which says why it has not.
    Refused(KmState),
}

impl<'body> KeyResponse<'body> {
    /// Reads the body.
    ///
    /// # Errors
    /// Not made of words, or longer or shorter than any response.
    pub fn parse(body: &'body [u8]) -> Result<Self, BadMaterial> {
        if !body.len().is_multiple_of(4) {
            return Err(BadMaterial::Unaligned);
        }
        match *body {
            [] => Err(BadMaterial::Short),
            // Either byte order: the numbers are small, so the smaller reading is the right one.
            [a, b, c, d] => {
                let word = [a, b, c, d];
                Ok(Self::Refused(KmState::of(u32::from_le_bytes(word).min(u32::from_be_bytes(word)))))
            }
            _ if body.len() > KEY_MATERIAL_BYTES_MAX => Err(BadMaterial::Contradictory),
            _ => Ok(Self::Echo(body)),
        }
    }
}

/// Everything before the salt.
pub(super) const FIXED_BYTES: usize = 16;
/// Version 1, type 2 (key material), signature "HAI".
const START: [u8; 3] = [0x12, 0x20, 0x29];
const CIPHER: usize = 8;
const AUTH: usize = 9;
const ENCAPSULATION: usize = 10;
const SALT_WORDS: usize = 14;
const KEY_WORDS: usize = 15;
/// Stream encapsulation: SRT.
const SE_SRT: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check_any_bytes;
    use super::super::secret::Derivation;
    use super::super::tests::hex;
    use super::*;

    fn kek(length: KeyLength) -> Kek {
        Derivation { passphrase: "thelocalmanager".parse().unwrap(), salt: [5; 16], length }.run()
    }

    fn material(flag: KeyFlag, mode: CipherMode, length: KeyLength) -> KeyMaterial {
        let key = |byte, with| StreamKey::new(&[byte; 32], length).filter(|_| with);
        let keys = StreamKeys { even: key(0xee, flag != KeyFlag::Odd), odd: key(0xdd, flag != KeyFlag::Even) };
        KeyMaterial::wrap(&keys, mode, &kek(length)).unwrap()
    }

    fn all() -> impl Iterator<Item = KeyMaterial> {
        let lengths = [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256];
        let flags = [KeyFlag::Even, KeyFlag::Odd, KeyFlag::Both];
        lengths
            .into_iter()
            .flat_map(move |length| {
                flags
                    .into_iter()
                    .flat_map(move |flag| [CipherMode::Ctr, CipherMode::Gcm].map(|mode| (flag, mode, length)))
            })
            .map(|(flag, mode, length)| material(flag, mode, length))
    }

    /// From handshakes of libsrt 1.5.5.
    #[test]
    fn messages_of_libsrt_are_read() {
        let ctr = hex("12202901000000000200020000000404a9347ac5e7b3df32f519d0ea28b73a51\
             ad2eeb9dc375bfccb8b4481eff843b2b2717a9e5224fb92f");
        let gcm = hex("122029010000000004010200000004082c449137930c2a78ad1b64fa6813884b\
             e273cf8aaa70e1286f40f81d67e3c88dfceebb1695a5984bdd87b1945d274a250ae1c353227011e5");
        let cases = [(ctr, CipherMode::Ctr, KeyLength::Aes128), (gcm, CipherMode::Gcm, KeyLength::Aes256)];
        for (bytes, mode, length) in cases {
            let read = KeyMaterial::parse(&bytes).unwrap();
            assert_eq!((read.keys(), read.mode(), read.length()), (KeyFlag::Even, mode, length));
            assert_eq!((&read.salt()[..], &read.message()[..]), (&bytes[16..32], &bytes[..]));
            let (passphrase, salt) = ("thelocalmanager".parse().unwrap(), *read.salt());
            let keys = read.unwrap(&Derivation { passphrase, salt, length }.run()).unwrap();
            // Wrapped again, the same comes out: the layout is libsrt's.
            let kek = Derivation { passphrase: "thelocalmanager".parse().unwrap(), salt, length }.run();
            assert_eq!(KeyMaterial::wrap(&keys, mode, &kek), Some(read));
        }
    }

    #[test]
    fn what_is_written_is_read_back_with_its_keys() {
        for written in all() {
            let read = KeyMaterial::parse(written.message()).unwrap();
            assert_eq!(read, written);
            let keys = read.unwrap(&kek(read.length())).unwrap();
            let bytes = |key: &Option<StreamKey>| key.as_ref().map(|key| key.bytes().to_vec());
            let expected = |byte, with: bool| with.then(|| vec![byte; read.length().bytes()]);
            assert_eq!(bytes(&keys.even), expected(0xee, read.keys() != KeyFlag::Odd));
            assert_eq!(bytes(&keys.odd), expected(0xdd, read.keys() != KeyFlag::Even));
        }
    }

    #[test]
    fn a_message_cut_anywhere_or_with_more_at_the_end_is_refused() {
        for written in all() {
            let mut bytes = written.message().to_vec();
            for length in 0..bytes.len() {
                assert!(KeyMaterial::parse(&bytes[..length]).is_err(), "{length}");
            }
            for _ in 0..40 {
                bytes.push(0);
                assert!(KeyMaterial::parse(&bytes).is_err());
            }
        }
        assert_eq!(KeyMaterial::parse(&[0; 28]), Err(BadMaterial::Short));
        assert_eq!(KeyMaterial::parse(&[0; 30]), Err(BadMaterial::Unaligned));
    }

    #[test]
    fn unknown_and_contradictory_messages_are_refused() {
        let good = material(KeyFlag::Even, CipherMode::Ctr, KeyLength::Aes128);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.message().clone();
            bytes[at] = byte;
            KeyMaterial::parse(&bytes).map(|read| read.keys())
        };
        for (at, byte) in [(0, 0x22), (0, 0x11), (1, 0), (2, 0), (8, 0), (8, 3), (8, 4), (9, 1), (10, 1)] {
            assert_eq!(with(at, byte), Err(BadMaterial::Unknown), "{at}");
        }
        for (at, byte) in [(3, 3), (14, 0), (14, 3), (14, 5), (15, 5), (15, 6), (15, 255)] {
            assert_eq!(with(at, byte), Err(BadMaterial::Contradictory), "{at}");
        }
        assert_eq!(with(3, 0), Err(BadMaterial::NoKey));
        assert_eq!(with(15, 0), Err(BadMaterial::NoKey));
        for reserved in [4, 7, 11, 12, 13] {
            assert_eq!(with(reserved, 0xff), Ok(KeyFlag::Even), "reserved");
        }
        assert_eq!(with(3, 0xfd), Ok(KeyFlag::Even));
    }

    #[test]
    fn keys_under_another_passphrase_salt_or_length_stay_wrapped() {
        let written = material(KeyFlag::Both, CipherMode::Ctr, KeyLength::Aes128);
        let other = |passphrase: &str, salt, length| {
            let kek = Derivation { passphrase: passphrase.parse().unwrap(), salt, length }.run();
            written.unwrap(&kek).is_err()
        };
        assert!(other("thelocalmanage", [5; 16], KeyLength::Aes128));
        assert!(other("thelocalmanager", [6; 16], KeyLength::Aes128));
        assert!(other("thelocalmanager", [5; 16], KeyLength::Aes192));
        assert!(!other("thelocalmanager", [5; 16], KeyLength::Aes128));
    }

    #[test]
    fn keys_of_another_length_or_none_cannot_be_wrapped() {
        let kek = kek(KeyLength::Aes128);
        assert_eq!(KeyMaterial::wrap(&StreamKeys::default(), CipherMode::Ctr, &kek), None);
        let keys = StreamKeys { even: StreamKey::new(&[1; 32], KeyLength::Aes256), odd: None };
        assert_eq!(KeyMaterial::wrap(&keys, CipherMode::Ctr, &kek), None);
    }

    #[test]
    fn a_refusal_is_one_word_in_either_byte_order() {
        for state in [KmState::Unsecured, KmState::NoSecret, KmState::BadSecret, KmState::BadCryptoMode] {
            let mut message = state.message();
            assert_eq!(KeyResponse::parse(&message), Ok(KeyResponse::Refused(state)));
            message.reverse();
            assert_eq!(KeyResponse::parse(&message), Ok(KeyResponse::Refused(state)));
        }
        assert_eq!(KmState::BadSecret.message().as_slice(), [4, 0, 0, 0]);
        assert_eq!(KeyResponse::parse(&[9; 4]), Ok(KeyResponse::Refused(KmState::NoSecret)));
        assert_eq!(KeyResponse::parse(&[]), Err(BadMaterial::Short));
        assert_eq!(KeyResponse::parse(&[0; 7]), Err(BadMaterial::Unaligned));
        assert_eq!(KeyResponse::parse(&[0; 8]), Ok(KeyResponse::Echo(&[0; 8])));
        assert_eq!(KeyResponse::parse(&[0; 108]), Err(BadMaterial::Contradictory));
    }

    /// Found by fuzzing: the message of the check itself, but for a bit of what is reserved.
    #[test]
    fn what_is_reserved_is_not_looked_at() {
        let mut bytes = [0x12, 0x20, 0x29, 1, 0, 0, 0, 0, 2, 0, 2, 0, 0, 8, 4, 4].to_vec();
        bytes.extend([0; SALT_BYTES]);
        bytes.extend([0x86, 0xd4, 0x88, 0x2e, 0xc3, 0xc4, 0xf5, 0xb1, 0x5d, 0xca, 0x4c, 0x8c]);
        bytes.extend([0xde, 0x5b, 0xcc, 0x2d, 0x48, 0x65, 0x2e, 0x31, 0x75, 0x60, 0x3d, 0x9e]);
        assert!(KeyMaterial::parse(&bytes).is_ok());
        check_any_bytes(&bytes);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..130)) {
            check_any_bytes(&bytes);
        }

        #[test]
        fn any_change_of_a_message_is_read_without_panic(
            which in 0_usize..18, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
        ) {
            let mut bytes = all().nth(which).map(|written| written.message().to_vec()).unwrap_or_default();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            check_any_bytes(&bytes);
        }
    }
}
