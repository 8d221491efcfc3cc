//! An SRT listener whose stream goes to a UDP port, and what the line to the caller is like.
//!
//! `cargo run --example srt_to_udp [--seconds N]`, and a caller in another terminal:
//! `srt-live-transmit udp://:5000 'srt://127.0.0.1:9000?passphrase=ten-or-more-bytes'`. Ctrl-C ends it.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::error::Error;
use std::time::Duration;

use anabranch::engine::{
    Engine, EngineConfig, FailoverConfig, FlowConfig, Mode, MonitorConfig, OutputConfig, SourceConfig, url,
};
use anabranch::path::AllowList;

fn main() -> Result<(), Box<dyn Error>> {
    let flow = FlowConfig {
        name: "SRT to UDP".into(),
        sources: vec![SourceConfig {
            name: "caller".parse()?,
            endpoint: url::parse_source("srt://:9000?latency=200&passphrase=ten-or-more-bytes")?,
            allow: AllowList::default(),
            limit: None,
        }],
        outputs: vec![OutputConfig {
            name: "player".parse()?,
            endpoint: url::parse_output("udp://127.0.0.1:6000")?.endpoint,
            enabled: true,
            coalesce: Duration::ZERO,
            policy: anabranch::bus::LagPolicy::default(),
            limit: None,
            allow: AllowList::default(),
        }],
        failover: FailoverConfig::default(),
        monitor: MonitorConfig::default(),
    };
    let engine = Engine::start(&EngineConfig::default(), |event| println!("{}", event.kind))?;
    let id = "srt-to-udp".parse()?;
    engine.apply(&id, flow, Mode::Strict)?;
    for _ in 0..seconds() {
        std::thread::park_timeout(Duration::from_secs(1));
        let Some(flow) = engine.snapshot(&id) else { break };
        let source = &flow.sources[0];
        let round_trip = source.round_trip.unwrap_or_default();
        let (bitrate, lost, recovered) = (source.bitrate, source.lost, source.recovered);
        println!("{bitrate}, {recovered} recovered, {lost} lost, round trip {round_trip:?}");
    }
    engine.shutdown();
    Ok(())
}

/// Value of `--seconds`; without it, as good as for ever.
fn seconds() -> u64 {
    let mut words = std::env::args().skip_while(|word| word != "--seconds").skip(1);
    words.next().and_then(|word| word.parse().ok()).unwrap_or(u64::MAX)
}
