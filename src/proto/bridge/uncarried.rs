//! What the other side has no words for, each told once.

use std::collections::VecDeque;
use std::fmt;

use arrayvec::ArrayVec;

use crate::proto::mpegts::demux::Codec as TsCodec;
use crate::proto::rtmp::flv;

/// Something that comes in and does not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncarried {
    /// A codec that is not put into transport streams here.
    Codec(flv::Codec),
    /// A picture's codec by its number in FLV (FLV E.4.3.1).
    FlvVideo(u8),
    /// A sound's codec by its number in FLV (FLV E.4.2.1).
    FlvAudio(u8),
    /// A codec by its name in enhanced RTMP.
    FourCc([u8; 4]),
    /// A codec that is carried, but not with this configuration: AAC whose channels no table has, for example.
    Configuration(flv::Codec),
    /// More tracks than a program may have.
    Tracks,
    /// Pictures or sounds for which the constant rate was too low.
    Rate,
    /// A stream that RTMP has no form for here.
    Stream {
        /// `stream_type` (13818-1 table 2-34).
        stream_type: u8,
        /// What it is coded with, if that is known.
        codec: Option<TsCodec>,
    },
    /// All streams of another program: RTMP carries one.
    Program(u16),
    /// The peer does not know this codec.
    Peer(flv::Codec),
    /// The peer takes one track of a kind, and this is another.
    PeerTracks,
}

impl fmt::Display for Uncarried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |fourcc: [u8; 4]| fourcc.escape_ascii().to_string();
        match self {
            Self::Codec(codec) => write!(f, "codec {} is not carried in a transport stream", name(codec.fourcc())),
            Self::FlvVideo(number) => write!(f, "video codec {number} of FLV is not carried"),
            Self::FlvAudio(number) => write!(f, "audio codec {number} of FLV is not carried"),
            Self::FourCc(fourcc) => write!(f, "codec {} is not carried", name(*fourcc)),
            Self::Configuration(codec) => write!(f, "codec {} is not carried as configured", name(codec.fourcc())),
            Self::Rate => f.write_str("pictures or sounds are left out, as the constant rate is too low for them"),
            Self::Tracks => f.write_str("there are too many tracks"),
            Self::Stream { codec: Some(codec), .. } => write!(f, "codec {codec} is not carried over RTMP"),
            Self::Stream { stream_type, codec: None } => {
                write!(f, "streams of type {stream_type:#04x} are not carried over RTMP")
            }
            Self::Program(number) => write!(f, "program {number} is not carried: RTMP has one"),
            Self::Peer(codec) => write!(f, "the peer does not know codec {}", name(codec.fourcc())),
            Self::PeerTracks => f.write_str("the peer takes one track of a kind"),
        }
    }
}

/// What was told, and what is still to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    known: ArrayVec<Uncarried, UNCARRIED_MAX>,
    waiting: VecDeque<Uncarried>,
}

impl Told {
    /// Tells it if it is new. More than [`UNCARRIED_MAX`] are not told, nor kept for whoever does not ask.
    pub(super) fn tell(&mut self, what: Uncarried) {
        if self.waiting.len() < UNCARRIED_MAX && !self.known.contains(&what) && self.known.try_push(what).is_ok() {
            self.waiting.push_back(what);
        }
    }

    pub(super) fn poll(&mut self) -> Option<Uncarried> {
        self.waiting.pop_front()
    }

    /// Somebody else sends: what is wrong with that is told anew.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

/// Different things that are told of one sender. Judgement: nobody sends so many, and who does is told enough.
pub const UNCARRIED_MAX: usize = 16;
