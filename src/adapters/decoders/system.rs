//! What decoding needs from the system: low priority, clocks of computing time, and a process that can do nothing else.

pub(super) use imp::*;
pub(in crate::adapters) use imp::{cpu_time, lower_priority};

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "system calls that no crate wraps")]
mod imp {
    use std::io;
    use std::time::Duration;

    /// Computing time that this thread has taken so far.
    pub(in crate::adapters) fn cpu_time() -> Duration {
        read_clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
    }

    /// The clock of this thread's computing time, to be read by others.
    pub(in crate::adapters::decoders) fn thread_clock() -> Option<libc::clockid_t> {
        let mut clock = 0;
        // SAFETY: the thread asks for itself, so it is there; `clock` outlives the call.
        let result = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        (result == 0).then_some(clock)
    }

    /// The clock of a process.
    pub(in crate::adapters::decoders) fn process_clock(pid: u32) -> Option<libc::clockid_t> {
        // As the C library makes it (CPUCLOCK_SCHED of a process, linux/posix-timers.h).
        let pid = i32::try_from(pid).ok()?;
        Some((!pid << 3) | 2)
    }

    /// What a clock shows; `None` once its owner is gone.
    pub(in crate::adapters::decoders) fn read_clock(clock: libc::clockid_t) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` outlives the call; a clock that is none makes it fail.
        let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
        (result == 0).then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
    }

    /// Whether the process runs or waits only for its turn; also if nobody knows (proc(5), the third field of `stat`).
    pub(in crate::adapters::decoders) fn is_runnable(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let state = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
        state.is_none_or(|state| state == 'R')
    }

    /// This thread runs when little else wants to; `only_idle`: when nothing else does.
    pub(in crate::adapters) fn lower_priority(only_idle: bool) {
        let policy = if only_idle { libc::SCHED_IDLE } else { libc::SCHED_BATCH };
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: plain values; 0 means this thread. Where it is not allowed the priority stays as it is.
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, NICEST);
            libc::sched_setscheduler(0, policy, &raw const parameters);
        }
    }

    /// Ends the process together with whoever started it, forbids it new files, dumps and privileges, and bounds its memory.
    pub(in crate::adapters::decoders) fn confine() -> io::Result<()> {
        let limits = [(libc::RLIMIT_AS, MEMORY_BYTES_MAX), (libc::RLIMIT_NOFILE, 0), (libc::RLIMIT_CORE, 0)];
        for (resource, max) in limits {
            let limit = libc::rlimit { rlim_cur: max, rlim_max: max };
            // SAFETY: `limit` outlives the call.
            check(unsafe { libc::setrlimit(resource, &raw const limit) })?;
        }
        // SAFETY: these take plain numbers.
        unsafe {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0))?;
            check(libc::prctl(libc::PR_SET_DUMPABLE, 0 as libc::c_ulong, 0, 0, 0))?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0))?;
        }
        Ok(())
    }

    /// From here on the process can do no more than read, write, take memory, and end (seccomp, linux/seccomp.h). Any
    /// other system call kills it.
    pub(in crate::adapters::decoders) fn filter_system_calls() -> io::Result<()> {
        if ARCHITECTURE == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let filter = filter();
        let program = libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program is copied by the kernel during the call, which `filter` outlives.
        check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, FILTER_MODE, &raw const program, 0, 0) })
    }

    fn filter() -> Vec<libc::sock_filter> {
        let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
        let jump = |code: u32, k: u32, jt: usize, jf: usize| libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_K | code) as u16,
            jt: jt as u8,
            jf: jf as u8,
            k,
        };
        let load = |at: usize| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at as u32);
        let mut filter = vec![
            load(std::mem::offset_of!(libc::seccomp_data, arch)),
            jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
            load(std::mem::offset_of!(libc::seccomp_data, nr)),
        ];
        // Behind the list stand the two answers, and then a look at the protection that memory is asked with.
        let listed = ALLOWED.len();
        filter.push(jump(libc::BPF_JEQ, libc::SYS_mmap as u32, listed + 3, 0));
        filter.push(jump(libc::BPF_JEQ, libc::SYS_mprotect as u32, listed + 2, 0));
        for (at, call) in ALLOWED.iter().enumerate() {
            filter.push(jump(libc::BPF_JEQ, *call as u32, listed - at, 0));
        }
        filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS));
        filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
        let protection = std::mem::offset_of!(libc::seccomp_data, args) + 2 * size_of::<u64>();
        filter.push(load(protection));
        filter.push(jump(libc::BPF_JSET, libc::PROT_EXEC as u32, 0, 1));
        filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS));
        filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
        filter
    }

    fn check(result: libc::c_int) -> io::Result<()> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    const NICEST: libc::c_int = 19;
    /// Four times what is kept of pictures, and what the largest picture takes to be decoded.
    const MEMORY_BYTES_MAX: u64 = 1 << 30;
    const FILTER_MODE: libc::c_ulong = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
    /// AUDIT_ARCH_* of linux/audit.h: the machine's ELF number, 64 bits, little-endian.
    #[cfg(target_arch = "x86_64")]
    const ARCHITECTURE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const ARCHITECTURE: u32 = 0xc000_00b7;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    const ARCHITECTURE: u32 = 0;
    /// Messages, memory, time, random numbers for hash maps, the end.
    const ALLOWED: [libc::c_long; 16] = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_sched_yield,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
}

/// Elsewhere there is one priority, and no process apart.
#[cfg(not(target_os = "linux"))]
mod imp {
    use std::time::Duration;

    use crate::adapters::clock;
    use crate::units::Time;

    /// Time that has passed: an upper bound.
    pub(in crate::adapters) fn cpu_time() -> Duration {
        clock::now().since(Time::ZERO)
    }

    pub(in crate::adapters) const fn lower_priority(_only_idle: bool) {}

    pub(in crate::adapters::decoders) const fn thread_clock() -> Option<i32> {
        None
    }

    pub(in crate::adapters::decoders) const fn read_clock(_clock: i32) -> Option<Duration> {
        None
    }
}
