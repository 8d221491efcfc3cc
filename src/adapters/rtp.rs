//! RTP source and output: media on a port, RTCP on the next one (RFC 3550 11), FEC of columns and rows two and four after
//! it (SMPTE ST 2022-1).

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
    /// Payload type, SSRC, reorder window, FEC.
    pub receiver: ReceiverConfig,
}

/// Where an RTP output sends to.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputConfig {
    /// Unicast or multicast.
    pub destination: HostPort,
    /// Interface, TTL, DSCP and buffers.
    pub socket: SocketOptions,
    /// Payload type, SSRC, header kept or new, FEC.
    pub sender: SenderConfig,
}

impl SourceConfig {
    /// Binds the ports and joins the group.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open(&self, pool: &Pool, admission: Admission) -> Result<Driver<Receiver>, OpenError> {
        let listen =
            |distance| UdpSocket::listen(port_after(self.listen, distance)?, self.multicast_source, &self.socket);
        let receiver = Receiver::new(self.receiver.clone(), &surroundings(pool));
        let driver = Driver::source(receiver, Some(listen(0)?), Some(listen(CONTROL)?), admission);
        Ok(if self.receiver.fec { driver.with_fec(listen(FEC_COLUMNS)?, listen(FEC_ROWS)?) } else { driver })
    }
}

impl OutputConfig {
    /// Connects the sockets to `destination`, which is what ours was looked up to.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open(
        &self,
        destination: SocketAddr,
        pool: &Pool,
        limiter: Option<Limiter>,
    ) -> Result<Driver<Sender>, OpenError> {
        let connect = |distance| UdpSocket::connect(port_after(destination, distance)?, &self.socket);
        let sender = Sender::new(self.sender.clone(), &surroundings(pool));
        let driver = Driver::output(sender, connect(0)?, Some(connect(CONTROL)?), limiter);
        let has_fec = self.sender.fec.is_some();
        Ok(if has_fec { driver.with_fec(connect(FEC_COLUMNS)?, connect(FEC_ROWS)?) } else { driver })
    }
}

pub(super) fn surroundings(pool: &Pool) -> Surroundings {
    Surroundings { pool: pool.clone(), seed: fastrand::u64(..), unix_ns_at_zero: clock::unix_ns_at_zero() }
}

fn port_after(address: SocketAddr, distance: u16) -> Result<SocketAddr, OpenError> {
    let port = address.port().checked_add(distance).ok_or(OpenError::NoControlPort)?;
    Ok(SocketAddr::new(address.ip(), port))
}

/// How far after the media's port the others are.
const CONTROL: u16 = 1;
const FEC_COLUMNS: u16 = 2;
const FEC_ROWS: u16 = 4;
