//! What a group sends: the numbers that all members share, and what may have to be sent over another member.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Group, GroupKind, Links};
use crate::bus::Packet;
use crate::proto::srt::config::Config;
use crate::proto::srt::connection::{Connection, origin};
use crate::proto::srt::send::{Count, next_message_number};
use crate::units::Time;

/// The sending side of a group.
#[derive(Debug)]
pub(super) struct Sending {
    next: u64,
    next_message_number: u32,
    /// What was sent over the active member of a backup group and is not known to have come, in order and without holes.
    backlog: VecDeque<Kept>,
    capacity: usize,
    cut: bool,
    /// Age at which nobody waits for a packet any more.
    keep_for: Duration,
    sent: Count,
}

/// A packet with all that makes it the same packet on any link.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) sequence: u64,
    pub(super) message_number: u32,
    pub(super) origin: Time,
    pub(super) packet: Packet,
}

impl Sending {
    /// Begins at `first`; `latency` is that of the peer.
    pub(super) const fn new(first: u64, latency: Duration, config: &Config) -> Self {
        Self {
            next: first,
            next_message_number: 1,
            backlog: VecDeque::new(),
            capacity: config.buffer_packets,
            cut: config.cut,
            keep_for: latency.saturating_add(REACTION),
            sent: Count { packets: 0, bytes: 0 },
        }
    }

    /// The number that the next packet gets.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Where a member begins that joins now, with its message number: at what it may have to send again.
    pub(super) fn place(&self) -> (u64, u32) {
        let kept = self.backlog.front();
        kept.map_or((self.next, self.next_message_number), |kept| (kept.sequence, kept.message_number))
    }

    /// Sent for the first time, whatever the number of links.
    pub(super) const fn sent(&self) -> Count {
        self.sent
    }

    /// What a member that takes over has to send, oldest first.
    pub(super) const fn backlog(&self) -> &VecDeque<Kept> {
        &self.backlog
    }

    /// Gives a packet its numbers.
    fn number(&mut self, now: Time, packet: Packet) -> Kept {
        let (sequence, message_number) = (self.next, self.next_message_number);
        let kept = Kept { sequence, message_number, origin: origin(now, &packet), packet };
        self.next += 1;
        self.next_message_number = next_message_number(self.next_message_number);
        self.sent.packets += 1;
        self.sent.bytes += kept.packet.len() as u64;
        kept
    }

    /// Keeps a packet for another member; forgets what has come, what is too late, and what there is no room for.
    pub(super) fn keep(&mut self, now: Time, kept: Kept, acknowledged: u64) {
        self.backlog.push_back(kept);
        while self.backlog.front().is_some_and(|kept| {
            kept.sequence < acknowledged || kept.origin + self.keep_for < now || self.backlog.len() > self.capacity
        }) {
            self.backlog.pop_front();
        }
    }
}

impl Group {
    /// A packet to send; cut, or left out, if it is longer than any member takes.
    pub(in crate::proto::srt) fn send(&mut self, now: Time, packet: &Packet, links: &mut impl Links) {
        let longest = |link: &mut Connection| link.payload_max();
        let Some(payload_max) = self.members().filter_map(|id| links.link(id).map(longest)).min() else { return };
        if packet.len() <= payload_max {
            return self.send_piece(now, packet.clone(), links);
        }
        if !self.sending.cut {
            self.past.too_long += 1;
            return;
        }
        for start in (0..packet.len()).step_by(payload_max) {
            self.send_piece(now, packet.slice(start..packet.len().min(start + payload_max)), links);
        }
    }

    fn send_piece(&mut self, now: Time, packet: Packet, links: &mut impl Links) {
        let kept = self.sending.number(now, packet);
        match self.kind {
            GroupKind::Broadcast => {
                for id in self.members() {
                    if let Some(link) = links.link(id) {
                        put(now, &kept, link);
                    }
                }
            }
            GroupKind::Backup => self.send_backup(now, kept, links),
        }
    }
}

/// Sends a packet over one member; says whether that took it. One that is out of step, as it had no room for an earlier
/// packet, first gets rid of what it has: a hole in its numbers would be asked for.
pub(super) fn put(now: Time, kept: &Kept, link: &mut Connection) -> bool {
    if link.sender.next_sequence() != kept.sequence {
        if !link.sender.is_drained() {
            link.counts.overflow += 1;
            return false;
        }
        link.sender.restart_at(kept.sequence, kept.message_number);
    }
    link.sender.next_sequence() == kept.sequence && link.send_from(now, kept.origin, kept.packet.clone())
}

/// libsrt 1.5 gives both sides this long to react.
const REACTION: Duration = Duration::from_millis(20);
