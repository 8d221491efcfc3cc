//! The listener's side: asks a caller who he is, lets him prove it, and proves that it knows his password as well.

use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::accounts::{Account, Accounts, NAME_BYTES_MAX};
use super::client::{VERSION, hashing};
use super::eap::{Frame, Message, Request, Response};
use super::gate::Settings;
use super::math::{Agreement, Group, Hash, Hashing, Names};
use super::{Entropy, Job, News, Outcome, WRONG_LOGIN};
use crate::proto::rist::crypto::{Sealing, Secret, wrap};
use crate::proto::rtp::random::Random;
use crate::units::Time;

/// One exchange after the other with one client.
pub(super) struct Server {
    stage: Stage,
    is_in: bool,
    /// Of the latest request.
    id: u8,
    /// EAPOL version of this exchange.
    version: u8,
    /// The other padding is tried.
    is_flipped: bool,
    /// K of the latest exchange that succeeded, if its version has a use for it.
    key: Option<Zeroizing<Hash>>,
    /// The latest request, when it is to be repeated, and how often it was.
    latest: Option<(Vec<u8>, Time, u8)>,
    /// When this exchange moved last.
    moved_at: Time,
    failures: u32,
    blocked_until: Time,
    job: Option<Job>,
}

enum Stage {
    Idle,
    Identity,
    Challenged { user: Vec<u8>, account: Account, hashing: Hashing },
    Working { account: Account },
    Keyed { account: Account, agreement: Agreement, sealing: Option<Box<Sealing>> },
    Validating,
}

impl Server {
    const fn new() -> Self {
        Self {
            stage: Stage::Idle,
            is_in: false,
            id: 0,
            version: VERSION,
            is_flipped: false,
            key: None,
            latest: None,
            moved_at: Time::ZERO,
            failures: 0,
            blocked_until: Time::ZERO,
            job: None,
        }
    }

    /// Somebody answers our first question, of which nothing was kept.
    pub(super) fn asked(now: Time, id: u8) -> Self {
        Self { stage: Stage::Identity, id, moved_at: now, ..Self::new() }
    }

    pub(super) const fn is_in(&self) -> bool {
        self.is_in
    }

    pub(super) const fn has_job(&self) -> bool {
        self.job.is_some()
    }

    pub(super) const fn take_job(&mut self) -> Option<Job> {
        self.job.take()
    }

    /// Whether nothing is lost if this is forgotten.
    pub(super) fn is_stale(&self, now: Time) -> bool {
        !self.is_in && self.blocked_until <= now && now.since(self.moved_at) >= STALE_AFTER
    }

    /// Whether it may be forgotten for somebody else: he has said no more than a name.
    pub(super) fn is_silent(&self, now: Time) -> bool {
        let has_said_nothing = matches!(self.stage, Stage::Idle | Stage::Identity | Stage::Challenged { .. });
        !self.is_in
            && has_said_nothing
            && self.failures == 0
            && self.blocked_until <= now
            && now.since(self.moved_at) >= REPEAT_AFTER
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.latest.as_ref().map(|(_, again_at, _)| *again_at)
    }

    pub(super) fn handle_timeout(&mut self, now: Time, out: &mut Vec<Vec<u8>>) {
        let Some((bytes, again_at, times)) = self.latest.as_mut().filter(|(_, again_at, _)| *again_at <= now) else {
            return;
        };
        if *times >= REPEATED_MAX {
            (self.stage, self.latest, self.job) = (Stage::Idle, None, None);
            return;
        }
        (*times, *again_at) = (*times + 1, now + REPEAT_AFTER);
        out.push(bytes.clone());
    }

    /// Somebody is there whom we do not know, or who wants to be asked again.
    pub(super) fn begin(&mut self, now: Time, entropy: &mut Entropy, out: &mut Vec<Vec<u8>>) {
        let is_under_way = !matches!(self.stage, Stage::Idle) && now.since(self.moved_at) < REPEAT_AFTER;
        if is_under_way || self.blocked_until > now {
            return;
        }
        (self.stage, self.job, self.version) = (Stage::Identity, None, VERSION);
        self.id = entropy.draw()[0];
        self.send(now, Request::Identity, out);
    }

    fn send(&mut self, now: Time, request: Request<'_>, out: &mut Vec<Vec<u8>>) {
        let bytes = Frame { version: self.version, message: Message::Request(self.id, request) }.to_bytes();
        self.moved_at = now;
        out.push(bytes.clone());
        self.latest = Some((bytes, now + REPEAT_AFTER, 0));
    }

    /// A message of the client.
    pub(super) fn handle(
        &mut self,
        now: Time,
        frame: Frame<'_>,
        (accounts, settings): (&Accounts, &Settings),
        entropy: &mut Entropy,
        out: &mut Vec<Vec<u8>>,
    ) -> Option<News> {
        if self.blocked_until > now {
            return None;
        }
        match frame.message {
            Message::Start => self.begin(now, entropy, out),
            Message::Response(id, Response::Identity(user)) if id == self.id => {
                if matches!(self.stage, Stage::Identity) && (1..=NAME_BYTES_MAX).contains(&user.len()) {
                    self.challenge(now, user, frame.version, (accounts, settings), out);
                }
            }
            Message::Response(id, Response::ClientKey(client)) if id == self.id => {
                if matches!(self.stage, Stage::Challenged { .. }) {
                    if !Group::of_2048_bits().has(client) {
                        return self.fail(now, out);
                    }
                    self.work(now, client, (accounts, settings), entropy);
                }
            }
            Message::Response(id, Response::ClientProof { is_keyed, proof }) if id == self.id => {
                return self.check(now, is_keyed, &proof, out);
            }
            Message::Response(id, Response::Validated) | Message::Success(id) if id == self.id => {
                return self.confirm(out);
            }
            Message::Request(id, Request::Passphrase) if self.is_in => {
                self.tell_passphrase(id, settings.secret.as_ref(), out)
            }
            Message::Request(..) | Message::Response(..) | Message::Success(_) | Message::Failure(_) => {}
        }
        None
    }

    fn challenge(
        &mut self,
        now: Time,
        user: &[u8],
        version: u8,
        (accounts, settings): (&Accounts, &Settings),
        out: &mut Vec<Vec<u8>>,
    ) {
        let account = accounts.find(user, version, &settings.salt_seed);
        self.version = if account.is_old { 2 } else { VERSION };
        let hashing = if account.is_old { Hashing::Unseeded } else { hashing(version, self.is_flipped) };
        self.id = self.id.wrapping_add(1);
        self.send(now, Request::Challenge { salt: &account.salt, is_other_group: false }, out);
        self.stage = Stage::Challenged { user: user.to_vec(), account, hashing };
    }

    /// Everything can be worked out from A.
    fn work(&mut self, now: Time, client: &[u8], (accounts, settings): (&Accounts, &Settings), entropy: &mut Entropy) {
        let Stage::Challenged { user, account, hashing } = &self.stage else { return };
        let (user, account, hashing) = (user.clone(), account.clone(), *hashing);
        (self.moved_at, self.latest) = (now, None);
        self.stage = Stage::Working { account: account.clone() };
        let (accounts, client, secret) = (accounts.clone(), client.to_vec(), entropy.draw());
        let seals = settings.secret.is_none() && self.version >= 3;
        let (length, rotation, seed) = (settings.key_length, settings.key_rotation, entropy.draw());
        self.job = Some(Box::new(move || {
            let names = Names { user: &user, salt: &account.salt };
            let verifier = accounts.verifier(&account, hashing);
            let served = Group::of_2048_bits().server(hashing, names, &verifier, &secret, &client);
            Outcome::Served(served.map(|(server, agreement)| {
                let mut random = Random::new(u64::from_be_bytes(*seed.first_chunk().unwrap_or(&[0; 8])));
                let secret = seals.then(|| Secret::from_bytes(&*agreement.key)).flatten();
                let sealing = secret.map(|secret| Box::new(Sealing::new(&secret, length, rotation, &mut random)));
                (server, agreement, sealing)
            }))
        }));
    }

    /// What came of a job.
    pub(super) fn handle_outcome(&mut self, now: Time, outcome: Outcome, out: &mut Vec<Vec<u8>>) -> Option<News> {
        let (Outcome::Served(served), Stage::Working { account }) = (outcome, &self.stage) else { return None };
        let account = account.clone();
        let Some((server, agreement, sealing)) = served else { return self.fail(now, out) };
        self.id = self.id.wrapping_add(1);
        self.send(now, Request::ServerKey(&server), out);
        self.stage = Stage::Keyed { account, agreement, sealing };
        None
    }

    /// M1 came.
    fn check(&mut self, now: Time, is_keyed: bool, proof: &Hash, out: &mut Vec<Vec<u8>>) -> Option<News> {
        if !matches!(self.stage, Stage::Keyed { .. }) {
            return None;
        }
        let Stage::Keyed { account, agreement, sealing } = std::mem::replace(&mut self.stage, Stage::Validating) else {
            return None;
        };
        if !(bool::from(agreement.client_proof.ct_eq(proof)) && account.exists()) {
            return self.fail(now, out);
        }
        (self.is_in, self.failures) = (true, 0);
        self.key = (self.version >= 3).then(|| agreement.key.clone());
        self.id = self.id.wrapping_add(1);
        self.send(now, Request::ServerProof { is_keyed: sealing.is_some(), proof: agreement.server_proof }, out);
        Some(News::Accepted { key: agreement.key, is_keyed: is_keyed && self.version >= 3, sealing })
    }

    fn confirm(&mut self, out: &mut Vec<Vec<u8>>) -> Option<News> {
        if !matches!(self.stage, Stage::Validating) {
            return None;
        }
        (self.stage, self.latest) = (Stage::Idle, None);
        if self.version < 3 {
            self.id = self.id.wrapping_add(1);
            out.push(Frame { version: self.version, message: Message::Success(self.id) }.to_bytes());
        }
        Some(News::Confirmed)
    }

    fn tell_passphrase(&self, id: u8, secret: Option<&Secret>, out: &mut Vec<Vec<u8>>) {
        let Some(key) = &self.key else { return };
        let wrapped = secret.map(|secret| wrap(key, true, id, secret.bytes()));
        let response = match &wrapped {
            Some(wrapped) => Response::Passphrase { wrapped, is_long_key: true },
            None => Response::SessionKey,
        };
        out.push(Frame { version: self.version, message: Message::Response(id, response) }.to_bytes());
    }

    /// Who is in stays in: this may come from anyone.
    fn fail(&mut self, now: Time, out: &mut Vec<Vec<u8>>) -> Option<News> {
        out.push(Frame { version: self.version, message: Message::Failure(self.id) }.to_bytes());
        (self.stage, self.latest, self.job, self.moved_at) = (Stage::Idle, None, None, now);
        self.failures += 1;
        let was_first = self.version >= 3 && self.failures % 2 == 1;
        // Two of us that both changed each time could miss each other for ever.
        self.is_flipped ^= self.failures % 2 == 1;
        if self.failures >= FAILURES_MAX {
            (self.failures, self.blocked_until) = (0, now + BLOCKED_FOR);
        }
        (!was_first).then_some(News::Refused(WRONG_LOGIN))
    }
}

/// Librist has 500 ms and five times.
const REPEAT_AFTER: Duration = Duration::from_millis(500);
const REPEATED_MAX: u8 = 5;
/// Longer than all of that.
const STALE_AFTER: Duration = Duration::from_secs(4);
/// Judgement: three, each with both kinds of padding.
const FAILURES_MAX: u32 = 6;
/// Judgement: nobody guesses passwords at one a second.
const BLOCKED_FOR: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::*;
    use crate::proto::rist::crypto::KeyLength;

    /// Lets both talk until the client is in; says how often he was refused.
    fn meet(client: &mut Client, server: &mut Server, settings: &Settings) -> Option<usize> {
        let accounts = Accounts::login("alice", "wonder").unwrap();
        let (mut entropy, mut now, mut refused) = (Entropy::new([1; 32]), Time::ZERO, 0);
        let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
        for _ in 0..600 {
            now += Duration::from_millis(10);
            client.handle_timeout(now, &mut from_client);
            if let Some(job) = client.take_job() {
                client.handle_outcome(now, job(), &mut from_client);
            }
            for bytes in std::mem::take(&mut from_client) {
                let frame = Frame::parse(&bytes).unwrap();
                server.handle(now, frame, (&accounts, settings), &mut entropy, &mut from_server);
            }
            if let Some(job) = server.take_job() {
                server.handle_outcome(now, job(), &mut from_server);
            }
            for bytes in std::mem::take(&mut from_server) {
                let frame = Frame::parse(&bytes).unwrap();
                refused += usize::from(matches!(frame.message, Message::Failure(_)));
                client.handle(now, frame, &mut entropy, &mut from_client);
            }
            if client.is_in() && server.is_in() {
                return Some(refused);
            }
        }
        None
    }

    fn settings() -> Settings {
        Settings::new(None, KeyLength::Aes128, 1 << 31)
    }

    #[test]
    fn whoever_pads_numbers_meets_whoever_does_not() {
        // From any state that lost or invented refusals may have left them in.
        for (client_refused, server_refused) in [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)] {
            let (mut out, mut entropy) = (Vec::new(), Entropy::new([2; 32]));
            let mut client = Client::new(Accounts::login("alice", "wonder").unwrap(), None);
            for _ in 0..client_refused {
                for message in [Message::Request(7, Request::Identity), Message::Failure(7)] {
                    client.handle(Time::ZERO, Frame { version: 3, message }, &mut entropy, &mut out);
                }
            }
            let mut server = Server::new();
            (0..server_refused).for_each(|_| _ = server.fail(Time::ZERO, &mut out));
            let refused = meet(&mut client, &mut server, &settings());
            assert!(refused.is_some_and(|times| times <= 3), "{client_refused} {server_refused}: {refused:?}");
        }
    }

    #[test]
    fn a_proof_at_the_wrong_time_lets_nobody_in() {
        let accounts = Accounts::login("alice", "wonder").unwrap();
        let (mut server, mut entropy, mut out) = (Server::new(), Entropy::new([1; 32]), Vec::new());
        let now = Time::ZERO + Duration::from_secs(1);
        server.begin(now, &mut entropy, &mut out);
        for step in 0..4 {
            let id = server.id;
            for message in [
                Message::Response(id, Response::ClientProof { is_keyed: true, proof: [0; 32] }),
                Message::Response(id, Response::Validated),
                Message::Success(id),
                Message::Request(id, Request::Passphrase),
            ] {
                let frame = Frame { version: 3, message };
                let news = server.handle(now, frame, (&accounts, &settings()), &mut entropy, &mut out);
                assert!(!matches!(news, Some(News::Accepted { .. } | News::Confirmed)) && !server.is_in(), "{step}");
            }
            let response = match step {
                0 => Response::Identity(b"alice"),
                _ => Response::ClientKey(&[2]),
            };
            let frame = Frame { version: 3, message: Message::Response(server.id, response) };
            server.handle(now, frame, (&accounts, &settings()), &mut entropy, &mut out);
        }
    }

    #[test]
    fn who_fails_again_and_again_is_not_answered_for_a_while() {
        let (mut server, mut entropy, mut out) = (Server::new(), Entropy::new([1; 32]), Vec::new());
        (0..FAILURES_MAX).for_each(|_| _ = server.fail(Time::ZERO, &mut out));
        out.clear();
        server.begin(Time::ZERO + BLOCKED_FOR - Duration::from_millis(1), &mut entropy, &mut out);
        assert!(out.is_empty() && !server.is_stale(Time::ZERO + BLOCKED_FOR - Duration::from_millis(1)));
        server.begin(Time::ZERO + BLOCKED_FOR, &mut entropy, &mut out);
        assert_eq!(out.len(), 1);
    }
}
