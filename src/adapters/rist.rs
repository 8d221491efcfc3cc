//! RIST source and output: media on a port and RTCP on the next one (Simple profile), or both on one (Main profile).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::clock;
use super::driven::{Admission, Driven};
use super::driver::Driver;
use super::host::HostPort;
use super::socket::{OpenError, SocketOptions, UdpSocket};
use crate::bus::Pool;
use crate::proto::Surroundings;
use crate::proto::rist::srp::Accounts;
use crate::proto::rist::{Config, Leg, Profile, Receiver, Sender};

/// One end of a RIST session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Who calls whom.
    pub side: Side,
    /// Profile, buffer, secret, limits.
    pub session: Config,
    /// Authentication by EAP-SRP, Main profile only: of a caller who he is, of a listener whom it lets in.
    pub login: Option<Accounts>,
    /// Interface, TTL, DSCP and buffers.
    pub socket: SocketOptions,
}

/// Who calls whom. In the Simple profile it is always the sender who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// We call.
    Caller {
        /// Whom.
        peer: HostPort,
    },
    /// We wait on this address.
    Listener {
        /// As a destination, so that everything that names one is looked at alike.
        listen: HostPort,
    },
    /// We call one receiver over several paths; outputs only.
    Bonded {
        /// The first of them, for whoever wants one address.
        first: HostPort,
        /// All of them: 1 to [`Sender::PEERS_MAX`], of one address family.
        legs: Vec<Leg>,
    },
}

impl EndpointConfig {
    /// Whether it holds a port of this machine that was asked for.
    #[must_use]
    pub const fn holds_port(&self) -> bool {
        matches!(self.side, Side::Listener { .. })
    }

    /// The address that is called, or listened on.
    #[must_use]
    pub const fn address(&self) -> &HostPort {
        match &self.side {
            Side::Caller { peer } => peer,
            Side::Bonded { first, .. } => first,
            Side::Listener { listen } => listen,
        }
    }

    /// Opens a source; `address` is what ours was looked up to. One that calls speaks the Main profile.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open_source(
        &self,
        address: SocketAddr,
        pool: &Pool,
        admission: Admission,
    ) -> Result<Box<dyn Driven>, OpenError> {
        let (config, surroundings) = (self.session.clone(), surroundings(pool));
        let (media, control, core) = match (&self.side, config.profile) {
            (Side::Caller { .. } | Side::Bonded { .. }, _) => {
                let socket = UdpSocket::call(address, None, &self.socket)?;
                (socket, None, Receiver::calling(config, &surroundings))
            }
            (Side::Listener { .. }, Profile::Main) => {
                let socket = UdpSocket::serve(address, &self.socket)?;
                (socket, None, Receiver::listening(config, &surroundings))
            }
            (Side::Listener { .. }, Profile::Simple) => {
                let media = UdpSocket::listen(address, None, &self.socket)?;
                let control = UdpSocket::serve(next_port(address)?, &self.socket)?;
                (media, Some(control), Receiver::listening(config, &surroundings))
            }
        };
        let core = match &self.login {
            Some(accounts) => core.authenticated(accounts.clone(), seed(address)?),
            None => core,
        };
        Ok(Box::new(Driver::source(core, Some(media), control, admission)))
    }

    /// Opens an output; `address` is what ours was looked up to. One that listens speaks the Main profile.
    ///
    /// # Errors
    /// What the system refused, with the address.
    pub fn open_output(
        &self,
        address: SocketAddr,
        pool: &Pool,
        admission: Admission,
    ) -> Result<Box<dyn Driven>, OpenError> {
        let (config, surroundings) = (self.session.clone(), surroundings(pool));
        let seed = self.login.as_ref().map(|_| seed(address)).transpose()?;
        let login = |core: Sender| match (&self.login, seed) {
            (Some(accounts), Some(seed)) => core.authenticated(accounts.clone(), seed),
            _ => core,
        };
        Ok(match (&self.side, config.profile) {
            (Side::Listener { .. }, _) => {
                let socket = UdpSocket::serve(address, &self.socket)?;
                Box::new(Driver::serving(login(Sender::listening(config, &surroundings)), socket, admission))
            }
            (Side::Bonded { legs, .. }, profile) => {
                // Each is reached by whichever way the system has to it.
                let any = SocketAddr::new(any(address), 0);
                let core = login(Sender::bonding(config, &surroundings, legs));
                let media = UdpSocket::serve(any, &self.socket)?;
                if profile == Profile::Main {
                    Box::new(Driver::conversation(core, media, admission))
                } else {
                    let control = UdpSocket::serve(any, &self.socket)?;
                    Box::new(Driver::output(core, media, Some(control), admission.limiter))
                }
            }
            (Side::Caller { .. }, Profile::Main) => {
                let socket = UdpSocket::call(address, None, &self.socket)?;
                Box::new(Driver::conversation(login(Sender::calling(config, &surroundings)), socket, admission))
            }
            (Side::Caller { .. }, Profile::Simple) => {
                let media = UdpSocket::connect(address, &self.socket)?;
                let control = UdpSocket::call(next_port(address)?, None, &self.socket)?;
                let core = Sender::calling(config, &surroundings);
                Box::new(Driver::output(core, media, Some(control), admission.limiter))
            }
        })
    }
}

fn surroundings(pool: &Pool) -> Surroundings {
    Surroundings { pool: pool.clone(), seed: fastrand::u64(..), unix_ns_at_zero: clock::unix_ns_at_zero() }
}

/// What secret numbers are made of.
fn seed(address: SocketAddr) -> Result<[u8; 32], OpenError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| OpenError::System {
        action: "draw random numbers for",
        address: address.to_string(),
        problem: error.to_string(),
    })?;
    Ok(seed)
}

/// The unspecified address of the family of `like`.
const fn any(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}

fn next_port(address: SocketAddr) -> Result<SocketAddr, OpenError> {
    let port = address.port().checked_add(1).ok_or(OpenError::NoControlPort)?;
    Ok(SocketAddr::new(address.ip(), port))
}
