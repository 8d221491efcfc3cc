//! What goes to one peer, as long as it keeps up.

use std::time::Duration;

use crate::adapters::stream_driver::Connection;
use crate::proto::StreamCore;
use crate::proto::bridge::{Feed, Pictures};
use crate::proto::rtmp::flv::AccessUnit;
use crate::proto::rtmp::{Client, Message, Server, Unsent};
use crate::units::Time;

/// One peer's way through the stream, and how far behind it is.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) feed: Feed,
    backlog: Backlog,
}

impl Line {
    pub(super) fn new(feed: Feed) -> Self {
        Self { feed, backlog: Backlog::default() }
    }

    /// The next picture or sound, if there is room for it: no more than `bytes_max` wait, none of them for longer than
    /// [`BACKLOG_MAX`].
    pub(super) fn hand_over<C: Sending>(
        &mut self,
        now: Time,
        connection: &mut Connection<C>,
        (unit, pictures): (&AccessUnit, Pictures),
        bytes_max: usize,
    ) {
        let waiting_bytes = connection.core.waiting_bytes() + connection.pending_bytes();
        let has_room = self.backlog.age(now, waiting_bytes) <= BACKLOG_MAX && waiting_bytes <= bytes_max;
        let core = &mut connection.core;
        self.feed.handle_unit(unit, pictures, |message| if has_room { core.send(message) } else { Err(Unsent::Full) });
        self.backlog.waiting_bytes = connection.core.waiting_bytes() + connection.pending_bytes();
    }
}

/// A core that sends media.
pub(super) trait Sending: StreamCore {
    fn waiting_bytes(&self) -> usize;

    fn send(&mut self, message: &Message) -> Result<(), Unsent>;
}

impl Sending for Client {
    fn waiting_bytes(&self) -> usize {
        Self::waiting_bytes(self)
    }

    fn send(&mut self, message: &Message) -> Result<(), Unsent> {
        Self::send(self, message)
    }
}

impl Sending for Server {
    fn waiting_bytes(&self) -> usize {
        Self::waiting_bytes(self)
    }

    fn send(&mut self, message: &Message) -> Result<(), Unsent> {
        Self::send(self, message)
    }
}

/// How old what waits may be, by a mark behind it: when all before the mark has left, the next one is set.
#[derive(Debug, Default)]
struct Backlog {
    /// When it was looked at last.
    waiting_bytes: usize,
    /// Of these, those before the mark.
    marked_bytes: usize,
    marked: Time,
    /// When the mark before was set: what waits came after that.
    since: Time,
}

impl Backlog {
    /// Nothing of what waits is older.
    fn age(&mut self, now: Time, waiting_bytes: usize) -> Duration {
        let left = self.waiting_bytes.saturating_sub(waiting_bytes);
        self.waiting_bytes = waiting_bytes;
        self.marked_bytes = self.marked_bytes.saturating_sub(left);
        if waiting_bytes == 0 {
            (self.marked, self.since) = (now, now);
        } else if self.marked_bytes == 0 {
            self.marked_bytes = waiting_bytes;
            self.since = std::mem::replace(&mut self.marked, now);
        }
        now.since(self.since)
    }
}

/// What is older is of no use to whoever watches live. Judgement: what lines stall for now and then, and go on from.
const BACKLOG_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_waits_is_older_than_it_is_taken_for() {
        for seed in 0..50 {
            let (mut random, mut backlog) = (fastrand::Rng::with_seed(seed), Backlog::default());
            let (mut queue, mut now) = (std::collections::VecDeque::new(), Time::from_ns(1));
            for _ in 0..2_000 {
                now += Duration::from_millis(random.u64(..50));
                // It stands still for some time, and then goes on faster than things come.
                let leaves = if now.as_ns() / 3_000_000_000 % 2 == 0 { 0 } else { random.usize(..4) };
                queue.drain(..queue.len().min(leaves));
                let age = backlog.age(now, queue.len());
                let oldest = queue.front().map_or(Duration::ZERO, |came: &Time| now.since(*came));
                assert!(age >= oldest, "seed {seed}: {age:?} {oldest:?}");
                assert!(!queue.is_empty() || age.is_zero(), "seed {seed}: {age:?}");
                queue.extend(random.bool().then_some(now));
                backlog.waiting_bytes = queue.len();
            }
        }
    }
}
