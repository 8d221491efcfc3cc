//! Looks names of destinations up without keeping anybody waiting who does not need the answer.
//!
//! Whoever applies a configuration and waits for the answer looks names up on his own thread. At start-up and for
//! retries a few threads of its own do, and tell the supervisor: a name server that does not answer
//! delays outputs with names, and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::config::{FlowConfig, OutputConfig, OutputEndpoint, SourceConfig, SourceEndpoint};
use super::supervisor::Message;
use crate::adapters::{Driven, Host, HostPort, OpenError};
use crate::units::FlowId;

/// What names were looked up to.
#[derive(Debug, Default)]
pub(super) struct Addresses(BTreeMap<String, Result<IpAddr, OpenError>>);

impl Addresses {
    /// Looks up every name in what `wanted` has and does not run; blocks for as long as that takes.
    pub(super) fn of(wanted: &FlowConfig, running: Option<&FlowConfig>) -> Self {
        let mut addresses = Self::default();
        let runs_source = |source: &&SourceConfig| running.is_some_and(|running| running.sources.contains(source));
        let runs_output = |output: &&OutputConfig| running.is_some_and(|running| running.outputs.contains(output));
        let sources = wanted.sources.iter().filter(|source| !runs_source(source));
        let outputs = wanted.outputs.iter().filter(|output| output.enabled && !runs_output(output));
        let called = sources.filter_map(|source| source.endpoint.called());
        for address in called.chain(outputs.map(|output| output.endpoint.destination())) {
            if let Host::Name(name) = &address.host
                && !addresses.0.contains_key(name)
            {
                addresses.0.insert(name.clone(), look_up(name));
            }
        }
        addresses
    }

    /// One answer.
    pub(super) fn single(name: String, answer: Result<IpAddr, OpenError>) -> Self {
        Self(BTreeMap::from([(name, answer)]))
    }

    /// The address of a destination; `None` if it is a name that was not looked up.
    pub(super) fn find(&self, destination: &HostPort) -> Option<Result<SocketAddr, OpenError>> {
        let answer = match &destination.host {
            Host::Ip(ip) => Ok(*ip),
            Host::Name(name) => self.0.get(name)?.clone(),
        };
        Some(answer.map(|ip| SocketAddr::new(ip, destination.port)))
    }
}

/// What became of an attempt to open a source or an output.
pub(super) enum Opened {
    /// It may go on the worker.
    Ready(Box<dyn Driven>),
    /// The system refused, or the name has no address.
    Failed(OpenError),
    /// Its name must be looked up first.
    Nameless(String),
    /// It is kept, and sends nothing.
    Disabled,
}

/// Hands names to the resolver's thread, which ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Resolver(SyncSender<Job>);

#[derive(Debug)]
struct Job {
    flow: FlowId,
    name: String,
}

impl Resolver {
    pub(super) fn start(supervisor: SyncSender<Message>) -> io::Result<Self> {
        let (jobs, inbox) = sync_channel(JOBS_MAX);
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..THREADS {
            let (inbox, supervisor) = (Arc::clone(&inbox), supervisor.clone());
            std::thread::Builder::new().name("resolver".into()).spawn(move || run(&inbox, &supervisor))?;
        }
        Ok(Self(jobs))
    }

    /// Asks for [`Message::LookedUp`]; false if too many names wait already.
    pub(super) fn ask(&self, flow: &FlowId, name: &str) -> bool {
        self.0.try_send(Job { flow: flow.clone(), name: name.to_string() }).is_ok()
    }
}

fn run(inbox: &Mutex<Receiver<Job>>, supervisor: &SyncSender<Message>) {
    let next = || inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(Job { flow, name }) = next() {
        let answer = look_up(&name);
        if supervisor.send(Message::LookedUp { flow, name, answer }).is_err() {
            return;
        }
    }
}

fn look_up(name: &str) -> Result<IpAddr, OpenError> {
    let host = Host::Name(name.to_string());
    host.resolve().map_err(|error| OpenError::Resolve { host: name.into(), problem: error.to_string() })
}

impl SourceEndpoint {
    /// Whom it calls, or where it waits to be called; `None` where there are no connections.
    pub(super) const fn called(&self) -> Option<&HostPort> {
        match self {
            Self::Srt(srt) => Some(srt.address()),
            Self::Rist(rist) => Some(rist.address()),
            Self::Rtmp(rtmp) => Some(rtmp.address()),
            Self::Udp(_) | Self::Rtp(_) | Self::Test(_) => None,
        }
    }
}

impl OutputEndpoint {
    /// Where it sends to.
    #[must_use]
    pub const fn destination(&self) -> &HostPort {
        match self {
            Self::Udp(udp) => &udp.destination,
            Self::Rtp(rtp) => &rtp.destination,
            Self::Srt(srt) => srt.address(),
            Self::Rist(rist) => rist.address(),
            Self::Rtmp(rtmp) => rtmp.address(),
        }
    }

    /// Whether it holds a port of this machine that was asked for.
    #[must_use]
    pub const fn holds_port(&self) -> bool {
        match self {
            Self::Udp(_) | Self::Rtp(_) => false,
            Self::Srt(srt) => srt.holds_port(),
            Self::Rist(rist) => rist.holds_port(),
            Self::Rtmp(rtmp) => rtmp.holds_port(),
        }
    }
}

/// A name that nobody answers for takes one of them for some seconds; the others go on.
const THREADS: usize = 4;
/// Names that may wait: every output of a large engine at once.
const JOBS_MAX: usize = 4_096;
