//! Hours of normal programme in virtual time: a watch must not raise an alarm.
//!
//! What it is: scenes that a generator with a seed makes up, of the kinds that look most like a fault (dark scenes, fades
//! through black, stills with grain, captions that stand still, two people talking before a wall, credits, pauses in
//! dialogue), some of them just short of the limits. They are key frames, one a second, and go the whole way: packets, what
//! a watch asks, answers after the definitions of the real detectors, judging, proofs of edges, events; at the pace that is
//! wanted and with those to which it is stretched. What it is not: pictures of cameras, and what an encoder starved of bits
//! makes of them. A still without any grain for two seconds, or a caption of less than 2 % of the picture on black, is
//! frozen or black by definition and would be said to be.

use std::collections::VecDeque;
use std::time::Duration;

use anabranch::media::Frame;
use anabranch::media::boundary::Turn;
use anabranch::media::frame::{Plane, Samples};
use anabranch::media::headers::Chroma;
use anabranch::media::quality::{Black, Freeze, SPAN_MIN_90K, Silence, Span};
use anabranch::media::sound::Sound;
use anabranch::media::watch::governor::Kind;
use anabranch::media::watch::{
    Defect, Event, Findings, Heard, Job, Outcome, PictureFindings, ProofFindings, Settings, SoundFindings, Watch, Work,
};
use anabranch::units::{Ticks90k, Time};

use crate::stream::Writer;

#[test]
fn a_day_of_normal_programme_raises_no_alarm_however_seldom_it_is_looked_at() {
    for (every, alarms, pictures) in watch(86_400, &[1, 2, 5, 10], &[]) {
        eprintln!("24 h, {pictures} pictures, one each {every} s: {alarms:?}");
        assert_eq!(alarms, Alarms::default(), "{every}");
        assert!(pictures + 10 >= 86_400 / every, "{pictures} at {every}");
    }
}

#[test]
fn the_same_programme_with_three_faults_raises_three_alarms() {
    let faults = [(Fault::Black, 600), (Fault::Frozen, 1_200), (Fault::Silent, 1_800)];
    for (every, alarms, _) in watch(2_400, &[1, 2], &faults) {
        // What is black does not change either.
        assert_eq!(alarms, Alarms { black: 1, frozen: 2, silent: 1 }, "{every}");
    }
}

/// Of [`FAULT_SECONDS`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Black,
    Frozen,
    Silent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Alarms {
    black: u32,
    frozen: u32,
    silent: u32,
}

/// Alarms of watches that look each so many seconds, and how many pictures they looked at.
fn watch(seconds: u64, every: &[u64], faults: &[(Fault, u64)]) -> Vec<(u64, Alarms, u64)> {
    let (mut programme, mut past, mut writer) = (Programme::new(SEED), Past::default(), Writer::default());
    let mut viewers: Vec<Viewer> = every.iter().map(|every| Viewer::new(*every)).collect();
    let mut held = None;
    for second in 0..seconds {
        let (mut frame, mut sound) = programme.second();
        let has = |fault: Fault| {
            faults.iter().any(|(kind, from)| *kind == fault && (*from..from + FAULT_SECONDS).contains(&second))
        };
        if has(Fault::Black) {
            frame = picture(|_, _| 16);
        }
        if has(Fault::Frozen) {
            frame = held.get_or_insert(frame).clone();
        }
        if has(Fault::Silent) {
            sound.fill(0.0);
        }
        past.push(second, frame, &sound);
        let at = Ticks90k(second * 90_000);
        let packets =
            [writer.tables(0x02), writer.picture(Some(at), &KEY_FRAME), writer.sound(at, &[0xff; 16])].concat();
        for viewer in &mut viewers {
            viewer.look(second, &packets, &past);
        }
    }
    let of = |viewer: Viewer| (viewer.every, viewer.alarms, viewer.watch.counts().pictures_decoded);
    viewers.into_iter().map(of).collect()
}

/// What was shown and heard of late.
#[derive(Debug, Default)]
struct Past {
    seconds: VecDeque<Second>,
    silence: Silence,
}

#[derive(Debug)]
struct Second {
    number: u64,
    frame: Frame,
    is_black: bool,
    silent_since: Option<Ticks90k>,
    silence: Option<Span>,
}

impl Past {
    fn push(&mut self, number: u64, frame: Frame, sound: &[f32]) {
        let mut black = Black::default();
        for at in [0, SPAN_MIN_90K] {
            black.push(&frame, false, Ticks90k(at));
        }
        let sound = Sound { rate: RATE_HZ, channels: &[sound], places: &[] };
        let silence = self.silence.push(&sound, Ticks90k(FIRST_90K + number * 90_000));
        let (is_black, silent_since) = (black.since().is_some(), self.silence.since());
        self.seconds.push_back(Second { number, frame, is_black, silent_since, silence });
        if self.seconds.len() > PAST_SECONDS {
            self.seconds.pop_front();
        }
    }

    fn at(&self, pts: Ticks90k) -> &Second {
        let number = (pts.0 - FIRST_90K) / 90_000;
        self.seconds.iter().rfind(|second| second.number == number).unwrap()
    }

    /// When black and freeze began and ended: all pictures up to nearly halfway between two key frames are as the nearer one.
    fn turns(&self, job: &Job, [mut black, mut frozen]: [bool; 2]) -> Vec<(Turn, Ticks90k)> {
        let times: Vec<Ticks90k> = job.units.iter().filter_map(|unit| unit.pts).collect();
        let (mut turns, mut last, mut since) = (Vec::new(), times[0], times[0]);
        for at in times {
            let (from, until) = (Ticks90k(at.0 - PART_90K), Ticks90k(last.0 + PART_90K));
            let now = self.at(at);
            if now.is_black != black {
                black = now.is_black;
                turns.push(if black { (Turn::BlackBegins, from) } else { (Turn::BlackEnds, until) });
            }
            if at != since && is_same(&self.at(since).frame, &now.frame) {
                if !std::mem::replace(&mut frozen, true) {
                    turns.push((Turn::FreezeBegins, Ticks90k(since.0 - PART_90K)));
                }
            } else if at != since {
                if std::mem::take(&mut frozen) {
                    turns.push((Turn::FreezeEnds, until));
                }
                since = at;
            }
            last = at;
        }
        turns.sort_by_key(|turn| turn.1);
        turns
    }
}

/// A watch, and whoever answers it at once.
#[derive(Debug)]
struct Viewer {
    watch: Watch,
    every: u64,
    reference: Option<Frame>,
    heard_from: Option<Ticks90k>,
    alarms: Alarms,
}

impl Viewer {
    fn new(every: u64) -> Self {
        let settings = Settings { thumbnail_every: None, content_quality: true };
        let mut watch = Watch::new(Time::ZERO, settings);
        watch.set_every(Duration::from_secs(every), every > 1);
        Self { watch, every, reference: None, heard_from: None, alarms: Alarms::default() }
    }

    fn look(&mut self, second: u64, packets: &[u8], past: &Past) {
        let now = Time::ZERO + Duration::from_secs(second);
        self.watch.handle_packet(now, packets);
        for now in [now, now + Duration::from_millis(500)] {
            self.watch.handle_timeout(now);
            while let Some(job) = next_job(&mut self.watch, now) {
                let result = Ok(self.examine(&job, past));
                let outcome = Outcome { number: job.number, result, cpu: Duration::from_millis(1) };
                self.watch.handle_outcome(now, outcome);
            }
        }
        while let Some(event) = self.watch.poll_event() {
            let Event::Began { defect, .. } = event else { continue };
            *match defect {
                Defect::Black => &mut self.alarms.black,
                Defect::Frozen => &mut self.alarms.frozen,
                Defect::Silent => &mut self.alarms.silent,
            } += 1;
        }
    }

    fn examine(&mut self, job: &Job, past: &Past) -> Findings {
        let last = past.at(job.units.last().unwrap().pts.unwrap());
        match job.work {
            Work::Picture { .. } => {
                let same = self.reference.as_ref().map(|reference| is_same(reference, &last.frame));
                if same != Some(true) {
                    self.reference = Some(last.frame.clone());
                }
                Findings::Picture(PictureFindings { black: Some(last.is_black), same, thumbnail: None })
            }
            Work::Sound { .. } => {
                let until = Ticks90k(FIRST_90K + (last.number + 1) * 90_000);
                let from = *self.heard_from.get_or_insert(until);
                Findings::Sound(SoundFindings {
                    heard: Heard { began: from, until, silent_since: last.silent_since, silent_samples: 0 },
                    ended: last.silence,
                    decoded: job.units.len() as u32,
                    ..SoundFindings::default()
                })
            }
            Work::Proof { black, frozen } => Findings::Proof(ProofFindings { edges: past.turns(job, [black, frozen]) }),
        }
    }
}

/// What the watch wants to have done next, whatever it is.
pub(crate) fn next_job(watch: &mut Watch, now: Time) -> Option<Job> {
    let job = Kind::ALL.into_iter().find_map(|kind| watch.poll_job(now, kind));
    job.or_else(|| watch.poll_proof(now))
}

/// Whether the detector would take both for a picture that stands still.
fn is_same(before: &Frame, now: &Frame) -> bool {
    let mut freeze = Freeze::default();
    freeze.push(before, Ticks90k(0));
    freeze.push(now, Ticks90k(SPAN_MIN_90K));
    freeze.since().is_some()
}

/// A made-up programme, second by second.
#[derive(Debug)]
struct Programme {
    seed: u64,
    scene: Scene,
    /// Seconds of it that are left, and those that went by.
    left: u32,
    age: u32,
    /// How bright it is.
    base: u32,
    /// Samples until the present pause or the present piece of speech is over.
    speech: (bool, u32),
}

#[derive(Clone, Copy, Debug)]
enum Scene {
    /// All moves.
    Action,
    /// A wall, and two mouths that move.
    Dialogue,
    /// A photograph with the grain of film.
    Still,
    /// Night: most is below the limit of black, lamps and faces are not.
    Dark,
    /// A camera that pans by a few pixels a second.
    Pan,
    /// White lines that roll over black.
    Credits,
    /// Out to black, for a moment less than would be too long, and in again.
    Fade,
    /// Black but for one pixel more than makes it so.
    Night,
    /// A caption without grain, for as long as the black of the fade.
    Caption,
    /// A still without grain, but for a clock that changes just enough.
    Clock,
}

impl Programme {
    const fn new(seed: u64) -> Self {
        Self { seed, scene: Scene::Action, left: 5, age: 0, base: 0, speech: (true, 0) }
    }

    fn second(&mut self) -> (Frame, Vec<f32>) {
        if self.left == 0 {
            // Not the same again: two captions could be one.
            self.scene =
                SCENES[(self.scene as usize + 1 + self.below(SCENES.len() as u32 - 1) as usize) % SCENES.len()];
            self.left = if matches!(self.scene, Scene::Fade) {
                4
            } else if matches!(self.scene, Scene::Caption) {
                2
            } else {
                3 + self.below(28)
            };
            self.base = self.below(80);
            self.age = 0;
        }
        let frame = self.frame();
        (self.left, self.age) = (self.left - 1, self.age + 1);
        (frame, self.sound())
    }

    fn frame(&mut self) -> Frame {
        let (age, scene, base) = (self.age as usize, self.scene, self.base as usize);
        let mut grain = Vec::with_capacity(WIDTH * HEIGHT);
        for _ in 0..WIDTH * HEIGHT {
            grain.push(self.below(3) as u8);
        }
        let shift = self.below(64) as usize;
        picture(|x, y| {
            let texture = (60 + base + (x * 7 + y * 13) % 80) as u8;
            let value = match scene {
                Scene::Action => (40 + (x * 5 + y * 3 + shift * 9) % 180) as u8,
                Scene::Dialogue if (20..26).contains(&(y % 30)) && (10..18).contains(&(x % 32)) => {
                    90 + (shift % 40) as u8
                }
                // Ten pixels by 90.
                Scene::Clock if y == 0 => 60 + 90 * u8::from(x / 5 == age % 12),
                Scene::Dialogue | Scene::Still | Scene::Caption | Scene::Clock => texture,
                Scene::Night if y * WIDTH + x <= WIDTH * HEIGHT / 50 => 90,
                Scene::Night => 16,
                Scene::Dark if (x * 31 + y * 17) % 25 == 0 => 60 + (age % 20) as u8,
                Scene::Dark => 20 + ((x + y + age) % 12) as u8,
                Scene::Pan => (60 + base + ((x + 3 * age) * 7 + y * 13) % 80) as u8,
                Scene::Credits if (y + 2 * age) % 6 == 0 && x % 4 != 0 && (8..56).contains(&x) => 220,
                Scene::Credits => 16,
                Scene::Fade if age == 1 || age == 2 => 16,
                Scene::Fade => texture / 2 + 20,
            };
            let grained = !matches!(scene, Scene::Credits | Scene::Fade | Scene::Caption | Scene::Clock);
            if grained { value + grain[y * WIDTH + x] } else { value }
        })
    }

    /// Speech with pauses of digital silence, the longest just short of two seconds.
    fn sound(&mut self) -> Vec<f32> {
        let mut samples = Vec::with_capacity(RATE_HZ as usize);
        while samples.len() < RATE_HZ as usize {
            if self.speech.1 == 0 {
                let speaks = !self.speech.0;
                let tenths = if speaks { 2 + self.below(60) } else { 1 + self.below(19) };
                self.speech = (speaks, tenths * RATE_HZ / 10);
            }
            let count = self.speech.1.min(RATE_HZ - samples.len() as u32);
            let level = if self.speech.0 { 0.002 + self.below(100) as f32 / 400.0 } else { 0.0 };
            samples.extend((0..count).map(|n| if n % 2 == 0 { level } else { -level }));
            self.speech.1 -= count;
        }
        samples
    }

    /// A number below `end`; xorshift.
    const fn below(&mut self, end: u32) -> u32 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        ((self.seed >> 32) % end as u64) as u32
    }
}

fn picture(value: impl Fn(usize, usize) -> u8) -> Frame {
    let mut luma = Vec::with_capacity(WIDTH * HEIGHT);
    for y in 0..HEIGHT {
        luma.extend((0..WIDTH).map(|x| value(x, y)));
    }
    let plane = |width, height, samples| Plane { width, height, samples: Samples::Byte(samples) };
    let colour = || plane(WIDTH / 2, HEIGHT / 2, vec![128; WIDTH * HEIGHT / 4]);
    Frame { chroma: Chroma::Yuv420, depth: 8, planes: [plane(WIDTH, HEIGHT, luma), colour(), colour()] }
}

/// In the order in which they are declared.
const SCENES: [Scene; 10] = [
    Scene::Action,
    Scene::Dialogue,
    Scene::Still,
    Scene::Dark,
    Scene::Pan,
    Scene::Credits,
    Scene::Fade,
    Scene::Night,
    Scene::Caption,
    Scene::Clock,
];
/// A picture of MPEG-1 that can be decoded alone, as far as its headers say: 64x36, 25 a second.
pub(crate) const KEY_FRAME: [u8; 26] = [
    0, 0, 1, 0xb3, 0x04, 0x00, 0x24, 0x13, 0xff, 0xff, 0xe0, 0xa0, 0, 0, 1, 0, 0x00, 0x0f, 0xff, 0xf8, 0, 0, 1, 1,
    0x13, 0xf8,
];
/// A watch unwraps times so that there are some before the first.
const FIRST_90K: u64 = 1 << 33;
/// Of what a key frame shows, before and behind it: two of them a second apart show 1.9 s.
const PART_90K: u64 = 40_500;
/// More than a watch keeps.
const PAST_SECONDS: usize = 40;
const SEED: u64 = 0x5eed_0fda_1100;
const FAULT_SECONDS: u64 = 6;
const WIDTH: usize = 64;
const HEIGHT: usize = 36;
/// Enough for a detector that looks at each sample.
const RATE_HZ: u32 = 8_000;
