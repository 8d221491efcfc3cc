//! A test signal to look at and to listen to, as a core without sockets: moving bars with clock and number, and a tone,
//! through our own multiplexer at exactly constant rate.
//!
//! 1280 by 720 at 25 Hz in H.264, an IDR picture every second, and 192 kb/s of MPEG-1 audio layer II. Both are made here,
//! in a small way: `h264` codes cells of one colour, `tone` is a frame that repeats. Their share of the stream is about
//! 0.5 Mb/s, the rest is null packets.

use std::time::Duration;

use super::mux::{self, AccessUnit, ConfigError, Format, LATE_MAX, Multiplexer, RATE_MAX, TrackId};
use crate::bus::Packet;
use crate::proto::{Core, Datagram, Event, Stats, Surroundings, Transmit};
use crate::units::{Bitrate, Ticks90k, Time};
use h264::{Colour, Encoder};
use raster::{COLUMNS, ROWS};

mod h264;
mod raster;
#[cfg(test)]
mod tests;
mod tone;

/// Emits packets of seven TS packets; their arrival is the moment they were due.
///
/// As the numbered stream of [`Generator`](super::Generator) it catches up with a late call, and leaves out what a very
/// late one missed. [`Stats::received`] counts packets emitted.
#[derive(Debug)]
pub struct TestPicture {
    mux: Multiplexer,
    video: TrackId,
    audio: TrackId,
    encoder: Encoder,
    cells: Box<[Colour; COLUMNS * ROWS]>,
    tone: [u8; tone::FRAME_BYTES],
    /// The access unit made last.
    unit: Vec<u8>,
    unix_ns_at_zero: u64,
    /// The first picture's moment; set by the first call.
    start: Option<Time>,
    /// Numbers of the next picture and of the next frame of sound, both counted from the start.
    picture: u64,
    sound: u64,
    /// Pictures were left out, or none was made yet.
    needs_idr: bool,
    emitted: u64,
}

impl TestPicture {
    /// A signal that starts with the first call of `handle_timeout`.
    #[must_use]
    pub fn new(config: Config, surroundings: &Surroundings) -> Self {
        let names = mux::Names { service: "Test picture".into(), ..mux::Names::default() };
        let config = mux::Config { rate: Some(config.rate), delay: DELAY, names };
        let Ok(mut mux) = Multiplexer::new(config, surroundings.pool.clone()) else {
            unreachable!("the rate was checked");
        };
        let tracks = [Format::h264(), Format::mpeg_audio()].map(|format| mux.add_track(format, None));
        let [Ok(video), Ok(audio)] = tracks else {
            unreachable!("a multiplexer has room for two tracks");
        };
        Self {
            mux,
            video,
            audio,
            encoder: Encoder::new(COLUMNS, ROWS),
            cells: Box::new([Colour([0; 3]); COLUMNS * ROWS]),
            tone: tone::frame(),
            unit: Vec::new(),
            unix_ns_at_zero: surroundings.unix_ns_at_zero,
            start: None,
            picture: 0,
            sound: 0,
            needs_idr: true,
            emitted: 0,
        }
    }

    fn push_picture(&mut self, at: Time) {
        let is_idr = self.needs_idr || self.picture.is_multiple_of(PICTURES_PER_IDR);
        let seconds = self.unix_ns_at_zero.saturating_add(at.as_ns()) / 1_000_000_000;
        let time = [seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60];
        raster::draw(self.picture, time, &mut self.cells);
        self.unit.clear();
        self.encoder.encode(&self.cells[..], is_idr, &mut self.unit);
        let dts = Ticks90k(self.picture * PICTURE_90K);
        let unit = AccessUnit { pts: dts, dts, random_access: is_idr, data: &self.unit };
        self.mux.handle_access_unit(at, self.video, &unit);
        self.picture += 1;
        self.needs_idr = false;
    }

    fn push_sound(&mut self, at: Time) {
        let dts = Ticks90k(self.sound * tone::FRAME_90K);
        let unit = AccessUnit { pts: dts, dts, random_access: false, data: &self.tone };
        self.mux.handle_access_unit(at, self.audio, &unit);
        self.sound += 1;
    }

    fn next(&self, start: Time) -> (Time, Time) {
        (moment(start, self.picture * PICTURE_90K), moment(start, self.sound * tone::FRAME_90K))
    }
}

impl Core for TestPicture {
    fn handle_datagram(&mut self, _now: Time, _datagram: Datagram) {}

    fn handle_packet(&mut self, _now: Time, _packet: &Packet) {}

    fn handle_timeout(&mut self, now: Time) {
        let start = *self.start.get_or_insert(now);
        if now.since(self.next(start).0) > LATE_MAX {
            let elapsed = Ticks90k::from_span(now.since(start)).0;
            self.picture = elapsed / PICTURE_90K;
            self.sound = elapsed / tone::FRAME_90K;
            self.needs_idr = true;
            self.mux.handle_timeout(now);
        }
        loop {
            match self.next(start) {
                (picture, sound) if picture <= sound && picture <= now => self.push_picture(picture),
                (_, sound) if sound <= now => self.push_sound(sound),
                _ => break,
            }
        }
        self.mux.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        let packet = self.mux.poll_packet()?;
        self.emitted += 1;
        Some(packet)
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn poll_timeout(&self) -> Option<Time> {
        let Some(start) = self.start else {
            return Some(Time::ZERO);
        };
        let (picture, sound) = self.next(start);
        self.mux.poll_timeout().map(|due| due.min(picture).min(sound))
    }

    fn stats(&self) -> Stats {
        let stats = self.mux.stats();
        Stats { received: self.emitted, overflow: stats.left_out, no_buffer: stats.no_buffer, ..Stats::default() }
    }
}

/// What stream to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    rate: Bitrate,
}

impl Config {
    /// A stream of `rate`, [`RATE_MIN`] to 10 Gb/s counting all of its TS packets and nothing else.
    ///
    /// # Errors
    /// If it is out of bounds.
    pub fn new(rate: Bitrate) -> Result<Self, ConfigError> {
        if (RATE_MIN..=RATE_MAX).contains(&rate) { Ok(Self { rate }) } else { Err(ConfigError::Rate) }
    }
}

/// The first moment at which so many ticks have passed.
fn moment(start: Time, ticks_90k: u64) -> Time {
    start + Duration::from_nanos((u128::from(ticks_90k) * 100_000).div_ceil(9) as u64)
}

/// Slowest stream: below it sound, tables and a picture that changes everywhere would not fit.
pub const RATE_MIN: Bitrate = Bitrate::from_bps(1_000_000);

/// Judgement: an IDR picture of 10 kB fits into it at the slowest rate.
const DELAY: Duration = Duration::from_millis(300);
const PICTURE_90K: u64 = 3_600;
const PICTURES_PER_IDR: u64 = 25;
