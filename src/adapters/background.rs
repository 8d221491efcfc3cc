//! A thread beside each worker, for work that would hold up the packets.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::worker::SocketKey;
use crate::proto::{Done, Work};

/// Brings all of it to those that it is for, at once; false if too much waits there.
pub(super) type Deliver = Arc<dyn Fn(Vec<Parcel>) -> bool + Send + Sync>;

/// What was done, and the actor and the socket that it is for.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) actor: usize,
    pub(super) socket: SocketKey,
    pub(super) done: Done,
}

/// The thread, once there was something to do; it ends with the worker.
pub(super) struct Background {
    name: String,
    deliver: Deliver,
    jobs: Option<SyncSender<Job>>,
}

/// Reaches a socket of an actor from anywhere.
#[derive(Clone)]
pub(super) struct Remote {
    deliver: Deliver,
    actor: usize,
    socket: SocketKey,
}

impl Remote {
    /// Hands `done` to the actor, if it is still there; false if too much waits for its worker.
    pub(super) fn deliver(&self, done: Done) -> bool {
        (self.deliver)(vec![self.parcel(done)])
    }

    /// Hands one to each of `remotes`, all of a worker together, so that many take no more room there than one; what there is
    /// too much of is left out.
    pub(super) fn deliver_to_all(remotes: impl Iterator<Item = Self>, done: impl Fn() -> Done) {
        let mut workers: Vec<(Deliver, Vec<Parcel>)> = Vec::new();
        for remote in remotes {
            let parcel = remote.parcel(done());
            match workers.iter_mut().find(|(deliver, _)| Arc::ptr_eq(deliver, &remote.deliver)) {
                Some((_, parcels)) => parcels.push(parcel),
                None => workers.push((remote.deliver, vec![parcel])),
            }
        }
        for (deliver, parcels) in workers {
            deliver(parcels);
        }
    }

    const fn parcel(&self, done: Done) -> Parcel {
        Parcel { actor: self.actor, socket: self.socket, done }
    }

    /// Whether both reach the same one, on whichever of its sockets.
    pub(super) fn is_of_same_actor(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.deliver, &other.deliver) && self.actor == other.actor
    }
}

struct Job {
    actor: usize,
    socket: SocketKey,
    work: Work,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actor, socket, .. } = self;
        f.debug_struct("Remote").field("actor", actor).field("socket", socket).finish_non_exhaustive()
    }
}

impl Background {
    pub(super) fn new(worker: &str, deliver: Deliver) -> Self {
        Self { name: format!("{worker}-work"), deliver, jobs: None }
    }

    /// Has it done. Of more than [`JOBS_MAX`] that wait the newest are dropped: whoever asks for such work asks again.
    pub(super) fn take(&mut self, actor: usize, socket: SocketKey, work: Work) {
        if self.jobs.is_none() {
            self.jobs = self.start();
        }
        if let Some(jobs) = &self.jobs {
            let _ = jobs.try_send(Job { actor, socket, work });
        }
    }

    /// Reaches a socket of an actor from anywhere.
    pub(super) fn remote(&self, actor: usize, socket: SocketKey) -> Remote {
        Remote { deliver: Arc::clone(&self.deliver), actor, socket }
    }

    fn start(&self) -> Option<SyncSender<Job>> {
        let (jobs, inbox) = sync_channel(JOBS_MAX);
        let deliver = Arc::clone(&self.deliver);
        let thread = std::thread::Builder::new().name(self.name.clone());
        thread.spawn(move || run(&inbox, &deliver)).ok().map(|_ends_with_the_sender| jobs)
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("name", &self.name).finish_non_exhaustive()
    }
}

fn run(inbox: &Receiver<Job>, deliver: &Deliver) {
    while let Ok(Job { actor, socket, work }) = inbox.recv() {
        // Whoever asks for such work asks again.
        deliver(vec![Parcel { actor, socket, done: work.run() }]);
    }
}

/// Half a millisecond each: more would keep the last one waiting for longer than he waits.
const JOBS_MAX: usize = 256;
