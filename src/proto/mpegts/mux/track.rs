//! One elementary stream on its way: access units in, PES packets in a queue.

use std::{iter, mem};

use arrayvec::ArrayVec;

use super::format::{Format, Kind};
use super::pes;
use super::queue::{Draft, Queue, Unit};
use super::snap::Snap;
use super::stats::{Stats, Unfit};
use crate::proto::Payload;
use crate::proto::av1::FRAMES_MAX;
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::opus::PACKET_BYTES_MAX;

/// A stream of the program.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) pid: Pid,
    pub(super) format: Format,
    pub(super) language: Option<[u8; 3]>,
    pub(super) queue: Queue,
    pub(super) snap: Snap,
    /// Continuity counter of the next packet with payload.
    pub(super) cc: u8,
    /// DTS of the last access unit, unwrapped.
    pub(super) last_dts_90k: Option<u64>,
    /// Something was dropped that later pictures may build on.
    pub(super) needs_random_access: bool,
    /// How long a receiver's transport buffer takes for a TS packet; zero if it is not known.
    packet_27m: u64,
    /// When it is empty again.
    empty_at_27m: u64,
    /// What may be in it when more comes, in time that it takes.
    pub(super) is_kept_filled: bool,
}

/// When an access unit is decoded and shown, and when it may go out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) pts_90k: u64,
    pub(super) dts_90k: u64,
    pub(super) not_before_27m: u64,
    pub(super) not_after_27m: u64,
}

impl Track {
    pub(super) fn new(pid: Pid, format: Format, language: Option<[u8; 3]>, cc: u8) -> Self {
        Self {
            pid,
            needs_random_access: format.is_video(),
            packet_27m: if format.is_video() { 0 } else { AUDIO_PACKET_27M },
            format,
            language,
            queue: Queue::default(),
            snap: Snap::default(),
            cc,
            last_dts_90k: None,
            empty_at_27m: 0,
            is_kept_filled: false,
        }
    }

    /// Queues the access unit `data` as a PES packet, unless it is none, cannot be decoded, or has more than `room` bytes.
    pub(super) fn push(&mut self, (data, hint): (&Payload, bool), times: Times, room: usize, stats: &mut Stats) {
        let mut draft = self.queue.begin();
        let is_video = self.format.is_video();
        let appended = self.format.append_packets((data, hint), times, &mut draft);
        let random_access = appended.as_ref().is_ok_and(|appended| appended.random_access);
        let is_whole = !matches!(appended, Err(Unfit::NoPicture));
        let refused = match &appended {
            Err(Unfit::Malformed | Unfit::NoPicture) => Some(&mut stats.malformed),
            Err(Unfit::TooLong) => Some(&mut stats.too_long),
            Ok(_) if is_video && self.needs_random_access && !random_access => Some(&mut stats.undecodable),
            Ok(_) if draft.len() > room => Some(&mut stats.overflow),
            Ok(_) => None,
        };
        if let Some(counter) = refused {
            *counter += 1;
            self.needs_random_access |= is_video && is_whole;
            return;
        }
        self.needs_random_access = false;
        if random_access && let Kind::Video(video) = &self.format.0 {
            self.packet_27m = video.packet_27m();
        }
        self.last_dts_90k = Some(times.dts_90k);
        stats.units += 1;
        let mut begin = 0;
        let ends = appended.into_iter().flat_map(|appended| appended.ends);
        draft.commit(ends.enumerate().map(|(n, end)| Unit {
            left: end - mem::replace(&mut begin, end),
            is_whole: true,
            dts_27m: times.dts_90k.saturating_mul(300),
            not_before_27m: times.not_before_27m,
            not_after_27m: times.not_after_27m,
            random_access: random_access && n == 0,
        }));
    }

    /// Drops what has waited too long, and the pictures that build on it.
    pub(super) fn drop_stale(&mut self, stc_27m: u64, stats: &mut Stats) {
        let mut dropped = false;
        while let Some(unit) = self.queue.front() {
            if unit.is_whole && unit.not_after_27m < stc_27m {
                stats.stale += 1;
            } else if dropped && self.format.is_video() && !unit.random_access {
                stats.undecodable += 1;
            } else {
                return;
            }
            dropped = true;
            self.queue.drop_front();
        }
        self.needs_random_access |= dropped && self.format.is_video();
    }

    /// Whether its first PES packet may go out now.
    #[inline]
    pub(super) fn is_ready(&self, stc_27m: u64) -> bool {
        self.has_room(stc_27m) && self.queue.front().is_some_and(|unit| unit.not_before_27m <= stc_27m)
    }

    /// Whether a receiver's transport buffer takes a TS packet in.
    #[inline]
    pub(super) const fn has_room(&self, stc_27m: u64) -> bool {
        let may_hold_27m = if self.is_kept_filled { self.packet_27m * 3 / 2 } else { 0 };
        self.empty_at_27m <= stc_27m + may_hold_27m
    }

    /// A TS packet goes out. A picture that has to be there soon waits for no room: it may have more bits than its level allows.
    pub(super) fn take_room(&mut self, stc_27m: u64) {
        let is_urgent = self.queue.front().is_some_and(|unit| unit.dts_27m <= stc_27m + URGENT_27M);
        if !is_urgent || !self.format.is_video() {
            self.empty_at_27m = self.empty_at_27m.max(stc_27m) + self.packet_27m;
        }
    }
}

/// What became of an access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Appended {
    /// A decoder may start at it.
    pub(super) random_access: bool,
    /// Where each of its PES packets ends, from the beginning of the first.
    pub(super) ends: ArrayVec<usize, FRAMES_MAX>,
}

impl Format {
    /// Appends the access unit `data` as the PES packets that a transport stream has of it.
    fn append_packets(
        &mut self,
        (data, hint): (&Payload, bool),
        times: Times,
        draft: &mut Draft<'_>,
    ) -> Result<Appended, Unfit> {
        if let Kind::Av1(av1) = &mut self.0 {
            return av1.append(data, hint, times, draft.own());
        }
        pes::append_header(pes::stream_id(&self.0), times.pts_90k, times.dts_90k, draft.own());
        let random_access = self.append(data, hint, draft)?;
        if !self.is_video() && !pes::set_length(draft.own_bytes()) {
            return Err(Unfit::TooLong);
        }
        Ok(Appended { random_access, ends: iter::once(draft.len()).collect() })
    }

    /// Appends the access unit `data` as a transport stream has it, and says whether a decoder may start at it.
    fn append(&mut self, data: &Payload, hint: bool, draft: &mut Draft<'_>) -> Result<bool, Unfit> {
        let starts_with = |sync: u16, mask: u16| {
            data.first_chunk().is_some_and(|first| u16::from_be_bytes(*first) & mask == sync).then_some(())
        };
        let known = match &mut self.0 {
            Kind::Video(video) => return video.append(data, hint, draft),
            Kind::Av1(_) => None,
            Kind::AacAdts => starts_with(0xfff0, 0xfff6),
            Kind::AacRaw(header) => {
                let header = header.bytes(data.len()).filter(|_| !data.is_empty());
                header.map(|header| draft.own().extend_from_slice(&header))
            }
            Kind::MpegAudio => starts_with(0xfff8, 0xfff8),
            Kind::Ac3 | Kind::Eac3 => starts_with(0x0b77, 0xffff),
            Kind::Opus { .. } => append_opus_header(data.len(), draft.own()),
        };
        known.ok_or(Unfit::Malformed)?;
        draft.own().extend_from_slice(data);
        Ok(true)
    }
}

/// The control header that Opus packets have in a transport stream: a prefix of eleven ones but for the first, no
/// trimming, then the size as a sum of bytes of which the last is below 255.
fn append_opus_header(bytes: usize, out: &mut Vec<u8>) -> Option<()> {
    if bytes == 0 || bytes > PACKET_BYTES_MAX {
        return None;
    }
    out.extend_from_slice(&[0x7f, 0xe0]);
    out.extend(iter::repeat_n(0xff, bytes / 255));
    out.push((bytes % 255) as u8);
    Some(())
}

/// A receiver empties its transport buffer for audio at 2 Mb/s (13818-1 2.4.2.4): ticks of 27 MHz for a TS packet.
const AUDIO_PACKET_27M: u64 = 188 * 8 * 27 / 2;
/// Before a picture is decoded. Judgement: two pictures.
const URGENT_27M: u64 = 27_000_000 / 12;
