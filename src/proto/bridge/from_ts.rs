//! A transport stream in, access units as FLV has them out.

use std::collections::{BTreeMap, VecDeque};

use super::av1::Gatherer;
use super::clock::{Clock, difference};
use super::feed::Pictures;
use super::frames::Splitter;
use super::record::{Role, Sets, VideoCodec};
use super::uncarried::{Told, Uncarried};
use crate::bus::Packet;
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::demux::{AccessUnit, Codec as TsCodec, Demux, DemuxCounts};
use crate::proto::rtmp::flv::{self, Codec, Content};
use crate::proto::{Payload, annexb};
use crate::units::{Ticks90k, Time};

/// One program of a transport stream for any number of peers.
///
/// Feed it with [`FromTs::handle_packet`] and fetch units after each call. A track begins with its header; pictures begin
/// with one that a decoder can start at. Pictures are known to be complete only as the next one begins, unless their PES
/// packets say how long they are.
#[derive(Debug, Default)]
pub struct FromTs {
    demux: Demux,
    program: Option<u16>,
    /// By PID; as many as a program has at most.
    tracks: BTreeMap<Pid, Track>,
    clock: Clock,
    /// When a packet came last.
    heard: Time,
    ready: VecDeque<flv::AccessUnit>,
    /// Changes of the tables up to which streams were looked at.
    changes: u64,
    told: Told,
    stats: FromTsStats,
}

/// Counters since the start; those of the demultiplexer are its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FromTsStats {
    /// Pictures and sounds given out.
    pub units: u64,
    /// Pictures that came before one that a decoder can start at, or before parameter sets.
    pub undecodable: u64,
    /// Access units without times where none follow from those before, or without anything inside.
    pub malformed: u64,
    /// Access units without times of their own, which got those that follow from the ones before.
    pub untimed: u64,
    /// Times that something between frames of sound was none.
    pub between_frames: u64,
    /// Units that nobody fetched.
    pub overflow: u64,
    /// Times that the source's clock jumped.
    pub jumps: u64,
}

#[derive(Debug)]
struct Track {
    /// Which of several of its kind.
    number: u8,
    codec: Codec,
    /// What its header is if frames do not say it.
    config: Option<Vec<u8>>,
    /// Given out last; empty until then, and for codecs without one.
    header: Payload,
    sets: Sets,
    gatherer: Gatherer,
    splitter: Splitter,
    has_key: bool,
    last_dts_90k: Option<u64>,
    /// From the last picture but one to the last one, and from the last one's DTS to its PTS.
    step_90k: Option<u64>,
    shown_after_90k: u64,
}

impl FromTs {
    /// Of a stream that nothing came from.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// TS packets from the bus.
    pub fn handle_packet(&mut self, now: Time, packet: &Packet) {
        if packet.meta.discontinuity {
            // What comes is no part of what is open, and nothing tells whether that is complete.
            self.demux.disturb();
            self.clock.disturb(Ticks90k::from_span(now.since(self.heard)).0);
            self.tracks.values_mut().for_each(Track::restart);
        }
        self.heard = now;
        self.demux.push(now, packet);
        self.look_at_streams();
        while let Some(unit) = self.demux.poll_unit() {
            self.handle_unit(&unit);
        }
    }

    /// The stream is over: what is open counts as complete.
    pub fn finish(&mut self) {
        self.demux.finish();
        while let Some(unit) = self.demux.poll_unit() {
            self.handle_unit(&unit);
        }
    }

    /// The next unit; `None` when there is none left.
    pub fn poll_unit(&mut self) -> Option<flv::AccessUnit> {
        self.ready.pop_front()
    }

    /// What of this stream is not carried, each once.
    pub fn poll_uncarried(&mut self) -> Option<Uncarried> {
        self.told.poll()
    }

    /// The headers in force: what whoever comes later must have first.
    pub fn headers(&self) -> impl Iterator<Item = flv::AccessUnit> {
        let known = self.tracks.values().filter(|track| !track.header.is_empty());
        known.map(|track| track.unit(Content::Header, track.last_dts_90k.unwrap_or(0), 0, track.header.clone()))
    }

    /// What pictures the stream has that are carried, as far as its tables say.
    #[must_use]
    pub fn pictures(&self) -> Pictures {
        let streams = self.demux.streams().filter(|stream| Some(stream.program) == self.program);
        streams.fold(Pictures::default(), |pictures, stream| match stream.codec.and_then(carried) {
            Some(Codec::H264) => Pictures { h264: true, ..pictures },
            Some(Codec::Hevc) => Pictures { hevc: true, ..pictures },
            Some(Codec::Av1) => Pictures { av1: true, ..pictures },
            _ => pictures,
        })
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> FromTsStats {
        FromTsStats { jumps: self.clock.jumps, ..self.stats }
    }

    /// Those of the demultiplexer.
    #[must_use]
    pub const fn demux_counts(&self) -> DemuxCounts {
        self.demux.counts()
    }

    /// Chooses the program, drops tracks that are gone, and tells of streams that are not carried.
    fn look_at_streams(&mut self) {
        let changes = self.demux.programs().stats().changes;
        if changes == self.changes {
            return;
        }
        self.changes = changes;
        let Self { demux, program, tracks, told, .. } = self;
        if !demux.streams().any(|stream| Some(stream.program) == *program) {
            let useful = demux.streams().filter(|stream| stream.codec.and_then(carried).is_some());
            *program = useful.map(|stream| stream.program).min();
        }
        for stream in demux.streams() {
            if Some(stream.program) != *program {
                if program.is_some() {
                    told.tell(Uncarried::Program(stream.program));
                }
            } else if stream.codec.and_then(carried).is_none() {
                let (stream_type, codec) = (stream.entry.stream_type, stream.codec);
                told.tell(Uncarried::Stream { stream_type, codec });
            }
        }
        tracks.retain(|pid, track| {
            let mut streams = demux.streams().filter(|stream| Some(stream.program) == *program);
            streams.any(|stream| {
                let is_same = stream.codec.and_then(carried) == Some(track.codec);
                stream.entry.pid == *pid && is_same && opus_header(stream.entry.channels) == track.config
            })
        });
    }

    fn handle_unit(&mut self, unit: &AccessUnit) {
        let Some(codec) = carried(unit.codec) else { return };
        if !self.tracks.contains_key(&unit.pid) {
            let mut streams = self.demux.streams().filter(|stream| Some(stream.program) == self.program);
            if !streams.any(|stream| stream.entry.pid == unit.pid) {
                return;
            }
            let used = |number: &u8| {
                let mut tracks = self.tracks.values();
                tracks.any(|track| track.number == *number && track.codec.is_video() == codec.is_video())
            };
            let number = (0..=u8::MAX).find(|number| !used(number)).unwrap_or(u8::MAX);
            let stream = self.demux.stream(unit.pid);
            let config = stream.and_then(|stream| opus_header(stream.entry.channels));
            self.tracks.insert(unit.pid, Track::new(number, codec, config));
        }
        let Self { tracks, clock, ready, stats, told, .. } = self;
        let Some(track) = tracks.get_mut(&unit.pid) else { return };
        let times = unit.pts.map(|pts| {
            let dts = unit.dts.unwrap_or(pts);
            let shown_after_90k = difference(dts.0, pts.0).clamp(0, SHOWN_AFTER_MAX_90K) as u64;
            (clock.place(track.last_dts_90k, dts.0), shown_after_90k)
        });
        // 13818-1 2.7.4: not every PES packet has times, only one in 0.7 s must.
        let Some(times) = times.or_else(|| track.following()) else {
            stats.malformed += 1;
            return;
        };
        stats.untimed += u64::from(unit.pts.is_none());
        let mut out = Out { ready, stats };
        match codec {
            Codec::H264 => track.handle_picture(VideoCodec::H264, times, &unit.bytes, &mut out),
            Codec::Hevc => track.handle_picture(VideoCodec::Hevc, times, &unit.bytes, &mut out),
            Codec::Av1 => track.handle_av1(times, &unit.bytes, &mut out),
            Codec::Aac | Codec::Ac3 | Codec::Eac3 | Codec::Opus | Codec::Vp9 => {
                if !track.handle_sound(unit.pts.map(|_| times.0), &unit.bytes, &mut out) {
                    told.tell(Uncarried::Configuration(codec));
                }
            }
        }
    }
}

impl Track {
    fn new(number: u8, codec: Codec, config: Option<Vec<u8>>) -> Self {
        Self {
            number,
            codec,
            config,
            header: Payload::default(),
            sets: Sets::default(),
            gatherer: Gatherer::default(),
            splitter: Splitter::default(),
            has_key: false,
            last_dts_90k: None,
            step_90k: None,
            shown_after_90k: 0,
        }
    }

    /// What comes next does not continue what came.
    fn restart(&mut self) {
        self.has_key = false;
        self.gatherer.clear();
        self.splitter.clear();
    }

    /// The times of a unit that has none of its own: of pictures as far from the last one as that from the one before, of
    /// sound where the last frame ends.
    fn following(&self) -> Option<(u64, u64)> {
        if !self.codec.is_video() {
            return self.splitter.next_90k().map(|at_90k| (at_90k, 0));
        }
        self.last_dts_90k.zip(self.step_90k).map(|(last, step)| (last + step, self.shown_after_90k))
    }

    /// One access unit of a byte stream. Without parameter sets, which the header has, and what is about framing only.
    fn handle_picture(&mut self, codec: VideoCodec, times: (u64, u64), bytes: &[u8], out: &mut Out<'_>) {
        let mut brought: Vec<(u8, &[u8])> = Vec::new();
        let mut sample = Vec::with_capacity(bytes.len() + SAMPLE_EXTRA_BYTES);
        let (mut is_key, mut has_picture) = (false, false);
        for unit in annexb::Units::new(bytes).map(annexb::without_trailing_zeros) {
            match codec.role(unit) {
                Role::Framing => continue,
                Role::ParameterSet(kind) => {
                    if brought.len() < BROUGHT_MAX {
                        brought.push((kind, unit));
                    }
                    continue;
                }
                Role::Picture { is_key: is_key_slice } => {
                    is_key |= is_key_slice;
                    has_picture = true;
                }
                Role::Other => {}
            }
            // A unit is not longer than an access unit, which has a bound of some megabytes.
            sample.extend((unit.len() as u32).to_be_bytes());
            sample.extend_from_slice(unit);
        }
        // Senders whose pictures refresh bit by bit, or that have open groups of pictures, bring the sets where a decoder
        // can start.
        let may_start = is_key | (!brought.is_empty() && self.sets.update(codec, &brought));
        if !has_picture {
            out.stats.malformed += 1;
            return;
        }
        let record = if brought.is_empty() { None } else { self.sets.record(codec) };
        self.give_picture(times, record, may_start, sample, out);
    }

    /// A frame, or all of a temporal unit. FLV has one time for what is shown at once.
    fn handle_av1(&mut self, (dts_90k, shown_after_90k): (u64, u64), bytes: &[u8], out: &mut Out<'_>) {
        if let Some(unit) = self.gatherer.push(bytes, &mut out.stats.malformed) {
            self.give_picture((dts_90k + shown_after_90k, 0), unit.record, unit.is_key, unit.bytes, out);
        }
    }

    /// A picture whose headers say `record`, if they came with it.
    fn give_picture(
        &mut self,
        times: (u64, u64),
        record: Option<Vec<u8>>,
        may_start: bool,
        sample: Vec<u8>,
        out: &mut Out<'_>,
    ) {
        let before_90k = self.last_dts_90k;
        let (dts_90k, shown_after_90k) = self.after_last(times);
        self.step_90k =
            before_90k.map(|before| dts_90k - before).filter(|step| *step <= STEP_MAX_90K).or(self.step_90k);
        self.shown_after_90k = shown_after_90k;
        if let Some(record) = record.filter(|record| *record != *self.header) {
            self.header = record.into();
            out.push(self.unit(Content::Header, dts_90k, 0, self.header.clone()));
        }
        self.has_key |= may_start && !self.header.is_empty();
        if !self.has_key {
            out.stats.undecodable += 1;
            return;
        }
        let content = if may_start { Content::KeyFrame } else { Content::Frame };
        out.stats.units += 1;
        out.push(self.unit(content, dts_90k, shown_after_90k, sample.into()));
    }

    /// The frames of a PES packet, which follow the last one if it has no time; false if one of them cannot be carried.
    fn handle_sound(&mut self, pts_90k: Option<u64>, bytes: &[u8], out: &mut Out<'_>) -> bool {
        let (mut splitter, mut is_carried) = (std::mem::take(&mut self.splitter), true);
        let needs_config = self.codec == Codec::Opus;
        let wrong = splitter.split(self.codec, bytes, pts_90k, |at_90k, frame| {
            let (dts_90k, _) = self.after_last((at_90k, 0));
            let config = frame.config.as_ref().map(<[u8; 2]>::as_slice).or(self.config.as_deref());
            // Channels that only AAC frames themselves describe, or nobody does.
            if frame.config.is_some_and(|config| config[1] & 0x78 == 0) || needs_config && config.is_none() {
                is_carried = false;
                return;
            }
            if let Some(config) = config.filter(|config| *self.header != **config) {
                self.header = config.to_vec().into();
                out.push(self.unit(Content::Header, dts_90k, 0, self.header.clone()));
            }
            out.stats.units += 1;
            out.push(self.unit(Content::KeyFrame, dts_90k, 0, frame.bytes.to_vec().into()));
        });
        self.splitter = splitter;
        out.stats.between_frames += wrong;
        is_carried
    }

    /// Times of one track do not run back.
    fn after_last(&mut self, (dts_90k, shown_after_90k): (u64, u64)) -> (u64, u64) {
        let late = self.last_dts_90k.unwrap_or(0).saturating_sub(dts_90k);
        self.last_dts_90k = Some(dts_90k + late);
        (dts_90k + late, shown_after_90k.saturating_sub(late))
    }

    fn unit(&self, content: Content, dts_90k: u64, shown_after_90k: u64, bytes: Payload) -> flv::AccessUnit {
        let (dts, pts) = (Ticks90k(dts_90k), Ticks90k(dts_90k + shown_after_90k));
        flv::AccessUnit { track: self.number, codec: self.codec, content, dts, pts, bytes }
    }
}

/// Where units go.
struct Out<'a> {
    ready: &'a mut VecDeque<flv::AccessUnit>,
    stats: &'a mut FromTsStats,
}

impl Out<'_> {
    fn push(&mut self, unit: flv::AccessUnit) {
        if self.ready.len() < READY_MAX {
            self.ready.push_back(unit);
        } else {
            self.stats.overflow += 1;
        }
    }
}

/// What FLV calls it, if it has a form for it here.
const fn carried(codec: TsCodec) -> Option<Codec> {
    match codec {
        TsCodec::H264 => Some(Codec::H264),
        TsCodec::Hevc => Some(Codec::Hevc),
        TsCodec::Av1 => Some(Codec::Av1),
        TsCodec::Aac => Some(Codec::Aac),
        TsCodec::Ac3 => Some(Codec::Ac3),
        TsCodec::Eac3 => Some(Codec::Eac3),
        TsCodec::Opus => Some(Codec::Opus),
        TsCodec::Mpeg1Video | TsCodec::Mpeg2Video | TsCodec::AacLatm | TsCodec::MpegAudio | TsCodec::Smpte302m => None,
    }
}

/// The identification header of Opus (RFC 7845 5.1); of more than two channels each stream's are those that Vorbis lays
/// out, of which pairs are coded together (5.1.1.2).
fn opus_header(channels: Option<u8>) -> Option<Vec<u8>> {
    let channels = channels?;
    // Streams, those of them with two channels, and which of their channels each one is.
    let (streams, coupled, map): (u8, u8, &[u8]) = match channels {
        1 | 2 => (1, channels - 1, &[]),
        3 => (2, 1, &[0, 2, 1]),
        4 => (2, 2, &[0, 1, 2, 3]),
        5 => (3, 2, &[0, 4, 1, 2, 3]),
        6 => (4, 2, &[0, 4, 1, 2, 3, 5]),
        7 => (4, 3, &[0, 4, 1, 2, 3, 5, 6]),
        8 => (5, 3, &[0, 6, 1, 2, 3, 4, 5, 7]),
        _ => return None,
    };
    let mut header = b"OpusHead\x01".to_vec();
    // Nothing to skip is known; 48 kHz, no gain, and the family of layouts.
    header.extend([channels, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, u8::from(channels > 2)]);
    if channels > 2 {
        header.extend([streams, coupled]);
        header.extend_from_slice(map);
    }
    Some(header)
}

/// Units that wait to be fetched, which is after every packet. Judgement: the frames of a long PES packet of sound.
const READY_MAX: usize = 4_096;
/// Parameter sets of one access unit. Judgement: twice what a record may have.
const BROUGHT_MAX: usize = 64;
/// Lengths are one byte longer than most start codes. Judgement: pictures of that many slices.
const SAMPLE_EXTRA_BYTES: usize = 64;
/// Between two pictures; more is a gap. Judgement: one picture in a second.
const STEP_MAX_90K: u64 = 90_000;
/// Judgement: four times the longest reordering there is, 16 pictures at 6 Hz.
const SHOWN_AFTER_MAX_90K: i64 = 10 * 90_000;
