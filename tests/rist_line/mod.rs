//! Cores of RIST driven by hand in virtual time, for what is to be measured of one side alone.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use anabranch::bus::{Meta, Packet, Pool, PoolLimits};
use anabranch::proto::rist::{Config, Receiver, Sender};
use anabranch::proto::{Core, Datagram, Port, Surroundings, Transmit};
use anabranch::units::Time;

/// A sender and a receiver. Nobody's time is what carrying datagrams across takes.
pub(crate) struct Line {
    pool: Pool,
    now: Time,
    batch: usize,
    /// Of so many datagrams with media one is lost.
    loses_one_of: Option<usize>,
    carried: usize,
    sender: End,
    receiver: End,
}

struct End {
    core: Box<dyn Core>,
    /// What is on its way here; it comes when it says it arrives.
    inbox: Vec<Datagram>,
    outbox: Vec<(Time, Transmit)>,
    released: u64,
}

impl Line {
    /// `batch` packets come at one moment.
    pub(crate) fn new(config: &Config, batch: usize, loses_one_of: Option<usize>) -> Self {
        let pool = Pool::new(PoolLimits::default());
        let surroundings = |seed| Surroundings { pool: pool.clone(), seed, unix_ns_at_zero: 0 };
        let sender = End::new(Sender::calling(config.clone(), &surroundings(1)));
        let receiver = End::new(Receiver::listening(config.clone(), &surroundings(2)));
        let now = Time::ZERO;
        let mut line = Self { pool: pool.clone(), now, batch, loses_one_of: None, carried: 0, sender, receiver };
        // Until buffers have the length that they keep.
        (0..WARM_UP_ROUNDS).for_each(|round| {
            if round == WARM_UP_ROUNDS / 4 {
                line.loses_one_of = loses_one_of;
            }
            line.round(|| 0);
        });
        line
    }

    /// Sends [`PACKETS`] packets and receives them, within [`ROUND`]. Returns by how much `meter` rises while the sender
    /// is at it, and while the receiver is.
    pub(crate) fn round(&mut self, meter: impl Fn() -> u64) -> [u64; 2] {
        let at = |n: usize| self.now + ROUND * (n / self.batch * self.batch) as u32 / PACKETS as u32;
        let packets: Vec<Packet> = (0..PACKETS).map(|n| self.packet(at(n))).collect();
        let end = self.now + ROUND;
        let start = meter();
        self.sender.receive();
        for batch in packets.chunks(self.batch) {
            let now = batch[0].meta.arrival;
            self.sender.turn(now);
            batch.iter().for_each(|packet| self.sender.core.handle_packet(now, packet));
            self.sender.turn(now);
        }
        let sent = meter() - start;
        for (at, transmit) in self.sender.outbox.drain(..) {
            let is_media = transmit.len() > 600;
            self.carried += usize::from(is_media);
            if is_media && self.loses_one_of.is_some_and(|share| self.carried.is_multiple_of(share)) {
                continue;
            }
            self.receiver.inbox.push(datagram(&self.pool, at, SENDER, &transmit));
        }
        let start = meter();
        self.receiver.receive();
        self.receiver.turn(end);
        let received = meter() - start;
        for (at, transmit) in self.receiver.outbox.drain(..) {
            self.sender.inbox.push(datagram(&self.pool, at.max(end), RECEIVER, &transmit));
        }
        self.now = end;
        [sent, received]
    }

    /// Packets that came out.
    pub(crate) const fn released(&self) -> u64 {
        self.receiver.released
    }

    /// Packets that were missing when their time had come.
    pub(crate) fn lost(&self) -> u64 {
        self.receiver.core.stats().lost
    }

    /// Packets that were missing and came when they were sent again.
    pub(crate) fn recovered(&self) -> u64 {
        self.receiver.core.stats().recovered
    }

    fn packet(&self, at: Time) -> Packet {
        self.pool.copy(&PAYLOAD, Meta { arrival: at, ..Meta::default() }).unwrap()
    }
}

impl End {
    fn new(core: impl Core + 'static) -> Self {
        let (inbox, outbox) = (Vec::with_capacity(BOX_TYPICAL), Vec::with_capacity(BOX_TYPICAL));
        Self { core: Box::new(core), inbox, outbox, released: 0 }
    }

    fn receive(&mut self) {
        let mut inbox = std::mem::take(&mut self.inbox);
        for datagram in inbox.drain(..) {
            let now = datagram.packet.meta.arrival;
            self.turn(now);
            self.core.handle_datagram(now, datagram);
        }
        self.inbox = inbox;
    }

    /// As drivers do after each batch.
    fn turn(&mut self, now: Time) {
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= now) {
            self.core.handle_timeout(due.max(now));
            self.drain(now);
        }
        self.drain(now);
    }

    fn drain(&mut self, now: Time) {
        while let Some(work) = self.core.poll_work() {
            self.core.handle_done(now, work.run());
        }
        while let Some(transmit) = self.core.poll_transmit() {
            self.outbox.push((now, transmit));
        }
        while let Some(packet) = self.core.poll_packet() {
            black_box(packet.len());
            self.released += 1;
        }
        while let Some(event) = self.core.poll_event() {
            black_box(&event);
        }
    }
}

fn datagram(pool: &Pool, at: Time, peer: ([u8; 4], u16), transmit: &Transmit) -> Datagram {
    let payload = transmit.payload.as_deref().unwrap_or_default();
    let (head, len) = (transmit.header.len(), transmit.len());
    let mut buffer = pool.take(len).unwrap();
    buffer[..head].copy_from_slice(&transmit.header);
    buffer[head..len].copy_from_slice(payload);
    let packet = Packet::new(buffer, 0..len, Meta { arrival: at, ..Meta::default() });
    // A socket for media hears no reports, but nobody looks at that here.
    Datagram {
        port: if transmit.port == Port::Control { Port::Control } else { Port::Media },
        peer: SocketAddr::from(peer),
        packet,
    }
}

const SENDER: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);
const RECEIVER: ([u8; 4], u16) = ([192, 0, 2, 2], 5_000);
/// Packets in a round: about 100 Mb/s.
pub(crate) const PACKETS: usize = 96;
const ROUND: Duration = Duration::from_millis(10);
const PAYLOAD: [u8; 1_316] = [0x47; 1_316];
/// Longer than any buffer, and than what a sender keeps.
const WARM_UP_ROUNDS: usize = 250;
const BOX_TYPICAL: usize = 4_096;
