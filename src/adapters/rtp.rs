//! RTP source and output: media on a port, RTCP on the next one (RFC 3550 11).

use std::net::{IpAddr, SocketAddr};

use super::clock;
use super::driver::{Admission, Driver};
use super::host::HostPort;
use super::socket::{OpenError, SocketOptions, UdpSocket};
use crate::bus::Pool;
use crate::path::Limiter;
use crate::proto::Surroundings;
use crate::proto::rtp::{Receiver, ReceiverConfig, Sender, SenderConfig};

/// Where an RTP source listens.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    /// Address to bind, or multicast group to join.
    pub listen: SocketAddr,
    /// Take the group's packets from this sender only (source-specific multicast, RFC 4607).
    pub multicast_source: Option<IpAddr>,
    /// Interface and buffers.
    pub socket: SocketOptions,
    /// Payload type, SSRC, reorder window.
    pub receiver: ReceiverConfig,
}

/// Where an RTP output sends to.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputConfig {
    /// Unicast or multicast.
    pub destination: HostPort,
    /// Interface, TTL, DSCP and buffers.
    pub socket: SocketOptions,
    /// Payload type, SSRC, header kept or new.
    pub sender: SenderConfig,
}

impl SourceConfig {
    /// Binds both ports and joins the group.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open(&self, pool: &Pool, admission: Admission) -> Result<Driver<Receiver>, OpenError> {
        let media = UdpSocket::listen(self.listen, self.multicast_source, &self.socket)?;
        let control = UdpSocket::listen(next_port(self.listen)?, self.multicast_source, &self.socket)?;
        let receiver = Receiver::new(self.receiver.clone(), &surroundings(pool));
        Ok(Driver::source(receiver, Some(media), Some(control), admission))
    }
}

impl OutputConfig {
    /// Connects both sockets to `destination`, which is what ours was looked up to.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open(
        &self,
        destination: SocketAddr,
        pool: &Pool,
        limiter: Option<Limiter>,
    ) -> Result<Driver<Sender>, OpenError> {
        let media = UdpSocket::connect(destination, &self.socket)?;
        let control = UdpSocket::connect(next_port(destination)?, &self.socket)?;
        let sender = Sender::new(self.sender.clone(), &surroundings(pool));
        Ok(Driver::output(sender, media, Some(control), limiter))
    }
}

pub(super) fn surroundings(pool: &Pool) -> Surroundings {
    Surroundings { pool: pool.clone(), seed: fastrand::u64(..), unix_ns_at_zero: clock::unix_ns_at_zero() }
}

fn next_port(address: SocketAddr) -> Result<SocketAddr, OpenError> {
    let port = address.port().checked_add(1).ok_or(OpenError::NoControlPort)?;
    Ok(SocketAddr::new(address.ip(), port))
}
