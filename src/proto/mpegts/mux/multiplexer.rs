//! The multiplexer itself: its clock, what is due, and which track goes next.

use std::time::Duration;
use std::{mem, slice};

use arrayvec::ArrayVec;

use super::clock::Clock;
use super::format::Format;
use super::offsets::{Offsets, difference};
use super::pace::Pace;
use super::pes;
use super::slew::Slew;
use super::snap::Snap;
use super::stats::Stats;
use super::tables::{Names, PMT_PID, SDT_PID};
use super::timetable::{Due, Table, Timetable, next_cc};
use super::track::{Times, Track};
use crate::bus::{Meta, Packet, Pool};
use crate::proto::Payload;
use crate::proto::mpegts::packet::PAYLOAD_BYTES;
use crate::proto::mpegts::{Adaptation, Pid, TS_PACKET_BYTES, TsPacket};
use crate::units::{Bitrate, Ticks27M, Ticks90k, Time};

/// How the stream is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Rate of all TS packets together, filled up with null packets, at least [`RATE_MIN`]; `None` to send what there is
    /// at once and nothing else.
    pub rate: Option<Bitrate>,
    /// From the moment an access unit comes to the moment it is decoded, if it comes in time: what evens out its
    /// lateness, and with a constant rate the size of pictures. At most [`DELAY_MAX`].
    pub delay: Duration,
    /// What stands in the tables.
    pub names: Names,
}

impl Default for Config {
    /// Varying rate, 700 ms. Judgement: what others' multiplexers use, and within the second that a decoder's buffer
    /// may hold (13818-1 2.4.2.7).
    fn default() -> Self {
        Self { rate: None, delay: Duration::from_millis(700), names: Names::default() }
    }
}

/// One coded picture or audio frame.
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// When it is shown, on its source's clock, with or without the bits above the 33rd.
    pub pts: Ticks90k,
    /// When it is decoded, likewise. All tracks have the same clock.
    pub dts: Ticks90k,
    /// A decoder may start here, as far as its source knows; IDR and IRAP pictures are recognised anyway.
    pub random_access: bool,
    /// Its bytes, as the track's [`Format`] has them.
    pub data: Payload,
}

/// A track of one multiplexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackId(u8);

#[cfg(any(test, fuzzing))]
impl TrackId {
    /// Any id, given out or not.
    pub(super) const fn from_index(index: u8) -> Self {
        Self(index)
    }
}

/// Access units of up to [`TRACKS_MAX`] tracks in, packets of up to seven TS packets out.
///
/// Its clock starts with the first call and shows what the first access unit has for DTS, if that comes first. DTS and
/// PTS are those of the access units plus the delay. When a source's clock jumps, that difference changes and the
/// stream's own clock goes on. It follows a source whose clock is up to 29 ppm off, slowly, and with it go PCR and the
/// moments at which packets are due; what a source is off beyond that, its times are moved by, a tick here and there.
/// Times in whole milliseconds, as RTMP has them, are put back onto the grid of a usual picture or frame rate.
///
/// Call [`Multiplexer::handle_timeout`] when [`Multiplexer::poll_timeout`] says so, and fetch packets after each call:
/// access units wait in a bounded queue.
#[derive(Debug)]
pub struct Multiplexer {
    config: Config,
    pool: Pool,
    pace: Option<Pace>,
    clock: Option<Clock>,
    now: Time,
    called_at: Option<Time>,
    /// What of the stream had passed when this rate began: what went out before reaches up to there.
    origin: Duration,
    /// What is due up to the next call is left out.
    is_paused: bool,
    /// Index of the next packet, with a constant rate.
    position: u64,
    timetable: Timetable,
    pmt_version: u8,
    tracks: ArrayVec<Option<Track>, TRACKS_MAX>,
    /// Continuity counters of the PIDs whose track was removed.
    ccs: [u8; TRACKS_MAX],
    offsets: Offsets,
    slew: Slew,
    waiting_bytes: usize,
    /// The track whose transport buffer in a receiver is not to be empty.
    kept_filled: Option<usize>,
    stats: Stats,
}

impl Multiplexer {
    /// A stream without tracks.
    ///
    /// # Errors
    /// If the rate is below [`RATE_MIN`] or above [`RATE_MAX`], or the delay above [`DELAY_MAX`].
    pub fn new(config: Config, pool: Pool) -> Result<Self, ConfigError> {
        if !is_possible(config.rate) {
            return Err(ConfigError::Rate);
        }
        if config.delay > DELAY_MAX {
            return Err(ConfigError::Delay);
        }
        let pace = config.rate.map(|rate| Pace::new(rate, PACKET_TS_PACKETS));
        let interval = |span| interval(pace, span);
        let empty = config.names.pmt(0, Pid::NULL, std::iter::empty());
        let tables = [
            Table::new(Pid::PAT, interval(TABLE_INTERVAL), &config.names.pat()),
            Table::new(PMT_PID, interval(TABLE_INTERVAL), &empty),
            Table::new(SDT_PID, interval(SDT_INTERVAL), &config.names.sdt()),
        ];
        Ok(Self {
            timetable: Timetable::new(0, interval(PCR_INTERVAL), tables),
            config,
            pool,
            pace,
            clock: None,
            now: Time::ZERO,
            called_at: None,
            origin: Duration::ZERO,
            is_paused: false,
            position: 0,
            pmt_version: 0,
            tracks: ArrayVec::new(),
            ccs: [0; TRACKS_MAX],
            offsets: Offsets::default(),
            slew: Slew::default(),
            waiting_bytes: 0,
            kept_filled: None,
            stats: Stats::default(),
        })
    }

    /// Announces another track, of a language by ISO 639-2 if it is known.
    ///
    /// # Errors
    /// When there are [`TRACKS_MAX`] of them.
    pub fn add_track(&mut self, format: Format, language: Option<[u8; 3]>) -> Result<TrackId, TooManyTracks> {
        let index = self.tracks.iter().position(Option::is_none).unwrap_or(self.tracks.len());
        if index == self.tracks.len() {
            self.tracks.try_push(None).map_err(|_| TooManyTracks)?;
        }
        let pid = Pid::from_low_bits(FIRST_TRACK_PID + index as u16);
        let cc = self.ccs.get(index).copied().unwrap_or(0);
        if let Some(slot) = self.tracks.get_mut(index) {
            *slot = Some(Track::new(pid, format, language, cc));
        }
        self.announce();
        Ok(TrackId(index as u8))
    }

    /// Takes a track out, and drops what of it waits. Its id may be given out again.
    pub fn remove_track(&mut self, track: TrackId) {
        let index = usize::from(track.0);
        if let Some(mut gone) = self.tracks.get_mut(index).and_then(Option::take) {
            self.ccs[index] = gone.cc;
            self.waiting_bytes -= gone.queue.waiting_bytes();
            self.stats.overflow += gone.queue.clear();
            self.announce();
        }
    }

    /// The track goes on with another codec or configuration. If the tables say something else of it then, they are sent
    /// at once with a new version, and what of it waits is dropped.
    pub fn set_format(&mut self, track: TrackId, format: Format) {
        let Some(Some(track)) = self.tracks.get_mut(usize::from(track.0)) else {
            return;
        };
        let is_announced = track.format.announcement() == format.announcement();
        track.format = format;
        if !is_announced {
            self.waiting_bytes -= track.queue.waiting_bytes();
            self.stats.overflow += track.queue.clear();
            track.needs_random_access = track.format.is_video();
            self.announce();
        }
    }

    /// The same stream goes on at another rate behind what went out, which is all that is due until `now`, with PCR and tables
    /// first. A rate that [`Multiplexer::new`] refuses changes nothing.
    pub fn set_rate(&mut self, now: Time, rate: Option<Bitrate>) {
        if rate == self.config.rate || !is_possible(rate) {
            return;
        }
        self.origin = match (self.clock, self.pace) {
            (None, _) => Duration::ZERO,
            (Some(_), Some(pace)) => pace.due(Time::ZERO + self.origin, self.position).since(Time::ZERO),
            (Some(clock), None) => clock.elapsed(now.max(self.now)).max(self.origin),
        };
        self.config.rate = rate;
        self.pace = rate.map(|rate| Pace::new(rate, PACKET_TS_PACKETS));
        self.position = 0;
        // Behind the last PCR, if that was just now. Before the clock starts there is none, and tables come first.
        let is_behind = self.pace.is_none() && self.clock.is_some();
        let at = if is_behind { Ticks27M::from_span(self.origin).0 + 1 } else { 0 };
        let of_table = |pid| if pid == SDT_PID { SDT_INTERVAL } else { TABLE_INTERVAL };
        self.timetable.set_grids(at, interval(self.pace, PCR_INTERVAL), |pid| interval(self.pace, of_table(pid)));
    }

    /// What comes from now on is of another source, with a clock of its own: the next access unit is decoded after the delay,
    /// or behind those that wait, and pictures begin with one that a decoder can start at.
    pub fn rebase(&mut self) {
        self.offsets = Offsets::default();
        self.slew.restart();
        for track in self.tracks.iter_mut().flatten() {
            track.snap = Snap::default();
            track.needs_random_access = track.format.is_video();
        }
    }

    /// An access unit came. Those of one track come in the order of their DTS.
    pub fn handle_access_unit(&mut self, now: Time, track: TrackId, unit: &AccessUnit) {
        self.clock.get_or_insert_with(|| Clock::new(now, unit.dts.0 % TICKS_90K_MODULUS * 300));
        self.handle_timeout(now);
        let Some(Some(slot)) = self.tracks.get_mut(usize::from(track.0)) else {
            self.stats.malformed += 1;
            return;
        };
        if unit.data.len() > UNIT_BYTES_MAX {
            self.stats.too_long += 1;
            slot.needs_random_access = slot.format.is_video();
            return;
        }
        if slot.queue.waiting() >= UNITS_MAX || self.waiting_bytes + unit.data.len() > WAITING_BYTES_MAX {
            self.stats.overflow += 1;
            slot.needs_random_access = slot.format.is_video();
            return;
        }
        let Some(times) = self.times(track, unit) else {
            return;
        };
        if let Some(Some(track)) = self.tracks.get_mut(usize::from(track.0)) {
            let before = track.queue.waiting_bytes();
            let room = WAITING_BYTES_MAX - self.waiting_bytes;
            track.push((&unit.data, unit.random_access), times, room, &mut self.stats);
            self.waiting_bytes += track.queue.waiting_bytes() - before;
        }
    }

    /// The clock goes on to `now`: what is due until then can be fetched. After a pause of more than [`LATE_MAX`]
    /// without calls what was due in it is left out, and the next PCR says so. After [`Multiplexer::pause`]
    /// it is left out always, and not said: the clock went on, and nobody shall take what is open for damaged.
    pub fn handle_timeout(&mut self, now: Time) {
        let now = now.max(self.now);
        let is_paused = mem::take(&mut self.is_paused);
        let clock = self.clock.get_or_insert_with(|| Clock::new(now, 0));
        clock.set_rate(now, self.slew.rate_ppb(now));
        let clock = *clock;
        match self.pace {
            Some(pace) if is_paused || now.since(self.due(pace, clock)) > LATE_MAX => {
                let elapsed = Time::ZERO + clock.elapsed(now);
                let position = pace.position_at(Time::ZERO + self.origin, elapsed).max(self.position);
                self.stats.left_out += position - self.position;
                self.position = position;
                self.timetable.jump(pace.first_slot(position), !is_paused);
            }
            None if is_paused || now.since(self.called_at.unwrap_or(now)) > LATE_MAX => {
                self.timetable.jump(clock.elapsed_27m(now), !is_paused);
            }
            Some(_) | None => {}
        }
        self.now = now;
        self.called_at = Some(now);
    }

    /// Nobody calls for a while, as there is nothing to send.
    pub const fn pause(&mut self) {
        self.is_paused = true;
    }

    /// With a constant rate, a receiver's transport buffer for the track is never empty, or is again as it should be (13818-1
    /// 2.4.2.7): for alarms to be seen.
    pub(in crate::proto::mpegts) fn set_kept_filled(&mut self, track: TrackId, is_kept_filled: bool) {
        let index = usize::from(track.0);
        self.kept_filled = is_kept_filled.then_some(index);
        if let Some(Some(track)) = self.tracks.get_mut(index) {
            track.is_kept_filled = is_kept_filled;
        }
    }

    /// The next packet: of 7 TS packets with a constant rate, of 1 to 7 otherwise. Its arrival is the moment it was due.
    pub fn poll_packet(&mut self) -> Option<Packet> {
        let clock = self.clock?;
        match self.pace {
            Some(pace) => self.poll_constant(clock, pace),
            None => self.poll_variable(clock),
        }
    }

    /// When [`Multiplexer::handle_timeout`] wants to be called; `None` before the first call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let clock = self.clock?;
        let due = match self.pace {
            Some(pace) => self.due(pace, clock),
            None => on_grid(clock.time_of(self.timetable.earliest())),
        };
        // With packets that are due already there was no buffer for them; a pause lets some come back.
        Some(due.max(self.now + REST))
    }

    /// Bytes that have not gone out, of all tracks: at most [`WAITING_BYTES_MAX`].
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether something of a track has not gone out.
    #[must_use]
    pub fn has_waiting(&self, track: TrackId) -> bool {
        let track = self.tracks.get(usize::from(track.0)).and_then(Option::as_ref);
        track.is_some_and(|track| track.queue.waiting() > 0)
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// When the next packet is due by the caller's clock.
    fn due(&self, pace: Pace, clock: Clock) -> Time {
        clock.moment(pace.due(Time::ZERO + self.origin, self.position).since(Time::ZERO))
    }

    fn poll_constant(&mut self, clock: Clock, pace: Pace) -> Option<Packet> {
        let due = self.due(pace, clock);
        if due > self.now {
            return None;
        }
        let first_slot = pace.first_slot(self.position);
        self.position += 1;
        let Some(mut buffer) = self.pool.take(PACKET_BYTES) else {
            self.stats.no_buffer += 1;
            return None;
        };
        let slot_27m = pace.ticks_to(1);
        let start_27m = clock.start_27m + Ticks27M::from_span(self.origin).0;
        let mut stc_27m = start_27m + pace.ticks_to(first_slot);
        self.drop_stale(stc_27m);
        let (outs, _) = buffer.as_chunks_mut::<TS_PACKET_BYTES>();
        for (slot, out) in (first_slot..).zip(outs.iter_mut().take(PACKET_TS_PACKETS)) {
            self.fill_slot(pace, Ticks27M(start_27m), (slot, stc_27m), out);
            stc_27m += slot_27m;
        }
        self.stats.ts_packets += PACKET_TS_PACKETS as u64;
        Some(Packet::new(buffer, 0..PACKET_BYTES, Meta { arrival: due, ..Meta::default() }))
    }

    fn fill_slot(&mut self, pace: Pace, start: Ticks27M, at: (u64, u64), out: &mut [u8; TS_PACKET_BYTES]) {
        let (slot, stc_27m) = at;
        let pcr = match self.timetable.next(slot, out) {
            Some(Due::Table) => return,
            Some(Due::Pcr { discontinuity, .. }) => Some(Reference { pcr: pace.pcr(start, slot), discontinuity }),
            None => None,
        };
        let is_filled = match pcr {
            Some(reference) => self.write_pcr(reference, stc_27m, out),
            None => {
                self.keep_filled(stc_27m, out)
                    || self.choose(stc_27m).is_some_and(|index| self.write_data(index, None, stc_27m, out))
            }
        };
        if !is_filled {
            TsPacket { pid: Pid::NULL, payload: Some(&NULL_PAYLOAD), ..TsPacket::default() }.write(out);
            self.stats.nulls += 1;
        }
    }

    fn poll_variable(&mut self, clock: Clock) -> Option<Packet> {
        let elapsed_27m = clock.elapsed_27m(self.now);
        let is_idle = self.timetable.earliest() > elapsed_27m && self.waiting_bytes == 0;
        if is_idle || clock.elapsed(self.now) < self.origin {
            return None;
        }
        let Some(mut buffer) = self.pool.take(PACKET_BYTES) else {
            self.stats.no_buffer += 1;
            return None;
        };
        let (outs, _) = buffer.as_chunks_mut::<TS_PACKET_BYTES>();
        let outs = &mut outs[..PACKET_TS_PACKETS];
        let mut filled = 0;
        loop {
            let before = filled;
            filled += self.fill_next(clock, elapsed_27m, &mut outs[filled..]);
            if filled == before {
                break;
            }
        }
        self.stats.ts_packets += filled as u64;
        let meta = Meta { arrival: self.now, ..Meta::default() };
        (filled > 0).then(|| Packet::new(buffer, 0..filled * TS_PACKET_BYTES, meta))
    }

    /// Everything on the grids first, in order, then the tracks; gives how many were filled.
    fn fill_next(&mut self, clock: Clock, elapsed_27m: u64, outs: &mut [[u8; TS_PACKET_BYTES]]) -> usize {
        let stc_27m = clock.start_27m + elapsed_27m;
        let Some((out, others)) = outs.split_first_mut() else {
            return 0;
        };
        loop {
            let at = self.timetable.earliest();
            if at > elapsed_27m {
                break;
            }
            match self.timetable.next(at, out) {
                Some(Due::Table) => return 1,
                Some(Due::Pcr { since, discontinuity }) => {
                    let reference = Reference { pcr: Ticks27M(clock.start_27m + since), discontinuity };
                    if self.write_pcr(reference, stc_27m, out) {
                        return 1;
                    }
                }
                None => break,
            }
        }
        let Some(index) = self.choose(stc_27m) else {
            return 0;
        };
        let mut reference = None;
        if self.timetable.wants_pcr(elapsed_27m) && self.pcr_track() == Some(index) {
            let discontinuity = self.timetable.pcr_sent(elapsed_27m);
            reference = Some(Reference { pcr: Ticks27M(stc_27m), discontinuity });
        }
        if !self.write_data(index, reference, stc_27m, out) {
            return 0;
        }
        1 + self.write_rest(index, stc_27m, others)
    }

    /// The track whose first PES packet is decoded first, of those that may go out.
    fn choose(&self, stc_27m: u64) -> Option<usize> {
        if self.waiting_bytes == 0 {
            return None;
        }
        let mut chosen = None;
        for (index, track) in self.tracks.iter().enumerate() {
            let is_crowded = |track: &Track| self.pace.is_none() && track.queue.waiting() > CROWDED_UNITS;
            let Some(track) = track.as_ref().filter(|track| track.is_ready(stc_27m) || is_crowded(track)) else {
                continue;
            };
            let dts_27m = track.queue.front().map_or(u64::MAX, |unit| unit.dts_27m);
            if chosen.is_none_or(|(earliest, _)| dts_27m < earliest) {
                chosen = Some((dts_27m, index));
            }
        }
        chosen.map(|(_, index)| index)
    }

    /// A packet with PCR, and payload if there is some for its PID; false without a track to put it on.
    fn write_pcr(&mut self, reference: Reference, stc_27m: u64, out: &mut [u8; TS_PACKET_BYTES]) -> bool {
        let Some(index) = self.pcr_track() else {
            return false;
        };
        let is_ready = self.tracks.get(index).and_then(Option::as_ref).is_some_and(|track| track.is_ready(stc_27m));
        if is_ready {
            return self.write_data(index, Some(reference), stc_27m, out);
        }
        self.write_empty(index, reference.adaptation(Adaptation::default()), stc_27m, out)
    }

    /// A packet without payload.
    fn write_empty(
        &mut self,
        index: usize,
        adaptation: Adaptation<'static>,
        stc_27m: u64,
        out: &mut [u8; TS_PACKET_BYTES],
    ) -> bool {
        let Some(Some(track)) = self.tracks.get_mut(index) else {
            return false;
        };
        if self.pace.is_some() {
            track.take_room(stc_27m);
        }
        // The continuity counter stays that of the packet before (13818-1 2.4.3.3).
        let cc = track.cc.wrapping_sub(1) & 0x0f;
        TsPacket { pid: track.pid, cc, adaptation: Some(adaptation), ..TsPacket::default() }.write(out);
        true
    }

    /// A packet for the track whose transport buffer is never to be empty, if there is room in it.
    fn keep_filled(&mut self, stc_27m: u64, out: &mut [u8; TS_PACKET_BYTES]) -> bool {
        let Some(index) = self.kept_filled else { return false };
        let Some(Some(track)) = self.tracks.get(index) else { return false };
        match (track.has_room(stc_27m), track.is_ready(stc_27m)) {
            (_, true) => self.write_data(index, None, stc_27m, out),
            (true, false) => self.write_empty(index, Adaptation::default(), stc_27m, out),
            (false, false) => false,
        }
    }

    /// The next packet of a track that has something to go out.
    fn write_data(
        &mut self,
        index: usize,
        reference: Option<Reference>,
        stc_27m: u64,
        out: &mut [u8; TS_PACKET_BYTES],
    ) -> bool {
        let Some(Some(track)) = self.tracks.get_mut(index) else {
            return false;
        };
        if self.pace.is_some() {
            track.take_room(stc_27m);
        }
        if reference.is_none() && self.write_rest(index, stc_27m, slice::from_mut(out)) > 0 {
            return true;
        }
        let Some(Some(track)) = self.tracks.get_mut(index) else {
            return false;
        };
        let Some(unit) = track.queue.front() else {
            return false;
        };
        let (payload_unit_start, random_access) = (unit.is_whole, unit.is_whole && unit.random_access);
        let begins = random_access.then(|| track.format.random_access());
        let adaptation = match reference {
            Some(reference) => Some(reference.adaptation(begins.unwrap_or_default())),
            None => begins,
        };
        let mut room = None;
        let payload = Some(track.queue.next_payload(&mut room));
        let (pid, cc) = (track.pid, next_cc(&mut track.cc));
        let written = TsPacket { payload_unit_start, pid, cc, adaptation, payload, ..TsPacket::default() }.write(out);
        self.take_off(index, written, stc_27m);
        true
    }

    /// The next packets of a PES packet that has begun, as long as it fills them; gives how many. There is nothing else in them.
    fn write_rest(&mut self, index: usize, stc_27m: u64, outs: &mut [[u8; TS_PACKET_BYTES]]) -> usize {
        let Some(Some(track)) = self.tracks.get_mut(index) else {
            return 0;
        };
        let mut filled = 0;
        while let Some(unit) = track.queue.front()
            && unit.left >= PAYLOAD_BYTES
            && !unit.is_whole
            && filled < outs.len()
        {
            let mut room = None;
            let (payloads, _) = track.queue.next_payload(&mut room).as_chunks::<PAYLOAD_BYTES>();
            let outs = &mut outs[filled..];
            let count = payloads.len().min(outs.len());
            for (payload, out) in payloads.iter().zip(outs) {
                TsPacket::write_payload(track.pid, next_cc(&mut track.cc), payload, out);
            }
            let ended = track.queue.advance(count * PAYLOAD_BYTES);
            self.stats.late += u64::from(ended.is_some_and(|unit| unit.dts_27m < stc_27m));
            filled += count;
        }
        self.waiting_bytes -= filled * PAYLOAD_BYTES;
        filled
    }

    /// So many bytes of a track went out.
    fn take_off(&mut self, index: usize, bytes: usize, stc_27m: u64) {
        self.waiting_bytes -= bytes;
        let track = self.tracks.get_mut(index).and_then(Option::as_mut);
        let whole = track.and_then(|track| track.queue.advance(bytes));
        self.stats.late += u64::from(whole.is_some_and(|unit| unit.dts_27m < stc_27m));
    }

    fn drop_stale(&mut self, stc_27m: u64) {
        for track in self.tracks.iter_mut().flatten() {
            let before = track.queue.waiting_bytes();
            track.drop_stale(stc_27m, &mut self.stats);
            self.waiting_bytes -= before - track.queue.waiting_bytes();
        }
    }

    /// Puts an access unit on the stream's clock.
    fn times(&mut self, track: TrackId, unit: &AccessUnit) -> Option<Times> {
        let stc_27m = self.clock?.stc_27m(self.now);
        let (stc_90k, delay_90k) = (stc_27m / 300, Ticks90k::from_span(self.config.delay).0);
        let source_90k = self.tracks.get_mut(usize::from(track.0))?.as_mut()?.snap.dts(unit.dts.0);
        let newest = self.tracks.iter().flatten().filter_map(|track| track.last_dts_90k).max();
        let from = stc_90k.saturating_add(delay_90k).max(newest.map_or(0, |newest| newest + 1));
        self.offsets.move_by(self.slew.take_move(self.now));
        let rebased = self.stats.rebased;
        let mut dts_90k = self.offsets.place(self.now, source_90k, (stc_90k, delay_90k, from), &mut self.stats);
        if self.stats.rebased != rebased {
            self.slew.restart();
        } else if self.pcr_track() == Some(usize::from(track.0)) {
            let gained_27m = self.clock?.gained_27m(self.now);
            self.slew.handle_unit(self.now, dts_90k as i64 - stc_90k as i64, gained_27m / 300);
        }
        let mut mended = false;
        let track = self.tracks.get(usize::from(track.0))?.as_ref()?;
        if let Some(last) = track.last_dts_90k.filter(|last| dts_90k <= *last) {
            dts_90k = last + 1;
            mended = true;
        }
        let mut shown_after_90k = track.snap.shown_after(difference(unit.dts.0, unit.pts.0));
        if !(0..=PTS_AHEAD_MAX_90K).contains(&shown_after_90k) {
            shown_after_90k = 0;
            mended = true;
        }
        self.stats.mended += u64::from(mended);
        let dts_27m = dts_90k.saturating_mul(300);
        let ahead = if track.format.is_video() { self.config.delay } else { AUDIO_AHEAD.min(self.config.delay) };
        let is_constant = self.pace.is_some();
        Some(Times {
            pts_90k: dts_90k.saturating_add_signed(shown_after_90k),
            dts_90k,
            not_before_27m: match (is_constant, track.format.is_video()) {
                (true, _) => dts_27m.saturating_sub(Ticks27M::from_span(ahead).0),
                (false, false) => dts_27m.saturating_sub(Ticks27M::from_span(SOUND_AHEAD_MAX).0),
                (false, true) => 0,
            },
            not_after_27m: match is_constant {
                true if dts_27m >= stc_27m => dts_27m,
                true => stc_27m.saturating_add(STALE_27M),
                false => u64::MAX,
            },
        })
    }

    /// The first picture, or the first track of all.
    fn pcr_track(&self) -> Option<usize> {
        let is_video = |track: &Option<Track>| track.as_ref().is_some_and(|track| track.format.is_video());
        self.tracks.iter().position(is_video).or_else(|| self.tracks.iter().position(Option::is_some))
    }

    /// Puts the tracks into the PMT, which is sent at once.
    fn announce(&mut self) {
        // Each version that was sent has another one behind it, however many nobody saw.
        if self.clock.is_some() && !self.timetable.is_unsent(PMT_PID) {
            self.pmt_version = (self.pmt_version + 1) & 0x1f;
        }
        let pcr_track = self.pcr_track().and_then(|index| self.tracks.get(index)).and_then(Option::as_ref);
        let pcr_pid = pcr_track.map_or(Pid::NULL, |track| track.pid);
        let tracks = self.tracks.iter().flatten().map(|track| (track.pid, &track.format, track.language));
        let section = self.config.names.pmt(self.pmt_version, pcr_pid, tracks);
        self.send_section(PMT_PID, &section);
    }

    /// Sends a section at once; PAT, PMT and SDT go on being repeated with the new content.
    pub(in crate::proto::mpegts) fn send_section(&mut self, pid: Pid, section: &[u8]) {
        let at = match (self.clock, self.pace) {
            (None, _) => 0,
            (Some(_), Some(pace)) => pace.first_slot(self.position),
            (Some(clock), None) => clock.elapsed_27m(self.now),
        };
        self.timetable.replace(at, pid, section);
    }
}

/// Whether a stream can have that rate.
fn is_possible(rate: Option<Bitrate>) -> bool {
    rate.is_none_or(|rate| (RATE_MIN..=RATE_MAX).contains(&rate))
}

/// A span in what the stream is made of: slots, or ticks of 27 MHz.
fn interval(pace: Option<Pace>, span: Duration) -> u64 {
    pace.map_or_else(|| Ticks27M::from_span(span).0, |pace| pace.slots_in(span))
}

/// The first moment from `due` on at which whoever has many streams is called for all of them.
const fn on_grid(due: Time) -> Time {
    Time::from_ns(due.as_ns().next_multiple_of(CALLS_APART_NS))
}

/// A PCR to be written.
#[derive(Clone, Copy)]
struct Reference {
    pcr: Ticks27M,
    discontinuity: bool,
}

impl Reference {
    fn adaptation(self, begins: Adaptation<'static>) -> Adaptation<'static> {
        Adaptation { discontinuity: self.discontinuity, pcr: Some(self.pcr), ..begins }
    }
}

/// Why a configuration is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Below [`RATE_MIN`] or above [`RATE_MAX`].
    #[error("rate must be between 250k and 10G")]
    Rate,
    /// Above [`DELAY_MAX`].
    #[error("delay must be at most 10 s")]
    Delay,
}

/// There are [`TRACKS_MAX`] tracks already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a program has at most 16 tracks")]
pub struct TooManyTracks;

/// Tracks of a program. Judgement: a picture, and more languages than are ever sent together.
pub const TRACKS_MAX: usize = 16;

/// Bytes of an access unit. Judgement: a picture of 800 Mb/s at 25 Hz.
pub const UNIT_BYTES_MAX: usize = 4 << 20;

/// Bytes of access units that may wait, all tracks together. Judgement: two of the longest.
pub const WAITING_BYTES_MAX: usize = 2 * UNIT_BYTES_MAX;

/// Access units of a track that may wait. Judgement: ten seconds of audio in frames of 21 ms, eight of 60 Hz.
pub const UNITS_MAX: usize = 512;

/// With more of them a track waits no longer for what is due, at a varying rate: better early than lost. Judgement: as much room
/// again for what comes before the next call.
const CROWDED_UNITS: usize = UNITS_MAX / 2;

/// Slowest constant rate: below it, PCR and tables would fill the stream.
pub const RATE_MIN: Bitrate = Bitrate::from_bps(250_000);

/// Fastest constant rate. Judgement: no network card here is faster.
pub const RATE_MAX: Bitrate = Bitrate::from_bps(10_000_000_000);

/// Longest delay. Judgement: above it somebody has mistaken the unit.
pub const DELAY_MAX: Duration = Duration::from_secs(10);

/// How late a call may be and still be caught up with. Judgement: longer than any scheduling hiccup, shorter than what
/// would flood a receiver.
pub const LATE_MAX: Duration = Duration::from_millis(500);

/// 40 ms at most (TR 101 290, 2.3a); the margin is for jitter of whoever sends.
const PCR_INTERVAL: Duration = Duration::from_millis(25);
/// Calls for what has no data to go with, at a varying rate. Judgement: within the margin of PCR.
const CALLS_APART_NS: u64 = 5_000_000;
/// 100 ms at most (ETSI TS 101 154); margin as above.
const TABLE_INTERVAL: Duration = Duration::from_millis(80);
/// 2 s at most (TR 101 290, 3.5); more often, so that names show soon.
const SDT_INTERVAL: Duration = Duration::from_millis(500);

/// How long before its DTS audio goes out at a constant rate: 60 ms of 448 kb/s fit the buffer of 3,584 bytes that a
/// decoder has (13818-1 2.4.2.4).
const AUDIO_AHEAD: Duration = Duration::from_millis(60);
/// How long before its DTS sound goes out at a varying rate: a second at most (TR 101 290, 3.10), less the steps in which we
/// are called. A publisher may begin with a burst.
const SOUND_AHEAD_MAX: Duration = Duration::from_millis(950);
/// How long an access unit that came too late may still wait, at a constant rate; what came in time may until its DTS.
/// Judgement: as long as the buffers of receivers.
const STALE_27M: u64 = 27_000_000;

/// Judgement: four times the longest reordering there is, 16 pictures at 6 Hz.
const PTS_AHEAD_MAX_90K: i64 = 10 * 90_000;
const TICKS_90K_MODULUS: u64 = 1 << 33;

/// Above 42 Mb/s packets come several at a time, because a timer for each would cost more than the packet.
const REST: Duration = Duration::from_micros(250);

const FIRST_TRACK_PID: u16 = 0x100;
/// What fits an Ethernet frame.
const PACKET_TS_PACKETS: usize = 7;
const PACKET_BYTES: usize = PACKET_TS_PACKETS * TS_PACKET_BYTES;
const NULL_PAYLOAD: [u8; TS_PACKET_BYTES - 4] = [0xff; TS_PACKET_BYTES - 4];
const _: () = assert!(pes::HEADER_BYTES_MAX < TS_PACKET_BYTES);
