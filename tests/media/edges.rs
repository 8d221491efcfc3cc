//! The whole way of an edge, in virtual time: a stream of packets through a watch and whoever decodes for it, until it tells
//! how long something was black, still or silent; against ffmpeg's filters.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anabranch::media::quality::Span;
use anabranch::media::watch::{Defect, Event, Examiners, Outcome, Settings, Watch};
use anabranch::units::{Ticks90k, Time};

use crate::clips::{self, PROGRAMME};
use crate::content;
use crate::day::next_job;
use crate::quality::{filtered, spans};

#[test]
fn what_a_watch_tells_is_exact_to_the_picture() {
    for recipe in &PROGRAMME {
        let Some(path) = clips::made(recipe) else { return };
        agrees(recipe.name, &path);
    }
}

#[test]
fn it_is_so_in_every_way_of_coding() {
    if !clips::installed() {
        return;
    }
    for (name, path) in content::all() {
        agrees(name, &path);
    }
}

/// Whatever is told is an interval of ffmpeg to the frame, and all of those that are over before the clip is are told.
fn agrees(name: &str, path: &Path) {
    let log = filtered(path, &["-vf", "blackdetect,freezedetect", "-af", "silencedetect"]);
    let played = Played::new(path);
    eprintln!("{name}: {:?}", played.watch.counts());
    for (defect, start, end, tolerance) in [
        (Defect::Black, "black_start:", "black_end:", FRAME),
        (Defect::Frozen, "freeze_start: ", "freeze_end: ", FRAME),
        (Defect::Silent, "silence_start: ", "silence_end: ", Duration::from_millis(1)),
    ] {
        let mut real = spans(&log, start, end);
        // What is still so at the end is over there only for ffmpeg.
        real.retain(|span| time_of(span.end) + FRAME * 3 / 2 < played.last);
        let told: Vec<_> = played.told(defect).collect();
        eprintln!("  {defect:?}: told {told:?}, ffmpeg says {real:?}");
        let (mut left, mut exact) = (real.iter(), 0);
        for (at, lasted, between) in told {
            let fits = |span: &Span| {
                let real = time_of(Ticks90k(span.end.0 - span.start.0));
                let is_within = between.0 <= real + tolerance && real <= between.1 + tolerance;
                is_within && time_of(span.end) <= at + AHEAD
            };
            if between.0 < between.1 {
                // Between key frames that are equal the predicted pictures of MPEG-2 differ enough for ffmpeg's filter, so
                // that it sees nothing. The picture stands still all the same: it is told of, and that it is not exact.
                assert!(name.starts_with("mpeg2") && defect == Defect::Frozen, "{name}: {defect:?} {between:?}");
                let tolerant = filtered(path, &["-vf", "freezedetect=n=-45dB", "-an"]);
                assert!(spans(&tolerant, start, end).iter().any(fits), "{name}: {between:?} at {at:?}");
                continue;
            }
            let is_it = |span: &Span| fits(span) && lasted == between.0;
            assert!(left.any(is_it), "{name}: {defect:?} {between:?} at {at:?} is none of {real:?}");
            exact += 1;
        }
        assert_eq!(exact, real.len(), "{name}: {defect:?}");
    }
}

/// What a watch told while a file was played at the pace of its clock references, by whose time.
struct Played {
    watch: Watch,
    examiners: Examiners,
    now: Time,
    events: Vec<(Duration, Event)>,
    /// When the last picture is shown.
    last: Duration,
}

impl Played {
    fn new(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let start = bytes.chunks_exact(188).find_map(pcr).unwrap();
        let settings = Settings { thumbnail_every: None, content_quality: true };
        let (watch, examiners) = (Watch::new(start, settings), Examiners::new());
        let (_, units) = clips::units(path);
        let last = units.iter().filter(|unit| unit.codec.is_video()).filter_map(|unit| unit.pts).max();
        let last = time_of(last.unwrap());
        let mut played = Self { watch, examiners, now: start, events: Vec::new(), last };
        for packet in bytes.chunks_exact(188) {
            if let Some(at) = pcr(packet) {
                played.go_on(at);
            }
            played.watch.handle_packet(played.now, packet);
            played.work();
        }
        played.go_on(played.now + Duration::from_millis(600));
        played
    }

    /// When it was told that a defect was over, how long that had lasted, and the shortest and longest that it can have been.
    fn told(&self, defect: Defect) -> impl Iterator<Item = (Duration, Duration, (Duration, Duration))> {
        self.events.iter().filter_map(move |(at, event)| {
            let Event::Ended { defect: of, lasted, between, lost_sight: None } = event else { return None };
            (*of == defect).then_some((*at, *lasted, *between))
        })
    }

    fn go_on(&mut self, until: Time) {
        while self.watch.poll_timeout() <= until {
            self.now = self.now.max(self.watch.poll_timeout());
            self.watch.handle_timeout(self.now);
            self.work();
        }
        self.now = self.now.max(until);
    }

    /// Whatever is asked is answered at once.
    fn work(&mut self) {
        while let Some(job) = next_job(&mut self.watch, self.now) {
            let result = self.examiners.examine(1, &job);
            let outcome = Outcome { number: job.number, result, cpu: Duration::from_millis(1) };
            self.watch.handle_outcome(self.now, outcome);
        }
        let now = self.now.since(Time::ZERO);
        self.events.extend(std::iter::from_fn(|| self.watch.poll_event()).map(|event| (now, event)));
    }
}

/// The clock reference in a packet, if it has one (13818-1 2.4.3.4).
fn pcr(packet: &[u8]) -> Option<Time> {
    let has = packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x10 != 0;
    let base = packet[6..11].iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte)) >> 7;
    has.then(|| Time::ZERO + time_of(Ticks90k(base)))
}

fn time_of(ticks: Ticks90k) -> Duration {
    Duration::from_nanos(ticks.0 * 100_000 / 9)
}

/// Pictures come before they are due.
const AHEAD: Duration = Duration::from_millis(1_500);
const FRAME: Duration = Duration::from_millis(40);
