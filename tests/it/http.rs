//! A server to test, and just enough of an HTTP client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::ops::Deref;
use std::path::Path;
use std::thread::JoinHandle;

use anabranch::control::Server;
use anabranch::control::config::{Api, Settings, Storage};
use serde_json::Value;
use tokio::sync::oneshot;

/// Asks a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub(crate) SocketAddr);

/// The product, served on a free port until dropped.
pub(crate) struct TestServer {
    client: Client,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status, code and field of an error.
    pub(crate) fn refusal(&self) -> (u16, String, String) {
        let json = self.json();
        assert!(json["error"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_string();
        (self.status, text("code"), text("field"))
    }
}

impl TestServer {
    /// Settings with a free port and a database in `directory`.
    pub(crate) fn settings(directory: &Path) -> Settings {
        Settings {
            api: Api { listen: ([127, 0, 0, 1], 0).into(), ..Api::default() },
            storage: Storage { path: directory.join("test.db") },
            ..Settings::default()
        }
    }

    pub(crate) fn start(settings: Settings) -> Self {
        let (end, ended) = oneshot::channel::<()>();
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::start(&settings).await.unwrap();
                report.send(server.address()).unwrap();
                server.run(async { drop(ended.await) }).await;
            });
        });
        let address = started.recv().unwrap();
        let server = Self { client: Client(address), end: Some(end), thread: Some(thread) };
        server.wait_until("/health?probe=ready", |answer| answer.status == 200);
        server
    }
}

impl Deref for TestServer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Client {
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &body.to_string())
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, &body.to_string())
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, "")
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(method, path, "", body)
    }

    /// `headers` are whole lines, each with its end.
    pub(crate) fn ask_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let stream = self.send(method, path, headers, body).unwrap();
        read(stream).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// Sends a request whose answer is read later, or never.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.0)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            self.0,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        // The answer may come before everything is sent.
        let _ = stream.write_all(body.as_bytes());
        Ok(stream)
    }

    /// Asks again and again until the answer is as expected.
    pub(crate) fn wait_until(&self, path: &str, expected: impl Fn(&Answer) -> bool) {
        for _ in 0..5_000 {
            if expected(&self.get(path)) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{path} stays {:?}", self.get(path));
    }
}

/// The answer, if there is a whole one.
pub(crate) fn read(mut stream: TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).map(str::parse);
    let whole = length.is_none_or(|length| length == Ok(body.len()));
    whole.then_some(Answer { status: head.split(' ').nth(1)?.parse().ok()?, head, body: body.into() })
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// A UDP port that nobody has, nor the next one.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < u16::MAX && UdpSocket::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}
