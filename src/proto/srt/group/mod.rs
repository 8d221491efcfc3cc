//! Connection groups of libsrt (bonding): several connections that carry one stream, so that the loss of one costs
//! nothing (draft 3.2.1.4; behaviour as of libsrt 1.5, `docs/features/socket-groups.md`).
//!
//! ```text
//!   link 1 ── connection ─┐ reports                          ┌─ broadcast: over every link
//!   link 2 ── connection ─┼──> merged ──> bus     bus ──> ───┤
//!   link 3 ── connection ─┘ whichever first                  └─ backup: over the best, the others stand by
//! ```
//!
//! Members share sequence numbers, message numbers and the clock, so that the same packet is the same on every link.
//! Received packets go to one receiver that knows nothing of links: it keeps what comes first and releases it in time.
//! The receivers of the links are left with what concerns their link alone, acknowledgements and loss reports, and are
//! told what others brought. Who owns the connections lends them through [`Links`].

mod backup;
mod caller;
mod sending;

use arrayvec::ArrayVec;

pub use self::caller::{CallerGroup, GroupMember};
use self::sending::Sending;
use super::config::Config;
use super::connection::{Connection, Settled, extended};
use super::handshake;
use super::packet::{ControlKind, Header};
use super::receive::{self, Arrived, Data, Origin, Receiver};
use super::{send, stats};
use crate::bus::Packet;
use crate::proto::Stats;
use crate::units::{Seq, Time};

/// What a group does with what it sends. What it receives it takes from any member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Sends everything over every member.
    Broadcast,
    /// Sends over one member, and changes to another when that becomes doubtful.
    Backup,
}

impl GroupKind {
    /// By its number on the wire.
    pub(super) const fn of(number: u8) -> Option<Self> {
        match number {
            handshake::GROUP_BROADCAST => Some(Self::Broadcast),
            handshake::GROUP_BACKUP => Some(Self::Backup),
            _ => None,
        }
    }

    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Broadcast => handshake::GROUP_BROADCAST,
            Self::Backup => handshake::GROUP_BACKUP,
        }
    }
}

/// Whoever owns the connections of a group.
pub(super) trait Links {
    /// A member's connection, by the id that it joined with.
    fn link(&mut self, id: u32) -> Option<&mut Connection>;
}

/// One stream over several connections.
#[derive(Debug)]
pub(super) struct Group {
    kind: GroupKind,
    /// Ours, as the peer is told.
    id: u32,
    /// The peer's.
    peer: u32,
    /// Where our timestamps begin, on every member.
    epoch: Time,
    members: ArrayVec<Member, MEMBERS_MAX>,
    merged: Receiver,
    /// What the group before this one has not released yet.
    retired: Option<Receiver>,
    /// Whose acknowledgements measure the drift of the clock.
    leader: Option<u32>,
    sending: Sending,
    /// Counted by receivers that are gone.
    past: Stats,
}

#[derive(Debug)]
struct Member {
    id: u32,
    weight: u16,
    /// Its peer had nothing to send on it until now: what others carried meanwhile is not missing here.
    is_paused: bool,
    standing: backup::Standing,
}

impl Group {
    /// A group of ours called `id`, of a peer who calls it `peer`, as the first connection `settled` it.
    pub(super) fn new(now: Time, (kind, id, peer): (GroupKind, u32, u32), settled: &Settled, config: &Config) -> Self {
        Self {
            kind,
            id,
            peer,
            epoch: settled.epoch,
            members: ArrayVec::new(),
            merged: merged(now, settled, config),
            retired: None,
            leader: None,
            sending: Sending::new(first(settled), settled.send_latency, config),
            past: Stats::default(),
        }
    }

    /// The peer began anew while nobody was connected. What it sent before is still released in its time; what we send
    /// goes on.
    pub(super) fn begin_anew(&mut self, now: Time, peer: u32, settled: &Settled, config: &Config) {
        let before = std::mem::replace(&mut self.merged, merged(now, settled, config));
        self.past = stats::sum(self.past, &stats::of_merged(&before));
        self.retired = before.release_at().is_some().then_some(before);
        self.peer = peer;
    }

    /// What the peer is told of a member.
    pub(super) const fn extension(&self, weight: u16) -> handshake::Group {
        handshake::Group { id: self.id, kind: self.kind.number(), flags: 0, weight }
    }

    pub(super) const fn kind(&self) -> GroupKind {
        self.kind
    }

    pub(super) const fn peer(&self) -> u32 {
        self.peer
    }

    pub(super) const fn epoch(&self) -> Time {
        self.epoch
    }

    /// The number that the next packet sent gets.
    pub(super) const fn next_sequence(&self) -> Seq<31> {
        Seq::new(self.sending.next() as u32)
    }

    /// The ids of its members.
    pub(super) fn members(&self) -> impl Iterator<Item = u32> {
        self.members.iter().map(|member| member.id)
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.members().any(|member| member == id)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) const fn is_full(&self) -> bool {
        self.members.is_full()
    }

    /// A new connection takes part: it begins where the group is now. A full group takes none, who must be told before.
    pub(super) fn join(&mut self, id: u32, weight: u16, link: &mut Connection) {
        let member = Member { id, weight, is_paused: true, standing: backup::Standing::default() };
        if self.members.try_push(member).is_err() {
            return;
        }
        let clock = self.merged.tsbpd;
        let is_first = self.merged.end == first(link.settled()) || self.leader.is_some();
        // Whoever comes back after all were gone may come by another way.
        let clock = if is_first { clock } else { clock.elsewhere() };
        self.leader.get_or_insert(id);
        link.join(&self.merged, clock, self.sending.place());
    }

    /// A connection is gone.
    pub(super) fn leave(&mut self, id: u32, links: &mut impl Links) {
        self.members.retain(|member| member.id != id);
        if self.leader != Some(id) {
            return;
        }
        self.leader = self.members.first().map(|member| member.id);
        if let Some(link) = self.leader.and_then(|id| links.link(id)) {
            link.receiver.tsbpd = self.merged.tsbpd.elsewhere();
        }
    }

    /// A datagram for a member, its header already read.
    pub(super) fn handle(&mut self, now: Time, id: u32, (header, datagram): (&Header, Packet), links: &mut impl Links) {
        let Some(link) = links.link(id) else { return };
        link.handle(now, header, datagram);
        match header {
            Header::Data(_) => {
                while let Some(data) = links.link(id).and_then(Connection::take_passed) {
                    self.merge(now, id, data, links);
                }
            }
            Header::Control(header) if header.kind == ControlKind::KeepAlive => {
                if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
                    member.is_paused = true;
                }
            }
            Header::Control(header) if header.kind == ControlKind::AckAck && self.leader == Some(id) => {
                self.merged.tsbpd = link.receiver.tsbpd;
            }
            Header::Control(_) => {}
        }
    }

    /// The next packet whose time has come.
    pub(super) fn poll_packet(&mut self, now: Time, links: &mut impl Links) -> Option<Packet> {
        if let Some(retired) = &mut self.retired {
            if let Some(packet) = retired.poll_packet(now) {
                return Some(packet);
            }
            if retired.release_at().is_none() {
                self.retired = None;
            }
        }
        let packet = self.merged.poll_packet(now)?;
        self.keep_step(links);
        Some(packet)
    }

    /// When [`Group::poll_packet`] will have something, if nothing comes until then.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let retired = self.retired.as_ref().and_then(Receiver::release_at);
        [retired, self.merged.release_at()].into_iter().flatten().min()
    }

    /// What the group received and lost; that of its links stands with them.
    pub(super) fn stats(&self) -> Stats {
        stats::sum(self.past, &stats::of_merged(&self.merged))
    }

    /// Figures of both halves.
    pub(super) fn figures(&self) -> (send::Count, receive::Stats) {
        (self.sending.sent(), self.merged.stats())
    }

    fn merge(&mut self, now: Time, id: u32, mut data: Data, links: &mut impl Links) {
        let Some(link) = links.link(id) else { return };
        let noted = data.noted();
        if let Some(member) = self.members.iter_mut().find(|member| member.id == id && member.is_paused) {
            member.is_paused = false;
            link.receiver.resume(self.merged.end.min(noted.sequence));
        }
        if data.origin == Origin::Original && link.receiver.is_ahead(noted.sequence) {
            // In order here: should it fill a gap, then one of another link.
            if noted.sequence < self.merged.end {
                data.origin = Origin::Rebuilt;
            }
        }
        let before = self.merged.start;
        let arrived = self.merged.handle_data(now, data);
        if self.merged.start != before {
            self.keep_step(links);
        }
        if let Some(link) = links.link(id) {
            link.receiver.note(now, &noted, arrived);
        }
        if arrived == Arrived::New {
            for other in self.members.iter().filter(|member| member.id != id) {
                if let Some(link) = links.link(other.id) {
                    link.receiver.elsewhere(noted.sequence);
                }
            }
        }
    }

    /// What is released or given up is over on every link.
    fn keep_step(&self, links: &mut impl Links) {
        let start = self.merged.start;
        for member in &self.members {
            if let Some(link) = links.link(member.id) {
                link.receiver.follow(start);
            }
        }
    }
}

/// What a group's packets are kept by.
fn merged(now: Time, settled: &Settled, config: &Config) -> Receiver {
    let config = receive::Config {
        first: first(settled),
        latency: settled.receive_latency,
        base_arrival: settled.base_arrival,
        base_timestamp: settled.base_timestamp,
        // Nobody would say whether what is missing is still to come by another way.
        too_late_drop: true,
        nak_reports: false,
        gap_reports: false,
        reorder_max: 0,
        capacity: config.buffer_packets,
        payload_max: settled.payload_max,
    };
    Receiver::new(config, now)
}

/// The first number of both directions, extended as connections do.
fn first(settled: &Settled) -> u64 {
    extended(settled.initial)
}

/// Connections of one group. Judgement: as many as a flow may have sources.
pub(super) const MEMBERS_MAX: usize = 8;

#[cfg(test)]
mod tests;
