//! What two sides settle in a handshake (draft 4.3).

use std::net::SocketAddr;
use std::time::Duration;

use super::config::Config;
use super::connection::Settled;
use super::error::Rejection;
use super::group::GroupKind;
use super::handshake::{
    Capabilities, Extension, Extensions, GROUP_BY_MESSAGES, GROUP_ID, Group, Handshake, SRT_VERSION, SRT_VERSION_MIN,
    flags,
};
use super::packet::HEADER_BYTES;
use crate::units::Time;

/// A peer's extensions, sorted.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub request: Option<Capabilities>,
    pub response: Option<Capabilities>,
    pub stream_id: String,
    pub key_request: Option<Vec<u8>>,
    pub key_response: Option<Vec<u8>>,
    pub group: Option<Group>,
    pub filter: Option<String>,
    pub congestion: Option<String>,
}

impl Wishes {
    /// Sorts the extensions; of repeated ones the last counts.
    ///
    /// # Errors
    /// [`Rejection::ROGUE`] if one is cut or contradictory, [`Rejection::FILTER`] if there are two filters.
    pub(super) fn of(extensions: Extensions<'_>) -> Result<Self, Rejection> {
        let mut wishes = Self::default();
        for extension in extensions {
            match extension.map_err(|_| Rejection::ROGUE)? {
                Extension::Request(capabilities) => wishes.request = Some(capabilities),
                Extension::Response(capabilities) => wishes.response = Some(capabilities),
                Extension::KeyRequest(material) => wishes.key_request = Some(material.to_vec()),
                Extension::KeyResponse(material) => wishes.key_response = Some(material.to_vec()),
                Extension::StreamId(id) => wishes.stream_id = id,
                Extension::Congestion(name) => wishes.congestion = Some(name),
                // libsrt takes the last of all others, but not of these.
                Extension::Filter(filter) => match wishes.filter.replace(filter) {
                    None => {}
                    Some(_) => return Err(Rejection::FILTER),
                },
                Extension::Group(group) => wishes.group = Some(group),
                Extension::Unknown(_) => {}
            }
        }
        Ok(wishes)
    }

    /// Whether a listener can take a caller who wishes this.
    ///
    /// # Errors
    /// What it shall be told.
    pub(super) fn check(&self) -> Result<Capabilities, Rejection> {
        let request = self.request.ok_or(Rejection::ROGUE)?;
        if request.version < SRT_VERSION_MIN {
            return Err(Rejection::VERSION);
        }
        if self.congestion.as_deref().is_some_and(|name| name != "live") {
            return Err(Rejection::CONGESTION);
        }
        if request.has(flags::STREAM) {
            return Err(Rejection::MESSAGE_API);
        }
        if let Some(group) = &self.group {
            check_group(group)?;
        }
        Ok(request)
    }
}

/// Whether it is a group that we know how to be the other end of.
fn check_group(group: &Group) -> Result<(), Rejection> {
    if group.id & GROUP_ID == 0 {
        return Err(Rejection::ROGUE);
    }
    let is_known = GroupKind::of(group.kind).is_some() && group.flags & GROUP_BY_MESSAGES == 0;
    if is_known { Ok(()) } else { Err(Rejection::GROUP) }
}

/// What we ask for.
pub(super) fn request(config: &Config) -> Capabilities {
    Capabilities {
        version: SRT_VERSION,
        flags: our_flags(config),
        receive_latency: config.receive_latency,
        send_latency: config.peer_latency,
    }
}

/// What we answer to a request: of each wish the longer latency.
pub(super) fn respond(config: &Config, request: &Capabilities) -> Capabilities {
    Capabilities {
        version: SRT_VERSION,
        flags: our_flags(config),
        receive_latency: config.receive_latency.max(request.send_latency),
        send_latency: config.peer_latency.max(request.receive_latency),
    }
}

/// Latencies as they hold for one side: what it receives with, and what its peer receives with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latencies {
    pub receive: Duration,
    pub send: Duration,
}

/// Who settles what with whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parties {
    pub local_id: u32,
    pub peer: SocketAddr,
    pub epoch: Time,
    /// Arrival and timestamp of the peer's packet with its extension.
    pub base: (Time, u32),
}

/// The outcome, from what the peer announced.
pub(super) fn settle(
    config: &Config,
    parties: Parties,
    handshake: &Handshake,
    peer: &Capabilities,
    latencies: Latencies,
) -> Settled {
    let Parties { local_id, peer: address, epoch, base: (base_arrival, base_timestamp) } = parties;
    let ip_header = if address.is_ipv4() { 20 } else { 40 };
    let mtu = usize::from(config.mtu).min(handshake.mtu as usize);
    Settled {
        local_id,
        peer_id: handshake.socket_id,
        peer: address,
        epoch,
        initial: handshake.initial,
        receive_latency: latencies.receive,
        send_latency: latencies.send,
        too_late_drop: config.too_late_drop && peer.has(flags::TOO_LATE_DROP),
        peer_nak_reports: peer.has(flags::NAK_REPORT),
        base_arrival,
        base_timestamp,
        flow_window: handshake.flow_window.max(FLOW_WINDOW_MIN),
        filter: None,
        payload_max: mtu.saturating_sub(ip_header + UDP_HEADER_BYTES + HEADER_BYTES).max(PAYLOAD_MIN),
    }
}

fn our_flags(config: &Config) -> u32 {
    let mut all = flags::TSBPD_SENDER | flags::TSBPD_RECEIVER | flags::CRYPT | flags::REXMIT_FLAG | flags::FILTER;
    if config.too_late_drop {
        all |= flags::TOO_LATE_DROP;
    }
    if config.nak_reports {
        all |= flags::NAK_REPORT;
    }
    all
}

const UDP_HEADER_BYTES: usize = 8;
/// libsrt's least MSS is 76 bytes; below this nothing of use can be sent.
const PAYLOAD_MIN: usize = 188;
/// libsrt's least window.
const FLOW_WINDOW_MIN: u32 = 32;
