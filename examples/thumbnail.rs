//! Shows what is in a transport stream: streams, a picture as JPEG, black, frozen and silent spans, loudness.
//!
//! `cargo run --example thumbnail --features media -- FILE.ts [PICTURE.jpg]`
//!
//! Of pictures only key frames are decoded, so spans begin and end where those are.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::{env, fs};

use anabranch::media::quality::{Black, Freeze, Loudness, Silence, Span};
use anabranch::media::{Headers, KeyFrames, SoundDecoder, Thumbnail};
use anabranch::proto::mpegts::demux::{AccessUnit, Demux};
use anabranch::units::{Ticks90k, Time};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let file = arguments.next().ok_or("usage: thumbnail FILE.ts [PICTURE.jpg]")?;
    let picture = arguments.next().unwrap_or_else(|| "thumbnail.jpg".into());
    let mut input = fs::File::open(file)?;
    let mut packets = vec![0; 188 * 1_000];
    let mut demux = Demux::new();
    let mut streams = BTreeMap::new();
    loop {
        let filled = read_full(&mut input, &mut packets)?;
        demux.push(Time::ZERO, &packets[..filled]);
        if filled == 0 {
            demux.finish();
        }
        while let Some(unit) = demux.poll_unit() {
            streams.entry(unit.pid).or_insert_with(|| Watch::new(&unit)).push(&unit);
        }
        if filled == 0 {
            break;
        }
    }
    for stream in demux.streams() {
        let (pid, program) = (stream.entry.pid, stream.program);
        println!("PID {:#06x}: stream type {:#04x}, program {program}", pid.value(), stream.entry.stream_type);
        if let Some(watch) = streams.get(&pid) {
            watch.report();
        }
    }
    println!("{:?}", demux.counts());
    let thumbnail = streams.values().find_map(|watch| watch.thumbnail.as_ref()).ok_or("no picture could be decoded")?;
    fs::write(&picture, &thumbnail.jpeg)?;
    println!("{picture}: {}x{}, {} bytes", thumbnail.width, thumbnail.height, thumbnail.jpeg.len());
    Ok(())
}

/// What is seen and heard of one stream.
struct Watch {
    headers: Headers,
    key_frames: Option<KeyFrames>,
    sound: Option<SoundDecoder>,
    black: Black,
    freeze: Freeze,
    silence: Silence,
    loudness: Loudness,
    spans: Vec<(&'static str, Span)>,
    thumbnail: Option<Thumbnail>,
    failed: u64,
}

impl Watch {
    fn new(unit: &AccessUnit) -> Self {
        Self {
            headers: Headers::new(unit.codec),
            key_frames: unit.codec.is_video().then(|| KeyFrames::new(unit.codec)),
            sound: SoundDecoder::new(unit.codec).ok(),
            black: Black::default(),
            freeze: Freeze::default(),
            silence: Silence::default(),
            loudness: Loudness::default(),
            spans: Vec::new(),
            thumbnail: None,
            failed: 0,
        }
    }

    fn push(&mut self, unit: &AccessUnit) {
        self.headers.read(unit);
        match self.key_frames.as_mut().and_then(|key_frames| key_frames.push(unit, true)) {
            Some(Ok(shown)) => {
                let pts = shown.pts.unwrap_or_default();
                let black = self.black.push(&shown.frame, shown.display.colour.full_range, pts);
                let frozen = self.freeze.push(&shown.frame, pts);
                self.spans.extend(black.map(|span| ("black", span)));
                self.spans.extend(frozen.map(|span| ("frozen", span)));
                self.thumbnail = Thumbnail::new(&shown.frame, &shown.display).ok().or_else(|| self.thumbnail.take());
            }
            Some(Err(_)) => self.failed += 1,
            None => {}
        }
        let Some(sound) = &mut self.sound else { return };
        let mut pts = unit.pts.unwrap_or_default();
        let outcome = sound.decode(unit, |sound| {
            self.spans.extend(self.silence.push(&sound, pts).map(|span| ("silent", span)));
            self.loudness.push(&sound);
            let samples = sound.channels.first().map_or(0, |channel| channel.len()) as u64;
            pts = Ticks90k(pts.0 + samples * 90_000 / u64::from(sound.rate.max(1)));
        });
        self.failed += u64::from(outcome.is_err());
    }

    fn report(&self) {
        if let Some(video) = self.headers.video() {
            println!("  {video:?}");
        }
        if let Some(audio) = self.headers.audio() {
            println!("  {audio:?}");
        }
        for (what, span) in &self.spans {
            println!("  {what} from {:.3} s to {:.3} s", seconds(span.start), seconds(span.end));
        }
        if let (Some(integrated), Some(peak)) = (self.loudness.integrated(), self.loudness.true_peak()) {
            println!("  {integrated:.1} LUFS, true peak {peak:.1} dBTP");
        }
        if self.failed > 0 {
            println!("  {} pictures or sounds could not be decoded", self.failed);
        }
    }
}

fn seconds(moment: Ticks90k) -> f64 {
    moment.0 as f64 / 90_000.0
}

/// Reads until `bytes` is full or the file is over.
fn read_full(input: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match input.read(&mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
