//! The side that is called: one socket, many callers, each found by the socket id that it was given (draft 4.3.1).
//!
//! Until a caller has brought back its cookie nothing is kept of it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::access::{AccessControl, names};
use super::agree::{self, Parties, Taken, Verdict, Wishes};
use super::caller::{EVENTS_MAX, handshake_datagram};
use super::config::Config;
use super::connection::Connection;
use super::cookies::Cookies;
use super::crypto::Kek;
use super::entropy::Entropy;
use super::error::{Ended, Rejection};
use super::front::induction;
use super::gate::{Applicant, Gate, Terms};
use super::group::{Group, GroupKind, Links};
use super::handshake::{self, Extensions, Handshake, Stage, extension};
use super::packet::{ControlHeader, ControlKind, HEADER_BYTES, Header};
use super::slow::{self, Watch};
use super::stats::{self, Totals};
use super::waiting::Waiting;
use crate::bus::{Packet, Pool};
use crate::proto::{Core, Datagram, Detail, Done, Event, Refusals, Stats, Transmit, Tuning, Work};
use crate::units::Time;

/// What a listener does with those who call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// One caller at a time delivers packets.
    Receive,
    /// Any number of callers, up to this one, gets the packets.
    Send {
        /// Most callers at a time.
        callers_max: usize,
    },
}

/// A listener as a core.
#[derive(Debug)]
pub struct Listener {
    config: Config,
    service: Service,
    gate: Gate,
    pool: Pool,
    entropy: Entropy,
    cookies: Cookies,
    callers: BTreeMap<u32, Caller>,
    /// By address and the caller's own socket id, for handshakes that come again.
    known: BTreeMap<(SocketAddr, u32), u32>,
    /// By the callers' own ids of them. Those that only send live as long as they have members; one that is received from
    /// stays until another stream comes, as its members may all come back, and go by its clock.
    groups: BTreeMap<u32, Group>,
    /// Callers that may have something to send or to deliver; each once.
    ready: Vec<u32>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    refusals: Refusals,
    /// Looks for callers who cannot keep up.
    watch: Watch,
    totals: Totals,
    /// Conclusions that wait for what their keys are wrapped with.
    waiting: Waiting,
    work: VecDeque<Work>,
    /// When it was last fed: what the polls of groups go by.
    now: Time,
}

#[derive(Debug)]
struct Caller {
    connection: Connection,
    /// Which group it is a member of.
    group: Option<u32>,
    /// The answer to its conclusion, should that come again.
    answer: Vec<u8>,
    is_ready: bool,
    slow: slow::Record,
}

/// What came of looking at a caller's wishes.
struct Admitted {
    verdict: Verdict,
    group: Option<handshake::Group>,
    terms: Terms,
    /// Ours on these terms.
    config: Config,
}

impl Listener {
    /// Waits for callers. `secret` must be unpredictable.
    #[must_use]
    pub fn new(config: Config, service: Service, pool: Pool, secret: [u8; 32]) -> Self {
        let mut entropy = Entropy::new(secret);
        Self {
            watch: Watch::new(config.slow_timeout),
            config,
            service,
            gate: Gate::default(),
            pool,
            cookies: Cookies::new(entropy.secret()),
            entropy,
            callers: BTreeMap::new(),
            known: BTreeMap::new(),
            groups: BTreeMap::new(),
            ready: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            refusals: Refusals::new(Refusals::CALLERS_APART),
            totals: Totals::default(),
            waiting: Waiting::default(),
            work: VecDeque::new(),
            now: Time::ZERO,
        }
    }

    /// The same behind a [`Front`](super::Front) with this secret, which sends callers on.
    #[must_use]
    pub fn behind(mut self, front: [u8; 32]) -> Self {
        self.cookies = Cookies::new(front);
        self
    }

    /// The same with a gate: `decide` says who comes in, and on which terms.
    ///
    /// It is asked about every caller who has brought back his cookie, speaks as we do, and names the configuration's
    /// stream id if there is one; before keys are derived, and before anybody makes room for him. As a caller repeats
    /// himself until he is answered, it is asked again only if its refusal got lost or too many waited for their keys;
    /// but whoever was not let in may call again, and each member of a group calls. Whoever it lets in may still have
    /// the wrong passphrase, or find no room.
    ///
    /// It runs wherever the listener does, between packets: it must be quick, and neither wait for anything nor panic.
    #[must_use]
    pub fn with_gate(
        mut self,
        decide: impl FnMut(&Applicant<'_>) -> Result<Terms, Rejection> + Send + 'static,
    ) -> Self {
        self.gate = Gate::new(decide);
        self
    }

    fn handle_handshake(&mut self, now: Time, header: &ControlHeader, datagram: &Datagram) {
        let Ok((handshake, extensions)) = Handshake::parse(&datagram.packet[HEADER_BYTES..]) else {
            self.totals.malformed += 1;
            return;
        };
        match handshake.stage {
            Stage::Induction => self.answer_induction(now, datagram.peer, &handshake),
            Stage::Conclusion => self.handle_conclusion(now, header, datagram, (&handshake, extensions), None),
            Stage::WaveAHand | Stage::Agreement | Stage::Rejected(_) | Stage::Unknown(_) => {
                self.totals.unexpected += 1;
            }
        }
    }

    fn answer_induction(&mut self, now: Time, peer: SocketAddr, asked: &Handshake) {
        let answer = induction(&self.config, &self.cookies, now, peer, asked);
        let mut body = Vec::new();
        answer.write(&mut body);
        self.answer(now, peer, asked.socket_id, &body);
    }

    fn handle_conclusion(
        &mut self,
        now: Time,
        header: &ControlHeader,
        datagram: &Datagram,
        (asked, extensions): (&Handshake, Extensions<'_>),
        derived: Option<(Kek, Terms)>,
    ) {
        let peer = datagram.peer;
        if let Some(caller) = self.known.get(&(peer, asked.socket_id)).and_then(|id| self.callers.get(id)) {
            let answer = caller.answer.clone();
            return self.answer(now, peer, asked.socket_id, &answer);
        }
        let is_again = derived.is_none() && self.waiting.holds(now, asked.socket_id, peer);
        if is_again || !self.cookies.knows(now, peer, asked.cookie) {
            self.totals.unexpected += 1;
            return;
        }
        match self.judge(now, peer, asked, extensions, derived) {
            Ok(Admitted { verdict: Verdict::Take(taken), group, config, .. }) => {
                let base = (datagram.packet.meta.arrival, header.timestamp);
                self.accept(now, base, peer, asked, &config, (*taken, group));
            }
            Ok(Admitted { verdict: Verdict::Needs(derivation), terms, .. }) => {
                if let Some(id) = self.waiting.add(now, asked.socket_id, datagram, terms) {
                    self.work.push_back(Work::new(id, move || derivation.run()));
                } else {
                    self.totals.unexpected += 1;
                }
            }
            Err(rejection) => {
                let mut body = Vec::new();
                Handshake { version: 5, stage: Stage::Rejected(rejection), ..asked.clone() }.write(&mut body);
                self.answer(now, peer, asked.socket_id, &body);
                let why = Ended::Refusing(rejection).into();
                if let Some(count) = self.refusals.tell(now, why) {
                    self.note(Event::PeerRefused { peer, why, count });
                }
            }
        }
    }

    /// Whether a caller may come in, and how; `derived` is what came of it before, if his keys needed something.
    fn judge(
        &mut self,
        now: Time,
        peer: SocketAddr,
        asked: &Handshake,
        extensions: Extensions<'_>,
        derived: Option<(Kek, Terms)>,
    ) -> Result<Admitted, Rejection> {
        if asked.version < 5 || asked.extension & extension::HANDSHAKE == 0 {
            return Err(Rejection::VERSION);
        }
        let wishes = Wishes::of(extensions)?;
        let request = wishes.check()?;
        if !self.config.stream_id.is_empty() && !names(&wishes.stream_id, &self.config.stream_id) {
            return Err(Rejection::NOT_FOUND);
        }
        let (kek, terms) = match derived {
            Some((kek, terms)) => (Some(kek), terms),
            // Before anybody has to make room for him.
            None => (None, self.gate.ask(&applicant(peer, &wishes, request.version))?),
        };
        if let Some(group) = &wishes.group {
            self.judge_member(now, group)?;
        }
        match self.service {
            Service::Send { callers_max } if self.callers.len() >= callers_max => return Err(Rejection::RESOURCE),
            Service::Send { .. } => {}
            Service::Receive => {
                // A sender that lost its line comes back sooner than we can be sure that it was lost.
                let group = wishes.group.map(|group| group.id);
                self.remove_silent(now, |caller| caller.group.is_none() || caller.group != group);
                if self.callers.values().any(|caller| caller.group.is_none() || caller.group != group) {
                    return Err(Rejection::CONFLICT);
                }
            }
        }
        let config = terms.apply(&self.config);
        // Last, as it is what costs.
        Ok(Admitted { verdict: agree::take(&config, &wishes, kek)?, group: wishes.group, terms, config })
    }

    /// Whether its group takes one more.
    fn judge_member(&mut self, now: Time, asked: &handshake::Group) -> Result<(), Rejection> {
        if !self.config.groups {
            return Err(Rejection::GROUP);
        }
        let Some(group) = self.groups.get(&asked.id) else { return Ok(()) };
        if group.kind().number() != asked.kind {
            return Err(Rejection::GROUP);
        }
        if group.is_full() {
            // One of them may be this one, which has not been missed yet.
            self.remove_silent(now, |caller| caller.group == Some(asked.id));
        }
        let is_full = self.groups.get(&asked.id).is_some_and(Group::is_full);
        if is_full { Err(Rejection::RESOURCE) } else { Ok(()) }
    }

    fn remove_silent(&mut self, now: Time, of: impl Fn(&Caller) -> bool) {
        let is_silent = |caller: &Caller| now.since(caller.connection.last_heard()) > TAKEOVER_SILENCE;
        let silent = self.callers.iter().filter(|(_, caller)| of(caller) && is_silent(caller));
        let silent: Vec<u32> = silent.map(|(id, _)| *id).collect();
        silent.into_iter().for_each(|id| self.remove(id, Ended::Silent));
    }

    fn accept(
        &mut self,
        now: Time,
        base: (Time, u32),
        peer: SocketAddr,
        asked: &Handshake,
        config: &Config,
        (mut taken, asked_group): (Taken, Option<handshake::Group>),
    ) {
        let mut id = self.entropy.socket_id();
        while self.callers.contains_key(&id) {
            id = self.entropy.socket_id();
        }
        let key = asked_group.map(|group| group.id);
        let epoch = key.and_then(|key| self.groups.get(&key)).map_or(now, Group::epoch);
        let parties = Parties { local_id: id, peer, epoch, initial: asked.initial, base };
        let settled = agree::answered(config, parties, asked, &taken);
        let answer = Handshake {
            mtu: asked.mtu.min(u32::from(config.mtu)),
            flow_window: config.flow_window,
            socket_id: id,
            peer_ip: peer.ip(),
            ..asked.clone()
        };
        if self.service == Service::Receive {
            self.keep_groups(|id, _| Some(id) == key);
        }
        let crypto = (taken.crypto.take(), self.entropy.child());
        let mut connection = Connection::new(now, settled, config, self.pool.clone(), crypto);
        let group = asked_group.map(|asked| self.join(now, id, &asked, &mut connection));
        let mut body = Vec::new();
        agree::write_response(answer, config, &taken, group, &mut body);
        self.known.insert((peer, asked.socket_id), id);
        self.callers.insert(
            id,
            Caller { connection, group: key, answer: body.clone(), is_ready: false, slow: slow::Record::default() },
        );
        // Unless it joins others its timestamp is the beginning of our clock.
        self.answer(now, peer, asked.socket_id, &body);
        self.note(Event::PeerConnected { peer });
    }

    /// Takes a connection into its group, and says what the caller shall be told of that.
    fn join(&mut self, now: Time, id: u32, asked: &handshake::Group, connection: &mut Connection) -> handshake::Group {
        // Judged before.
        let kind = GroupKind::of(asked.kind).unwrap_or(GroupKind::Broadcast);
        let Self { groups, entropy, config, .. } = self;
        let group = groups
            .entry(asked.id)
            .or_insert_with(|| Group::new(now, (kind, entropy.group_id(), asked.id), connection.settled(), config));
        group.join(id, asked.weight, connection);
        group.extension(asked.weight)
    }

    /// Forgets all other groups.
    fn keep_groups(&mut self, which: impl Fn(u32, &Group) -> bool) {
        let Self { groups, totals, .. } = self;
        groups.retain(|id, group| {
            let stays = which(*id, group);
            if !stays {
                totals.add_group(group);
            }
            stays
        });
    }

    fn answer(&mut self, now: Time, peer: SocketAddr, destination: u32, body: &[u8]) {
        if self.transmits.len() < ANSWERS_MAX {
            let epoch = self.known.get(&(peer, destination)).and_then(|id| self.callers.get(id));
            let epoch = epoch.map_or(now, |caller| caller.connection.settled().epoch);
            self.transmits.extend(handshake_datagram(&self.pool, peer, (epoch, now), destination, body));
        }
    }

    fn remove(&mut self, id: u32, why: Ended) {
        let Some(caller) = self.callers.remove(&id) else { return };
        let peer = caller.connection.settled().peer;
        self.known.remove(&(peer, caller.connection.settled().peer_id));
        self.totals.add(&caller.connection);
        if let Some(group) = caller.group.and_then(|key| self.groups.get_mut(&key)) {
            group.leave(id, &mut self.callers);
            if self.service != Service::Receive {
                self.keep_groups(|_, group| !group.is_empty());
            }
        }
        self.note(Event::PeerLost { peer, why: why.into() });
    }

    /// Sends away whoever cannot keep up.
    fn dismiss_slow(&mut self, now: Time, passed: Duration) {
        let Self { callers, watch, .. } = self;
        let is_slow = |caller: &mut Caller| {
            let (dropped, heard) = (caller.connection.dropped(), caller.connection.last_heard());
            watch.is_slow(passed, dropped, now.since(heard), &mut caller.slow)
        };
        let slow: Vec<u32> = callers.iter_mut().filter_map(|(id, caller)| is_slow(caller).then_some(*id)).collect();
        for id in slow {
            let farewell = self.callers.get_mut(&id).and_then(|caller| caller.connection.farewell(now));
            if self.transmits.len() < ANSWERS_MAX {
                self.transmits.extend(farewell);
            }
            self.remove(id, Ended::Slow);
        }
    }

    fn note(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    /// Runs `run` on a caller, and notes that it may have something.
    fn with(&mut self, id: u32, run: impl FnOnce(&mut Connection)) -> bool {
        let Some(caller) = self.callers.get_mut(&id) else { return false };
        run(&mut caller.connection);
        if !caller.is_ready {
            caller.is_ready = true;
            self.ready.push(id);
        }
        if let Some(why) = caller.connection.ended() {
            self.remove(id, why);
        }
        true
    }
}

fn applicant<'a>(peer: SocketAddr, wishes: &'a Wishes, version: u32) -> Applicant<'a> {
    let stream_id = wishes.stream_id.as_str();
    let access = AccessControl::parse(stream_id);
    Applicant { peer, stream_id, access, version, is_encrypted: wishes.key_request.is_some() }
}

impl Links for BTreeMap<u32, Caller> {
    fn link(&mut self, id: u32) -> Option<&mut Connection> {
        Some(&mut self.get_mut(&id)?.connection)
    }
}

impl Core for Listener {
    fn handle_datagram(&mut self, now: Time, datagram: Datagram) {
        self.now = now;
        let Ok(header) = Header::parse(&datagram.packet) else {
            self.totals.malformed += 1;
            return;
        };
        let id = header.destination();
        if let Some(caller) = self.callers.get(&id) {
            // An id is no secret: only its owner may use it.
            if caller.connection.settled().peer != datagram.peer {
                self.totals.unexpected += 1;
            } else if let Some(group) = caller.group.and_then(|key| self.groups.get_mut(&key)) {
                group.handle(now, id, (&header, datagram.packet), &mut self.callers);
                self.with(id, |_| ());
            } else {
                self.with(id, |connection| connection.handle(now, &header, datagram.packet));
            }
            return;
        }
        match header {
            Header::Control(header) if header.kind == ControlKind::Handshake => {
                self.handle_handshake(now, &header, &datagram);
            }
            Header::Control(_) | Header::Data(_) => self.totals.unexpected += 1,
        }
    }

    fn handle_packet(&mut self, now: Time, packet: &Packet) {
        self.now = now;
        if self.callers.is_empty() {
            self.totals.not_connected += 1;
        }
        if let Some(passed) = self.watch.due(now) {
            self.dismiss_slow(now, passed);
        }
        self.groups.values_mut().for_each(|group| group.send(now, packet, &mut self.callers));
        for (id, caller) in &mut self.callers {
            if caller.group.is_none() {
                caller.connection.send(now, packet);
            }
            if !caller.is_ready {
                caller.is_ready = true;
                self.ready.push(*id);
            }
        }
    }

    fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        let is_due = |caller: &Caller| caller.connection.poll_timeout() <= now;
        let mut from = 0;
        // One after the other: a list of them would take memory for every packet.
        while let Some((&id, _)) = self.callers.range(from..).find(|(_, caller)| is_due(caller)) {
            self.with(id, |connection| connection.handle_timeout(now));
            from = id + 1;
        }
    }

    fn handle_tuning(&mut self, now: Time, tuning: &Tuning) {
        let Tuning::Srt(tuning) = tuning;
        self.now = now;
        self.config.tune(tuning);
        let ids: Vec<u32> = self.callers.keys().copied().collect();
        for id in ids {
            self.with(id, |connection| connection.tune(now, tuning));
        }
    }

    fn handle_close(&mut self, now: Time) {
        let ids: Vec<u32> = self.callers.keys().copied().collect();
        for id in ids {
            self.with(id, |connection| connection.close(now));
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(transmit) = self.transmits.pop_front() {
            return Some(transmit);
        }
        while let Some(id) = self.ready.last() {
            if let Some(caller) = self.callers.get_mut(id) {
                if let Some(transmit) = caller.connection.poll_transmit() {
                    return Some(transmit);
                }
                caller.is_ready = false;
            }
            self.ready.pop();
        }
        None
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        if self.service != Service::Receive {
            return None;
        }
        let Self { groups, callers, now, .. } = self;
        if let Some(packet) = groups.values_mut().find_map(|group| group.poll_packet(*now, callers)) {
            return Some(packet);
        }
        self.callers.values_mut().find_map(|caller| caller.connection.poll_packet())
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_work(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    fn handle_done(&mut self, now: Time, done: Done) {
        let (Some((datagram, terms)), Ok(kek)) = (self.waiting.take(done.id), done.result.downcast::<Kek>()) else {
            return;
        };
        // It was read before.
        if let Ok(Header::Control(header)) = Header::parse(&datagram.packet)
            && let Ok(asked) = Handshake::parse(&datagram.packet[HEADER_BYTES..])
        {
            self.handle_conclusion(now, &header, &datagram, (&asked.0, asked.1), Some((*kek, terms)));
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        let releases = self.groups.values().filter_map(Group::poll_timeout);
        self.callers.values().map(|caller| caller.connection.poll_timeout()).chain(releases).min()
    }

    fn patience(&self) -> Duration {
        self.callers.values().map(|caller| caller.connection.patience()).min().unwrap_or_default()
    }

    fn stats(&self) -> Stats {
        let alone = self.totals.stats(self.callers.values().map(|caller| &caller.connection));
        self.groups.values().fold(alone, |sum, group| stats::sum(sum, &group.stats()))
    }

    fn visit_details(&self, visit: &mut dyn FnMut(&[Detail])) {
        let connections = self.callers.values().map(|caller| &caller.connection);
        match (self.service, self.groups.values().next()) {
            _ if self.callers.is_empty() => {}
            // Nobody else is there beside it.
            (Service::Receive, Some(group)) => visit(&stats::libsrt_of_group(group, connections)),
            (Service::Receive | Service::Send { .. }, _) => visit(&stats::libsrt(connections)),
        }
    }
}

/// Handshakes answered at a time; whoever is not answered asks again.
const ANSWERS_MAX: usize = 1_024;
/// libsrt says something every second: a sender that was silent for longer may be replaced.
pub(super) const TAKEOVER_SILENCE: Duration = Duration::from_millis(1_500);
