//! RTMP in virtual time: a test picture goes as a transport stream to a publisher, over a path of bytes that cuts anywhere,
//! stalls and is slow, to a server, and becomes a transport stream again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "a failing test shows its seed")]

use std::collections::VecDeque;
use std::time::Duration;

use anabranch::bus::{Pool, PoolLimits};
use anabranch::proto::bridge::{Feed, FeedStats, FromTs, Takes, ToTs, ToTsStats};
use anabranch::proto::mpegts::analysis::{Analyser, Indicator, Snapshot};
use anabranch::proto::mpegts::{TestPicture, mux, picture};
use anabranch::proto::rtmp::{Client, ClientMessage, Config, Role, Server, ServerMessage, Target};
use anabranch::proto::{Core, StreamCore, Surroundings};
use anabranch::units::{Bitrate, Time};

#[test]
fn whatever_the_cuts_everything_comes_in_time() {
    for seed in 0..8 {
        println!("seed {seed}");
        let outcome = Path::new(seed, Config::default()).run(10, |_, random| 200 + random % 20_000);
        assert_eq!((outcome.fed.overflow, outcome.carried.headerless, outcome.carried.malformed), (0, 0, 0));
        assert!(outcome.fed.sent >= 225, "{outcome:?}");
        // What is under way at the end may be missing.
        assert!(outcome.fed.sent - outcome.carried.units <= 2, "{outcome:?}");
        assert_eq!((outcome.mux.mended, outcome.mux.rebased, outcome.mux.late, outcome.mux.undecodable), (0, 0, 0, 0));
        outcome.assert_clean(0);
    }
}

#[test]
fn stalls_cost_pictures_up_to_a_key_frame_and_nothing_else() {
    for seed in 0..8 {
        println!("seed {seed}");
        let config = Config { send_bytes_max: 10_000, ..Config::default() };
        // Nothing passes for two seconds of every five.
        let outcome =
            Path::new(seed, config).run(20, |ms, random| if ms % 5_000 > 3_000 { 0 } else { 500 + random % 20_000 });
        assert!(outcome.fed.overflow > 0 && outcome.fed.before_key > 0, "{outcome:?}");
        assert!(outcome.fed.sent > 200, "{outcome:?}");
        assert_eq!((outcome.carried.headerless, outcome.carried.malformed), (0, 0), "{outcome:?}");
        // A publisher who brings nothing is silent, so that a backup can step in.
        outcome.assert_clean(4);
    }
}

#[derive(Debug)]
struct Outcome {
    fed: FeedStats,
    carried: ToTsStats,
    mux: mux::Stats,
    stream: Snapshot,
}

impl Outcome {
    /// But for the time that tables and clock took to come again after so many silences.
    fn assert_clean(&self, silences: u64) {
        for (indicator, errors_max) in [
            (Indicator::SyncByteError, 0),
            (Indicator::ContinuityCountError, 0),
            (Indicator::CrcError, 0),
            (Indicator::PatError, silences),
            (Indicator::PmtError, silences),
            (Indicator::PcrRepetitionError, silences),
            (Indicator::PcrDiscontinuityIndicatorError, silences),
        ] {
            let seen = self.stream.indicator(indicator);
            assert!(seen.errors + seen.warnings <= errors_max, "{indicator:?} {seen:?}");
        }
    }
}

struct Path {
    random: u64,
    signal: TestPicture,
    from_ts: FromTs,
    feed: Option<Feed>,
    client: Client,
    server: Server,
    to_ts: ToTs,
    analyser: Analyser,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
}

impl Path {
    fn new(seed: u64, config: Config) -> Self {
        let pool = Pool::new(PoolLimits::default());
        let surroundings = Surroundings { pool: pool.clone(), seed, unix_ns_at_zero: 0 };
        let picture = picture::Config::new(Bitrate::from_bps(1_000_000)).unwrap();
        let target = Target { tc_url: "rtmp://there/live".into(), app: "live".into(), key: "key".into() };
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            signal: TestPicture::new(picture, &surroundings),
            from_ts: FromTs::new(),
            feed: None,
            client: Client::new(Time::ZERO, config, Role::Publisher, target, seed),
            server: Server::new(Time::ZERO, config, seed),
            to_ts: ToTs::new(mux::Config::default(), pool).unwrap(),
            analyser: Analyser::new(Time::ZERO),
            up: VecDeque::new(),
            down: VecDeque::new(),
        }
    }

    /// `room` says how many bytes pass in a millisecond, each way.
    fn run(mut self, seconds: u64, room: impl Fn(u64, usize) -> usize) -> Outcome {
        for ms in 0..seconds * 1_000 {
            let now = Time::ZERO + Duration::from_millis(ms);
            self.make(now);
            self.carry(now, |random| room(ms, random));
            self.to_ts.handle_timeout(now);
            self.look();
            assert!(!self.client.is_over() && !self.server.is_over(), "{ms} ms");
        }
        Outcome {
            fed: self.feed.map(|feed| feed.stats()).unwrap_or_default(),
            carried: self.to_ts.stats(),
            mux: self.to_ts.mux_stats(),
            stream: self.analyser.snapshot(),
        }
    }

    /// The signal goes to the publisher, once that is let in.
    fn make(&mut self, now: Time) {
        self.signal.handle_timeout(now);
        while let Some(packet) = self.signal.poll_packet() {
            self.from_ts.handle_packet(now, &packet);
            while let Some(unit) = self.from_ts.poll_unit() {
                if let Some(feed) = &mut self.feed {
                    feed.handle_unit(&unit, self.from_ts.pictures(), |message| self.client.send(message));
                }
            }
        }
    }

    fn carry(&mut self, now: Time, room: impl Fn(usize) -> usize) {
        // A socket's buffer: what is more waits in the core.
        while self.up.len() < 2_000
            && let Some(piece) = self.client.poll_transmit()
        {
            self.up.extend(piece.header.iter().chain(&*piece.payload));
        }
        while let Some(piece) = self.server.poll_transmit() {
            self.down.extend(piece.header.iter().chain(&*piece.payload));
        }
        let (up, down) = (room(self.next()), room(self.next()));
        if self.server.is_taking() {
            for part in self.up.drain(..up.min(self.up.len())).collect::<Vec<u8>>().chunks(2_000) {
                self.server.handle_bytes(now, part.into());
            }
        }
        for part in self.down.drain(..down.min(self.down.len())).collect::<Vec<u8>>().chunks(2_000) {
            self.client.handle_bytes(now, part.into());
        }
        while let Some(said) = self.server.poll_message() {
            match said {
                ServerMessage::Publish(_) => self.server.accept(),
                ServerMessage::Media(message) => self.to_ts.handle_message(now, &message),
                ServerMessage::Play(_) | ServerMessage::Ended(_) => panic!("{said:?}"),
            }
        }
        while let Some(said) = self.client.poll_message() {
            assert_eq!(said, ClientMessage::Ready);
            self.feed =
                Some(Feed::new(Role::Publisher, Takes::new(self.client.capabilities()), self.from_ts.headers()));
        }
    }

    fn look(&mut self) {
        while let Some(packet) = self.to_ts.poll_packet() {
            self.analyser.handle_packet(packet.meta.arrival, &packet, None);
        }
    }

    /// The next number (Marsaglia's xorshift).
    fn next(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize
    }
}
