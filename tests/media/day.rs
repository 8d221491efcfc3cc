//! Hours of normal programme in virtual time: the detectors must not raise an alarm.
//!
//! What it is: scenes that a generator with a seed makes up, of the kinds that look most like a fault (dark scenes, fades
//! through black, stills with grain, two people talking before a wall, credits, pauses in dialogue), sampled as key frames
//! once a second and put through the real detectors. What it is not: pictures of cameras, and what an encoder starved of
//! bits makes of them. A still without any grain for two seconds, or a caption of less than 2 % of the picture on black, is
//! frozen or black by definition and would be said to be.

use anabranch::media::Frame;
use anabranch::media::frame::{Plane, Samples};
use anabranch::media::headers::Chroma;
use anabranch::media::quality::{Black, Freeze, Silence};
use anabranch::media::sound::Sound;
use anabranch::units::Ticks90k;

#[test]
fn a_day_of_normal_programme_raises_no_alarm() {
    let alarms = watch(86_400, &[]);
    eprintln!("24 h, 86400 pictures, {} samples of sound: {alarms:?}", 86_400 * RATE_HZ);
    assert_eq!(alarms, Alarms::default());
}

#[test]
fn the_same_programme_with_three_faults_raises_three_alarms() {
    let faults = [(Fault::Black, 600), (Fault::Frozen, 1_200), (Fault::Silent, 1_800)];
    // What is black does not change either.
    assert_eq!(watch(2_400, &faults), Alarms { black: 1, frozen: 2, silent: 1 });
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

fn watch(seconds: u64, faults: &[(Fault, u64)]) -> Alarms {
    let mut programme = Programme::new(SEED);
    let (mut black, mut freeze, mut silence) = (Black::default(), Freeze::default(), Silence::default());
    let (mut alarms, mut raised) = (Alarms::default(), [false; 3]);
    let mut held = None;
    for second in 0..seconds {
        let at = Ticks90k(second * 90_000);
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
        black.push(&frame, false, at);
        freeze.push(&frame, at);
        silence.push(&Sound { rate: RATE_HZ, channels: &[&sound] }, at);
        let now = [black.since().is_some(), freeze.since().is_some(), silence.since().is_some()];
        let counts = [&mut alarms.black, &mut alarms.frozen, &mut alarms.silent];
        for ((count, now), before) in counts.into_iter().zip(now).zip(std::mem::replace(&mut raised, now)) {
            *count += u32::from(now && !before);
        }
    }
    alarms
}

/// A made-up programme, second by second.
#[derive(Debug)]
struct Programme {
    seed: u64,
    scene: Scene,
    /// Seconds of it that are left, and those that went by.
    left: u32,
    age: u32,
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
    /// Out to black, which is seen at one or two key frames, and in again.
    Fade,
}

impl Programme {
    const fn new(seed: u64) -> Self {
        Self { seed, scene: Scene::Action, left: 5, age: 0, speech: (true, 0) }
    }

    fn second(&mut self) -> (Frame, Vec<f32>) {
        if self.left == 0 {
            let scenes =
                [Scene::Action, Scene::Dialogue, Scene::Still, Scene::Dark, Scene::Pan, Scene::Credits, Scene::Fade];
            self.scene = scenes[self.below(7) as usize];
            self.left = if matches!(self.scene, Scene::Fade) { 4 } else { 3 + self.below(28) };
            self.age = 0;
        }
        let frame = self.frame();
        (self.left, self.age) = (self.left - 1, self.age + 1);
        (frame, self.sound())
    }

    fn frame(&mut self) -> Frame {
        let (age, scene, length) = (self.age as usize, self.scene, self.left + self.age);
        let mut grain = Vec::with_capacity(WIDTH * HEIGHT);
        for _ in 0..WIDTH * HEIGHT {
            grain.push(self.below(3) as u8);
        }
        let shift = self.below(64) as usize;
        // Of the scene, not of the moment.
        let base = (length % 5) as usize * 20;
        picture(|x, y| {
            let texture = (60 + base + (x * 7 + y * 13) % 80) as u8;
            let value = match scene {
                Scene::Action => (40 + (x * 5 + y * 3 + shift * 9) % 180) as u8,
                Scene::Dialogue if (20..26).contains(&(y % 30)) && (10..18).contains(&(x % 32)) => {
                    90 + (shift % 40) as u8
                }
                Scene::Dialogue | Scene::Still => texture,
                Scene::Dark if (x * 31 + y * 17) % 25 == 0 => 60 + (age % 20) as u8,
                Scene::Dark => 20 + ((x + y + age) % 12) as u8,
                Scene::Pan => (60 + base + ((x + 3 * age) * 7 + y * 13) % 80) as u8,
                Scene::Credits if (y + 2 * age) % 6 == 0 && x % 4 != 0 && (8..56).contains(&x) => 220,
                Scene::Credits => 16,
                // Two of its four seconds are below the limit.
                Scene::Fade if age == 1 || age == 2 => 16,
                Scene::Fade => texture / 2 + 20,
            };
            let grained = !matches!(scene, Scene::Credits | Scene::Fade);
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

const SEED: u64 = 0x5eed_0fda_1100;
const FAULT_SECONDS: u64 = 6;
const WIDTH: usize = 64;
const HEIGHT: usize = 36;
/// Enough for a detector that looks at each sample.
const RATE_HZ: u32 = 8_000;
