//! `PidSet`: a set of PIDs, a bit for each.

use super::packet::Pid;

/// Any of the 8,192 PIDs; a KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PidSet(Box<[u64; 128]>);

impl Default for PidSet {
    fn default() -> Self {
        Self(Box::new([0; 128]))
    }
}

impl PidSet {
    pub(super) fn has(&self, pid: Pid) -> bool {
        self.0[usize::from(pid.value() >> 6)] >> (pid.value() & 63) & 1 != 0
    }

    /// True if it was not there.
    pub(super) fn insert(&mut self, pid: Pid) -> bool {
        let is_new = !self.has(pid);
        self.0[usize::from(pid.value() >> 6)] |= 1 << (pid.value() & 63);
        is_new
    }

    /// True if it was there.
    pub(super) fn remove(&mut self, pid: Pid) -> bool {
        let was = self.has(pid);
        self.0[usize::from(pid.value() >> 6)] &= !(1 << (pid.value() & 63));
        was
    }
}
