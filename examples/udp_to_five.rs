//! One UDP source to five UDP outputs, and what they carried every second.
//!
//! `cargo run --example udp_to_five [--seconds N]`, and a feed in another terminal:
//! `cargo run -- gen udp://127.0.0.1:5000`. The outputs are ports 6001 to 6005 of this machine. Ctrl-C ends it.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::error::Error;
use std::time::Duration;

use anabranch::engine::{
    Engine, EngineConfig, FailoverConfig, FlowConfig, Mode, MonitorConfig, OutputConfig, SourceConfig, url,
};
use anabranch::path::AllowList;

fn main() -> Result<(), Box<dyn Error>> {
    let mut flow = FlowConfig {
        name: "one to five".into(),
        sources: vec![SourceConfig {
            name: "feed".parse()?,
            endpoint: url::parse_source("udp://127.0.0.1:5000")?,
            allow: AllowList::default(),
            limit: None,
        }],
        outputs: Vec::new(),
        failover: FailoverConfig::default(),
        monitor: MonitorConfig::default(),
    };
    for port in 6001..=6005 {
        flow.outputs.push(OutputConfig {
            name: format!("to-{port}").parse()?,
            endpoint: url::parse_output(&format!("udp://127.0.0.1:{port}"))?.endpoint,
            enabled: true,
            coalesce: Duration::ZERO,
            policy: anabranch::bus::LagPolicy::default(),
            limit: None,
            allow: AllowList::default(),
        });
    }

    let engine = Engine::start(&EngineConfig::default(), |event| println!("{}", event.kind))?;
    let id = "one-to-five".parse()?;
    engine.apply(&id, flow, Mode::Strict)?;
    for _ in 0..seconds() {
        std::thread::park_timeout(Duration::from_secs(1));
        let Some(flow) = engine.snapshot(&id) else { break };
        let sent: Vec<_> = flow.outputs.iter().map(|output| output.packets).collect();
        println!("{} packets in at {}, out {sent:?}", flow.sources[0].packets, flow.sources[0].bitrate);
    }
    engine.shutdown();
    Ok(())
}

/// Value of `--seconds`; without it, as good as for ever.
fn seconds() -> u64 {
    let mut words = std::env::args().skip_while(|word| word != "--seconds").skip(1);
    words.next().and_then(|word| word.parse().ok()).unwrap_or(u64::MAX)
}
