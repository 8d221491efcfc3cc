//! One publisher (OBS, ffmpeg, any encoder for RTMP) to three outputs: a platform over RTMP, another site over SRT, a monitor
//! over UDP.
//!
//! `cargo run --example obs_to_three [--seconds N] [rtmp://HOST/APP/KEY]`, and in OBS as server
//! `rtmp://127.0.0.1:1935/live`, as stream key `studio`. The publisher may go and come back, and each output may fail:
//! the others do not notice. Without a URL players serve themselves at `rtmp://127.0.0.1:1935/live/studio`.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::error::Error;
use std::time::Duration;

use anabranch::engine::{
    Engine, EngineConfig, FailoverConfig, FlowConfig, Mode, MonitorConfig, OutputConfig, SourceConfig, url,
};
use anabranch::path::AllowList;

fn main() -> Result<(), Box<dyn Error>> {
    let platform = std::env::args().find(|word| word.starts_with("rtmp://"));
    let platform = platform.unwrap_or_else(|| "rtmp://@127.0.0.1:1935/live/studio".into());
    let outputs = [("platform", platform.as_str()), ("site", "srt://:9000"), ("monitor", "udp://127.0.0.1:6000")];
    let outputs = outputs.into_iter().map(|(name, url)| {
        Ok(OutputConfig {
            name: name.parse()?,
            endpoint: url::parse_output(url)?.endpoint,
            enabled: true,
            coalesce: Duration::ZERO,
            policy: anabranch::bus::LagPolicy::default(),
            limit: None,
            allow: AllowList::default(),
        })
    });
    let flow = FlowConfig {
        name: "studio".into(),
        sources: vec![SourceConfig {
            name: "obs".parse()?,
            endpoint: url::parse_source("rtmp://@127.0.0.1:1935/live/studio?takeover=1")?,
            allow: AllowList::default(),
            limit: None,
        }],
        outputs: outputs.collect::<Result<_, Box<dyn Error>>>()?,
        failover: FailoverConfig::default(),
        monitor: MonitorConfig::default(),
    };

    let engine = Engine::start(&EngineConfig::default(), |event| println!("{}", event.kind))?;
    let id = "studio".parse()?;
    engine.apply(&id, flow, Mode::Strict)?;
    for _ in 0..seconds() {
        std::thread::park_timeout(Duration::from_secs(1));
        let Some(flow) = engine.snapshot(&id) else { break };
        let sent: Vec<_> = flow.outputs.iter().map(|output| format!("{} {}", output.name, output.packets)).collect();
        println!("{} in, out {}", flow.sources[0].bitrate, sent.join(", "));
    }
    engine.shutdown();
    Ok(())
}

/// Value of `--seconds`; without it, as good as for ever.
fn seconds() -> u64 {
    let mut words = std::env::args().skip_while(|word| word != "--seconds").skip(1);
    words.next().and_then(|word| word.parse().ok()).unwrap_or(u64::MAX)
}
