//! UDP sockets: bound, joined, connected and tuned as the configuration asks.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use mio::net::UdpSocket as MioSocket;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::system;
use crate::units::DataSize;

/// What a user may ask of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Interface for multicast and for binding.
    pub interface: Option<Interface>,
    /// Time to live, or hop limit of IPv6. `None`: 64 for unicast, 16 for multicast.
    pub ttl: Option<u8>,
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub dscp: Option<u8>,
    /// Receive buffer to ask for; the kernel may grant less.
    pub receive_buffer: Option<DataSize>,
    /// Send buffer to ask for; the kernel may grant less.
    pub send_buffer: Option<DataSize>,
}

impl SocketOptions {
    /// The same with both buffers asked for, for a socket that talks both ways.
    fn both_buffers(&self) -> Self {
        let default = |asked: Option<DataSize>, bytes| asked.or_else(|| Some(DataSize::from_bytes(bytes)));
        Self {
            receive_buffer: default(self.receive_buffer, RECEIVE_BUFFER_BYTES),
            send_buffer: default(self.send_buffer, SEND_BUFFER_BYTES),
            ..self.clone()
        }
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// `eth0`
    Name(String),
    /// An address that the interface has.
    Address(Ipv4Addr),
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Not an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an interface: write its name, as eth0, or its IPv4 address")]
pub struct ParseInterfaceError;

impl FromStr for Interface {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, ParseInterfaceError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let fits = (1..=INTERFACE_NAME_BYTES_MAX).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_graphic() && c != '/');
        if fits { Ok(Self::Name(text.into())) } else { Err(ParseInterfaceError) }
    }
}

/// Why a socket could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another socket has the address.
    #[error("{address} is in use by another flow or program: choose another port or stop the other")]
    InUse {
        /// The address.
        address: String,
    },
    /// The name could not be looked up.
    #[error("{host} cannot be looked up: {problem}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        problem: String,
    },
    /// There is no such interface.
    #[error("there is no interface {name} on this machine")]
    NoInterface {
        /// The name.
        name: String,
    },
    /// The port has no successors for RTCP and FEC.
    #[error("the port leaves none behind it for RTCP (one) and FEC (four): choose a lower one")]
    NoControlPort,
    /// The system refused something else.
    #[error("cannot {action} {address}: {problem}")]
    System {
        /// What was tried.
        action: &'static str,
        /// With which address.
        address: String,
        /// What the system says.
        problem: String,
    },
}

/// A buffer size as asked for and as granted, in bytes of payload and kernel overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Asked for.
    pub asked_bytes: u64,
    /// Granted.
    pub granted_bytes: u64,
}

/// A non-blocking UDP socket.
pub struct UdpSocket {
    pub(super) io: MioSocket,
    /// Set to false once the kernel has refused a segmented send.
    pub(super) segmentation: bool,
    /// Whether the socket talks to one peer only.
    pub(super) connected: bool,
    /// The kernel's count of datagrams dropped for a full buffer, as last seen.
    pub(super) kernel_drops: u32,
    receive_buffer: Granted,
    send_buffer: Granted,
}

impl UdpSocket {
    /// Binds `address`, or joins it if it is a group, from `multicast_source` only if one is given.
    ///
    /// # Errors
    /// What the system refused.
    pub fn listen(
        address: SocketAddr,
        multicast_source: Option<IpAddr>,
        options: &SocketOptions,
    ) -> Result<Self, OpenError> {
        let open = Opening { address };
        let socket = open.socket()?;
        if address.ip().is_multicast() {
            // Several programs on one machine may listen to one group.
            open.check("share", socket.set_reuse_address(true))?;
        }
        open.bind(&socket, options)?;
        if address.ip().is_multicast() {
            open.join(&socket, multicast_source, options.interface.as_ref())?;
        }
        open.check("tune", system::tune_receiver(&socket))?;
        open.finish(socket, options, false)
    }

    /// Connects to `address` from a port that the system chooses.
    ///
    /// # Errors
    /// What the system refused.
    pub fn connect(address: SocketAddr, options: &SocketOptions) -> Result<Self, OpenError> {
        Self::connect_from(address, None, options)
    }

    fn connect_from(
        address: SocketAddr,
        local: Option<SocketAddr>,
        options: &SocketOptions,
    ) -> Result<Self, OpenError> {
        let open = Opening { address };
        let socket = open.socket()?;
        match &options.interface {
            Some(Interface::Name(name)) => open.bind_device(&socket, name)?,
            Some(Interface::Address(local)) => {
                open.check("leave by the interface", socket.set_multicast_if_v4(local))?;
                open.check("bind", socket.bind(&SocketAddr::from((*local, 0)).into()))?;
            }
            None => {}
        }
        if let Some(local) = local {
            Opening { address: local }.check("bind", socket.bind(&local.into()))?;
        }
        open.check("set the TTL for", open.set_ttl(&socket, options.ttl))?;
        if let Some(dscp) = options.dscp {
            let class = u32::from(dscp) << 2;
            let set = if address.is_ipv4() { socket.set_tos_v4(class) } else { socket.set_tclass_v6(class) };
            open.check("set the DSCP for", set)?;
        }
        open.check("connect to", socket.connect(&address.into()))?;
        open.finish(socket, options, true)
    }

    /// Connects to `address`, from `local` if it is given, for talking both ways.
    ///
    /// # Errors
    /// What the system refused.
    pub fn call(address: SocketAddr, local: Option<SocketAddr>, options: &SocketOptions) -> Result<Self, OpenError> {
        let options = options.both_buffers();
        let socket = Self::connect_from(address, local, &options)?;
        let open = Opening { address };
        open.check("tune", system::tune_receiver(&SockRef::from(&socket.io)))?;
        Ok(socket)
    }

    /// Binds `address`, for talking both ways with anyone.
    ///
    /// # Errors
    /// What the system refused.
    pub fn serve(address: SocketAddr, options: &SocketOptions) -> Result<Self, OpenError> {
        Self::listen(address, None, &options.both_buffers())
    }

    /// Binds `local` beside others on the same address, for talking with anyone, or with one `peer` whose datagrams then
    /// come here only.
    ///
    /// # Errors
    /// What the system refused.
    pub(super) fn share(
        local: SocketAddr,
        peer: Option<SocketAddr>,
        options: &SocketOptions,
    ) -> Result<Self, OpenError> {
        let open = Opening { address: local };
        let socket = open.socket()?;
        open.check("share", socket.set_reuse_address(true))?;
        open.bind(&socket, options)?;
        if let Some(peer) = peer {
            open.check("connect", socket.connect(&peer.into()))?;
        }
        open.check("tune", system::tune_receiver(&socket))?;
        open.finish(socket, &options.both_buffers(), peer.is_some())
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// What the system says.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// The receive buffer.
    #[must_use]
    pub const fn receive_buffer(&self) -> Granted {
        self.receive_buffer
    }

    /// The send buffer.
    #[must_use]
    pub const fn send_buffer(&self) -> Granted {
        self.send_buffer
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("io", &self.io)
            .field("segmentation", &self.segmentation)
            .finish_non_exhaustive()
    }
}

/// The address at hand, for error messages.
struct Opening {
    address: SocketAddr,
}

impl Opening {
    fn check<T>(&self, action: &'static str, result: io::Result<T>) -> Result<T, OpenError> {
        result.map_err(|error| {
            let address = self.address.to_string();
            if error.kind() == io::ErrorKind::AddrInUse {
                OpenError::InUse { address }
            } else {
                OpenError::System { action, address, problem: error.to_string() }
            }
        })
    }

    fn socket(&self) -> Result<Socket, OpenError> {
        let socket = Socket::new(Domain::for_address(self.address), Type::DGRAM, Some(Protocol::UDP));
        let socket = self.check("open a socket for", socket)?;
        self.check("open a socket for", socket.set_nonblocking(true))?;
        Ok(socket)
    }

    /// Binds the address, on the interface of that name if one is given.
    fn bind(&self, socket: &Socket, options: &SocketOptions) -> Result<(), OpenError> {
        if self.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            self.check("open", socket.set_only_v6(false))?;
        }
        if let Some(Interface::Name(name)) = &options.interface {
            self.bind_device(socket, name)?;
        }
        self.check("bind", socket.bind(&self.address.into()))
    }

    fn bind_device(&self, socket: &Socket, name: &str) -> Result<(), OpenError> {
        system::interface_index(name).ok_or_else(|| OpenError::NoInterface { name: name.into() })?;
        self.check("use the interface for", system::bind_device(socket, name))
    }

    fn join(&self, socket: &Socket, source: Option<IpAddr>, interface: Option<&Interface>) -> Result<(), OpenError> {
        let index = match interface {
            Some(Interface::Name(name)) => system::interface_index(name).unwrap_or(0),
            Some(Interface::Address(_)) | None => 0,
        };
        let local = match interface {
            Some(Interface::Address(address)) => *address,
            Some(Interface::Name(_)) | None => Ipv4Addr::UNSPECIFIED,
        };
        let joined = match (self.address.ip(), source) {
            (IpAddr::V4(group), Some(IpAddr::V4(source))) if index == 0 => socket.join_ssm_v4(&source, &group, &local),
            (group, Some(source)) => system::join_source(socket, group, source, index),
            (IpAddr::V4(group), None) if index == 0 => socket.join_multicast_v4(&group, &local),
            (IpAddr::V4(group), None) => {
                socket.join_multicast_v4_n(&group, &socket2::InterfaceIndexOrAddress::Index(index))
            }
            (IpAddr::V6(group), None) => socket.join_multicast_v6(&group, index),
        };
        self.check("join", joined)
    }

    fn set_ttl(&self, socket: &Socket, ttl: Option<u8>) -> io::Result<()> {
        let multicast = self.address.ip().is_multicast();
        let ttl = u32::from(ttl.unwrap_or(if multicast { MULTICAST_TTL } else { UNICAST_TTL }));
        match (self.address.is_ipv4(), multicast) {
            (true, true) => socket.set_multicast_ttl_v4(ttl),
            (true, false) => socket.set_ttl_v4(ttl),
            (false, true) => socket.set_multicast_hops_v6(ttl),
            (false, false) => socket.set_unicast_hops_v6(ttl),
        }
    }

    fn finish(self, socket: Socket, options: &SocketOptions, connected: bool) -> Result<UdpSocket, OpenError> {
        let receive = options.receive_buffer.map_or(RECEIVE_BUFFER_BYTES, DataSize::as_bytes);
        let send = options.send_buffer.map_or(SEND_BUFFER_BYTES, DataSize::as_bytes);
        // A listening socket sends little, a connected one receives little: only the other buffer is asked for, unless
        // somebody wishes it.
        let (mut receive_buffer, mut send_buffer) = (Granted::default(), Granted::default());
        if connected || options.send_buffer.is_some() {
            let granted_bytes = self.check("size the send buffer for", system::grow_send_buffer(&socket, send))?;
            send_buffer = Granted { asked_bytes: send, granted_bytes };
        }
        if !connected || options.receive_buffer.is_some() {
            let granted_bytes =
                self.check("size the receive buffer for", system::grow_receive_buffer(&socket, receive))?;
            receive_buffer = Granted { asked_bytes: receive, granted_bytes };
        }
        Ok(UdpSocket {
            io: MioSocket::from_std(socket.into()),
            segmentation: system::SEGMENTATION,
            connected,
            kernel_drops: 0,
            receive_buffer,
            send_buffer,
        })
    }
}

/// Linux IFNAMSIZ less the closing zero.
const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// Judgement: 30 ms of 1 Gb/s with the kernel's overhead.
const RECEIVE_BUFFER_BYTES: u64 = 8 << 20;
/// Judgement: an output may have a key frame of 1 MB under way, and 256 of them fit any machine.
const SEND_BUFFER_BYTES: u64 = 2 << 20;
/// The usual default of systems.
const UNICAST_TTL: u8 = 64;
/// As ffmpeg's default: stays within a site.
const MULTICAST_TTL: u8 = 16;
