//! Two RTP legs that carry the same, merged to one UDP output, and what each leg brought every second.
//!
//! `cargo run --example hitless_merge [--seconds N]`, and in two other terminals one feed that goes to both legs with the
//! same headers: `cargo run -- route rtp://:4000 -- 'rtp://127.0.0.1:5000?header=keep' 'rtp://127.0.0.1:5010?header=keep'`
//! and `cargo run -- gen rtp://127.0.0.1:4000`. The output is port 6001 of this machine. Ctrl-C ends it.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::error::Error;
use std::time::Duration;

use anabranch::engine::{
    Engine, EngineConfig, FailoverConfig, FailoverMode, FlowConfig, MergeConfig, Mode, MonitorConfig, OutputConfig,
    SourceConfig, url,
};
use anabranch::path::AllowList;
use anabranch::path::merge::RecoveryWindow;

fn main() -> Result<(), Box<dyn Error>> {
    let leg = |name: &str, address: &str| -> Result<_, Box<dyn Error>> {
        let (name, endpoint) = (name.parse()?, url::parse_source(address)?);
        Ok(SourceConfig { name, endpoint, allow: AllowList::default(), limit: None })
    };
    let merge = MergeConfig { recovery_window: RecoveryWindow::Auto, ..MergeConfig::default() };
    let flow = FlowConfig {
        name: "merged".into(),
        sources: vec![leg("red", "rtp://127.0.0.1:5000")?, leg("blue", "rtp://127.0.0.1:5010")?],
        outputs: vec![OutputConfig {
            name: "out".parse()?,
            endpoint: url::parse_output("udp://127.0.0.1:6001")?.endpoint,
            enabled: true,
            coalesce: Duration::ZERO,
            policy: anabranch::bus::LagPolicy::default(),
            limit: None,
            allow: AllowList::default(),
        }],
        failover: FailoverConfig { mode: FailoverMode::Merge(merge), ..FailoverConfig::default() },
        monitor: MonitorConfig::default(),
    };

    let engine = Engine::start(&EngineConfig::default(), |event| println!("{}", event.kind))?;
    let id = "merged".parse()?;
    engine.apply(&id, flow, Mode::Strict)?;
    for _ in 0..seconds() {
        std::thread::park_timeout(Duration::from_secs(1));
        let Some(merge) = engine.snapshot(&id).and_then(|flow| flow.merge) else { break };
        let (out, lost, window) = (merge.stats.released, merge.stats.lost, merge.stats.window);
        println!("{out} packets out, {lost} lost, window {window:?}");
        for (name, leg) in &merge.legs {
            let (first, filled, lost) = (leg.first, leg.filled, leg.lost);
            println!("  {name}: {} packets, {first} first, {filled} filled, {lost} lost", leg.received);
        }
    }
    engine.shutdown();
    Ok(())
}

/// Value of `--seconds`; without it, as good as for ever.
fn seconds() -> u64 {
    let mut words = std::env::args().skip_while(|word| word != "--seconds").skip(1);
    words.next().and_then(|word| word.parse().ok()).unwrap_or(u64::MAX)
}
