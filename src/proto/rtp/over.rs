//! RTP over another core, one RTP packet in each packet that the other carries, as some send it over SRT.
//!
//! The core below keeps the order, sends again what was lost, and reports. So there is no RTCP here and nothing is
//! reordered: headers are put before what goes out, and taken off what comes in.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::SenderConfig;
use super::header::{HEADER_BYTES, Header, RtpPacket};
use super::numbering::Numbering;
use super::random::Random;
use super::rtcp::is_rtcp;
use super::source::Source;
use crate::bus::{Packet, Pool};
use crate::proto::{Core, Datagram, Detail, Done, Event, Stats, Surroundings, Transmit, Work};
use crate::units::{Seq, Time};

/// The core `C` with RTP packets as what it carries.
///
/// What comes in leaves with its extended sequence number, which never goes back when the sender starts over, and with
/// its RTP timestamp, as it does from [`super::Receiver`]; any payload type is taken. What goes out gets a header as from
/// [`super::Sender`], in a buffer of its own, and is [`HEADER_BYTES`] longer: `C` must not cut it.
#[derive(Debug)]
pub struct Over<C> {
    below: C,
    pool: Pool,
    numbering: Numbering,
    source: Option<Source>,
    /// Whether the next packet does not continue what came before it.
    is_mark_due: bool,
    restarts: VecDeque<Event>,
    next_restart_told: Time,
    malformed: u64,
    /// RTCP, which nobody here answers.
    unexpected: u64,
    no_buffer: u64,
}

impl<C: Core> Over<C> {
    /// Nothing was sent or received yet. Of `config` the name is not used, as there are no reports.
    #[must_use]
    pub fn new(below: C, config: &SenderConfig, surroundings: &Surroundings) -> Self {
        Self {
            below,
            pool: surroundings.pool.clone(),
            numbering: Numbering::new(config, &mut Random::new(surroundings.seed)),
            source: None,
            is_mark_due: true,
            restarts: VecDeque::new(),
            next_restart_told: Time::ZERO,
            malformed: 0,
            unexpected: 0,
            no_buffer: 0,
        }
    }

    /// Takes the header off; `None` if that is all there is, or not one.
    fn open(&mut self, packet: Packet) -> Option<Packet> {
        self.is_mark_due |= packet.meta.discontinuity;
        if is_rtcp(&packet) {
            self.unexpected += 1;
            return None;
        }
        let Ok(rtp) = RtpPacket::parse(&packet) else {
            self.malformed += 1;
            return None;
        };
        let (header, payload, arrival) = (rtp.header, rtp.payload_range(), packet.meta.arrival);
        let source = match self.source.take() {
            Some(source) if source.ssrc() == header.ssrc && source.is_near(header.sequence) => source,
            Some(source) if source.ssrc() == header.ssrc && source.is_same_run(&header, arrival) => source,
            Some(before) => {
                self.is_mark_due = true;
                self.tell(arrival, Event::Restarted { from: before.ssrc(), to: header.ssrc });
                Source::new(&header, arrival, Some(&before))
            }
            None => Source::new(&header, arrival, None),
        };
        let sequence = self.source.insert(source).count(&header, arrival);
        let mut packet = packet.into_slice(payload);
        packet.meta.sequence = Some(sequence);
        packet.meta.rtp_timestamp = Some(header.timestamp);
        if packet.is_empty() {
            // It keeps a path open (RFC 6263 4.1).
            return None;
        }
        packet.meta.discontinuity = std::mem::take(&mut self.is_mark_due);
        Some(packet)
    }

    fn tell(&mut self, now: Time, event: Event) {
        if self.next_restart_told <= now && self.restarts.len() < RESTARTS_MAX {
            self.next_restart_told = now + RESTARTS_TOLD_APART;
            self.restarts.push_back(event);
        }
    }
}

impl<C: Core> Core for Over<C> {
    fn handle_datagram(&mut self, now: Time, datagram: Datagram) {
        self.below.handle_datagram(now, datagram);
    }

    fn handle_packet(&mut self, now: Time, packet: &Packet) {
        let Self { below, pool, numbering, no_buffer, .. } = self;
        let timestamp = numbering.timestamp(&packet.meta);
        let template = numbering.header(Seq::default(), timestamp);
        numbering.number(packet, |sequence, payload| {
            let len = HEADER_BYTES + payload.len();
            let Some(mut buffer) = pool.take(len) else {
                // Its number is used up: whoever receives shall see that something is missing.
                *no_buffer += 1;
                return;
            };
            let marker = payload.meta.discontinuity;
            buffer[..HEADER_BYTES].copy_from_slice(&Header { sequence, marker, ..template }.to_bytes());
            buffer[HEADER_BYTES..len].copy_from_slice(&payload);
            below.handle_packet(now, &Packet::new(buffer, 0..len, payload.meta));
        });
    }

    fn handle_timeout(&mut self, now: Time) {
        self.below.handle_timeout(now);
    }

    fn handle_close(&mut self, now: Time) {
        self.below.handle_close(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.below.poll_transmit()
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        loop {
            let packet = self.below.poll_packet()?;
            if let Some(packet) = self.open(packet) {
                return Some(packet);
            }
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.below.poll_event().or_else(|| self.restarts.pop_front())
    }

    fn poll_work(&mut self) -> Option<Work> {
        self.below.poll_work()
    }

    fn handle_done(&mut self, now: Time, done: Done) {
        self.below.handle_done(now, done);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.below.poll_timeout()
    }

    fn patience(&self) -> Duration {
        self.below.patience()
    }

    fn dropped(&self) -> u64 {
        self.below.dropped()
    }

    fn stats(&self) -> Stats {
        let below = self.below.stats();
        Stats {
            received: below.received.saturating_sub(self.malformed + self.unexpected),
            malformed: below.malformed + self.malformed,
            unexpected: below.unexpected + self.unexpected,
            no_buffer: below.no_buffer + self.no_buffer,
            ..below
        }
    }

    fn visit_details(&self, visit: &mut dyn FnMut(&[Detail])) {
        self.below.visit_details(visit);
    }
}

/// Restarts that wait for whoever asks. Judgement: as many as a receiver keeps.
const RESTARTS_MAX: usize = 16;
/// Two senders in one stream take turns without an end: one of their changes a second is told.
const RESTARTS_TOLD_APART: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Meta, PoolLimits};
    use crate::proto::Port;
    use crate::proto::rtp::HeaderMode;
    use crate::proto::rtp::rtcp::CompoundWriter;
    use crate::units::Seq;

    #[test]
    fn header_sources_extension_and_padding_are_taken_off() {
        let mut rig = Rig::new(SenderConfig::default());
        let builder =
            rtp_types::RtpPacketBuilder::<&[u8], &[u8]>::new().payload_type(96).sequence_number(7).timestamp(9);
        let builder = builder.ssrc(1).add_csrc(1).add_csrc(2).extension(0x5249, &[9; 8]).padding(4).payload(b"payload");
        rig.receive(0, &builder.write_vec().unwrap());
        let packet = rig.over.poll_packet().unwrap();
        assert_eq!(&*packet, b"payload");
        assert_eq!((packet.meta.sequence.map(|number| number as u16), packet.meta.rtp_timestamp), (Some(7), Some(9)));
        assert_eq!(packet.meta.arrival, ms(0));
    }

    #[test]
    fn numbers_go_on_over_the_wrap_and_nothing_is_reordered() {
        let mut rig = Rig::new(SenderConfig::default());
        [65_534, 65_535, 0, 2, 1, 3].iter().for_each(|number| rig.receive(0, &rtp(1, *number)));
        let numbers = rig.numbers();
        let first = numbers[0];
        assert_eq!(first % 65_536, 65_534);
        assert_eq!(numbers.iter().map(|number| number - first).collect::<Vec<_>>(), [0, 1, 2, 4, 3, 5]);
        assert_eq!(rig.over.poll_event(), None);
    }

    #[test]
    fn what_is_no_rtp_is_counted_and_hurts_nobody() {
        let mut rig = Rig::new(SenderConfig::default());
        rig.receive(0, &rtp(1, 1));
        rig.receive(0, &[0x47; 1_316]);
        rig.receive(0, &rtp(1, 2)[..11]);
        rig.receive(0, &CompoundWriter::default().goodbye(1).into_bytes());
        // Without payload.
        rig.receive(0, &rtp(1, 2)[..HEADER_BYTES]);
        rig.receive(0, &rtp(1, 3));
        let numbers = rig.numbers();
        assert_eq!(numbers.len(), 2);
        assert_eq!(numbers[1] - numbers[0], 2);
        let Stats { received, malformed, unexpected, .. } = rig.over.stats();
        assert_eq!((received, malformed, unexpected), (3, 2, 1));
        assert_eq!(rig.over.poll_event(), None);
    }

    #[test]
    fn a_sender_that_starts_over_is_followed_at_once_and_told() {
        let mut rig = Rig::new(SenderConfig::default());
        for (at_ms, ssrc, sequence) in [(0, 1, 40_000), (1_000, 2, 100), (2_000, 2, 30_000)] {
            rig.receive(at_ms, &rtp(ssrc, sequence));
        }
        let numbers = rig.numbers();
        assert!(numbers.is_sorted());
        assert_eq!(numbers.iter().map(|number| number % 65_536).collect::<Vec<_>>(), [40_000, 100, 30_000]);
        assert_eq!(rig.over.poll_event(), Some(Event::Restarted { from: 1, to: 2 }));
        assert_eq!(rig.over.poll_event(), Some(Event::Restarted { from: 2, to: 2 }));
        assert_eq!(rig.over.poll_event(), None);
    }

    #[test]
    fn an_outage_is_no_restart() {
        let mut rig = Rig::new(SenderConfig::default());
        rig.receive(0, &rtp(1, 10));
        rig.receive(80_000, &rtp(1, 4_010));
        let numbers = rig.numbers();
        assert_eq!(numbers[1] - numbers[0], 4_000);
        assert_eq!(rig.over.poll_event(), None);
    }

    #[test]
    fn senders_that_take_turns_are_told_once_a_second() {
        let mut rig = Rig::new(SenderConfig::default());
        for n in 0..3_000_u16 {
            rig.receive(n.into(), &rtp((n % 2).into(), n / 2));
        }
        assert_eq!(rig.numbers().len(), 3_000);
        assert_eq!(std::iter::from_fn(|| rig.over.poll_event()).count(), 3);
    }

    #[test]
    fn what_goes_out_has_headers_as_from_a_sender() {
        let mut rig = Rig::new(SenderConfig { ssrc: Some(7), ..SenderConfig::default() });
        for at_ms in [100, 101, 103] {
            rig.send(at_ms, &[0x47; 1_316], Meta::default());
        }
        let sent = rig.sent();
        let first = sent[0].0;
        assert_eq!((first.ssrc, first.payload_type, first.marker), (7, 33, false));
        for ((header, payload), (steps, ticks)) in sent.iter().zip([(0, 0), (1, 90), (2, 270)]) {
            let timestamp = first.timestamp.wrapping_add(ticks);
            assert_eq!(*header, Header { sequence: first.sequence.add(steps), timestamp, ..first });
            assert_eq!(payload[..], [0x47; 1_316]);
        }
    }

    #[test]
    fn kept_headers_show_the_gaps_of_the_source() {
        let mut rig = Rig::new(SenderConfig { header: HeaderMode::Keep, ..SenderConfig::default() });
        for (sequence, rtp_timestamp) in [(Some(70_000), Some(5)), (Some(70_002), Some(9)), (None, None)] {
            rig.send(0, b"payload", Meta { sequence, rtp_timestamp, ..Meta::default() });
        }
        let headers: Vec<Header> = rig.sent().into_iter().map(|(header, _)| header).collect();
        assert_eq!(headers.iter().map(|header| header.sequence.value() - 4_464).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(headers.iter().take(2).map(|header| header.timestamp).collect::<Vec<_>>(), [5, 9]);
    }

    #[test]
    fn long_packets_are_cut_so_that_each_part_has_a_header() {
        let mut rig = Rig::new(SenderConfig { payload_bytes_max: 1_444, ..SenderConfig::default() });
        rig.send(0, &[0x47; 188 * 8], Meta::default());
        rig.send(0, &[1; 3_000], Meta::default());
        let sent = rig.sent();
        assert_eq!(sent.iter().map(|(_, payload)| payload.len()).collect::<Vec<_>>(), [1_316, 188, 1_444, 1_444, 112]);
        assert!(sent.windows(2).all(|pair| pair[0].0.sequence.add(1) == pair[1].0.sequence));
    }

    #[test]
    fn a_packet_without_a_buffer_is_counted_and_leaves_a_gap() {
        let mut rig = Rig::new(SenderConfig::default());
        let mut undisturbed = Rig::new(SenderConfig::default());
        undisturbed.send(0, b"payload", Meta::default());
        let packet = rig.packet(0, b"payload", Meta::default());
        rig.over.pool = Pool::new(PoolLimits { small_max: 0, ..PoolLimits::default() });
        rig.over.handle_packet(ms(0), &packet);
        rig.over.pool = rig.pool.clone();
        rig.over.handle_packet(ms(0), &packet);
        let sent = rig.sent();
        assert_eq!((sent.len(), rig.over.stats().no_buffer), (1, 1));
        assert_eq!(sent[0].0.sequence, undisturbed.sent()[0].0.sequence.add(1));
    }

    /// Releases what comes as it comes, and keeps what it is to send.
    #[derive(Debug, Default)]
    struct Pipe {
        received: u64,
        packets: VecDeque<Packet>,
        sent: Vec<Packet>,
    }

    impl Core for Pipe {
        fn handle_datagram(&mut self, _now: Time, datagram: Datagram) {
            self.received += 1;
            self.packets.push_back(datagram.packet);
        }
        fn handle_packet(&mut self, _now: Time, packet: &Packet) {
            self.sent.push(packet.clone());
        }
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
            Stats { received: self.received, ..Stats::default() }
        }
    }

    struct Rig {
        pool: Pool,
        over: Over<Pipe>,
    }

    impl Rig {
        fn new(config: SenderConfig) -> Self {
            let pool = Pool::new(PoolLimits::default());
            let surroundings = Surroundings { pool: pool.clone(), seed: 1, unix_ns_at_zero: 0 };
            Self { pool, over: Over::new(Pipe::default(), &config, &surroundings) }
        }

        fn packet(&self, at_ms: u64, bytes: &[u8], meta: Meta) -> Packet {
            self.pool.copy(bytes, Meta { arrival: ms(at_ms), ..meta }).unwrap()
        }

        fn receive(&mut self, at_ms: u64, bytes: &[u8]) {
            let packet = self.packet(at_ms, bytes, Meta::default());
            let peer = ([192, 0, 2, 1], 5_000).into();
            self.over.handle_datagram(ms(at_ms), Datagram { port: Port::Media, peer, packet });
        }

        fn numbers(&mut self) -> Vec<u64> {
            std::iter::from_fn(|| self.over.poll_packet()).map(|packet| packet.meta.sequence.unwrap()).collect()
        }

        fn send(&mut self, at_ms: u64, bytes: &[u8], meta: Meta) {
            let packet = self.packet(at_ms, bytes, meta);
            self.over.handle_packet(ms(at_ms), &packet);
        }

        fn sent(&self) -> Vec<(Header, Vec<u8>)> {
            let read = |packet: &Packet| {
                let rtp = RtpPacket::parse(packet).unwrap();
                (rtp.header, rtp.payload().to_vec())
            };
            self.over.below.sent.iter().map(read).collect()
        }
    }

    /// A packet of a sender that sends every 20 ms.
    fn rtp(ssrc: u32, sequence: u16) -> Vec<u8> {
        let (sequence, timestamp) = (Seq::new(sequence.into()), u32::from(sequence) * 1_800);
        let header = Header { marker: false, payload_type: 33, sequence, timestamp, ssrc };
        [&header.to_bytes()[..], b"payload"].concat()
    }

    fn ms(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }
}
