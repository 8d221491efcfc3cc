//! Decodes the units of one stream, and says what they show. Runs where a crash hurts nobody.

use std::borrow::Cow;

use super::job::{
    EDGES_MAX, Failure, Findings, Heard, Job, PictureFindings, ProofFindings, SoundFindings, TENTHS_MAX, Work,
};
use crate::media::boundary::{self, Before, ProofError, Turn};
use crate::media::decode::{DecodeError, KeyFrames, Shown};
use crate::media::frame::{Frame, Samples};
use crate::media::quality::{Meter, Sampled, Silence, is_black, is_same};
use crate::media::sound::SoundDecoder;
use crate::media::thumbnail::Thumbnail;
use crate::proto::mpegts::demux::{AccessUnit, Codec};
use crate::units::Ticks90k;

/// What is kept of one stream between its jobs: the picture that others are compared to, and the state of sound's decoder.
///
/// Pictures are decoded alone, each by a decoder of its own: that costs no more, as measured, and neither memory nor what a
/// decoder was led into lasts longer than a picture.
#[derive(Debug, Default)]
pub struct Examiner {
    reference: Option<Reference>,
    sound: Option<Listening>,
}

/// What pictures are compared to.
#[derive(Debug)]
enum Reference {
    Whole(Frame),
    /// Where there is no room for all of it.
    Sampled(Sampled),
}

impl Reference {
    fn is_same(&self, frame: &Frame) -> bool {
        match self {
            Self::Whole(whole) => is_same(whole, frame),
            Self::Sampled(sampled) => sampled.is_same(frame),
        }
    }
}

#[derive(Debug)]
struct Listening {
    codec: Codec,
    decoder: SoundDecoder,
    silence: Silence,
    meter: Meter,
    /// Where listening without a break began, and how far it came.
    began: Ticks90k,
    until: Ticks90k,
}

impl Examiner {
    /// Of a stream that nothing came from.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Does what the job asks for.
    ///
    /// # Errors
    /// Why there is nothing to tell.
    pub fn examine(&mut self, job: &Job) -> Result<Findings, Failure> {
        match job.work {
            Work::Picture { thumbnail, quality, anew } => {
                if anew {
                    self.reference = None;
                }
                let shown = decode_picture(job)?;
                self.look(shown, thumbnail, quality).map(Findings::Picture)
            }
            Work::Sound { before } => self.listen(job, before).map(Findings::Sound),
            Work::Proof { black, frozen } => prove(job, Before { black, frozen }).map(Findings::Proof),
        }
    }

    /// Bytes of the picture that is kept.
    #[must_use]
    pub fn bytes_kept(&self) -> usize {
        self.reference.as_ref().map_or(0, |reference| match reference {
            Reference::Whole(frame) => frame_bytes(frame),
            Reference::Sampled(sampled) => frame_bytes(sampled.frame()),
        })
    }

    /// Whether the picture is kept as a whole.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.reference, Some(Reference::Whole(_)))
    }

    /// Keeps a sixteenth of the picture: whether the next one is like it is told by that.
    pub fn reduce_picture(&mut self) {
        if let Some(Reference::Whole(frame)) = &self.reference {
            self.reference = Some(Reference::Sampled(Sampled::new(frame)));
        }
    }

    /// Gives up the picture that is kept: the next one is compared to nothing.
    pub fn forget_picture(&mut self) {
        self.reference = None;
    }

    fn look(&mut self, shown: Shown, thumbnail: bool, quality: bool) -> Result<PictureFindings, Failure> {
        let thumbnail = if thumbnail {
            Some(Thumbnail::new(&shown.frame, &shown.display).map_err(|_| Failure::Damaged)?)
        } else {
            None
        };
        if !quality {
            return Ok(PictureFindings { black: None, same: None, thumbnail });
        }
        let black = is_black(&shown.frame, shown.display.colour.full_range);
        let same = self.reference.as_ref().map(|reference| reference.is_same(&shown.frame));
        if same != Some(true) {
            self.reference = Some(Reference::Whole(shown.frame));
        }
        Ok(PictureFindings { black: Some(black), same, thumbnail })
    }

    fn listen(&mut self, job: &Job, mut before: Option<Heard>) -> Result<SoundFindings, Failure> {
        // What is kept may be of long ago, if somebody else listened since.
        self.sound.take_if(|kept| before != Some(kept.heard()));
        let mut findings = SoundFindings::default();
        let mut failure = None;
        for unit in &job.units {
            let listening = self.listening(unit, before.take())?;
            match listening.listen(unit, &mut findings) {
                Ok(()) => findings.decoded += 1,
                Err(error) => {
                    findings.failed += 1;
                    failure = Some(failure_of(error));
                }
            }
        }
        if let (0, Some(failure)) = (findings.decoded, failure) {
            self.sound = None;
            return Err(failure);
        }
        if let Some(listening) = &mut self.sound {
            findings.heard = listening.heard();
            findings.loudness = listening.meter.take();
            let over = findings.loudness.tenths.len().saturating_sub(TENTHS_MAX);
            findings.loudness.tenths.drain(..over);
        }
        Ok(findings)
    }

    /// What goes on from before. After a break, silence begins anew; what is loud is measured over all of it.
    fn listening(&mut self, unit: &AccessUnit, before: Option<Heard>) -> Result<&mut Listening, Failure> {
        let kept = self.sound.take().filter(|kept| kept.codec == unit.codec);
        let mut listening = match kept {
            Some(kept) => kept,
            None => Listening::new(unit, before)?,
        };
        if unit.pts.is_some_and(|pts| pts.0.abs_diff(listening.until.0) > BREAK_MIN_90K) {
            let meter = std::mem::take(&mut listening.meter);
            listening = Listening { meter, ..Listening::new(unit, None)? };
        }
        Ok(self.sound.insert(listening))
    }
}

impl Listening {
    /// That begins with the unit, or goes on from before it.
    fn new(unit: &AccessUnit, before: Option<Heard>) -> Result<Self, Failure> {
        let decoder = SoundDecoder::new(unit.codec).map_err(failure_of)?;
        let pts = unit.pts.unwrap_or_default();
        let before = before.unwrap_or_else(|| Heard { began: pts, until: pts, ..Heard::default() });
        let silence = Silence::resumed(before.silent_since, before.silent_samples);
        let (codec, meter) = (unit.codec, Meter::default());
        Ok(Self { codec, decoder, silence, meter, began: before.began, until: before.until })
    }

    const fn heard(&self) -> Heard {
        let (silent_since, silent_samples) = (self.silence.since(), self.silence.samples());
        Heard { began: self.began, until: self.until, silent_since, silent_samples }
    }

    fn listen(&mut self, unit: &AccessUnit, findings: &mut SoundFindings) -> Result<(), DecodeError> {
        let mut pts = unit.pts.unwrap_or(self.until);
        let (silence, meter) = (&mut self.silence, &mut self.meter);
        let outcome = self.decoder.decode(unit, |sound| {
            findings.ended = silence.push(&sound, pts).or(findings.ended);
            meter.push(&sound);
            let samples = sound.channels.first().map_or(0, |channel| channel.len()) as u64;
            pts.0 = pts.0.saturating_add(samples * 90_000 / u64::from(sound.rate.max(1)));
        });
        self.until = pts;
        outcome
    }
}

fn decode_picture(job: &Job) -> Result<Shown, Failure> {
    let codec = job.units.first().ok_or(Failure::Damaged)?.codec;
    let mut key_frames = KeyFrames::new(codec);
    let mut last = Err(Failure::Damaged);
    for unit in &job.units {
        match key_frames.push(unit, true) {
            Some(Ok(shown)) => last = Ok(shown),
            Some(Err(error)) => return Err(failure_of(error)),
            None => {}
        }
    }
    last
}

fn prove(job: &Job, before: Before) -> Result<ProofFindings, Failure> {
    let units: Vec<AccessUnit> = job.units.iter().map(|unit| AccessUnit::clone(unit)).collect();
    match boundary::prove(&units, before) {
        Ok(proof) => {
            let edges: Vec<_> = proof.edges.iter().map(|edge| (edge.turn, edge.at)).collect();
            Ok(ProofFindings { edges: few(&edges, before.black || before.frozen) })
        }
        Err(ProofError::TooMuch) => Err(Failure::Unsupported(Cow::Borrowed("too much to decode"))),
        Err(ProofError::Decode(error)) => Err(failure_of(error)),
    }
}

/// Of each kind the first ones if it is an end that is looked for, or else the last.
fn few(edges: &[(Turn, Ticks90k)], first: bool) -> Vec<(Turn, Ticks90k)> {
    let is_kept = |at: usize, turn: Turn| {
        let others = if first { &edges[..at] } else { &edges[at + 1..] };
        others.iter().filter(|other| other.0 == turn).take(EDGES_MAX / TURNS).count() < EDGES_MAX / TURNS
    };
    edges.iter().enumerate().filter(|(at, edge)| is_kept(*at, edge.0)).map(|(_, edge)| *edge).collect()
}

fn failure_of(error: DecodeError) -> Failure {
    match error {
        DecodeError::Unsupported(what) => Failure::Unsupported(Cow::Borrowed(what)),
        DecodeError::TooLarge => Failure::Unsupported(Cow::Borrowed("larger than 8192x4352")),
        DecodeError::Damaged(_) => Failure::Damaged,
    }
}

fn frame_bytes(frame: &Frame) -> usize {
    let bytes = |samples: &Samples| match samples {
        Samples::Byte(samples) => samples.len(),
        Samples::Word(samples) => samples.len() * 2,
    };
    frame.planes.iter().map(|plane| bytes(&plane.samples)).sum()
}

/// A hole in the sound of up to half a second is no reason to begin anew.
const BREAK_MIN_90K: u64 = 45_000;
/// Kinds of edges.
const TURNS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_edges_those_are_kept_that_matter() {
        let turns = [Turn::FreezeBegins, Turn::FreezeEnds];
        let edges: Vec<(Turn, Ticks90k)> = (0..400).map(|at| (turns[at as usize % 2], Ticks90k(at))).collect();
        let all: Vec<_> = std::iter::once((Turn::BlackBegins, Ticks90k(0))).chain(edges.iter().copied()).collect();
        assert_eq!(few(&all, true), all[..33]);
        assert_eq!(few(&all, false), [&all[..1], &all[all.len() - 32..]].concat());
        assert_eq!(few(&all[..20], false), all[..20]);
    }
}
