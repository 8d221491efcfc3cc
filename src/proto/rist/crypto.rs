//! Pre-shared-key encryption of the Main profile (TR-06-2 6, PSK).
//!
//! ```text
//! key      PBKDF2-HMAC-SHA256(passphrase, salt: the nonce's four bytes as sent, 1,024 rounds), 16 or 32 bytes
//! counter  RVer 1 and later: | sequence number | 0 0 0 | in 32-bit words, then counting up as one number of 128 bits
//! ```
//!
//! RVer 0 has the sequence number at the other end, where it meets the block count, so that neighbouring packets share
//! keystream: that form is neither sent nor taken. There is no authentication: whoever decrypts checks what comes out.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, InOutBuf, InnerIvInit, KeyInit, StreamCipherCore, consts::U16};
use aes::{Aes128Enc, Aes256Enc};
use arrayvec::ArrayVec;
use ctr::{CtrCore, flavors::Ctr128BE};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::proto::rtp::random::Random;
use crate::proto::{Done, Work};
use crate::units::Time;

/// Two ends that know it can talk. Cloning shares the memory, and the last owner wipes it.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

/// A text that is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret must have 1 to 127 bytes")]
pub struct SecretError;

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        // Librist keeps 128 with the zero at the end.
        if !(1..=127).contains(&text.len()) {
            return Err(SecretError);
        }
        Ok(Self(Arc::new(Zeroizing::new(text.as_bytes().to_vec()))))
    }
}

impl Secret {
    /// One that is no text; `None` if it is too short or too long.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=127).contains(&bytes.len()).then(|| Self(Arc::new(Zeroizing::new(bytes.to_vec()))))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Wraps a passphrase with the key of an EAP-SRP session, or unwraps it: AES-CTR, whose first block has the message's
/// identifier at its end (TR-06-2 annex D).
pub(super) fn wrap(key: &[u8; 32], is_long_key: bool, identifier: u8, text: &[u8]) -> Zeroizing<Vec<u8>> {
    let (mut text, mut block) = (Zeroizing::new(text.to_vec()), [0; 16]);
    block[15] = identifier;
    if is_long_key {
        count(&Aes256Enc::new(key.into()), block, &mut text);
    } else {
        let mut short = Zeroizing::new([0; 16]);
        short.copy_from_slice(&key[..16]);
        count(&Aes128Enc::new((&*short).into()), block, &mut text);
    }
    text
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}

/// Length of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyLength {
    /// 16 bytes.
    #[default]
    Aes128,
    /// 32 bytes.
    Aes256,
}

/// A number that a key belongs to; never zero.
pub(super) type Nonce = [u8; 4];

/// A key, expanded for use. Wiped when dropped.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) nonce: Nonce,
    pub(super) length: KeyLength,
    schedule: Schedule,
}

#[derive(Debug)]
enum Schedule {
    Aes128(Aes128Enc),
    Aes256(Aes256Enc),
}

impl Key {
    /// The slow part: some tenth of a millisecond of hashing.
    pub(super) fn derive(secret: &Secret, nonce: Nonce, length: KeyLength) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        let schedule = match length {
            KeyLength::Aes128 => {
                let mut short = Zeroizing::new([0; 16]);
                pbkdf2::pbkdf2_hmac::<Sha256>(&secret.0, &nonce, ROUNDS, &mut short[..]);
                Schedule::Aes128(Aes128Enc::new(&(*short).into()))
            }
            KeyLength::Aes256 => {
                pbkdf2::pbkdf2_hmac::<Sha256>(&secret.0, &nonce, ROUNDS, &mut bytes[..]);
                Schedule::Aes256(Aes256Enc::new(&(*bytes).into()))
            }
        };
        Self { nonce, length, schedule }
    }

    /// Encrypts or decrypts what the packet `sequence` carries, in place.
    #[inline]
    pub(super) fn apply(&self, sequence: u32, text: &mut [u8]) {
        let mut block = [0; 16];
        block[..4].copy_from_slice(&sequence.to_be_bytes());
        match &self.schedule {
            Schedule::Aes128(aes) => count(aes, block, text),
            Schedule::Aes256(aes) => count(aes, block, text),
        }
    }
}

#[inline]
fn count<Aes>(aes: &Aes, block: [u8; 16], text: &mut [u8])
where
    Aes: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    // Fails only beyond 2^128 blocks.
    let _ = CtrCore::<_, Ctr128BE>::inner_iv_init(aes, &block.into()).try_apply_keystream_partial(InOutBuf::from(text));
}

/// The keys that we send with: one, and the next one in time.
#[derive(Debug)]
pub(super) struct Sealing {
    secret: Secret,
    key: Key,
    next: Option<Key>,
    rotation: u32,
    /// Packets under this key.
    used: u32,
    /// When the next key is to be asked for, counted in those.
    ask_at: u32,
    work: Option<Work>,
}

impl Sealing {
    /// The first key is derived at once: this is not where packets pass.
    pub(super) fn new(secret: &Secret, length: KeyLength, rotation: u32, random: &mut Random) -> Self {
        let rotation = rotation.max(ROTATION_MIN);
        let key = Key::derive(secret, draw_nonce(random), length);
        Self { secret: secret.clone(), key, next: None, rotation, used: 0, ask_at: rotation / 2, work: None }
    }

    /// The key for one more packet.
    pub(super) fn key(&mut self, random: &mut Random) -> &Key {
        if self.used >= self.ask_at {
            self.ask_at = self.used.saturating_add(ASK_AGAIN_AFTER);
            let (secret, nonce, length) = (self.secret.clone(), draw_nonce(random), self.key.length);
            self.work = Some(Work::new(SEALING, move || Key::derive(&secret, nonce, length)));
        }
        if self.used == u32::MAX && self.next.is_none() {
            // Nobody has brought one: numbers must not repeat under one key.
            self.next = Some(Key::derive(&self.secret, draw_nonce(random), self.key.length));
        }
        if self.used >= self.rotation
            && let Some(next) = self.next.take()
        {
            (self.key, self.used, self.ask_at) = (next, 0, self.rotation / 2);
        }
        self.used += 1;
        &self.key
    }

    pub(super) const fn poll_work(&mut self) -> Option<Work> {
        self.work.take()
    }

    pub(super) fn handle_done(&mut self, done: Done) {
        if let Ok(key) = done.result.downcast::<Key>() {
            self.next = Some(*key);
        }
    }
}

/// The keys that we receive with: those in use, the one before of each peer, and one that is tried.
#[derive(Debug)]
pub(super) struct Opening {
    secret: Secret,
    /// Proven ones, the latest first.
    proven: ArrayVec<Key, PROVEN_MAX>,
    proven_max: usize,
    candidate: Option<Key>,
    /// Being derived, since when.
    asked: Option<(Nonce, KeyLength, Time)>,
    work: Option<Work>,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Proven(usize),
    Candidate,
}

impl Opening {
    /// For so many peers, each with a key and the one before it.
    pub(super) fn new(secret: &Secret, peers: usize) -> Self {
        Self {
            secret: secret.clone(),
            proven: ArrayVec::new(),
            proven_max: (2 * peers).clamp(2, PROVEN_MAX),
            candidate: None,
            asked: None,
            work: None,
        }
    }

    /// From now on keys belong to another secret; those that are proven stay, for what is on its way.
    pub(super) fn rekey(&mut self, secret: &Secret) {
        self.secret = secret.clone();
        (self.candidate, self.asked, self.work) = (None, None, None);
    }

    /// The key for this nonce; if there is none, it is asked for, ten times a second at most.
    pub(super) fn find(&mut self, now: Time, nonce: Nonce, length: KeyLength) -> Option<(Standing, &Key)> {
        let is_it = |key: &Key| key.nonce == nonce && key.length == length;
        if let Some(at) = self.proven.iter().position(is_it) {
            return Some((Standing::Proven(at), &self.proven[at]));
        }
        if self.candidate.as_ref().is_some_and(is_it) {
            return self.candidate.as_ref().map(|key| (Standing::Candidate, key));
        }
        let may_ask = self.asked.is_none_or(|(_, _, since)| now.since(since) >= ASK_EVERY);
        if may_ask && nonce != [0; 4] {
            self.asked = Some((nonce, length, now));
            let secret = self.secret.clone();
            self.work = Some(Work::new(OPENING, move || Key::derive(&secret, nonce, length)));
        }
        None
    }

    /// Whether this key is being derived.
    pub(super) fn awaits(&self, nonce: Nonce, length: KeyLength) -> bool {
        self.asked.is_some_and(|(asked, of, _)| (asked, of) == (nonce, length))
    }

    /// What this key decrypted makes sense.
    pub(super) fn prove(&mut self, standing: Standing) {
        match standing {
            Standing::Proven(0) => {}
            Standing::Proven(at) => self.proven[..=at].rotate_right(1),
            Standing::Candidate => {
                if let Some(key) = self.candidate.take() {
                    self.proven.truncate(self.proven_max - 1);
                    self.proven.insert(0, key);
                }
            }
        }
    }

    pub(super) const fn poll_work(&mut self) -> Option<Work> {
        self.work.take()
    }

    pub(super) fn handle_done(&mut self, done: Done) {
        let Ok(key) = done.result.downcast::<Key>() else { return };
        if self.awaits(key.nonce, key.length) {
            self.candidate = Some(*key);
        }
    }
}

/// Not zero, and with the highest bit clear: librist takes that for the even one of two passphrases.
fn draw_nonce(random: &mut Random) -> Nonce {
    ((random.next() as u32 & 0x7fff_ffff) | 1).to_be_bytes()
}

/// What work is for.
pub(super) const SEALING: u64 = 0;
pub(super) const OPENING: u64 = 1;

/// Rounds of PBKDF2 (TR-06-2 6.2.1).
const ROUNDS: u32 = 1_024;
/// Fewest packets under one key. Judgement: less would be all derivation.
const ROTATION_MIN: u32 = 64;
/// The next key may have got lost on its way here.
const ASK_AGAIN_AFTER: u32 = 4_096;
/// A tenth of a millisecond each, at the wish of anyone who can send to us.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Two for each of as many peers as there may be.
const PROVEN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::capture::{Side, read};
    use super::super::gre::{Content, Header};
    use super::*;
    use crate::proto::rtp::RtpPacket;
    use crate::proto::rtp::rtcp::{Compound, is_rtcp};

    fn secret() -> Secret {
        SECRET.parse().unwrap()
    }

    const SECRET: &str = "hunter22";

    #[test]
    fn recorded_sessions_decrypt() {
        for name in ["psk128-027", "psk256-027", "psk256-0211"] {
            let (mut keys, mut media, mut reports) = (Vec::<Key>::new(), 0, 0);
            for recorded in read(name) {
                let (header, at) = Header::parse(&recorded.bytes).unwrap();
                let (nonce, sequence) = (header.nonce.unwrap(), header.sequence.unwrap());
                let length = if header.has_long_key { KeyLength::Aes256 } else { KeyLength::Aes128 };
                if !keys.iter().any(|key| key.nonce == nonce) {
                    keys.push(Key::derive(&secret(), nonce, length));
                }
                let mut text = recorded.bytes[at..].to_vec();
                keys.iter().find(|key| key.nonce == nonce).unwrap().apply(sequence, &mut text);
                match Content::parse(header.protocol, &text) {
                    Ok(Content::Reduced { at, .. }) if is_rtcp(&text[at..]) => {
                        assert!(Compound::new(&text[at..]).all(|packet| packet.is_ok()), "{name}");
                        reports += 1;
                    }
                    Ok(Content::Reduced { at, .. }) => {
                        let rtp = RtpPacket::parse(&text[at..]).unwrap();
                        assert_eq!((rtp.header.payload_type, recorded.from), (33, Side::Sender));
                        assert_eq!(rtp.payload()[0], 0x47);
                        media += 1;
                    }
                    Ok(_) => {}
                    Err(error) => unreachable!("{name}: {error}"),
                }
            }
            assert_eq!(keys.len(), 2, "{name}");
            assert!(media > 20 && reports > 50, "{name}: {media} {reports}");
        }
    }

    #[test]
    fn secrets_are_bounded_and_never_shown() {
        assert!("".parse::<Secret>().is_err());
        assert!("x".repeat(128).parse::<Secret>().is_err());
        let long: Secret = "x".repeat(127).parse().unwrap();
        assert_eq!(format!("{long:?}"), "Secret(..)");
        assert_ne!(long, secret());
    }

    #[test]
    fn a_new_key_is_used_when_it_is_there_and_due() {
        let mut random = Random::new(1);
        let mut sealing = Sealing::new(&secret(), KeyLength::Aes128, 100, &mut random);
        let first = sealing.key(&mut random).nonce;
        for _ in 1..50 {
            assert_eq!(sealing.key(&mut random).nonce, first);
            assert!(sealing.poll_work().is_none());
        }
        assert_eq!(sealing.key(&mut random).nonce, first);
        let work = sealing.poll_work().unwrap();
        // It takes its time.
        (51..200).for_each(|_| assert_eq!(sealing.key(&mut random).nonce, first));
        sealing.handle_done(work.run());
        let second = sealing.key(&mut random).nonce;
        assert_ne!(second, first);
        (0..60).for_each(|_| assert_eq!(sealing.key(&mut random).nonce, second));
    }

    #[test]
    fn strangers_do_not_push_out_keys_that_are_proven() {
        let mut opening = Opening::new(&secret(), 1);
        let mut now = Time::ZERO;
        let good: [Nonce; 2] = [[1; 4], [2; 4]];
        for nonce in good {
            assert!(opening.find(now, nonce, KeyLength::Aes128).is_none());
            let work = opening.poll_work().unwrap();
            opening.handle_done(work.run());
            let (standing, _) = opening.find(now, nonce, KeyLength::Aes128).unwrap();
            opening.prove(standing);
            now += ASK_EVERY;
        }
        let mut derived = 0;
        for n in 0..1_000_u32 {
            now += Duration::from_millis(1);
            assert!(opening.find(now, (n + 7).to_be_bytes(), KeyLength::Aes256).is_none());
            if let Some(work) = opening.poll_work() {
                derived += 1;
                opening.handle_done(work.run());
            }
        }
        assert!(derived <= 11, "{derived} derived in a second");
        for nonce in good {
            assert!(matches!(opening.find(now, nonce, KeyLength::Aes128), Some((Standing::Proven(_), _))));
        }
        assert!(opening.find(now + ASK_EVERY, [0; 4], KeyLength::Aes128).is_none());
        assert!(opening.poll_work().is_none(), "zero is no nonce");
    }
}
