//! What is to be decoded, and what came of it: all that passes between a watch and whoever decodes for it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::governor::Kind;
use crate::media::boundary::{self, Turn};
use crate::media::quality::{Measured, Span};
use crate::media::thumbnail::Thumbnail;
use crate::proto::mpegts::demux::AccessUnit;
use crate::units::Ticks90k;

/// Something to decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Counts up within a stream; the outcome has the same.
    pub number: u64,
    /// What is wanted.
    pub work: Work,
    /// Coded, in the order of decoding, with unwrapped times: the units of one picture (two if they are fields, many if it
    /// builds up over several), one to [`SOUND_UNITS_MAX`] of sound, or groups of pictures. At most
    /// [`JOB_BYTES_MAX`].
    pub units: Vec<Arc<AccessUnit>>,
}

/// What is wanted of the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Look at a picture that can be decoded alone.
    Picture {
        /// A small one of it is wanted.
        thumbnail: bool,
        /// Whether it is black, and like those before.
        quality: bool,
        /// It has nothing to do with pictures before it.
        anew: bool,
    },
    /// Listen.
    Sound {
        /// How far listening came before; `None` if it has nothing to do with sound before it.
        before: Option<Heard>,
    },
    /// Decode all pictures, and say when black and freeze began and ended: see [`boundary`](crate::media::boundary).
    Proof {
        /// The first picture is one of several black ones.
        black: bool,
        /// The first picture is one of several equal ones.
        frozen: bool,
    },
}

impl Work {
    /// What it is about; `None` for a proof.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        match self {
            Self::Picture { .. } => Some(Kind::Picture),
            Self::Sound { .. } => Some(Kind::Sound),
            Self::Proof { .. } => None,
        }
    }
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The job's.
    pub number: u64,
    /// What was found.
    pub result: Result<Findings, Failure>,
    /// Computing time that it took.
    pub cpu: Duration,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Findings {
    /// In a picture.
    Picture(PictureFindings),
    /// In sound.
    Sound(SoundFindings),
    /// In groups of pictures.
    Proof(ProofFindings),
}

/// What was found in groups of pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProofFindings {
    /// What changed and when, in the order of time; at most [`EDGES_MAX`].
    pub edges: Vec<(Turn, Ticks90k)>,
}

/// What was found in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureFindings {
    /// Whether it is black; `None` if that was not asked.
    pub black: Option<bool>,
    /// Whether it is like the one that it was compared to; `None` if there was none, or that was not asked.
    pub same: Option<bool>,
    /// A small one of it, if that was asked.
    pub thumbnail: Option<Thumbnail>,
}

/// What was found in sound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SoundFindings {
    /// How far listening came.
    pub heard: Heard,
    /// A silence that was long enough and ended; the last, if there are several.
    pub ended: Option<Span>,
    /// What tells how loud it is; at most [`TENTHS_MAX`].
    pub loudness: Measured,
    /// Units that could be decoded.
    pub decoded: u32,
    /// Units that could not.
    pub failed: u32,
}

/// How far listening came: whoever decodes the next sound may be another one, and goes on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Where listening without a break began.
    pub began: Ticks90k,
    /// Behind the last sample.
    pub until: Ticks90k,
    /// Since when it is silent, if it is so for long enough.
    pub silent_since: Option<Ticks90k>,
    /// Samples of each channel since the last that was not silent.
    pub silent_samples: u64,
}

/// Why nothing was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It uses what is not decoded here.
    Unsupported(Cow<'static, str>),
    /// Its bits break the rules of the codec.
    Damaged,
    /// What decodes it crashed, was killed, or did not end; it starts anew.
    Crashed,
    /// Nobody decoded it: what would could not be started, or took nothing more. That is not the stream's doing.
    NotStarted,
}

/// Units of sound in a job: more than two seconds of the shortest frames that are sent singly.
pub const SOUND_UNITS_MAX: usize = 128;
/// Bytes of sound in a job. A second of eight channels of PCM (SMPTE ST 302, 24 bits) has 1.4 MB.
pub const SOUND_BYTES_MAX: usize = 4 << 20;
/// Bytes of a job.
pub const JOB_BYTES_MAX: usize = boundary::BYTES_MAX;
/// Units of a job: as many pictures as are kept.
pub const JOB_UNITS_MAX: usize = 2_048;
/// Tenths of a second of which a job's sound says how loud they are: seven minutes, of the half second that it should have.
pub const TENTHS_MAX: usize = 4_096;
/// A stream that flickers is not worth more.
pub const EDGES_MAX: usize = 64;
