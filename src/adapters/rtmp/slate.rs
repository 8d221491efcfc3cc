//! A picture in place of a publisher who is gone: the built-in one, through the same multiplexer, so that whoever listens
//! goes on with the same stream; with silence in place of his sound.

use std::time::Duration;

use crate::adapters::clock;
use crate::bus::Pool;
use crate::proto::bridge::{Feed, FromTs, Silence, Takes, ToTs};
use crate::proto::mpegts::{TestPicture, picture};
use crate::proto::rtmp::{Capabilities, Message, Role, kind};
use crate::proto::{Core, Surroundings};
use crate::units::{Bitrate, Time};

/// Publishes a picture until somebody comes, or for a while.
#[derive(Debug)]
pub(super) struct Slate {
    signal: TestPicture,
    from_ts: FromTs,
    feed: Feed,
    /// With what stands before it, as long as that was not said.
    silence: Option<(Silence, Option<Message>)>,
    since: Time,
    grace: Duration,
}

impl Slate {
    /// From now on, for `grace`, in place of him who is still known to `bridge`.
    pub(super) fn new(now: Time, grace: Duration, bridge: &ToTs, pool: &Pool) -> Option<Self> {
        let config = picture::Config::new(Bitrate::from_bps(RATE_BPS)).ok()?;
        let surroundings = Surroundings { pool: pool.clone(), seed: 0, unix_ns_at_zero: clock::unix_ns_at_zero() };
        Some(Self {
            signal: TestPicture::new(config, &surroundings),
            from_ts: FromTs::new(),
            feed: Feed::new(Role::Player, Takes::new(&Capabilities::default()), std::iter::empty()),
            silence: bridge.sound().and_then(Silence::like).map(|silence| {
                let header = silence.header();
                (silence, Some(header))
            }),
            since: now,
            grace,
        })
    }

    /// So long after its beginning somebody may come back.
    pub(super) const fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// Whether the time is over in which somebody may come back.
    pub(super) fn is_over(&self, now: Time) -> bool {
        now >= self.until()
    }

    /// What is due goes to `bridge`.
    pub(super) fn handle_timeout(&mut self, now: Time, bridge: &mut ToTs) {
        let Self { signal, from_ts, feed, silence, .. } = self;
        signal.handle_timeout(now);
        while let Some(packet) = signal.poll_packet() {
            from_ts.handle_packet(now, &packet);
            while let Some(unit) = from_ts.poll_unit() {
                feed.handle_unit(&unit, from_ts.pictures(), |message| {
                    if message.kind == kind::VIDEO {
                        show(now, message, silence.as_mut(), bridge);
                    }
                    Ok(())
                });
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let until = self.until();
        Some(self.signal.poll_timeout().map_or(until, |due| due.min(until)))
    }

    fn until(&self) -> Time {
        self.since + self.grace
    }
}

/// A picture, or its header, and the silence up to it. Both headers go before anything else, so that no track is over.
fn show(now: Time, picture: &Message, silence: Option<&mut (Silence, Option<Message>)>, bridge: &mut ToTs) {
    let Some((silence, header)) = silence else { return bridge.handle_message(now, picture) };
    header.take().iter().for_each(|header| bridge.handle_message(now, header));
    bridge.handle_message(now, picture);
    while let Some(frame) = silence.frame_until(picture.timestamp_ms) {
        bridge.handle_message(now, &frame);
    }
}

/// Of the signal with its null packets, which do not leave: the picture has half of it.
const RATE_BPS: u64 = 2_000_000;
