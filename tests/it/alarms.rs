//! Every alarm about pictures and sound, provoked by a fault of the test picture, over HTTP.

use anabranch::control::config::Settings;
use serde_json::{Value, json};

use crate::http::TestServer;
use crate::support::{wait_for, wait_until};

/// Each is told when it begins and when it ends, and is why the flow leaves the source.
#[test]
fn each_fault_of_pictures_and_sound_is_told_ends_and_is_a_cause_of_failover() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings: Settings = TestServer::settings(directory.path());
    settings.engine.watchers.budget_per_mille = 2_000;
    let server = TestServer::start(settings);
    let flows = FAULTS.map(|fault| (fault, started(&server, &fault)));
    for (Fault { name, rule, begins, ends, cause, .. }, path) in flows {
        let events = || server.get(&format!("{path}/events?limit=1000")).json()["events"].as_array().unwrap().clone();
        let find = |kind: &str| events().into_iter().rev().find(|event| event["type"] == kind);
        let began = wait_for(&format!("{name}: {begins}"), || find(begins));
        assert_eq!(began["data"]["source"], "s1", "{began}");
        let switched = wait_for(&format!("{name}: failover"), || find("source_failover"));
        let (from, to, why) = (&switched["data"]["from"], &switched["data"]["to"], &switched["data"]["cause"]);
        assert_eq!((from, to, why), (&json!("s1"), &json!("s2"), &json!(cause)), "{switched}");
        // The fault comes again and again, and others were looked at before.
        let switches = server.get(&format!("{path}/metrics")).json()["switch_causes"][cause].as_u64();
        assert!(switches >= Some(1), "{name}: {switches:?}");
        let ended = wait_for(&format!("{name}: {ends}"), || find(ends));
        assert_eq!((&ended["data"]["source"], &ended["data"]["lost_sight"]), (&json!("s1"), &Value::Null), "{ended}");
        // By the clock of the stream, so that a busy machine tells nothing else: a black picture stands still as well.
        for event in events() {
            let kind = event["type"].as_str().unwrap_or_default();
            let is_defect = ["black_detected", "frozen_detected", "silent_detected"].contains(&kind);
            let may_be = kind == begins || (rule, kind) == ("black", "frozen_detected");
            assert!(!is_defect || may_be && event["data"]["source"] == "s1", "{name}: {event}");
        }
        wait_until("what outputs get", || {
            let content = server.get(&format!("{path}/content-quality")).json();
            content["black_frame_detected"] == false && content["silent_audio_detected"] == false
        });
    }
}

/// A flow whose first source has the fault for 6 of every 14 s, and whose second has none.
fn started(server: &TestServer, fault: &Fault) -> String {
    let flow = json!({
        "name": fault.name,
        "sources": [
            { "name": "s1", "url": format!("test:picture?rate=1M&{}=6s/14s", fault.name) },
            { "name": "s2", "url": "test:picture?rate=1M" },
        ],
        "source_failover_config": { "switch_on": { fault.rule: true, "hold_off_ms": 500 }, "health_timeout_ms": 20_000 },
        "source_monitor_config": { "content_quality_enabled": true },
    });
    let created = server.post("/v1/flows", &flow);
    assert_eq!(created.status, 201, "{created:?}");
    let path = format!("/v1/flows/{}", created.json()["id"].as_str().unwrap());
    let answer = server.post(&format!("{path}/start"), &json!({}));
    assert_eq!(answer.status, 200, "{answer:?}");
    path
}

#[derive(Clone, Copy)]
struct Fault {
    name: &'static str,
    rule: &'static str,
    begins: &'static str,
    ends: &'static str,
    cause: &'static str,
}

const fn fault(
    name: &'static str,
    rule: &'static str,
    begins: &'static str,
    ends: &'static str,
    cause: &'static str,
) -> Fault {
    Fault { name, rule, begins, ends, cause }
}

const FAULTS: [Fault; 5] = [
    fault("black", "black", "black_detected", "black_ended", "black"),
    fault("freeze", "frozen", "frozen_detected", "frozen_ended", "frozen"),
    fault("silence", "silent", "silent_detected", "silent_ended", "silent_audio"),
    fault("no_video", "no_video", "video_missing", "video_back", "no_video"),
    fault("no_audio", "no_audio", "audio_missing", "audio_back", "no_audio"),
];
