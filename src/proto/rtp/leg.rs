//! One of several legs that carry the same RTP datagrams (SMPTE ST 2022-7).

use std::collections::VecDeque;

use super::feedback::Feedback;
use super::sender::Sender;
use crate::bus::Packet;
use crate::proto::{Core, Datagram, Event, Stats, Transmit};
use crate::units::Time;

/// Passes on what a [`Sender`] made, and listens to what the receiver at the end of this leg lost.
///
/// Each leg has a core of its own, so that one that cannot be sent on holds up no other. What it cannot pass on waits
/// here, and is dropped from the front when that is too much, which `overflow` of its [`Stats`] counts.
#[derive(Debug)]
pub struct Leg {
    waiting: VecDeque<Transmit>,
    feedback: Feedback,
    stats: Stats,
}

impl Leg {
    /// A leg of what `sender` sends.
    #[must_use]
    pub fn new(sender: &Sender) -> Self {
        Self { waiting: VecDeque::new(), feedback: sender.feedback(), stats: Stats::default() }
    }

    /// The next datagram that shall go this way.
    pub fn push(&mut self, transmit: Transmit) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
            self.stats.overflow += 1;
        }
        self.waiting.push_back(transmit);
    }
}

impl Core for Leg {
    fn handle_datagram(&mut self, _now: Time, datagram: Datagram) {
        self.feedback.handle(&datagram, &mut self.stats);
    }

    fn handle_packet(&mut self, _now: Time, _packet: &Packet) {}

    fn handle_timeout(&mut self, _now: Time) {}

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.waiting.pop_front()
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}

/// Datagrams that may wait for a socket that takes no more. Judgement: beside what the socket holds, 100 ms of 100 Mb/s;
/// what is later than that another leg has brought.
const WAITING_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::bus::{Meta, Pool, PoolLimits};
    use crate::proto::rtp::SenderConfig;
    use crate::proto::rtp::rtcp::{CompoundWriter, ReportBlock};
    use crate::proto::{Port, Surroundings};

    fn sender(pool: &Pool) -> Sender {
        let surroundings = Surroundings { pool: pool.clone(), seed: 3, unix_ns_at_zero: 0 };
        Sender::new(SenderConfig { ssrc: Some(7), ..SenderConfig::default() }, &surroundings)
    }

    #[test]
    fn everything_passes_as_the_sender_made_it() {
        let pool = Pool::new(PoolLimits::default());
        let mut sender = sender(&pool);
        let mut legs = [Leg::new(&sender), Leg::new(&sender)];
        for number in 0..100 {
            let packet = pool.copy(&[number; 188], Meta::default()).unwrap();
            sender.handle_packet(Time::ZERO, &packet);
        }
        let made: Vec<Transmit> = std::iter::from_fn(|| sender.poll_transmit()).collect();
        assert_eq!(made.len(), 101, "a report goes first");
        let bytes = |transmit: &Transmit| {
            (transmit.port, transmit.header.clone(), transmit.payload.as_deref().map(<[u8]>::to_vec))
        };
        for leg in &mut legs {
            made.iter().cloned().for_each(|transmit| leg.push(transmit));
            assert!(
                made.iter().all(|transmit| leg.poll_transmit().map(|passed| bytes(&passed)) == Some(bytes(transmit)))
            );
            assert!(leg.poll_transmit().is_none());
        }
    }

    #[test]
    fn what_waits_has_a_bound_and_the_oldest_goes_first() {
        let pool = Pool::new(PoolLimits::default());
        let mut leg = Leg::new(&sender(&pool));
        let packet = |number: usize| pool.copy(&number.to_be_bytes(), Meta::default());
        for number in 0..WAITING_MAX + 3 {
            let payload = packet(number);
            leg.push(Transmit { port: Port::Media, to: None, header: Default::default(), payload });
        }
        assert_eq!(leg.stats().overflow, 3);
        let first = leg.poll_transmit().and_then(|transmit| transmit.payload).unwrap();
        assert_eq!(first[..], 3_usize.to_be_bytes());
    }

    #[test]
    fn each_leg_knows_what_its_own_receiver_lost() {
        let pool = Pool::new(PoolLimits::default());
        let sender = sender(&pool);
        let mut legs = [Leg::new(&sender), Leg::new(&sender)];
        let block = ReportBlock { ssrc: 7, fraction_lost: 64, ..ReportBlock::default() };
        let report = CompoundWriter::default().receiver_report(9, &[block]).into_bytes();
        let packet = pool.copy(&report, Meta::default()).unwrap();
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        legs[1].handle_datagram(Time::ZERO, Datagram { port: Port::Control, peer, packet: packet.clone() });
        assert_eq!(legs.each_ref().map(|leg| leg.stats().peer_fraction_lost), [None, Some(64)]);
        legs[0].handle_datagram(Time::ZERO, Datagram { port: Port::Media, peer, packet });
        assert_eq!(legs[0].stats().unexpected, 1);
    }
}
