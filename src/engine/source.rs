//! Opens the adapter of a source.

use super::config::{SourceConfig, SourceEndpoint, TestConfig, TestSignal};
use super::output::srt_tuning;
use super::resolver::{Addresses, Opened};
use crate::adapters::{Admission, Driven, Driver, Ports, Tuning, clock, srt};
use crate::bus::Pool;
use crate::path::Limiter;
use crate::proto::mpegts::faults::Faulty;
use crate::proto::mpegts::{Generator, TestPicture};
use crate::proto::{Core, Surroundings};

/// Opens what the configuration asks for, at the address that its name was looked up to; it listens from now on, but is
/// read only once it is on a worker.
pub(super) fn open(config: &SourceConfig, addresses: &Addresses, (pool, ports): (&Pool, &Ports)) -> Opened {
    let now = clock::now();
    let limiter = config.limit.map(|limit| Limiter::new(limit, now));
    let admission = Admission { allow: config.allow.clone(), limiter };
    let opened = match &config.endpoint {
        SourceEndpoint::Udp(udp) => udp.open(admission).map(|driver| Box::new(driver) as Box<dyn Driven>),
        SourceEndpoint::Rtp(rtp) => rtp.open(pool, admission).map(|driver| Box::new(driver) as Box<dyn Driven>),
        SourceEndpoint::Srt(srt) => match addresses.find(srt.address()) {
            None => return Opened::Nameless(srt.address().host.to_string()),
            Some(address) => address.and_then(|address| srt.open_source(address, (pool, ports), admission)),
        },
        SourceEndpoint::Rist(rist) => match addresses.find(rist.address()) {
            None => return Opened::Nameless(rist.address().host.to_string()),
            Some(address) => address.and_then(|address| rist.open_source(address, pool, admission)),
        },
        SourceEndpoint::Rtmp(rtmp) => match addresses.find(rtmp.address()) {
            None => return Opened::Nameless(rtmp.address().host.to_string()),
            Some(address) => address.and_then(|address| rtmp.open_source(address, (pool, ports), admission)),
        },
        SourceEndpoint::Test(test) => Ok(open_test(test, pool)),
    };
    opened.map_or_else(Opened::Failed, Opened::Ready)
}

fn open_test(test: &TestConfig, pool: &Pool) -> Box<dyn Driven> {
    let surroundings = Surroundings { pool: pool.clone(), seed: 0, unix_ns_at_zero: clock::unix_ns_at_zero() };
    let faults = test.faults;
    match &test.signal {
        TestSignal::Numbers(config) if faults.is_any() => {
            test_driver(Faulty::new(Generator::new(*config, &surroundings), faults, surroundings.seed))
        }
        TestSignal::Numbers(config) => test_driver(Generator::new(*config, &surroundings)),
        TestSignal::Picture(config) => {
            let picture = TestPicture::new(*config, &surroundings).with_faults(faults);
            if faults.is_any() {
                test_driver(Faulty::new(picture, faults, surroundings.seed))
            } else {
                test_driver(picture)
            }
        }
    }
}

fn test_driver<C: Core + Send + 'static>(core: C) -> Box<dyn Driven> {
    Box::new(Driver::source(core, None, None, Admission::default()))
}

impl SourceEndpoint {
    /// The protocol's name in metrics.
    #[must_use]
    pub const fn protocol(&self) -> &'static str {
        match self {
            Self::Udp(_) => "udp",
            Self::Rtp(rtp) if rtp.receiver.fec => "rtp-fec",
            Self::Rtp(_) => "rtp",
            Self::Srt(_) => "srt",
            Self::Rist(_) => "rist",
            Self::Rtmp(_) => "rtmp",
            Self::Test(_) => "test",
        }
    }

    /// Whether its packets have a sequence number, as merging needs.
    #[must_use]
    pub fn has_sequence(&self) -> bool {
        match self {
            Self::Rtp(_) | Self::Rist(_) => true,
            Self::Srt(srt) => matches!(srt.payload, srt::Payload::Rtp(_)),
            Self::Udp(_) | Self::Rtmp(_) | Self::Test(_) => false,
        }
    }

    /// Whether it can tell what was lost on the way.
    #[must_use]
    pub const fn counts_losses(&self) -> bool {
        match self {
            Self::Rtp(_) | Self::Srt(_) | Self::Rist(_) => true,
            // What TCP loses nobody sees.
            Self::Udp(_) | Self::Rtmp(_) | Self::Test(_) => false,
        }
    }

    /// What of it may change while it is open, if that is all that differs from `other`, and something does.
    #[must_use]
    pub fn tuning_from(&self, other: &Self) -> Option<Tuning> {
        match (self, other) {
            (Self::Srt(new), Self::Srt(old)) => srt_tuning(new, old),
            (Self::Rtmp(new), Self::Rtmp(old)) => new.tuning_from(old).map(Tuning::Rtmp),
            (Self::Udp(_) | Self::Rtp(_) | Self::Srt(_) | Self::Rist(_) | Self::Rtmp(_) | Self::Test(_), _) => None,
        }
    }
}
