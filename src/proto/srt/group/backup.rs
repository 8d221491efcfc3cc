//! Which members of a backup group send (libsrt 1.5, `docs/features/bonding-main-backup.md`, cited as "main-backup").
//!
//! ```text
//!   standing by ── activated ──> fresh ── probed ──> stable <── probed ── wary
//!        ^                         │                   │                   ^ │
//!        └──── silenced            └─── no answer ─────┴──> unstable ─ answer ┘
//! ```

use std::cmp::Reverse;
use std::time::Duration;

use super::sending::{Kept, put};
use super::{Group, Links, Member};
use crate::proto::srt::connection::Connection;
use crate::proto::srt::error::Ended;
use crate::proto::srt::send::RoundTrip;
use crate::units::Time;

/// How a member stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    state: State,
    /// The first packet that was sent since the peer was heard last.
    asked_at: Option<Time>,
    /// Packets that it had dropped as too late when it was looked at last.
    dropped: u64,
}

/// In the order in which members of one weight are preferred (main-backup, "Member Ordering by Priority").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Sends, and is answered.
    Stable,
    /// Was activated a short while ago.
    Fresh { since: Time },
    /// Was unstable, and is answered again.
    Wary { unstable_since: Time, since: Time },
    /// Sends, and is not answered, or cannot keep up.
    Unstable { since: Time },
    /// Connected, and silent.
    #[default]
    StandingBy,
}

/// What a state follows from.
#[derive(Clone, Copy, Debug)]
struct Signs {
    now: Time,
    /// For how long an answer has been waited for.
    waits: Duration,
    has_dropped: bool,
    latency: Duration,
    round_trip: RoundTrip,
}

impl State {
    const fn is_active(self) -> bool {
        !matches!(self, Self::StandingBy)
    }

    /// Main-backup, "Member State Transition".
    fn next(self, signs: &Signs) -> Self {
        let Signs { now, latency, .. } = *signs;
        let is_probed = |since: Time| now.since(since) > latency.max(STABILITY_MIN) + PROBE_MARGIN;
        let is_fresh = matches!(self, Self::Fresh { since } if !is_probed(since));
        let RoundTrip { smoothed, variation } = signs.round_trip;
        let running = (smoothed * 2 + variation * 4).max(STABILITY_MIN).min(latency);
        // libsrt grants a fresh one the whole latency; should that be dead, too, nothing would be left for a third.
        let timeout = if is_fresh { (latency / 2).max(STABILITY_MIN) } else { running };
        if signs.waits > timeout || (signs.has_dropped && !is_fresh) {
            return match self {
                Self::StandingBy | Self::Unstable { .. } => self,
                Self::Wary { unstable_since, .. } => Self::Unstable { since: unstable_since },
                Self::Stable | Self::Fresh { .. } => Self::Unstable { since: now },
            };
        }
        match self {
            Self::Fresh { .. } if is_fresh => self,
            Self::Unstable { since } => Self::Wary { unstable_since: since, since: now },
            Self::Wary { since, .. } if now.since(since) <= latency * WARY_LATENCIES => self,
            Self::Fresh { .. } | Self::Wary { .. } | Self::Stable => Self::Stable,
            Self::StandingBy => self,
        }
    }
}

impl Member {
    fn look(&mut self, now: Time, link: &Connection) {
        let Standing { state, asked_at, dropped } = &mut self.standing;
        if asked_at.is_some_and(|at| link.last_heard() >= at) {
            *asked_at = None;
        }
        let before = std::mem::replace(dropped, link.sender.dropped());
        let signs = Signs {
            now,
            waits: asked_at.map_or(Duration::ZERO, |at| now.since(at)),
            has_dropped: *dropped > before,
            latency: link.settled().send_latency,
            round_trip: link.sender.round_trip(),
        };
        *state = state.next(&signs);
    }

    fn priority(&self) -> (Reverse<u16>, State, u32) {
        (Reverse(self.weight), self.standing.state, self.id)
    }
}

impl Group {
    /// Sends over all that are active, and looks for another when none of them is sure.
    pub(super) fn send_backup(&mut self, now: Time, kept: Kept, links: &mut impl Links) {
        let mut acknowledged = 0;
        let mut heaviest = None;
        for member in &mut self.members {
            let Some(link) = links.link(member.id) else { continue };
            member.look(now, link);
            acknowledged = acknowledged.max(link.sender.acknowledged());
            if !member.standing.state.is_active() {
                continue;
            }
            if put(now, &kept, link) {
                heaviest = heaviest.max(Some(member.weight));
            } else if !matches!(member.standing.state, State::Unstable { .. }) {
                member.standing.state = State::Unstable { since: now };
            }
            member.standing.asked_at.get_or_insert(now);
        }
        self.sending.keep(now, kept, acknowledged);
        self.members.sort_unstable_by_key(Member::priority);
        self.activate(now, heaviest, links);
        self.end_unstable(now, links);
        self.silence();
    }

    /// Main-backup, "Member Activation": where there is no sure member, or a heavier one stands by.
    fn activate(&mut self, now: Time, heaviest: Option<u16>, links: &mut impl Links) {
        let is_sure = |member: &Member| matches!(member.standing.state, State::Stable | State::Fresh { .. });
        let has_sure = self.members.iter().any(is_sure);
        for member in &mut self.members {
            if member.standing.state.is_active() || (has_sure && heaviest >= Some(member.weight)) {
                continue;
            }
            let Some(link) = links.link(member.id) else { continue };
            let Some(oldest) = self.sending.backlog().front() else { return };
            // What it still has from when it was active has come by another way, or it would be in the backlog.
            link.sender.restart_at(oldest.sequence, oldest.message_number);
            let next = link.sender.next_sequence();
            let is_sent =
                self.sending.backlog().iter().filter(|kept| kept.sequence >= next).all(|kept| put(now, kept, link));
            let state = if is_sent { State::Fresh { since: now } } else { State::Unstable { since: now } };
            member.standing = Standing { state, asked_at: Some(now), dropped: link.sender.dropped() };
            if is_sent {
                return;
            }
        }
    }

    /// Main-backup, "Broken due to remaining unstable for too long".
    fn end_unstable(&self, now: Time, links: &mut impl Links) {
        if !self.members.iter().any(|member| member.standing.state == State::Stable) {
            return;
        }
        for member in &self.members {
            let (State::Unstable { since } | State::Wary { unstable_since: since, .. }) = member.standing.state else {
                continue;
            };
            if let Some(link) = links.link(member.id)
                && now.since(since) >= link.idle_timeout()
            {
                link.end(Ended::Unstable);
            }
        }
    }

    /// Main-backup, "Silencing an Active Member": behind the first stable one nobody has to send. The members are in
    /// their order, but for those activated just now, which are not stable.
    fn silence(&mut self) {
        let Some(stable) = self.members.iter().position(|member| member.standing.state == State::Stable) else {
            return;
        };
        let weight = self.members[stable].weight;
        for member in self.members.iter_mut().skip(stable + 1) {
            if member.standing.state.is_active() && member.weight <= weight {
                member.standing.state = State::StandingBy;
            }
        }
    }
}

/// Least time without an answer that makes a member doubtful (libsrt's `SRTO_GROUPMINSTABLETIMEO`).
const STABILITY_MIN: Duration = Duration::from_millis(60);

/// How much longer than that a fresh member is watched (main-backup, "Member Activation").
const PROBE_MARGIN: Duration = Duration::from_millis(50);

/// Latencies that a member must be answered for until it counts as stable again.
const WARY_LATENCIES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(400);

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    /// `waits` ms for an answer, at `now` ms, over a link of 20 ms.
    fn signs(now: u64, waits: u64) -> Signs {
        let round_trip = RoundTrip { smoothed: Duration::from_millis(20), variation: Duration::from_millis(2) };
        Signs { now: at(now), waits: Duration::from_millis(waits), has_dropped: false, latency: LATENCY, round_trip }
    }

    #[test]
    fn a_stable_member_is_doubted_after_60_ms_or_two_round_trips_and_some() {
        assert_eq!(State::Stable.next(&signs(100, 60)), State::Stable);
        assert_eq!(State::Stable.next(&signs(100, 61)), State::Unstable { since: at(100) });
        let slow = RoundTrip { smoothed: Duration::from_millis(100), variation: Duration::from_millis(10) };
        let slow = |waits| Signs { round_trip: slow, ..signs(100, waits) };
        assert_eq!(State::Stable.next(&slow(240)), State::Stable);
        assert_eq!(State::Stable.next(&slow(241)), State::Unstable { since: at(100) });
        // Never later than the latency.
        let slower = RoundTrip { smoothed: LATENCY, variation: LATENCY };
        let slower = Signs { round_trip: slower, ..signs(100, 401) };
        assert_eq!(State::Stable.next(&slower), State::Unstable { since: at(100) });
        let dropped = Signs { has_dropped: true, ..signs(100, 0) };
        assert_eq!(State::Stable.next(&dropped), State::Unstable { since: at(100) });
    }

    #[test]
    fn a_fresh_member_has_half_the_latency_to_answer_and_is_watched_for_all_of_it() {
        let fresh = State::Fresh { since: at(0) };
        assert_eq!(fresh.next(&signs(200, 200)), fresh);
        assert_eq!(fresh.next(&signs(201, 201)), State::Unstable { since: at(201) });
        assert_eq!(fresh.next(&signs(450, 5)), fresh);
        assert_eq!(fresh.next(&signs(451, 5)), State::Stable);
        // What it drops of the backlog is no fault of its own.
        assert_eq!(fresh.next(&Signs { has_dropped: true, ..signs(200, 5) }), fresh);
    }

    #[test]
    fn an_unstable_member_is_stable_when_it_was_answered_for_four_latencies() {
        let unstable = State::Unstable { since: at(100) };
        assert_eq!(unstable.next(&signs(200, 100)), unstable);
        let wary = State::Wary { unstable_since: at(100), since: at(300) };
        assert_eq!(unstable.next(&signs(300, 0)), wary);
        assert_eq!(wary.next(&signs(400, 100)), unstable);
        assert_eq!(wary.next(&signs(1_900, 0)), wary);
        assert_eq!(wary.next(&signs(1_901, 0)), State::Stable);
    }

    #[test]
    fn weight_counts_before_state_and_state_before_age() {
        let member = |id, weight, state| Member {
            id,
            weight,
            is_paused: false,
            standing: Standing { state, ..Standing::default() },
        };
        let mut members = [
            member(4, 1, State::Stable),
            member(3, 2, State::StandingBy),
            member(2, 2, State::Unstable { since: at(1) }),
            member(1, 2, State::Stable),
            member(0, 2, State::Stable),
        ];
        members.sort_by_key(Member::priority);
        assert_eq!(members.map(|member| member.id), [0, 1, 2, 3, 4]);
    }
}
