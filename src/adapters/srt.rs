//! SRT source and output: caller, callers of a group, rendezvous, or listener on one UDP socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::driven::{Admission, Driven};
use super::driver::Driver;
use super::host::HostPort;
use super::ports::{Ports, Seat};
use super::rtp::surroundings;
use super::socket::{OpenError, SocketOptions, UdpSocket};
use crate::bus::Pool;
use crate::proto::Core;
use crate::proto::rtp::{HEADER_BYTES, Over, SenderConfig};
use crate::proto::srt::{Caller, CallerGroup, Config, GroupKind, GroupMember, Listener, Service, Tuning};

/// One end of SRT connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Who calls whom.
    pub side: Side,
    /// Latency, stream id, limits.
    pub connection: Config,
    /// What its packets carry.
    pub payload: Payload,
    /// Interface, TTL, DSCP and buffers.
    pub socket: SocketOptions,
}

/// Who calls whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// We call.
    Caller {
        /// Whom.
        peer: HostPort,
        /// From where.
        local: Local,
    },
    /// Both sides call each other (rendezvous).
    Rendezvous {
        /// Whom we call.
        peer: HostPort,
        /// From where, which is what the other side calls; the port is not zero.
        local: Local,
    },
    /// We call several at once, who together carry one stream.
    Group {
        /// Over all of them, or over the best.
        kind: GroupKind,
        /// The first of them, for whoever wants one address.
        first: HostPort,
        /// All of them: 1 to [`CallerGroup::MEMBERS_MAX`], of one address family.
        members: Vec<GroupMember>,
    },
    /// We wait for callers on this address.
    Listener {
        /// As a destination, so that everything that names one is looked at alike.
        listen: HostPort,
    },
}

/// What the packets of a connection carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// The bytes as they are on the bus.
    #[default]
    Bytes,
    /// One RTP packet each, whose header is taken off, or made as said here. Payloads are cut for it to fit.
    Rtp(SenderConfig),
}

/// An address of this machine; what is unspecified is left to the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Zero for any.
    pub port: u16,
    /// `None` for any.
    pub ip: Option<IpAddr>,
}

impl EndpointConfig {
    /// Whether it holds a port of this machine that was asked for.
    #[must_use]
    pub const fn holds_port(&self) -> bool {
        match self.side {
            Side::Caller { local, .. } | Side::Rendezvous { local, .. } => local.port != 0,
            Side::Listener { .. } => true,
            Side::Group { .. } => false,
        }
    }

    /// The address that is called, or listened on.
    #[must_use]
    pub const fn address(&self) -> &HostPort {
        match &self.side {
            Side::Caller { peer, .. } | Side::Rendezvous { peer, .. } => peer,
            Side::Group { first, .. } => first,
            Side::Listener { listen } => listen,
        }
    }

    /// What of it may change while it is open.
    #[must_use]
    pub const fn tuning(&self) -> Tuning {
        self.connection.tuning()
    }

    /// Whether all that differs between the two is what may change while it is open.
    #[must_use]
    pub fn differs_in_tuning_only(&self, other: &Self) -> bool {
        Self { connection: self.connection.clone().tuned(&other.tuning()), ..self.clone() } == *other
    }

    /// Opens a source; `address` is what ours was looked up to.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open_source(
        &self,
        address: SocketAddr,
        (pool, ports): (&Pool, &Ports),
        admission: Admission,
    ) -> Result<Box<dyn Driven>, OpenError> {
        let stream_id = &self.connection.stream_id;
        if matches!(self.side, Side::Listener { .. }) && !stream_id.is_empty() {
            // Others may have other streams on the same port.
            let seat = ports.join(address, stream_id, pool, &self.socket)?;
            let (config, secret) = (self.connection(address), secret(address)?);
            let core = Listener::new(config, Service::Receive, pool.clone(), secret).behind(seat.secret());
            let place = Place::Guests(seat, self.socket.clone());
            return Ok(self.driven(core, place, pool, (admission, address)));
        }
        self.open(address, pool, Service::Receive, admission)
    }

    /// Opens an output; `address` is what ours was looked up to.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open_output(
        &self,
        address: SocketAddr,
        pool: &Pool,
        admission: Admission,
    ) -> Result<Box<dyn Driven>, OpenError> {
        self.open(address, pool, Service::Send { callers_max: CALLERS_MAX }, admission)
    }

    fn open(
        &self,
        address: SocketAddr,
        pool: &Pool,
        service: Service,
        admission: Admission,
    ) -> Result<Box<dyn Driven>, OpenError> {
        let secret = secret(address)?;
        let config = self.connection(address);
        let place = |socket| match (service, &self.side) {
            (Service::Receive, _) => Place::Source(socket),
            (Service::Send { .. }, Side::Listener { .. }) => Place::Server(socket),
            (Service::Send { .. }, _) => Place::Output(socket),
        };
        let rest = (admission, address);
        Ok(match &self.side {
            Side::Caller { local, .. } => {
                let socket = UdpSocket::call(address, local.to_socket(address), &self.socket)?;
                self.driven(Caller::new(config, address, pool.clone(), secret), place(socket), pool, rest)
            }
            Side::Rendezvous { local, .. } => {
                let socket = UdpSocket::call(address, local.to_socket(address), &self.socket)?;
                self.driven(Caller::rendezvous(config, address, pool.clone(), secret), place(socket), pool, rest)
            }
            Side::Group { kind, members, .. } => {
                // Each is reached by whichever way the system has to it.
                let socket = UdpSocket::serve(SocketAddr::new(any(address), 0), &self.socket)?;
                self.driven(CallerGroup::new(config, *kind, members, pool, secret), place(socket), pool, rest)
            }
            Side::Listener { .. } => {
                let socket = UdpSocket::serve(address, &self.socket)?;
                self.driven(Listener::new(config, service, pool.clone(), secret), place(socket), pool, rest)
            }
        })
    }

    fn connection(&self, address: SocketAddr) -> Config {
        match self.payload {
            Payload::Bytes => self.connection.clone(),
            // Half of an RTP packet is none.
            Payload::Rtp(_) => Config { payload_max: self.room(address), cut: false, ..self.connection.clone() },
        }
    }

    /// Bytes in a packet, whatever a caller may want of a filter.
    fn room(&self, address: SocketAddr) -> usize {
        let may_filter = self.connection.packet_filter.is_some() || matches!(self.side, Side::Listener { .. });
        self.connection.room(address.is_ipv4(), may_filter)
    }

    /// Runs a core there, below RTP if that is what its packets carry.
    fn driven<C: Core + Send + 'static>(
        &self,
        core: C,
        place: Place,
        pool: &Pool,
        (admission, address): (Admission, SocketAddr),
    ) -> Box<dyn Driven> {
        let Payload::Rtp(sender) = &self.payload else {
            return place.drive(core, admission);
        };
        let payload_bytes_max = sender.payload_bytes_max.min(self.room(address) - HEADER_BYTES);
        let sender = SenderConfig { payload_bytes_max, ..sender.clone() };
        place.drive(Over::new(core, &sender, &surroundings(pool)), admission)
    }
}

impl Local {
    /// Where to send to `peer` from, if anything was asked for.
    fn to_socket(self, peer: SocketAddr) -> Option<SocketAddr> {
        (self != Self::default()).then(|| SocketAddr::new(self.ip.unwrap_or_else(|| any(peer)), self.port))
    }
}

/// The unspecified address of the family of `like`.
const fn any(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}

/// Where a core has its peers from.
enum Place {
    Source(UdpSocket),
    Output(UdpSocket),
    Server(UdpSocket),
    /// A port that it shares with other sources.
    Guests(Seat, SocketOptions),
}

impl Place {
    fn drive<C: Core + Send + 'static>(self, core: C, admission: Admission) -> Box<dyn Driven> {
        Box::new(match self {
            Self::Source(socket) => Driver::source(core, Some(socket), None, admission),
            Self::Output(socket) => Driver::conversation(core, socket, admission),
            Self::Server(socket) => Driver::serving(core, socket, admission),
            Self::Guests(seat, options) => Driver::guest_house(core, seat, options, admission),
        })
    }
}

fn secret(address: SocketAddr) -> Result<[u8; 32], OpenError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| OpenError::System {
        action: "draw random numbers for",
        address: address.to_string(),
        problem: error.to_string(),
    })?;
    Ok(secret)
}

/// Callers that one output serves. Judgement: as many as a flow may have outputs.
const CALLERS_MAX: usize = 256;
