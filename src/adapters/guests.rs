//! Callers of a source that shares its port: each has a socket of its own, on that port and connected to him.

use std::io;
use std::net::SocketAddr;

use mio::Interest;

use super::background::Remote;
use super::driver::{Endpoint, OWN_SOCKETS};
use super::io::Sent;
use super::ports::Seat;
use super::socket::{SocketOptions, UdpSocket};
use super::worker::{Context, SocketKey};
use crate::proto::Transmit;
use crate::units::Time;

/// The callers, those that are connected and those that may be.
#[derive(Debug)]
pub(super) struct Guests {
    seat: Seat,
    socket: SocketOptions,
    first: SocketKey,
    places: [Option<Guest>; GUESTS_MAX],
}

#[derive(Debug)]
struct Guest {
    peer: SocketAddr,
    endpoint: Endpoint,
    /// When he was heard last.
    heard: Time,
}

impl Guests {
    pub(super) fn new(seat: Seat, socket: SocketOptions) -> Self {
        Self { seat, socket, first: SocketKey(0), places: Default::default() }
    }

    /// From now on callers may come; `first` is what the worker knows the driver by.
    pub(super) fn attach(&mut self, first: SocketKey, remote: Remote) {
        self.first = first;
        self.seat.attach(remote);
    }

    /// Sees to it that a caller has a socket; false if there can be none.
    pub(super) fn welcome(&mut self, cx: &Context<'_>, peer: SocketAddr) -> bool {
        if self.places.iter().flatten().any(|guest| guest.peer == peer) {
            return true;
        }
        // Whoever was silent for longest has least to lose: a sender is never that one.
        let last_heard = |place: &Option<Guest>| place.as_ref().map_or(Time::ZERO, |guest| guest.heard);
        let at = (0..GUESTS_MAX).min_by_key(|at| last_heard(&self.places[*at])).unwrap_or(0);
        let Ok(socket) = UdpSocket::share(self.seat.address(), Some(peer), &self.socket) else { return false };
        let mut endpoint = Endpoint::new(socket, SocketKey(self.first.0 + OWN_SOCKETS + at as u16));
        cx.io.prepare(&endpoint.socket);
        if endpoint.listen_for(cx, Some(Interest::READABLE)).is_err() {
            return false;
        }
        self.places[at] = Some(Guest { peer, endpoint, heard: cx.now });
        true
    }

    /// His connection is over.
    pub(super) fn remove(&mut self, peer: SocketAddr) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|guest| guest.peer == peer) {
                *place = None;
            }
        }
    }

    /// The socket in this place, which has something.
    pub(super) fn hear(&mut self, at: usize, now: Time) -> Option<&mut Endpoint> {
        let guest = self.places.get_mut(at)?.as_mut()?;
        guest.heard = now;
        Some(&mut guest.endpoint)
    }

    pub(super) fn endpoints(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        self.places.iter_mut().flatten().map(|guest| &mut guest.endpoint)
    }

    /// Sends to each what is for him. A source sends reports: one that does not get out is followed by the next.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, transmits: &[Transmit]) {
        let mut rest = transmits;
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|transmit| transmit.to == first.to).count();
            let (mut batch, behind) = rest.split_at(same);
            rest = behind;
            let Some(guest) = self.places.iter_mut().flatten().find(|guest| Some(guest.peer) == first.to) else {
                continue;
            };
            while !batch.is_empty() {
                let Sent { count, error, .. } = cx.io.send(&mut guest.endpoint.socket, batch);
                let skipped = match error {
                    None => 0,
                    Some((error, _)) if error.kind() == io::ErrorKind::Interrupted => 0,
                    Some((_, concerned)) => concerned.max(1),
                };
                batch = batch.get(count + skipped..).unwrap_or_default();
            }
        }
    }
}

/// Callers with a socket. Judgement: as many as a group may have members.
pub(super) const GUESTS_MAX: usize = 8;
