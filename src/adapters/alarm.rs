//! Wakes a worker at a moment, to the microsecond where the system can.
//!
//! `epoll_wait` counts in milliseconds, which is too coarse to pace packets, so on Linux a `timerfd` is one more source of
//! readiness. Elsewhere the poll's own timeout has to do.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

use crate::units::Time;

/// The next moment a worker wants to be woken at.
#[derive(Debug)]
pub(super) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<linux::TimerFd>,
    armed: Option<Time>,
}

impl Alarm {
    /// `precise` asks for the system's best, otherwise the poll timeout is used.
    pub(super) fn new(registry: &Registry, token: Token, precise: bool) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        let timer = if precise { Some(linux::TimerFd::new(registry, token)?) } else { None };
        #[cfg(not(target_os = "linux"))]
        let _ = (registry, token, precise);
        Ok(Self {
            #[cfg(target_os = "linux")]
            timer,
            armed: None,
        })
    }

    /// Sets the alarm, and says which timeout the coming poll shall have.
    pub(super) fn arm(&mut self, now: Time, deadline: Option<Time>) -> Option<Duration> {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &self.timer {
            let spent = self.armed.is_some_and(|armed| armed <= now);
            if self.armed != deadline || spent {
                // At least one nanosecond: zero would switch the timer off.
                let wait = deadline.map(|deadline| deadline.since(now).max(Duration::from_nanos(1)));
                timer.set(wait.unwrap_or(Duration::ZERO));
                self.armed = deadline;
            }
            return None;
        }
        self.armed = deadline;
        deadline.map(|deadline| deadline.since(now))
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no crate in the tree wraps timerfd")]
mod linux {
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::ptr;
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};

    #[derive(Debug)]
    pub(super) struct TimerFd(OwnedFd);

    impl TimerFd {
        pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
            // SAFETY: takes no memory; the result is checked before it is owned.
            let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: a fresh descriptor that nobody else owns.
            let timer = Self(unsafe { OwnedFd::from_raw_fd(fd) });
            // Edge triggered: setting the timer anew clears what has expired, so it is never read.
            registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
            Ok(timer)
        }

        /// Expires once after `wait`; zero switches it off.
        pub(super) fn set(&self, wait: Duration) {
            let value = libc::timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() };
            let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let spec = libc::itimerspec { it_interval: never, it_value: value };
            // SAFETY: `spec` outlives the call. It cannot fail with a valid descriptor and a normalised time.
            unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &raw const spec, ptr::null_mut()) };
        }
    }
}
