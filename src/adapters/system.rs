//! What differs between Linux and other systems when sockets are opened.

pub use imp::raise_descriptor_limit;
pub(super) use imp::*;

/// Linux has everything.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "socket options that no crate wraps")]
mod imp {
    use std::ffi::CString;
    use std::io;
    use std::mem::size_of;
    use std::net::{IpAddr, SocketAddr};
    use std::os::fd::AsRawFd;

    use socket2::{SockAddr, Socket};

    /// Whether `UDP_SEGMENT` may be tried.
    pub(crate) const SEGMENTATION: bool = true;

    /// Lets the process have as many sockets as the system allows it: the usual soft limit of 1024 is less than some
    /// hundred flows need.
    pub fn raise_descriptor_limit() {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` outlives both calls; where they fail, the limit stays as it was.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            }
        }
    }

    pub(crate) fn interface_index(name: &str) -> Option<u32> {
        let name = CString::new(name).ok()?;
        // SAFETY: a valid C string.
        match unsafe { libc::if_nametoindex(name.as_ptr()) } {
            0 => None,
            index => Some(index),
        }
    }

    pub(crate) fn bind_device(socket: &Socket, name: &str) -> io::Result<()> {
        socket.bind_device(Some(name.as_bytes()))
    }

    /// Kernel receive timestamps and drop counts.
    pub(crate) fn tune_receiver(socket: &Socket) -> io::Result<()> {
        set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32)?;
        set(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &1_i32)?;
        if socket.local_addr()?.is_ipv4() {
            // Only what this socket joined, not what any other on the machine did.
            set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &0_i32)?;
        }
        Ok(())
    }

    /// Coalesced receive, for a reader that asks for the segment size. Absent before Linux 5.0.
    pub(crate) fn coalesce_received(socket: &impl AsRawFd) {
        let _without_is_fine = set(socket, libc::SOL_UDP, libc::UDP_GRO, &1_i32);
    }

    /// A stream is ready to be read with so many bytes, or its end.
    pub(crate) fn wake_at(stream: &impl AsRawFd, bytes: usize) {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        let _without_it_wakes_more = set(stream, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &bytes);
    }

    /// Source-specific join on an interface, IPv4 or IPv6 (RFC 3678 5.1).
    pub(crate) fn join_source(socket: &Socket, group: IpAddr, source: IpAddr, interface: u32) -> io::Result<()> {
        let storage = |ip| {
            let address = SockAddr::from(SocketAddr::new(ip, 0));
            // SAFETY: all zero is a valid sockaddr_storage.
            let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
            // SAFETY: the address is not longer than the storage that it is made for.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    address.as_ptr().cast::<u8>(),
                    (&raw mut storage).cast::<u8>(),
                    address.len() as usize,
                );
            }
            storage
        };
        let request =
            libc::group_source_req { gsr_interface: interface, gsr_group: storage(group), gsr_source: storage(source) };
        let level = if group.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
        set(socket, level, libc::MCAST_JOIN_SOURCE_GROUP, &request)
    }

    /// Asks for `bytes`, past the system's limit if we may, and says what the kernel gave.
    pub(crate) fn grow_receive_buffer(socket: &Socket, bytes: u64) -> io::Result<u64> {
        let asked = i32::try_from(bytes).unwrap_or(i32::MAX);
        if set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &asked).is_err() {
            socket.set_recv_buffer_size(asked as usize)?;
        }
        // The kernel doubles what is asked for, to account for its own overhead.
        Ok(socket.recv_buffer_size()? as u64 / 2)
    }

    /// The same for sending.
    pub(crate) fn grow_send_buffer(socket: &Socket, bytes: u64) -> io::Result<u64> {
        let asked = i32::try_from(bytes).unwrap_or(i32::MAX);
        if set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &asked).is_err() {
            socket.set_send_buffer_size(asked as usize)?;
        }
        Ok(socket.send_buffer_size()? as u64 / 2)
    }

    fn set<T>(socket: &impl AsRawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: pointer and length describe `value`.
        let result =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Other systems do with what `socket2` offers.
#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr};

    use socket2::Socket;

    pub(crate) const SEGMENTATION: bool = false;

    /// Nothing to raise here.
    pub fn raise_descriptor_limit() {}

    pub(crate) fn interface_index(_name: &str) -> Option<u32> {
        None
    }

    pub(crate) fn bind_device(_socket: &Socket, _name: &str) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "write the interface's IPv4 address instead"))
    }

    pub(crate) fn tune_receiver(_socket: &Socket) -> io::Result<()> {
        Ok(())
    }

    /// Wakes with each.
    pub(crate) const fn wake_at<S>(_stream: &S, _bytes: usize) {}

    pub(crate) fn join_source(socket: &Socket, group: IpAddr, source: IpAddr, _interface: u32) -> io::Result<()> {
        match (group, source) {
            (IpAddr::V4(group), IpAddr::V4(source)) => socket.join_ssm_v4(&source, &group, &Ipv4Addr::UNSPECIFIED),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "source-specific IPv6 multicast needs Linux")),
        }
    }

    pub(crate) fn grow_receive_buffer(socket: &Socket, bytes: u64) -> io::Result<u64> {
        socket.set_recv_buffer_size(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        Ok(socket.recv_buffer_size()? as u64)
    }

    pub(crate) fn grow_send_buffer(socket: &Socket, bytes: u64) -> io::Result<u64> {
        socket.set_send_buffer_size(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        Ok(socket.send_buffer_size()? as u64)
    }
}
