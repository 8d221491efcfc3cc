//! The calling side of a group: several listeners, or several ways to one, called from one socket.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Group, GroupKind, Links, MEMBERS_MAX};
use crate::bus::{Packet, Pool};
use crate::proto::srt::caller::{Caller, Membership};
use crate::proto::srt::config::Config;
use crate::proto::srt::connection::Connection;
use crate::proto::srt::entropy::Entropy;
use crate::proto::srt::packet::Header;
use crate::proto::srt::{handshake, stats};
use crate::proto::{Core, Datagram, Detail, Done, Event, Stats, Transmit, Tuning, Work};
use crate::units::{Seq, Time};

/// Whom a group calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The listener.
    pub peer: SocketAddr,
    /// Of several in a backup group, the one with the highest weight sends.
    pub weight: u16,
}

/// Callers of one group as a core. Each calls for itself, and again whenever its connection ends; the stream goes on as
/// long as one of them is connected.
#[derive(Debug)]
pub struct CallerGroup {
    config: Config,
    kind: GroupKind,
    id: u32,
    callers: Vec<Caller>,
    /// Since the first connection.
    group: Option<Group>,
    /// Where timestamps begin.
    epoch: Option<Time>,
    initial: Seq<31>,
    /// When it was last fed: what the polls go by.
    now: Time,
    malformed: u64,
    unexpected: u64,
    not_connected: u64,
}

impl CallerGroup {
    /// Most members that a group may have.
    pub const MEMBERS_MAX: usize = MEMBERS_MAX;

    /// Calls all of `members` as soon as it is run; those beyond [`CallerGroup::MEMBERS_MAX`] are left out. `secret` must
    /// be unpredictable.
    #[must_use]
    pub fn new(config: Config, kind: GroupKind, members: &[GroupMember], pool: &Pool, secret: [u8; 32]) -> Self {
        let mut entropy = Entropy::new(secret);
        let id = entropy.group_id();
        let initial = Seq::new(entropy.word());
        let caller = |member: &GroupMember| {
            let group = handshake::Group { id, kind: kind.number(), flags: 0, weight: member.weight };
            let membership = Membership { group, peer: None, epoch: None };
            Caller::new(config.clone(), member.peer, pool.clone(), entropy.secret()).in_group(membership)
        };
        let callers = members.iter().take(MEMBERS_MAX).map(caller).collect();
        Self {
            config,
            kind,
            id,
            callers,
            group: None,
            epoch: None,
            initial,
            now: Time::ZERO,
            malformed: 0,
            unexpected: 0,
            not_connected: 0,
        }
    }

    /// The same, with this first sequence number instead of one drawn by chance: for those who want to see it wrap.
    #[must_use]
    pub const fn starting_at(mut self, initial: Seq<31>) -> Self {
        self.initial = initial;
        self
    }

    /// A caller's connection may have begun or ended: the group follows.
    fn reconcile(&mut self, id: u32) {
        let Some(caller) = self.callers.get_mut(id as usize) else { return };
        caller.look_for_the_end(self.now);
        let is_member = self.group.as_ref().is_some_and(|group| group.contains(id));
        match (caller.connection().is_some(), is_member) {
            (true, false) => self.join(id),
            (false, true) => {
                if let Some(group) = &mut self.group {
                    group.leave(id, &mut self.callers);
                }
            }
            (true, true) | (false, false) => {}
        }
        let peer = self.group.as_ref().filter(|group| !group.is_empty()).map(Group::peer);
        self.callers.iter_mut().filter_map(Caller::membership_mut).for_each(|membership| membership.peer = peer);
    }

    fn join(&mut self, id: u32) {
        let Some(caller) = self.callers.get_mut(id as usize) else { return };
        let Some(&mut Membership { group: own, peer: Some(peer), .. }) = caller.membership_mut() else { return };
        let Some(link) = caller.connection_mut() else { return };
        let settled = *link.settled();
        match &mut self.group {
            Some(group) if group.is_empty() => group.begin_anew(self.now, peer, &settled, &self.config),
            Some(_) => {}
            None => self.group = Some(Group::new(self.now, (self.kind, self.id, peer), &settled, &self.config)),
        }
        if let Some(group) = &mut self.group {
            group.join(id, own.weight, link);
        }
    }

    fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.callers.iter().filter_map(Caller::connection)
    }
}

impl Links for Vec<Caller> {
    fn link(&mut self, id: u32) -> Option<&mut Connection> {
        self.get_mut(id as usize)?.connection_mut()
    }
}

impl Core for CallerGroup {
    fn handle_datagram(&mut self, now: Time, datagram: Datagram) {
        self.now = now;
        let Ok(header) = Header::parse(&datagram.packet) else {
            self.malformed += 1;
            return;
        };
        let is_meant =
            |caller: &Caller| caller.peer() == datagram.peer && caller.local_id() == Some(header.destination());
        let Some(id) = self.callers.iter().position(is_meant) else {
            self.unexpected += 1;
            return;
        };
        match &mut self.group {
            Some(group) if group.contains(id as u32) => {
                group.handle(now, id as u32, (&header, datagram.packet), &mut self.callers);
                if self.callers[id].connection().is_some_and(|link| link.ended().is_none()) {
                    return;
                }
            }
            Some(_) | None => self.callers[id].handle_datagram(now, datagram),
        }
        self.reconcile(id as u32);
    }

    fn handle_packet(&mut self, now: Time, packet: &Packet) {
        self.now = now;
        let Some(group) = self.group.as_mut().filter(|group| !group.is_empty()) else {
            self.not_connected += 1;
            return;
        };
        group.send(now, packet, &mut self.callers);
        for id in 0..self.callers.len() {
            if self.callers[id].connection().is_some_and(|link| link.ended().is_some()) {
                self.reconcile(id as u32);
            }
        }
    }

    fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        let epoch = *self.epoch.get_or_insert(now);
        for id in 0..self.callers.len() {
            let caller = &mut self.callers[id];
            if caller.poll_timeout().is_none_or(|at| at > now) {
                continue;
            }
            // Should it call now, then as one who joins where the group is.
            caller.initial = Some(self.group.as_ref().map_or(self.initial, Group::next_sequence));
            if let Some(membership) = caller.membership_mut() {
                membership.epoch = Some(epoch);
            }
            caller.handle_timeout(now);
            self.reconcile(id as u32);
        }
    }

    fn handle_tuning(&mut self, now: Time, tuning: &Tuning) {
        self.now = now;
        let Tuning::Srt(settings) = tuning;
        self.config.tune(settings);
        self.callers.iter_mut().for_each(|caller| caller.handle_tuning(now, tuning));
    }

    fn handle_close(&mut self, now: Time) {
        self.now = now;
        self.callers.iter_mut().for_each(|caller| caller.handle_close(now));
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.callers.iter_mut().find_map(Caller::poll_transmit)
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        self.group.as_mut()?.poll_packet(self.now, &mut self.callers)
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.callers.iter_mut().find_map(Caller::poll_event)
    }

    fn poll_work(&mut self) -> Option<Work> {
        let works = self.callers.iter_mut().zip(0..);
        works.filter_map(|(caller, at)| Some(caller.poll_work()?.with_id(|id| id * MEMBERS_MAX as u64 + at))).next()
    }

    fn handle_done(&mut self, now: Time, done: Done) {
        self.now = now;
        let at = done.id % MEMBERS_MAX as u64;
        if let Some(caller) = self.callers.get_mut(at as usize) {
            caller.handle_done(now, Done { id: done.id / MEMBERS_MAX as u64, ..done });
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        let release = self.group.as_ref().and_then(Group::poll_timeout);
        self.callers.iter().filter_map(Caller::poll_timeout).chain(release).min()
    }

    fn patience(&self) -> Duration {
        self.connections().map(Connection::patience).min().unwrap_or_default()
    }

    fn stats(&self) -> Stats {
        let own = Stats {
            malformed: self.malformed,
            unexpected: self.unexpected,
            not_connected: self.not_connected,
            peers: Some(self.connections().count() as u32),
            round_trip: self.connections().last().map(|link| link.round_trip().0),
            ..Stats::default()
        };
        let group = self.group.as_ref().map(Group::stats);
        self.callers.iter().map(Caller::stats).chain(group).fold(own, |sum, each| stats::sum(sum, &each))
    }

    fn visit_details(&self, visit: &mut dyn FnMut(&[Detail])) {
        if let Some(group) = self.group.as_ref().filter(|group| !group.is_empty()) {
            visit(&stats::libsrt_of_group(group, self.connections()));
        }
    }
}
