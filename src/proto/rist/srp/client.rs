//! The caller's side: starts, answers what it is asked, and checks that the listener knows the password as well.

use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::accounts::{Accounts, SALT_BYTES_MAX};
use super::eap::{Frame, Message, Request, Response};
use super::math::{Agreement, Bytes, Group, Hash, Hashing, Names};
use super::{Entropy, Job, News, OTHER_GROUP, Outcome, UNPROVEN, WRONG_LOGIN};
use crate::proto::PeerEnd;
use crate::proto::rist::crypto::{Secret, wrap};
use crate::units::Time;

/// One exchange after the other with one server.
pub(super) struct Client {
    accounts: Accounts,
    /// Ours, if we have one.
    secret: Option<Secret>,
    stage: Stage,
    is_in: bool,
    /// EAPOL version of the latest challenge.
    version: u8,
    /// The other padding is tried.
    is_flipped: bool,
    /// K of the latest exchange that succeeded.
    key: Option<Zeroizing<Hash>>,
    /// The latest answer and what it was for: it may have got lost.
    answered: Option<(u8, u8, Vec<u8>)>,
    start_at: Time,
    failures: u32,
    asking: Option<Asking>,
    job: Option<Job>,
}

enum Stage {
    Out,
    Identified,
    Challenged { id: u8, salt: Bytes, hashing: Hashing, secret: Zeroizing<Hash>, is_answered: bool },
    Proving { id: u8, agreement: Option<Agreement> },
}

/// For a passphrase.
struct Asking {
    id: u8,
    again_at: Time,
    times: u8,
}

impl Client {
    pub(super) fn new(accounts: Accounts, secret: Option<Secret>) -> Self {
        Self {
            accounts,
            secret,
            stage: Stage::Out,
            is_in: false,
            version: VERSION,
            is_flipped: false,
            key: None,
            answered: None,
            start_at: Time::ZERO,
            failures: 0,
            asking: None,
            job: None,
        }
    }

    pub(super) const fn is_in(&self) -> bool {
        self.is_in
    }

    /// The server is gone: it will want to know again.
    pub(super) fn forget(&mut self, now: Time) {
        (self.is_in, self.stage, self.asking, self.job) = (false, Stage::Out, None, None);
        self.start_at = now;
    }

    pub(super) const fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    pub(super) const fn has_job(&self) -> bool {
        self.job.is_some()
    }

    pub(super) const fn take_job(&mut self) -> Option<Job> {
        self.job.take()
    }

    pub(super) fn due(&self) -> Option<Time> {
        if self.is_in { self.asking.as_ref().map(|asking| asking.again_at) } else { Some(self.start_at) }
    }

    pub(super) fn handle_timeout(&mut self, now: Time, out: &mut Vec<Vec<u8>>) {
        if !self.is_in && self.start_at <= now {
            (self.stage, self.job) = (Stage::Out, None);
            self.start_at = now + START_AGAIN;
            out.push(Frame { version: VERSION, message: Message::Start }.to_bytes());
        }
        if let Some(asking) = self.asking.as_mut().filter(|asking| asking.again_at <= now) {
            asking.times += 1;
            asking.again_at = now + START_AGAIN;
            let message = Message::Request(asking.id, Request::Passphrase);
            out.push(Frame { version: VERSION, message }.to_bytes());
            if asking.times >= ASKED_MAX {
                self.asking = None;
            }
        }
    }

    /// A message of the server.
    pub(super) fn handle(
        &mut self,
        now: Time,
        frame: Frame<'_>,
        entropy: &mut Entropy,
        out: &mut Vec<Vec<u8>>,
    ) -> Option<News> {
        match frame.message {
            Message::Request(id, request) => self.handle_request(now, frame.version, (id, request), entropy, out),
            Message::Response(id, response) => {
                if self.asking.as_ref().is_none_or(|asking| asking.id != id) {
                    return None;
                }
                let key = self.key.as_ref()?;
                let (secret, is_session_key) = match response {
                    Response::SessionKey => (Zeroizing::new(key.to_vec()), true),
                    Response::Passphrase { wrapped, is_long_key } => (wrap(key, is_long_key, id, wrapped), false),
                    Response::Identity(_)
                    | Response::ClientKey(_)
                    | Response::ClientProof { .. }
                    | Response::Validated => return None,
                };
                self.asking = None;
                out.push(Frame { version: VERSION, message: Message::Success(id) }.to_bytes());
                Some(News::Passphrase { secret, is_session_key })
            }
            Message::Failure(_) if !matches!(self.stage, Stage::Out) => self.fail(now, WRONG_LOGIN),
            Message::Failure(_) | Message::Success(_) | Message::Start => None,
        }
    }

    fn handle_request(
        &mut self,
        now: Time,
        version: u8,
        (id, request): (u8, Request<'_>),
        entropy: &mut Entropy,
        out: &mut Vec<Vec<u8>>,
    ) -> Option<News> {
        let kind = kind(&request);
        if let Some((_, _, bytes)) = self.answered.as_ref().filter(|(of, what, _)| (*of, *what) == (id, kind)) {
            out.push(bytes.clone());
            return None;
        }
        match request {
            Request::Identity => {
                self.stage = Stage::Identified;
                let (user, _) = self.accounts.credentials()?;
                let bytes = Frame { version: VERSION, message: Message::Response(id, Response::Identity(user)) };
                self.answer(now, id, kind, bytes.to_bytes(), out);
            }
            Request::Challenge { is_other_group: true, .. } => return self.fail(now, OTHER_GROUP),
            Request::Challenge { salt, .. } => {
                if !matches!(self.stage, Stage::Identified) || !(1..=SALT_BYTES_MAX).contains(&salt.len()) {
                    return None;
                }
                self.version = version.min(VERSION);
                let hashing = hashing(version, self.is_flipped);
                let secret = entropy.draw();
                let exponent = secret.clone();
                self.job = Some(Box::new(move || Outcome::Public(Group::of_2048_bits().raise(&exponent))));
                self.stage = Stage::Challenged { id, salt: salt.to_vec(), hashing, secret, is_answered: false };
            }
            Request::ServerKey(server) => return self.prove(id, server),
            Request::ServerProof { is_keyed, proof } => return self.check(now, (id, kind), is_keyed, &proof, out),
            Request::Passphrase => {
                let (Some(key), Some(secret), true) = (&self.key, &self.secret, self.is_in && self.version >= 3) else {
                    return None;
                };
                let wrapped = wrap(key, true, id, secret.bytes());
                let response = Response::Passphrase { wrapped: &wrapped, is_long_key: true };
                let frame = Frame { version: VERSION, message: Message::Response(id, response) };
                out.push(frame.to_bytes());
            }
        }
        None
    }

    /// B came: the rest can be worked out.
    fn prove(&mut self, id: u8, server: &[u8]) -> Option<News> {
        let Stage::Challenged { salt, hashing, secret, is_answered: true, .. } = &self.stage else { return None };
        let (salt, hashing, secret) = (salt.clone(), *hashing, secret.clone());
        let (accounts, server) = (self.accounts.clone(), server.to_vec());
        self.job = Some(Box::new(move || {
            let agreement = accounts.credentials().and_then(|(user, password)| {
                let names = Names { user, salt: &salt };
                Group::of_2048_bits().client(hashing, names, password, &secret, &server)
            });
            Outcome::Agreed(agreement)
        }));
        self.stage = Stage::Proving { id, agreement: None };
        None
    }

    /// M2 came.
    fn check(
        &mut self,
        now: Time,
        (id, kind): (u8, u8),
        is_keyed: bool,
        proof: &Hash,
        out: &mut Vec<Vec<u8>>,
    ) -> Option<News> {
        let Stage::Proving { agreement: Some(agreement), .. } = &self.stage else { return None };
        if !bool::from(agreement.server_proof.ct_eq(proof)) {
            return self.fail(now, UNPROVEN);
        }
        let key = agreement.key.clone();
        self.stage = Stage::Out;
        (self.is_in, self.failures) = (true, 0);
        self.key = Some(key.clone());
        let is_keyed = is_keyed && self.version >= 3;
        let message = if self.version >= 3 { Message::Success(id) } else { Message::Response(id, Response::Validated) };
        let bytes = Frame { version: self.version, message }.to_bytes();
        self.answer(now, id, kind, bytes, out);
        if self.version >= 3 && !is_keyed && self.secret.is_none() {
            // Librist's identifiers for this have the two highest bits set.
            self.asking = Some(Asking { id: id | 0xc0, again_at: now, times: 0 });
        }
        Some(News::Accepted { key, is_keyed, sealing: None })
    }

    /// What came of a job.
    pub(super) fn handle_outcome(&mut self, now: Time, outcome: Outcome, out: &mut Vec<Vec<u8>>) -> Option<News> {
        let version = self.version;
        match (outcome, &mut self.stage) {
            (Outcome::Public(client), Stage::Challenged { id, is_answered: is_answered @ false, .. }) => {
                *is_answered = true;
                let (id, message) = (*id, Message::Response(*id, Response::ClientKey(&client)));
                self.answer(now, id, CHALLENGE, Frame { version, message }.to_bytes(), out);
                None
            }
            (Outcome::Agreed(Some(agreed)), Stage::Proving { id, agreement: agreement @ None }) => {
                let proof = Response::ClientProof { is_keyed: false, proof: agreed.client_proof };
                let (id, message) = (*id, Message::Response(*id, proof));
                *agreement = Some(agreed);
                self.answer(now, id, SERVER_KEY, Frame { version, message }.to_bytes(), out);
                None
            }
            (Outcome::Agreed(None), Stage::Proving { agreement: None, .. }) => self.fail(now, UNPROVEN),
            _ => None,
        }
    }

    fn answer(&mut self, now: Time, id: u8, kind: u8, bytes: Vec<u8>, out: &mut Vec<Vec<u8>>) {
        self.start_at = self.start_at.max(now + STALLED_AFTER);
        out.push(bytes.clone());
        self.answered = Some((id, kind, bytes));
    }

    /// Who is in stays in: this may come from anyone.
    fn fail(&mut self, now: Time, why: PeerEnd) -> Option<News> {
        (self.stage, self.answered, self.job) = (Stage::Out, None, None);
        self.failures = self.failures.saturating_add(1);
        self.is_flipped = !self.is_flipped;
        if self.version >= 3 && !self.failures.is_multiple_of(2) {
            self.start_at = now + FLIP_AFTER;
            return None;
        }
        self.start_at = now + (RETRY_FIRST * 2_u32.pow((self.failures / 2).min(5))).min(RETRY_MAX);
        Some(News::Refused(why))
    }
}

/// How a peer hashes who speaks EAPOL `version`; of version 3 there are two kinds.
pub(super) const fn hashing(version: u8, is_flipped: bool) -> Hashing {
    match version {
        0..=2 => Hashing::Unseeded,
        _ if (version >= 4) != is_flipped => Hashing::Padded,
        _ => Hashing::Unpadded,
    }
}

const fn kind(request: &Request<'_>) -> u8 {
    match request {
        Request::Identity => 0,
        Request::Challenge { .. } => CHALLENGE,
        Request::ServerKey(_) => SERVER_KEY,
        Request::ServerProof { .. } => 3,
        Request::Passphrase => 4,
    }
}

const CHALLENGE: u8 = 1;
const SERVER_KEY: u8 = 2;

/// The highest that we speak.
pub(super) const VERSION: u8 = 3;
/// Until the first request comes, and between two for a passphrase. Librist's servers have the same.
const START_AGAIN: Duration = Duration::from_millis(500);
/// After an answer to which nothing comes. A server repeats itself every half second.
const STALLED_AFTER: Duration = Duration::from_millis(1_600);
/// Before the other way to hash is tried.
const FLIP_AFTER: Duration = Duration::from_millis(50);
/// After a refusal, doubling: librist turns away for good whom it refused four times in a row.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// As librist has it.
const ASKED_MAX: u8 = 6;
