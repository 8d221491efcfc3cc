//! Cores of SRT driven by hand in virtual time, for what is to be measured of one side alone.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use anabranch::bus::{Meta, Packet, Pool, PoolLimits};
use anabranch::proto::srt::{Caller, Config, Listener, Service};
use anabranch::proto::{Core, Datagram, Event, Port, Transmit};
use anabranch::units::Time;

/// One side that sends to one or several that receive. Nobody's time is what carrying datagrams across takes.
pub(crate) struct Line {
    pool: Pool,
    now: Time,
    traffic: Traffic,
    sender: End,
    receivers: Vec<End>,
}

/// What goes over a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Packets that come to the sender at one moment, and datagrams that come to a receiver likewise.
    pub(crate) batch: usize,
    pub(crate) payload_bytes: usize,
    /// Of so many packets one is lost when it is sent first.
    pub(crate) loses_one_of: Option<usize>,
}

struct End {
    core: Box<dyn Core>,
    address: SocketAddr,
    /// What is on its way here, with when it comes.
    inbox: Vec<Datagram>,
    outbox: Vec<(Time, Transmit)>,
    connections: usize,
    released: u64,
}

impl Line {
    /// A caller that sends to a listener.
    pub(crate) fn to_listener(config: &Config, traffic: Traffic) -> Self {
        let pool = Pool::new(PoolLimits::default());
        let caller = Caller::new(config.clone(), LISTENER.into(), pool.clone(), [1; 32]);
        let listener = Listener::new(config.clone(), Service::Receive, pool.clone(), [2; 32]);
        let receivers = vec![End::new(listener, LISTENER.into())];
        Self::connect(pool, traffic, End::new(caller, caller_address(0)), receivers)
    }

    /// A listener that sends to so many callers.
    pub(crate) fn to_callers(config: &Config, callers: u8, traffic: Traffic) -> Self {
        let pool = Pool::new(PoolLimits::default());
        let service = Service::Send { callers_max: callers.into() };
        let listener = Listener::new(config.clone(), service, pool.clone(), [2; 32]);
        let caller = |n| Caller::new(config.clone(), LISTENER.into(), pool.clone(), [n; 32]);
        let receivers = (0..callers).map(|n| End::new(caller(n), caller_address(n))).collect();
        Self::connect(pool, traffic, End::new(listener, LISTENER.into()), receivers)
    }

    fn connect(pool: Pool, traffic: Traffic, sender: End, receivers: Vec<End>) -> Self {
        let mut line = Self { pool, now: Time::ZERO, traffic, sender, receivers };
        while line.sender.connections < line.receivers.len() {
            line.run(0, || 0);
            assert!(line.now < Time::ZERO + Duration::from_secs(3), "not connected");
        }
        // Until buffers have the length that they keep.
        (0..WARM_UP_ROUNDS).for_each(|_| _ = line.round(|| 0));
        line
    }

    /// Sends [`PACKETS`] packets and receives them, within [`ROUND`]. Returns by how much `meter` rises while the sender
    /// is at it, and while the receivers are.
    pub(crate) fn round(&mut self, meter: impl Fn() -> u64) -> [u64; 2] {
        self.run(PACKETS, meter)
    }

    /// Packets that came out, of all receivers together.
    pub(crate) fn released(&self) -> u64 {
        self.receivers.iter().map(|receiver| receiver.released).sum()
    }

    /// Packets that were missing when their time had come.
    pub(crate) fn lost(&self) -> u64 {
        self.receivers.iter().map(|receiver| receiver.core.stats().lost).sum()
    }

    /// Packets that were missing and came when they were sent again.
    pub(crate) fn recovered(&self) -> u64 {
        self.receivers.iter().map(|receiver| receiver.core.stats().recovered).sum()
    }

    fn run(&mut self, packets: usize, meter: impl Fn() -> u64) -> [u64; 2] {
        let at = |n: usize| self.now + ROUND * (n / self.traffic.batch * self.traffic.batch) as u32 / PACKETS as u32;
        let packets: Vec<Packet> = (0..packets).map(|n| self.packet(at(n))).collect();
        let end = self.now + ROUND;
        let start = meter();
        self.sender.receive(usize::MAX);
        self.sender.turn(self.now);
        for batch in packets.chunks(self.traffic.batch) {
            let now = batch[0].meta.arrival;
            batch.iter().for_each(|packet| self.sender.core.handle_packet(now, packet));
            self.sender.turn(now);
        }
        self.sender.turn(end);
        let mut spent = [meter() - start, 0];
        self.carry_there();
        for receiver in &mut self.receivers {
            let start = meter();
            receiver.receive(self.traffic.batch);
            receiver.turn(end);
            spent[1] += meter() - start;
            for (_, transmit) in receiver.outbox.drain(..) {
                self.sender.inbox.push(datagram(&self.pool, end, receiver.address, &transmit));
            }
        }
        self.now = end;
        spent
    }

    fn carry_there(&mut self) {
        for (n, (at, transmit)) in self.sender.outbox.drain(..).enumerate() {
            if self.traffic.loses_one_of.is_some_and(|share| n % share == share / 2) && is_new_data(&transmit) {
                continue;
            }
            let receiver = self.receivers.iter_mut().find(|receiver| transmit.to == Some(receiver.address)).unwrap();
            receiver.inbox.push(datagram(&self.pool, at, self.sender.address, &transmit));
        }
    }

    fn packet(&self, at: Time) -> Packet {
        self.pool.copy(&PAYLOAD[..self.traffic.payload_bytes], Meta { arrival: at, ..Meta::default() }).unwrap()
    }
}

impl End {
    fn new(core: impl Core + 'static, address: SocketAddr) -> Self {
        let (inbox, outbox) = (Vec::with_capacity(BOX_TYPICAL), Vec::with_capacity(BOX_TYPICAL));
        Self { core: Box::new(core), address, inbox, outbox, connections: 0, released: 0 }
    }

    /// Takes in what came, up to `batch` at a moment.
    fn receive(&mut self, batch: usize) {
        let mut taken = 0;
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut came = inbox.drain(..).peekable();
        while let Some(datagram) = came.next() {
            let now = datagram.packet.meta.arrival;
            self.core.handle_datagram(now, datagram);
            taken += 1;
            if taken == batch || came.peek().is_none_or(|next| next.packet.meta.arrival > now) {
                self.turn(now);
                taken = 0;
            }
        }
        drop(came);
        self.inbox = inbox;
    }

    /// As drivers do after each batch.
    fn turn(&mut self, now: Time) {
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.core.handle_timeout(now);
        }
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
            self.connections += usize::from(matches!(event, Event::PeerConnected { .. }));
        }
    }
}

fn is_new_data(transmit: &Transmit) -> bool {
    transmit.header[0] & CONTROL == 0 && transmit.header[4] & RETRANSMITTED == 0
}

fn datagram(pool: &Pool, at: Time, peer: SocketAddr, transmit: &Transmit) -> Datagram {
    let payload = transmit.payload.as_deref().unwrap_or_default();
    let (head, len) = (transmit.header.len(), transmit.len());
    let mut buffer = pool.take(len).unwrap();
    buffer[..head].copy_from_slice(&transmit.header);
    buffer[head..len].copy_from_slice(payload);
    let packet = Packet::new(buffer, 0..len, Meta { arrival: at, ..Meta::default() });
    Datagram { port: Port::Media, peer, packet }
}

fn caller_address(n: u8) -> SocketAddr {
    ([192, 0, 2, 10 + n], 40_000).into()
}

const LISTENER: ([u8; 4], u16) = ([192, 0, 2, 1], 9_000);

/// Packets in a round: about 100 Mb/s.
pub(crate) const PACKETS: usize = 96;
/// As often full acknowledgements are made.
const ROUND: Duration = Duration::from_millis(10);
const PAYLOAD: [u8; 1_316] = [0x47; 1_316];
/// Longer than any latency.
const WARM_UP_ROUNDS: usize = 30;
const BOX_TYPICAL: usize = 4_096;
/// Bits of the header's first and fifth byte (draft 3, 3.1).
const CONTROL: u8 = 0x80;
const RETRANSMITTED: u8 = 0x04;
