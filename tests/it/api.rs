//! The HTTP contract over a real socket.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{TestServer, free_port};

#[test]
fn a_flow_lives_from_creation_to_deletion() {
    let (_directory, server) = server();
    let created = server.post("/v1/flows", &flow(free_port()));
    assert_eq!(created.status, 201);
    let flow = created.json();
    assert_eq!(flow["status"], "STANDBY");
    assert_eq!(flow["source"], flow["sources"][0]);
    assert_eq!(flow["source"]["status"], "DISCONNECTED");
    assert_eq!(flow["outputs"][0]["status"], "ENABLED");
    assert!(flow["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(flow["started_at"], Value::Null);
    let path = format!("/v1/flows/{}", flow["id"].as_str().unwrap());
    assert_eq!(server.get(&path).json(), flow);
    assert_eq!(server.get("/v1/flows").json(), json!({ "flows": [flow] }));

    let started = server.post(&format!("{path}/start"), &json!({}));
    assert_eq!((started.status, started.json()["status"].as_str()), (200, Some("ACTIVE")), "{started:?}");
    assert_eq!(server.post(&format!("{path}/start"), &json!({})).status, 200);
    assert_eq!(server.get("/health").json(), json!({ "status": "ok", "total_flows": 1, "active_flows": 1 }));
    let stopped = server.ask("POST", &format!("{path}/stop"), "");
    assert_eq!((stopped.status, stopped.json()["status"].as_str()), (200, Some("STANDBY")), "{stopped:?}");
    assert_eq!(server.ask("POST", &format!("{path}/stop"), "").status, 200);

    let deleted = server.delete(&path);
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert_eq!(server.get(&path).refusal(), (404, "not_found".into(), String::new()));
    assert_eq!(server.delete(&path).status, 404);
}

#[test]
fn packets_pass_and_are_counted() {
    let (_directory, server) = server();
    let port = free_port();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut flow = flow(port);
    flow["outputs"][0]["port"] = receiver.local_addr().unwrap().port().into();
    let path = started(&server, &flow);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut buffer = [0; 2_000];
    for number in 0..10_u8 {
        let packet = [number; 1_316];
        sender.send_to(&packet, ("127.0.0.1", port)).unwrap();
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], packet);
    }
    server.wait_until(&format!("{path}/metrics"), |answer| answer.json()["output_metrics"][0]["packets_sent"] == 10);
    let metrics = server.get(&format!("{path}/metrics")).json();
    assert_eq!(metrics["status"], "ACTIVE");
    assert_eq!(metrics["active_source"], "main");
    assert_eq!(metrics["source_metrics"][0]["packets_received"], 10);
    assert_eq!(metrics["source_metrics"][0]["connected"], true);
    assert_eq!(server.get(&path).json()["source"]["status"], "CONNECTED");

    let id = path.rsplit('/').next().unwrap();
    let text = server.get("/metrics");
    assert!(text.head.contains("content-type: text/plain; version=0.0.4"), "{text:?}");
    let line = format!("anabranch_output_packets_total{{flow=\"{id}\",output=\"one\"}} 10");
    assert!(text.body.lines().any(|found| found == line), "{line} not in\n{}", text.body);
    assert_eq!(server.delete(&path).status, 204);
    assert!(!server.get("/metrics").body.contains(id));
}

#[test]
fn a_running_flow_can_be_changed() {
    let (_directory, server) = server();
    let path = started(&server, &flow(free_port()));
    let outputs = format!("{path}/outputs");
    let added = server.post(&outputs, &json!({ "name": "two", "url": "udp://127.0.0.1:9?coalesce=2ms" }));
    assert_eq!((added.status, &added.json()["outputs"][1]["protocol"]), (200, &json!("udp")), "{added:?}");
    let changed = server.put(&format!("{outputs}/one"), &json!({ "port": 7_777, "description": "moved" })).json();
    assert_eq!(changed["outputs"][0]["port"], 7_777);
    assert_eq!(changed["outputs"][0]["destination"], "127.0.0.1");
    let to_url = server.put(&format!("{outputs}/one"), &json!({ "url": "rtp://127.0.0.1:7778" })).json();
    assert_eq!(to_url["outputs"][0]["protocol"], "rtp");
    assert_eq!(to_url["outputs"][0]["destination"], Value::Null);
    let off = server.put(&format!("{outputs}/two"), &json!({ "status": "DISABLED", "name": "three" })).json();
    assert_eq!(off["outputs"][1]["status"], "DISABLED");
    assert_eq!(off["status"], "ACTIVE");
    assert_eq!(server.delete(&format!("{outputs}/three")).json()["outputs"].as_array().unwrap().len(), 1);

    let source = json!({ "name": "backup", "protocol": "rtp", "ingest_port": free_port(), "ingest_ip": "127.0.0.1" });
    let added = server.post(&format!("{path}/source"), &source);
    assert_eq!((added.status, added.json()["sources"].as_array().unwrap().len()), (200, 2), "{added:?}");
    assert_eq!(server.get(&format!("{path}/metrics")).json()["source_metrics"].as_array().unwrap().len(), 2);
    let removed = server.delete(&format!("{path}/source/main"));
    assert_eq!((removed.status, &removed.json()["source"]["name"]), (200, &json!("backup")));
    let last = server.delete(&format!("{path}/source/backup"));
    assert_eq!(last.refusal(), (400, "last_source".into(), String::new()));
}

#[test]
fn a_rate_of_srt_changes_and_nobody_is_disconnected() {
    let (_directory, server) = server();
    let port = free_port();
    let waits = format!("srt://127.0.0.1:{port}?mode=listener");
    let mut sends = flow(free_port());
    sends["outputs"][0] = json!({ "name": "one", "url": waits });
    let mut receives = flow(free_port());
    receives["sources"][0] = json!({ "name": "main", "url": format!("srt://127.0.0.1:{port}") });
    let (sends, _receives) = (started(&server, &sends), started(&server, &receives));
    let metrics = format!("{sends}/metrics");
    let rate = |json: Value| json["output_metrics"][0]["srt"]["mbpsMaxBW"].as_f64();
    server.wait_until(&metrics, |answer| rate(answer.json()).is_some());
    let changed = server.put(&format!("{sends}/outputs/one"), &json!({ "url": format!("{waits}&maxbw=1000000") }));
    assert_eq!(changed.status, 200, "{changed:?}");
    server.wait_until(&metrics, |answer| rate(answer.json()) == Some(8.0));
    let events = server.get("/v1/events").json().to_string();
    assert_eq!(events.matches("peer_connected").count(), 2, "{events}");
    assert!(!events.contains("peer_disconnected"), "{events}");
}

#[test]
fn an_answer_changed_and_sent_back_is_the_new_flow() {
    let (_directory, server) = server();
    let path = started(&server, &flow(free_port()));
    let mut flow = server.get(&path).json();
    flow["name"] = json!("renamed");
    flow["outputs"].as_array_mut().unwrap().push(json!({ "name": "two", "url": "udp://127.0.0.1:9" }));
    let answer = server.put(&path, &flow);
    assert_eq!(answer.status, 200, "{answer:?}");
    let again = answer.json();
    assert_eq!((again["name"].as_str(), again["outputs"].as_array().unwrap().len()), (Some("renamed"), 2));
    assert_eq!(again["id"], flow["id"]);
    let partial = server.put(&path, &json!({ "description": "only this" })).json();
    assert_eq!((partial["description"].as_str(), &partial["outputs"]), (Some("only this"), &again["outputs"]));
}

#[test]
fn a_source_can_be_renamed_while_it_runs() {
    let (_directory, server) = server();
    let port = free_port();
    let path = started(&server, &flow(port));
    let renamed =
        server.put(&path, &json!({ "source": { "name": "other", "url": format!("udp://127.0.0.1:{port}") } }));
    assert_eq!(renamed.status, 200, "{renamed:?}");
    assert_eq!(server.get(&format!("{path}/metrics")).json()["source_metrics"][0]["name"], "other");
}

#[test]
fn changes_at_once_all_happen() {
    let (_directory, server) = server();
    let path = started(&server, &flow(free_port()));
    std::thread::scope(|scope| {
        for number in 0..16 {
            let body = json!({ "name": number.to_string(), "url": "udp://127.0.0.1:9" });
            let (server, outputs) = (&server, format!("{path}/outputs"));
            scope.spawn(move || assert_eq!(server.post(&outputs, &body).status, 200));
        }
    });
    assert_eq!(server.get(&path).json()["outputs"].as_array().unwrap().len(), 17);
    let metrics = server.get(&format!("{path}/metrics")).json();
    assert_eq!(metrics["output_metrics"].as_array().unwrap().len(), 17);
}

#[test]
fn bad_input_gets_the_field_and_the_fix() {
    let (_directory, server) = server();
    let path = started(&server, &flow(free_port()));
    let bad = |what: (u16, &str, &str)| (what.0, what.1.to_string(), what.2.to_string());
    let create = |body: &Value| server.post("/v1/flows", body).refusal();
    let mut unknown = flow(free_port());
    unknown["outputs"][0]["prot"] = json!(1);
    let mut port = flow(free_port());
    port["sources"][0]["ingest_port"] = json!(99_999);
    assert_eq!(create(&json!({})), bad((400, "missing_field", "name")));
    assert_eq!(create(&json!({ "name": "n" })), bad((400, "missing_field", "sources")));
    assert_eq!(create(&unknown), bad((400, "unknown_field", "outputs[0].prot")));
    assert_eq!(create(&port), bad((400, "invalid_value", "sources[0].ingest_port")));
    for text in ["", "{", "[]", "null", "name=x", "\u{0}", "{\"name\":\"n\"}}"] {
        let answer = server.ask("POST", "/v1/flows", text);
        assert_eq!(answer.status, 400, "{text}: {answer:?}");
        assert!(!answer.json()["error"].as_str().unwrap().is_empty());
    }
    let outputs = format!("{path}/outputs");
    let again = json!({ "name": "one", "url": "udp://127.0.0.1:9" });
    assert_eq!(server.post(&outputs, &again).refusal(), bad((409, "name_taken", "name")));
    let port = json!({ "name": "two", "protocol": "udp", "destination": "127.0.0.1", "port": 0 });
    assert_eq!(server.post(&outputs, &port).refusal(), bad((400, "invalid_value", "port")));
    let no_port = json!({ "name": "two", "protocol": "udp", "destination": "127.0.0.1" });
    assert_eq!(server.post(&outputs, &no_port).refusal(), bad((400, "missing_field", "port")));
    assert_eq!(
        server.put(&format!("{outputs}/one"), &json!({ "port": 0 })).refusal(),
        bad((400, "invalid_value", "port"))
    );
    assert_eq!(server.put(&format!("{outputs}/x"), &json!({ "port": 1 })).refusal(), bad((404, "not_found", "")));
    assert_eq!(server.delete(&format!("{outputs}/x")).refusal(), bad((404, "not_found", "")));
    assert_eq!(server.get("/v1/events?limit=0").refusal(), bad((400, "invalid_value", "limit")));
    assert_eq!(server.get("/v1/events?limit=10001").refusal(), bad((400, "invalid_value", "limit")));
    assert_eq!(server.get("/v1/events?limt=1").refusal(), bad((400, "unknown_field", "limt")));
    assert_eq!(server.get("/health?probe=dead").refusal(), bad((400, "invalid_value", "probe")));
    assert_eq!(server.get(&path).json()["outputs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_port_that_somebody_has_is_a_conflict_and_changes_nothing() {
    let (_directory, server) = server();
    let port = free_port();
    let taken = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let created = server.post("/v1/flows", &flow(port)).json();
    let path = format!("/v1/flows/{}", created["id"].as_str().unwrap());
    let refused = (409, "port_in_use".to_string(), "sources[0].ingest_port".to_string());
    assert_eq!(server.post(&format!("{path}/start"), &json!({})).refusal(), refused);
    assert_eq!(server.get(&path).json()["status"], "STANDBY");
    drop(taken);
    assert_eq!(server.post(&format!("{path}/start"), &json!({})).status, 200);

    let other = started(&server, &flow(free_port()));
    let source = json!({ "name": "more", "url": format!("udp://127.0.0.1:{port}") });
    let refused = (409, "port_in_use".to_string(), "url".to_string());
    assert_eq!(server.post(&format!("{other}/source"), &source).refusal(), refused);
    assert_eq!(server.get(&other).json()["sources"].as_array().unwrap().len(), 1);
}

#[test]
fn everything_that_is_no_success_is_json() {
    let (_directory, server) = server();
    assert_eq!(server.get("/nowhere").refusal(), (404, "not_found".into(), String::new()));
    assert_eq!(server.get("/v1/flows/").status, 404);
    assert_eq!(server.get("/v1/flows/%ff").refusal().0, 404);
    let wrong_method = server.ask("PATCH", "/v1/flows", "{}");
    assert_eq!(wrong_method.refusal(), (405, "method_not_allowed".into(), String::new()));
    assert!(wrong_method.head.contains("allow: "), "{wrong_method:?}");
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(server.ask("POST", "/v1/flows", &long).refusal(), (413, "too_large".into(), String::new()));
    for answer in [server.get("/nowhere"), server.get("/health"), server.get("/metrics"), wrong_method] {
        assert!(answer.head.contains("cache-control: no-store"), "{answer:?}");
    }
}

#[test]
fn what_a_flow_that_stands_does_not_have_is_not_found() {
    let (_directory, server) = server();
    let created = server.post("/v1/flows", &flow(free_port())).json();
    let path = format!("/v1/flows/{}", created["id"].as_str().unwrap());
    for what in ["metrics", "thumbnail", "thumbnail.jpg", "metadata", "content-quality"] {
        assert_eq!(server.get(&format!("{path}/{what}")).refusal().1, "not_active", "{what}");
        assert_eq!(server.get(&format!("/v1/flows/none/{what}")).refusal().1, "not_found", "{what}");
    }
    server.post(&format!("{path}/start"), &json!({}));
    let metadata = server.get(&format!("{path}/metadata"));
    assert_eq!((metadata.status, &metadata.json()["streams"]), (200, &json!([])), "nothing came yet: {metadata:?}");
    for what in ["thumbnail", "thumbnail.jpg", "content-quality"] {
        let answer = server.get(&format!("{path}/{what}"));
        assert_eq!(answer.refusal(), (404, "not_enabled".into(), String::new()), "{what}");
    }
}

#[test]
fn events_tell_what_happened() {
    let (_directory, server) = server();
    let path = started(&server, &flow(free_port()));
    server.post(&format!("{path}/stop"), &json!({}));
    let events = server.get(&format!("{path}/events")).json();
    let types: Vec<&str> =
        events["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["flow_stopped", "flow_started", "flow_created"]);
    let first = &events["events"][2];
    assert_eq!((first["severity"].as_str(), first["message"].as_str()), (Some("info"), Some("flow created")));
    assert_eq!(server.get("/v1/events?limit=2").json()["events"].as_array().unwrap().len(), 2);
    assert!(server.get("/metrics").body.contains("anabranch_events_total{type=\"flow_created\"} 1"));
    server.delete(&path);
    assert_eq!(server.get("/v1/events").json(), json!({ "events": [] }));
}

#[test]
fn flows_that_ran_run_again_after_a_restart() {
    let (directory, server) = server();
    let running = started(&server, &flow(free_port()));
    let standing = server.post("/v1/flows", &flow(free_port())).json();
    drop(server);
    let server = TestServer::start(TestServer::settings(directory.path()));
    assert_eq!(server.get(&running).json()["status"], "ACTIVE");
    let path = format!("/v1/flows/{}", standing["id"].as_str().unwrap());
    assert_eq!(server.get(&path).json(), standing);
    server.post(&format!("{running}/stop"), &json!({}));
    drop(server);
    let server = TestServer::start(TestServer::settings(directory.path()));
    assert_eq!(server.get(&running).json()["status"], "STANDBY");
}

#[test]
fn with_a_token_only_health_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    fs::write(&token, "a-long-enough-token\n").unwrap();
    let mut settings = TestServer::settings(directory.path());
    settings.api.token_file = Some(token);
    let server = TestServer::start(settings);
    assert_eq!(server.get("/health").status, 200);
    for path in ["/v1/flows", "/metrics", "/openapi.json", "/nowhere"] {
        let answer = server.get(path);
        assert_eq!(answer.refusal(), (401, "unauthorized".into(), String::new()), "{path}");
        assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
    }
    let right = "Authorization: Bearer a-long-enough-token\r\n";
    assert_eq!(server.ask_with("GET", "/v1/flows", right, "").status, 200);
}

#[test]
fn a_page_from_elsewhere_may_not_ask() {
    let (_directory, server) = server();
    let answer = server.ask_with("POST", "/v1/flows", "Origin: https://evil.example\r\n", "{}");
    assert_eq!(answer.refusal(), (403, "forbidden".into(), String::new()));
    let own = format!("Origin: http://{}\r\n", server.0);
    assert_eq!(server.ask_with("GET", "/v1/flows", &own, "").status, 200);
}

#[test]
fn declared_flows_are_made_once_and_follow_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = TestServer::settings(directory.path());
    settings.flows = vec![serde_json::from_value(flow(free_port())).unwrap()];
    let server = TestServer::start(settings.clone());
    let first = server.get("/v1/flows").json();
    assert_eq!(first["flows"][0]["status"], "ACTIVE", "{first}");
    drop(server);
    settings.flows[0].description = Some("from the file".into());
    let server = TestServer::start(settings);
    let second = server.get("/v1/flows").json();
    assert_eq!(second["flows"].as_array().unwrap().len(), 1);
    assert_eq!(second["flows"][0]["id"], first["flows"][0]["id"]);
    assert_eq!(second["flows"][0]["description"], "from the file");
}

#[test]
fn the_document_is_served() {
    let (_directory, server) = server();
    let document = server.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/v1/flows/{id}/outputs/{name}"]["put"].is_object());
}

fn server() -> (TempDir, TestServer) {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start(TestServer::settings(directory.path()));
    (directory, server)
}

fn flow(port: u16) -> Value {
    json!({
        "name": "news",
        "sources": [{ "name": "main", "protocol": "udp", "ingest_port": port, "ingest_ip": "127.0.0.1" }],
        "outputs": [{ "name": "one", "protocol": "udp", "destination": "127.0.0.1", "port": 9 }],
    })
}

/// Creates and starts `flow`; its path.
fn started(server: &TestServer, flow: &Value) -> String {
    let created = server.post("/v1/flows", flow);
    assert_eq!(created.status, 201, "{created:?}");
    let path = format!("/v1/flows/{}", created.json()["id"].as_str().unwrap());
    let answer = server.post(&format!("{path}/start"), &json!({}));
    assert_eq!(answer.status, 200, "{answer:?}");
    path
}
