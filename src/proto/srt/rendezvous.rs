//! An attempt of two sides that call each other (draft 4.3.2).
//!
//! Both wave until they hear of each other. A contest of their cookies then makes one the initiator, who asks, and the other
//! the responder, who answers; the initiator agrees.
//!
//! ```text
//! initiator:  waving ── heard ──> asking ──── answer ────> met, AGREEMENT
//! responder:  waving ── heard ──> listening ── request ──> met, silent but for the answer until the peer sends something
//! ```

use super::agree::{self, Parties, Verdict, Wishes};
use super::config::Config;
use super::connection::Settled;
use super::crypto::{Crypto, Derivation, Kek, KeyLength};
use super::error::Rejection;
use super::handshake::{Extensions, Handshake, Stage};

/// A rendezvous under way.
#[derive(Debug)]
pub(super) struct Meeting {
    cookie: u32,
    /// As far as it has been heard of.
    peer: Option<Peer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    socket_id: u32,
    cookie: u32,
    role: Role,
}

/// Who asks and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Initiator,
    Responder,
}

/// What follows from what was heard.
#[derive(Debug)]
pub(super) enum Step {
    /// Say at once what the meeting is at.
    Speak,
    /// Make keys, of this length if it is left to us, then speak.
    MakeKeys(Option<KeyLength>),
    /// Derive this, then hear the same again.
    Derive(Derivation),
    /// The peer has answered: there is a connection, and [`Meeting::agreement`] says so.
    Agreed(Settled),
    /// There is a connection; the peer hears the answer until it sends something else.
    Answered(Box<Answer>),
    Nothing,
}

/// A responder's side of a connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub settled: Settled,
    pub crypto: Option<Crypto>,
    /// What the peer is to hear.
    pub body: Vec<u8>,
}

impl Meeting {
    /// `cookie` must be drawn by chance.
    pub(super) const fn new(cookie: u32) -> Self {
        // Zero is none (libsrt).
        Self { cookie: if cookie == 0 { 1 } else { cookie }, peer: None }
    }

    /// The peer's socket; zero while it is not known.
    pub(super) fn destination(&self) -> u32 {
        self.peer.map_or(0, |peer| peer.socket_id)
    }

    /// What to say now; `base` has what is the same in all of it.
    pub(super) fn write(&self, base: Handshake, config: &Config, keys: Option<&(Crypto, Vec<u8>)>, out: &mut Vec<u8>) {
        let base = Handshake { version: 5, extension: 0, cookie: self.cookie, ..base };
        let hint = config.key_length.filter(|_| config.passphrase.is_some()).map_or(0, agree::key_units);
        match self.peer.map(|peer| peer.role) {
            None => Handshake { stage: Stage::WaveAHand, encryption: hint, ..base }.write(out),
            Some(Role::Responder) => Handshake { stage: Stage::Conclusion, encryption: hint, ..base }.write(out),
            Some(Role::Initiator) => agree::write_request(base, config, keys, None, out),
        }
    }

    /// What ends the handshake on the initiator's side.
    pub(super) fn agreement(&self, base: Handshake, out: &mut Vec<u8>) {
        Handshake { version: 5, extension: 0, stage: Stage::Agreement, cookie: self.cookie, ..base }.write(out);
    }

    /// Takes in a handshake of the peer. `keys` are ours, `kek` is what [`Step::Derive`] led to.
    ///
    /// # Errors
    /// Why this will not do.
    pub(super) fn handle(
        &mut self,
        (config, parties, base): (&Config, Parties, Handshake),
        (handshake, extensions): (&Handshake, Extensions<'_>),
        keys: &mut Option<(Crypto, Vec<u8>)>,
        kek: Option<Kek>,
    ) -> Result<Step, Rejection> {
        if handshake.version < 5 {
            return Err(Rejection::VERSION);
        }
        let role = contest(self.cookie, handshake.cookie).ok_or(Rejection::RENDEZVOUS_COOKIE)?;
        let peer = Peer { socket_id: handshake.socket_id, cookie: handshake.cookie, role };
        let is_news = self.peer.replace(peer) != Some(peer);
        let needs_keys = role == Role::Initiator && config.passphrase.is_some() && keys.is_none();
        match (handshake.stage, role) {
            _ if needs_keys && is_news => {
                Ok(Step::MakeKeys(KeyLength::of_bytes(usize::from(handshake.encryption) * 8)))
            }
            // Until the keys are there, there is nothing to say.
            _ if needs_keys => Ok(Step::Nothing),
            (Stage::Conclusion, Role::Initiator) if handshake.extension != 0 => {
                let wishes = Wishes::of(extensions)?;
                agree::conclude(config, parties, handshake, &wishes, keys).map(Step::Agreed)
            }
            (Stage::Conclusion, Role::Responder) if handshake.extension != 0 => {
                let wishes = Wishes::of(extensions)?;
                if wishes.group.is_some() {
                    return Err(Rejection::GROUP);
                }
                match agree::take(config, &wishes, kek)? {
                    Verdict::Needs(derivation) => Ok(Step::Derive(derivation)),
                    Verdict::Take(taken) => {
                        let mut body = Vec::new();
                        let base = Handshake { cookie: self.cookie, ..base };
                        agree::write_response(base, config, &taken, None, &mut body);
                        let settled = agree::answered(config, parties, handshake, &taken);
                        Ok(Step::Answered(Box::new(Answer { settled, crypto: taken.crypto, body })))
                    }
                }
            }
            (Stage::WaveAHand | Stage::Conclusion, _) => Ok(Step::Speak),
            // An agreement to nothing, or what does not belong into a rendezvous.
            (Stage::Agreement | Stage::Induction | Stage::Rejected(_) | Stage::Unknown(_), _) => Ok(Step::Nothing),
        }
    }
}

/// Whose cookie wins; `None` if they are equal. libsrt compares the lower 32 bits of their difference, which overflow, and
/// both sides must come to the same end.
const fn contest(ours: u32, theirs: u32) -> Option<Role> {
    let (ours, theirs) = (ours as i32 as i64, theirs as i32 as i64);
    if ours == theirs {
        return None;
    }
    if (ours - theirs) & 0x8000_0000 == 0 {
        return Some(Role::Initiator);
    }
    // Both differences look negative when they are exactly 2^31 apart.
    if (theirs - ours) & 0x8000_0000 != 0 && ours > theirs { Some(Role::Initiator) } else { Some(Role::Responder) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cookies_far_apart_overflow_as_in_libsrt() {
        assert_eq!(contest(1, 0), Some(Role::Initiator));
        assert_eq!(contest(7, 7), None);
        // The greater one loses when more than 2^31 lie between.
        assert_eq!(contest(0x7fff_ffff, 0x8000_0001), Some(Role::Responder));
        assert_eq!(contest(0x8000_0001, 0x7fff_ffff), Some(Role::Initiator));
        // In the capture of two libsrt 1.5.5 the first one asks.
        assert_eq!(contest(0x777f_37f2, 0x5eef_aef9), Some(Role::Initiator));
    }

    proptest! {
        #[test]
        fn one_of_two_different_cookies_wins(one: u32, other: u32) {
            prop_assert_eq!(contest(one, other).is_none(), one == other);
            prop_assert!(one == other || contest(one, other) != contest(other, one));
            let opposite = one ^ 0x8000_0000;
            prop_assert_ne!(contest(one, opposite), contest(opposite, one));
        }
    }
}
