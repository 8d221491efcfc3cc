//! A network in virtual time: cores as nodes, links between them, one queue of what happens next.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::link::{self, Link};
use crate::bus::{Meta, Packet, Pool, PoolLimits};
use crate::proto::{Core, Datagram, Done, Event, Port, Transmit, Tuning};
use crate::units::Time;

/// Names a node of the network it was added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

/// A core with its addresses and its own idea of time, to be added to a network.
pub struct Node {
    core: Box<dyn Core>,
    addresses: [Option<SocketAddr>; PORTS],
    peers: [Option<SocketAddr>; PORTS],
    clock: Clock,
    inbox: VecDeque<Delivery>,
    events: VecDeque<(Time, Event)>,
}

impl Node {
    /// A node without address, whose clock is right.
    #[must_use]
    pub fn new(core: impl Core + 'static) -> Self {
        Self {
            core: Box::new(core),
            addresses: [None; PORTS],
            peers: [None; PORTS],
            clock: Clock::default(),
            inbox: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Gives `port` an address, from which the core sends and at which it receives.
    #[must_use]
    pub const fn bind(mut self, port: Port, address: SocketAddr) -> Self {
        self.addresses[port as usize] = Some(address);
        self
    }

    /// Gives `port` a peer: where datagrams without a destination go.
    #[must_use]
    pub const fn connect(mut self, port: Port, peer: SocketAddr) -> Self {
        self.peers[port as usize] = Some(peer);
        self
    }

    /// Gives the node another clock.
    #[must_use]
    pub const fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("addresses", &self.addresses).field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// What a node takes for the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// What it shows at [`Time::ZERO`] of the network.
    pub offset: Duration,
    /// How many millionths it runs too fast; at least -999,999, so that it moves on.
    pub skew_ppm: i32,
}

impl Clock {
    /// What the clock shows at the true time `now`.
    #[must_use]
    pub fn local(self, now: Time) -> Time {
        let ns = u128::from(now.as_ns()) * self.rate_ppm() / 1_000_000;
        Time::from_ns(u64::try_from(ns).unwrap_or(u64::MAX)) + self.offset
    }

    /// The first true time at which the clock shows `local` or more.
    #[must_use]
    pub fn when(self, local: Time) -> Time {
        let ns = (u128::from((local - self.offset).as_ns()) * 1_000_000).div_ceil(self.rate_ppm());
        Time::from_ns(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    fn rate_ppm(self) -> u128 {
        u128::try_from(1_000_000 + i64::from(self.skew_ppm)).unwrap_or(0).max(1)
    }
}

/// A packet that a core released.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// When, in the network's true time.
    pub at: Time,
    /// What; its metadata is in the node's own time.
    pub packet: Packet,
}

/// What the network could not carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Datagrams from a port without address, or to an address that no node has.
    pub unroutable: u64,
    /// Datagrams for which there was no buffer.
    pub no_buffer: u64,
    /// Datagrams and bus packets refused because too much was under way.
    pub queue_full: u64,
    /// Packets and events dropped because nobody took the earlier ones.
    pub inbox_full: u64,
}

/// Cores, links, and a clock that jumps from one happening to the next.
///
/// Nodes that happen at the same moment take turns in the order in which things were put in; timers come after
/// datagrams and packets of that moment, in the order of the nodes.
#[derive(Debug)]
pub struct Network {
    now: Time,
    seed: u64,
    pool: Pool,
    nodes: Vec<Node>,
    by_address: BTreeMap<SocketAddr, (NodeId, Port)>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    queue: BTreeMap<(Time, u64), (NodeId, Input)>,
    work_takes: Duration,
    /// Happenings put in so far: those of one moment keep their order.
    queued: u64,
    fingerprint: Fnv,
    stats: Stats,
}

impl Network {
    /// An empty network at [`Time::ZERO`]; all chance comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            seed,
            pool: Pool::new(PoolLimits::default()),
            nodes: Vec::new(),
            by_address: BTreeMap::new(),
            links: BTreeMap::new(),
            queue: BTreeMap::new(),
            work_takes: WORK_TAKES,
            queued: 0,
            fingerprint: Fnv::default(),
            stats: Stats::default(),
        }
    }

    /// Adds a node.
    ///
    /// # Panics
    /// If another node has one of its addresses.
    pub fn add(&mut self, node: Node) -> NodeId {
        let id = NodeId(self.nodes.len());
        for port in Port::ALL {
            if let Some(address) = node.addresses[port as usize] {
                let other = self.by_address.insert(address, (id, port));
                assert!(other.is_none(), "{address} is taken");
            }
        }
        self.nodes.push(node);
        id
    }

    /// Makes the way from one node to another, until now perfect, as good or bad as `config` says. What is under way
    /// stays so. The way back is another link.
    pub fn link(&mut self, from: NodeId, to: NodeId, config: link::Config) {
        self.link_mut(from, to).set_config(config);
    }

    /// Puts a packet into a node from its bus side, at a moment to come. One in the past means now.
    pub fn send(&mut self, at: Time, node: NodeId, packet: Packet) {
        self.enqueue(at.max(self.now), node, Input::Packet(packet));
    }

    /// Has a node go on with other settings, at a moment to come. One in the past means now.
    pub fn tune(&mut self, at: Time, node: NodeId, tuning: Tuning) {
        self.enqueue(at.max(self.now), node, Input::Tuning(tuning));
    }

    /// Lets happen whatever happens up to `end`, and stops the clock there.
    ///
    /// # Panics
    /// If a core asks for timeouts at one moment without end, or never stops sending.
    pub fn run_until(&mut self, end: Time) {
        let mut at_once = 0;
        loop {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = self.next_timer();
            let Some(at) = queued.into_iter().chain(timer.map(|(at, _)| at)).min().filter(|at| *at <= end) else {
                break;
            };
            at_once = if at > self.now { 0 } else { at_once + 1 };
            assert!(at_once < AT_ONCE_MAX, "time stands still at {at:?}");
            self.now = at;
            if queued == Some(at) {
                if let Some((_, (node, input))) = self.queue.pop_first() {
                    self.handle(node, input);
                }
            } else if let Some((_, node)) = timer {
                self.handle(node, Input::Timeout);
            }
        }
        self.now = self.now.max(end);
    }

    /// True time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Buffers of everything in the network; packets to send may come from elsewhere.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// From now on work that cores have done elsewhere takes so long, as on a busy machine.
    pub const fn set_work_takes(&mut self, span: Duration) {
        self.work_takes = span;
    }

    /// A node's core.
    #[must_use]
    pub fn core(&self, node: NodeId) -> &dyn Core {
        self.nodes[node.0].core.as_ref()
    }

    /// Packets that a node released since the last call. Up to 65,536 wait; further ones are dropped and counted.
    pub fn take_packets(&mut self, node: NodeId) -> Vec<Delivery> {
        self.nodes[node.0].inbox.drain(..).collect()
    }

    /// Events of a node since the last call, with their true times. Bounded like packets.
    pub fn take_events(&mut self, node: NodeId) -> Vec<(Time, Event)> {
        self.nodes[node.0].events.drain(..).collect()
    }

    /// Counters of the way from one node to another.
    #[must_use]
    pub fn link_stats(&self, from: NodeId, to: NodeId) -> link::Stats {
        self.links.get(&(from, to)).map_or_else(link::Stats::default, Link::stats)
    }

    /// What the network could not carry.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// A hash of all that has happened: who was given what, and when. Equal for equal runs.
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint.0
    }

    /// The first timer that is due, and whose. A time in the past means now.
    fn next_timer(&self) -> Option<(Time, NodeId)> {
        let timers = self.nodes.iter().enumerate().filter_map(|(index, node)| {
            let due = node.clock.when(node.core.poll_timeout()?);
            Some((due.max(self.now), NodeId(index)))
        });
        timers.min()
    }

    fn handle(&mut self, id: NodeId, input: Input) {
        self.fingerprint.add(&self.now.as_ns().to_le_bytes());
        self.fingerprint.add(&[id.0 as u8, input.kind()]);
        let node = &mut self.nodes[id.0];
        let local = node.clock.local(self.now);
        match input {
            Input::Datagram(mut datagram) => {
                self.fingerprint.add(&datagram.packet);
                datagram.packet.meta.arrival = local;
                node.core.handle_datagram(local, datagram);
            }
            Input::Packet(mut packet) => {
                self.fingerprint.add(&packet);
                packet.meta.arrival = local;
                node.core.handle_packet(local, &packet);
            }
            Input::Timeout => node.core.handle_timeout(local),
            Input::Done(done) => node.core.handle_done(local, done),
            Input::Tuning(tuning) => node.core.handle_tuning(local, &tuning),
        }
        self.drain(id);
    }

    fn drain(&mut self, id: NodeId) {
        let mut transmits = 0;
        while let Some(transmit) = self.nodes[id.0].core.poll_transmit() {
            transmits += 1;
            assert!(transmits < AT_ONCE_MAX, "node {} never stops sending", id.0);
            self.transmit(id, &transmit);
        }
        while let Some(work) = self.nodes[id.0].core.poll_work() {
            self.enqueue(self.now + self.work_takes, id, Input::Done(work.run()));
        }
        let node = &mut self.nodes[id.0];
        while let Some(packet) = node.core.poll_packet() {
            if node.inbox.len() < INBOX_MAX {
                node.inbox.push_back(Delivery { at: self.now, packet });
            } else {
                self.stats.inbox_full += 1;
            }
        }
        while let Some(event) = node.core.poll_event() {
            if node.events.len() < INBOX_MAX {
                node.events.push_back((self.now, event));
            } else {
                self.stats.inbox_full += 1;
            }
        }
    }

    fn transmit(&mut self, from: NodeId, transmit: &Transmit) {
        let sender = &self.nodes[from.0];
        let port = transmit.port as usize;
        let to = transmit.to.or(sender.peers[port]).and_then(|to| self.by_address.get(&to).copied());
        // A protocol with one port has its reports leave by that.
        let address = sender.addresses[port].or(sender.addresses[Port::Media as usize]);
        let (Some(peer), Some((to, port))) = (address, to) else {
            self.stats.unroutable += 1;
            return;
        };
        let now = self.now;
        let arrivals = self.link_mut(from, to).carry(now, transmit.len());
        if arrivals.is_empty() {
            return;
        }
        let Some(packet) = self.copy(transmit) else {
            self.stats.no_buffer += 1;
            return;
        };
        for at in arrivals {
            self.enqueue(at, to, Input::Datagram(Datagram { port, peer, packet: packet.clone() }));
        }
    }

    /// Header and payload as the one run of bytes that the other side sees, without the sender's metadata.
    fn copy(&self, transmit: &Transmit) -> Option<Packet> {
        let (header, len) = (transmit.header.len(), transmit.len());
        let mut buffer = self.pool.take(len)?;
        buffer[..header].copy_from_slice(&transmit.header);
        if let Some(payload) = &transmit.payload {
            buffer[header..len].copy_from_slice(payload);
        }
        Some(Packet::new(buffer, 0..len, Meta::default()))
    }

    fn enqueue(&mut self, at: Time, node: NodeId, input: Input) {
        if self.queue.len() == QUEUE_MAX {
            self.stats.queue_full += 1;
            return;
        }
        self.queue.insert((at, self.queued), (node, input));
        self.queued += 1;
    }

    /// Each link has chance of its own, so that traffic elsewhere does not change it.
    fn link_mut(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        let seed = self.seed;
        self.links.entry((from, to)).or_insert_with(|| {
            let mut hash = Fnv::default();
            [seed, from.0 as u64, to.0 as u64].iter().for_each(|part| hash.add(&part.to_le_bytes()));
            Link::new(link::Config::default(), hash.0)
        })
    }
}

/// What a node is given.
#[derive(Debug)]
enum Input {
    Datagram(Datagram),
    Packet(Packet),
    Timeout,
    Done(Done),
    Tuning(Tuning),
}

impl Input {
    const fn kind(&self) -> u8 {
        match self {
            Self::Datagram(_) => 0,
            Self::Packet(_) => 1,
            Self::Timeout => 2,
            Self::Done(_) => 3,
            Self::Tuning(_) => 4,
        }
    }
}

/// FNV-1a, 64 bits: simple, and the same on every machine and release.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Number of [`Port`]s.
const PORTS: usize = Port::ALL.len();

/// How long work takes that is done elsewhere, if nothing else is said.
const WORK_TAKES: Duration = Duration::from_millis(1);

/// Happenings that may be under way. Judgement: two seconds of 300 Mb/s; a pool has four times the buffers.
const QUEUE_MAX: usize = 65_536;

/// Packets and events that may wait to be taken. Judgement: as above.
const INBOX_MAX: usize = 65_536;

/// Happenings at one moment, and datagrams from one call. Judgement: far above what the queue holds means an endless
/// loop in a core.
const AT_ONCE_MAX: u32 = 1_000_000;

#[cfg(test)]
#[allow(clippy::print_stdout, reason = "a failing test shows its seed")]
mod tests {
    use super::*;
    use crate::proto::udp;
    use crate::sim::loss::Model;
    use crate::sim::traffic::{Check, Numbered, Report};

    #[test]
    fn a_udp_receiver_gets_exactly_what_the_link_did_not_lose() {
        for seed in 0..20 {
            println!("seed {seed}");
            let loss = Model::bursts(0.05, 3.0);
            let run = run(seed, link::Config { loss, delay: Duration::from_millis(20), ..link::Config::default() });
            assert!(run.link.lost > 0);
            assert_eq!(run.report.received, run.link.sent - run.link.lost);
            let expected = Report { received: 1_000 - run.link.lost, lost: run.link.lost, ..Report::default() };
            assert_eq!(run.report, expected);
        }
    }

    #[test]
    fn duplicates_and_late_datagrams_arrive_as_such() {
        let config = link::Config {
            duplicated: 0.1,
            held_back: 0.1,
            held_back_by: Duration::from_millis(10),
            ..link::Config::default()
        };
        let run = run(3, config);
        assert_eq!(run.report.received, 1_000);
        assert_eq!(run.report.duplicated, run.link.duplicated);
        assert!(run.report.reordered > 50, "{:?}", run.report);
    }

    #[test]
    fn the_same_seed_gives_the_same_run_and_another_seed_another() {
        let config = link::Config {
            loss: Model::Random { share: 0.1 },
            jitter: Duration::from_millis(7),
            order: link::Order::Free,
            duplicated: 0.02,
            ..link::Config::default()
        };
        let runs = [run(1, config), run(1, config), run(2, config)];
        assert_eq!(runs[0].fingerprint, runs[1].fingerprint);
        assert_eq!(runs[0].report, runs[1].report);
        assert_ne!(runs[0].fingerprint, runs[2].fingerprint);
    }

    #[test]
    fn traffic_on_one_link_does_not_change_the_luck_of_another() {
        let lossy = link::Config { loss: Model::Random { share: 0.3 }, ..link::Config::default() };
        let lost = |with_traffic_elsewhere: bool| {
            let (mut network, sender, receiver) = pair(5, lossy);
            let other = network.add(sender_node(3, 2));
            network.link(other, receiver, lossy);
            send_all(&mut network, sender, 100);
            if with_traffic_elsewhere {
                send_all(&mut network, other, 100);
            }
            network.run_until(ms(1_000));
            network.link_stats(sender, receiver)
        };
        assert_eq!(lost(false), lost(true));
    }

    #[test]
    fn cores_see_their_own_time() {
        let mut network = Network::new(0);
        let fast = Clock { offset: Duration::from_secs(100), skew_ppm: 200 };
        let sender = network.add(sender_node(1, 2));
        let receiver = network.add(receiver_node(2).with_clock(fast));
        send_all(&mut network, sender, 1);
        network.run_until(ms(10));
        let packet = network.pool().copy(b"later", Meta::default()).unwrap();
        network.send(Time::from_ns(10_000_000_000), sender, packet);
        network.run_until(ms(20_000));
        let deliveries = network.take_packets(receiver);
        assert_eq!(deliveries[0].packet.meta.arrival, Time::ZERO + Duration::from_secs(100));
        assert_eq!(deliveries[1].at, ms(10_000));
        assert_eq!(deliveries[1].packet.meta.arrival, ms(110_000) + Duration::from_millis(2));
    }

    #[test]
    fn timers_go_off_when_the_nodes_own_clock_says_so() {
        for clock in [
            Clock::default(),
            Clock { offset: Duration::from_secs(7), skew_ppm: -333 },
            Clock { offset: Duration::ZERO, skew_ppm: 100_000 },
        ] {
            let mut network = Network::new(0);
            let period = Duration::from_nanos(33_333_333);
            let ticker = Ticker { period, due: clock.local(Time::ZERO), ticks: 0, queued: 0 };
            let node = Node::new(ticker).bind(Port::Media, address(1)).connect(Port::Media, address(2));
            network.add(node.with_clock(clock));
            let receiver = network.add(receiver_node(2));
            network.run_until(ms(1_000));
            let ticks = network.take_packets(receiver);
            let elapsed = clock.local(ms(1_000)).since(clock.local(Time::ZERO));
            assert_eq!(ticks.len() as u128, elapsed.as_nanos() / period.as_nanos() + 1, "{clock:?}");
            for (index, tick) in ticks.iter().enumerate() {
                let due = clock.local(Time::ZERO) + period * index as u32;
                assert!(clock.local(tick.at) >= due, "never early");
                assert!(tick.at == Time::ZERO || clock.local(tick.at - Duration::from_nanos(1)) < due, "never late");
            }
        }
    }

    #[test]
    fn a_clock_never_shows_less_than_when_says() {
        for skew_ppm in [-900_000, -40, 0, 1, 77, 999_999] {
            let clock = Clock { offset: Duration::from_nanos(12_345), skew_ppm };
            for ns in [0, 1, 12_345, 12_346, 1_000_003, 86_400_000_000_007] {
                let local = Time::from_ns(ns);
                assert!(clock.local(clock.when(local)) >= local, "{skew_ppm} ppm, {ns} ns");
            }
        }
    }

    #[test]
    fn what_nobody_can_receive_is_counted() {
        let mut network = Network::new(0);
        let sender = network.add(sender_node(1, 99));
        send_all(&mut network, sender, 3);
        network.run_until(ms(10));
        assert_eq!(network.stats(), Stats { unroutable: 3, ..Stats::default() });
    }

    #[test]
    #[should_panic(expected = "time stands still")]
    fn a_core_that_wants_timeouts_without_end_is_found() {
        let mut network = Network::new(0);
        network.add(Node::new(Ticker { period: Duration::ZERO, due: Time::ZERO, ticks: 0, queued: 0 }));
        network.run_until(ms(1));
    }

    struct Run {
        report: Report,
        link: link::Stats,
        fingerprint: u64,
    }

    /// A thousand packets from a UDP sender to a UDP receiver, one every millisecond.
    fn run(seed: u64, config: link::Config) -> Run {
        let (mut network, sender, receiver) = pair(seed, config);
        let made = send_all(&mut network, sender, 1_000);
        network.run_until(ms(2_000));
        let mut check = Check::default();
        network.take_packets(receiver).iter().for_each(|delivery| check.handle(&delivery.packet));
        assert_eq!(network.stats(), Stats::default());
        let link = network.link_stats(sender, receiver);
        assert_eq!(network.core(receiver).stats().received, link.delivered);
        Run { report: check.report(made), link, fingerprint: network.fingerprint() }
    }

    fn pair(seed: u64, config: link::Config) -> (Network, NodeId, NodeId) {
        let mut network = Network::new(seed);
        let sender = network.add(sender_node(1, 2));
        let receiver = network.add(receiver_node(2));
        network.link(sender, receiver, config);
        (network, sender, receiver)
    }

    fn send_all(network: &mut Network, sender: NodeId, count: u64) -> u64 {
        let mut numbered = Numbered::new(1_316);
        for at in 0..count {
            let packet = numbered.packet(network.pool(), ms(at)).unwrap();
            network.send(ms(at), sender, packet);
        }
        numbered.made()
    }

    fn sender_node(host: u8, peer: u8) -> Node {
        Node::new(udp::Sender::new(None)).bind(Port::Media, address(host)).connect(Port::Media, address(peer))
    }

    fn receiver_node(host: u8) -> Node {
        Node::new(udp::Receiver::default()).bind(Port::Media, address(host))
    }

    fn address(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 5_000).into()
    }

    fn ms(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }

    /// Sends one byte every period.
    struct Ticker {
        period: Duration,
        due: Time,
        ticks: u8,
        queued: u8,
    }

    impl Core for Ticker {
        fn handle_datagram(&mut self, _now: Time, _datagram: Datagram) {}

        fn handle_packet(&mut self, _now: Time, _packet: &Packet) {}

        fn handle_timeout(&mut self, now: Time) {
            if now >= self.due {
                self.due += self.period;
                self.ticks = self.ticks.wrapping_add(1);
                self.queued += 1;
            }
        }

        fn poll_transmit(&mut self) -> Option<Transmit> {
            self.queued = self.queued.checked_sub(1)?;
            let header = [self.ticks].into_iter().collect();
            Some(Transmit { port: Port::Media, to: None, header, payload: None })
        }

        fn poll_packet(&mut self) -> Option<Packet> {
            None
        }

        fn poll_event(&mut self) -> Option<Event> {
            None
        }

        fn poll_timeout(&self) -> Option<Time> {
            Some(self.due)
        }

        fn stats(&self) -> crate::proto::Stats {
            crate::proto::Stats::default()
        }
    }
}
