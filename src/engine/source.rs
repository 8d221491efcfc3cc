//! Opens the adapter of a source.

use std::net::SocketAddr;

use super::config::{SourceConfig, SourceEndpoint};
use crate::adapters::{Admission, Driven, Driver, Host, HostPort, OpenError, clock};
use crate::bus::Pool;
use crate::path::Limiter;
use crate::proto::Surroundings;
use crate::proto::mpegts::Generator;

/// Opens what the configuration asks for; it listens from now on, but is read only once it is on a worker.
pub(super) fn open(config: &SourceConfig, pool: &Pool) -> Result<Box<dyn Driven>, OpenError> {
    let now = clock::now();
    let limiter = config.limit.map(|limit| Limiter::new(limit, now));
    let admission = Admission { allow: config.allow.clone(), limiter };
    Ok(match &config.endpoint {
        SourceEndpoint::Udp(udp) => Box::new(udp.open(admission)?),
        SourceEndpoint::Rtp(rtp) => Box::new(rtp.open(pool, admission)?),
        SourceEndpoint::Srt(srt) => {
            let HostPort { host, port } = srt.address();
            // The parser lets no name through.
            let Host::Ip(ip) = host else {
                return Err(OpenError::Resolve { host: host.to_string(), problem: "write its IP address".into() });
            };
            srt.open_source(SocketAddr::new(*ip, *port), pool, admission)?
        }
        SourceEndpoint::Test(test) => {
            let surroundings = Surroundings { pool: pool.clone(), seed: 0, unix_ns_at_zero: clock::unix_ns_at_zero() };
            Box::new(Driver::source(Generator::new(*test, &surroundings), None, None, Admission::default()))
        }
    })
}

impl SourceEndpoint {
    /// The protocol's name in metrics.
    #[must_use]
    pub const fn protocol(&self) -> &'static str {
        match self {
            Self::Udp(_) => "udp",
            Self::Rtp(_) => "rtp",
            Self::Srt(_) => "srt",
            Self::Test(_) => "test",
        }
    }
}
