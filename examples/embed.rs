//! The engine inside a program: it looks at a flow's packets itself, and changes the flow's outputs while it runs.
//!
//! `cargo run --example embed [--seconds N]` needs nothing else: the flow's source is the built-in test signal.
//! Nobody needs to listen at its outputs; that nobody does is told as an event.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]
#![allow(clippy::disallowed_methods, reason = "a program that embeds the engine has tasks of its own")]

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use anabranch::bus::{Ended, LagPolicy, Subscriber};
use anabranch::engine::{
    ApplyError, Engine, EngineConfig, FailoverConfig, FlowConfig, Mode, MonitorConfig, OutputConfig, SourceConfig, url,
};
use anabranch::path::AllowList;
use anabranch::proto::mpegts::{Pid, TS_PACKET_BYTES, TsPacket};
use anabranch::units::FlowId;
use tokio::task::spawn_blocking;
use tokio::time::{interval, sleep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::start(&EngineConfig::default(), |event| println!("event: {}", event.kind))?;
    let id: FlowId = "embedded".parse()?;
    let mut flow = FlowConfig {
        name: "embedded".into(),
        sources: vec![SourceConfig {
            name: "signal".parse()?,
            endpoint: url::parse_source("test:bars?rate=20M")?,
            allow: AllowList::default(),
            limit: None,
        }],
        outputs: vec![output("first", "udp://127.0.0.1:6001")?],
        failover: FailoverConfig::default(),
        monitor: MonitorConfig::default(),
    };
    apply(&engine, &id, &flow).await?;

    // Any number of readers, on any thread; one that is slow misses packets, is told how many, and hurts nobody.
    let subscribe = engine.subscribe(&id).ok_or("the flow has just ended")?;
    let reader = tokio::spawn(count_null_packets(subscribe.subscriber(LagPolicy::DropOldest)));

    let mut end = pin!(sleep(Duration::from_secs(seconds())));
    let mut ticks = interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = ticks.tick() => {}
        }
        // The outputs that stay do not lose a packet over this.
        match flow.outputs.len() {
            1 => flow.outputs.push(output("second", "rtp://127.0.0.1:6002?ttl=1")?),
            _ => flow.outputs.truncate(1),
        }
        apply(&engine, &id, &flow).await?;
        let Some(now) = engine.snapshot(&id) else { break };
        let outputs: Vec<_> = now.outputs.iter().map(|output| format!("{} {}", output.name, output.packets)).collect();
        println!("{} packets in, out: {}", now.sources[0].packets, outputs.join(", "));
    }
    engine.shutdown();
    println!("{}", reader.await?);
    Ok(())
}

/// Reads until the flow ends.
async fn count_null_packets(mut subscriber: Subscriber) -> String {
    let (mut packets, mut nulls, mut missed) = (0_u64, 0_u64, 0);
    let ended: Ended = loop {
        match subscriber.recv().await {
            Ok(packet) => {
                packets += 1;
                let ts_packets = packet.chunks_exact(TS_PACKET_BYTES).filter_map(|bytes| TsPacket::parse(bytes).ok());
                nulls += ts_packets.filter(|ts_packet| ts_packet.pid == Pid::NULL).count() as u64;
            }
            Err(ended) => break ended,
        }
        missed += subscriber.take_missed();
    };
    format!("reader: {packets} packets with {nulls} null TS packets, {missed} missed, {ended}")
}

/// `Engine::apply` waits for sockets to open, some milliseconds: not on a runtime's thread.
async fn apply(engine: &Engine, id: &FlowId, flow: &FlowConfig) -> Result<(), Box<dyn Error>> {
    let (engine, id, flow) = (engine.clone(), id.clone(), flow.clone());
    let applied: Result<(), ApplyError> = spawn_blocking(move || engine.apply(&id, flow, Mode::Strict)).await?;
    Ok(applied?)
}

fn output(name: &str, url: &str) -> Result<OutputConfig, Box<dyn Error>> {
    let parsed = url::parse_output(url)?;
    Ok(OutputConfig {
        name: name.parse()?,
        endpoint: parsed.endpoint,
        enabled: true,
        coalesce: parsed.coalesce.unwrap_or_default(),
        policy: LagPolicy::default(),
        limit: None,
        allow: AllowList::default(),
    })
}

/// Value of `--seconds`; without it, a demonstration of ten.
fn seconds() -> u64 {
    let mut words = std::env::args().skip_while(|word| word != "--seconds").skip(1);
    words.next().and_then(|word| word.parse().ok()).unwrap_or(10)
}
