//! Jobs and outcomes as bytes, for a decoder in a process of its own.
//!
//! A format of our own, between two copies of one program: little-endian numbers, lengths before what they count. The side
//! that decodes is not trusted, as whoever took it over may send anything: every length is bounded, and what does not
//! read to its very end is refused.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::job::{
    EDGES_MAX, Failure, Findings, Heard, JOB_BYTES_MAX, JOB_UNITS_MAX, Job, Outcome, PictureFindings, ProofFindings,
    SOUND_UNITS_MAX, SoundFindings, TENTHS_MAX, Work,
};
use crate::media::boundary::Turn;
use crate::media::quality::{Measured, Span};
use crate::media::thumbnail::{self, Thumbnail};
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::demux::{AccessUnit, Codec, UNIT_BYTES_MAX};
use crate::units::Ticks90k;

/// What is sent to whoever decodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Do this for a stream, and answer with its [`Outcome`].
    Do(u64, Job),
    /// Forget a stream. There is no answer.
    Forget(u64),
}

/// A message that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub struct WireError;

impl Request {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Do(stream, job) => {
                let bytes: usize = job.units.iter().map(|unit| unit.bytes.len() + UNIT_HEADER_BYTES).sum();
                let mut out = Writer(Vec::with_capacity(bytes + UNIT_HEADER_BYTES));
                out.byte(TAG_DO);
                out.u64(*stream);
                out.u64(job.number);
                out.byte(match job.work {
                    Work::Picture { thumbnail, quality, anew } => {
                        u8::from(thumbnail) | u8::from(quality) << 1 | u8::from(anew) << 2
                    }
                    Work::Sound { before } => WORK_SOUND | u8::from(before.is_some()),
                    Work::Proof { black, frozen } => WORK_PROOF | u8::from(black) | u8::from(frozen) << 1,
                });
                if let Work::Sound { before: Some(before) } = &job.work {
                    out.heard(before);
                }
                out.u32(job.units.len() as u32);
                job.units.iter().for_each(|unit| out.unit(unit));
                out.0
            }
            Self::Forget(stream) => {
                let mut out = Writer(Vec::new());
                out.byte(TAG_FORGET);
                out.u64(*stream);
                out.0
            }
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let request = match reader.byte()? {
            TAG_DO => {
                let stream = reader.u64()?;
                let number = reader.u64()?;
                let flags = reader.byte()?;
                let flag = |bit: u8| flags >> bit & 1 != 0;
                let (work, units_max) = match flags {
                    0..=7 => (Work::Picture { thumbnail: flag(0), quality: flag(1), anew: flag(2) }, JOB_UNITS_MAX),
                    8 | 9 => {
                        let before = if flag(0) { Some(reader.heard()?) } else { None };
                        (Work::Sound { before }, SOUND_UNITS_MAX)
                    }
                    16..=19 => (Work::Proof { black: flag(0), frozen: flag(1) }, JOB_UNITS_MAX),
                    _ => return Err(WireError),
                };
                let count = reader.length(units_max)?;
                let units = (0..count).map(|_| reader.unit().map(Arc::new)).collect::<Result<_, _>>()?;
                Self::Do(stream, Job { number, work, units })
            }
            TAG_FORGET => Self::Forget(reader.u64()?),
            _ => return Err(WireError),
        };
        reader.end(request)
    }
}

impl Outcome {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        out.u64(self.number);
        out.u64(u64::try_from(self.cpu.as_nanos()).unwrap_or(u64::MAX));
        match &self.result {
            Ok(Findings::Picture(findings)) => {
                out.byte(TAG_PICTURE);
                out.byte(trool(findings.black) | trool(findings.same) << 2);
                out.byte(u8::from(findings.thumbnail.is_some()));
                if let Some(thumbnail) = &findings.thumbnail {
                    out.u32(u32::from(thumbnail.width) << 16 | u32::from(thumbnail.height));
                    out.bytes(&thumbnail.jpeg);
                }
            }
            Ok(Findings::Sound(findings)) => {
                out.byte(TAG_SOUND);
                out.sound(findings);
            }
            Ok(Findings::Proof(findings)) => {
                out.byte(TAG_PROOF);
                out.u32(findings.edges.len() as u32);
                for (turn, at) in &findings.edges {
                    out.byte(*turn as u8);
                    out.u64(at.0);
                }
            }
            Err(Failure::Unsupported(what)) => {
                out.byte(TAG_UNSUPPORTED);
                let mut end = what.len().min(WHAT_BYTES_MAX);
                while !what.is_char_boundary(end) {
                    end -= 1;
                }
                out.bytes(&what.as_bytes()[..end]);
            }
            Err(Failure::Damaged) => out.byte(TAG_DAMAGED),
            Err(Failure::Crashed) => out.byte(TAG_CRASHED),
            Err(Failure::NotStarted) => out.byte(TAG_NOT_STARTED),
        }
        out.0
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let number = reader.u64()?;
        let cpu = Duration::from_nanos(reader.u64()?);
        let result = match reader.byte()? {
            TAG_PICTURE => {
                let flags = reader.byte()?;
                let thumbnail = match reader.byte()? {
                    0 => None,
                    1 => Some(reader.thumbnail()?),
                    _ => return Err(WireError),
                };
                let (black, same) = (from_trool(flags & 3)?, from_trool(flags >> 2)?);
                Ok(Findings::Picture(PictureFindings { black, same, thumbnail }))
            }
            TAG_SOUND => Ok(Findings::Sound(reader.sound()?)),
            TAG_PROOF => {
                let count = reader.length(EDGES_MAX)?;
                let edges = (0..count).map(|_| reader.edge()).collect::<Result<_, _>>()?;
                Ok(Findings::Proof(ProofFindings { edges }))
            }
            TAG_UNSUPPORTED => {
                let text = std::str::from_utf8(reader.bytes(WHAT_BYTES_MAX)?).map_err(|_| WireError)?;
                // It may be shown to people.
                let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
                Err(Failure::Unsupported(Cow::Owned(text)))
            }
            TAG_DAMAGED => Err(Failure::Damaged),
            TAG_CRASHED => Err(Failure::Crashed),
            TAG_NOT_STARTED => Err(Failure::NotStarted),
            _ => return Err(WireError),
        };
        reader.end(Self { number, result, cpu })
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend(bytes);
    }

    fn optional(&mut self, value: Option<u64>) {
        self.byte(u8::from(value.is_some()));
        self.u64(value.unwrap_or(0));
    }

    fn unit(&mut self, unit: &AccessUnit) {
        self.byte(unit.codec as u8);
        self.u32(u32::from(unit.pid.value()));
        self.optional(unit.pts.map(|pts| pts.0));
        self.optional(unit.dts.map(|dts| dts.0));
        self.bytes(&unit.bytes);
    }

    fn heard(&mut self, heard: &Heard) {
        self.u64(heard.began.0);
        self.u64(heard.until.0);
        self.optional(heard.silent_since.map(|since| since.0));
        self.u64(heard.silent_samples);
    }

    fn sound(&mut self, findings: &SoundFindings) {
        self.heard(&findings.heard);
        self.optional(findings.ended.map(|span| span.start.0));
        self.optional(findings.ended.map(|span| span.end.0));
        let Measured { format, tenths, peak } = &findings.loudness;
        self.optional(format.map(|(rate, channels)| u64::from(rate) << 8 | u64::from(channels)));
        self.u32(peak.to_bits());
        self.u32(tenths.len() as u32);
        tenths.iter().for_each(|energy| self.u64(energy.to_bits()));
        self.u32(findings.decoded);
        self.u32(findings.failed);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WireError)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.first_chunk().copied().ok_or(WireError)
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    fn length(&mut self, max: usize) -> Result<usize, WireError> {
        usize::try_from(self.u32()?).ok().filter(|length| *length <= max).ok_or(WireError)
    }

    fn bytes(&mut self, max: usize) -> Result<&'a [u8], WireError> {
        let length = self.length(max)?;
        self.take(length)
    }

    fn optional(&mut self) -> Result<Option<u64>, WireError> {
        let is_there = self.byte()?;
        let value = self.u64()?;
        match is_there {
            0 => Ok(None),
            1 => Ok(Some(value)),
            _ => Err(WireError),
        }
    }

    fn ticks(&mut self) -> Result<Option<Ticks90k>, WireError> {
        Ok(self.optional()?.map(Ticks90k))
    }

    fn heard(&mut self) -> Result<Heard, WireError> {
        let (began, until) = (Ticks90k(self.u64()?), Ticks90k(self.u64()?));
        Ok(Heard { began, until, silent_since: self.ticks()?, silent_samples: self.u64()?.min(SILENT_SAMPLES_MAX) })
    }

    fn measured(&mut self) -> Result<Measured, WireError> {
        let format = self.optional()?.map(|format| u32::try_from(format >> 8).map(|rate| (rate, format as u8)));
        let format = format.transpose().map_err(|_| WireError)?;
        // Nothing else can be computed with.
        let is_amount = |value: f64| value.is_finite() && value.is_sign_positive();
        let peak = f32::from_bits(self.u32()?);
        let count = self.length(TENTHS_MAX)?;
        let tenths = (0..count).map(|_| self.u64().map(f64::from_bits)).collect::<Result<Vec<f64>, _>>()?;
        if !is_amount(peak.into()) || !tenths.iter().all(|energy| is_amount(*energy)) {
            return Err(WireError);
        }
        // What is added up for as long as a stream is watched stays a number.
        let tenths = tenths.into_iter().map(|energy| energy.min(ENERGY_MAX)).collect();
        Ok(Measured { format, tenths, peak: peak.min(PEAK_MAX) })
    }

    fn unit(&mut self) -> Result<AccessUnit, WireError> {
        let codec = usize::from(self.byte()?);
        let codec = Codec::ALL.into_iter().find(|other| *other as usize == codec).ok_or(WireError)?;
        let pid = u16::try_from(self.u32()?).ok().and_then(Pid::new).ok_or(WireError)?;
        let (pts, dts) = (self.ticks()?, self.ticks()?);
        let bytes = self.bytes(UNIT_BYTES_MAX)?.to_vec();
        Ok(AccessUnit { pid, codec, pts, dts, bytes })
    }

    fn edge(&mut self) -> Result<(Turn, Ticks90k), WireError> {
        let turn = usize::from(self.byte()?);
        let turn = TURNS.into_iter().find(|other| *other as usize == turn).ok_or(WireError)?;
        Ok((turn, Ticks90k(self.u64()?)))
    }

    fn thumbnail(&mut self) -> Result<Thumbnail, WireError> {
        let size = self.u32()?;
        let (width, height) = ((size >> 16) as u16, size as u16);
        if width > thumbnail::WIDTH_MAX || height > thumbnail::HEIGHT_MAX {
            return Err(WireError);
        }
        Ok(Thumbnail { width, height, jpeg: self.bytes(JPEG_BYTES_MAX)?.to_vec() })
    }

    fn sound(&mut self) -> Result<SoundFindings, WireError> {
        let heard = self.heard()?;
        let ended = match (self.ticks()?, self.ticks()?) {
            (Some(start), Some(end)) => Some(Span { start, end }),
            _ => None,
        };
        let loudness = self.measured()?;
        let (decoded, failed) = (self.u32()?, self.u32()?);
        Ok(SoundFindings { heard, ended, loudness, decoded, failed })
    }

    fn end<T>(&self, value: T) -> Result<T, WireError> {
        if self.0.is_empty() { Ok(value) } else { Err(WireError) }
    }
}

fn trool(value: Option<bool>) -> u8 {
    value.map_or(0, |value| 1 + u8::from(value))
}

const fn from_trool(value: u8) -> Result<Option<bool>, WireError> {
    match value {
        0 => Ok(None),
        1 => Ok(Some(false)),
        2 => Ok(Some(true)),
        _ => Err(WireError),
    }
}

/// The body of the fuzz target `media_worker`, which tests call as well: any bytes as messages, and what they hold as bytes.
///
/// # Panics
/// If what was read is not what is written.
pub fn check_any_bytes(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(outcome) = Outcome::decode(bytes) {
        assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
    }
}

/// Longest message: a job, with what is said of its units.
pub const MESSAGE_BYTES_MAX: usize = JOB_BYTES_MAX + (JOB_UNITS_MAX + 1) * UNIT_HEADER_BYTES;
const UNIT_HEADER_BYTES: usize = 32;
/// Noise is longer than thumbnails are meant to be, but not so long.
const JPEG_BYTES_MAX: usize = 128 << 10;
const WHAT_BYTES_MAX: usize = 200;
/// Largest energy and peak of sound. Judgement: 60 dB above full scale.
const ENERGY_MAX: f64 = 1e6;
const PEAK_MAX: f32 = 1e3;
/// Judgement: silence of centuries.
const SILENT_SAMPLES_MAX: u64 = 1 << 50;

const TAG_DO: u8 = 1;
const TAG_FORGET: u8 = 2;
const TAG_PICTURE: u8 = 3;
const TAG_SOUND: u8 = 4;
const TAG_UNSUPPORTED: u8 = 5;
const TAG_DAMAGED: u8 = 6;
const TAG_CRASHED: u8 = 7;
const TAG_PROOF: u8 = 8;
const TAG_NOT_STARTED: u8 = 9;
const WORK_SOUND: u8 = 8;
const WORK_PROOF: u8 = 16;
const TURNS: [Turn; 4] = [Turn::BlackBegins, Turn::BlackEnds, Turn::FreezeBegins, Turn::FreezeEnds];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_and_no_part_of_them_is_one() {
        let picture = request(Work::Picture { thumbnail: true, quality: false, anew: true });
        let proof = request(Work::Proof { black: false, frozen: true });
        let sound = request(Work::Sound { before: Some(HEARD) });
        for request in [picture, proof, sound, Request::Forget(7)] {
            let bytes = request.encode();
            assert_eq!(Request::decode(&bytes), Ok(request));
            for len in 0..bytes.len() {
                assert_eq!(Request::decode(&bytes[..len]), Err(WireError));
            }
        }
        for outcome in outcomes() {
            let bytes = outcome.encode();
            assert_eq!(Outcome::decode(&bytes), Ok(outcome));
            for len in 0..bytes.len() {
                assert_eq!(Outcome::decode(&bytes[..len]), Err(WireError));
            }
        }
    }

    #[test]
    fn what_is_longer_than_allowed_is_refused() {
        let long = |what: &str| Outcome {
            number: 1,
            result: Err(Failure::Unsupported(what.to_string().into())),
            cpu: Duration::ZERO,
        };
        assert_eq!(Outcome::decode(&long(&"ü".repeat(150)).encode()), Ok(long(&"ü".repeat(100))));
        assert_eq!(Outcome::decode(&long("a\u{1b}[31mb").encode()), Ok(long("a[31mb")));
        let Request::Do(stream, mut job) = request(Work::Sound { before: None }) else { unreachable!() };
        job.units = vec![Arc::clone(&job.units[0]); SOUND_UNITS_MAX + 1];
        assert_eq!(Request::decode(&Request::Do(stream, job).encode()), Err(WireError));
    }

    #[test]
    fn what_is_no_amount_of_loudness_is_refused() {
        let sound = |tenth, peak| {
            let loudness = Measured { format: None, tenths: vec![tenth], peak };
            let findings = Findings::Sound(SoundFindings { loudness, ..SoundFindings::default() });
            Outcome::decode(&Outcome { number: 1, result: Ok(findings), cpu: Duration::ZERO }.encode())
        };
        assert!(sound(0.5, 1.5).is_ok());
        for (tenth, peak) in [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (-0.5, 1.0), (0.5, f32::NAN), (0.5, -1.0)] {
            assert_eq!(sound(tenth, peak), Err(WireError), "{tenth} {peak}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            check_any_bytes(&bytes);
        }

        #[test]
        fn changed_messages_do_no_harm(
            which in 0_usize..8,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let mut messages: Vec<_> = outcomes().iter().map(Outcome::encode).collect();
            messages.push(request(Work::Sound { before: Some(HEARD) }).encode());
            let mut bytes = messages.swap_remove(which % messages.len());
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            check_any_bytes(&bytes);
        }
    }

    #[test]
    fn every_codec_has_its_number() {
        for codec in Codec::ALL {
            let Request::Do(stream, mut job) = request(Work::Sound { before: None }) else { unreachable!("a job") };
            job.units.iter_mut().for_each(|unit| Arc::make_mut(unit).codec = codec);
            let request = Request::Do(stream, job);
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    }

    const HEARD: Heard =
        Heard { began: Ticks90k(3), until: Ticks90k(5), silent_since: Some(Ticks90k(4)), silent_samples: 700 };

    fn request(work: Work) -> Request {
        let unit = AccessUnit {
            pid: Pid::from_low_bits(0x101),
            codec: Codec::Hevc,
            pts: Some(Ticks90k(1 << 40)),
            dts: None,
            bytes: vec![1, 2, 3],
        };
        Request::Do(3, Job { number: 9, work, units: vec![Arc::new(unit.clone()), Arc::new(unit)] })
    }

    fn outcomes() -> Vec<Outcome> {
        let thumbnail = Some(Thumbnail { width: 480, height: 270, jpeg: vec![0xff, 0xd8] });
        let picture = PictureFindings { black: Some(true), same: Some(false), thumbnail };
        let sound = SoundFindings {
            heard: HEARD,
            ended: Some(Span { start: Ticks90k(1), end: Ticks90k(2) }),
            loudness: Measured { format: Some((48_000, 6)), tenths: vec![0.25, 0.0], peak: 0.5 },
            decoded: 12,
            failed: 1,
        };
        let results = [
            Ok(Findings::Picture(picture)),
            Ok(Findings::Sound(sound)),
            Ok(Findings::Proof(ProofFindings { edges: vec![(Turn::FreezeEnds, Ticks90k(9))] })),
            Err(Failure::Unsupported("4:4:4".into())),
            Err(Failure::Damaged),
            Err(Failure::Crashed),
            Err(Failure::NotStarted),
        ];
        results.into_iter().map(|result| Outcome { number: 8, result, cpu: Duration::from_micros(17) }).collect()
    }
}
