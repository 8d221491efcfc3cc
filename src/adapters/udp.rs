//! Plain UDP source and output.

use std::net::{IpAddr, SocketAddr};

use super::driven::Admission;
use super::driver::Driver;
use super::host::HostPort;
use super::socket::{OpenError, SocketOptions, UdpSocket};
use crate::path::Limiter;
use crate::proto::udp::{Receiver, Sender};

/// Where a UDP source listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    /// Address to bind, or multicast group to join.
    pub listen: SocketAddr,
    /// Take the group's packets from this sender only (source-specific multicast, RFC 4607).
    pub multicast_source: Option<IpAddr>,
    /// Interface and buffers.
    pub socket: SocketOptions,
}

/// Where a UDP output sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// Unicast or multicast.
    pub destination: HostPort,
    /// Longest datagram in bytes; longer packets are cut. `None` keeps the source's boundaries.
    pub packet_size_max: Option<usize>,
    /// Interface, TTL, DSCP and buffers.
    pub socket: SocketOptions,
}

impl SourceConfig {
    /// Binds the socket and joins the group.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open(&self, admission: Admission) -> Result<Driver<Receiver>, OpenError> {
        let socket = UdpSocket::listen(self.listen, self.multicast_source, &self.socket)?;
        Ok(Driver::source(Receiver::default(), Some(socket), None, admission))
    }
}

impl OutputConfig {
    /// Connects a socket to `destination`, which is what ours was looked up to.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open(&self, destination: SocketAddr, limiter: Option<Limiter>) -> Result<Driver<Sender>, OpenError> {
        let socket = UdpSocket::connect(destination, &self.socket)?;
        Ok(Driver::output(Sender::new(self.packet_size_max), socket, None, limiter))
    }
}
