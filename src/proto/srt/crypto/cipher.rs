//! One stream key and what it does to payloads (draft 6.2; libsrt 1.5 for GCM, which the draft lacks).

use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aes_gcm::{AesGcm, Nonce, Tag};
use ctr::{CtrCore, flavors::Ctr128BE};
use zeroize::Zeroizing;

use super::{CipherMode, KeyLength};
use crate::proto::srt::packet::HEADER_BYTES;

/// Salt of a connection's keys.
pub(super) type Salt = [u8; SALT_BYTES];

/// Length of the salt.
pub(super) const SALT_BYTES: usize = 16;
/// What GCM adds to a payload.
pub const TAG_BYTES: usize = 16;

/// A stream encrypting key, ready for use: its key schedule is made once.
pub(super) struct StreamKey {
    /// The key itself, to be announced to the peer.
    secret: Zeroizing<Vec<u8>>,
    salt: Salt,
    cipher: Cipher,
}

enum Cipher {
    Ctr128(Aes128),
    Ctr192(Aes192),
    Ctr256(Aes256),
    Gcm128(Box<AesGcm<Aes128, U12>>),
    Gcm192(Box<AesGcm<Aes192, U12>>),
    Gcm256(Box<AesGcm<Aes256, U12>>),
}

impl StreamKey {
    /// `secret` is as long as `length` says, or the key is none.
    pub(super) fn new(mode: CipherMode, length: KeyLength, secret: &[u8], salt: Salt) -> Option<Self> {
        let cipher = match (mode, length) {
            (CipherMode::Ctr, KeyLength::Aes128) => Cipher::Ctr128(Aes128::new_from_slice(secret).ok()?),
            (CipherMode::Ctr, KeyLength::Aes192) => Cipher::Ctr192(Aes192::new_from_slice(secret).ok()?),
            (CipherMode::Ctr, KeyLength::Aes256) => Cipher::Ctr256(Aes256::new_from_slice(secret).ok()?),
            (CipherMode::Gcm, KeyLength::Aes128) => Cipher::Gcm128(Box::new(AesGcm::new_from_slice(secret).ok()?)),
            (CipherMode::Gcm, KeyLength::Aes192) => Cipher::Gcm192(Box::new(AesGcm::new_from_slice(secret).ok()?)),
            (CipherMode::Gcm, KeyLength::Aes256) => Cipher::Gcm256(Box::new(AesGcm::new_from_slice(secret).ok()?)),
        };
        Some(Self { secret: Zeroizing::new(secret.to_vec()), salt, cipher })
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Encrypts `payload` in place. Its last [`TAG_BYTES`] are room for the tag in GCM.
    pub(super) fn seal(&self, header: &[u8; HEADER_BYTES], payload: &mut [u8]) {
        match &self.cipher {
            Cipher::Ctr128(cipher) => self.count(cipher, header, payload),
            Cipher::Ctr192(cipher) => self.count(cipher, header, payload),
            Cipher::Ctr256(cipher) => self.count(cipher, header, payload),
            Cipher::Gcm128(cipher) => self.authenticate(&**cipher, header, payload),
            Cipher::Gcm192(cipher) => self.authenticate(&**cipher, header, payload),
            Cipher::Gcm256(cipher) => self.authenticate(&**cipher, header, payload),
        }
    }

    /// Decrypts `payload` in place; returns the length of what is in the clear, or `None` if it was not made with this
    /// key and header. CTR cannot tell.
    pub(super) fn open(&self, header: &[u8; HEADER_BYTES], payload: &mut [u8]) -> Option<usize> {
        match &self.cipher {
            Cipher::Ctr128(_) | Cipher::Ctr192(_) | Cipher::Ctr256(_) => {
                self.seal(header, payload);
                Some(payload.len())
            }
            Cipher::Gcm128(cipher) => self.verify(&**cipher, header, payload),
            Cipher::Gcm192(cipher) => self.verify(&**cipher, header, payload),
            Cipher::Gcm256(cipher) => self.verify(&**cipher, header, payload),
        }
    }

    fn count<'key, C>(&self, cipher: &'key C, header: &[u8; HEADER_BYTES], payload: &mut [u8])
    where
        &'key C: aes::cipher::BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>,
    {
        // The upper 112 bits of the salt, with the sequence number over its lowest four bytes; the rest counts blocks.
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt[..14]);
        xor(&mut iv[10..14], &header[..4]);
        let core = CtrCore::<_, Ctr128BE>::inner_iv_init(cipher, &iv.into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(payload);
    }

    fn authenticate(
        &self,
        cipher: &impl AeadInOut<NonceSize = U12, TagSize = aes::cipher::consts::U16>,
        header: &[u8; HEADER_BYTES],
        payload: &mut [u8],
    ) {
        let Some(at) = payload.len().checked_sub(TAG_BYTES) else { return };
        let (text, tag) = payload.split_at_mut(at);
        if let Ok(made) = cipher.encrypt_inout_detached(&self.nonce(header), &associated(header), text.into()) {
            tag.copy_from_slice(&made);
        }
    }

    fn verify(
        &self,
        cipher: &impl AeadInOut<NonceSize = U12, TagSize = aes::cipher::consts::U16>,
        header: &[u8; HEADER_BYTES],
        payload: &mut [u8],
    ) -> Option<usize> {
        let at = payload.len().checked_sub(TAG_BYTES)?;
        let (text, tag) = payload.split_at_mut(at);
        let tag = Tag::try_from(&*tag).ok()?;
        cipher.decrypt_inout_detached(&self.nonce(header), &associated(header), text.into(), &tag).ok()?;
        Some(at)
    }

    /// libsrt 1.5.4 and later: the salt's first 12 bytes, with the sequence number over the lowest four.
    fn nonce(&self, header: &[u8; HEADER_BYTES]) -> Nonce<U12> {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&self.salt[..12]);
        xor(&mut nonce[8..], &header[..4]);
        nonce.into()
    }
}

/// The header as it was when first sent: a retransmission differs from it in the flag R.
fn associated(header: &[u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
    let mut header = *header;
    header[4] &= !RETRANSMITTED;
    header
}

fn xor(into: &mut [u8], from: &[u8]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into ^= from);
}

/// The flag R in the header's fifth byte.
const RETRANSMITTED: u8 = 0x04;
