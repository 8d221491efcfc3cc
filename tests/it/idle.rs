//! An engine that has nothing to do does nothing.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anabranch::adapters::IoKind;
use anabranch::engine::EngineConfig;

use crate::support::{Feed, Rig, Sink, TS, V4, alone, flow, free_port, let_pass, udp, wait_until};

#[test]
fn an_idle_engine_does_not_wake_up() {
    alone("idle::an_idle_engine_does_not_wake_up", || {
        for io in [IoKind::Best, IoKind::Portable] {
            let rig = Rig::with(&EngineConfig { workers: 2, io, ..EngineConfig::default() });
            assert_asleep("without flows");
            let flows: Vec<(Sink, std::net::SocketAddr)> = (0..20)
                .map(|n| {
                    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
                    let coalesced = format!("{}?coalesce=5ms", sink.url());
                    rig.apply(&format!("f{n}"), flow([udp(listen), udp((V4, free_port()).into())], [coalesced]));
                    (sink, listen)
                })
                .collect();
            assert_asleep("with flows that nothing was sent to");
            for (sink, listen) in &flows {
                Feed::new(*listen, TS).send_to_all(200, &[sink]);
            }
            // The sources still have to be found silent.
            wait_until("the end of all sources", || {
                let lost = |n| rig.events(&format!("f{n}")).iter().any(|event| event.type_name() == "source_lost");
                (0..flows.len()).all(lost)
            });
            assert_asleep("with flows that have ended");
        }
    });
}

/// No engine thread is put on a processor for half a second. What has just been asked of it may still go on at first.
fn assert_asleep(when: &str) {
    wait_until(&format!("sleeping threads {when}"), || {
        let before = switches();
        let_pass(Duration::from_millis(500));
        before.len() >= 3 && switches() == before
    });
}

/// How often each thread of the engine gave its processor back.
fn switches() -> BTreeMap<String, String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let of_engine = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let is_engine = name.starts_with("worker-") || name.starts_with("supervisor");
        let status = fs::read_to_string(task.path().join("status")).ok().filter(|_| is_engine)?;
        let count = status.lines().filter(|line| line.contains("ctxt_switches")).collect::<Vec<_>>().join(" ");
        Some((task.path().display().to_string(), count))
    });
    of_engine.collect()
}
