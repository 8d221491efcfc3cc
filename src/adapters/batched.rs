//! Linux' way: `recvmmsg` with coalesced receive, `sendmmsg` with segmentation offload, no copy on the usual path.
//!
//! Each receive slot names two pieces of memory: a pooled buffer that any ordinary datagram fits, and behind it an
//! overflow area. Only what the kernel coalesced (`UDP_GRO`), or a datagram longer than an Ethernet's, reaches the
//! overflow and is copied into buffers of its own.

#![allow(unsafe_code, reason = "the system calls take raw message headers")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_int, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_storage, socklen_t};

use super::clock;
use super::io::{Received, Sent};
use super::socket::UdpSocket;
use crate::bus::{Buffer, Meta, Packet, Pool};
use crate::proto::Transmit;
use crate::units::Time;

pub(super) struct Batched {
    receive: Box<[ReceiveSlot; RECEIVE_SLOTS]>,
    headers: Vec<mmsghdr>,
    iovecs: Vec<iovec>,
    names: Vec<sockaddr_storage>,
    controls: Vec<SegmentControl>,
    /// First transmit of each message, and how many it carries.
    spans: Vec<(usize, usize)>,
}

// SAFETY: the raw pointers inside are scratch, valid only during one call and never read across calls.
unsafe impl Send for Batched {}

/// Memory for one received message.
struct ReceiveSlot {
    buffer: Option<Buffer>,
    overflow: Vec<u8>,
    name: sockaddr_storage,
    control: ReceiveControl,
    iovecs: [iovec; 2],
}

/// Room for a timestamp, a drop count and a segment size, aligned as control messages must be.
#[repr(align(8))]
#[derive(Clone, Copy)]
struct ReceiveControl([u8; 96]);

/// One `UDP_SEGMENT` control message.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct SegmentControl {
    header: cmsghdr,
    size: u16,
}

/// What came with a message beside its bytes.
#[derive(Default)]
struct Ancillary {
    unix_ns: Option<u64>,
    drops: Option<u32>,
    segment: usize,
}

impl Batched {
    pub(super) fn new() -> Self {
        let slot = || ReceiveSlot {
            buffer: None,
            overflow: vec![0; Pool::LARGE - Pool::SMALL],
            // SAFETY: all zero is a valid address of no family.
            name: unsafe { zeroed() },
            control: ReceiveControl([0; 96]),
            iovecs: [EMPTY; 2],
        };
        Self {
            receive: Box::new(std::array::from_fn(|_| slot())),
            headers: Vec::with_capacity(MESSAGES_MAX),
            iovecs: Vec::with_capacity(2 * TRANSMITS_MAX),
            names: Vec::with_capacity(MESSAGES_MAX),
            controls: Vec::with_capacity(MESSAGES_MAX),
            spans: Vec::with_capacity(MESSAGES_MAX),
        }
    }

    pub(super) fn receive(
        &mut self,
        socket: &mut UdpSocket,
        pool: &Pool,
        now: Time,
        sink: &mut dyn FnMut(SocketAddr, Packet),
    ) -> Received {
        let mut received = Received::default();
        let mut headers: [mmsghdr; RECEIVE_SLOTS] =
            // SAFETY: all zero is a valid message header that names no memory.
            unsafe { zeroed() };
        let ready = self.prepare_receive(pool, &mut headers);
        if ready == 0 {
            received.no_buffer = discard_one(socket);
            received.more = received.no_buffer > 0;
            return received;
        }
        // SAFETY: the first `ready` headers point into slots that outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.io.as_raw_fd(),
                headers.as_mut_ptr(),
                ready as u32,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            // Nothing there; or an ICMP error that belongs to what was sent before, and then there may be more.
            received.more = io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock;
            return received;
        };
        // An ICMP error ends a call early on a connected socket, and is told only by the next one.
        received.more = count == ready || (socket.connected && count > 0);
        let unix_ns_at_zero = clock::unix_ns_at_zero();
        for (slot, message) in self.receive.iter_mut().zip(&headers[..count]) {
            let ancillary = Ancillary::of(&message.msg_hdr);
            if let Some(drops) = ancillary.drops {
                received.kernel_drops += u64::from(drops.wrapping_sub(socket.kernel_drops));
                socket.kernel_drops = drops;
            }
            let arrival = ancillary.arrival(now, unix_ns_at_zero);
            let Some(peer) = peer(&slot.name) else { continue };
            let meta = Meta { arrival, ..Meta::default() };
            received.no_buffer +=
                slot.deliver(pool, message.msg_len as usize, ancillary.segment, meta, &mut |packet| sink(peer, packet));
        }
        received
    }

    /// Gives every slot a buffer and writes its header; returns how many could be prepared.
    fn prepare_receive(&mut self, pool: &Pool, headers: &mut [mmsghdr; RECEIVE_SLOTS]) -> usize {
        for (index, (slot, message)) in self.receive.iter_mut().zip(headers).enumerate() {
            if slot.buffer.is_none() {
                slot.buffer = pool.take(Pool::SMALL);
            }
            let Some(buffer) = &mut slot.buffer else { return index };
            slot.iovecs = [iovec_of(buffer), iovec_of(&mut slot.overflow)];
            let header = &mut message.msg_hdr;
            header.msg_name = (&raw mut slot.name).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_iov = slot.iovecs.as_mut_ptr();
            header.msg_iovlen = 2;
            header.msg_control = slot.control.0.as_mut_ptr().cast();
            header.msg_controllen = slot.control.0.len() as _;
        }
        RECEIVE_SLOTS
    }

    pub(super) fn send(&mut self, socket: &mut UdpSocket, transmits: &[Transmit]) -> Sent {
        if let [transmit] = transmits
            && let Some(sent) = send_one(socket, transmit)
        {
            return sent;
        }
        let transmits = &transmits[..transmits.len().min(TRANSMITS_MAX)];
        self.prepare_send(socket, transmits);
        let mut sent = Sent::default();
        let mut done = 0;
        while done < self.headers.len() {
            let result = send_messages(socket, &mut self.headers[done..]);
            let Ok(count) = result else {
                let error = io::Error::last_os_error();
                let (first, len) = self.spans[done];
                if len > 1 && is_segmentation_refused(&error) {
                    // Perhaps this path cannot segment (an old driver, a route with odd offloads): tried singly.
                    socket.segmentation = false;
                    let rest = self.send(socket, &transmits[first..]);
                    // If that is refused too, it was not for the segments.
                    socket.segmentation = rest.count == 0;
                    return Sent { count: sent.count + rest.count, segmented: sent.segmented, error: rest.error };
                }
                sent.error = Some((error, len));
                return sent;
            };
            for (_, len) in &self.spans[done..done + count] {
                sent.count += len;
                sent.segmented += if *len > 1 { *len } else { 0 };
            }
            done += count;
        }
        sent
    }

    /// Writes one message for each run of datagrams that may leave together.
    fn prepare_send(&mut self, socket: &UdpSocket, transmits: &[Transmit]) {
        self.headers.clear();
        self.iovecs.clear();
        self.names.clear();
        self.controls.clear();
        self.spans.clear();
        let mut first = 0;
        while first < transmits.len() {
            let len = if socket.segmentation { run_length(&transmits[first..]) } else { 1 };
            self.spans.push((first, len));
            self.push_message(socket, &transmits[first..first + len]);
            first += len;
        }
    }

    fn push_message(&mut self, socket: &UdpSocket, run: &[Transmit]) {
        // The vectors have room for the largest batch, so pushing never moves what earlier headers point to.
        let first_iovec = self.iovecs.len();
        for transmit in run {
            if !transmit.header.is_empty() {
                self.iovecs.push(iovec_of_shared(&transmit.header));
            }
            if let Some(payload) = &transmit.payload {
                self.iovecs.push(iovec_of_shared(payload));
            }
        }
        // SAFETY: all zero is a valid message header.
        let mut message: mmsghdr = unsafe { zeroed() };
        let header: &mut msghdr = &mut message.msg_hdr;
        header.msg_iovlen = (self.iovecs.len() - first_iovec) as _;
        // SAFETY: within the vector's capacity.
        header.msg_iov = unsafe { self.iovecs.as_mut_ptr().add(first_iovec) };
        if let Some(to) = run[0].to.filter(|_| !socket.connected) {
            let (name, len) = storage(to);
            self.names.push(name);
            header.msg_name = self.names.last_mut().map_or(ptr::null_mut(), ptr::from_mut).cast();
            header.msg_namelen = len;
        }
        if run.len() > 1 {
            self.controls.push(SegmentControl::new(run[0].len() as u16));
            header.msg_control = self.controls.last_mut().map_or(ptr::null_mut(), ptr::from_mut).cast();
            header.msg_controllen = size_of::<SegmentControl>() as _;
        }
        self.headers.push(message);
    }
}

impl ReceiveSlot {
    /// Hands the datagrams of one message to `sink`; returns how many found no buffer.
    fn deliver(&mut self, pool: &Pool, len: usize, segment: usize, meta: Meta, sink: &mut dyn FnMut(Packet)) -> u64 {
        let Some(buffer) = self.buffer.take() else { return 0 };
        let segment = if segment == 0 { len } else { segment };
        if len <= segment && len <= Pool::SMALL {
            sink(Packet::new(buffer, 0..len, meta));
            return 0;
        }
        let mut no_buffer = 0;
        let (mut at, len) = (0, len.min(Pool::LARGE));
        while at < len {
            let end = len.min(at + segment);
            match pool.take(end - at) {
                Some(mut copy) => {
                    copy_from_two(&mut copy[..end - at], &buffer, &self.overflow, at);
                    sink(Packet::new(copy, 0..end - at, meta));
                }
                None => no_buffer += 1,
            }
            at = end;
        }
        self.buffer = Some(buffer);
        no_buffer
    }
}

/// Copies from `at` on out of what `front` and `back` are together.
fn copy_from_two(into: &mut [u8], front: &[u8], back: &[u8], at: usize) {
    let in_front = front.len().saturating_sub(at).min(into.len());
    let (first, rest) = into.split_at_mut(in_front);
    if in_front > 0 {
        first.copy_from_slice(&front[at..at + in_front]);
    }
    if !rest.is_empty() {
        let back_at = (at + in_front) - front.len();
        rest.copy_from_slice(&back[back_at..back_at + rest.len()]);
    }
}

impl Ancillary {
    fn of(header: &msghdr) -> Self {
        let mut found = Self::default();
        // SAFETY: the kernel has filled the control area and set its length; the macros stay within it.
        let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !control.is_null() {
            // SAFETY: not null, so it points to a whole control message header.
            let (level, kind) = unsafe { ((*control).cmsg_level, (*control).cmsg_type) };
            // SAFETY: each kind is read as the type that the kernel writes for it.
            unsafe {
                let data = libc::CMSG_DATA(control);
                match (level, kind) {
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        let stamp: libc::timespec = ptr::read_unaligned(data.cast());
                        found.unix_ns = Some(stamp.tv_sec as u64 * 1_000_000_000 + stamp.tv_nsec as u64);
                    }
                    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => found.drops = Some(ptr::read_unaligned(data.cast())),
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        found.segment = ptr::read_unaligned::<c_int>(data.cast()).max(0) as usize;
                    }
                    _ => {}
                }
                control = libc::CMSG_NXTHDR(header, control);
            }
        }
        found
    }

    /// The kernel's stamp on the monotonic clock. A stamp that is not from the last second is a wall clock that was
    /// set meanwhile, and is not used.
    fn arrival(&self, now: Time, unix_ns_at_zero: u64) -> Time {
        let stamp = self.unix_ns.and_then(|unix_ns| unix_ns.checked_sub(unix_ns_at_zero)).map(Time::from_ns);
        stamp.filter(|stamp| *stamp <= now && now.since(*stamp).as_secs() == 0).unwrap_or(now)
    }
}

impl SegmentControl {
    fn new(size: u16) -> Self {
        let header = cmsghdr {
            // SAFETY: computes a length, touches no memory.
            cmsg_len: unsafe { libc::CMSG_LEN(size_of::<u16>() as u32) } as _,
            cmsg_level: libc::SOL_UDP,
            cmsg_type: libc::UDP_SEGMENT,
        };
        Self { header, size }
    }
}

/// How many datagrams from the front may leave as one segmented send: same destination, same length, only the last may
/// be shorter.
fn run_length(transmits: &[Transmit]) -> usize {
    let first = &transmits[0];
    let segment = first.len();
    let mut total = segment;
    let mut len = 1;
    while let Some(next) = transmits.get(len) {
        total += next.len();
        let fits = len < SEGMENTS_MAX && total <= SEGMENTED_BYTES_MAX;
        if !fits || next.to != first.to || next.len() > segment || next.is_empty() {
            break;
        }
        len += 1;
        if next.len() < segment {
            break;
        }
    }
    len
}

/// The usual case of a fan-out, one datagram to a connected peer, needs no message header: `None` if this is not it.
///
/// The system call is made directly because the C library's wrapper is a cancellation point, which costs 4 % of it.
fn send_one(socket: &UdpSocket, transmit: &Transmit) -> Option<Sent> {
    let payload = transmit.payload.as_ref().filter(|_| socket.connected && transmit.header.is_empty())?;
    let (fd, flags) = (socket.io.as_raw_fd(), SEND_FLAGS);
    // SAFETY: pointer and length describe the payload; there is no address.
    let result =
        unsafe { libc::syscall(libc::SYS_sendto, fd, payload.as_ptr(), payload.len(), flags, ptr::null::<u8>(), 0) };
    Some(if result < 0 {
        Sent { error: Some((io::Error::last_os_error(), 1)), ..Sent::default() }
    } else {
        Sent { count: 1, ..Sent::default() }
    })
}

fn send_messages(socket: &UdpSocket, messages: &mut [mmsghdr]) -> Result<usize, std::num::TryFromIntError> {
    let fd = socket.io.as_raw_fd();
    if let [message] = messages {
        // SAFETY: the header points into memory that outlives the call.
        let result = unsafe { libc::syscall(libc::SYS_sendmsg, fd, &raw const message.msg_hdr, SEND_FLAGS) };
        return usize::try_from(result).map(|_| 1);
    }
    // SAFETY: all headers point into memory that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sendmmsg, fd, messages.as_mut_ptr(), messages.len(), SEND_FLAGS) };
    usize::try_from(result)
}

fn is_segmentation_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

/// The pool is empty: takes one datagram off so that the socket does not stay ready for ever. Returns how many it took.
fn discard_one(socket: &UdpSocket) -> u64 {
    u64::from(socket.io.recv_from(&mut [0; 1]).is_ok())
}

const fn iovec_of(bytes: &mut [u8]) -> iovec {
    iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// The kernel only reads from it.
const fn iovec_of_shared(bytes: &[u8]) -> iovec {
    iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn peer(name: &sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which address the storage holds.
            let v4 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            Some((Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)), u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn storage(address: SocketAddr) -> (sockaddr_storage, socklen_t) {
    let address = socket2::SockAddr::from(address);
    // SAFETY: all zero is a valid address of no family.
    let mut storage: sockaddr_storage = unsafe { zeroed() };
    // SAFETY: an address is never longer than the storage made for any of them.
    unsafe {
        ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), (&raw mut storage).cast(), address.len() as usize);
    }
    (storage, address.len())
}

const SEND_FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
const EMPTY: iovec = iovec { iov_base: ptr::null_mut(), iov_len: 0 };
/// Messages per receive call, so that one busy socket does not keep the others waiting.
const RECEIVE_SLOTS: usize = 32;
/// Transmits per send call.
pub(super) const TRANSMITS_MAX: usize = 256;
/// At worst each transmit is a message of its own.
const MESSAGES_MAX: usize = TRANSMITS_MAX;
/// Linux' `UDP_MAX_SEGMENTS` before 6.7.
const SEGMENTS_MAX: usize = 64;
/// Longest UDP payload over IPv6 without options; IPv4 takes 20 bytes more.
const SEGMENTED_BYTES_MAX: usize = 65_487;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::PoolLimits;
    use crate::proto::{Port, WireHeader};

    fn transmits(lengths: &[usize]) -> Vec<Transmit> {
        let pool = Pool::new(PoolLimits::default());
        let transmit = |len: &usize| Transmit {
            port: Port::Media,
            to: None,
            header: WireHeader::new(),
            payload: pool.copy(&vec![0; *len], Meta::default()),
        };
        lengths.iter().map(transmit).collect()
    }

    #[test]
    fn runs_end_at_a_shorter_datagram_and_before_a_longer_one() {
        assert_eq!(run_length(&transmits(&[1316, 1316, 1316])), 3);
        assert_eq!(run_length(&transmits(&[1316, 188, 188])), 2);
        assert_eq!(run_length(&transmits(&[188, 1316])), 1);
    }

    #[test]
    fn runs_stay_within_what_one_send_may_carry() {
        assert_eq!(run_length(&transmits(&[1316; 100])), 49);
        assert_eq!(run_length(&transmits(&[188; 100])), 64);
    }

    #[test]
    fn two_pieces_read_as_one() {
        let mut into = [0; 4];
        copy_from_two(&mut into, &[1, 2, 3], &[4, 5, 6], 1);
        assert_eq!(into, [2, 3, 4, 5]);
        copy_from_two(&mut into[..2], &[1, 2, 3], &[4, 5, 6], 4);
        assert_eq!(into[..2], [5, 6]);
        copy_from_two(&mut into[..1], &[1, 2, 3], &[4, 5, 6], 1);
        assert_eq!(into[..1], [2]);
    }
}
