//! Who is in: one session for each peer, and the keys that he and we have for each other.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::accounts::Accounts;
use super::client::{Client, VERSION};
use super::eap::{Frame, Message, Request, Response};
use super::math::{Hash, hash};
use super::server::Server;
use super::{Entropy, News, Outcome};
use crate::proto::rist::crypto::{KeyLength, Opening, Sealing, Secret};
use crate::proto::rtp::random::Random;
use crate::proto::{Done, PeerEnd, Work};
use crate::units::Time;

/// Lets peers in, or has us let in by them.
pub(in super::super) struct Gate {
    role: Role,
    accounts: Accounts,
    settings: Settings,
    entropy: Entropy,
    sessions: Vec<Session>,
    named: u32,
    /// When this was last called.
    now: Time,
    /// Until when no job is given out.
    rest_until: Time,
    /// The session that one is done for, and when it is given up.
    busy: Option<(u32, Time)>,
    /// Strangers who were asked last, and when.
    asked: VecDeque<(SocketAddr, Time)>,
    out: VecDeque<(Option<SocketAddr>, Vec<u8>)>,
    scratch: Vec<Vec<u8>>,
    refusals: VecDeque<(SocketAddr, PeerEnd)>,
    failures: u64,
    overflow: u64,
}

/// Which side proves first who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Role {
    Client,
    Server,
}

/// What holds for every peer.
pub(in super::super) struct Settings {
    /// Encrypts everything, if there is one.
    pub(in super::super) secret: Option<Secret>,
    pub(in super::super) key_length: KeyLength,
    pub(in super::super) key_rotation: u32,
    /// Where salts come from that no file has.
    pub(super) salt_seed: Hash,
}

struct Session {
    /// Never given twice.
    name: u32,
    /// `None` for whom the socket is connected to.
    address: Option<SocketAddr>,
    /// Where he spoke from.
    seen: Option<SocketAddr>,
    party: Party,
    heard: Time,
    accepted_at: Option<Time>,
    sealing: Option<Box<Sealing>>,
    /// From when he knows that it is us.
    next_sealing: Option<Box<Sealing>>,
    opening: Option<Opening>,
}

enum Party {
    Client(Box<Client>),
    Server(Box<Server>),
}

impl Settings {
    pub(in super::super) const fn new(secret: Option<Secret>, key_length: KeyLength, key_rotation: u32) -> Self {
        Self { secret, key_length, key_rotation, salt_seed: [0; 32] }
    }
}

impl Gate {
    /// `seed` is secret, and never the same twice.
    pub(in super::super) fn new(role: Role, accounts: Accounts, settings: Settings, seed: Hash) -> Self {
        let mut entropy = Entropy::new(seed);
        let settings = Settings { salt_seed: *entropy.draw(), ..settings };
        Self {
            role,
            accounts,
            settings,
            entropy,
            sessions: Vec::new(),
            named: 0,
            now: Time::ZERO,
            rest_until: Time::ZERO,
            busy: None,
            asked: VecDeque::new(),
            out: VecDeque::new(),
            scratch: Vec::new(),
            refusals: VecDeque::new(),
            failures: 0,
            overflow: 0,
        }
    }

    /// Calls a server: `None` for whom the socket is connected to.
    pub(in super::super) fn call(&mut self, address: Option<SocketAddr>) {
        let client = Client::new(self.accounts.clone(), self.settings.secret.clone());
        self.add(address, Party::Client(Box::new(client)));
    }

    fn add(&mut self, address: Option<SocketAddr>, party: Party) -> usize {
        self.named = self.named.wrapping_add(1) % NAMES;
        let (name, heard) = (self.named, self.now);
        self.sessions.push(Session {
            name,
            address,
            seen: address,
            party,
            heard,
            accepted_at: None,
            sealing: None,
            next_sealing: None,
            opening: None,
        });
        self.sessions.len() - 1
    }

    fn find(&self, peer: Option<SocketAddr>) -> Option<usize> {
        self.sessions.iter().position(|session| session.address.is_none() || session.address == peer)
    }

    /// Asks a stranger who he is. Nothing is kept of him until he answers from there: the identifier tells then that he
    /// was asked, which is one in 256 for whoever invents addresses.
    fn ask(&mut self, peer: SocketAddr) {
        let now = self.now;
        if self.role == Role::Client
            || self.asked.iter().any(|(who, at)| *who == peer && now.since(*at) < ASKED_AGAIN_AFTER)
        {
            return;
        }
        if self.out.len() >= OUT_MAX {
            self.overflow += 1;
            return;
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((peer, now));
        let message = Message::Request(self.identifier(peer), Request::Identity);
        self.out.push_back((Some(peer), Frame { version: VERSION, message }.to_bytes()));
    }

    /// Of the first question to a stranger.
    fn identifier(&self, peer: SocketAddr) -> u8 {
        let ip = match peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        hash(&[&self.settings.salt_seed, b"identifier", &ip.octets(), &peer.port().to_be_bytes()], true)[0]
    }

    /// The session of a peer who speaks to us, made if he answers our first question and there is room.
    fn find_or_add(&mut self, peer: SocketAddr, message: &Message<'_>) -> Option<usize> {
        if let Some(at) = self.find(Some(peer)) {
            return Some(at);
        }
        let id = match message {
            Message::Start => {
                self.ask(peer);
                return None;
            }
            Message::Response(id, Response::Identity(_))
                if self.role == Role::Server && *id == self.identifier(peer) =>
            {
                *id
            }
            Message::Request(..) | Message::Response(..) | Message::Success(_) | Message::Failure(_) => return None,
        };
        let now = self.now;
        self.sessions.retain(|session| !session.is_stale(now));
        if self.sessions.iter().filter(|session| !session.is_in()).count() >= STRANGERS_MAX
            || self.sessions.len() >= SESSIONS_MAX
        {
            let is_silent = |session: &Session| match &session.party {
                Party::Server(server) => server.is_silent(now),
                Party::Client(_) => false,
            };
            let Some(oldest) = self.sessions.iter().position(is_silent) else {
                self.overflow += 1;
                return None;
            };
            self.sessions.remove(oldest);
        }
        Some(self.add(Some(peer), Party::Server(Box::new(Server::asked(now, id)))))
    }

    /// A message of `peer`, which follows the tunnel's header; `false` if it is none.
    pub(in super::super) fn handle(&mut self, now: Time, peer: SocketAddr, bytes: &[u8]) -> bool {
        self.now = now;
        let Ok(frame) = Frame::parse(bytes) else { return false };
        let Some(at) = self.find_or_add(peer, &frame.message) else { return true };
        let session = &mut self.sessions[at];
        session.seen = Some(peer);
        let mut out = std::mem::take(&mut self.scratch);
        let news = match &mut session.party {
            Party::Client(client) => client.handle(now, frame, &mut self.entropy, &mut out),
            Party::Server(server) => {
                server.handle(now, frame, (&self.accounts, &self.settings), &mut self.entropy, &mut out)
            }
        };
        self.finish(at, news, out);
        true
    }

    /// Whether what `peer` sends may be believed. Whom we do not know is asked who he is.
    pub(in super::super) fn admits(&mut self, now: Time, peer: SocketAddr) -> bool {
        self.now = now;
        let Some(at) = self.find(Some(peer)) else {
            self.ask(peer);
            return false;
        };
        let session = &mut self.sessions[at];
        if session.is_in() {
            session.heard = now;
            return true;
        }
        if let Party::Server(server) = &mut session.party {
            let mut out = std::mem::take(&mut self.scratch);
            server.begin(now, &mut self.entropy, &mut out);
            self.finish(at, None, out);
        }
        false
    }

    /// Whether media may go to `address`.
    pub(in super::super) fn lets_out(&self, address: Option<SocketAddr>) -> bool {
        self.find(address).is_some_and(|at| self.sessions[at].is_in())
    }

    /// What opens packets of a peer, if it is not what opens everybody's.
    pub(in super::super) fn opening(&mut self, peer: SocketAddr) -> Option<&mut Opening> {
        let at = self.find(Some(peer))?;
        self.sessions[at].opening.as_mut()
    }

    /// Whether a peer and we may not know yet what the other encrypts with.
    pub(in super::super) fn is_settling(&self, peer: SocketAddr) -> bool {
        self.find(Some(peer)).is_some_and(|at| {
            let Session { party, accepted_at, .. } = &self.sessions[at];
            let is_asking = matches!(party, Party::Client(client) if client.is_asking());
            is_asking || accepted_at.is_some_and(|since| self.now.since(since) < SETTLED_AFTER)
        })
    }

    /// When this was last called.
    pub(in super::super) const fn now(&self) -> Time {
        self.now
    }

    /// What seals packets for a peer, if it is not what seals everybody's.
    pub(in super::super) fn sealing(&mut self, address: Option<SocketAddr>) -> Option<&mut Sealing> {
        let at = self.find(address)?;
        self.sessions[at].sealing.as_deref_mut()
    }

    /// Whether packets for a peer are sealed for him alone.
    pub(in super::super) fn seals(&self, address: Option<SocketAddr>) -> bool {
        self.find(address).is_some_and(|at| self.sessions[at].sealing.is_some())
    }

    pub(in super::super) fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        if self.busy.is_some_and(|(_, until)| until <= now) {
            self.busy = None;
        }
        for at in 0..self.sessions.len() {
            let session = &mut self.sessions[at];
            let mut out = std::mem::take(&mut self.scratch);
            match &mut session.party {
                Party::Client(client) => {
                    if client.is_in() && now.since(session.heard) >= SILENT_AFTER {
                        client.forget(now);
                        (session.sealing, session.opening) = (None, None);
                    }
                    client.handle_timeout(now, &mut out);
                }
                Party::Server(server) => server.handle_timeout(now, &mut out),
            }
            self.finish(at, None, out);
        }
        if self.role == Role::Server {
            self.sessions.retain(|session| !session.is_stale(now));
        }
    }

    pub(in super::super) fn poll_timeout(&self) -> Option<Time> {
        let due = |session: &Session| match &session.party {
            Party::Client(client) if client.is_in() => {
                let silent_at = session.heard + SILENT_AFTER;
                Some(client.due().map_or(silent_at, |due| due.min(silent_at)))
            }
            Party::Client(client) => client.due(),
            Party::Server(server) => server.due(),
        };
        let has_job = self.busy.is_none() && self.sessions.iter().any(Session::has_job);
        let job = if has_job { Some(self.rest_until) } else { self.busy.map(|(_, until)| until) };
        self.sessions.iter().filter_map(due).chain(job).min()
    }

    /// What goes out next: to whom, and what follows the tunnel's header.
    pub(in super::super) fn poll_transmit(&mut self) -> Option<(Option<SocketAddr>, Vec<u8>)> {
        self.out.pop_front()
    }

    /// Who did not get in, or did not let us in, and why.
    pub(in super::super) fn poll_refusal(&mut self) -> Option<(SocketAddr, PeerEnd)> {
        self.refusals.pop_front()
    }

    /// How often somebody did not get in.
    pub(in super::super) const fn failures(&self) -> u64 {
        self.failures
    }

    /// Messages and strangers that there was no room for.
    pub(in super::super) const fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Arithmetic, one piece at a time and not too much of it; and keys.
    pub(in super::super) fn poll_work(&mut self) -> Option<Work> {
        for session in &mut self.sessions {
            let id = |kind| FIRST_WORK + u64::from(session.name) * KINDS + kind;
            for sealing in [&mut session.sealing, &mut session.next_sealing].into_iter().flatten() {
                if let Some(work) = sealing.poll_work() {
                    return Some(work.with_id(|_| id(SEAL)));
                }
            }
            if let Some(work) = session.opening.as_mut().and_then(Opening::poll_work) {
                return Some(work.with_id(|_| id(OPEN)));
            }
        }
        if self.busy.is_some() || self.now < self.rest_until {
            return None;
        }
        // Who has just had his turn is last.
        let at = self.sessions.iter().position(Session::has_job)?;
        let mut session = self.sessions.remove(at);
        let job = match &mut session.party {
            Party::Client(client) => client.take_job(),
            Party::Server(server) => server.take_job(),
        };
        let name = session.name;
        self.sessions.push(session);
        self.rest_until = self.now + REST;
        self.busy = Some((name, self.now + GIVEN_UP_AFTER));
        job.map(|job| Work::new(FIRST_WORK + u64::from(name) * KINDS + LOGIN, job))
    }

    /// Whether this was our work.
    pub(in super::super) fn handle_done(&mut self, now: Time, done: Done) -> Option<Done> {
        self.now = now;
        let Some(id) = done.id.checked_sub(FIRST_WORK) else { return Some(done) };
        let (name, kind) = ((id / KINDS) as u32, id % KINDS);
        if kind == LOGIN && self.busy.is_some_and(|(busy, _)| busy == name) {
            self.busy = None;
        }
        let at = self.sessions.iter().position(|session| session.name == name)?;
        let session = &mut self.sessions[at];
        match kind {
            SEAL => session.sealing.as_mut()?.handle_done(done),
            OPEN => session.opening.as_mut()?.handle_done(done),
            _ => {
                let outcome = done.result.downcast::<Outcome>().ok()?;
                let mut out = std::mem::take(&mut self.scratch);
                let news = match &mut session.party {
                    Party::Client(client) => client.handle_outcome(now, *outcome, &mut out),
                    Party::Server(server) => server.handle_outcome(now, *outcome, &mut out),
                };
                self.finish(at, news, out);
            }
        }
        None
    }

    /// Takes over what a step of the session `at` brought.
    fn finish(&mut self, at: usize, news: Option<News>, mut out: Vec<Vec<u8>>) {
        let address = self.sessions[at].address;
        for bytes in out.drain(..) {
            if self.out.len() >= OUT_MAX {
                self.overflow += 1;
            } else {
                self.out.push_back((address, bytes));
            }
        }
        self.scratch = out;
        let Some(news) = news else { return };
        let session = &mut self.sessions[at];
        match news {
            News::Accepted { key, is_keyed, sealing } => {
                session.heard = self.now;
                session.accepted_at = Some(self.now);
                let opening = session.opening.take();
                session.opening = if is_keyed { open(opening, &*key) } else { None };
                // In a session that there was already he goes on with the old one until he has got our proof.
                if session.sealing.is_some() {
                    session.next_sealing = sealing;
                } else {
                    session.sealing = sealing;
                }
            }
            News::Confirmed => session.sealing = session.next_sealing.take().or_else(|| session.sealing.take()),
            News::Passphrase { secret, is_session_key } => {
                session.opening = open(session.opening.take(), &secret);
                let settings = &self.settings;
                if !is_session_key && let Some(secret) = Secret::from_bytes(&secret) {
                    let seed = self.entropy.draw();
                    let mut random = Random::new(u64::from_be_bytes(*seed.first_chunk().unwrap_or(&[0; 8])));
                    let sealing = Sealing::new(&secret, settings.key_length, settings.key_rotation, &mut random);
                    session.sealing = Some(Box::new(sealing));
                }
            }
            News::Refused(why) => {
                self.failures += 1;
                if let Some(peer) = session.seen
                    && self.refusals.len() < REFUSALS_MAX
                {
                    self.refusals.push_back((peer, why));
                }
            }
        }
    }
}

impl Session {
    fn is_in(&self) -> bool {
        match &self.party {
            Party::Client(client) => client.is_in(),
            Party::Server(server) => server.is_in(),
        }
    }

    fn has_job(&self) -> bool {
        match &self.party {
            Party::Client(client) => client.has_job(),
            Party::Server(server) => server.has_job(),
        }
    }

    fn is_stale(&self, now: Time) -> bool {
        match &self.party {
            Party::Client(_) => false,
            Party::Server(server) if server.is_in() => now.since(self.heard) >= SILENT_AFTER,
            Party::Server(server) => server.is_stale(now),
        }
    }
}

fn open(before: Option<Opening>, secret: &[u8]) -> Option<Opening> {
    let secret = Secret::from_bytes(secret)?;
    let Some(mut opening) = before else { return Some(Opening::new(&secret, 1)) };
    opening.rekey(&secret);
    Some(opening)
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("role", &self.role).field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

/// As many as a sender may have peers, and those who come and go meanwhile.
const SESSIONS_MAX: usize = 64;
/// Who has not proven anything yet: about a kilobyte each.
const STRANGERS_MAX: usize = 32;
/// A stranger who sends much is asked so often; many who take turns are asked more often, each time they send.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(200);
const ASKED_MAX: usize = 16;
/// Messages of some 300 bytes that wait to be sent.
const OUT_MAX: usize = 64;
const REFUSALS_MAX: usize = 16;
/// A peer who has been let in and is not heard for so long has to come in again. Judgement: longer than any interruption
/// that a session survives.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// Longer than asking for a passphrase takes.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Between two jobs of some milliseconds each, at the wish of anyone who can send to us.
const REST: Duration = Duration::from_millis(25);
/// A job that has not come back by then never will.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(2);

/// Names wrap long after those before are gone.
const NAMES: u32 = 1 << 30;
/// Above the numbers of the work that keys for everybody are.
const FIRST_WORK: u64 = 16;
const KINDS: u64 = 3;
const LOGIN: u64 = 0;
const SEAL: u64 = 1;
const OPEN: u64 = 2;
