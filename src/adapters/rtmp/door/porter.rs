//! Asks about callers, on threads of their own: whoever is asked may take his time.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};

use mio::Waker;

use super::{CALLERS_MAX, lock};
use crate::adapters::accept::{AcceptHook, Arrival};
use crate::adapters::clock;
use crate::proto::rtmp::Role;
use crate::units::Time;

/// Threads that ask, some about publishers and others about players: a crowd of these keeps no publisher waiting.
pub(super) struct Porter {
    publishers: SyncSender<Question>,
    players: SyncSender<Question>,
    answers: Receiver<(u64, Answer)>,
    next: u64,
}

/// Somebody is asked about. Dropped, he is not, if it was not his turn yet.
#[derive(Debug)]
pub(super) struct Asked {
    question: u64,
    _waits: Arc<()>,
}

/// What is said about a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Wanted,
    Unwanted,
    /// It came to no answer: the hook panicked.
    Failed,
}

struct Question {
    id: u64,
    arrival: Arrival,
    /// Nobody waits for the answer after that.
    due: Time,
    waits: Weak<()>,
}

impl Porter {
    /// `woken` when there are answers. The threads end with the porter.
    pub(super) fn start(name: &str, hook: &AcceptHook, woken: &Arc<Waker>) -> io::Result<Self> {
        let (answered, answers) = sync_channel(CALLERS_MAX);
        let askers = |of: &str| {
            let (questions, asked) = sync_channel::<Question>(CALLERS_MAX);
            let asked = Arc::new(Mutex::new(asked));
            for _ in 0..ASKERS_EACH {
                let (asked, answered) = (Arc::clone(&asked), answered.clone());
                let (hook, woken) = (hook.clone(), Arc::clone(woken));
                let thread = std::thread::Builder::new().name(format!("{name}-{of}"));
                thread.spawn(move || run(&asked, &answered, &hook, &woken))?;
            }
            io::Result::Ok(questions)
        };
        Ok(Self { publishers: askers("ask")?, players: askers("asks")?, answers, next: 0 })
    }

    /// `None` if too many wait for an answer.
    pub(super) fn ask(&mut self, role: Role, arrival: Arrival, due: Time) -> Option<Asked> {
        let asked = Asked { question: self.next, _waits: Arc::default() };
        self.next += 1;
        let waits = Arc::downgrade(&asked._waits);
        let queue = if role == Role::Publisher { &self.publishers } else { &self.players };
        queue.try_send(Question { id: asked.question, arrival, due, waits }).ok().map(|()| asked)
    }

    pub(super) fn poll_answer(&self) -> Option<(u64, Answer)> {
        self.answers.try_recv().ok()
    }
}

impl Asked {
    pub(super) const fn is(&self, question: u64) -> bool {
        self.question == question
    }
}

fn run(asked: &Mutex<Receiver<Question>>, answered: &SyncSender<(u64, Answer)>, hook: &AcceptHook, woken: &Waker) {
    loop {
        let question = lock(asked).recv();
        let Ok(Question { id, arrival, due, waits }) = question else { return };
        // Those who come back after a hook that was slow for a while do not wait behind those who gave up.
        if waits.strong_count() == 0 || due <= clock::now() {
            continue;
        }
        let answer = match catch_unwind(AssertUnwindSafe(|| hook.ask(&arrival))) {
            Ok(true) => Answer::Wanted,
            Ok(false) => Answer::Unwanted,
            Err(_its_panic_was_printed) => Answer::Failed,
        };
        if answered.send((id, answer)).is_err() || woken.wake().is_err() {
            return;
        }
    }
}

/// Judgement: one answer that takes long holds up nobody, and who is asked has little to do at once.
const ASKERS_EACH: usize = 2;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use mio::{Poll, Token};

    use super::*;

    struct Rig {
        porter: Porter,
        release: SyncSender<()>,
        heard: Receiver<String>,
        _poll: Poll,
    }

    /// Whoever wants `slow` waits for the release, `bad` panics, and `no` is not wanted.
    fn rig() -> Rig {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (release, released) = sync_channel(16);
        let (hears, heard) = sync_channel(16);
        let (released, hears) = (Mutex::new(released), Mutex::new(hears));
        let hook = AcceptHook::new(move |arrival| {
            lock(&hears).send(arrival.key.clone()).unwrap();
            match arrival.key.as_str() {
                "slow" => lock(&released).recv().is_ok(),
                "bad" => unreachable!("a fault on purpose"),
                key => key != "no",
            }
        });
        Rig { porter: Porter::start("test", &hook, &waker).unwrap(), release, heard, _poll: poll }
    }

    impl Rig {
        fn ask(&mut self, role: Role, key: &str) -> Asked {
            let arrival = Arrival {
                peer: SocketAddr::from(([127, 0, 0, 1], 1)),
                publishes: role == Role::Publisher,
                app: "live".into(),
                key: key.into(),
                query: String::new(),
                agent: String::new(),
            };
            self.porter.ask(role, arrival, clock::now() + Duration::from_secs(60)).unwrap()
        }

        #[allow(clippy::disallowed_methods, reason = "one answer to each question")]
        fn answer(&self) -> (u64, Answer) {
            self.porter.answers.recv().unwrap()
        }
    }

    #[test]
    fn slow_answers_about_players_keep_no_publisher_waiting() {
        let mut rig = rig();
        let _slow: Vec<Asked> = (0..5).map(|_| rig.ask(Role::Player, "slow")).collect();
        let good = rig.ask(Role::Publisher, "good");
        let (question, answer) = rig.answer();
        assert!(good.is(question));
        assert_eq!(answer, Answer::Wanted);
    }

    #[test]
    fn who_gave_up_is_not_asked_about() {
        let mut rig = rig();
        let _slow = [rig.ask(Role::Player, "slow"), rig.ask(Role::Player, "slow")];
        drop(rig.ask(Role::Player, "gone"));
        let _good = rig.ask(Role::Player, "good");
        (0..2).for_each(|_| rig.release.send(()).unwrap());
        assert!((0..3).all(|_| rig.answer().1 == Answer::Wanted));
        let mut heard: Vec<String> = rig.heard.try_iter().collect();
        heard.sort();
        assert_eq!(heard, ["good", "slow", "slow"]);
    }

    #[test]
    fn a_hook_that_panics_has_not_answered_and_is_asked_again() {
        let mut rig = rig();
        for _ in 0..3 {
            let _asked = rig.ask(Role::Publisher, "bad");
            assert_eq!(rig.answer().1, Answer::Failed);
        }
        let _asked = rig.ask(Role::Publisher, "no");
        assert_eq!(rig.answer().1, Answer::Unwanted);
    }
}
