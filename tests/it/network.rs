//! Networks of a test's own: namespaces that end with the thread that made them.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::support::{skipped, wait_until};

/// Runs `body` in a network namespace of its own, with loopback up and fit for multicast; skips where that is not
/// permitted. Threads that `body` starts live in it, too.
pub(crate) fn in_own_network(what: &str, body: impl FnOnce() + Send + 'static) {
    let inside = std::thread::Builder::new().name(what.into()).spawn(|| {
        if let Err(error) = leave_network() {
            return Some(error);
        }
        ip("link set lo up multicast on");
        ip("route add 224.0.0.0/4 dev lo");
        body();
        None
    });
    match inside.unwrap().join() {
        Ok(None) => {}
        Ok(Some(error)) => skipped(&format!("{what}: no network namespace, {error}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Another namespace, joined to the caller's by a pair of interfaces.
pub(crate) struct Neighbour {
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Neighbour {
    pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
    pub(crate) const THERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
    /// The near end of the pair.
    pub(crate) const INTERFACE: &str = "near";

    pub(crate) fn new() -> Self {
        let (work, tasks): (_, Receiver<Work>) = sync_channel(1);
        let (told, thread_id) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            leave_network().unwrap();
            told.send(thread_id_of_caller()).unwrap();
            while let Ok(task) = tasks.recv() {
                task();
            }
        });
        let neighbour = Self { work: Some(work), thread: Some(thread) };
        ip(&format!("link add near type veth peer name far netns {}", thread_id.recv().unwrap()));
        ip("addr add 10.9.0.1/24 dev near");
        ip("addr add fd09::1/64 dev near nodad");
        ip("link set near up");
        neighbour.run(|| {
            ip("link set lo up");
            ip("addr add 10.9.0.2/24 dev far");
            ip("addr add fd09::2/64 dev far nodad");
            ip("link set far up");
            wait_until("the far end", || is_up("far"));
        });
        wait_until("the near end", || is_up("near"));
        neighbour
    }

    /// Runs `task` there. Sockets and threads that it makes stay there.
    pub(crate) fn run<R: Send + 'static>(&self, task: impl FnOnce() -> R + Send + 'static) -> R {
        let (reply, answer) = sync_channel(1);
        let work = self.work.as_ref().unwrap();
        work.send(Box::new(move || reply.send(task()).unwrap())).unwrap();
        answer.recv().unwrap()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The kernel drops what is sent before it has noticed that both ends are up.
fn is_up(interface: &str) -> bool {
    let output = Command::new("ip").args(["-oneline", "link", "show", interface]).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("state UP"))
}

pub(crate) fn ip(arguments: &str) {
    assert!(try_run("ip", arguments), "ip {arguments}");
}

/// Runs a tool of the system in the caller's network; true if it is there and succeeded.
pub(crate) fn try_run(program: &str, arguments: &str) -> bool {
    let output = Command::new(program).args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

#[allow(unsafe_code, reason = "no crate in the tree wraps unshare")]
fn leave_network() -> std::io::Result<()> {
    // SAFETY: takes no memory; concerns the calling thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[allow(unsafe_code, reason = "the standard library does not tell the system's thread id")]
fn thread_id_of_caller() -> i32 {
    // SAFETY: takes no memory and cannot fail.
    unsafe { libc::gettid() }
}
