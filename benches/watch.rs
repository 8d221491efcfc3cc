//! What watching costs: computing time of 16 streams whose key frames are looked at once a second, and of 50 streams
//! with a thumbnail every five seconds.
//!
//! `cargo bench --bench watch -- CLIP.ts [SECONDS]`, with a clip of constant rate as `make-clips.sh` makes them. It is
//! played in real time, over and over, and computing time is what is counted, so other load on the machine matters little.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::fs;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::adapters::watchers::{Watchers, WatchersConfig};
use anabranch::bus::{Meta, Pool, PoolLimits, Publisher};
use anabranch::media::watch::Settings;

fn main() {
    // Cargo adds a flag of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(clip) = arguments.next().and_then(|name| fs::read(name).ok()) else {
        println!("watch: no clip; cargo bench --bench watch -- CLIP.ts [SECONDS]");
        return;
    };
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(30);
    let quality = Settings { thumbnail_every: None, content_quality: true };
    measure("16 streams, content quality", 16, quality, &clip, seconds);
    let thumbnails = Settings { thumbnail_every: Some(Duration::from_secs(5)), content_quality: false };
    measure("50 streams, a thumbnail every 5 s", 50, thumbnails, &clip, seconds);
    measure("50 streams, metadata only", 50, Settings::default(), &clip, seconds);
}

fn measure(what: &str, streams: usize, settings: Settings, clip: &[u8], seconds: u64) {
    let config = WatchersConfig { budget_per_mille: 8_000, ..WatchersConfig::default() };
    let Ok(watchers) = Watchers::spawn(config) else { return };
    let pool = Pool::new(PoolLimits::default());
    let mut publishers: Vec<Publisher> = (0..streams).map(|_| Publisher::new(pool.clone(), 4_096)).collect();
    let ids: Vec<_> =
        publishers.iter().map(|own| watchers.add(own.subscribe(), settings, Box::new(|_, _| {}))).collect();
    let payloads: Vec<&[u8]> = clip.chunks(1_316).collect();
    let start = clock::now();
    let mut sent = 0;
    loop {
        let passed = clock::now().since(start);
        if passed >= Duration::from_secs(seconds) {
            break;
        }
        let due = (passed.as_secs_f64() * RATE_BPS / 8.0 / 1_316.0) as usize;
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
    let (mut pictures, mut sounds, mut missed) = (0, 0, 0);
    for report in &reports {
        pictures += report.counts.pictures_decoded;
        sounds += report.counts.sounds_decoded;
        missed += report.counts.packets_missed;
    }
    let percent = |ns: u64| ns as f64 / 1e7 / seconds as f64;
    println!(
        "{what}: looking {:.2} %, decoding {:.1} % of a core; {pictures} pictures, {sounds} units of sound, {missed} packets \
         missed in {seconds} s",
        percent(stats.watching_cpu_ns),
        percent(stats.decoding_cpu_ns),
    );
}

/// Of the whole transport stream of the clips: 8 Mb/s of pictures, sound, tables.
const RATE_BPS: f64 = 8.5e6;
