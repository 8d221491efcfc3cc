//! Threads with real processes, and what a hostile stream does to the others.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use tempfile::TempDir;

use super::worker::{connection, serve};
use super::{Apart, Deliver, Pool};
use crate::adapters::clock;
use crate::media::quality::Loudness;
use crate::media::watch::{Failure, Findings, Heard, Job, Outcome, PictureFindings, SoundFindings, Work};
use crate::proto::mpegts::demux::{AccessUnit, Codec};
use crate::units::Ticks90k;

#[test]
fn a_crash_of_one_stream_is_not_noticed_by_others() {
    let mut bed = Bed::new();
    let first = bed.look(1, true);
    assert_eq!((first.same, bed.look(1, false).same), (None, Some(true)));
    let (before, heard) = (bed.listen(TONE), bed.listen(TONE));
    let piece = heard.heard.until.0 - before.heard.until.0;
    let loudness = bed.loudness.integrated().expect("it is measured");
    for round in 1..4 {
        // Another one each time: who has crashed once is decoded elsewhere.
        bed.next_hostile();
        bed.next_hostile_sound();
        assert_eq!(
            bed.look(1, false),
            PictureFindings { same: Some(true), ..first.clone() },
            "it stands still as before, round {round}"
        );
        // It gets more quiet by the piece, so what was heard before counts, or not.
        let then = bed.listen(TONE / 2_i16.pow(round));
        let until = Ticks90k(heard.heard.until.0 + u64::from(round) * piece);
        assert_eq!((then.heard.began, then.heard.until), (heard.heard.began, until), "nothing was begun anew");
        let now = bed.loudness.integrated().unwrap();
        assert!((loudness - 3.0..loudness).contains(&now), "{now} after {loudness}");
    }
    assert_eq!([(); 2].map(|()| bed.listen(0).heard.silent_since.is_some()), [false, true]);
    let silent = bed.listen(0).heard.silent_since;
    bed.next_hostile_sound();
    assert_eq!(bed.listen(0).heard.silent_since, silent, "it is silent as before");
    bed.next_hostile_sound();
    let ended = bed.listen(TONE).ended.expect("it was long enough");
    assert_eq!(Some(ended.start), silent);
    // Another picture is what is compared to from then on.
    assert_eq!(bed.picture(1, false, b"nothing of it").result, Err(Failure::Damaged));
    assert_eq!(bed.look(1, true).same, None);
    bed.pool.forget(1);
    assert_eq!(bed.look(1, false).same, None);
}

#[test]
fn what_is_heard_goes_on_where_a_stream_is_no_suspect_any_more() {
    let mut bed = Bed::new();
    bed.listen(TONE);
    assert_eq!(bed.ask(1, Work::Sound { before: None }, vec![unit(Codec::H264, 0, b"abort")]).result, CRASHED);
    bed.heard = None;
    let first = bed.listen(TONE);
    assert_eq!(bed.listen(TONE).heard.began, first.heard.began);
    // Where it was decoded before nothing is known of it.
    bed.later = Duration::from_secs(600);
    assert_eq!(bed.listen(TONE).heard.began, first.heard.began);
    // And where it goes back to something that is not true any more.
    bed.later = Duration::ZERO;
    let last = bed.listen(0).heard;
    assert_eq!((last.began, last.silent_samples), (first.heard.began, PIECE_UNITS * 960));
}

#[test]
fn a_picture_that_cannot_be_shown_again_is_compared_to_nothing() {
    let mut bed = Bed::new();
    // What follows it is not looked at.
    let mut large = PICTURE.to_vec();
    large.resize(5 << 20, 0xff);
    for (bytes, same) in [(PICTURE, Some(true)), (&large, None)] {
        assert!(bed.picture(1, true, bytes).result.is_ok());
        // The thread of stream 1 has nobody else's pictures but those of one that is new to it.
        bed.next_hostile();
        assert_eq!(bed.look(1, false).same, same, "{} bytes", bytes.len());
    }
}

/// Not a test, but what those above start. Nothing is forbidden to it, as there are other threads that run tests.
#[test]
#[ignore = "runs as the decoding process of the other tests here, and does nothing alone"]
fn worker() {
    if std::env::var_os(STARTED).is_some() {
        serve(connection().unwrap(), true).unwrap();
    }
}

struct Bed {
    pool: Pool,
    outcomes: Receiver<(u64, Outcome)>,
    number: u64,
    sounds: u64,
    /// How far stream 1 was listened to, and how loud it is.
    heard: Option<Heard>,
    loudness: Loudness,
    /// How much later jobs are handed in than it is.
    later: Duration,
    _folder: TempDir,
}

impl Bed {
    /// With one thread for pictures.
    fn new() -> Self {
        let (folder, program) = program();
        let (sender, outcomes) = sync_channel(16);
        let deliver: Deliver = Arc::new(move |stream, _, outcome| sender.send((stream, outcome)).unwrap());
        let pool = Pool::new(1, Box::new(move || Box::new(Apart::new(program.clone()))), deliver).unwrap();
        let (number, sounds, heard, loudness, later) = (0, 0, None, Loudness::default(), Duration::ZERO);
        Self { pool, outcomes, number, sounds, heard, loudness, later, _folder: folder }
    }

    /// What a stream's next picture shows.
    fn look(&mut self, stream: u64, anew: bool) -> PictureFindings {
        match self.picture(stream, anew, PICTURE).result {
            Ok(Findings::Picture(findings)) => findings,
            other => panic!("{other:?}"),
        }
    }

    fn picture(&mut self, stream: u64, anew: bool, bytes: &[u8]) -> Outcome {
        self.ask(stream, Work::Picture { thumbnail: false, quality: true, anew }, vec![unit(Codec::H264, 0, bytes)])
    }

    /// A stream that was never seen crashes at its first picture.
    fn next_hostile(&mut self) {
        let stream = 100 + self.number;
        assert_eq!(self.picture(stream, true, b"abort").result, Err(Failure::Crashed));
    }

    /// The same with its sound.
    fn next_hostile_sound(&mut self) {
        let stream = 100 + self.number;
        let units = vec![unit(Codec::Smpte302m, 0, b"abort")];
        assert_eq!(self.ask(stream, Work::Sound { before: None }, units).result, CRASHED);
    }

    /// What is heard in the next second of stream 1's sound, a tone with so high a peak.
    fn listen(&mut self, peak: i16) -> SoundFindings {
        // 20 ms of two channels of 16 bits at 48 kHz (SMPTE ST 302), least significant bits first.
        let mut sound = vec![0x12, 0xc0, 0, 0];
        for at in 0..960 {
            let sample = if at % 48 < 24 { peak } else { -peak };
            let bits = u64::from((sample as u16).reverse_bits());
            sound.extend(&(bits << 24 | bits << 4).to_be_bytes()[3..]);
        }
        let units = (0..PIECE_UNITS).map(|at| unit(Codec::Smpte302m, (self.sounds + at) * 1_800, &sound)).collect();
        self.sounds += PIECE_UNITS;
        match self.ask(1, Work::Sound { before: self.heard }, units).result {
            Ok(Findings::Sound(findings)) => {
                self.heard = Some(findings.heard);
                self.loudness.add(&findings.loudness);
                findings
            }
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, stream: u64, work: Work, units: Vec<Arc<AccessUnit>>) -> Outcome {
        self.number += 1;
        assert!(self.pool.submit(clock::now() + self.later, stream, Job { number: self.number, work, units }));
        let (of, outcome) = self.outcomes.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!((of, outcome.number), (stream, self.number));
        outcome
    }
}

/// This program once more, as one that decodes and does what units tell it to.
fn program() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let [text, program] = ["text", "program"].map(|name| folder.path().join(name));
    let this = std::env::current_exe().unwrap();
    let run = format!("--exact {}::worker --ignored", module_path!().split_once("::").unwrap().1);
    fs::write(&text, format!("#!/bin/sh\n{STARTED}=1 exec {} {run}\n", this.display())).unwrap();
    // Written by another process: what is open for writing here would be so in children that others start.
    let made = Command::new("install").args(["-m", "755"]).args([&text, &program]).status().unwrap();
    assert!(made.success());
    (folder, program)
}

fn unit(codec: Codec, pts: u64, bytes: &[u8]) -> Arc<AccessUnit> {
    let pts = Some(Ticks90k(pts));
    Arc::new(AccessUnit { pid: Default::default(), codec, pts, dts: None, bytes: bytes.to_vec() })
}

/// Set for those that are started here.
const STARTED: &str = "ANABRANCH_TEST_WORKER";
const PICTURE: &[u8] = include_bytes!("../../../tests/data/media/h264_mbaff");
const PIECE_UNITS: u64 = 50;
const TONE: i16 = 8_000;
const CRASHED: Result<Findings, Failure> = Err(Failure::Crashed);
