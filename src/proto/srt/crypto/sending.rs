//! Keys of the packets that we send: which is in use, when it is changed, and how the peer learns of it (draft 6.1.6).
//!
//! ```text
//!   one key --(every - announce packets)--> two keys, KMREQ with both until its KMRSP
//!      ^                                       |
//!      +--(every packets, and KMRSP has come)--+
//!         (or twice as many, whether or not)
//! ```

use std::time::Duration;

use super::super::entropy::Entropy;
use super::super::packet::{HEADER_BYTES, KeyFlag};
use super::cipher::{GcmForm, PacketCipher};
use super::key_material::{CipherMode, KeyMaterial, Message, StreamKeys};
use super::secret::{Kek, KeyLength, StreamKey};
use crate::units::Time;

/// When keys change, in packets sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// A key is used for so many (SRTO_KMREFRESHRATE), but never for more than 2^30; zero for that.
    pub every: u64,
    /// So many before, the next one is made known (SRTO_KMPREANNOUNCE); half of what `every` leaves at most.
    pub announce: u64,
}

impl Refresh {
    const fn within_bounds(self) -> Self {
        let every = if self.every == 0 || self.every > EVERY_MAX { EVERY_MAX } else { self.every };
        let most = (every - 1) / 2;
        let announce = if self.announce > most { most } else { self.announce };
        Self { every, announce: if announce == 0 { 1 } else { announce } }
    }
}

/// The sending direction.
#[derive(Debug)]
pub(super) struct Sending {
    mode: CipherMode,
    form: GcmForm,
    kek: Kek,
    refresh: Refresh,
    /// Even or odd, never anything else.
    in_use: KeyFlag,
    current: Key,
    next: Option<Key>,
    /// Packets sealed with the current key.
    sealed: u64,
    /// How many they were when the next key was announced.
    announced_after: u64,
    announcement: Option<Announcement>,
    changes: u64,
}

#[derive(Debug)]
struct Key {
    key: StreamKey,
    cipher: PacketCipher,
}

/// A KMREQ on its way.
#[derive(Debug)]
struct Announcement {
    material: KeyMaterial,
    is_confirmed: bool,
    tries: u32,
    due: Time,
}

impl Sending {
    /// Starts with `key`, which the peer knows as `flag`.
    pub(super) fn new(mode: CipherMode, flag: KeyFlag, key: StreamKey, kek: Kek, refresh: Refresh) -> Option<Self> {
        Some(Self {
            current: Key::new(mode, key, &kek)?,
            mode,
            form: GcmForm::default(),
            kek,
            refresh: refresh.within_bounds(),
            in_use: flag,
            next: None,
            sealed: 0,
            announced_after: 0,
            announcement: None,
            changes: 0,
        })
    }

    pub(super) const fn set_refresh(&mut self, refresh: Refresh) {
        self.refresh = refresh.within_bounds();
    }

    pub(super) const fn set_form(&mut self, form: GcmForm) {
        self.form = form;
    }

    pub(super) const fn mode(&self) -> CipherMode {
        self.mode
    }

    pub(super) const fn length(&self) -> KeyLength {
        self.kek.length()
    }

    pub(super) const fn overhead(&self) -> usize {
        self.current.cipher.overhead()
    }

    pub(super) const fn in_use(&self) -> KeyFlag {
        self.in_use
    }

    /// How often the key has changed.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Encrypts, and goes on to the next key when it is time.
    #[inline]
    pub(super) fn seal(
        &mut self,
        now: Time,
        header: &[u8; HEADER_BYTES],
        payload: &mut [u8],
        entropy: &mut Entropy,
    ) -> Option<()> {
        self.current.cipher.seal(self.form, header, payload)?;
        self.sealed += 1;
        if self.sealed >= self.refresh.every - self.refresh.announce {
            self.advance(now, entropy);
        }
        Some(())
    }

    fn advance(&mut self, now: Time, entropy: &mut Entropy) {
        if self.next.is_none() {
            self.announce(now, entropy);
        }
        let is_confirmed = self.announcement.as_ref().is_none_or(|announcement| announcement.is_confirmed);
        // libsrt changes the key whether or not the peer has the new one. Waiting for it costs nothing, but not for
        // ever: sequence numbers must not come again under the same key.
        // Counted from the announcement, which is later than `refresh` has it if that has changed meanwhile.
        let change_after = (self.announced_after + self.refresh.announce).min(EVERY_MAX);
        if self.sealed < change_after || (!is_confirmed && self.sealed < change_after + self.refresh.every) {
            return;
        }
        let Some(next) = self.next.take() else { return };
        // A packet is sealed once, so we are done with the old key; the peer keeps it for what is on its way.
        self.current = next;
        self.in_use = other(self.in_use);
        self.sealed = 0;
        self.changes += 1;
        if is_confirmed {
            self.announcement = None;
        }
    }

    /// Makes the next key, under the same salt as libsrt does, so that nobody has to derive a KEK again.
    fn announce(&mut self, now: Time, entropy: &mut Entropy) {
        let key = StreamKey::draw(entropy, self.length());
        let (mine, new) = (Some(self.current.key.clone()), Some(key.clone()));
        let keys = match self.in_use {
            KeyFlag::Odd => StreamKeys { even: new, odd: mine },
            KeyFlag::Even | KeyFlag::Clear | KeyFlag::Both => StreamKeys { even: mine, odd: new },
        };
        let Some(material) = KeyMaterial::wrap(&keys, self.mode, &self.kek) else { return };
        self.next = Key::new(self.mode, key, &self.kek);
        self.announced_after = self.sealed;
        self.announcement = Some(Announcement { material, is_confirmed: false, tries: 0, due: now });
    }

    /// The KMREQ to send now, if any.
    pub(super) fn poll_announcement(&mut self, now: Time, round_trip: Duration) -> Option<&Message> {
        let announcement = self.announcement.as_mut().filter(|announcement| !announcement.is_confirmed)?;
        if now < announcement.due {
            return None;
        }
        announcement.tries = announcement.tries.saturating_add(1);
        let is_quick = announcement.tries <= QUICK_TRIES;
        let wait = if is_quick { (round_trip * 3 / 2).clamp(WAIT_MIN, WAIT_MAX) } else { WAIT_MAX };
        announcement.due = now + wait;
        Some(announcement.material.message())
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.announcement
            .as_ref()
            .filter(|announcement| !announcement.is_confirmed)
            .map(|announcement| announcement.due)
    }

    /// A KMRSP came that is no refusal; says whether it answers our announcement.
    pub(super) fn confirm(&mut self, echo: &[u8]) -> bool {
        let Some(announcement) = &mut self.announcement else { return false };
        let matches = announcement.material.message().as_slice() == echo;
        announcement.is_confirmed |= matches;
        matches
    }
}

impl Key {
    fn new(mode: CipherMode, key: StreamKey, kek: &Kek) -> Option<Self> {
        PacketCipher::new(mode, &key, *kek.salt()).map(|cipher| Self { key, cipher })
    }
}

const fn other(flag: KeyFlag) -> KeyFlag {
    match flag {
        KeyFlag::Even => KeyFlag::Odd,
        KeyFlag::Odd | KeyFlag::Clear | KeyFlag::Both => KeyFlag::Even,
    }
}

/// There are twice as many sequence numbers, and a key is used for twice `every` packets at most.
const EVERY_MAX: u64 = 1 << 30;
/// As often libsrt tries, then it gives up. We go on, slowly.
const QUICK_TRIES: u32 = 10;
/// libsrt looks at its timers as often.
const WAIT_MIN: Duration = Duration::from_millis(10);
/// Longest wait between two tries. Judgement.
const WAIT_MAX: Duration = Duration::from_secs(1);
