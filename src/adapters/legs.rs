//! An RTP output whose datagrams go over several legs alike (SMPTE ST 2022-7).
//!
//! One sender makes each datagram once. Every leg has sockets, counters and a bounded queue of its own, so that the others
//! go on when it cannot be sent on; the sender itself never waits.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::counters::Counters;
use super::driven::{Driven, DriverEvent, SendFailure, Tuning};
use super::driver::{Driver, OWN_SOCKETS};
use super::rtp::open_sockets;
use super::socket::{Granted, Interface, OpenError, SocketOptions};
use super::worker::{Context, Ready, SocketKey};
use crate::bus::{LocalCursor, Packet, Pool, Publisher};
use crate::path::Limiter;
use crate::path::limit::Verdict;
use crate::proto::rtp::{Leg, Sender, SenderConfig};
use crate::proto::{Core, Done, Port, Transmit};
use crate::units::Time;

/// Most legs of an output, the first one included.
pub const LEGS_MAX: usize = 8;

/// Where one leg leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegConfig {
    /// Unicast or multicast.
    pub address: SocketAddr,
    /// The way out; `None` leaves it to the system's routes.
    pub interface: Option<Interface>,
}

/// A leg as others see it while it exists.
#[derive(Clone, Debug)]
pub struct LegView {
    /// Where it leads.
    pub config: LegConfig,
    /// What it counts.
    pub counters: Arc<Counters>,
}

/// Why a leg does not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LegError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is sent is refused.
    #[error(transparent)]
    Send(#[from] SendFailure),
}

impl fmt::Display for LegConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            None => write!(f, "{}", self.address),
            Some(interface) => write!(f, "{}@{interface}", self.address),
        }
    }
}

/// The driver of such an output.
#[derive(Debug)]
pub(super) struct Legs {
    sender: Sender,
    limiter: Option<Limiter>,
    /// Of every leg, but for the interface.
    socket: SocketOptions,
    has_fec: bool,
    /// In configured order.
    legs: Vec<RunningLeg>,
    first: SocketKey,
    /// What the sender made in one pass, kept for its memory.
    made: Vec<Transmit>,
    /// When the protocol's own figures are looked at next.
    details_due: Time,
    events: ArrayVec<DriverEvent, EVENTS_MAX>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct RunningLeg {
    config: LegConfig,
    /// Which of the output's sockets are its.
    place: u16,
    /// `None` while it cannot be opened.
    driver: Option<Driver<Leg>>,
    counters: Arc<Counters>,
    attempts: u32,
    /// When it is opened again.
    retry_at: Option<Time>,
}

impl Legs {
    /// Opens all of `legs`, or, unless it must be `every` one, those that can be; `now` is when others are tried again.
    ///
    /// # Errors
    /// What the system refused of the first leg that was needed.
    pub(super) fn open(
        (config, pool): (&SenderConfig, &Pool),
        (socket, limiter): (&SocketOptions, Option<Limiter>),
        legs: Vec<LegConfig>,
        (every, now): (bool, Time),
    ) -> Result<Self, OpenError> {
        let sender = Sender::new(config.clone(), &super::rtp::surroundings(pool));
        let mut opened = Self {
            sender,
            limiter,
            socket: socket.clone(),
            has_fec: config.fec.is_some(),
            legs: Vec::with_capacity(LEGS_MAX),
            first: SocketKey(0),
            made: Vec::new(),
            details_due: Time::ZERO,
            events: ArrayVec::new(),
            counters: Arc::default(),
        };
        let mut first_error = None;
        for (place, config) in (0..).zip(legs) {
            let mut leg = RunningLeg::closed(config, place);
            let error = match opened.open_leg(&leg.config) {
                Ok(driver) => {
                    leg.counters = Arc::clone(driver.counters());
                    leg.driver = Some(driver);
                    None
                }
                Err(error) if every => return Err(error),
                Err(error) => Some(error),
            };
            opened.legs.push(leg);
            if let Some(error) = error {
                first_error.get_or_insert_with(|| error.clone());
                opened.note_unopened(opened.legs.len() - 1, now, error);
            }
        }
        match first_error {
            Some(error) if opened.legs.iter().all(|leg| leg.driver.is_none()) => Err(error),
            _ => Ok(opened),
        }
    }

    fn open_leg(&self, config: &LegConfig) -> Result<Driver<Leg>, OpenError> {
        let (media, control, fec) = open_sockets(config, &self.socket, self.has_fec)?;
        let driver = Driver::output(Leg::new(&self.sender), media, Some(control), None);
        Ok(match fec {
            Some([columns, rows]) => driver.with_fec(columns, rows),
            None => driver,
        })
    }

    fn key(&self, place: u16) -> SocketKey {
        SocketKey(self.first.0 + place * OWN_SOCKETS)
    }

    /// A leg could not be opened; it is tried again.
    fn note_unopened(&mut self, at: usize, now: Time, error: OpenError) {
        let Some(leg) = self.legs.get_mut(at) else { return };
        leg.schedule(now);
        if leg.counters.failing.value() == 0 {
            leg.counters.failing.set(1);
            leg.counters.disconnections.add(1);
            let event = DriverEvent::LegFailed { leg: leg.config.clone(), why: error.into() };
            note(event, &mut self.events, &self.counters);
        }
    }

    /// Opens again what is due.
    fn reopen(&mut self, cx: &mut Context<'_>) {
        for at in 0..self.legs.len() {
            let Some(leg) = self.legs.get_mut(at).filter(|leg| leg.retry_at.is_some_and(|due| due <= cx.now)) else {
                continue;
            };
            leg.retry_at = None;
            if leg.counters.failing.value() > 0 {
                self.place(cx, at);
            }
        }
    }

    /// Opens a leg and puts it on the worker, in place of its old sockets.
    fn place(&mut self, cx: &mut Context<'_>, at: usize) {
        let Some(config) = self.legs.get(at).map(|leg| leg.config.clone()) else { return };
        let opened = self.open_leg(&config);
        let Some(leg) = self.legs.get_mut(at) else { return };
        let started = opened.and_then(|mut driver| {
            // The old sockets must be gone before the new ones have their keys.
            leg.driver = None;
            driver.adopt(Arc::clone(&leg.counters));
            let key = SocketKey(self.first.0 + leg.place * OWN_SOCKETS);
            driver.start(cx, key).map_err(|error| refused(&config, &error)).map(|()| leg.driver = Some(driver))
        });
        match started {
            // Whether it helped, the driver tells; until then the next attempt is due.
            Ok(()) if leg.counters.failing.value() > 0 => leg.schedule(cx.now),
            Ok(()) => {}
            Err(error) => self.note_unopened(at, cx.now, error),
        }
    }

    /// Hands what the sender made to every leg.
    fn hand_on(&mut self, cx: &mut Context<'_>) {
        while let Some(transmit) = self.sender.poll_transmit() {
            self.made.push(transmit);
        }
        for leg in &mut self.legs {
            match &mut leg.driver {
                Some(driver) => driver.feed(cx, |core| self.made.iter().for_each(|made| core.push(made.clone()))),
                None => {
                    let media = self.made.iter().filter(|made| made.port == Port::Media).count();
                    leg.counters.unreachable.add(media as u64);
                }
            }
        }
        self.look_at_legs(cx.now);
        if self.counters.failing.value() == 0 {
            let media = self.made.iter().filter(|made| made.port == Port::Media);
            let media = media.filter_map(|made| made.payload.as_ref());
            let (packets, bytes) =
                media.fold((0, 0), |(packets, bytes), packet| (packets + 1, bytes + packet.len() as u64));
            if packets > 0 {
                self.counters.packets.add(packets);
                self.counters.bytes.add(bytes);
                self.counters.rate.add(cx.now, bytes);
                self.counters.last_packet_ns.set(cx.now.as_ns());
            }
        }
        self.made.clear();
        self.counters.core.set(&self.sender.stats());
        if self.details_due <= cx.now {
            self.details_due = cx.now + DETAILS_APART;
            self.sender.visit_details(&mut |details| self.counters.details.set(details));
        }
    }

    /// Tells which leg fails and which is back, and whether none is left.
    fn look_at_legs(&mut self, now: Time) {
        for leg in &mut self.legs {
            while let Some(event) = leg.driver.as_mut().and_then(Driver::poll_event) {
                let event = match event {
                    DriverEvent::SendFailed(failure) => {
                        if matches!(failure, SendFailure::Unreachable | SendFailure::Other(_)) {
                            leg.schedule(now);
                        }
                        DriverEvent::LegFailed { leg: leg.config.clone(), why: failure.into() }
                    }
                    DriverEvent::SendRecovered => {
                        (leg.attempts, leg.retry_at) = (0, None);
                        DriverEvent::LegRecovered { leg: leg.config.clone() }
                    }
                    DriverEvent::Core(_)
                    | DriverEvent::Abuse
                    | DriverEvent::LegFailed { .. }
                    | DriverEvent::LegRecovered { .. } => continue,
                };
                note(event, &mut self.events, &self.counters);
            }
        }
        let fails = self.legs.iter().all(|leg| leg.counters.failing.value() > 0);
        match (self.counters.failing.value() > 0, fails) {
            (false, true) => {
                self.counters.failing.set(1);
                self.counters.disconnections.add(1);
                note(DriverEvent::SendFailed(SendFailure::EveryLeg), &mut self.events, &self.counters);
            }
            (true, false) => {
                self.counters.failing.set(0);
                note(DriverEvent::SendRecovered, &mut self.events, &self.counters);
            }
            (true, true) | (false, false) => {}
        }
    }
}

impl RunningLeg {
    fn closed(config: LegConfig, place: u16) -> Self {
        Self { config, place, driver: None, counters: Arc::default(), attempts: 0, retry_at: None }
    }

    /// Capped exponential backoff with jitter.
    fn schedule(&mut self, now: Time) {
        let wait = RETRY_FIRST.saturating_mul(1 << self.attempts.min(10)).min(RETRY_LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        self.retry_at = Some(now + wait.mul_f64(fastrand::f64().mul_add(0.4, 0.8)));
    }
}

impl Driven for Legs {
    fn start(&mut self, cx: &mut Context<'_>, first: SocketKey) -> io::Result<()> {
        self.first = first;
        self.counters.core.set(&self.sender.stats());
        let keys: ArrayVec<SocketKey, LEGS_MAX> = self.legs.iter().map(|leg| self.key(leg.place)).collect();
        for (leg, key) in self.legs.iter_mut().zip(keys) {
            if let Some(driver) = &mut leg.driver {
                driver.start(cx, key)?;
            }
        }
        Ok(())
    }

    fn handle_ready(&mut self, cx: &mut Context<'_>, socket: SocketKey, ready: Ready, sink: &mut dyn FnMut(Packet)) {
        let place = socket.0.saturating_sub(self.first.0) / OWN_SOCKETS;
        let leg = self.legs.iter_mut().find(|leg| leg.place == place);
        if let Some(driver) = leg.and_then(|leg| leg.driver.as_mut()) {
            driver.handle_ready(cx, socket, ready, sink);
        }
        self.look_at_legs(cx.now);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, _sink: &mut dyn FnMut(Packet)) {
        self.reopen(cx);
        self.sender.handle_timeout(cx.now);
        self.hand_on(cx);
    }

    fn send_from(&mut self, cx: &mut Context<'_>, publisher: &Publisher, cursor: &mut LocalCursor) {
        loop {
            let mut taken = 0;
            while taken < PACKETS_PER_FLUSH
                && let Some(packet) = publisher.read(cursor)
            {
                taken += 1;
                let limiter = self.limiter.as_ref();
                if limiter.is_some_and(|limiter| limiter.check(cx.now, packet.len()) != Verdict::Pass) {
                    self.counters.over_limit.add(1);
                    continue;
                }
                self.sender.handle_packet(cx.now, &packet);
            }
            if taken == 0 {
                break;
            }
            self.hand_on(cx);
        }
        self.counters.count_missed(cursor);
    }

    fn rest(&mut self, _cx: &mut Context<'_>) {}

    fn collect(&mut self, _cx: &mut Context<'_>, _sink: &mut dyn FnMut(Packet)) {}

    fn listen(&mut self, _cx: &mut Context<'_>) {}

    fn handle_done(&mut self, _cx: &mut Context<'_>, _done: Done, _sink: &mut dyn FnMut(Packet)) {}

    fn tune(&mut self, _cx: &mut Context<'_>, _tuning: &Tuning, _sink: &mut dyn FnMut(Packet)) {}

    fn set_legs(&mut self, cx: &mut Context<'_>, first: Option<IpAddr>, wanted: &super::rtp::OutputConfig) {
        let first = first.or_else(|| self.legs.first().map(|leg| leg.config.address.ip()));
        let Some(first) = first else { return };
        let wanted = wanted.all_legs(SocketAddr::new(first, wanted.destination.port));
        let mut old: Vec<RunningLeg> = std::mem::take(&mut self.legs);
        old.retain(|leg| wanted.contains(&leg.config));
        for config in wanted {
            if let Some(at) = old.iter().position(|leg| leg.config == config) {
                self.legs.push(old.swap_remove(at));
                continue;
            }
            let is_free = |place: &u16| self.legs.iter().chain(&old).all(|leg| leg.place != *place);
            let place = (0..LEGS_MAX as u16).find(is_free).unwrap_or_default();
            self.legs.push(RunningLeg::closed(config, place));
            self.place(cx, self.legs.len() - 1);
        }
        self.look_at_legs(cx.now);
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        self.sender.handle_close(cx.now);
        self.hand_on(cx);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let retries = self.legs.iter().filter_map(|leg| leg.retry_at);
        retries.chain(self.sender.poll_timeout()).min()
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn is_blocked(&self) -> bool {
        false
    }

    fn poll_event(&mut self) -> Option<DriverEvent> {
        self.events.pop_at(0)
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn adopt(&mut self, counters: Arc<Counters>) {
        self.counters = counters;
    }

    fn buffers(&self) -> Option<(Granted, Granted)> {
        self.legs.iter().find_map(|leg| leg.driver.as_ref()).and_then(Driver::buffers)
    }

    fn legs(&self) -> Vec<LegView> {
        let view = |leg: &RunningLeg| LegView { config: leg.config.clone(), counters: Arc::clone(&leg.counters) };
        self.legs.iter().map(view).collect()
    }
}

/// Of more than [`EVENTS_MAX`] waiting events the newest are dropped and counted.
fn note(event: DriverEvent, events: &mut ArrayVec<DriverEvent, EVENTS_MAX>, counters: &Counters) {
    if events.try_push(event).is_err() {
        counters.events_dropped.add(1);
    }
}

fn refused(leg: &LegConfig, error: &io::Error) -> OpenError {
    OpenError::System { action: "watch the socket for", address: leg.address.to_string(), problem: error.to_string() }
}

/// Packets taken from the ring before what they became is sent.
const PACKETS_PER_FLUSH: usize = 64;
/// Judgement: often enough for people, and nothing beside the packets.
const DETAILS_APART: Duration = Duration::from_millis(200);
/// As many as all legs at once have to tell, some times over.
const EVENTS_MAX: usize = 32;
/// As for outputs as a whole.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// As for outputs as a whole.
const RETRY_LONGEST: Duration = Duration::from_secs(30);
