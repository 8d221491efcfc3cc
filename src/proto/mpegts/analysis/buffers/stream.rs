//! `Stream`: the buffers that a decoder has for one elementary stream (13818-1 2.4.2.4).

use std::collections::VecDeque;

use super::clock::{Clock, Moment, Pace, SECOND_27M, unwrap};
use super::tank::Tank;
use super::{Findings, TRANSPORT_BYTES};
use crate::proto::mpegts::decoder_buffers::{DecoderBuffers, SoundFrame};
use crate::proto::mpegts::{self, Media, PesHeader, Pid, Seen};
use crate::units::DataSize;

/// Transport buffer, and the others behind it as one: each byte enters with its TS packet and leaves when its access unit is
/// decoded.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) pid: Pid,
    /// Which of the clocks is its program's.
    pub(super) clock: usize,
    pub(super) codec: &'static str,
    is_video: bool,
    has_stills: bool,
    /// Of the clock, when this stream was looked at last.
    era: u32,
    buffers: Option<DecoderBuffers>,
    transport: Option<Tank>,
    /// Bytes behind the transport buffer and in it, but for headers of TS packets.
    level: u64,
    /// In the order of coming: those that are there, and last the one that is coming. Empty until a time stamp fits the clock.
    units: VecDeque<Unit>,
    /// From the unit before the last one to the last.
    distance: Option<i64>,
    /// Of sound, bytes for each frame of the last unit that is whole.
    frame_bytes: Option<u64>,
    frame_27m: u32,
    /// Since when no time stamp fits.
    unfit_since: Option<i64>,
    /// Time stamps have been seen in this era.
    pub(super) has_stamps: bool,
    pub(super) is_scrambled: bool,
    /// More units wait than there is room for.
    is_crowded: bool,
    /// Sound whose frames begin anywhere in a PES packet.
    is_unaligned: bool,
}

/// A PES packet: one picture, or frames of sound.
#[derive(Clone, Copy, Debug)]
struct Unit {
    /// When its first frame is decoded.
    due: i64,
    frames: u32,
    /// Bytes that it will have; the most there can be where that is not said.
    size: u64,
    came: u64,
    gone: u64,
    /// Something of it is missing, or it has been found late.
    is_excused: bool,
}

impl Stream {
    pub(super) fn new(entry: &mpegts::Stream, clock: usize) -> Self {
        Self {
            pid: entry.pid,
            clock,
            codec: entry.codec.unwrap_or_default(),
            is_video: entry.media == Media::Video,
            has_stills: entry.has_stills,
            era: 0,
            buffers: None,
            transport: None,
            level: 0,
            units: VecDeque::new(),
            distance: None,
            frame_bytes: None,
            frame_27m: 0,
            unfit_since: None,
            has_stamps: false,
            is_scrambled: false,
            is_crowded: false,
            is_unaligned: false,
        }
    }

    /// Whether it is known what its buffers hold, and what is in them.
    pub(super) const fn is_known(&self) -> bool {
        self.buffers.is_some() && !self.is_scrambled && !self.is_crowded && self.unfit_since.is_none()
    }

    /// A TS packet that brings nothing into the buffers behind the transport buffer.
    #[inline]
    pub(super) fn pass(&mut self, clock: &Clock, position: u64) -> Findings {
        let Some(moment) = clock.moment(position) else { return Findings::NONE };
        if self.era != clock.era {
            self.begin_anew(clock.era, moment.at);
        }
        self.fill_transport(clock, moment)
    }

    /// A TS packet with a payload, and the header of the PES packet that begins with it.
    #[inline]
    pub(super) fn handle_packet(&mut self, clock: &Clock, packet: &Seen<'_>, header: Option<&PesHeader>) -> Findings {
        let Some(moment) = clock.moment(packet.position) else { return Findings::NONE };
        if self.era != clock.era {
            self.begin_anew(clock.era, moment.at);
        }
        let mut found = self.fill_transport(clock, moment);
        if packet.unit_start {
            found |= self.begin_unit(clock, moment, packet, header);
        }
        if clock.pace != Pace::Constant {
            return found;
        }
        self.drain(moment.at);
        let slack = self.slack();
        let Some(unit) = self.units.back_mut() else { return found };
        unit.is_excused |= packet.after_loss;
        if !unit.is_excused && unit.wanted(moment.at - slack, self.frame_27m) > unit.came {
            unit.is_excused = true;
            found |= Findings::BUFFER;
        }
        unit.came += packet.payload.len() as u64;
        self.level += packet.payload.len() as u64;
        let in_transport = self.transport.as_ref().map_or(0, Tank::bytes);
        if let Some(buffers) = self.buffers
            && self.level > u64::from(buffers.bytes) + in_transport
        {
            // What has no room is lost.
            let lost = (self.level - u64::from(buffers.bytes) - in_transport).min(unit.came - unit.gone);
            unit.came -= lost;
            unit.is_excused = true;
            self.level -= lost;
            found |= Findings::BUFFER;
        }
        found
    }

    /// What must hold always: what is in the buffers is what came and did not go.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let there: u64 = self.units.iter().map(|unit| unit.came - unit.gone).sum();
        assert_eq!(self.level, there);
        assert!(self.units.len() <= UNITS_MAX && self.units.iter().all(|unit| unit.frames > 0));
    }

    fn begin_anew(&mut self, era: u32, at: i64) {
        self.era = era;
        self.transport = self.buffers.map(|buffers| transport(buffers, at));
        self.forget_units();
        (self.unfit_since, self.has_stamps, self.is_crowded) = (None, false, false);
    }

    fn forget_units(&mut self) {
        self.units.clear();
        self.level = 0;
        (self.distance, self.frame_bytes) = (None, None);
    }

    #[inline]
    fn fill_transport(&mut self, clock: &Clock, moment: Moment) -> Findings {
        let Some(tank) = self.transport.as_mut() else { return Findings::NONE };
        if clock.pace != Pace::Constant {
            return Findings::NONE;
        }
        let mut found = Findings::NONE;
        if tank.fill(moment, mpegts::TS_PACKET_BYTES) {
            found |= Findings::BUFFER;
        }
        if tank.is_never_empty() {
            found |= Findings::NEVER_EMPTY;
        }
        found
    }

    /// What is decoded up to `at` leaves.
    #[inline]
    fn drain(&mut self, at: i64) {
        let mut left = self.units.len();
        while let Some(unit) = self.units.front_mut().filter(|unit| unit.due <= at) {
            let wanted = unit.wanted(at, self.frame_27m);
            let gone = wanted.min(unit.came).max(unit.gone);
            self.level = self.level.saturating_sub(gone - unit.gone);
            unit.gone = gone;
            if left == 1 || wanted < unit.size {
                return;
            }
            self.units.pop_front();
            left -= 1;
        }
    }

    /// How late a byte may be without being late for sure. Two fields in one PES packet are decoded one after the other, the
    /// first by its time stamp; and of several frames of sound it is not known where each ends.
    fn slack(&self) -> i64 {
        if self.is_video {
            self.distance.unwrap_or_default() / 2
        } else {
            self.units.back().filter(|unit| unit.frames > 1).map_or(0, |_| i64::from(self.frame_27m))
        }
    }

    #[cold]
    fn begin_unit(&mut self, clock: &Clock, moment: Moment, packet: &Seen<'_>, header: Option<&PesHeader>) -> Findings {
        self.is_scrambled = packet.is_scrambled || header.is_some_and(|header| header.is_scrambled);
        self.drain(moment.at);
        self.close_unit();
        let Some(header) = header.filter(|_| !self.is_scrambled) else {
            self.forget_units();
            return Findings::NONE;
        };
        let data = packet.payload.get(header.header_bytes..).unwrap_or_default();
        if !self.is_video && self.buffers.is_some() && SoundFrame::parse(self.codec, data).is_none() {
            // Its frames do not begin where its packets do: which of them goes when is not known.
            (self.buffers, self.transport, self.is_unaligned) = (None, None, true);
            self.forget_units();
        }
        if !self.is_unaligned && (self.buffers.is_none() || packet.random_access) {
            self.learn(data, moment);
        }
        let before = self.units.back().map(|unit| unit.due);
        let stamp = header.dts.or(header.pts).map(|stamp| unwrap(moment.at, stamp));
        self.has_stamps |= stamp.is_some();
        let due = stamp.or_else(|| Some(before? + self.distance?));
        let Some(due) = due else {
            self.forget_units();
            return Findings::NONE;
        };
        let is_late = stamp.is_some() && due.saturating_sub(moment.at) > self.delay_max();
        let found = if is_late { Findings::DELAY } else { Findings::NONE };
        if clock.pace == Pace::Constant && self.fits(moment.at, (before, due)) {
            self.push_unit(due, header);
        }
        found
    }

    /// The last unit is all there.
    fn close_unit(&mut self) {
        let Some(unit) = self.units.back_mut() else { return };
        // What was to come and did not is not waited for, and what is more than was said goes as well.
        unit.size = unit.came;
    }

    /// Whether a unit is to be decoded behind the one before, and in time, or at least none has been for long.
    fn fits(&mut self, at: i64, (before, due): (Option<i64>, i64)) -> bool {
        if before.is_some_and(|before| due < before) {
            self.forget_units();
        } else if let Some(before) = before {
            self.distance = Some(due - before).filter(|distance| *distance <= SECOND_27M);
            self.count_frames();
            self.unfit_since = None;
            return true;
        }
        let since = *self.unfit_since.get_or_insert(at);
        let fits = due >= at || at.saturating_sub(since) > UNFIT_MAX_27M;
        if fits {
            self.unfit_since = None;
        }
        fits
    }

    /// Of sound, the distance to the next unit tells how many frames the last one has.
    fn count_frames(&mut self) {
        let Some((distance, unit)) = self.distance.zip(self.units.back_mut()) else { return };
        if self.is_video || self.frame_27m == 0 {
            return;
        }
        let frame_27m = i64::from(self.frame_27m);
        unit.frames = u32::try_from((distance + frame_27m / 2) / frame_27m).unwrap_or(1).max(1);
        self.frame_bytes = Some(unit.came / u64::from(unit.frames)).filter(|bytes| *bytes > 0);
    }

    fn push_unit(&mut self, due: i64, header: &PesHeader) {
        if self.units.len() >= UNITS_MAX {
            self.is_crowded = true;
            self.forget_units();
            return;
        }
        let size = header.packet_bytes.map_or(u64::MAX, |bytes| u64::from(bytes) + PES_START_BYTES);
        let frames = match self.frame_bytes {
            Some(bytes) if bytes > 0 && size < u64::MAX => {
                u32::try_from((size + bytes / 2) / bytes).unwrap_or(1).max(1)
            }
            _ => 1,
        };
        // Of the first sound it is not known how many frames come.
        let is_excused = !self.is_video && self.frame_bytes.is_none();
        self.units.push_back(Unit { due, frames, size, came: 0, gone: 0, is_excused });
    }

    /// Reads what the data say of buffers.
    fn learn(&mut self, data: &[u8], moment: Moment) {
        let frame = SoundFrame::parse(self.codec, data);
        let known =
            if self.is_video { DecoderBuffers::of_video(self.codec, data) } else { frame.map(|frame| frame.buffers) };
        let Some(buffers) = known else { return };
        self.frame_27m = frame.map_or(0, |frame| frame.ticks_27m);
        self.buffers = Some(buffers);
        self.transport.get_or_insert_with(|| transport(buffers, moment.at)).set_leak(buffers.leak);
    }

    const fn delay_max(&self) -> i64 {
        match self.codec.as_bytes() {
            _ if self.has_stills => 60 * SECOND_27M,
            b"h264" | b"hevc" | b"vvc" | b"av1" | b"mpeg4" | b"aac_latm" => 10 * SECOND_27M,
            // Nobody knows what it may be.
            b"" => i64::MAX,
            _ => SECOND_27M,
        }
    }
}

impl Unit {
    /// Bytes that have been decoded at `at`.
    #[inline]
    fn wanted(&self, at: i64, frame_27m: u32) -> u64 {
        if at < self.due {
            return 0;
        }
        if self.frames == 1 {
            return self.size;
        }
        let frames = (at - self.due) / i64::from(frame_27m.max(1)) + 1;
        let frames = u64::try_from(frames).unwrap_or(0).min(self.frames.into());
        if frames == u64::from(self.frames) { self.size } else { self.size / u64::from(self.frames) * frames }
    }
}

/// An empty transport buffer.
fn transport(buffers: DecoderBuffers, at: i64) -> Tank {
    Tank::new(DataSize::from_bytes(TRANSPORT_BYTES), buffers.leak, at)
}

/// Units kept of a stream: ten seconds of 60 Hz (13818-1 2.14.3.1), and some more.
pub(super) const UNITS_MAX: usize = 640;
/// Where no time stamp fits for so long, data do come too late. Judgement: longer than a clock is wrong for a while.
const UNFIT_MAX_27M: i64 = 5 * SECOND_27M;
/// Start code, stream id and length, which the length does not count.
const PES_START_BYTES: u64 = 6;
