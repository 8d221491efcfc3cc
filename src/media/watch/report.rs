//! What a watch says: settings in, metadata, content, events and pictures out.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::media::headers::{AudioFormat, VideoFormat};
use crate::proto::mpegts::{Media, Pid};
use crate::units::{Bitrate, Time};

/// What is wanted of one stream. Its metadata is read in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How often a picture is taken, at least [`THUMBNAIL_EVERY_MIN`]; `None` for none.
    pub thumbnail_every: Option<Duration>,
    /// Whether black, frozen and silent are looked for, and loudness is measured.
    pub content_quality: bool,
}

/// How often pictures are taken unless told otherwise.
pub const THUMBNAIL_EVERY: Duration = Duration::from_secs(5);
/// Key frames are looked at once a second at most.
pub const THUMBNAIL_EVERY_MIN: Duration = Duration::from_secs(1);

/// Everything that is known of one stream at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// When this was so.
    pub at: Time,
    /// What the stream carries.
    pub metadata: Arc<Metadata>,
    /// What it shows.
    pub content: Content,
    /// The last picture that was taken.
    pub thumbnail: Option<Picture>,
    /// Why there is none, or none as new as it was asked for.
    pub thumbnail_reason: Option<Reason>,
    /// What came of it all.
    pub counts: WatchCounts,
}

/// What a stream carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// In the order of the PAT, as far as their PMT came.
    pub programs: Vec<ProgramMetadata>,
    /// In the order of programs, and in theirs.
    pub streams: Vec<StreamMetadata>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramMetadata {
    /// Its number.
    pub number: u16,
    /// What viewers know it by.
    pub name: Option<String>,
    /// Who provides it.
    pub provider: Option<String>,
    /// Where its PMT is found.
    pub pmt_pid: Pid,
    /// Where its clock is found.
    pub pcr_pid: Option<Pid>,
}

/// One elementary stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamMetadata {
    /// Its place in [`Metadata::streams`].
    pub index: usize,
    /// The program's number.
    pub program: u16,
    /// Where it is found.
    pub pid: Pid,
    /// As in the PMT.
    pub stream_type: u8,
    /// What it is for.
    pub media: Media,
    /// As ffprobe names it.
    pub codec: Option<Cow<'static, str>>,
    /// ISO 639 code.
    pub language: Option<[u8; 3]>,
    /// How its pictures are coded: profile, level, size, aspect, order of fields, colour.
    pub video: Option<VideoFormat>,
    /// How its sound is coded: profile, rate, channels.
    pub audio: Option<AudioFormat>,
    /// Frames a second as a fraction: what the headers say, or else the distance of its pictures.
    pub frame_rate: Option<(u32, u32)>,
    /// Of what is coded, without packet headers, over the last second; of what cannot be read, with them.
    pub bit_rate: Option<Bitrate>,
    /// Its last packet was scrambled.
    pub scrambled: bool,
    /// Why less is known than could be.
    pub reason: Option<Reason>,
}

/// What a stream shows. Of several pictures and sounds it is the first of each of the first program that has them.
///
/// What is not known is `None`, and never `Some(false)`; [`Content::video`] and [`Content::audio`] say why.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// Whether the picture has been black for two seconds (ffmpeg's blackdetect).
    pub black: Option<bool>,
    /// Whether nothing has moved for two seconds (ffmpeg's freezedetect).
    pub frozen: Option<bool>,
    /// Whether there has been no sound for two seconds (ffmpeg's silencedetect).
    pub silent: Option<bool>,
    /// When the picture that was black first came.
    pub black_since: Option<Time>,
    /// When the picture that stands still came.
    pub frozen_since: Option<Time>,
    /// When the first silent sample came.
    pub silent_since: Option<Time>,
    /// Whether pictures came within the last two seconds, decodable or not.
    pub video_present: Option<bool>,
    /// Whether sound came within the last two seconds, decodable or not.
    pub audio_present: Option<bool>,
    /// Why pictures are not looked at, or not as often as they were meant to be; `None` if all is well.
    pub video: Option<Reason>,
    /// Why sound is not listened to; `None` if all is well.
    pub audio: Option<Reason>,
    /// How often key frames are looked at, while they are: as far apart as the last two were by the stream's clock.
    pub sampled_every: Option<Duration>,
    /// Loudness, if it was measured.
    pub loudness: Option<Levels>,
    /// When anything was last looked at or listened to.
    pub last_check: Option<Time>,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            black: None,
            frozen: None,
            silent: None,
            black_since: None,
            frozen_since: None,
            silent_since: None,
            video_present: None,
            audio_present: None,
            video: Some(Reason::Off),
            audio: Some(Reason::Off),
            sampled_every: None,
            loudness: None,
            last_check: None,
        }
    }
}

impl Content {
    /// Nothing is known, for one reason.
    #[must_use]
    pub fn unknown(reason: Reason) -> Self {
        Self { video: Some(reason.clone()), audio: Some(reason), ..Self::default() }
    }
}

impl Report {
    /// The same, of which nothing is true at present: it is too old, as there was no time for watching. What the stream
    /// carries, and the last picture with its time, stay.
    #[must_use]
    pub fn outdated(&self) -> Self {
        let was_off = |reason: &Option<Reason>| *reason == Some(Reason::Off);
        let reason = |was: &Option<Reason>| Some(if was_off(was) { Reason::Off } else { Reason::Budget });
        let Content { video, audio, last_check, .. } = &self.content;
        let content =
            Content { video: reason(video), audio: reason(audio), last_check: *last_check, ..Content::default() };
        let mut metadata = Arc::clone(&self.metadata);
        Arc::make_mut(&mut metadata).streams.iter_mut().for_each(|stream| stream.bit_rate = None);
        Self { content, metadata, thumbnail_reason: reason(&self.thumbnail_reason), ..self.clone() }
    }
}

/// Loudness after EBU R 128. `None` where nothing was loud enough to be measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Levels {
    /// Over the last 400 ms, in LUFS.
    pub momentary_lufs: Option<f32>,
    /// Over the last 3 s, in LUFS.
    pub short_term_lufs: Option<f32>,
    /// Since listening began, gated, in LUFS.
    pub integrated_lufs: Option<f32>,
    /// Highest peak between samples since listening began, in dBTP.
    pub true_peak_dbtp: Option<f32>,
}

/// Why something is not known, or not as well as it could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody asked.
    Off,
    /// The stream has none.
    NoStream,
    /// It should have one, but nothing comes.
    Missing,
    /// No picture came yet that can be decoded alone.
    WaitingKeyFrame,
    /// Not long enough yet to tell.
    Listening,
    /// It is encrypted.
    Scrambled,
    /// It is coded in a way that is not decoded here: how.
    Unsupported(Cow<'static, str>),
    /// What came is not what its codec allows.
    Damaged,
    /// There is not computing time enough.
    Budget,
    /// What decodes it failed and starts anew.
    Restarting,
    /// What decodes it cannot be started at present.
    NoDecoder,
}

impl Reason {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NoStream => "no_stream",
            Self::Missing => "missing",
            Self::WaitingKeyFrame => "waiting_keyframe",
            Self::Listening => "listening",
            Self::Scrambled => "scrambled",
            Self::Unsupported(_) => "unsupported",
            Self::Damaged => "damaged",
            Self::Budget => "budget",
            Self::Restarting => "restarting",
            Self::NoDecoder => "no_decoder",
        }
    }

    /// What exactly, if there is more to say.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        if let Self::Unsupported(what) = self { Some(what) } else { None }
    }
}

/// A picture taken of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The JFIF file. Shared, not copied, by whoever shows it.
    pub jpeg: Arc<[u8]>,
    /// Width in pixels, which are square.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// When it came.
    pub taken: Time,
}

/// What can be wrong with what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// The picture is black.
    Black,
    /// The picture stands still.
    Frozen,
    /// There is no sound in the sound.
    Silent,
}

impl Defect {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Black => "black",
            Self::Frozen => "frozen",
            Self::Silent => "silent",
        }
    }
}

/// Something happened to a stream that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A defect is there, for two seconds or more.
    Began {
        /// Which.
        defect: Defect,
        /// How long it has been there by the clock of the stream, at least.
        lasted: Duration,
    },
    /// A defect is over, or it is not known any more whether it is there.
    Ended {
        /// Which.
        defect: Defect,
        /// How long it was there by the clock of the stream: from what was first seen of it to the first that was well. Of
        /// pictures this is exact only to the distance of key frames, unless it was proven.
        lasted: Duration,
        /// The shortest and longest that it can have been.
        between: (Duration, Duration),
        /// Why it is not known any more; `None` if it is over.
        lost_sight: Option<Reason>,
    },
    /// No pictures have come for two seconds.
    VideoMissing,
    /// Pictures come again.
    VideoBack {
        /// How long they were away.
        missed: Duration,
    },
    /// No sound has come for two seconds.
    AudioMissing,
    /// Sound comes again.
    AudioBack {
        /// How long it was away.
        missed: Duration,
    },
    /// What the stream carries is not what it was.
    MetadataChanged {
        /// What, in a few words.
        what: String,
        /// Changes since the last such event: there is one a second at most, and fewer if it goes on.
        changes: u64,
    },
    /// There is not computing time enough: key frames are looked at less often, and pictures taken less often.
    Stretched {
        /// How often now.
        every: Duration,
    },
    /// There is computing time enough again.
    Restored,
    /// What decodes the stream had to be started anew: it crashed, or took too long.
    DecoderRestarted {
        /// How often so far for this stream.
        restarts: u64,
    },
}

/// What came of a stream's units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Packets of the bus that were missed because the watch was too slow.
    pub packets_missed: u64,
    /// Access units read.
    pub units: u64,
    /// Access units dropped because something of them was missing.
    pub units_damaged: u64,
    /// Pictures handed over to be decoded, and those that came of them.
    pub pictures_asked: u64,
    /// See [`WatchCounts::pictures_asked`].
    pub pictures_decoded: u64,
    /// Pictures that could not be decoded.
    pub pictures_failed: u64,
    /// Pictures that were to be decoded, but a newer one came first.
    pub pictures_passed_over: u64,
    /// Units of sound that were decoded.
    pub sounds_decoded: u64,
    /// Units of sound that could not be decoded.
    pub sounds_failed: u64,
    /// Units of sound that there was no time for.
    pub sounds_passed_over: u64,
    /// Changes of metadata.
    pub metadata_changes: u64,
    /// Beginnings and ends of black and freeze that were proven to the picture, and those that could not be: there was no
    /// time for it, the pictures were not kept, or they could not be decoded.
    pub edges_proven: u64,
    /// See [`WatchCounts::edges_proven`].
    pub edges_unproven: u64,
    /// Groups of pictures that were not kept for proofs because they took too much memory.
    pub groups_dropped: u64,
    /// Times that this watch began anew because its own code failed.
    pub restarts: u64,
    /// Decoders that crashed or took too long over this stream.
    pub decoder_restarts: u64,
    /// Events that nobody took in time.
    pub events_dropped: u64,
    /// Computing time spent on it, in nanoseconds.
    pub cpu_ns: u64,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "not asked for",
            Self::NoStream => "the stream has none",
            Self::Missing => "nothing comes",
            Self::WaitingKeyFrame => "no key frame came yet",
            Self::Listening => "not long enough yet to tell",
            Self::Scrambled => "scrambled",
            Self::Unsupported(what) => return write!(f, "not decoded here: {what}"),
            Self::Damaged => "damaged",
            Self::Budget => "not computing time enough",
            Self::Restarting => "the decoder starts anew",
            Self::NoDecoder => "no decoder can be started",
        })
    }
}
