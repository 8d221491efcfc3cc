//! The front of a port that several listeners share: it gives cookies to whoever comes, and says whose stream those want who
//! bring one back. The rest of a connection is between the caller and that listener, which must know the same cookies
//! ([`Listener::behind`](super::Listener::behind)).

use std::net::SocketAddr;

use super::agree::Wishes;
use super::caller::handshake_datagram;
use super::config::Config;
use super::cookies::Cookies;
use super::error::Rejection;
use super::handshake::{Handshake, Stage, extension};
use super::packet::{ControlKind, HEADER_BYTES, Header};
use crate::bus::Pool;
use crate::proto::{Datagram, Transmit};
use crate::units::Time;

/// What there is to do with a datagram.
#[derive(Debug)]
pub enum Heard {
    /// Send this.
    Answer(Transmit),
    /// The caller wants this stream: hand the datagram to whoever has it, or [`Front::refuse`].
    Wanted(String),
    /// It is none of ours.
    Nothing,
}

/// Answers those who are not connected yet.
#[derive(Debug)]
pub struct Front {
    cookies: Cookies,
    pool: Pool,
}

impl Front {
    /// `secret` must be unpredictable, and that of the listeners behind.
    #[must_use]
    pub fn new(pool: Pool, secret: [u8; 32]) -> Self {
        Self { cookies: Cookies::new(secret), pool }
    }

    /// Takes in a datagram from somebody who has no connection.
    #[must_use]
    pub fn handle(&self, now: Time, datagram: &Datagram) -> Heard {
        let Ok(Header::Control(header)) = Header::parse(&datagram.packet) else { return Heard::Nothing };
        if header.kind != ControlKind::Handshake {
            return Heard::Nothing;
        }
        let Ok((asked, extensions)) = Handshake::parse(&datagram.packet[HEADER_BYTES..]) else { return Heard::Nothing };
        let peer = datagram.peer;
        match asked.stage {
            Stage::Induction => {
                let answer = induction(&Config::default(), &self.cookies, now, peer, &asked);
                self.say(now, peer, asked.socket_id, &answer).map_or(Heard::Nothing, Heard::Answer)
            }
            Stage::Conclusion if self.cookies.knows(now, peer, asked.cookie) => {
                // What is contradictory in it the listener will say.
                let wishes = Wishes::of(extensions).unwrap_or_default();
                Heard::Wanted(wishes.stream_id)
            }
            Stage::Conclusion | Stage::WaveAHand | Stage::Agreement | Stage::Rejected(_) | Stage::Unknown(_) => {
                Heard::Nothing
            }
        }
    }

    /// Tells the caller who sent `datagram` why not.
    #[must_use]
    pub fn refuse(&self, now: Time, datagram: &Datagram, rejection: Rejection) -> Option<Transmit> {
        let (asked, _) = Handshake::parse(datagram.packet.get(HEADER_BYTES..)?).ok()?;
        let caller = asked.socket_id;
        self.say(now, datagram.peer, caller, &Handshake { version: 5, stage: Stage::Rejected(rejection), ..asked })
    }

    fn say(&self, now: Time, peer: SocketAddr, caller: u32, answer: &Handshake) -> Option<Transmit> {
        let mut body = Vec::new();
        answer.write(&mut body);
        handshake_datagram(&self.pool, peer, (now, now), caller, &body)
    }
}

/// The answer to a caller who knocks.
pub(super) fn induction(
    config: &Config,
    cookies: &Cookies,
    now: Time,
    peer: SocketAddr,
    asked: &Handshake,
) -> Handshake {
    Handshake {
        version: 5,
        // What length we would like keys to have.
        encryption: config.key_length.filter(|_| config.passphrase.is_some()).map_or(0, super::agree::key_units),
        extension: extension::MAGIC,
        mtu: u32::from(config.mtu),
        flow_window: config.flow_window,
        cookie: cookies.bake(now, peer),
        peer_ip: peer.ip(),
        ..asked.clone()
    }
}

/// Whether a caller's stream id is, or names as its resource, the one that is served. `#!::r=news,u=anna` is the form of
/// libsrt's access control guidelines.
#[must_use]
pub fn names(given: &str, served: &str) -> bool {
    let resource =
        given.strip_prefix("#!::").and_then(|pairs| pairs.split(',').find_map(|pair| pair.strip_prefix("r=")));
    given == served || resource == Some(served)
}
