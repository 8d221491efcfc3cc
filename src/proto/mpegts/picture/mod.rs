//! A test signal to look at and to listen to, as a core without sockets: moving bars with name, clock and number, and a
//! tone, through our own multiplexer at exactly constant rate.
//!
//! H.264 of 1280 by 720 or 1920 by 1080 at 25, 30 or 50 Hz in the colours of ITU-R BT.709, an IDR picture every second, and
//! 192 kb/s of MPEG-1 audio layer II. Both are made here, in a small way: `h264` codes cells of one colour, `tone` is a
//! frame that repeats: the line-up tone of EBU R 68, 18 dB below full scale. Their share of the stream is about 0.5 Mb/s,
//! the rest is null packets. `si` adds what DVB wants beside PAT, PMT and SDT.

use std::time::Duration;

use arrayvec::ArrayString;

use super::faults::{self, Fault};
use super::mux::{self, AccessUnit, ConfigError, Format, LATE_MAX, Multiplexer, RATE_MAX, TrackId};
use crate::bus::Packet;
use crate::proto::{Core, Datagram, Event, Stats, Surroundings, Transmit};
use crate::units::{Bitrate, Ticks90k, Time};
use h264::{Colour, Encoder, Shape};

mod h264;
mod raster;
mod si;
#[cfg(test)]
mod tests;
mod tone;

/// Emits packets of seven TS packets; their arrival is the moment they were due.
///
/// As the numbered stream of [`Generator`](super::Generator) it catches up with a late call, and leaves out what a very
/// late one missed. [`Stats::received`] counts packets emitted.
#[derive(Debug)]
pub struct TestPicture {
    config: Config,
    faults: faults::Config,
    names: mux::Names,
    mux: Multiplexer,
    video: TrackId,
    audio: TrackId,
    encoder: Encoder,
    cells: Vec<Colour>,
    tone: [u8; tone::FRAME_BYTES],
    unix_ns_at_zero: u64,
    /// The first picture's moment; set by the first call.
    start: Option<Time>,
    /// Numbers of the next picture, of the next frame of sound and of the next service information, counted from the start.
    picture: u64,
    sound: u64,
    information: u64,
    /// Pictures were left out, or none was made yet.
    needs_idr: bool,
    emitted: u64,
}

impl TestPicture {
    /// A signal that starts with the first call of `handle_timeout`.
    #[must_use]
    pub fn new(config: Config, surroundings: &Surroundings) -> Self {
        let service = if config.name.is_empty() { "Test picture" } else { config.name.as_str() };
        let names = mux::Names { service: service.into(), has_present_following: true, ..mux::Names::default() };
        let mux = mux::Config { rate: Some(config.rate), delay: DELAY, names: names.clone() };
        let Ok(mut mux) = Multiplexer::new(mux, surroundings.pool.clone()) else {
            unreachable!("the rate was checked");
        };
        let tracks = [Format::h264(), Format::mpeg_audio()].map(|format| mux.add_track(format, None));
        let [Ok(video), Ok(audio)] = tracks else {
            unreachable!("a multiplexer has room for two tracks");
        };
        let shape = config.shape();
        Self {
            config,
            faults: faults::Config::default(),
            names,
            mux,
            video,
            audio,
            encoder: Encoder::new(shape),
            cells: vec![Colour([0; 3]); shape.columns * shape.rows],
            tone: tone::frame(),
            unix_ns_at_zero: surroundings.unix_ns_at_zero,
            start: None,
            picture: 0,
            sound: 0,
            information: 0,
            needs_idr: true,
            emitted: 0,
        }
    }

    /// Black, frozen, silent, and filled up beyond measure as `faults` have it. What else is wrong with packets is for
    /// [`faults::Faulty`].
    #[must_use]
    pub const fn with_faults(mut self, faults: faults::Config) -> Self {
        self.faults = faults;
        self
    }

    fn push_picture(&mut self, at: Time) {
        let rate = u64::from(self.config.picture_rate);
        let is_idr = self.needs_idr || self.picture.is_multiple_of(rate);
        let dts = Ticks90k(self.picture * self.picture_90k());
        let elapsed = span_of(dts.0);
        if self.faults.on_for(Fault::Black, elapsed).is_some() {
            raster::blacken(&mut self.cells);
        } else if self.faults.on_for(Fault::Freeze, elapsed).is_none() || self.picture == 0 {
            let seconds = self.since_1970(at).as_secs();
            let time = [seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60];
            let name = if self.config.name.is_empty() { NAME } else { &self.config.name.to_ascii_uppercase() };
            let moment = raster::Moment { number: self.picture, rate, time, name };
            raster::draw(moment, self.config.shape().columns, &mut self.cells);
        }
        let mut data = Vec::new();
        self.encoder.encode(&self.cells, is_idr, &mut data);
        let unit = AccessUnit { pts: dts, dts, random_access: is_idr, data: data.into() };
        self.mux.handle_access_unit(at, self.video, &unit);
        self.picture += 1;
        self.needs_idr = false;
    }

    fn push_sound(&mut self, at: Time) {
        let dts = Ticks90k(self.sound * tone::FRAME_90K);
        let is_silent = self.faults.on_for(Fault::Silence, span_of(dts.0)).is_some();
        let data = if is_silent { &tone::SILENCE } else { &self.tone };
        let unit = AccessUnit { pts: dts, dts, random_access: false, data: data.to_vec().into() };
        self.mux.handle_access_unit(at, self.audio, &unit);
        self.sound += 1;
    }

    fn push_information(&mut self, at: Time) {
        for (pid, section) in si::due(self.information, &self.names, self.since_1970(at)) {
            self.mux.send_section(pid, &section);
        }
        self.information += 1;
    }

    fn since_1970(&self, at: Time) -> Duration {
        Duration::from_nanos(self.unix_ns_at_zero.saturating_add(at.as_ns()))
    }

    fn picture_90k(&self) -> u64 {
        90_000 / u64::from(self.config.picture_rate)
    }

    /// When the next picture, frame of sound and service information are due.
    fn next(&self, start: Time) -> [Time; 3] {
        let at = |ticks| start + span_of(ticks);
        [
            at(self.picture * self.picture_90k()),
            at(self.sound * tone::FRAME_90K),
            at(self.information * INFORMATION_90K),
        ]
    }
}

impl Core for TestPicture {
    fn handle_datagram(&mut self, _now: Time, _datagram: Datagram) {}

    fn handle_packet(&mut self, _now: Time, _packet: &Packet) {}

    fn handle_timeout(&mut self, now: Time) {
        let start = *self.start.get_or_insert(now);
        let [picture, ..] = self.next(start);
        if now.since(picture) > LATE_MAX {
            let elapsed = Ticks90k::from_span(now.since(start)).0;
            self.picture = elapsed / self.picture_90k();
            self.sound = elapsed / tone::FRAME_90K;
            self.information = elapsed / INFORMATION_90K;
            self.needs_idr = true;
            self.mux.handle_timeout(now);
        }
        loop {
            let [picture, sound, information] = self.next(start);
            let earliest = picture.min(sound).min(information);
            if earliest > now {
                break;
            } else if picture == earliest {
                self.push_picture(picture);
            } else if sound == earliest {
                self.push_sound(sound);
            } else {
                self.push_information(information);
            }
        }
        self.mux.set_kept_filled(self.audio, self.faults.on_for(Fault::EmptyBuffer, now.since(start)).is_some());
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
        self.mux.poll_timeout().map(|due| self.next(start).into_iter().fold(due, Time::min))
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
    size: Size,
    picture_rate: u32,
    name: ArrayString<{ raster::NAME_GLYPHS_MAX }>,
}

/// How large the picture is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// 1280 by 720.
    #[default]
    Hd720,
    /// 1920 by 1080.
    Hd1080,
}

impl Config {
    /// A stream of `rate`, [`RATE_MIN`] to 10 Gb/s counting all of its TS packets and nothing else, of 1280 by 720 at 25 Hz.
    ///
    /// # Errors
    /// If it is out of bounds.
    pub fn new(rate: Bitrate) -> Result<Self, ConfigError> {
        let is_rate = (RATE_MIN..=RATE_MAX).contains(&rate);
        let config = Self { rate, size: Size::default(), picture_rate: 25, name: ArrayString::new() };
        if is_rate { Ok(config) } else { Err(ConfigError::Rate) }
    }

    /// Pictures of another size.
    #[must_use]
    pub const fn with_size(mut self, size: Size) -> Self {
        self.size = size;
        self
    }

    /// 25, 30 or 50 pictures a second; `None` for another number.
    #[must_use]
    pub const fn with_picture_rate(mut self, picture_rate: u32) -> Option<Self> {
        self.picture_rate = picture_rate;
        if matches!(picture_rate, 25 | 30 | 50) { Some(self) } else { None }
    }

    /// What stands above the clock and in the tables: up to 12 letters, digits, blanks, dots, colons and hyphens; `None` if
    /// it is something else.
    #[must_use]
    pub fn with_name(mut self, name: &str) -> Option<Self> {
        self.name = ArrayString::from(name).ok()?;
        name.bytes().all(|letter| raster::is_drawable(letter.to_ascii_uppercase())).then_some(self)
    }

    const fn shape(&self) -> Shape {
        // Macroblocks a second are below 108,000, 216,000, 245,760 and 522,240 (H.264 table A-1).
        let (columns, rows, cropped_lines, level) = match (self.size, self.picture_rate) {
            (Size::Hd720, 25 | 30) => (80, 45, 0, 31),
            (Size::Hd720, _) => (80, 45, 0, 32),
            (Size::Hd1080, 25 | 30) => (120, 68, 8, 40),
            (Size::Hd1080, _) => (120, 68, 8, 42),
        };
        Shape { columns, rows, cropped_lines, rate: self.picture_rate, level }
    }
}

/// From the start to the first moment at which so many ticks have passed.
fn span_of(ticks_90k: u64) -> Duration {
    Duration::from_nanos((u128::from(ticks_90k) * 100_000).div_ceil(9) as u64)
}

/// Slowest stream: below it sound, tables and a picture that changes everywhere would not fit.
pub const RATE_MIN: Bitrate = Bitrate::from_bps(1_000_000);

/// What stands above the clock unless another name is given.
const NAME: &str = "ANABRANCH";
/// Judgement: an IDR picture of 10 kB fits into it at the slowest rate.
const DELAY: Duration = Duration::from_millis(300);
/// Half a second: see [`si::due`].
const INFORMATION_90K: u64 = 45_000;
