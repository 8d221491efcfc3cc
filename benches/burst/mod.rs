//! Bursts of datagrams over loopback, and what others spend on them.

use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::sys::{self, Batch};

/// Fills the first slots of `batch`; fewer than `count` if nothing came for [`LOST_AFTER`].
pub(crate) fn receive(batch: &mut Batch, socket: &UdpSocket, count: usize) -> usize {
    let mut received = 0;
    while received < count {
        match batch.receive(socket, received, true) {
            0 => break,
            more => received += more,
        }
    }
    received
}

pub(crate) fn open() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LOST_AFTER)).unwrap();
    sys::ask_large_receive_buffer(&socket).unwrap();
    sys::ask_large_send_buffer(&socket).unwrap();
    socket
}

pub(crate) fn address(socket: &UdpSocket) -> SocketAddrV4 {
    sys::loopback(socket.local_addr().unwrap().port())
}

/// Sends `bytes` at a time of what is sent at once.
#[allow(unsafe_code, reason = "the standard library does not know this option")]
pub(crate) fn cut_into_datagrams(socket: &UdpSocket, bytes: usize) {
    let (value, length) = (bytes as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the value is an int that lives through the call, and its length is given.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const value).cast(), length)
    };
    assert_eq!(answer, 0, "UDP_SEGMENT");
}

/// CPU time of all threads but this one, in nanoseconds.
pub(crate) fn cpu_of_others_ns() -> u64 {
    sys::clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap() - sys::clock_ns(libc::CLOCK_THREAD_CPUTIME_ID).unwrap()
}

/// Longest a datagram may take.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(2);
