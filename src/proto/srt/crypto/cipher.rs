//! Encrypts and decrypts the payload of packets, in place.
//!
//! ```text
//! CTR (draft 6.2.2)        |           salt, 112 bits          | 0  0 |   counter block, its last 16 bits count blocks
//!                     XOR  |  0 ... 0  | sequence number, 32 b | 0  0 |
//! GCM since libsrt 1.5.4   |      salt, 96 bits    |                      nonce; header in network order as AAD
//!                     XOR  |  0 ... 0  | sequence  |
//! GCM until libsrt 1.5.3: the first 12 bytes of the block of CTR; the header's words little-endian as AAD
//! ```
//!
//! The draft has no GCM: both forms are what libsrt does, on machines that are little-endian.

use aes::{Aes128Enc, Aes192Enc, Aes256Enc};
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use ctr::cipher::consts::U12;
use ctr::cipher::{BlockCipherEncrypt, BlockSizeUser, InOutBuf, InnerIvInit, StreamCipherCore, consts::U16};
use ctr::{CtrCore, flavors::Ctr32BE};

use super::super::packet::HEADER_BYTES;
use super::key_material::CipherMode;
use super::secret::{KeyLength, SALT_BYTES, StreamKey};

/// What GCM appends.
pub const TAG_BYTES: usize = 16;

/// GCM's two forms on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GcmForm {
    /// Until libsrt 1.5.3. Its nonce lacks the lower half of the sequence number, so 65 536 packets share one: whoever
    /// listens can tell what they differ in, and forge. No better than CTR, and only for old peers.
    Old,
    /// Since libsrt 1.5.4.
    #[default]
    Current,
}

impl GcmForm {
    /// What a peer of this version speaks, as in 0x010505.
    #[must_use]
    pub const fn of_version(version: u32) -> Self {
        if version <= 0x01_05_03 { Self::Old } else { Self::Current }
    }

    pub(super) const fn other(self) -> Self {
        match self {
            Self::Old => Self::Current,
            Self::Current => Self::Old,
        }
    }
}

/// One key, ready for use: expanded once, wiped when dropped.
#[derive(Debug)]
pub struct PacketCipher {
    schedule: Schedule,
    salt: [u8; SALT_BYTES],
}

#[derive(Debug)]
enum Schedule {
    Ctr128(Aes128Enc),
    Ctr192(Aes192Enc),
    Ctr256(Aes256Enc),
    Gcm128(AesGcm<Aes128Enc, U12>),
    Gcm192(AesGcm<Aes192Enc, U12>),
    Gcm256(AesGcm<Aes256Enc, U12>),
}

impl PacketCipher {
    /// Expands the key.
    #[must_use]
    pub fn new(mode: CipherMode, key: &StreamKey, salt: [u8; SALT_BYTES]) -> Option<Self> {
        let bytes = key.bytes();
        let schedule = match (mode, key.length()) {
            (CipherMode::Ctr, KeyLength::Aes128) => Schedule::Ctr128(Aes128Enc::new_from_slice(bytes).ok()?),
            (CipherMode::Ctr, KeyLength::Aes192) => Schedule::Ctr192(Aes192Enc::new_from_slice(bytes).ok()?),
            (CipherMode::Ctr, KeyLength::Aes256) => Schedule::Ctr256(Aes256Enc::new_from_slice(bytes).ok()?),
            (CipherMode::Gcm, KeyLength::Aes128) => Schedule::Gcm128(AesGcm::new_from_slice(bytes).ok()?),
            (CipherMode::Gcm, KeyLength::Aes192) => Schedule::Gcm192(AesGcm::new_from_slice(bytes).ok()?),
            (CipherMode::Gcm, KeyLength::Aes256) => Schedule::Gcm256(AesGcm::new_from_slice(bytes).ok()?),
        };
        Some(Self { schedule, salt })
    }

    /// Bytes that [`PacketCipher::seal`] adds.
    #[must_use]
    pub const fn overhead(&self) -> usize {
        match self.schedule {
            Schedule::Ctr128(_) | Schedule::Ctr192(_) | Schedule::Ctr256(_) => 0,
            Schedule::Gcm128(_) | Schedule::Gcm192(_) | Schedule::Gcm256(_) => TAG_BYTES,
        }
    }

    /// Encrypts `payload` in place; its last [`PacketCipher::overhead`] bytes are room for the tag. `header` is the
    /// packet's as it goes on the wire; the flag R does not count. `None` if there is no room, or too much to encrypt.
    #[inline]
    #[must_use]
    pub fn seal(&self, form: GcmForm, header: &[u8; HEADER_BYTES], payload: &mut [u8]) -> Option<()> {
        let (text, tag) = payload.split_at_mut_checked(payload.len().checked_sub(self.overhead())?)?;
        match &self.schedule {
            Schedule::Ctr128(aes) => self.apply(aes, header, text),
            Schedule::Ctr192(aes) => self.apply(aes, header, text),
            Schedule::Ctr256(aes) => self.apply(aes, header, text),
            Schedule::Gcm128(gcm) => self.lock(gcm, form, header, text, tag),
            Schedule::Gcm192(gcm) => self.lock(gcm, form, header, text, tag),
            Schedule::Gcm256(gcm) => self.lock(gcm, form, header, text, tag),
        }
    }

    /// Decrypts `payload` in place; returns the length of what is in the clear. `None` if it was not made with this key
    /// and header, which only GCM can tell; it is then as it was.
    #[inline]
    #[must_use]
    pub fn open(&self, form: GcmForm, header: &[u8; HEADER_BYTES], payload: &mut [u8]) -> Option<usize> {
        let length = payload.len().checked_sub(self.overhead())?;
        let (text, tag) = payload.split_at_mut(length);
        match &self.schedule {
            Schedule::Ctr128(aes) => self.apply(aes, header, text)?,
            Schedule::Ctr192(aes) => self.apply(aes, header, text)?,
            Schedule::Ctr256(aes) => self.apply(aes, header, text)?,
            Schedule::Gcm128(gcm) => self.unlock(gcm, form, header, text, tag)?,
            Schedule::Gcm192(gcm) => self.unlock(gcm, form, header, text, tag)?,
            Schedule::Gcm256(gcm) => self.unlock(gcm, form, header, text, tag)?,
        }
        Some(length)
    }

    /// Counter mode, the same in both directions.
    #[inline]
    fn apply<Aes>(&self, aes: &Aes, header: &[u8; HEADER_BYTES], text: &mut [u8]) -> Option<()>
    where
        Aes: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    {
        count(aes, self.counter_block(header), text)
    }

    #[inline]
    fn lock<Aes>(
        &self,
        gcm: &AesGcm<Aes, U12>,
        form: GcmForm,
        header: &[u8; HEADER_BYTES],
        payload: &mut [u8],
        tag: &mut [u8],
    ) -> Option<()>
    where
        Aes: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    {
        let (nonce, covered) = self.nonce_and_header(form, header);
        let made = gcm.encrypt_inout_detached(&nonce.into(), &covered, InOutBuf::from(payload)).ok()?;
        tag.copy_from_slice(&made);
        Some(())
    }

    #[inline]
    fn unlock<Aes>(
        &self,
        gcm: &AesGcm<Aes, U12>,
        form: GcmForm,
        header: &[u8; HEADER_BYTES],
        payload: &mut [u8],
        tag: &[u8],
    ) -> Option<()>
    where
        Aes: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    {
        let (nonce, covered) = self.nonce_and_header(form, header);
        gcm.decrypt_inout_detached(&nonce.into(), &covered, InOutBuf::from(payload), tag.try_into().ok()?).ok()
    }

    fn counter_block(&self, header: &[u8; HEADER_BYTES]) -> [u8; 16] {
        let mut block = self.salt;
        block[14..].fill(0);
        mix(&mut block[10..14], header);
        block
    }

    fn nonce_and_header(&self, form: GcmForm, header: &[u8; HEADER_BYTES]) -> ([u8; 12], [u8; HEADER_BYTES]) {
        let mut covered = *header;
        covered[4] &= !RETRANSMITTED;
        let mut nonce = [0; 12];
        match form {
            GcmForm::Current => {
                nonce.copy_from_slice(&self.salt[..12]);
                mix(&mut nonce[8..], header);
            }
            GcmForm::Old => {
                nonce.copy_from_slice(&self.counter_block(header)[..12]);
                covered.chunks_exact_mut(4).for_each(<[u8]>::reverse);
            }
        }
        (nonce, covered)
    }
}

/// `None` beyond the count of blocks, far longer than any packet.
#[inline]
fn count<Aes>(aes: &Aes, block: [u8; 16], text: &mut [u8]) -> Option<()>
where
    Aes: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    CtrCore::<_, Ctr32BE>::inner_iv_init(aes, &block.into()).try_apply_keystream_partial(InOutBuf::from(text)).ok()
}

/// XORs the sequence number, the first word of a header, into four bytes.
fn mix(into: &mut [u8], header: &[u8; HEADER_BYTES]) {
    for (byte, sequence) in into.iter_mut().zip(&header[..4]) {
        *byte ^= sequence;
    }
}

/// Flag R, bit 26 of the second word, in that word's first byte (draft 3.1).
const RETRANSMITTED: u8 = 1 << 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::hex;
    use super::*;

    const LENGTHS: [KeyLength; 3] = [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256];
    const FORMS: [GcmForm; 2] = [GcmForm::Old, GcmForm::Current];

    fn cipher(mode: CipherMode, length: KeyLength) -> PacketCipher {
        let bytes: Vec<u8> = (0..48).collect();
        let salt = std::array::from_fn(|at| 0x10 + at as u8);
        PacketCipher::new(mode, &StreamKey::new(&bytes, length).unwrap(), salt).unwrap()
    }

    fn header(text: &str) -> [u8; HEADER_BYTES] {
        hex(text).try_into().unwrap()
    }

    fn seal(cipher: &PacketCipher, form: GcmForm, header: &[u8; HEADER_BYTES], text: &[u8]) -> Vec<u8> {
        let mut payload = text.to_vec();
        payload.resize(text.len() + cipher.overhead(), 0xaa);
        cipher.seal(form, header, &mut payload).unwrap();
        payload
    }

    /// NIST SP 800-38A F.5.1, F.5.3, F.5.5.
    #[test]
    fn counter_mode_gives_what_its_test_vectors_say() {
        let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
             30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
        let block: [u8; 16] = std::array::from_fn(|at| 0xf0 + at as u8);
        let run = |key: &str, expected: &str| {
            let (key, mut text) = (hex(key), plain.clone());
            match key.len() {
                16 => count(&Aes128Enc::new_from_slice(&key).unwrap(), block, &mut text),
                24 => count(&Aes192Enc::new_from_slice(&key).unwrap(), block, &mut text),
                _ => count(&Aes256Enc::new_from_slice(&key).unwrap(), block, &mut text),
            }
            .unwrap();
            assert_eq!(text, hex(expected));
        };
        run(
            "2b7e151628aed2a6abf7158809cf4f3c",
            "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff\
             5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee",
        );
        run(
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e94\
             1e36b26bd1ebc670d1bd1d665620abf74f78a7f6d29809585a97daec58c6b050",
        );
        run(
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5\
             2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
        );
    }

    /// Made with another implementation of AES, from what libsrt 1.5.3 and 1.5.5 do on a little-endian machine.
    #[test]
    fn each_form_has_its_own_nonce_and_covered_header() {
        let header = header("12345678 e8000001 01020304 0a0b0c0d");
        let text: Vec<u8> = (0x40..0x54).collect();
        let cases = [
            (
                "cc2e944512d50bbdd15b65604a4780fc68177e3e",
                "2612e0cce132533d25e82e75d6a15c67b888badceb57179dbb339df2ac0c4800aa573f39",
                "2a309e799f97857001c4bd5efaa962e33d8a8db2cfdaf851e379c5386c712599e48b0c52",
            ),
            (
                "af5931520318ed111639abc269f8cf3304fee07a",
                "e541e2bc1a579890407abcd5879013b0f76b5e12b251403fec6a1062f162a958970851c0",
                "091155a9b29125f5b9efadd6bcc97a51ce250dc811162639d83d4ff9cd28efd7d5e3eb33",
            ),
            (
                "db4b654d50a858f9bbd07b852b163d6f09ad2613",
                "028f1bce3c5fecb7680d3d46b4c1b6a3968335b641bc65e2f5047c3451c44a460c362a24",
                "3193f9b009b03de1f38f4075161de24f2fbdbe35742d430401082905975b6fb06100d5f7",
            ),
        ];
        for (length, (ctr, old, current)) in LENGTHS.into_iter().zip(cases) {
            let gcm = cipher(CipherMode::Gcm, length);
            assert_eq!(seal(&cipher(CipherMode::Ctr, length), GcmForm::Current, &header, &text), hex(ctr));
            assert_eq!(seal(&gcm, GcmForm::Old, &header, &text), hex(old));
            assert_eq!(seal(&gcm, GcmForm::Current, &header, &text), hex(current));
        }
    }

    #[test]
    fn a_retransmission_opens_like_the_first_transmission() {
        let first = header("12345678 e8000001 01020304 0a0b0c0d");
        let again = header("12345678 ec000001 01020304 0a0b0c0d");
        for form in FORMS {
            let gcm = cipher(CipherMode::Gcm, KeyLength::Aes128);
            let mut sealed = seal(&gcm, form, &first, b"text");
            assert_eq!(sealed, seal(&gcm, form, &again, b"text"));
            assert_eq!(gcm.open(form, &again, &mut sealed), Some(4));
            assert_eq!(&sealed[..4], b"text");
        }
    }

    #[test]
    fn any_changed_bit_is_noticed_in_gcm_and_the_packet_left_alone() {
        let gcm = cipher(CipherMode::Gcm, KeyLength::Aes256);
        let right = header("12345678 e8000001 01020304 0a0b0c0d");
        for form in FORMS {
            let sealed = seal(&gcm, form, &right, b"seven TS packets");
            for bit in 0..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let before = changed.clone();
                assert_eq!(gcm.open(form, &right, &mut changed), None);
                assert_eq!(changed, before);
            }
            for bit in (0..HEADER_BYTES * 8).filter(|bit| *bit != 4 * 8 + 2) {
                let mut other = right;
                other[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(gcm.open(form, &other, &mut sealed.clone()), None, "{bit}");
            }
            assert_eq!(gcm.open(form.other(), &right, &mut sealed.clone()), None);
            for length in 0..sealed.len() {
                assert_eq!(gcm.open(form, &right, &mut sealed[..length].to_vec()), None);
            }
        }
    }

    #[test]
    fn no_room_for_the_tag_seals_nothing() {
        let gcm = cipher(CipherMode::Gcm, KeyLength::Aes128);
        assert_eq!(gcm.seal(GcmForm::Current, &[0; 16], &mut [0; TAG_BYTES - 1]), None);
        assert_eq!(gcm.seal(GcmForm::Current, &[0; 16], &mut [0; TAG_BYTES]), Some(()));
    }

    #[test]
    fn the_form_follows_from_the_version() {
        assert_eq!(GcmForm::of_version(0x01_05_03), GcmForm::Old);
        assert_eq!(GcmForm::of_version(0x01_05_04), GcmForm::Current);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_again(
            text in proptest::collection::vec(any::<u8>(), 0..1_500), header in any::<[u8; HEADER_BYTES]>(),
            which in 0_usize..3
        ) {
            for mode in [CipherMode::Ctr, CipherMode::Gcm] {
                for form in FORMS {
                    let cipher = cipher(mode, LENGTHS[which]);
                    let mut payload = seal(&cipher, form, &header, &text);
                    prop_assert_eq!(payload.len(), text.len() + cipher.overhead());
                    prop_assert_eq!(cipher.open(form, &header, &mut payload), Some(text.len()));
                    prop_assert_eq!(&payload[..text.len()], &text[..]);
                }
            }
        }
    }
}
