//! Worker threads: each an event loop with its own sockets, timers and actors.
//!
//! An actor (a running flow) lives on one worker and runs to completion on every event. Other threads reach it only by
//! commands, which the worker carries out between two events. A worker with nothing to do sleeps without any timeout.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, SyncSender, sync_channel};
use std::thread::JoinHandle;

use mio::event::{Event, Source};
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::alarm::Alarm;
use super::background::{Background, Deliver, Parcel, Remote};
use super::clock;
use super::io::{Io, IoKind};
use super::stream::Ahead;
use crate::bus::Pool;
use crate::proto::{Done, Work};
use crate::units::Time;

/// What lives on a worker.
pub trait Actor: Send + 'static {
    /// A socket that the actor registered is ready. Readiness is told once: the actor reads until there is no more,
    /// or calls [`Context::call_again`].
    fn handle_ready(&mut self, cx: &mut Context<'_>, socket: SocketKey, ready: Ready);

    /// The time that [`Actor::poll_timeout`] named has come.
    fn handle_timeout(&mut self, cx: &mut Context<'_>);

    /// What was done elsewhere for whoever has this socket.
    fn handle_done(&mut self, cx: &mut Context<'_>, socket: SocketKey, done: Done);

    /// When [`Actor::handle_timeout`] wants to be called.
    fn poll_timeout(&self) -> Option<Time>;

    /// The actor is about to leave the worker.
    fn close(&mut self, cx: &mut Context<'_>);

    /// The actor panicked, and is dropped after this call; the others on the worker go on.
    fn crashed(&self);
}

/// Names a socket within its actor; the actor chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketKey(pub u16);

/// What a socket can be gone on with for. Whether something can be written is found out by writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Something came since that was told last.
    pub to_read: bool,
    /// Reading tells of the end or of an error, behind whatever came before it.
    pub at_end: bool,
}

/// What a worker lends to the actor that runs.
#[derive(Debug)]
pub struct Context<'worker> {
    /// When the events at hand were collected.
    pub now: Time,
    /// Where buffers come from.
    pub pool: &'worker Pool,
    pub(super) io: &'worker mut Io,
    pub(super) ahead: &'worker mut Ahead,
    registry: &'worker Registry,
    actor: usize,
    again: &'worker mut BTreeSet<(usize, SocketKey)>,
    background: &'worker mut Background,
}

impl Ready {
    /// What the system says.
    pub(super) fn of(event: &Event) -> Self {
        let at_end = event.is_read_closed() || event.is_error();
        Self { to_read: event.is_readable() || at_end, at_end }
    }
}

impl Context<'_> {
    /// Asks to be told when `source` is ready.
    pub(super) fn register(&self, source: &mut impl Source, key: SocketKey, interest: Interest) -> io::Result<()> {
        self.registry.register(source, token(self.actor, key), interest)
    }

    /// Asks to be told of something else.
    pub(super) fn reregister(&self, source: &mut impl Source, key: SocketKey, interest: Interest) -> io::Result<()> {
        self.registry.reregister(source, token(self.actor, key), interest)
    }

    /// Asks not to be told any more.
    pub(super) fn deregister(&self, source: &mut impl Source) -> io::Result<()> {
        self.registry.deregister(source)
    }

    /// Has work done on another thread; [`Actor::handle_done`] brings it back, unless there is too much of it.
    pub(super) fn offload(&mut self, socket: SocketKey, work: Work) {
        self.background.take(self.actor, socket, work);
    }

    /// Reaches [`Actor::handle_done`] from anywhere.
    pub(super) fn remote(&self, socket: SocketKey) -> Remote {
        self.background.remote(self.actor, socket)
    }

    /// Asks for another [`Actor::handle_ready`] after all others had their turn.
    pub fn call_again(&mut self, socket: SocketKey) {
        self.again.insert((self.actor, socket));
    }
}

/// A worker thread; dropping it ends the thread and its actors.
#[derive(Debug)]
pub struct Worker<A> {
    commands: Commands<A>,
    thread: Option<JoinHandle<()>>,
}

impl<A: Actor> Worker<A> {
    /// Starts a thread of this name.
    ///
    /// # Errors
    /// What the system refused: a thread or its poll.
    pub fn spawn(name: &str, io: IoKind, pool: Pool) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let alarm = Alarm::new(poll.registry(), ALARM, io == IoKind::Best)?;
        let (sender, inbox) = sync_channel(COMMANDS_MAX);
        let commands = Commands { sender, waker };
        let back = commands.clone();
        let deliver: Deliver = Arc::new(move |parcels| {
            back.try_send(Command::Call(Box::new(move |state| {
                for Parcel { actor, socket, done } in parcels {
                    state.visit(actor, |actor: &mut A, cx| actor.handle_done(cx, socket, done));
                }
            })))
        });
        let background = Background::new(name, deliver);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let again = BTreeSet::new();
            let (actors, timers) = (Vec::new(), BTreeSet::new());
            let state =
                State { actors, timers, io: Io::new(io), ahead: Ahead::default(), pool, poll, again, background };
            state.run(alarm, &inbox);
        })?;
        Ok(Self { commands, thread: Some(thread) })
    }

    /// A handle to reach the worker's actors.
    #[must_use]
    pub fn commands(&self) -> Commands<A> {
        self.commands.clone()
    }
}

impl<A> Drop for Worker<A> {
    fn drop(&mut self) {
        self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _its_panic_was_printed = thread.join();
        }
    }
}

/// Reaches the actors of one worker from other threads.
pub struct Commands<A> {
    sender: SyncSender<Command<A>>,
    waker: Arc<Waker>,
}

impl<A: Actor> Commands<A> {
    /// Moves an actor to the worker and returns its key.
    ///
    /// # Errors
    /// If the worker has ended.
    pub fn insert(&self, actor: A) -> Result<ActorKey, RecvError> {
        self.call(move |state| ActorKey(state.insert(actor)))
    }

    /// Runs `visit` on the actor and returns its answer; `None` if there is no such actor.
    ///
    /// # Errors
    /// If the worker has ended.
    pub fn visit<R: Send + 'static>(
        &self,
        key: ActorKey,
        visit: impl FnOnce(&mut A, &mut Context<'_>) -> R + Send + 'static,
    ) -> Result<Option<R>, RecvError> {
        self.call(move |state| state.visit(key.0, visit))
    }

    /// Closes the actor and takes it off the worker.
    ///
    /// # Errors
    /// If the worker has ended.
    pub fn remove(&self, key: ActorKey) -> Result<Option<A>, RecvError> {
        self.call(move |state| {
            state.visit(key.0, A::close);
            state.actors.get_mut(key.0)?.take().map(|seat| seat.actor)
        })
    }

    fn call<R: Send + 'static>(&self, call: impl FnOnce(&mut State<A>) -> R + Send + 'static) -> Result<R, RecvError> {
        let (reply, answer) = sync_channel(1);
        self.send(Command::Call(Box::new(move |state| {
            // Whoever asked may have given up.
            let _ = reply.send(call(state));
        })));
        answer.recv()
    }
}

impl<A> Commands<A> {
    /// Drops the command if too many wait, or the worker has ended: false then.
    fn try_send(&self, command: Command<A>) -> bool {
        let is_sent = self.sender.try_send(command).is_ok();
        if is_sent {
            let _ = self.waker.wake();
        }
        is_sent
    }

    fn send(&self, command: Command<A>) {
        if self.sender.send(command).is_ok() {
            // Fails only when the poll is gone, and then the command's answer says so.
            let _ = self.waker.wake();
        }
    }
}

impl<A> Clone for Commands<A> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<A> fmt::Debug for Commands<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commands")
    }
}

/// Names an actor on its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActorKey(usize);

enum Command<A> {
    Call(Call<A>),
    Stop,
}

type Call<A> = Box<dyn FnOnce(&mut State<A>) + Send>;

/// What the thread owns.
struct State<A> {
    actors: Vec<Option<Seat<A>>>,
    /// Deadlines and whose they are. A seat's entry may be early, never late.
    timers: BTreeSet<(Time, usize)>,
    io: Io,
    /// What byte streams are read into.
    ahead: Ahead,
    pool: Pool,
    poll: Poll,
    /// Sockets that were ready and not read empty.
    again: BTreeSet<(usize, SocketKey)>,
    background: Background,
}

struct Seat<A> {
    actor: A,
    /// The actor's entry in the timers.
    timer: Option<Time>,
}

impl<A: Actor> State<A> {
    fn run(mut self, mut alarm: Alarm, inbox: &Receiver<Command<A>>) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            let next = self.timers.first().map(|timer| timer.0);
            let mut timeout = alarm.arm(clock::now(), next);
            if !self.again.is_empty() {
                timeout = Some(std::time::Duration::ZERO);
            }
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "worker cannot wait for events");
                return;
            }
            for (actor, socket) in std::mem::take(&mut self.again) {
                self.visit(actor, |actor, cx| actor.handle_ready(cx, socket, Ready::default()));
            }
            for event in &events {
                if let Some((actor, socket)) = target(event.token()) {
                    self.visit(actor, |actor, cx| actor.handle_ready(cx, socket, Ready::of(event)));
                }
            }
            self.fire_timers();
            if events.iter().any(|event| event.token() == WAKER) && self.obey(inbox) == Obeyed::Stop {
                return;
            }
        }
    }

    fn obey(&mut self, inbox: &Receiver<Command<A>>) -> Obeyed {
        while let Ok(command) = inbox.try_recv() {
            match command {
                Command::Call(call) => call(self),
                Command::Stop => return Obeyed::Stop,
            }
        }
        Obeyed::All
    }

    fn fire_timers(&mut self) {
        let now = clock::now();
        // Each due timer once: an actor that is late for good shall not keep the others waiting.
        for _ in 0..self.timers.len() {
            let Some((deadline, key)) = self.timers.first().copied().filter(|timer| timer.0 <= now) else {
                return;
            };
            self.timers.remove(&(deadline, key));
            if let Some(Some(seat)) = self.actors.get_mut(key) {
                seat.timer = None;
                // The entry may be early: the actor has been busy since, and has moved its deadline.
                let due = seat.actor.poll_timeout().is_some_and(|wanted| wanted <= now);
                self.visit(key, |actor, cx| {
                    if due {
                        actor.handle_timeout(cx);
                    }
                });
            }
        }
    }

    /// Runs `visit` on an actor, then brings its timer up to date.
    fn visit<R>(&mut self, key: usize, visit: impl FnOnce(&mut A, &mut Context<'_>) -> R) -> Option<R> {
        let seat = self.actors.get_mut(key)?.as_mut()?;
        let mut cx = Context {
            now: clock::now(),
            pool: &self.pool,
            io: &mut self.io,
            ahead: &mut self.ahead,
            registry: self.poll.registry(),
            actor: key,
            again: &mut self.again,
            background: &mut self.background,
        };
        // A fault in one actor costs that actor: nothing of it is used again.
        let Ok(result) = catch_unwind(AssertUnwindSafe(|| visit(&mut seat.actor, &mut cx))) else {
            let seat = self.actors[key].take();
            let _its_panic_was_printed = catch_unwind(AssertUnwindSafe(|| {
                seat.as_ref().inspect(|seat| seat.actor.crashed());
                drop(seat);
            }));
            return None;
        };
        if let Some(wanted) = seat.actor.poll_timeout()
            && seat.timer.is_none_or(|timer| wanted < timer)
        {
            if let Some(timer) = seat.timer.replace(wanted) {
                self.timers.remove(&(timer, key));
            }
            self.timers.insert((wanted, key));
        }
        Some(result)
    }

    fn insert(&mut self, actor: A) -> usize {
        let seat = Some(Seat { actor, timer: None });
        if let Some(free) = self.actors.iter().position(Option::is_none) {
            self.actors[free] = seat;
            return free;
        }
        self.actors.push(seat);
        self.actors.len() - 1
    }
}

#[derive(PartialEq, Eq)]
enum Obeyed {
    All,
    Stop,
}

fn token(actor: usize, socket: SocketKey) -> Token {
    Token((actor << 16) | usize::from(socket.0))
}

fn target(token: Token) -> Option<(usize, SocketKey)> {
    (token != WAKER && token != ALARM).then_some((token.0 >> 16, SocketKey(token.0 as u16)))
}

const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
/// Commands that may wait; a sender then waits too, which only ever is the supervisor.
const COMMANDS_MAX: usize = 256;
/// Events per poll. More come with the next one.
const EVENTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;
    use crate::bus::PoolLimits;

    struct Fragile {
        crashes: Sender<()>,
    }

    impl Actor for Fragile {
        fn handle_ready(&mut self, _cx: &mut Context<'_>, _socket: SocketKey, _ready: Ready) {}

        fn handle_timeout(&mut self, _cx: &mut Context<'_>) {}

        fn handle_done(&mut self, _cx: &mut Context<'_>, _socket: SocketKey, _done: Done) {}

        fn poll_timeout(&self) -> Option<Time> {
            None
        }

        fn close(&mut self, _cx: &mut Context<'_>) {}

        fn crashed(&self) {
            self.crashes.send(()).unwrap();
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "one crash is told at most")]
    fn a_panic_costs_one_actor_and_not_its_neighbours() {
        let worker = Worker::spawn("worker-test", IoKind::Best, Pool::new(PoolLimits::default())).unwrap();
        let (crashes, told) = std::sync::mpsc::channel();
        let commands = worker.commands();
        let first = commands.insert(Fragile { crashes: crashes.clone() }).unwrap();
        let second = commands.insert(Fragile { crashes }).unwrap();
        let result: Result<Option<()>, _> = commands.visit(first, |_actor, _cx| unreachable!("a fault on purpose"));
        assert_eq!(result, Ok(None));
        assert_eq!(told.recv(), Ok(()));
        assert_eq!(commands.visit(first, |_actor, _cx| ()), Ok(None));
        assert_eq!(commands.visit(second, |_actor, _cx| 7), Ok(Some(7)));
    }

    #[test]
    fn a_worker_for_which_too_much_waits_takes_nothing_more() {
        let (sender, inbox) = sync_channel::<Command<Fragile>>(1);
        let poll = Poll::new().unwrap();
        let commands = Commands { sender, waker: Arc::new(Waker::new(poll.registry(), WAKER).unwrap()) };
        assert!(commands.try_send(Command::Stop));
        assert!(!commands.try_send(Command::Stop), "it is full");
        drop(inbox);
        assert!(!commands.try_send(Command::Stop), "it has ended");
    }
}
