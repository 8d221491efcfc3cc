//! An output as one RTMP stream: to a server that we call, or to players who call us.
//!
//! Nobody who is slow holds anything up: what there is no room for is left out up to the next key frame, for that peer
//! alone.

use std::io;
use std::sync::Arc;

use super::calls::Lost;
use super::door::{Handover, Seat, SentAway, Visitor};
use super::leaving::LEAVING_MAX;
use super::line::Line;
use super::lookup::Answer;
use super::{BOTH, Calls, DETAILS_APART, Ends, Events, Farewells, Leaving};
use crate::adapters::counters::Counters;
use crate::adapters::driven::{Admission, Driven, DriverEvent, SendFailure, Tuning};
use crate::adapters::driver::{OWN_SOCKETS, SOCKETS_MAX, Tally};
use crate::adapters::stream_driver::Connection;
use crate::adapters::worker::{Context, Ready, SocketKey};
use crate::bus::{LocalCursor, Packet, Publisher};
use crate::path::limit::Verdict;
use crate::proto::bridge::{Feed, FeedStats, FromTs, Takes};
use crate::proto::rtmp::flv::AccessUnit;
use crate::proto::rtmp::{Client, End, Refusal, Role, Server, ServerMessage};
use crate::proto::{self, Detail, Done, PeerEnd, Refusals, Stats};
use crate::units::Time;

/// Sends one program of the flow.
#[derive(Debug)]
pub(super) struct Output {
    way: Way,
    bridge: FromTs,
    admission: Admission,
    first: SocketKey,
    events: Events,
    ends: Ends,
    leaving: Leaving,
    farewells: Farewells,
    /// Of feeds that are over.
    fed: FeedStats,
    tally: Tally,
    unsent: u64,
    /// A peer for whom more waits goes on with the next key frame; the core has a bound above that.
    waits_bytes_max: usize,
    details_due: Time,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Way {
    Call { calls: Box<Calls>, line: Option<Box<Line>>, coming: Option<Box<Line>> },
    Serve { seat: Seat, players: Box<[Option<Player>]> },
}

#[derive(Debug)]
struct Player {
    connection: Connection<Server>,
    line: Line,
}

impl Output {
    /// Publishes to a server.
    pub(super) fn pushing(calls: Calls, lent: (Admission, Farewells)) -> Self {
        Self::new(Way::Call { calls: Box::new(calls), line: None, coming: None }, lent)
    }

    /// Serves players who come to `seat`.
    pub(super) fn serving(seat: Seat, lent: (Admission, Farewells)) -> Self {
        Self::new(Way::Serve { seat, players: (0..PLAYERS_MAX).map(|_| None).collect() }, lent)
    }

    fn new(way: Way, (admission, farewells): (Admission, Farewells)) -> Self {
        let refusals_apart = match way {
            Way::Call { .. } => Refusals::CALLED_APART,
            Way::Serve { .. } => Refusals::CALLERS_APART,
        };
        Self {
            way,
            bridge: FromTs::new(),
            admission,
            first: SocketKey(0),
            events: Events::new(refusals_apart),
            ends: Ends::default(),
            leaving: Leaving::default(),
            farewells,
            fed: FeedStats::default(),
            tally: Tally::default(),
            unsent: 0,
            waits_bytes_max: usize::MAX,
            details_due: Time::ZERO,
            counters: Arc::default(),
        }
    }

    /// Reads, writes, and does what is due.
    fn run(&mut self, cx: &mut Context<'_>) {
        self.leaving.handle_timeout(cx.now);
        if matches!(self.way, Way::Call { .. }) {
            self.run_server(cx);
        } else {
            (0..PLAYERS_MAX).for_each(|at| self.run_player(cx, at));
        }
        self.count(cx.now);
    }

    fn run_server(&mut self, cx: &mut Context<'_>) {
        let Self { way: Way::Call { calls, line, coming }, bridge, events, counters, ends, .. } = self else { return };
        let heard = calls.run(cx, self.first, |client, said| {
            if said.is_none() {
                *line = Some(introduce(client, bridge));
            }
        });
        if heard.is_ready {
            events.tell_agreed(calls.peer(), counters);
        }
        if let Some(Lost { peer, end, broken, was_ready, has_moved }) = heard.lost {
            line.iter().for_each(|line| add(&mut self.fed, line.feed.stats()));
            *line = coming.take();
            line.iter_mut().for_each(|line| line.feed.forgive_wait());
            if has_moved {
                events.tell(proto::Event::PeerLost { peer, why: ends.count_moved() }, counters);
                if calls.is_ready() {
                    events.tell_agreed(calls.peer(), counters);
                }
                // Its readiness may have been told already.
                cx.call_again(self.first);
                return;
            }
            let why = ends.count(end.as_ref(), broken);
            match was_ready {
                true => {
                    counters.disconnections.add(1);
                    events.tell(proto::Event::PeerLost { peer, why }, counters);
                }
                false => events.tell_refused(cx.now, (peer, why), counters),
            }
            if calls.failures() >= FAILURES_MIN && counters.failing.value() == 0 {
                counters.failing.set(1);
                events.tell_failing(SendFailure::Server(why.reason), counters);
            }
        }
        let old = calls.run_coming(cx, self.first, |client, said| {
            if said.is_none() {
                *coming = Some(introduce(client, bridge));
            }
            // With its first key frame, which is ours to send.
            false
        });
        if calls.coming().is_none() {
            *coming = None;
        }
        if let Some(old) = old {
            self.part_with(old, cx.now);
        }
    }

    /// The other connection that a server asked for is this one from now on.
    fn part_with(&mut self, old: Connection<Client>, now: Time) {
        let Self { way: Way::Call { calls, line, coming }, events, counters, ends, .. } = self else { return };
        line.iter().for_each(|line| add(&mut self.fed, line.feed.stats()));
        *line = coming.take();
        line.iter_mut().for_each(|line| line.feed.forgive_wait());
        events.tell(proto::Event::PeerLost { peer: old.peer(), why: ends.count_moved() }, counters);
        if calls.is_ready() {
            events.tell_agreed(calls.peer(), counters);
        }
        self.leaving.close(old, now);
    }

    fn run_player(&mut self, cx: &mut Context<'_>, at: usize) {
        let Way::Serve { players, .. } = &mut self.way else { return };
        let Some(player) = &mut players[at] else { return };
        let mut end: Option<End> = None;
        let has_more = player.connection.turn(cx.now, cx.ahead, |_, said| {
            if let ServerMessage::Ended(why) = said {
                end = Some(why);
            }
        });
        if has_more {
            cx.call_again(key_of(self.first, at));
        }
        if end.is_some() || player.connection.is_done(cx.now) {
            let (peer, broken) = (player.connection.peer(), player.connection.broken());
            add(&mut self.fed, player.line.feed.stats());
            if let Some(player) = players[at].take() {
                self.leaving.add(player.connection, cx.now);
            }
            let left = self.ends.left;
            let why = self.ends.count(end.as_ref(), broken);
            self.counters.disconnections.add(u64::from(self.ends.left == left));
            self.events.tell(proto::Event::PeerLost { peer, why }, &self.counters);
        }
    }

    /// Lets a player in, or sends him away.
    fn welcome(&mut self, cx: &Context<'_>, mut visitor: Visitor) {
        let seat = match &self.way {
            Way::Serve { seat, .. } => Some(seat),
            Way::Call { .. } => None,
        };
        // Whoever he was for is gone, and another in its place: he is no guest of this one.
        if !seat.is_some_and(|seat| seat.expects(&visitor)) {
            visitor.connection.core.refuse(Refusal::NotFound);
            return self.leaving.add(visitor.connection, cx.now);
        }
        let Way::Serve { players, .. } = &mut self.way else { return };
        let connection = &mut visitor.connection;
        let peer = connection.peer();
        let free = players.iter().position(Option::is_none);
        let refusal = match free {
            _ if !self.admission.allow.allows(peer.ip()) => {
                self.counters.not_allowed.add(1);
                Err("its address is not allowed")
            }
            None => Err("there are too many players"),
            Some(at) => match cx.register(connection.stream(), key_of(self.first, at), BOTH) {
                Ok(()) => Ok(at),
                Err(_) => Err("the system has no room for another connection"),
            },
        };
        match refusal {
            Err(reason) => {
                self.ends.refused += 1;
                connection.core.refuse(Refusal::Denied);
                self.leaving.add(visitor.connection, cx.now);
                let why = PeerEnd { reason, refusal: None };
                self.events.tell_refused(cx.now, (peer, why), &self.counters);
            }
            Ok(at) => {
                connection.core.accept();
                let takes = Takes::new(&visitor.request.capabilities);
                let feed = Feed::new(Role::Player, takes, self.bridge.headers());
                players[at] = Some(Player { connection: visitor.connection, line: Line::new(feed) });
                self.events.tell(proto::Event::PeerConnected { peer }, &self.counters);
            }
        }
    }

    /// One picture or sound to everybody.
    fn pass(&mut self, now: Time, unit: &AccessUnit) {
        let (pictures, bytes_max) = (self.bridge.pictures(), self.waits_bytes_max);
        match &mut self.way {
            Way::Call { calls, line, coming } => {
                if let (Some(connection), Some(line)) = (calls.coming(), coming) {
                    line.hand_over(now, connection, (unit, pictures), bytes_max);
                    // It begins with a key frame, which is no business of the old one any more.
                    if line.feed.stats().sent > 0
                        && let Some(old) = calls.change_over()
                    {
                        return self.part_with(old, now);
                    }
                }
                if let (Some(connection), Some(line)) = (&mut calls.connection, line) {
                    line.hand_over(now, connection, (unit, pictures), bytes_max);
                }
            }
            Way::Serve { players, .. } => {
                for Player { connection, line } in players.iter_mut().flatten() {
                    line.hand_over(now, connection, (unit, pictures), bytes_max);
                }
            }
        }
    }

    fn feeds(&self) -> impl Iterator<Item = &Feed> {
        let (one, many) = match &self.way {
            Way::Call { line, .. } => (line.as_deref(), &[][..]),
            Way::Serve { players, .. } => (None, &players[..]),
        };
        one.into_iter().chain(many.iter().flatten().map(|player| &player.line)).map(|line| &line.feed)
    }

    fn tell_uncarried(&mut self) {
        while let Some(what) = self.bridge.poll_uncarried() {
            self.events.tell(proto::Event::NotCarried(what), &self.counters);
        }
        let (one, many) = match &mut self.way {
            Way::Call { line, .. } => (line.as_deref_mut(), &mut [][..]),
            Way::Serve { players, .. } => (None, &mut players[..]),
        };
        for line in one.into_iter().chain(many.iter_mut().flatten().map(|player| &mut player.line)) {
            while let Some(what) = line.feed.poll_uncarried() {
                self.events.tell(proto::Event::NotCarried(what), &self.counters);
            }
        }
    }

    fn count(&mut self, now: Time) {
        if let Way::Call { calls, .. } = &self.way
            && calls.has_lasted(now)
            && self.counters.failing.value() > 0
        {
            self.counters.failing.set(0);
            self.events.tell_recovered(&self.counters);
        }
        std::mem::take(&mut self.tally).count(&self.counters, now);
        let mut fed = self.fed;
        self.feeds().for_each(|feed| add(&mut fed, feed.stats()));
        let (bridge, demux) = (self.bridge.stats(), self.bridge.demux_counts());
        self.counters.core.set(&Stats {
            malformed: bridge.malformed + demux.bad_header,
            lost: demux.damaged,
            overflow: fed.overflow + fed.before_key,
            not_connected: self.unsent,
            peers: Some(self.feeds().count() as u32),
            ..Stats::default()
        });
        if self.details_due <= now {
            self.details_due = now + DETAILS_APART;
            let bridged = [
                ("unitsSent", fed.sent as f64),
                ("unitsOverflow", fed.overflow as f64),
                ("unitsBeforeKeyFrame", fed.before_key as f64),
                ("unitsNotCarried", fed.uncarried as f64),
                ("clockJumps", bridge.jumps as f64),
            ];
            let seat = match &self.way {
                Way::Serve { seat, .. } => seat.details(),
                Way::Call { calls, .. } => calls.details(&self.ends),
            };
            let details: Vec<Detail> = bridged.into_iter().chain(self.ends.details()).chain(seat).collect();
            self.counters.details.set(&details);
        }
    }
}

impl Driven for Output {
    fn start(&mut self, cx: &mut Context<'_>, first: SocketKey) -> io::Result<()> {
        self.first = first;
        if let Way::Serve { seat, .. } = &self.way {
            seat.attach(cx.remote(first), &self.admission.allow);
        }
        self.run(cx);
        Ok(())
    }

    fn handle_ready(&mut self, cx: &mut Context<'_>, socket: SocketKey, ready: Ready, _sink: &mut dyn FnMut(Packet)) {
        let at = usize::from(socket.0.saturating_sub(key_of(self.first, 0).0));
        match &mut self.way {
            Way::Call { calls, .. } => {
                calls.handle_ready(ready);
                return self.run(cx);
            }
            Way::Serve { players, .. } => {
                let player = players.get_mut(at).and_then(Option::as_mut);
                player.into_iter().for_each(|player| player.connection.handle_ready(ready));
            }
        }
        self.leaving.handle_timeout(cx.now);
        if at < PLAYERS_MAX {
            self.run_player(cx, at);
        }
        self.count(cx.now);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, _sink: &mut dyn FnMut(Packet)) {
        self.run(cx);
    }

    fn send_from(&mut self, cx: &mut Context<'_>, publisher: &Publisher, cursor: &mut LocalCursor) {
        let now = cx.now;
        self.waits_bytes_max = if cursor.goes_on_at_key_frames() { FRESH_BYTES_MAX } else { usize::MAX };
        let is_served = self.feeds().next().is_some();
        while let Some(packet) = publisher.read(cursor) {
            let limiter = self.admission.limiter.as_ref();
            if limiter.is_some_and(|limiter| limiter.check(now, packet.len()) != Verdict::Pass) {
                self.counters.over_limit.add(1);
                continue;
            }
            self.bridge.handle_packet(now, &packet);
            if is_served {
                self.tally.add(&packet);
            } else {
                self.unsent += 1;
            }
            while let Some(unit) = self.bridge.poll_unit() {
                self.pass(now, &unit);
            }
        }
        self.counters.count_missed(cursor);
        match &mut self.way {
            Way::Call { calls, .. } => {
                calls.connection.iter_mut().for_each(|connection| connection.flush(now));
                calls.coming().into_iter().for_each(|connection| connection.flush(now));
            }
            Way::Serve { players, .. } => {
                players.iter_mut().flatten().for_each(|player| player.connection.flush(now));
            }
        }
        self.tell_uncarried();
        self.count(now);
    }

    fn rest(&mut self, _cx: &mut Context<'_>) {}

    fn collect(&mut self, _cx: &mut Context<'_>, _sink: &mut dyn FnMut(Packet)) {}

    fn listen(&mut self, _cx: &mut Context<'_>) {}

    fn handle_done(&mut self, cx: &mut Context<'_>, done: Done, _sink: &mut dyn FnMut(Packet)) {
        // Whoever brings something may have counted.
        self.details_due = cx.now;
        match done.result.downcast::<Handover>() {
            Ok(handover) => {
                if let Some(visitor) = handover.take() {
                    self.welcome(cx, visitor);
                }
            }
            Err(other) => match (other.downcast::<SentAway>(), &mut self.way) {
                (Ok(away), Way::Serve { seat, .. }) if seat.is_of(&away) => {
                    self.events.tell((*away).into(), &self.counters);
                }
                (Err(other), Way::Call { calls, .. }) => {
                    if let Ok(answer) = other.downcast::<Answer>() {
                        calls.looked_up(cx.now, &answer);
                    }
                }
                (Ok(_) | Err(_), _) => {}
            },
        }
        self.run(cx);
    }

    fn tune(&mut self, _cx: &mut Context<'_>, _tuning: &Tuning, _sink: &mut dyn FnMut(Packet)) {}

    fn close(&mut self, cx: &mut Context<'_>) {
        self.bridge.finish();
        while let Some(unit) = self.bridge.poll_unit() {
            self.pass(cx.now, &unit);
        }
        match &mut self.way {
            Way::Call { calls, .. } => calls.give_out().for_each(|server| self.leaving.close(server, cx.now)),
            Way::Serve { players, .. } => {
                for mut player in players.iter_mut().filter_map(Option::take) {
                    // Whoever knows of that is back at once, if there is something to come back to.
                    player.connection.core.request_reconnect(None);
                    self.leaving.add(player.connection, cx.now);
                }
            }
        }
        self.farewells.take(cx, &mut self.leaving);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let peers = match &self.way {
            Way::Call { calls, .. } => calls.poll_timeout(),
            Way::Serve { players, .. } => {
                players.iter().flatten().filter_map(|player| player.connection.poll_timeout()).min()
            }
        };
        [peers, self.leaving.poll_timeout()].into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<DriverEvent> {
        self.events.poll()
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn adopt(&mut self, counters: Arc<Counters>) {
        self.counters = counters;
    }
}

/// What a server that agrees gets from now on.
fn introduce(client: &Client, bridge: &FromTs) -> Box<Line> {
    Box::new(Line::new(Feed::new(Role::Publisher, Takes::new(client.capabilities()), bridge.headers())))
}

const fn key_of(first: SocketKey, at: usize) -> SocketKey {
    SocketKey(first.0 + OWN_SOCKETS + at as u16)
}

const fn add(sum: &mut FeedStats, stats: FeedStats) {
    sum.sent += stats.sent;
    sum.before_key += stats.before_key;
    sum.overflow += stats.overflow;
    sum.uncarried += stats.uncarried;
}

/// What may wait for a slow peer where key frames are gone on with. Judgement: a second and a half at 6 Mb/s, and more than
/// a key frame of most streams.
const FRESH_BYTES_MAX: usize = 1 << 20;
/// Calls in vain after which an output is in error. Judgement: a server that restarts is back before the second.
const FAILURES_MIN: u32 = 2;
/// Players that one output serves: as many as it has numbers for.
const PLAYERS_MAX: usize = (SOCKETS_MAX - OWN_SOCKETS) as usize;
/// All of them are heard out at a stop.
const _: () = assert!(PLAYERS_MAX <= LEAVING_MAX);
