//! The few system calls the standard library does not offer: batches of datagrams, clocks, pinning. All `unsafe` is here.
#![allow(unsafe_code, reason = "recvmmsg, sendmmsg, process clocks and scheduling exist only as C calls")]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;
use std::time::Duration;

/// What every socket of the benchmark asks for; the kernel caps it at `net.core.rmem_max`.
pub(crate) const SOCKET_BUFFER_BYTES: i32 = 4 << 20;

/// Wall clock: the feed writes it, and the kernel stamps received datagrams with the same clock.
pub(crate) fn wall_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME).unwrap_or(0)
}

/// Monotonic clock, used for pacing and spans.
pub(crate) fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// CPU time of a whole process, living and ended threads, in nanoseconds: `/proc/PID/stat` counts the same in steps of 10 ms.
pub(crate) fn cpu_ns(pid: u32) -> Option<u64> {
    let pid = libc::clockid_t::try_from(pid).ok()?;
    // The kernel's own encoding (posix-timers.h): inverted pid, then CPUCLOCK_SCHED for all threads.
    clock_ns((!pid << 3) | 2)
}

/// What one of the system's clocks shows.
pub(crate) fn clock_ns(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec through a valid pointer; a wrong clock is answered with an error.
    let answer = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (answer == 0).then(|| timespec_ns(time))
}

fn timespec_ns(time: libc::timespec) -> u64 {
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Sleeps until an absolute moment of [`monotonic_ns`], so that being late once does not shift what follows.
pub(crate) fn sleep_until(monotonic_ns: u64) {
    let time = libc::timespec {
        tv_sec: (monotonic_ns / 1_000_000_000).cast_signed(),
        tv_nsec: (monotonic_ns % 1_000_000_000).cast_signed(),
    };
    loop {
        // SAFETY: the request is a valid timespec and nothing is written back for an absolute sleep.
        let answer = unsafe {
            libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const time, ptr::null_mut())
        };
        if answer != libc::EINTR {
            return;
        }
    }
}

pub(crate) fn sleep(span: Duration) {
    sleep_until(monotonic_ns() + u64::try_from(span.as_nanos()).unwrap_or(0));
}

/// Makes the calling thread exact: no timer slack, and real-time priority where permitted. True if both were granted.
pub(crate) fn become_punctual() -> bool {
    let priority = libc::sched_param { sched_priority: 10 };
    // SAFETY: both calls only change the calling thread, and `priority` is a valid struct.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1) == 0
            && libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) == 0
    }
}

/// Starts a child that runs on one CPU only (if given) and is killed by the kernel when the thread that started it ends.
pub(crate) fn spawn(command: &mut Command, cpu: Option<usize>) -> io::Result<Child> {
    // SAFETY: between fork and exec only async-signal-safe calls are made, on values copied before the fork.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let Some(cpu) = cpu else { return Ok(()) };
            let mut set: libc::cpu_set_t = mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Waits until standard input has something to say or the span is over.
pub(crate) fn stdin_ready(span: Duration) -> bool {
    let mut entry = libc::pollfd { fd: libc::STDIN_FILENO, events: libc::POLLIN, revents: 0 };
    let span_ms = i32::try_from(span.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one valid entry is passed with its count.
    let ready = unsafe { libc::poll(&raw mut entry, 1, span_ms) };
    ready > 0
}

/// Waits until one of the sockets or standard input can be read, or the span is over.
pub(crate) struct Waiter {
    entries: Vec<libc::epoll_event>,
    epoll: i32,
}

impl Waiter {
    pub(crate) fn new(sockets: &[UdpSocket]) -> io::Result<Self> {
        // SAFETY: plain system call; the descriptor lives as long as the process.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        let events = libc::EPOLLIN.cast_unsigned();
        for fd in sockets.iter().map(AsRawFd::as_raw_fd).chain([libc::STDIN_FILENO]) {
            let mut event = libc::epoll_event { events, u64: u64::MAX };
            // SAFETY: `event` is valid for the call, which copies it.
            if unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { entries: vec![libc::epoll_event { events: 0, u64: 0 }; 64], epoll })
    }

    pub(crate) fn wait(&mut self, span: Duration) {
        let count = i32::try_from(self.entries.len()).unwrap_or(1);
        let span_ms = i32::try_from(span.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most `count` entries into a vector of that length.
        unsafe { libc::epoll_wait(self.epoll, self.entries.as_mut_ptr(), count, span_ms) };
    }
}

/// Options of a receiving socket.
pub(crate) fn ask_large_receive_buffer(socket: &UdpSocket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, SOCKET_BUFFER_BYTES)
}

pub(crate) fn ask_large_send_buffer(socket: &UdpSocket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, SOCKET_BUFFER_BYTES)
}

/// Receive stamps and drop counts from the kernel, and whole GSO trains if wanted.
pub(crate) fn ask_receive_details(socket: &UdpSocket, gro: bool) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, i32::from(gro))
}

fn set_option(socket: &UdpSocket, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the value is an int that lives through the call, and its length is given.
    let answer = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel said about one received message.
#[derive(Clone, Copy, Default)]
pub(crate) struct Details {
    /// Wall-clock moment of arrival.
    pub(crate) stamp_ns: u64,
    /// Length of each datagram when the message is a train of several.
    pub(crate) segment_bytes: Option<usize>,
    /// Datagrams this socket has dropped for lack of buffer since it was opened.
    pub(crate) drops: Option<u32>,
}

/// Buffers for one `recvmmsg`.
pub(crate) struct Batch {
    data: Vec<u8>,
    slot_bytes: usize,
    control: Vec<[u64; CONTROL_WORDS]>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

/// Room for a timestamp, a drop count and a segment size.
const CONTROL_WORDS: usize = 16;

impl Batch {
    pub(crate) fn new(slots: usize, slot_bytes: usize) -> Self {
        let mut data = vec![0; slots * slot_bytes];
        let base = data.as_mut_ptr();
        let vectors = (0..slots)
            .map(|slot| libc::iovec { iov_base: base.wrapping_add(slot * slot_bytes).cast(), iov_len: slot_bytes })
            .collect();
        Self { data, slot_bytes, control: vec![[0; CONTROL_WORDS]; slots], vectors, headers: vec![no_header(); slots] }
    }

    pub(crate) fn slots(&self) -> usize {
        self.vectors.len()
    }

    /// Fills slots from `first` on. With `block` it waits for the first datagram and takes what else is there; without, it
    /// takes what is there, which may be nothing.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, first: usize, block: bool) -> usize {
        let free = first..self.slots();
        for slot in free.clone() {
            let header = &mut self.headers[slot];
            header.msg_hdr.msg_iov = &raw mut self.vectors[slot];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.control[slot].as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<[u64; CONTROL_WORDS]>();
        }
        let flags = if block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        let count = u32::try_from(free.len()).unwrap_or(0);
        // SAFETY: `count` headers from `first` on each point at one iovec over an own slot of `data` and an own control
        // array; all vectors keep their length for the life of `self`, so no pointer dangles.
        let answer = unsafe {
            let headers = self.headers.as_mut_ptr().add(first);
            libc::recvmmsg(socket.as_raw_fd(), headers, count, flags, ptr::null_mut())
        };
        usize::try_from(answer).unwrap_or(0)
    }

    pub(crate) fn bytes(&self, slot: usize) -> &[u8] {
        let start = slot * self.slot_bytes;
        &self.data[start..start + self.length(slot)]
    }

    fn length(&self, slot: usize) -> usize {
        usize::try_from(self.headers[slot].msg_len).unwrap_or(0).min(self.slot_bytes)
    }

    pub(crate) fn details(&self, slot: usize) -> Details {
        let mut details = Details::default();
        let header = &raw const self.headers[slot].msg_hdr;
        // SAFETY: the header was filled by `recvmmsg` over a control array owned by `self`; the CMSG functions stay inside
        // the length the kernel wrote, and the values are read unaligned with the type the kernel documents for each.
        unsafe {
            let mut control = libc::CMSG_FIRSTHDR(header);
            while !control.is_null() {
                let data = libc::CMSG_DATA(control);
                match ((*control).cmsg_level, (*control).cmsg_type) {
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        details.stamp_ns = timespec_ns(data.cast::<libc::timespec>().read_unaligned());
                    }
                    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => details.drops = Some(data.cast::<u32>().read_unaligned()),
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        details.segment_bytes = usize::try_from(data.cast::<i32>().read_unaligned()).ok();
                    }
                    _ => {}
                }
                control = libc::CMSG_NXTHDR(header, control);
            }
        }
        details
    }
}

/// Sends the datagrams of a batch to all destinations straight from the buffers they were received in.
pub(crate) struct FanOut {
    /// Owned, because the headers point into it.
    pub(crate) batch: Batch,
    addresses: Vec<libc::sockaddr_in>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    control: Vec<u64>,
}

/// `UIO_MAXIOV`: the kernel takes no more messages in one call.
const MESSAGES_MAX: usize = 1024;

impl FanOut {
    pub(crate) fn new(batch: Batch, destinations: &[SocketAddrV4]) -> Self {
        let addresses = destinations.iter().copied().map(address).collect();
        let vectors = batch.vectors.clone();
        let headers = vec![no_header(); batch.slots() * destinations.len()];
        let mut fan_out = Self { batch, addresses, vectors, headers, control: Vec::new() };
        fan_out.point_each_at_one();
        fan_out
    }

    /// One message per datagram and destination: the first datagram to everybody, then the second.
    fn point_each_at_one(&mut self) {
        let width = self.addresses.len();
        for (index, header) in self.headers.iter_mut().enumerate() {
            header.msg_hdr.msg_name = (&raw mut self.addresses[index % width]).cast();
            header.msg_hdr.msg_namelen = NAME_BYTES;
            header.msg_hdr.msg_iov = &raw mut self.vectors[index / width];
            header.msg_hdr.msg_iovlen = 1;
        }
    }

    pub(crate) fn send_each(&mut self, socket: &UdpSocket, count: usize) {
        self.note_lengths(count);
        self.send(socket, count * self.addresses.len());
    }

    /// One message per destination: all datagrams as one train that the kernel cuts again (`UDP_SEGMENT`).
    pub(crate) fn send_trains(&mut self, socket: &UdpSocket, count: usize) {
        self.note_lengths(count);
        self.control = segment_control(self.batch.length(0));
        for (index, header) in self.headers.iter_mut().take(self.addresses.len()).enumerate() {
            header.msg_hdr.msg_name = (&raw mut self.addresses[index]).cast();
            header.msg_hdr.msg_iov = self.vectors.as_mut_ptr();
            header.msg_hdr.msg_iovlen = count;
            header.msg_hdr.msg_control = self.control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<u64>() * self.control.len();
        }
        self.send(socket, self.addresses.len());
    }

    fn note_lengths(&mut self, count: usize) {
        for slot in 0..count {
            self.vectors[slot].iov_len = self.batch.length(slot);
        }
    }

    fn send(&mut self, socket: &UdpSocket, count: usize) {
        let mut done = 0;
        while done < count {
            let wanted = u32::try_from((count - done).min(MESSAGES_MAX)).unwrap_or(1);
            // SAFETY: every header points at an address, iovecs, buffers and control data owned by `self`, none of
            // which is resized while the call runs.
            let answer = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr().add(done), wanted, 0) };
            // A refused message is skipped: it shows as loss at the sink.
            done += usize::try_from(answer).unwrap_or(1).max(1);
        }
    }
}

const NAME_BYTES: libc::socklen_t = 16;

fn address(from: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(2),
        sin_port: from.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(from.ip().octets()) },
        sin_zero: [0; 8],
    }
}

/// A control message as `CMSG_SPACE(2)` lays it out on 64-bit Linux: length, level and type, then the value.
fn segment_control(bytes: usize) -> Vec<u64> {
    let mut control = vec![0_u64; 3];
    let message = control.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: three aligned words hold a cmsghdr (16 bytes) and a u16 behind it.
    unsafe {
        (*message).cmsg_len = libc::CMSG_LEN(2) as usize;
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        libc::CMSG_DATA(message).cast::<u16>().write_unaligned(u16::try_from(bytes).unwrap_or(u16::MAX));
    }
    control
}

fn no_header() -> libc::mmsghdr {
    // SAFETY: all-zero bytes are a valid mmsghdr: null pointers with zero lengths.
    unsafe { mem::zeroed() }
}

pub(crate) fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}
