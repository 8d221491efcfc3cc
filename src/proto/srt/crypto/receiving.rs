//! Keys of the packets that we receive.

use arrayvec::ArrayVec;

use super::super::packet::{HEADER_BYTES, KeyFlag};
use super::cipher::{GcmForm, PacketCipher};
use super::key_material::{KeyMaterial, StreamKeys};

/// The receiving direction.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    even: Option<PacketCipher>,
    odd: Option<PacketCipher>,
    /// The form that is tried first.
    form: GcmForm,
    /// A packet has proved it.
    is_proved: bool,
    /// Requests taken, the latest last.
    taken: ArrayVec<KeyMaterial, TAKEN_MAX>,
}

impl Receiving {
    /// What the peer should speak by its version.
    pub(super) const fn expect(&mut self, form: GcmForm) {
        if !self.is_proved {
            self.form = form;
        }
    }

    /// Whether this very request was taken before. Coming again it must be answered again, but not acted upon: the
    /// network may have held it back until its keys were replaced.
    pub(super) fn has_taken(&self, material: &KeyMaterial) -> bool {
        self.taken.contains(material)
    }

    /// Takes the keys of a request into use; those that it does not carry stay.
    pub(super) fn take(&mut self, material: KeyMaterial, keys: &StreamKeys) {
        let cipher = |key| PacketCipher::new(material.mode(), key, *material.salt());
        if let Some(key) = &keys.even {
            self.even = cipher(key);
        }
        if let Some(key) = &keys.odd {
            self.odd = cipher(key);
        }
        if self.taken.is_full() {
            self.taken.remove(0);
        }
        self.taken.push(material);
    }

    /// Decrypts in place; `None` without the key, or if it does not fit.
    #[inline]
    pub(super) fn open(&mut self, key: KeyFlag, header: &[u8; HEADER_BYTES], payload: &mut [u8]) -> Option<usize> {
        let cipher = match key {
            KeyFlag::Even => self.even.as_ref(),
            KeyFlag::Odd => self.odd.as_ref(),
            KeyFlag::Clear | KeyFlag::Both => None,
        }?;
        let opened = cipher.open(self.form, header, payload);
        if self.is_proved || opened.is_some() {
            self.is_proved = true;
            return opened;
        }
        let opened = cipher.open(self.form.other(), header, payload)?;
        (self.form, self.is_proved) = (self.form.other(), true);
        Some(opened)
    }
}

/// Requests remembered: the one in use, the one before, and some that may still be on their way.
const TAKEN_MAX: usize = 4;
