//! Messages of a publisher in, a transport stream out.

use std::mem;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::uncarried::{Told, Uncarried};
use crate::bus::{Packet, Pool};
use crate::proto::mpegts::mux::{
    AccessUnit, Config, ConfigError, Format, FormatError, Multiplexer, Stats as MuxStats, TRACKS_MAX, TrackId,
};
use crate::proto::rtmp::flv::{self, Codec, Content, ParseError};
use crate::proto::rtmp::{Message, kind};
use crate::units::{Bitrate, Time};

/// One stream over the lives of several publishers, one at a time.
///
/// Feed it with [`ToTs::handle_message`], and with [`ToTs::handle_timeout`] when [`ToTs::poll_timeout`] says so, and
/// fetch packets after each call. It begins with the first picture or sound of a publisher, and is silent when the last one
/// after its end has gone out, so that whoever listens can tell; tables and counters go on with the next one. Where that
/// comes before the silence, the stream goes on without a break. A publisher who brings nothing for [`QUIET_MIN`], or two of his
/// steps where they are longer, is silent as well: his last picture held by empty packets would look like a programme.
#[derive(Debug)]
pub struct ToTs {
    mux: Multiplexer,
    reader: flv::Reader,
    /// At most [`TRACKS_MAX`], as the multiplexer gives out no more.
    tracks: ArrayVec<Track, TRACKS_MAX>,
    /// Packets come out.
    is_running: bool,
    /// Nobody publishes: what waits still goes out.
    is_ended: bool,
    /// No packet came out since the silence.
    is_first: bool,
    /// Nothing came for so long that nothing goes out.
    is_quiet: bool,
    /// When a picture or sound came last, and how long it took to come after the one before, and that one.
    heard: Time,
    steps: [Duration; 2],
    /// Headers of this publisher, for [`ToTs::interrupt`]; those of a track take one another's place.
    headers: ArrayVec<flv::AccessUnit, TRACKS_MAX>,
    told: Told,
    /// What had waited for too long when that was looked at last.
    stale: u64,
    stats: ToTsStats,
}

#[derive(Clone, Copy, Debug)]
struct Track {
    is_video: bool,
    number: u8,
    codec: Codec,
    id: TrackId,
    /// Of the publisher before; goes on with a header of this one, or goes when nothing of it waits.
    is_old: bool,
}

/// What a publisher said once that still holds.
#[derive(Debug, Default)]
pub struct Interrupted {
    pub(super) reader: flv::Reader,
    pub(super) headers: ArrayVec<flv::AccessUnit, TRACKS_MAX>,
    told: Told,
}

/// Counters since the start; those of the multiplexer are its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToTsStats {
    /// Pictures and sounds that went into the multiplexer.
    pub units: u64,
    /// Those that a decoder could not start with, as their header never came or cannot be carried.
    pub headerless: u64,
    /// Headers that cannot be read or carried.
    pub bad_headers: u64,
    /// Messages, or tracks in them, that are no audio or video of a known form.
    pub malformed: u64,
}

impl ToTs {
    /// A stream that nobody publishes yet.
    ///
    /// # Errors
    /// As [`Multiplexer::new`].
    pub fn new(config: Config, pool: Pool) -> Result<Self, ConfigError> {
        Ok(Self {
            mux: Multiplexer::new(config, pool)?,
            reader: flv::Reader::default(),
            tracks: ArrayVec::new(),
            is_running: false,
            is_ended: true,
            is_first: false,
            is_quiet: false,
            heard: Time::ZERO,
            steps: [Duration::ZERO; 2],
            headers: ArrayVec::new(),
            told: Told::default(),
            stale: 0,
            stats: ToTsStats::default(),
        })
    }

    /// Somebody else publishes from now on, or the same one again: with other tracks and another clock.
    pub fn begin(&mut self) {
        self.end();
        self.told.clear();
        self.reader = flv::Reader::default();
        self.headers.clear();
        self.mux.rebase();
        self.tracks.iter_mut().for_each(|track| track.is_old = true);
    }

    /// The stream goes on at this rate; see [`Multiplexer::set_rate`].
    pub fn set_rate(&mut self, now: Time, rate: Option<Bitrate>) {
        self.mux.set_rate(now, rate);
    }

    /// Somebody else steps in for a publisher who is still there: keeps what that one may not say again.
    pub fn interrupt(&mut self) -> Interrupted {
        let Self { reader, headers, told, .. } = self;
        let interrupted = Interrupted { reader: mem::take(reader), headers: mem::take(headers), told: told.clone() };
        self.begin();
        interrupted
    }

    /// He goes on, or one who said that meanwhile begins.
    pub fn resume(&mut self, interrupted: Interrupted) {
        self.begin();
        self.reader = interrupted.reader;
        // What was told of him is not told again.
        self.told = interrupted.told;
        interrupted.headers.iter().for_each(|header| self.handle_header(header));
    }

    /// The publisher is gone: what waits goes out, and then nothing any more.
    pub const fn end(&mut self) {
        self.is_ended = true;
        self.is_running &= self.mux.waiting_bytes() > 0;
    }

    /// Audio or video came; other messages have nothing for a transport stream.
    pub fn handle_message(&mut self, now: Time, message: &Message) {
        if !matches!(message.kind, kind::AUDIO | kind::VIDEO) {
            return;
        }
        for unit in self.reader.read(message) {
            match unit {
                Ok(unit) => self.handle_unit(now, &unit),
                Err(error) => self.refuse(message.kind, error),
            }
        }
    }

    /// The clock goes on to `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        if !self.is_running || self.is_quiet {
            return;
        }
        if self.mux.waiting_bytes() == 0 && now.since(self.heard) >= self.quiet_after() {
            self.is_quiet = true;
            self.mux.pause();
            return;
        }
        self.mux.handle_timeout(now);
    }

    /// The next packet of TS packets; the first one of each publisher is marked as a discontinuity.
    pub fn poll_packet(&mut self) -> Option<Packet> {
        if !self.is_running || self.is_quiet {
            return None;
        }
        let packet = self.mux.poll_packet();
        if self.is_ended {
            self.end();
        }
        let mut packet = packet?;
        packet.meta.discontinuity = mem::take(&mut self.is_first);
        Some(packet)
    }

    /// When [`ToTs::handle_timeout`] wants to be called; `None` while nobody publishes, or
    /// nothing comes.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.mux.poll_timeout().filter(|_| self.is_running && !self.is_quiet)
    }

    /// What of this publisher is not carried, each once.
    pub fn poll_uncarried(&mut self) -> Option<Uncarried> {
        let mux = self.mux.stats();
        // At a varying rate nothing waits for longer than a call.
        if mux.stale > mem::replace(&mut self.stale, mux.stale) {
            self.told.tell(Uncarried::Rate);
        }
        self.told.poll()
    }

    /// Whether the one who publishes has pictures.
    #[must_use]
    pub fn has_pictures(&self) -> bool {
        self.tracks.iter().any(|track| track.is_video && !track.is_old)
    }

    /// The header of the first sound in AAC that this publisher has.
    #[must_use]
    pub fn sound(&self) -> Option<&flv::AccessUnit> {
        let headers = self.headers.iter().filter(|header| header.codec == Codec::Aac);
        headers.min_by_key(|header| header.track)
    }

    /// Bytes of pictures and sounds that have not gone out.
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.mux.waiting_bytes()
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> ToTsStats {
        self.stats
    }

    /// Those of the multiplexer.
    #[must_use]
    pub const fn mux_stats(&self) -> MuxStats {
        self.mux.stats()
    }

    fn handle_unit(&mut self, now: Time, unit: &flv::AccessUnit) {
        match unit.content {
            Content::Header => self.handle_header(unit),
            Content::KeyFrame | Content::Frame => {
                let Some(track) = self.track(unit) else {
                    self.stats.headerless += 1;
                    return;
                };
                if !self.is_running {
                    (self.is_running, self.is_first) = (true, true);
                }
                (self.is_ended, self.is_quiet) = (false, false);
                self.step(now);
                self.drop_old();
                self.stats.units += 1;
                let random_access = unit.codec.is_video() && unit.content == Content::KeyFrame;
                let &flv::AccessUnit { pts, dts, ref bytes, .. } = unit;
                self.mux.handle_access_unit(now, track, &AccessUnit { pts, dts, random_access, data: bytes.clone() });
            }
            // Another may follow on the same track, and tables that change for it would be for nothing.
            Content::End => {}
        }
    }

    /// Another picture or sound came. What comes at once, as pictures of several tracks, is one step.
    fn step(&mut self, now: Time) {
        let step = now.since(mem::replace(&mut self.heard, now));
        if step >= STEP_MIN {
            self.steps = [step, self.steps[0]];
        }
    }

    /// By the shorter of two steps, so that one pause alone does not make the next one longer.
    fn quiet_after(&self) -> Duration {
        (self.steps[0].min(self.steps[1]) * 2).clamp(QUIET_MIN, QUIET_MAX)
    }

    /// A track begins, or goes on with another codec or configuration.
    fn handle_header(&mut self, unit: &flv::AccessUnit) {
        let format = match format(unit) {
            Ok(Some(format)) => format,
            Ok(None) => return self.told.tell(Uncarried::Codec(unit.codec)),
            Err(error) => {
                self.stats.bad_headers += 1;
                if error == FormatError::Unsupported {
                    self.told.tell(Uncarried::Configuration(unit.codec));
                }
                return;
            }
        };
        let (is_video, number, codec) = (unit.codec.is_video(), unit.track, unit.codec);
        keep(&mut self.headers, unit);
        let known = self.tracks.iter_mut().find(|track| (track.is_video, track.number) == (is_video, number));
        if let Some(track) = known {
            (track.codec, track.is_old) = (codec, false);
            self.mux.set_format(track.id, format);
            return;
        }
        let id = self.mux.add_track(format, None).ok();
        let added = id.map(|id| self.tracks.try_push(Track { is_video, number, codec, id, is_old: false }));
        if !matches!(added, Some(Ok(()))) {
            self.told.tell(Uncarried::Tracks);
        }
    }

    /// The track that a picture or sound belongs to, if that goes on with the codec that its header named.
    fn track(&mut self, unit: &flv::AccessUnit) -> Option<TrackId> {
        let find = |tracks: &[Track]| {
            let is = |track: &&Track| !track.is_old && (track.number, track.codec) == (unit.track, unit.codec);
            tracks.iter().find(is).map(|track| track.id)
        };
        let found = find(&self.tracks);
        if found.is_none() && matches!(unit.codec, Codec::Ac3 | Codec::Eac3 | Codec::Vp9) {
            // AC-3 has no header that must come; the other is told of even where that was missed.
            self.handle_header(unit);
            return find(&self.tracks);
        }
        found
    }

    /// Drops tracks that the publisher before had and this one has not, when all of them went out.
    fn drop_old(&mut self) {
        let mux = &mut self.mux;
        self.tracks.retain(|track| {
            let is_over = track.is_old && !mux.has_waiting(track.id);
            if is_over {
                mux.remove_track(track.id);
            }
            !is_over
        });
    }

    fn refuse(&mut self, kind: u8, error: ParseError) {
        self.stats.malformed += 1;
        match error {
            ParseError::Codec(number) if kind == kind::VIDEO => self.told.tell(Uncarried::FlvVideo(number)),
            ParseError::Codec(number) => self.told.tell(Uncarried::FlvAudio(number)),
            ParseError::FourCc(fourcc) => self.told.tell(Uncarried::FourCc(fourcc)),
            ParseError::Truncated | ParseError::PacketType(_) | ParseError::Tracks | ParseError::Kind => {}
        }
    }
}

/// After that nothing goes out. Judgement: less than others wait before they step in, and more than an encoder of pictures
/// and sound, or of five pictures a second, leaves between two.
pub const QUIET_MIN: Duration = Duration::from_millis(200);
/// The same for whoever sends few pictures. Judgement: one a second.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// Judgement: less than between pictures of 120 Hz, and more than the parts of one take to come.
const STEP_MIN: Duration = Duration::from_millis(5);

/// In the place of the one that its track had, without what came with it. Where there are too many, the multiplexer has no track
/// for it, either.
pub(super) fn keep(headers: &mut ArrayVec<flv::AccessUnit, TRACKS_MAX>, header: &flv::AccessUnit) {
    let track = |header: &flv::AccessUnit| (header.codec.is_video(), header.track);
    headers.retain(|known| track(known) != track(header));
    let _ = headers.try_push(flv::AccessUnit { bytes: header.bytes[..].into(), ..header.clone() });
}

/// What a header says of its track; `None` for a codec that is not carried.
fn format(header: &flv::AccessUnit) -> Result<Option<Format>, FormatError> {
    Ok(Some(match header.codec {
        Codec::H264 => Format::h264_with_record(&header.bytes)?,
        Codec::Hevc => Format::hevc_with_record(&header.bytes)?,
        Codec::Aac => Format::aac_with_config(&header.bytes)?,
        Codec::Ac3 => Format::ac3(),
        Codec::Eac3 => Format::eac3(),
        Codec::Opus => opus(&header.bytes)?,
        Codec::Av1 => Format::av1_with_record(&header.bytes)?,
        Codec::Vp9 => return Ok(None),
    }))
}

/// By the identification header (RFC 7845 5.1), whose channels must be laid out in a way that has a table there.
fn opus(header: &[u8]) -> Result<Format, FormatError> {
    let fields = header.strip_prefix(b"OpusHead").ok_or(FormatError::Truncated)?;
    let [_version, channels, _, _, _, _, _, _, _, _, family, ..] = fields else {
        return Err(FormatError::Truncated);
    };
    match (family, channels) {
        (0, 1..=2) | (1, 1..=8) => Format::opus(*channels),
        _ => Err(FormatError::Unsupported),
    }
}
