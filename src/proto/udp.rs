//! Plain UDP as a core: every datagram is a packet, every packet is a datagram.

use std::collections::VecDeque;

use super::{Core, Datagram, Event, Port, Stats, Transmit, WireHeader};
use crate::bus::Packet;
use crate::units::Time;

/// Datagrams in, packets out, byte for byte.
#[derive(Debug, Default)]
pub struct Receiver {
    packets: VecDeque<Packet>,
    stats: Stats,
}

impl Core for Receiver {
    fn handle_datagram(&mut self, _now: Time, datagram: Datagram) {
        if datagram.packet.is_empty() {
            self.stats.malformed += 1;
        } else if self.packets.len() == QUEUE_MAX {
            self.stats.overflow += 1;
        } else {
            self.stats.received += 1;
            self.packets.push_back(datagram.packet);
        }
    }

    fn handle_packet(&mut self, _now: Time, _packet: &Packet) {}

    fn handle_timeout(&mut self, _now: Time) {}

    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        self.packets.pop_front()
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

/// Packets in, datagrams out. Longer ones than `packet_size_max` are cut into several.
#[derive(Debug)]
pub struct Sender {
    packet_size_max: usize,
    datagrams: VecDeque<Packet>,
    stats: Stats,
}

impl Sender {
    /// A sender of datagrams of at most `packet_size_max` bytes; `None` keeps the boundaries of the source.
    #[must_use]
    pub fn new(packet_size_max: Option<usize>) -> Self {
        Self {
            packet_size_max: packet_size_max.unwrap_or(usize::MAX).max(1),
            datagrams: VecDeque::new(),
            stats: Stats::default(),
        }
    }
}

impl Core for Sender {
    fn handle_datagram(&mut self, _now: Time, _datagram: Datagram) {
        self.stats.unexpected += 1;
    }

    fn handle_packet(&mut self, _now: Time, packet: &Packet) {
        if self.datagrams.len() >= QUEUE_MAX {
            self.stats.overflow += 1;
        } else if packet.len() <= self.packet_size_max {
            self.datagrams.push_back(packet.clone());
        } else {
            let starts = (0..packet.len()).step_by(self.packet_size_max);
            let parts = starts.map(|at| packet.slice(at..packet.len().min(at + self.packet_size_max)));
            self.datagrams.extend(parts);
        }
    }

    fn handle_timeout(&mut self, _now: Time) {}

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let payload = self.datagrams.pop_front()?;
        Some(Transmit { port: Port::Media, to: None, header: WireHeader::new(), payload: Some(payload) })
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

/// Packets that may wait for whoever drains the core. Whoever runs it drains after every batch, which is shorter.
const QUEUE_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Meta, Pool, PoolLimits};

    #[test]
    fn datagrams_pass_byte_for_byte() {
        let pool = Pool::new(PoolLimits::default());
        let packet = pool.copy(b"not a transport stream", Meta::default()).unwrap();
        let mut receiver = Receiver::default();
        let peer = ([127, 0, 0, 1], 9).into();
        receiver.handle_datagram(Time::ZERO, Datagram { port: Port::Media, peer, packet });
        let packet = receiver.poll_packet().unwrap();
        let mut sender = Sender::new(None);
        sender.handle_packet(Time::ZERO, &packet);
        assert_eq!(*sender.poll_transmit().unwrap().payload.unwrap(), *b"not a transport stream");
    }

    #[test]
    fn a_long_packet_is_cut_and_nothing_is_lost() {
        let pool = Pool::new(PoolLimits::default());
        let bytes: Vec<u8> = (0..188 * 7).map(|n| n as u8).collect();
        let mut sender = Sender::new(Some(188 * 3));
        sender.handle_packet(Time::ZERO, &pool.copy(&bytes, Meta::default()).unwrap());
        let parts: Vec<Packet> = std::iter::from_fn(|| sender.poll_transmit()?.payload).collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [564, 564, 188]);
        assert_eq!(parts.iter().flat_map(|part| part.to_vec()).collect::<Vec<_>>(), bytes);
    }
}
