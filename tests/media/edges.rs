//! The whole way of an edge, in virtual time: a stream of packets through a watch and whoever decodes for it, until it tells
//! how long something was black, still or silent; against ffmpeg's filters.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anabranch::media::quality::{SPAN_MIN_90K, Span};
use anabranch::media::watch::{Defect, Event, Examiners, Outcome, Settings, Watch};
use anabranch::units::{Ticks90k, Time};

use crate::clips::{self, PROGRAMME};
use crate::content;
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

/// Whatever is told is an interval of ffmpeg to the frame, and what is long enough for key frames to show it is told.
fn agrees(name: &str, path: &Path) {
    let log = filtered(path, &["-vf", "blackdetect,freezedetect", "-af", "silencedetect"]);
    let played = Played::new(path);
    eprintln!("{name}: {:?}", played.watch.counts());
    for (defect, start, end, tolerance) in [
        (Defect::Black, "black_start:", "black_end:", FRAME),
        (Defect::Frozen, "freeze_start: ", "freeze_end: ", FRAME),
        (Defect::Silent, "silence_start: ", "silence_end: ", Duration::from_millis(1)),
    ] {
        let real = spans(&log, start, end);
        let mut told = Vec::new();
        for (at, event) in &played.events {
            if let Event::Ended { defect: of, lasted, between, lost_sight: None } = event
                && *of == defect
            {
                told.push((*at, *lasted, *between));
            }
        }
        // Between key frames that are equal the predicted pictures of MPEG-2 differ enough for ffmpeg's filter.
        if name.starts_with("mpeg2") && defect == Defect::Frozen {
            continue;
        }
        eprintln!("  {defect:?}: told {told:?}, ffmpeg says {real:?}");
        let mut left = real.iter();
        for (at, lasted, between) in &told {
            let is_it = |span: &Span| {
                let real = time_of(Ticks90k(span.end.0 - span.start.0));
                let is_within = between.0 <= real + tolerance && real <= between.1 + tolerance;
                // What is exact is said to be so.
                let is_exact = between.0 < between.1 || real.abs_diff(*lasted) <= tolerance;
                is_within && is_exact && time_of(span.end) <= *at + AHEAD
            };
            assert!(left.any(is_it), "{name}: {defect:?} {lasted:?} {between:?} at {at:?} is none of {real:?}");
            // The freeze of the box that creeps is not told exactly yet, nor is anything where there are two key frames and
            // more in a second, as in these clips of MPEG-2.
            let creeps = defect == Defect::Frozen && !name.starts_with("programme");
            let may_be_inexact = creeps || name.starts_with("mpeg2");
            assert!(between.0 == between.1 || may_be_inexact, "{name}: {defect:?} {between:?} is not proven");
        }
        // As long as the shortest and the groups around it, so that key frames must see it.
        let shortest_90k = if defect == Defect::Silent { SPAN_MIN_90K } else { SPAN_MIN_90K + GROUP_90K };
        let long = real.iter().filter(|span| span.end.0 - span.start.0 >= shortest_90k).count();
        // Two key frames a second, of which the second is passed over.
        let is_coarse = name.starts_with("mpeg2");
        assert!(is_coarse || told.len() >= long.min(1), "{name}: {defect:?} told {told:?} of {real:?}");
    }
}

/// What a watch told while a file was played at the pace of its clock references, by whose time.
struct Played {
    watch: Watch,
    examiners: Examiners,
    now: Time,
    events: Vec<(Duration, Event)>,
}

impl Played {
    fn new(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let start = bytes.chunks_exact(188).find_map(pcr).unwrap();
        let settings = Settings { thumbnail_every: None, content_quality: true };
        let (watch, examiners) = (Watch::new(start, settings), Examiners::new());
        let mut played = Self { watch, examiners, now: start, events: Vec::new() };
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
        while let Some(job) = self.watch.poll_job(self.now).or_else(|| self.watch.poll_proof(self.now)) {
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
const GROUP_90K: u64 = 90_000;
