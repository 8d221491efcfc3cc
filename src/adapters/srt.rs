//! SRT source and output: caller, callers of a group, rendezvous, or listener on one UDP socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::driver::{Admission, Driven, Driver};
use super::host::HostPort;
use super::ports::Ports;
use super::socket::{OpenError, SocketOptions, UdpSocket};
use crate::bus::Pool;
use crate::proto::srt::{Caller, CallerGroup, Config, GroupKind, GroupMember, Listener, Service};

/// One end of SRT connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Who calls whom.
    pub side: Side,
    /// Latency, stream id, limits.
    pub connection: Config,
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
            let (config, secret) = (self.connection.clone(), secret(address)?);
            let core = Listener::new(config, Service::Receive, pool.clone(), secret).behind(seat.secret());
            return Ok(Box::new(Driver::guest_house(core, seat, self.socket.clone(), admission)));
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
        let config = self.connection.clone();
        Ok(match &self.side {
            Side::Caller { local, .. } => {
                let socket = UdpSocket::call(address, local.to_socket(address), &self.socket)?;
                connection(service, Caller::new(config, address, pool.clone(), secret), socket, admission)
            }
            Side::Rendezvous { local, .. } => {
                let socket = UdpSocket::call(address, local.to_socket(address), &self.socket)?;
                connection(service, Caller::rendezvous(config, address, pool.clone(), secret), socket, admission)
            }
            Side::Group { kind, members, .. } => {
                // Each is reached by whichever way the system has to it.
                let socket = UdpSocket::serve(SocketAddr::new(any(address), 0), &self.socket)?;
                connection(service, CallerGroup::new(config, *kind, members, pool, secret), socket, admission)
            }
            Side::Listener { .. } => {
                let socket = UdpSocket::serve(address, &self.socket)?;
                connection(service, Listener::new(config, service, pool.clone(), secret), socket, admission)
            }
        })
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

fn secret(address: SocketAddr) -> Result<[u8; 32], OpenError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| OpenError::System {
        action: "draw random numbers for",
        address: address.to_string(),
        problem: error.to_string(),
    })?;
    Ok(secret)
}

fn connection<C: crate::proto::Core + Send + 'static>(
    service: Service,
    core: C,
    socket: UdpSocket,
    admission: Admission,
) -> Box<dyn Driven> {
    Box::new(match service {
        Service::Receive => Driver::source(core, Some(socket), None, admission),
        Service::Send { .. } => Driver::conversation(core, socket, admission),
    })
}

/// Callers that one output serves. Judgement: as many as a flow may have outputs.
const CALLERS_MAX: usize = 256;
