//! `Others`: tables of another network, stream and service (ETSI EN 300 468), that come again in time until they do not.

use std::time::Duration;

use super::{Config, Fault};
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::mux::tables::ORIGINAL_NETWORK;
use crate::proto::mpegts::psi::{Section, finish, length_field, start};

/// When each of [`TABLES`] was sent last. A clean stream has none: each comes with its fault.
#[derive(Debug, Default)]
pub(super) struct Others {
    sent: [Option<Duration>; TABLES.len()],
}

impl Others {
    /// What is due now and where it goes. It fits into one TS packet.
    pub(super) fn due(&mut self, config: &Config, elapsed: Duration) -> Option<(Pid, Section)> {
        let ((_, pid, sections), sent) = TABLES.into_iter().zip(&mut self.sent).find(|((fault, ..), sent)| {
            let every = if config.on_for(*fault, elapsed).is_some() { SLOW } else { IN_TIME };
            config.schedule(*fault).is_some() && sent.is_none_or(|sent| elapsed >= sent + every)
        })?;
        *sent = Some(elapsed);
        Some((pid, sections()))
    }
}

/// EN 300 468 5.2.1: a network without name and streams.
fn nit() -> Section {
    let mut section = start(0x41, ORIGINAL_NETWORK + 1, 0);
    section.extend(length_field(0xf000, 0));
    section.extend(length_field(0xf000, 0));
    finish(section, 0xf000)
}

/// EN 300 468 5.2.3: a stream without services.
fn sdt() -> Section {
    let mut section = start(0x46, STREAM, 0);
    section.extend(ORIGINAL_NETWORK.to_be_bytes());
    section.push(0xff);
    finish(section, 0xf000)
}

/// Both sections, of present and following events, one behind the other.
fn eit() -> Section {
    [0, 1].into_iter().flat_map(half_of_eit).collect()
}

/// EN 300 468 5.2.4: a service without events; 0 for the present one, 1 for the one that follows.
fn half_of_eit(number: u8) -> Section {
    let mut section = start(0x4f, SERVICE, 0);
    section[6..8].copy_from_slice(&[number, 1]);
    section.extend(STREAM.to_be_bytes());
    section.extend(ORIGINAL_NETWORK.to_be_bytes());
    section.extend([1, 0x4f]);
    finish(section, 0xf000)
}

type Make = fn() -> Section;
/// With which fault each comes, where it goes, and what it is.
const TABLES: [(Fault, Pid, Make); 3] =
    [(Fault::NitOtherGap, Pid::NIT, nit), (Fault::SdtOtherGap, Pid::SDT, sdt), (Fault::EitOtherGap, Pid::EIT, eit)];
/// Neither is the signal's own.
const STREAM: u16 = 0x0002;
const SERVICE: u16 = 0x0002;
/// A fifth of what TR 101 290 3.1b, 3.5b and 3.6b allow.
const IN_TIME: Duration = Duration::from_secs(2);
/// Half as much again as they allow.
const SLOW: Duration = Duration::from_secs(15);
