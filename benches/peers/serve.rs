//! The engine as a service: start-up time, idle cost, and many flows at once over its HTTP API.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Options;
use crate::child::{self, Measured};
use crate::peer::url;
use crate::run::Sample;
use crate::sys;

const UP_MAX: Duration = Duration::from_secs(10);
const IDLE_SETTLE: Duration = Duration::from_secs(1);
const IDLE_SPAN: Duration = Duration::from_secs(5);

/// The engine, up.
pub(crate) struct Service {
    pub(crate) process: Measured,
    address: SocketAddrV4,
    up_after_ns: u64,
}

/// `serve` with one flow for each input, started.
pub(crate) fn start_flows(options: &Options, inputs: &[u16], outputs: &[u16]) -> Result<Measured, String> {
    let service = Service::start(options, options.subject_cpu())?;
    let per_flow = outputs.len() / inputs.len();
    for (input, outputs) in inputs.iter().zip(outputs.chunks(per_flow)) {
        service.start_flow(&url(*input), outputs.iter().map(|port| url(*port)))?;
    }
    Ok(service.process)
}

/// How fast it is up, and what it uses when nothing comes.
pub(crate) fn idle(options: &Options) -> Result<Sample, String> {
    let service = Service::start(options, options.subject_cpu())?;
    let ports = child::free_ports(2).map_err(|error| error.to_string())?;
    service.start_flow(&url(ports[0]), [url(ports[1])])?;
    sys::sleep(IDLE_SETTLE);
    let before = service.process.usage().ok_or("it ended")?;
    sys::sleep(IDLE_SPAN);
    let after = service.process.usage().ok_or("it ended")?;
    Ok(Sample::from([
        ("startup_ms", service.up_after_ns as f64 / 1e6),
        ("idle_cpu_s", (after.cpu_ns - before.cpu_ns) as f64 / 1e9),
        ("seconds", IDLE_SPAN.as_secs_f64()),
        ("switches_per_s", (after.switches - before.switches) as f64 / IDLE_SPAN.as_secs_f64()),
        ("rss_peak_mb", after.rss_peak_bytes as f64 / 1e6),
    ]))
}

impl Service {
    pub(crate) fn start(options: &Options, cpu: Option<usize>) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let address = free_address().map_err(|error| error.to_string())?;
        let mut command = Command::new(&options.programs.anabranch);
        command.args(["serve", "--listen", &address.to_string(), "--db"]).arg(folder.path().join("anabranch.db"));
        command.current_dir(folder.path());
        let started_ns = sys::monotonic_ns();
        let mut process = Measured::start(command, cpu).map_err(|error| error.to_string())?;
        process.keep(folder);
        let until = started_ns + u64::try_from(UP_MAX.as_nanos()).unwrap_or(u64::MAX);
        while sys::monotonic_ns() < until {
            if request(address, "GET", "/health", None).is_ok_and(|(status, _)| status == 200) {
                return Ok(Self { process, address, up_after_ns: sys::monotonic_ns() - started_ns });
            }
            if process.has_ended() {
                return Err(format!("serve ended: {}", process.complaint()));
            }
            sys::sleep(Duration::from_millis(1));
        }
        Err(format!("no 200 on /health within {} s: {}", UP_MAX.as_secs(), process.complaint()))
    }

    /// Makes a flow, starts it and says its id.
    pub(crate) fn start_flow(&self, source: &str, outputs: impl IntoIterator<Item = String>) -> Result<String, String> {
        let outputs = outputs.into_iter().enumerate().map(|(at, url)| json!({"name": format!("out{at}"), "url": url}));
        let flow = json!({
            "name": format!("bench {source}"),
            "sources": [{"name": "in", "url": source}],
            "outputs": outputs.collect::<Vec<_>>(),
        });
        let made = call(self.address, "POST", "/v1/flows", Some(&flow), 201)?;
        let id = made["id"].as_str().ok_or_else(|| format!("a flow without id: {made}"))?;
        call(self.address, "POST", &format!("/v1/flows/{id}/start"), None, 200)?;
        Ok(id.into())
    }

    /// The process, and how to ask it for the metrics of a flow.
    pub(crate) fn into_parts(self) -> (Measured, impl Fn(&str) -> Result<Value, String>) {
        let address = self.address;
        (self.process, move |flow| call(address, "GET", &format!("/v1/flows/{flow}/metrics"), None, 200))
    }
}

fn call(address: SocketAddrV4, method: &str, path: &str, body: Option<&Value>, wanted: u16) -> Result<Value, String> {
    let (status, answer) = request(address, method, path, body).map_err(|error| format!("{method} {path}: {error}"))?;
    if status != wanted {
        return Err(format!("{method} {path}: {status} instead of {wanted}: {answer}"));
    }
    serde_json::from_str(&answer).map_err(|error| format!("{method} {path}: {error}: {answer}"))
}

fn free_address() -> std::io::Result<SocketAddrV4> {
    let listener = TcpListener::bind(sys::loopback(0))?;
    Ok(sys::loopback(listener.local_addr()?.port()))
}

fn request(address: SocketAddrV4, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<(u16, String)> {
    let span = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address.into(), span)?;
    stream.set_read_timeout(Some(span))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let kind = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all([head, kind, body].concat().as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok((status, body.to_string()))
}
