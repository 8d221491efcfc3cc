//! `Catalogue`: what a stream carries, put together from its tables and the headers of its units.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::report::{Metadata, ProgramMetadata, Reason, StreamMetadata};
use crate::media::headers::{AudioFormat, Headers, Picture};
use crate::proto::mpegts::demux::{AccessUnit, Codec, Demux};
use crate::proto::mpegts::{Media, Pid, Program, Stream};
use crate::units::{Bitrate, Time};

/// Headers of all streams that units come from, and what was told of them last. At most as many streams as the
/// demultiplexer has.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    streams: BTreeMap<Pid, Entry>,
    metadata: Arc<Metadata>,
    /// Since when there is anything, and whether that has come to rest once.
    up_since: Option<Time>,
    is_up: bool,
    /// Changes that nobody was told of yet, and what the first of them was.
    changes: u64,
    news: Option<String>,
    /// When somebody was told last, and how long it takes until somebody is told again.
    told_at: Time,
    pause: Duration,
    changes_total: u64,
}

#[derive(Debug)]
struct Entry {
    headers: Headers,
    codec: Codec,
    /// Of the window that is running.
    bytes: u64,
    rate: Option<Bitrate>,
    read_at: Option<Time>,
    /// When pictures are decoded, last ones last.
    times_90k: VecDeque<u64>,
}

impl Catalogue {
    /// Takes in a unit's headers; `is_main` for streams of which every unit matters.
    pub(super) fn handle_unit(&mut self, now: Time, unit: &AccessUnit, is_main: bool) -> Option<Picture> {
        let entry = self.streams.entry(unit.pid).or_insert_with(|| Entry::new(unit.codec));
        if entry.codec != unit.codec {
            *entry = Entry::new(unit.codec);
        }
        entry.bytes += unit.bytes.len() as u64;
        if unit.codec.is_video()
            && let Some(time) = unit.dts.or(unit.pts)
        {
            // Frames of AV1 that are not shown lie right before one that is.
            entry.times_90k.pop_back_if(|last| time.0.abs_diff(*last) < DISTANCE_MIN_90K);
            if entry.times_90k.len() == TIMES_MAX {
                entry.times_90k.pop_front();
            }
            entry.times_90k.push_back(time.0);
        }
        let is_due = entry.read_at.is_none_or(|read_at| now.since(read_at) >= READ_EVERY);
        // A stream of which nothing is known yet may have parameter sets in any unit.
        let is_unknown = entry.headers.video().is_none() && entry.headers.audio().is_none();
        if !is_main && !is_due && !is_unknown {
            return None;
        }
        entry.read_at = Some(now);
        entry.headers.read(unit)
    }

    /// Packets are missing: times are not compared across.
    pub(super) fn disturb(&mut self) {
        self.streams.values_mut().for_each(|entry| entry.times_90k.clear());
    }

    /// A window of `span` is over: rates are taken over it.
    pub(super) fn close_window(&mut self, span: Duration) {
        for entry in self.streams.values_mut() {
            let bits = u128::from(std::mem::take(&mut entry.bytes)) * 8_000_000_000;
            let bps = bits.checked_div(span.as_nanos()).map(|bps| u64::try_from(bps).unwrap_or(u64::MAX));
            entry.rate = bps.map(Bitrate::from_bps);
        }
    }

    /// Puts together what is known now.
    pub(super) fn refresh(&mut self, now: Time, demux: &Demux) {
        let units: BTreeMap<Pid, bool> = demux.streams().map(|stream| (stream.entry.pid, stream.scrambled)).collect();
        self.streams.retain(|pid, _| units.contains_key(pid));
        let mut metadata = Metadata::default();
        for program in demux.programs().list() {
            metadata.programs.push(program_metadata(program));
            for stream in program.pmt.iter().flat_map(|pmt| &pmt.streams) {
                let index = metadata.streams.len();
                let entry = self.streams.get(&stream.pid);
                let is_scrambled = units.get(&stream.pid).is_some_and(|scrambled| *scrambled);
                let rate = demux.pid(stream.pid).map(|pid| pid.rate);
                metadata.streams.push(stream_metadata(index, program.number, stream, entry, is_scrambled, rate));
            }
        }
        self.note_changes(now, &metadata);
        self.metadata = Arc::new(metadata);
    }

    pub(super) const fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    pub(super) const fn changes_total(&self) -> u64 {
        self.changes_total
    }

    /// What is new since this was asked last, in a few words, and how many changes there were. At most once a second, and
    /// the longer it goes on the less often.
    pub(super) fn poll_news(&mut self, now: Time) -> Option<(String, u64)> {
        if now.since(self.told_at) < self.pause {
            return None;
        }
        let Some(news) = self.news.take() else {
            if now.since(self.told_at) >= self.pause * 2 {
                self.pause = PAUSE_MIN;
            }
            return None;
        };
        self.told_at = now;
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        Some((news, std::mem::take(&mut self.changes)))
    }

    /// What comes up is no change: from when it stands still, or has not for long, what is other than before is told of.
    fn note_changes(&mut self, now: Time, metadata: &Metadata) {
        if metadata.programs.is_empty() && self.metadata.programs.is_empty() {
            return;
        }
        let up_since = *self.up_since.get_or_insert(now);
        if !self.is_up {
            self.is_up = now.since(up_since) >= COMES_UP_MAX || is_same(metadata, &self.metadata);
            return;
        }
        let differences = differences(&self.metadata, metadata);
        if let Some(first) = differences.first {
            self.changes += differences.count;
            self.changes_total += differences.count;
            let more = differences.count - 1;
            self.news = Some(if more > 0 { format!("{first}, and {more} more") } else { first });
        }
    }
}

impl Entry {
    fn new(codec: Codec) -> Self {
        let (headers, times_90k) = (Headers::new(codec), VecDeque::new());
        Self { headers, codec, bytes: 0, rate: None, read_at: None, times_90k }
    }

    /// Where headers do not say it: that of the usual ones which the distance of pictures is nearest to.
    fn measured_rate(&self) -> Option<(u32, u32)> {
        let (first, last) = (self.times_90k.front()?, self.times_90k.back()?);
        let (span, count) = (last.checked_sub(*first)?, self.times_90k.len() as u64 - 1);
        if !(MEASURED_MIN_90K..=MEASURED_MAX_90K).contains(&span) {
            return None;
        }
        let deviation = |(frames, seconds): (u32, u32)| {
            let expected = count as f64 * 90_000.0 * f64::from(seconds) / f64::from(frames);
            (span as f64 / expected - 1.0).abs()
        };
        FRAME_RATES.into_iter().find(|rate| deviation(*rate) < 0.000_4)
    }
}

fn program_metadata(program: &Program) -> ProgramMetadata {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    ProgramMetadata {
        number: program.number,
        name: program.service.as_ref().and_then(|service| text(&service.name)),
        provider: program.service.as_ref().and_then(|service| text(&service.provider)),
        pmt_pid: program.pmt_pid,
        pcr_pid: program.pmt.as_ref().and_then(|pmt| pmt.pcr_pid),
    }
}

fn stream_metadata(
    index: usize,
    program: u16,
    stream: &Stream,
    entry: Option<&Entry>,
    scrambled: bool,
    packet_rate: Option<Bitrate>,
) -> StreamMetadata {
    let video = entry.and_then(|entry| entry.headers.video().cloned());
    let audio = entry.and_then(|entry| entry.headers.audio().copied());
    let audio = audio.map(|audio| AudioFormat { channels: stream.channels.or(audio.channels), ..audio });
    let name = audio.map(|audio| Cow::Owned(audio.codec_name()));
    let codec = name.or_else(|| stream.codec.map(Cow::Borrowed));
    let is_known = video.is_some() || audio.is_some();
    let is_read = Codec::from_stream_type(stream.stream_type, &[]).is_some() || entry.is_some();
    let reason = match stream.media {
        _ if scrambled => Some(Reason::Scrambled),
        Media::Video | Media::Audio if is_known => None,
        Media::Video | Media::Audio if !is_read => {
            Some(Reason::Unsupported(codec.clone().unwrap_or(Cow::Borrowed("unknown"))))
        }
        Media::Video | Media::Audio if entry.is_some_and(|entry| entry.headers.malformed() > MALFORMED_MAX) => {
            Some(Reason::Damaged)
        }
        Media::Video | Media::Audio if entry.is_some() => Some(Reason::Listening),
        Media::Video | Media::Audio => Some(Reason::Missing),
        Media::Subtitle | Media::Cue | Media::Sections | Media::Other => None,
    };
    let stated = video.as_ref().and_then(|video| video.frame_rate);
    StreamMetadata {
        index,
        program,
        pid: stream.pid,
        stream_type: stream.stream_type,
        media: stream.media,
        codec,
        language: stream.language,
        frame_rate: stated.or_else(|| entry.filter(|_| video.is_some())?.measured_rate()),
        video,
        audio,
        bit_rate: entry.map_or(packet_rate, |entry| entry.rate),
        scrambled,
        reason,
    }
}

#[derive(Debug, Default)]
struct Differences {
    first: Option<String>,
    count: u64,
}

impl Differences {
    fn note(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(what);
    }
}

/// Whether nothing is other than it was, beside rates.
fn is_same(before: &Metadata, now: &Metadata) -> bool {
    let plain = |stream: &StreamMetadata| StreamMetadata { bit_rate: None, reason: None, ..stream.clone() };
    before.programs == now.programs && before.streams.iter().map(plain).eq(now.streams.iter().map(plain))
}

/// What is other than it was. What was not known before is no change.
fn differences(before: &Metadata, now: &Metadata) -> Differences {
    let mut found = Differences::default();
    for program in &now.programs {
        let Some(old) = before.programs.iter().find(|old| old.number == program.number) else {
            found.note(|| format!("program {} came", program.number));
            continue;
        };
        if old.name.is_some() && old.name != program.name {
            found.note(|| format!("program {} is called {}", program.number, program.name.as_deref().unwrap_or("-")));
        }
        if old.pcr_pid.is_some() && old.pcr_pid != program.pcr_pid {
            found.note(|| format!("program {} has its clock elsewhere", program.number));
        }
    }
    let is_gone = |program: &&ProgramMetadata| now.programs.iter().all(|new| new.number != program.number);
    for gone in before.programs.iter().filter(is_gone) {
        found.note(|| format!("program {} went", gone.number));
    }
    let same = |a: &StreamMetadata, b: &StreamMetadata| (a.program, a.pid) == (b.program, b.pid);
    // A stream that came with its program is one change, not two.
    let had_program = |stream: &StreamMetadata| {
        before.programs.iter().any(|program| program.number == stream.program)
            && before.streams.iter().any(|old| old.program == stream.program)
    };
    for stream in &now.streams {
        match before.streams.iter().find(|old| same(old, stream)) {
            Some(old) => stream_differences(old, stream, &mut found),
            None if had_program(stream) => found.note(|| format!("{} came", name_of(stream))),
            None => {}
        }
    }
    let still_has = |stream: &StreamMetadata| now.programs.iter().any(|program| program.number == stream.program);
    let gone = before.streams.iter().filter(|old| !now.streams.iter().any(|stream| same(old, stream)));
    for old in gone.filter(|old| still_has(old)) {
        found.note(|| format!("{} went", name_of(old)));
    }
    found
}

fn stream_differences(old: &StreamMetadata, new: &StreamMetadata, found: &mut Differences) {
    if (old.stream_type, old.media) != (new.stream_type, new.media) || (old.codec != new.codec && old.codec.is_some()) {
        found.note(|| format!("{} instead of {}", name_of(new), old.codec.as_deref().unwrap_or("another")));
        return;
    }
    if old.scrambled != new.scrambled {
        let state = if new.scrambled { "scrambled" } else { "clear" };
        found.note(|| format!("{} is {state}", name_of(new)));
    }
    if old.language != new.language {
        found.note(|| format!("{} has another language", name_of(new)));
    }
    if let (Some(before), Some(now)) = (&old.video, &new.video) {
        let size = |video: &crate::media::headers::VideoFormat| (video.width, video.height);
        if size(before) != size(now) {
            let (from, to) = (size(before), size(now));
            found.note(|| format!("{}: {}x{} instead of {}x{}", name_of(new), to.0, to.1, from.0, from.1));
        } else if before.frame_rate != now.frame_rate {
            found.note(|| format!("{} has another frame rate", name_of(new)));
        } else if before != now && before.field_order.is_some() {
            found.note(|| format!("{} is coded in another way", name_of(new)));
        }
    }
    if let (Some(before), Some(now)) = (&old.audio, &new.audio) {
        let layout = |audio: &AudioFormat| (audio.codec, audio.profile, audio.layer, audio.sample_rate, audio.channels);
        if layout(before) != layout(now) {
            let channels = now.channels.map_or_else(|| "?".into(), |channels| channels.to_string());
            found.note(|| format!("{}: {} Hz, {channels} channels", name_of(new), now.sample_rate));
        }
    }
}

fn name_of(stream: &StreamMetadata) -> String {
    format!("{} on PID {:#06x}", stream.codec.as_deref().unwrap_or("a stream"), stream.pid.value())
}

/// Headers of streams that nobody looks at are read so often.
const READ_EVERY: Duration = Duration::from_millis(200);
/// What lies nearer together is one picture. Judgement: a thousand pictures a second are not sent.
const DISTANCE_MIN_90K: u64 = 90;
/// Pictures whose distance is measured.
const TIMES_MAX: usize = 128;
/// As few as that tell nothing yet; as many are a jump of the clock.
const MEASURED_MIN_90K: u64 = 90_000;
const MEASURED_MAX_90K: u64 = 12 * 90_000;
/// Those of broadcasting and of the web.
const FRAME_RATES: [(u32, u32); 12] = [
    (25, 1),
    (50, 1),
    (30_000, 1_001),
    (60_000, 1_001),
    (24_000, 1_001),
    (24, 1),
    (30, 1),
    (60, 1),
    (100, 1),
    (120_000, 1_001),
    (120, 1),
    (25, 2),
];
/// Headers that could not be read, with none that could, before a stream counts as damaged.
const MALFORMED_MAX: u64 = 10;
/// From one event to the next, at first and after many.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A stream that has not come to rest by then is told of as it changes.
const COMES_UP_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Ticks90k;

    #[test]
    fn frames_that_are_not_shown_are_no_pictures_of_the_frame_rate() {
        let mut catalogue = Catalogue::default();
        for picture in 0..60 {
            for earlier in (0..=picture % 3).rev() {
                let (pid, dts) = (Pid::default(), Ticks90k(90_000 + picture * 3_600 - earlier));
                let unit = AccessUnit { pid, codec: Codec::Av1, pts: Some(dts), dts: None, bytes: Vec::new() };
                catalogue.handle_unit(Time::ZERO, &unit, true);
            }
        }
        assert_eq!(catalogue.streams[&Pid::default()].measured_rate(), Some((25, 1)));
    }
}
