//! A source of one RTMP stream: of a publisher who calls us, or from a server that we call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::calls::Lost;
use super::door::{Handover, Seat, SentAway, Visitor};
use super::lookup::Answer;
use super::slate::Slate;
use super::{Absent, BOTH, Calls, DETAILS_APART, Ends, Events, Farewells, Leaving};
use crate::adapters::counters::Counters;
use crate::adapters::driven::{Admission, Driven, DriverEvent, Tuning};
use crate::adapters::driver::Tally;
use crate::adapters::stream_driver::Connection;
use crate::adapters::worker::{Context, Ready, SocketKey};
use crate::bus::{LocalCursor, Packet, Publisher};
use crate::path::limit::Verdict;
use crate::proto::bridge::{Interrupted, Prelude, ToTs};
use crate::proto::rtmp::{End, Message, Refusal, Server, ServerMessage, kind};
use crate::proto::{self, Detail, Done, PeerEnd, Refusals, Stats};
use crate::units::Time;

/// Takes in one stream, one sender at a time. Between two of them nothing comes out.
#[derive(Debug)]
pub(super) struct Source {
    way: Way,
    intake: Intake,
    first: SocketKey,
    events: Events,
    ends: Ends,
    leaving: Leaving,
    farewells: Farewells,
    details_due: Time,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Way {
    Listen {
        seat: Seat,
        takeover: bool,
        absent: Absent,
        publisher: Option<Box<Connection<Server>>>,
        slate: Option<Box<Slate>>,
        /// Where somebody came from who was taken the place of while he was at it, and when he tried last.
        ousted: Option<(IpAddr, Time)>,
        /// What the publisher said who is there and brings nothing, while a picture is in its place.
        interrupted: Option<Box<Interrupted>>,
    },
    Call {
        calls: Box<Calls>,
        /// Of the connection that is to take the place of the one that there is.
        prelude: Box<Prelude>,
    },
}

/// What becomes of media.
#[derive(Debug)]
struct Intake {
    bridge: ToTs,
    admission: Admission,
    messages: u64,
    tally: Tally,
    over_limit: u64,
    /// Of the multiplexer, as it was counted.
    no_buffer: u64,
    /// When audio or video came last, or its sender.
    heard: Time,
    /// What the sender said last.
    end: Option<End>,
}

impl Source {
    /// Waits for publishers at `seat`.
    pub(super) fn listening(
        seat: Seat,
        (takeover, absent): (bool, Absent),
        bridge: ToTs,
        lent: (Admission, Farewells),
    ) -> Self {
        let way = Way::Listen { seat, takeover, absent, publisher: None, slate: None, ousted: None, interrupted: None };
        Self::new(way, bridge, lent)
    }

    /// Plays from a server.
    pub(super) fn pulling(calls: Calls, bridge: ToTs, lent: (Admission, Farewells)) -> Self {
        Self::new(Way::Call { calls: Box::new(calls), prelude: Box::default() }, bridge, lent)
    }

    fn new(way: Way, bridge: ToTs, (admission, farewells): (Admission, Farewells)) -> Self {
        let intake = Intake {
            bridge,
            admission,
            messages: 0,
            tally: Tally::default(),
            over_limit: 0,
            no_buffer: 0,
            heard: Time::ZERO,
            end: None,
        };
        let refusals_apart = match way {
            Way::Call { .. } => Refusals::CALLED_APART,
            Way::Listen { .. } => Refusals::CALLERS_APART,
        };
        Self {
            way,
            intake,
            first: SocketKey(0),
            events: Events::new(refusals_apart),
            ends: Ends::default(),
            leaving: Leaving::default(),
            farewells,
            details_due: Time::ZERO,
            counters: Arc::default(),
        }
    }

    /// Reads, writes, and does what is due.
    fn run(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet)) {
        let now = cx.now;
        self.leaving.handle_timeout(now);
        self.intake.bridge.handle_timeout(now);
        self.intake.drain(now, sink);
        match self.way {
            Way::Listen { .. } => self.run_publisher(cx, sink),
            Way::Call { .. } => self.run_server(cx, sink),
        }
        self.intake.drain(now, sink);
        while let Some(what) = self.intake.bridge.poll_uncarried() {
            self.events.tell(proto::Event::NotCarried(what), &self.counters);
        }
        self.count(now);
    }

    fn run_publisher(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet)) {
        let Self { way: Way::Listen { publisher, slate, absent, interrupted, .. }, intake, .. } = self else { return };
        if let Some(shown) = slate {
            shown.handle_timeout(cx.now, &mut intake.bridge);
            if shown.is_over(cx.now) {
                *slate = None;
                intake.bridge.end();
            }
        }
        let Some(connection) = publisher else { return };
        let has_more = connection.turn(cx.now, cx.ahead, |_, said| match said {
            ServerMessage::Media(message) => {
                if is_media(&message)
                    && let Some(interrupted) = interrupted.take()
                {
                    *slate = None;
                    intake.bridge.resume(*interrupted);
                }
                intake.handle(cx.now, &message, sink);
            }
            ServerMessage::Ended(end) => intake.end = Some(end),
            ServerMessage::Publish(_) | ServerMessage::Play(_) => {}
        });
        if has_more {
            cx.call_again(self.first);
        }
        if intake.end.is_some() || connection.is_done(cx.now) {
            let (peer, broken) = (connection.peer(), connection.broken());
            if let Some(connection) = publisher.take() {
                self.leaving.add(*connection, cx.now);
            }
            let why = self.ends.count(intake.end.take().as_ref(), broken);
            if slate.is_none() {
                intake.bridge.end();
            }
            // Who was interrupted has his slate, or is beyond it.
            if let (Absent::Slate { grace }, None) = (*absent, interrupted.take()) {
                *slate = Slate::new(cx.now, grace, &intake.bridge, cx.pool).map(Box::new);
                intake.bridge.begin();
            }
            self.events.tell(proto::Event::PeerLost { peer, why }, &self.counters);
        } else if let Absent::Slate { grace } = *absent
            && interrupted.is_none()
            && cx.now >= intake.heard + STALLED_AFTER
        {
            *slate = Slate::new(cx.now, grace, &intake.bridge, cx.pool).map(Box::new);
            *interrupted = Some(Box::new(intake.bridge.interrupt()));
        }
    }

    fn run_server(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet)) {
        let now = cx.now;
        let Self { way: Way::Call { calls, prelude }, intake, events, ends, counters, .. } = self else { return };
        let heard = calls.run(cx, self.first, |_, said| match said {
            None => intake.bridge.begin(),
            Some(message) => intake.handle(now, &message, sink),
        });
        if heard.is_ready {
            events.tell_agreed(calls.peer(), counters);
        }
        if let Some(Lost { peer, end, broken, was_ready, has_moved }) = heard.lost {
            intake.bridge.end();
            if has_moved {
                events.tell(proto::Event::PeerLost { peer, why: ends.count_moved() }, counters);
                if calls.is_ready() {
                    intake.bridge.resume(prelude.take());
                    events.tell_agreed(calls.peer(), counters);
                }
                // Its readiness may have been told already.
                cx.call_again(self.first);
                return;
            }
            let why = ends.count(end.as_ref(), broken);
            match was_ready {
                true => events.tell(proto::Event::PeerLost { peer, why }, counters),
                false => events.tell_refused(cx.now, (peer, why), counters),
            }
        }
        self.run_coming(cx, sink);
    }

    /// The connection that a server asked for takes over when a decoder can go on with it.
    fn run_coming(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet)) {
        let Self { way: Way::Call { calls, prelude }, intake, events, ends, counters, .. } = self else { return };
        let (now, mut has_begun) = (cx.now, false);
        let old = calls.run_coming(cx, self.first, |_, said| {
            let Some(message) = said else {
                **prelude = Prelude::default();
                return false;
            };
            if !has_begun && prelude.is_over_with(now, &message, intake.bridge.has_pictures()) {
                has_begun = true;
                intake.bridge.resume(prelude.take());
            }
            if has_begun {
                intake.handle(now, &message, sink);
            }
            has_begun
        });
        let Some(old) = old else { return };
        events.tell(proto::Event::PeerLost { peer: old.peer(), why: ends.count_moved() }, counters);
        self.leaving.close(old, cx.now);
        if calls.is_ready() {
            events.tell_agreed(calls.peer(), counters);
        } else {
            intake.bridge.end();
        }
    }

    /// Lets a publisher in, or sends him away.
    fn welcome(&mut self, cx: &Context<'_>, mut visitor: Visitor) {
        let seat = match &self.way {
            Way::Listen { seat, .. } => Some(seat),
            Way::Call { .. } => None,
        };
        // Whoever he was for is gone, and another in its place: he is no guest of this one.
        if !seat.is_some_and(|seat| seat.expects(&visitor)) {
            visitor.connection.core.refuse(Refusal::NotFound);
            return self.leaving.add(visitor.connection, cx.now);
        }
        let Way::Listen { takeover, publisher, slate, interrupted, ousted, .. } = &mut self.way else { return };
        let connection = &mut visitor.connection;
        let peer = connection.peer();
        let is_held = publisher.as_ref().is_some_and(|old| self.intake.defends(cx.now, old.peer(), peer));
        let was_ousted = ousted.is_some_and(|(ip, at)| ip == peer.ip() && cx.now < at + OUSTED_FOR);
        let refusal = if !self.intake.admission.allow.allows(peer.ip()) {
            self.counters.not_allowed.add(1);
            Some((Refusal::Denied, "its address is not allowed"))
        } else if !*takeover && is_held {
            Some((Refusal::InUse, "another publisher is there"))
        } else if was_ousted && is_held {
            // Each time anew: an encoder that calls again by itself gives its place back to whoever took it.
            *ousted = Some((peer.ip(), cx.now));
            Some((Refusal::InUse, "another publisher took over from there a moment ago"))
        } else if cx.register(connection.stream(), self.first, BOTH).is_err() {
            Some((Refusal::InUse, "the system has no room for another connection"))
        } else {
            None
        };
        if let Some((refusal, reason)) = refusal {
            self.ends.refused += 1;
            connection.core.refuse(refusal);
            self.leaving.add(visitor.connection, cx.now);
            let why = PeerEnd { reason, refusal: None };
            self.events.tell_refused(cx.now, (peer, why), &self.counters);
            return;
        }
        if let Some(old) = publisher.take() {
            self.ends.taken_over += 1;
            *ousted = is_held.then(|| (old.peer().ip(), cx.now));
            let why = PeerEnd { reason: "another publisher took over", refusal: None };
            self.events.tell(proto::Event::PeerLost { peer: old.peer(), why }, &self.counters);
            self.leaving.add(*old, cx.now);
        }
        connection.core.accept();
        (*slate, *interrupted, self.intake.heard) = (None, None, cx.now);
        *publisher = Some(Box::new(visitor.connection));
        self.intake.bridge.begin();
        self.events.tell(proto::Event::PeerConnected { peer }, &self.counters);
    }

    fn is_connected(&self) -> bool {
        match &self.way {
            Way::Listen { publisher, .. } => publisher.is_some(),
            Way::Call { calls, .. } => calls.is_ready(),
        }
    }

    fn count(&mut self, now: Time) {
        let (bridge, mux) = (self.intake.bridge.stats(), self.intake.bridge.mux_stats());
        std::mem::take(&mut self.intake.tally).count(&self.counters, now);
        self.counters.over_limit.add(std::mem::take(&mut self.intake.over_limit));
        let before = std::mem::replace(&mut self.intake.no_buffer, mux.no_buffer);
        self.counters.short_of_buffers.add(mux.no_buffer - before);
        self.counters.core.set(&Stats {
            received: self.intake.messages,
            malformed: bridge.malformed + bridge.bad_headers + mux.malformed,
            unexpected: bridge.headerless,
            late: mux.late,
            overflow: mux.overflow + mux.too_long + mux.stale,
            peers: Some(u32::from(self.is_connected())),
            ..Stats::default()
        });
        // The last ones of a publisher stay.
        if self.details_due <= now || !self.is_connected() {
            self.details_due = now + DETAILS_APART;
            let bridged = [
                ("unitsCarried", bridge.units as f64),
                ("unitsUndecodable", mux.undecodable as f64),
                ("clockJumps", mux.rebased as f64),
                ("timesMended", mux.mended as f64),
                ("shortOfBuffers", self.counters.short_of_buffers.value() as f64),
                ("nullPackets", mux.nulls as f64),
            ];
            let seat = match &self.way {
                Way::Listen { seat, .. } => seat.details(),
                Way::Call { calls, .. } => calls.details(&self.ends),
            };
            let details: Vec<Detail> = bridged.into_iter().chain(self.ends.details()).chain(seat).collect();
            self.counters.details.set(&details);
        }
    }
}

impl Intake {
    /// Whether a publisher keeps his place when another wants it. A connection whose other end is gone can stand for long.
    fn defends(&self, now: Time, present: SocketAddr, newcomer: SocketAddr) -> bool {
        let may_be_silent = if present.ip() == newcomer.ip() { SAME_SILENT_MAX } else { OTHER_SILENT_MAX };
        now < self.heard + may_be_silent
    }

    fn handle(&mut self, now: Time, message: &Message, sink: &mut dyn FnMut(Packet)) {
        self.messages += 1;
        if is_media(message) {
            self.heard = now;
        }
        self.bridge.handle_message(now, message);
        // Small sounds that come at once leave in common packets, at the end of the turn.
        if self.bridge.waiting_bytes() >= DRAINED_BYTES {
            self.drain(now, sink);
        }
    }

    fn drain(&mut self, now: Time, sink: &mut dyn FnMut(Packet)) {
        while let Some(packet) = self.bridge.poll_packet() {
            let limiter = self.admission.limiter.as_ref();
            if limiter.is_some_and(|limiter| limiter.check(now, packet.len()) != Verdict::Pass) {
                self.over_limit += 1;
                continue;
            }
            self.tally.add(&packet);
            sink(packet);
        }
    }
}

impl Driven for Source {
    fn start(&mut self, cx: &mut Context<'_>, first: SocketKey) -> io::Result<()> {
        self.first = first;
        self.count(cx.now);
        if let Way::Listen { seat, .. } = &self.way {
            seat.attach(cx.remote(first), &self.intake.admission.allow);
        }
        Ok(())
    }

    fn handle_ready(&mut self, cx: &mut Context<'_>, _socket: SocketKey, ready: Ready, sink: &mut dyn FnMut(Packet)) {
        match &mut self.way {
            Way::Listen { publisher, .. } => publisher.iter_mut().for_each(|peer| peer.handle_ready(ready)),
            Way::Call { calls, .. } => calls.handle_ready(ready),
        }
        self.run(cx, sink);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet)) {
        self.run(cx, sink);
    }

    fn send_from(&mut self, _cx: &mut Context<'_>, _publisher: &Publisher, _cursor: &mut LocalCursor) {}

    /// Bytes gather in the socket by themselves; readiness that is told meanwhile is used.
    fn rest(&mut self, _cx: &mut Context<'_>) {}

    fn collect(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet)) {
        self.run(cx, sink);
    }

    fn listen(&mut self, _cx: &mut Context<'_>) {}

    fn handle_done(&mut self, cx: &mut Context<'_>, done: Done, sink: &mut dyn FnMut(Packet)) {
        // Whoever brings something may have counted.
        self.details_due = cx.now;
        match done.result.downcast::<Handover>() {
            Ok(handover) => {
                if let Some(visitor) = handover.take() {
                    self.welcome(cx, visitor);
                }
            }
            Err(other) => match (other.downcast::<SentAway>(), &mut self.way) {
                (Ok(away), Way::Listen { seat, .. }) if seat.is_of(&away) => {
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
        self.run(cx, sink);
    }

    fn tune(&mut self, cx: &mut Context<'_>, tuning: &Tuning, sink: &mut dyn FnMut(Packet)) {
        let Tuning::Rtmp(tuning) = tuning else { return };
        // What was due before goes out as it was to.
        self.run(cx, sink);
        self.intake.bridge.set_rate(cx.now, tuning.rate);
        if let (Way::Listen { takeover, absent, slate, interrupted, .. }, Some(listening)) =
            (&mut self.way, tuning.listening)
        {
            (*takeover, *absent) = listening;
            match (*absent, slate.as_mut()) {
                (Absent::Slate { grace }, Some(shown)) => shown.set_grace(grace),
                (Absent::Hold, Some(_)) => {
                    *slate = None;
                    // Who is there and brings nothing may have another one.
                    match interrupted.take() {
                        Some(his) => self.intake.bridge.resume(*his),
                        None => self.intake.bridge.end(),
                    }
                }
                (Absent::Slate { .. } | Absent::Hold, None) => {}
            }
        }
        self.run(cx, sink);
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        match &mut self.way {
            Way::Listen { publisher, .. } => {
                if let Some(mut publisher) = publisher.take() {
                    // Whoever knows of that is back at once, if there is something to come back to.
                    publisher.core.request_reconnect(None);
                    self.leaving.add(*publisher, cx.now);
                }
            }
            Way::Call { calls, .. } => calls.give_out().for_each(|server| self.leaving.close(server, cx.now)),
        }
        self.farewells.take(cx, &mut self.leaving);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let peer = match &self.way {
            Way::Listen { publisher, slate, absent, interrupted, .. } => {
                let peer = publisher.as_ref().and_then(|peer| peer.poll_timeout());
                let may_stall = publisher.is_some() && interrupted.is_none() && *absent != Absent::Hold;
                let stalled = may_stall.then(|| self.intake.heard + STALLED_AFTER);
                [peer, slate.as_ref().and_then(|slate| slate.poll_timeout()), stalled].into_iter().flatten().min()
            }
            Way::Call { calls, .. } => calls.poll_timeout(),
        };
        [peer, self.intake.bridge.poll_timeout(), self.leaving.poll_timeout()].into_iter().flatten().min()
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

fn is_media(message: &Message) -> bool {
    matches!(message.kind, kind::AUDIO | kind::VIDEO)
}

/// What waits in the multiplexer before packets are made of it within a turn: several full ones, and fewer sounds than it
/// has room for.
const DRAINED_BYTES: usize = 8 << 10;
/// A publisher who is there and brings nothing is as good as gone. Judgement: longer than the retransmissions of a lossy
/// path, and soon enough for whoever watches.
const STALLED_AFTER: Duration = Duration::from_millis(1_500);
/// Whoever was thrown out does not throw out in turn, as long as he tries more often than that. Judgement: longer than any
/// encoder waits before it calls again, and what somebody who starts his anew by hand has patience for.
const OUSTED_FOR: Duration = Duration::from_secs(10);
/// How long a publisher may bring nothing and keep his place against somebody who knows the same key, from the same address
/// or another. Judgement: encoders come back after two seconds or more, and send sound all the time.
const SAME_SILENT_MAX: Duration = Duration::from_secs(1);
const OTHER_SILENT_MAX: Duration = Duration::from_secs(3);
