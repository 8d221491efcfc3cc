//! What survives the end of the process. The server runs in a child: this test program itself, asked to run one test in
//! which it serves instead.
#![allow(clippy::print_stdout, reason = "parent and child talk that way, and seeds are for people")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anabranch::control::{Server, shutdown_signal};
use serde_json::{Value, json};

use crate::http::{Client, TestServer, free_port, read};

/// Where the child finds its database.
const DIRECTORY: &str = "ANABRANCH_TEST_DIRECTORY";
const KILLS: usize = 12;
const CHANGES_PER_LIFE_MAX: usize = 30;

#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match Server::start(&TestServer::settings(Path::new(&directory))).await {
            Ok(server) => {
                println!("\nADDRESS {}", server.address());
                server.run(async { shutdown_signal().await.unwrap() }).await;
            }
            Err(error) => println!("\nFAILED {error}"),
        }
    });
}

#[test]
fn a_killed_process_loses_no_flow() {
    let directory = tempfile::tempdir().unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut before = State::new();
    // What else may be, if the last change was made without an answer.
    let mut after = before.clone();
    for life in 0..KILLS {
        let mut server = Serving::start(directory.path());
        let found = server.state();
        assert!(found == before || found == after, "life {life}: {found:?} is neither {before:?} nor {after:?}");
        before = found;
        let changes = random.usize(1..CHANGES_PER_LIFE_MAX);
        for number in 0..changes {
            let change = Change::choose(&mut random, &before, format!("{life}-{number}"));
            let (method, path, body) = change.request(&server.paths());
            let stream = server.client.send(method, &path, "", &body).unwrap();
            after = change.applied_to(&before);
            if number + 1 == changes {
                (0..random.usize(0..20_000)).for_each(|_| std::hint::spin_loop());
                server.process.kill().unwrap();
                if read(stream).is_some_and(|answer| answer.status < 300) {
                    before = after.clone();
                }
            } else {
                let answer = read(stream).unwrap();
                assert!(answer.status < 300, "{answer:?}");
                before = after.clone();
            }
        }
        server.process.wait().unwrap();
    }
}

#[test]
fn a_process_that_is_asked_to_end_does_so_and_its_flows_come_back() {
    let directory = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let mut server = Serving::start(directory.path());
        if server.state().is_empty() {
            server.client.post("/v1/flows", &flow("news"));
            let path = server.paths()["news"].clone();
            assert_eq!(server.client.ask("POST", &format!("{path}/start"), "").status, 200);
        }
        assert!(server.state()["news"].running);
        let status = Command::new("kill").args([signal, &server.process.id().to_string()]).status().unwrap();
        assert!(status.success());
        assert!(server.process.wait().unwrap().success());
    }
    assert!(Serving::start(directory.path()).state()["news"].running);
}

#[test]
fn a_database_that_may_not_be_written_is_said_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    drop(Serving::start(directory.path()));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        mode(&entry.unwrap().path(), 0o444);
    }
    mode(directory.path(), 0o555);
    let mut command = command(directory.path());
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        // Nothing is read-only for root.
        command.uid(65_534);
    }
    let output = match command.output() {
        Ok(output) => String::from_utf8(output.stdout).unwrap(),
        Err(error) => return println!("SKIPPED: another user cannot run this test program: {error}"),
    };
    mode(directory.path(), 0o755);
    let line = output.lines().find_map(|line| line.strip_prefix("FAILED ")).unwrap_or_else(|| panic!("{output}"));
    assert!(line.contains("test.db") && line.contains("read-only"), "{line}");
}

/// What must not get lost of every flow, by name.
type State = BTreeMap<String, FlowState>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FlowState {
    outputs: Vec<String>,
    running: bool,
}

enum Change {
    Create { name: String },
    Delete { name: String },
    AddOutput { name: String, output: String },
    Start { name: String },
    Stop { name: String },
}

impl Change {
    fn choose(random: &mut fastrand::Rng, state: &State, unique: String) -> Self {
        let Some(name) = random.choice(state.keys().cloned().collect::<Vec<_>>()) else {
            return Self::Create { name: unique };
        };
        match random.u32(0..7) {
            0 | 1 => Self::Create { name: unique },
            2 => Self::Delete { name },
            3 | 4 => Self::AddOutput { name, output: unique },
            5 => Self::Start { name },
            _ => Self::Stop { name },
        }
    }

    fn request(&self, paths: &BTreeMap<String, String>) -> (&'static str, String, String) {
        match self {
            Self::Create { name } => ("POST", "/v1/flows".into(), flow(name).to_string()),
            Self::Delete { name } => ("DELETE", paths[name].clone(), String::new()),
            Self::AddOutput { name, output } => {
                let body = json!({ "name": output, "url": "udp://127.0.0.1:9" });
                ("POST", format!("{}/outputs", paths[name]), body.to_string())
            }
            Self::Start { name } => ("POST", format!("{}/start", paths[name]), String::new()),
            Self::Stop { name } => ("POST", format!("{}/stop", paths[name]), String::new()),
        }
    }

    fn applied_to(&self, state: &State) -> State {
        let mut state = state.clone();
        let mut change =
            |name: &String, change: &dyn Fn(&mut FlowState)| change(state.entry(name.clone()).or_default());
        match self {
            Self::Create { name } => change(name, &|_| {}),
            Self::Delete { name } => drop(state.remove(name)),
            Self::AddOutput { name, output } => change(name, &|flow| flow.outputs.push(output.clone())),
            Self::Start { name } => change(name, &|flow| flow.running = true),
            Self::Stop { name } => change(name, &|flow| flow.running = false),
        }
        state
    }
}

/// A child that serves; killed when dropped.
struct Serving {
    process: Child,
    client: Client,
    /// Kept open: the child writes to its end.
    _output: BufReader<ChildStdout>,
}

impl Serving {
    fn start(directory: &Path) -> Self {
        let mut process = command(directory).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let address = (output.by_ref().lines().map_while(Result::ok))
            .find_map(|line| line.strip_prefix("ADDRESS ").map(|text| text.parse::<SocketAddr>().unwrap()));
        let client = Client(address.expect("the child serves"));
        client.wait_until("/health?probe=ready", |answer| answer.status == 200);
        Self { process, client, _output: output }
    }

    fn flows(&self) -> Vec<Value> {
        self.client.get("/v1/flows").json()["flows"].as_array().unwrap().clone()
    }

    fn paths(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_string();
        self.flows().iter().map(|flow| (text(&flow["name"]), format!("/v1/flows/{}", text(&flow["id"])))).collect()
    }

    fn state(&self) -> State {
        let one = |flow: &Value| {
            let outputs = flow["outputs"].as_array().unwrap();
            let outputs = outputs.iter().map(|output| output["name"].as_str().unwrap().to_string()).collect();
            let running = match flow["status"].as_str().unwrap() {
                "ACTIVE" => true,
                "STANDBY" => false,
                other => panic!("{other}: {flow}"),
            };
            (flow["name"].as_str().unwrap().to_string(), FlowState { outputs, running })
        };
        self.flows().iter().map(one).collect()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "process::child", "--nocapture"]).env(DIRECTORY, directory);
    command
}

fn flow(name: &str) -> Value {
    let source = json!({ "name": "main", "url": format!("udp://127.0.0.1:{}", free_port()) });
    json!({ "name": name, "source": source })
}
