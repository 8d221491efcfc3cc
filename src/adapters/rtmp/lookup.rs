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

/// The address that was called last, if there was one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called {
    pub(super) ip: Option<IpAddr>,
    /// Something came of it.
    pub(super) has_worked: bool,
}

/// Brings [`Answer`] to whoever asks; false if too many names are being looked up.
pub(super) fn start(name: &str, called: Called, remote: Remote) -> bool {
    let Some(slot) = Slot::take() else { return false };
    let (host, name) = (Host::Name(name.into()), name.to_owned());
    let spawned = std::thread::Builder::new().name("rtmp-lookup".into()).spawn(move || {
        let ip = host.addresses().ok().and_then(|all| choose(&all, called));
        let answer = Answer { name, ip };
        drop(slot);
        remote.deliver(Done { id: 0, result: Box::new(answer) });
    });
    spawned.is_ok()
}

/// Of the addresses of a name those that lead nowhere are passed over, one after the other: a server may have one of IPv6
/// where nothing of that gets through.
fn choose(all: &[IpAddr], Called { ip, has_worked }: Called) -> Option<IpAddr> {
    let at = all.iter().position(|one| Some(*one) == ip);
    let next = at.map_or(0, |at| at + usize::from(!has_worked));
    all.get(next).or_else(|| all.first()).copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lead_nowhere_take_turns() {
        let [a, b, c] = [1, 2, 3].map(|host| IpAddr::from([192, 0, 2, host]));
        let after = |ip, has_worked, all: &[IpAddr]| choose(all, Called { ip: Some(ip), has_worked });
        assert_eq!([a, b, c].map(|ip| after(ip, false, &[a, b, c])), [Some(b), Some(c), Some(a)]);
        assert_eq!(after(b, true, &[a, b, c]), Some(b), "who was there is called first");
        assert_eq!((after(c, true, &[a, b]), after(a, false, &[a]), after(a, false, &[])), (Some(a), Some(a), None));
    }
}
