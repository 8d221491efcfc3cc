//! What watching costs, in computing time: 16 streams of 1080p25 with 8 Mb/s whose key frames are looked at once a second,
//! 50 such streams with a thumbnail every five seconds, sound alone, and nothing but metadata.
//!
//! `cargo bench --bench watch`, with ffmpeg at hand, which makes the clips: grainy, so that key frames are near the worst for
//! their bit rate. They are played in real time, over and over, and computing time is what is counted, so other load on the
//! machine matters little. Prints a table; `--quick` is only to see that it runs, and a part of a clip's name takes only those.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::adapters::watchers::{Watchers, WatchersConfig};
use anabranch::bus::{Meta, Pool, PoolLimits, Publisher};
use anabranch::media::watch::Settings;

fn main() {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    // As a test of this target it only has to build.
    if has("--test") {
        return;
    }
    let (count, clip_seconds, seconds) = if has("--quick") { (1, 2, 3) } else { (CLIPS.len(), 10, 30) };
    let directory = tempfile::tempdir().unwrap();
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let clips = CLIPS.into_iter().filter(|(name, _)| name.contains(&wanted)).take(count);
    let clips: Vec<(&str, Clip)> =
        clips.map(|(name, codec)| (name, make(directory.path(), codec, clip_seconds))).collect();
    println!("| | pictures | looking, % of a core | decoding, % of a core |\n|---|---|---|---|");
    let quality = Settings { thumbnail_every: None, content_quality: true };
    for (name, clip) in &clips {
        measure(&format!("16 of {name}, content quality"), 16, quality, clip, seconds);
    }
    let Some((name, clip)) = clips.first() else { return };
    let thumbnails = Settings { thumbnail_every: Some(Duration::from_secs(5)), content_quality: false };
    measure(&format!("50 of {name}, a thumbnail every 5 s"), 50, thumbnails, clip, seconds);
    measure(&format!("50 of {name}, metadata only"), 50, Settings::default(), clip, seconds);
    let nothing = Clip { bytes: Vec::new(), seconds: 1 };
    measure("1,000 of which nothing comes", 1_000, Settings::default(), &nothing, seconds);
}

/// Name, and what ffmpeg is told. The first is what thumbnails are made of.
const CLIPS: [(&str, &str); 6] = [
    ("H.264 1080p25 8 Mb/s", "-c:v libx264 -preset veryfast -profile:v high -b:v 8M -g 25 -bf 2 -c:a aac -b:a 128k"),
    (
        "HEVC 1080p25 5 Mb/s",
        "-c:v libx265 -preset superfast -b:v 5M -x265-params keyint=25:log-level=0 -c:a aac -b:a 128k",
    ),
    ("MPEG-2 1080p25 15 Mb/s", "-c:v mpeg2video -b:v 15M -maxrate 15M -bufsize 2M -g 12 -bf 2 -c:a mp2 -b:a 192k"),
    ("AAC alone", "-vn -c:a aac -b:a 128k"),
    ("MPEG layer II alone", "-vn -c:a mp2 -b:a 192k"),
    ("AC-3 alone", "-vn -c:a ac3 -b:a 192k"),
];

/// A transport stream that plays for so long.
struct Clip {
    bytes: Vec<u8>,
    seconds: u32,
}

fn make(directory: &Path, codec: &str, seconds: u32) -> Clip {
    let clip = directory.join("clip.ts");
    let made = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(["-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=25,noise=alls=12:allf=t,format=yuv420p"])
        .args(["-f", "lavfi", "-i", "sine=frequency=1000:sample_rate=48000", "-ac", "2", "-t", &seconds.to_string()])
        .args(codec.split(' '))
        .args(["-f", "mpegts"])
        .arg(&clip)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "ffmpeg must make the clips");
    Clip { bytes: fs::read(clip).unwrap(), seconds }
}

fn measure(what: &str, streams: usize, settings: Settings, clip: &Clip, seconds: u64) {
    let config = WatchersConfig { budget_per_mille: 8_000, ..WatchersConfig::default() };
    let watchers = Watchers::spawn(config).unwrap();
    let pool = Pool::new(PoolLimits::default());
    let mut publishers: Vec<Publisher> = (0..streams).map(|_| Publisher::new(pool.clone(), 4_096)).collect();
    let ids: Vec<_> =
        publishers.iter().map(|own| watchers.add(own.subscribe(), settings, Box::new(|_, _| {}))).collect();
    let payloads: Vec<&[u8]> = clip.bytes.chunks(1_316).collect();
    let start = clock::now();
    let mut sent = 0;
    loop {
        let passed = clock::now().since(start);
        if passed >= Duration::from_secs(seconds) {
            break;
        }
        let due = (passed.as_secs_f64() * payloads.len() as f64 / f64::from(clip.seconds)) as usize;
        for at in sent..due {
            // Streams begin at different places of the clip, so that their key frames do not come all at once.
            for (index, publisher) in publishers.iter_mut().enumerate() {
                let payload = payloads[(at + index * payloads.len() / streams) % payloads.len()];
                if let Some(packet) = pool.copy(payload, Meta::default()) {
                    publisher.publish(packet);
                }
            }
        }
        sent = due;
        publishers.iter_mut().for_each(|publisher| publisher.flush(publisher.head()));
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let stats = watchers.stats();
    let reports: Vec<_> = ids.iter().filter_map(|id| watchers.report(*id)).collect();
    let missed: u64 = reports.iter().map(|report| report.counts.packets_missed).sum();
    assert_eq!(missed, 0, "the watcher was too slow: nothing to learn from this run");
    let pictures: u64 = reports.iter().map(|report| report.counts.pictures_decoded).sum();
    let percent = |ns: u64| ns as f64 / 1e7 / seconds as f64;
    println!("| {what} | {pictures} | {:.2} | {:.1} |", percent(stats.watching_cpu_ns), percent(stats.decoding_cpu_ns));
}
