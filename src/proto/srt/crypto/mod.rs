//! Encryption of a connection: keys made from a passphrase, announced, changed while packets flow (draft 3.2.2, 6; GCM,
//! which the draft lacks, as in libsrt 1.5).
//!
//! ```text
//! caller:   Derivation::draw -> run -> Crypto::initiate -> KMREQ in the CONCLUSION -> settle
//! listener: Derivation::answer -> run -> Crypto::respond -> KMRSP in the CONCLUSION
//! later, each direction for itself: poll_announcement -> KMREQ -> handle_request -> KMRSP -> handle_response
//! ```
//!
//! Both directions start with the caller's key and salt, and in SRT with the same sequence number too, so under the
//! first key the same keystream covers both: whoever listens gets the difference of what one side and the other send.
//! The protocol is so. Live mode sends one way, where it does not matter.

mod cipher;
mod key_material;
mod receiving;
mod secret;
mod sending;
#[cfg(test)]
mod tests;

use std::time::Duration;

use arrayvec::ArrayVec;

pub use cipher::{GcmForm, PacketCipher, TAG_BYTES};
pub use key_material::{
    BadMaterial, CipherMode, KEY_MATERIAL_BYTES_MAX, KeyMaterial, KeyResponse, KmState, Message, StreamKeys,
};
pub use secret::{Derivation, Kek, KeyLength, Passphrase, PassphraseError, SALT_BYTES, StreamKey, WrongSecret};
pub use sending::Refresh;

use self::receiving::Receiving;
use self::sending::Sending;
use super::entropy::Entropy;
use super::error::Rejection;
use super::packet::{HEADER_BYTES, KeyFlag};
use crate::units::Time;

/// The keys of one connection.
#[derive(Debug)]
pub struct Crypto {
    passphrase: Passphrase,
    sending: Sending,
    receiving: Receiving,
    /// Those in use, the latest last: new keys under the same salt need no other.
    keks: ArrayVec<Kek, KEKS_MAX>,
    /// A request whose KEK is being derived.
    waiting: Option<KeyMaterial>,
    failures: u8,
    /// Our first request.
    request: Option<KeyMaterial>,
    send_state: KmState,
    receive_state: KmState,
    counts: Counts,
}

/// What shall happen with a KMREQ.
#[derive(Clone, Debug)]
#[must_use]
pub enum Answer {
    /// Send this as KMRSP.
    Respond(Message),
    /// Run this somewhere, then call [`Crypto::handle_derived`]. There is never more than one at a time.
    Derive(Derivation),
    /// Say nothing.
    Nothing,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that could not be decrypted, or came in the clear.
    pub undecryptable: u64,
    /// Messages about keys that were malformed or made no sense, and refusals of the peer.
    pub refused: u64,
    /// Times that the peer gave us new keys.
    pub keys_received: u64,
    /// Times that we went on to a new key.
    pub keys_changed: u64,
}

impl Derivation {
    /// What a listener needs to take a caller's request. `mode` `None` takes either.
    ///
    /// # Errors
    /// What the caller shall be told.
    pub fn answer(passphrase: &Passphrase, mode: Option<CipherMode>, request: &[u8]) -> Result<Self, Rejection> {
        let material = KeyMaterial::parse(request).map_err(|_| Rejection::ROGUE)?;
        check_mode(mode, &material)?;
        Ok(Self { passphrase: passphrase.clone(), salt: *material.salt(), length: material.length() })
    }
}

impl Crypto {
    /// A caller's, with what [`Derivation::draw`] and [`Derivation::run`] gave: makes the first key, and says what to announce
    /// it with.
    pub(super) fn initiate(
        passphrase: &Passphrase,
        kek: Kek,
        mode: CipherMode,
        refresh: Refresh,
        entropy: &mut Entropy,
    ) -> Option<(Self, Vec<u8>)> {
        let keys = StreamKeys { even: Some(StreamKey::draw(entropy, kek.length())), odd: None };
        let material = KeyMaterial::wrap(&keys, mode, &kek)?;
        let bytes = material.message().to_vec();
        let mut crypto = Self::new(passphrase, kek, material.clone(), keys, refresh)?;
        crypto.request = Some(material);
        (crypto.send_state, crypto.receive_state) = (KmState::Securing, KmState::Securing);
        Some((crypto, bytes))
    }

    /// A listener's, from a caller's announcement and what [`Derivation::answer`] and [`Derivation::run`] gave: both
    /// directions begin with its keys.
    ///
    /// # Errors
    /// What the peer shall be told.
    pub fn respond(
        passphrase: &Passphrase,
        kek: Kek,
        mode: Option<CipherMode>,
        refresh: Refresh,
        announcement: &[u8],
    ) -> Result<Self, Rejection> {
        let material = KeyMaterial::parse(announcement).map_err(|_| Rejection::ROGUE)?;
        check_mode(mode, &material)?;
        let keys = material.unwrap(&kek).map_err(|WrongSecret| Rejection::BAD_SECRET)?;
        Self::new(passphrase, kek, material, keys, refresh).ok_or(Rejection::ROGUE)
    }

    fn new(
        passphrase: &Passphrase,
        kek: Kek,
        material: KeyMaterial,
        keys: StreamKeys,
        refresh: Refresh,
    ) -> Option<Self> {
        let mode = material.mode();
        let mut receiving = Receiving::default();
        receiving.take(material, &keys);
        let (flag, key) = match keys {
            StreamKeys { even: Some(key), .. } => (KeyFlag::Even, key),
            StreamKeys { odd: Some(key), .. } => (KeyFlag::Odd, key),
            StreamKeys { even: None, odd: None } => return None,
        };
        Some(Self {
            passphrase: passphrase.clone(),
            sending: Sending::new(mode, flag, key, kek.clone(), refresh)?,
            receiving,
            keks: ArrayVec::from_iter([kek]),
            waiting: None,
            failures: 0,
            request: None,
            send_state: KmState::Secured,
            receive_state: KmState::Secured,
            counts: Counts::default(),
        })
    }

    /// A caller's handshake ended with this KMRSP, or with none.
    ///
    /// # Errors
    /// Why there will be no encrypted connection.
    pub fn settle(&mut self, response: Option<&[u8]>) -> Result<(), Rejection> {
        let state = match response.map(KeyResponse::parse) {
            Some(Ok(KeyResponse::Echo(echo))) => {
                let is_ours = self.request.take().is_some_and(|request| request.message().as_slice() == echo);
                // As libsrt has it.
                if is_ours { KmState::Secured } else { KmState::BadSecret }
            }
            Some(Ok(KeyResponse::Refused(KmState::Securing | KmState::Secured)) | Err(_)) | None => KmState::NoSecret,
            Some(Ok(KeyResponse::Refused(state))) => state,
        };
        (self.send_state, self.receive_state) = (state, state);
        state.rejection().map_or(Ok(()), Err)
    }

    /// The peer's version, as in 0x010505: it decides between the two forms of GCM.
    pub const fn set_peer_version(&mut self, version: u32) {
        let form = GcmForm::of_version(version);
        self.sending.set_form(form);
        self.receiving.expect(form);
    }

    /// Changes when keys change. One that is announced already is waited for as `refresh` says.
    pub const fn set_refresh(&mut self, refresh: Refresh) {
        self.sending.set_refresh(refresh);
    }

    /// How long the keys are that we send with.
    #[must_use]
    pub const fn length(&self) -> KeyLength {
        self.sending.length()
    }

    /// How payload is encrypted.
    #[must_use]
    pub const fn mode(&self) -> CipherMode {
        self.sending.mode()
    }

    /// Bytes that sealing adds.
    #[must_use]
    pub const fn overhead(&self) -> usize {
        self.sending.overhead()
    }

    /// The key that the next packet is sealed with.
    #[must_use]
    pub const fn in_use(&self) -> KeyFlag {
        self.sending.in_use()
    }

    /// Encrypts a payload in place, in GCM with room for the tag at its end; `header` names the key in use. Once for
    /// each packet: sent again, it is the same bytes with the flag R. A packet filter's control packets are not for
    /// this, though they carry the flag of the key.
    #[inline]
    pub(super) fn seal(&mut self, now: Time, header: &[u8; HEADER_BYTES], payload: &mut [u8], entropy: &mut Entropy) {
        // Without room for a tag nothing would be encrypted. The peer gets nothing then, not what was to be secret.
        if self.sending.seal(now, header, payload, entropy).is_none() {
            payload.fill(0);
        }
        self.counts.keys_changed = self.sending.changes();
    }

    /// Decrypts a payload in place; returns the length of what is in the clear. `None` if there is no such key, or it
    /// does not fit, which only GCM can tell.
    #[inline]
    pub fn open(&mut self, key: KeyFlag, header: &[u8; HEADER_BYTES], payload: &mut [u8]) -> Option<usize> {
        let opened = self.receiving.open(key, header, payload);
        self.counts.undecryptable += u64::from(opened.is_none());
        opened
    }

    /// A peer announces keys; says what to answer. Under a new salt this takes half a millisecond, which a peer gets
    /// for a few wrong tries only; see [`Crypto::take_request`] for where that is too long.
    pub fn handle_request(&mut self, announcement: &[u8]) -> Option<Message> {
        let mut answer = self.take_request(announcement);
        if let Answer::Derive(derivation) = answer {
            answer = self.handle_derived(&derivation.run());
        }
        match answer {
            Answer::Respond(message) => Some(message),
            Answer::Derive(_) | Answer::Nothing => None,
        }
    }

    /// A peer announces keys.
    ///
    /// What is malformed or wrong is not answered: with keys in use it is not from our peer, and at such an answer
    /// libsrt would stop decrypting.
    pub fn take_request(&mut self, announcement: &[u8]) -> Answer {
        let Ok(material) = KeyMaterial::parse(announcement) else { return self.refuse() };
        if self.receiving.has_taken(&material) {
            return Answer::Respond(material.message().clone());
        }
        if material.mode() != self.mode() {
            return self.refuse();
        }
        if let Some(kek) = self.keks.iter().find(|kek| kek.fits(material.salt(), material.length())) {
            let kek = kek.clone();
            return self.take(material, &kek);
        }
        if let Some(waiting) = &self.waiting {
            // The peer will ask again.
            return if *waiting == material { Answer::Nothing } else { self.refuse() };
        }
        if self.failures >= FAILURES_MAX {
            return self.refuse();
        }
        let (passphrase, salt, length) = (self.passphrase.clone(), *material.salt(), material.length());
        self.waiting = Some(material);
        Answer::Derive(Derivation { passphrase, salt, length })
    }

    /// What came out of [`Answer::Derive`].
    pub fn handle_derived(&mut self, kek: &Kek) -> Answer {
        match self.waiting.take() {
            Some(material) => self.take(material, kek),
            None => Answer::Nothing,
        }
    }

    /// A peer answers our announcement.
    pub fn handle_response(&mut self, answer: &[u8]) {
        match KeyResponse::parse(answer) {
            Ok(KeyResponse::Echo(echo)) if self.sending.confirm(echo) => self.send_state = KmState::Secured,
            // The announcement goes on: whoever said that need not be our peer.
            Ok(KeyResponse::Refused(state)) => {
                self.send_state = state;
                self.counts.refused += 1;
            }
            // A late answer to an earlier announcement, most likely.
            Ok(KeyResponse::Echo(_)) | Err(_) => self.counts.refused += 1,
        }
    }

    /// The announcement to send now; it is sent until it is answered.
    pub fn poll_announcement(&mut self, now: Time, round_trip: Duration) -> Option<Message> {
        self.sending.poll_announcement(now, round_trip).cloned()
    }

    /// When [`Crypto::poll_announcement`] has something.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.sending.poll_timeout()
    }

    /// How far the keys are that we send with (SRTO_SNDKMSTATE).
    #[must_use]
    pub const fn send_state(&self) -> KmState {
        self.send_state
    }

    /// How far the keys are that we receive with (SRTO_RCVKMSTATE).
    #[must_use]
    pub const fn receive_state(&self) -> KmState {
        self.receive_state
    }

    /// Counters since the start.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn take(&mut self, material: KeyMaterial, kek: &Kek) -> Answer {
        let Ok(keys) = material.unwrap(kek) else {
            self.failures = self.failures.saturating_add(1);
            return self.refuse();
        };
        // Only a KEK that has proved right is kept, or strangers could push out those in use.
        if !self.keks.iter().any(|known| known.fits(kek.salt(), kek.length())) {
            if self.keks.is_full() {
                self.keks.remove(0);
            }
            self.keks.push(kek.clone());
        }
        let message = material.message().clone();
        self.receiving.take(material, &keys);
        self.counts.keys_received += 1;
        Answer::Respond(message)
    }

    const fn refuse(&mut self) -> Answer {
        self.counts.refused += 1;
        Answer::Nothing
    }
}

fn check_mode(mode: Option<CipherMode>, material: &KeyMaterial) -> Result<(), Rejection> {
    if mode.is_some_and(|mode| mode != material.mode()) { Err(Rejection::CRYPTO) } else { Ok(()) }
}

/// Ours and the peer's.
const KEKS_MAX: usize = 2;
/// As often a peer may be wrong before requests under new salts are not looked at any more: each costs half a
/// millisecond, and anybody who knows our socket id can ask for it. libsrt never changes the salt.
const FAILURES_MAX: u8 = 4;

/// No bytes may make any reader of messages about keys panic, what is read is kept exactly, and no keys are taken that
/// nobody wrapped.
#[cfg(any(test, fuzzing))]
pub(super) fn check_any_bytes(bytes: &[u8]) {
    let parsed = KeyMaterial::parse(bytes);
    if let Ok(material) = &parsed {
        assert_eq!(material.message().as_slice(), bytes);
    }
    let _ = KeyResponse::parse(bytes);
    let mut entropy = Entropy::new([0; 32]);
    let salt = parsed.map_or([0; SALT_BYTES], |material| *material.salt());
    let kek = StreamKey::new(&[7; 16], KeyLength::Aes128).map(|key| Kek::new(salt, key));
    let (Ok(passphrase), Some(kek)) = ("0123456789".parse(), kek) else { return };
    let refresh = Refresh { every: 4, announce: 1 };
    let made = Crypto::initiate(&passphrase, kek, CipherMode::Ctr, refresh, &mut entropy);
    let Some((mut crypto, request)) = made else { return };
    // What is reserved in front of the salt means nothing, and nobody vouches for it.
    let is_ours = bytes.len() == request.len() && bytes.ends_with(&request[key_material::FIXED_BYTES..]);
    let answer = crypto.take_request(bytes);
    assert!(!matches!(answer, Answer::Respond(_)) || is_ours, "keys from nowhere");
    crypto.handle_response(bytes);
    assert!(crypto.settle(Some(bytes)).is_err() || is_ours, "settled on nothing");
}
