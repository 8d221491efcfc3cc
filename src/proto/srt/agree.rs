//! What two sides settle in a handshake (draft 4.3).

use std::net::SocketAddr;
use std::time::Duration;

use super::config::Config;
use super::connection::Settled;
use super::crypto::{Crypto, Derivation, Kek, KeyLength};
use super::error::Rejection;
use super::filter;
use super::group::GroupKind;
use super::handshake::{
    Capabilities, Extension, Extensions, GROUP_BY_MESSAGES, GROUP_ID, Group, Handshake, SRT_VERSION, SRT_VERSION_MIN,
    Stage, extension, flags,
};
use super::packet::HEADER_BYTES;
use crate::units::{Seq, Time};

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

/// Writes a conclusion that asks: what we want, and our keys.
pub(super) fn write_request(
    handshake: Handshake,
    config: &Config,
    keys: Option<&(Crypto, Vec<u8>)>,
    group: Option<Group>,
    out: &mut Vec<u8>,
) {
    let stream_id = Some(&config.stream_id).filter(|id| !id.is_empty());
    let has_more = stream_id.is_some() || config.packet_filter.is_some() || group.is_some();
    let handshake = Handshake {
        version: 5,
        stage: Stage::Conclusion,
        encryption: keys.map_or(0, |(crypto, _)| key_units(crypto.length())),
        extension: extensions(keys.is_some(), has_more),
        ..handshake
    };
    handshake.write(out);
    Extension::Request(request(config)).write(out);
    if let Some((_, announcement)) = keys {
        Extension::KeyRequest(announcement).write(out);
    }
    if let Some(id) = stream_id {
        Extension::StreamId(id.clone()).write(out);
    }
    if let Some(filter) = &config.packet_filter {
        Extension::Filter(filter.to_string()).write(out);
    }
    if let Some(group) = group {
        Extension::Group(group).write(out);
    }
}

/// Writes a conclusion that answers.
pub(super) fn write_response(
    handshake: Handshake,
    config: &Config,
    taken: &Taken,
    group: Option<Group>,
    out: &mut Vec<u8>,
) {
    let handshake = Handshake {
        version: 5,
        stage: Stage::Conclusion,
        encryption: taken.key_length.map_or(0, key_units),
        extension: extensions(taken.key_length.is_some(), group.is_some() || taken.filter.is_some()),
        ..handshake
    };
    handshake.write(out);
    Extension::Response(respond(config, &taken.request)).write(out);
    if let Some(announcement) = &taken.announcement {
        Extension::KeyResponse(announcement).write(out);
    }
    if let Some(agreed) = &taken.filter {
        Extension::Filter(agreed.config.to_string()).write(out);
    }
    if let Some(group) = group {
        Extension::Group(group).write(out);
    }
}

const fn extensions(has_keys: bool, has_more: bool) -> u16 {
    extension::HANDSHAKE | if has_keys { extension::KEYS } else { 0 } | if has_more { extension::CONFIG } else { 0 }
}

/// A length of keys as handshakes give it.
pub(super) const fn key_units(length: KeyLength) -> u16 {
    (length.bytes() / 8) as u16
}

/// What is to become of somebody who asks and is not refused.
pub(super) enum Verdict {
    Take(Box<Taken>),
    /// What his keys are wrapped with must be known first.
    Needs(Derivation),
}

/// What was agreed on with somebody who asked.
pub(super) struct Taken {
    pub request: Capabilities,
    pub filter: Option<filter::Agreed>,
    pub crypto: Option<Crypto>,
    pub key_length: Option<KeyLength>,
    pub announcement: Option<Vec<u8>>,
}

/// Whether we can be what the other side asks for; with `kek`, if his keys need one.
///
/// # Errors
/// What he shall be told.
pub(super) fn take(config: &Config, wishes: &Wishes, kek: Option<Kek>) -> Result<Verdict, Rejection> {
    let request = wishes.check()?;
    let filter = filter::answer(config.packet_filter.as_ref(), wishes.filter.as_deref())?;
    let crypto = match (&config.passphrase, &wishes.key_request) {
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(Rejection::UNSECURE),
        (Some(passphrase), Some(announcement)) => {
            let (cipher, refresh) = (Some(config.cipher), config.refresh());
            let Some(kek) = kek else {
                return Ok(Verdict::Needs(Derivation::answer(passphrase, cipher, announcement)?));
            };
            let mut crypto = Crypto::respond(passphrase, kek, cipher, refresh, announcement)?;
            crypto.set_peer_version(request.version);
            Some(crypto)
        }
    };
    let key_length = crypto.as_ref().map(Crypto::length);
    let announcement = wishes.key_request.clone();
    Ok(Verdict::Take(Box::new(Taken { request, filter, crypto, key_length, announcement })))
}

/// Whether the answer to what we asked for is one: the outcome.
///
/// # Errors
/// Why there will be no connection.
pub(super) fn conclude(
    config: &Config,
    parties: Parties,
    handshake: &Handshake,
    wishes: &Wishes,
    keys: &mut Option<(Crypto, Vec<u8>)>,
) -> Result<Settled, Rejection> {
    let response = wishes.response.ok_or(Rejection::ROGUE)?;
    match (keys, wishes.key_response.as_deref()) {
        (None, None) => {}
        (None, Some(_)) => return Err(Rejection::UNSECURE),
        (Some((crypto, _)), answer) => {
            crypto.set_peer_version(response.version);
            crypto.settle(answer)?;
        }
    }
    let filter = filter::conclude(config.packet_filter.as_ref(), wishes.filter.as_deref())?;
    let latencies = Latencies { receive: response.send_latency, send: response.receive_latency };
    let settled = settle(config, parties, handshake, &response, latencies);
    Ok(Settled { filter: filter.map(|agreed| agreed.settled), ..settled })
}

/// The outcome for the side that answered.
pub(super) fn answered(config: &Config, parties: Parties, handshake: &Handshake, taken: &Taken) -> Settled {
    let response = respond(config, &taken.request);
    let latencies = Latencies { receive: response.receive_latency, send: response.send_latency };
    let settled = settle(config, parties, handshake, &taken.request, latencies);
    Settled { filter: taken.filter.as_ref().map(|agreed| agreed.settled), ..settled }
}

/// What we ask for.
fn request(config: &Config) -> Capabilities {
    Capabilities {
        version: SRT_VERSION,
        flags: our_flags(config),
        receive_latency: config.receive_latency,
        send_latency: config.peer_latency,
    }
}

/// What we answer to a request: of each wish the longer latency.
fn respond(config: &Config, request: &Capabilities) -> Capabilities {
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
    /// Our first sequence number.
    pub initial: Seq<31>,
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
    let Parties { local_id, peer: address, epoch, initial, base: (base_arrival, base_timestamp) } = parties;
    let mtu = usize::from(config.mtu).min(handshake.mtu as usize);
    Settled {
        local_id,
        peer_id: handshake.socket_id,
        peer: address,
        epoch,
        initial,
        peer_initial: handshake.initial,
        receive_latency: latencies.receive,
        send_latency: latencies.send,
        too_late_drop: config.too_late_drop && peer.has(flags::TOO_LATE_DROP),
        peer_nak_reports: peer.has(flags::NAK_REPORT),
        base_arrival,
        base_timestamp,
        flow_window: handshake.flow_window.max(FLOW_WINDOW_MIN),
        filter: None,
        payload_max: payload_max(mtu, address.is_ipv4()),
    }
}

/// What an IP packet of so many bytes leaves for the payload.
pub(super) fn payload_max(mtu: usize, is_ipv4: bool) -> usize {
    let ip_header = if is_ipv4 { 20 } else { 40 };
    mtu.saturating_sub(ip_header + UDP_HEADER_BYTES + HEADER_BYTES).max(PAYLOAD_MIN)
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
