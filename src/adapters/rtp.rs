//! RTP source and output: media on a port, RTCP on the next one (RFC 3550 11), FEC of columns and rows two and four after
//! it (SMPTE ST 2022-1).

use std::net::{IpAddr, SocketAddr};

use super::clock;
use super::driven::{Admission, Driven};
use super::driver::Driver;
use super::host::{Host, HostPort};
use super::legs::{LegConfig, Legs};
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
    /// Where the same datagrams go beside that (SMPTE ST 2022-7), at most one less than [`LEGS_MAX`](super::LEGS_MAX); all differ. TTL, DSCP and
    /// buffers are those of `socket`.
    pub legs: Vec<LegConfig>,
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
    /// Connects the sockets to `destination`, which is what ours was looked up to, and those of all legs. If not `every` leg
    /// is needed, those that cannot be opened now are tried again later.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open(
        &self,
        destination: SocketAddr,
        pool: &Pool,
        limiter: Option<Limiter>,
        every: bool,
    ) -> Result<Box<dyn Driven>, OpenError> {
        if !self.legs.is_empty() {
            let (sender, socket) = ((&self.sender, pool), (&self.socket, limiter));
            return Ok(Box::new(Legs::open(sender, socket, self.all_legs(destination), (every, clock::now()))?));
        }
        let leg = LegConfig { address: destination, interface: self.socket.interface.clone() };
        let (media, control, fec) = open_sockets(&leg, &self.socket, self.sender.fec.is_some())?;
        let sender = Sender::new(self.sender.clone(), &surroundings(pool));
        let driver = Driver::output(sender, media, Some(control), limiter);
        Ok(Box::new(match fec {
            Some([columns, rows]) => driver.with_fec(columns, rows),
            None => driver,
        }))
    }

    /// Every leg; `destination` is what ours was looked up to.
    pub(super) fn all_legs(&self, destination: SocketAddr) -> Vec<LegConfig> {
        let first = LegConfig { address: destination, interface: self.socket.interface.clone() };
        std::iter::once(first).chain(self.legs.iter().cloned()).collect()
    }

    /// Whether all that differs between the two is where legs of several lead, so that one becomes the other without
    /// those that stay noticing it. A name in place of the first leg's address would have to be looked up.
    #[must_use]
    pub fn differs_in_legs_only(&self, other: &Self) -> bool {
        let socket = SocketOptions { interface: other.socket.interface.clone(), ..self.socket.clone() };
        let has_address =
            self.destination.host == other.destination.host || matches!(other.destination.host, Host::Ip(_));
        self != other
            && !self.legs.is_empty()
            && !other.legs.is_empty()
            && has_address
            && (&self.sender, &socket) == (&other.sender, &other.socket)
    }

    /// Whether the sockets of all further legs can be opened; nothing is kept.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn check_legs(&self) -> Result<(), OpenError> {
        let has_fec = self.sender.fec.is_some();
        let first = match self.destination.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.destination.port)),
            Host::Name(_) => None,
        };
        let legs = first.map_or_else(|| self.legs.clone(), |first| self.all_legs(first));
        legs.iter().try_for_each(|leg| open_sockets(leg, &self.socket, has_fec).map(drop))
    }
}

/// Sockets of one leg for media, control, and columns and rows of FEC if there is any.
pub(super) fn open_sockets(
    leg: &LegConfig,
    socket: &SocketOptions,
    has_fec: bool,
) -> Result<(UdpSocket, UdpSocket, Option<[UdpSocket; 2]>), OpenError> {
    let socket = SocketOptions { interface: leg.interface.clone(), ..socket.clone() };
    let connect = |distance| UdpSocket::connect(port_after(leg.address, distance)?, &socket);
    let fec = if has_fec { Some([connect(FEC_COLUMNS)?, connect(FEC_ROWS)?]) } else { None };
    Ok((connect(0)?, connect(CONTROL)?, fec))
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
