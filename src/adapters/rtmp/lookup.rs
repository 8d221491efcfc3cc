//! Looks a name up once more before a server is called again, on a thread that may wait for the answer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::adapters::background::Remote;
use crate::adapters::host::Host;
use crate::proto::Done;

/// Whoever asked may be gone, and another be in his place.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// What was looked up.
    pub(super) name: String,
    /// Its address, if it has one.
    pub(super) ip: Option<IpAddr>,
}

/// Brings [`Answer`] to whoever asks; false if too many names are being looked up.
pub(super) fn start(name: &str, remote: Remote) -> bool {
    let Some(slot) = Slot::take() else { return false };
    let (host, name) = (Host::Name(name.into()), name.to_owned());
    let spawned = std::thread::Builder::new().name("rtmp-lookup".into()).spawn(move || {
        let answer = Answer { name, ip: host.resolve().ok() };
        drop(slot);
        remote.deliver(Done { id: 0, result: Box::new(answer) });
    });
    spawned.is_ok()
}

/// One of [`THREADS_MAX`] threads.
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let taken = UNDER_WAY
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < THREADS_MAX).then_some(count + 1));
        taken.is_ok().then_some(Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Of the whole process, as threads are.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
/// Judgement: with a name server that does not answer, more would only wait; who gets none calls the address that he has.
const THREADS_MAX: usize = 16;
/// After that the old address is called. As long as the system's resolver waits for its first name server.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
