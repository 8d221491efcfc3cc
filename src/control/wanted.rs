//! What a flow's JSON means: the engine's configuration, or the field that cannot be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::model::{
    self, Algorithm, Encryption, Failover, FailoverState, Flow, Output, OutputState, Port, Protocol, Source, WindowMs,
};
use super::problem::{Code, Problem};
use crate::adapters::{Host, HostPort, LEGS_MAX, SocketOptions, rist, rtp, srt, udp};
use crate::bus::LagPolicy;
use crate::engine::config::{OUTPUTS_MAX, SOURCES_MAX};
use crate::engine::url::{UrlError, parse_leg, parse_output, parse_source};
use crate::engine::{
    FailoverConfig, FailoverMode, FlowConfig, MergeConfig, MonitorConfig, OutputConfig, OutputEndpoint, SourceConfig,
    SourceEndpoint, diff,
};
use crate::media::watch::THUMBNAIL_EVERY;
use crate::path::failover::{KEY_FRAME_WAIT, SwitchAt};
use crate::path::merge::{Mode as Release, RecoveryWindow};
use crate::path::{AllowList, Cidr, health, limit};
use crate::proto::fec::Matrix;
use crate::proto::rist::{self as rist_core, crypto::SecretError};
use crate::proto::rtp::{ReceiverConfig, SenderConfig};
use crate::proto::srt::Config;
use crate::proto::srt::crypto::{KeyLength, PassphraseError};
use crate::units::{IdError, OutputName, SourceName};

/// A flow that can be run: what the user wrote, tidied, and what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    flow: Flow,
    config: FlowConfig,
}

/// What applies where a flow says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The active source may be silent for this long.
    pub health_timeout: Duration,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { health_timeout: FailoverConfig::default().health_timeout }
    }
}

impl Wanted {
    /// Decides what `flow` means. `source` moves into `sources`, fields that only answers have are emptied, and
    /// `protocol` is filled in.
    ///
    /// # Errors
    /// The field at fault and the fix.
    pub fn new(flow: Flow, defaults: &Defaults) -> Result<Self, Problem> {
        let mut flow = tidy(flow)?;
        check_text("name", &flow.name)?;
        if flow.sources.is_empty() {
            return Err(Problem::at("sources", Code::MissingField, "a flow needs at least one source"));
        }
        check_count("sources", flow.sources.len(), SOURCES_MAX)?;
        check_count("outputs", flow.outputs.len(), OUTPUTS_MAX)?;
        check_names("sources", flow.sources.iter().map(|source| source.name.as_str()))?;
        check_names("outputs", flow.outputs.iter().map(|output| output.name.as_str()))?;
        check_not_yet(&flow)?;
        let config = FlowConfig {
            name: flow.name.clone(),
            sources: each("sources", &mut flow.sources, source_config)?,
            outputs: each("outputs", &mut flow.outputs, output_config)?,
            failover: failover_config(&flow, defaults).map_err(|problem| problem.inside("source_failover_config"))?,
            monitor: monitor_config(&flow),
        };
        check_merge(&flow, &config.sources)?;
        check_rules(&flow, &config.sources)?;
        Ok(Self { flow, config })
    }

    /// What the user wrote, tidied: this is what the store keeps.
    #[must_use]
    pub const fn flow(&self) -> &Flow {
        &self.flow
    }

    /// What the engine runs.
    #[must_use]
    pub const fn config(&self) -> &FlowConfig {
        &self.config
    }
}

/// The body of the fuzz target `flow_json`, which tests call as well: what is accepted is kept and shown as text that
/// is accepted again and means the same.
///
/// # Panics
/// If it means something else.
pub fn check_any_bytes(bytes: &[u8]) {
    let defaults = Defaults::default();
    let Ok(wanted) = Flow::from_json(bytes).and_then(|flow| Wanted::new(flow, &defaults)) else {
        return;
    };
    let stored = serde_json::to_vec(wanted.flow()).unwrap_or_default();
    let again = Flow::from_json(&stored).and_then(|flow| Wanted::new(flow, &defaults));
    assert_eq!(again, Ok(wanted));
}

fn tidy(flow: Flow) -> Result<Flow, Problem> {
    let mut sources = flow.sources;
    if let Some(first) = flow.source {
        match sources.iter().find(|source| source.name == first.name) {
            None => sources.insert(0, first),
            // An answer that was sent back has it in both places.
            Some(same) if without_status(same) == without_status(&first) => {}
            Some(_) => {
                let message = "differs from the entry of the same name in sources: leave one of the two out";
                return Err(Problem::at("source", Code::InvalidValue, message));
            }
        }
    }
    sources.iter_mut().for_each(|source| source.status = None);
    Ok(Flow {
        id: None,
        status: None,
        source: None,
        sources,
        created_at: None,
        updated_at: None,
        started_at: None,
        stopped_at: None,
        ..flow
    })
}

fn without_status(source: &Source) -> Source {
    Source { status: None, ..source.clone() }
}

fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    let bytes_max = 256;
    if text.is_empty() {
        Err(Problem::at(field, Code::MissingField, "must not be empty"))
    } else if text.len() > bytes_max || text.chars().any(char::is_control) {
        let message = format!("must have at most {bytes_max} bytes and no control characters");
        Err(Problem::at(field, Code::InvalidValue, message))
    } else {
        Ok(())
    }
}

fn check_count(field: &str, count: usize, max: usize) -> Result<(), Problem> {
    let message = || format!("{count} are given, at most {max} are allowed");
    if count <= max { Ok(()) } else { Err(Problem::at(field, Code::TooMany, message())) }
}

fn check_names<'flow>(list: &str, names: impl Iterator<Item = &'flow str>) -> Result<(), Problem> {
    let mut seen = std::collections::BTreeSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            let message = format!("{name} is the name of another one in this flow: names must differ");
            return Err(Problem::at(format!("{list}[{index}].name"), Code::DuplicateName, message));
        }
    }
    Ok(())
}

fn monitor_config(flow: &Flow) -> MonitorConfig {
    let given = flow.source_monitor_config.clone().unwrap_or_default();
    let every = given.thumbnail_interval_sec.map_or(THUMBNAIL_EVERY, |seconds| Duration::from_secs(seconds.value()));
    let outputs = flow.outputs.iter().filter(|output| output.ts_analysis_enabled == Some(true));
    MonitorConfig {
        ts_analysis: given.ts_analysis_enabled.unwrap_or(true),
        // Names have been checked before.
        outputs: outputs.filter_map(|output| output.name.parse().ok()).collect(),
        thumbnail_every: given.thumbnail_enabled.then_some(every),
        content_quality: given.content_quality_enabled,
    }
}

/// Better refused than silently not done.
fn check_not_yet(flow: &Flow) -> Result<(), Problem> {
    let refuse = |field: &str| {
        let message = "is not available in this version: leave it out";
        Err(Problem::at(field, Code::NotAvailable, message))
    };
    if flow.maintenance_window.is_some() { refuse("maintenance_window") } else { Ok(()) }
}

fn each<Model, Config>(
    list: &str,
    models: &mut [Model],
    convert: impl Fn(&mut Model) -> Result<Config, Problem>,
) -> Result<Vec<Config>, Problem> {
    let one = |(index, model)| convert(model).map_err(|problem| problem.inside(&format!("{list}[{index}]")));
    models.iter_mut().enumerate().map(one).collect()
}

fn source_config(source: &mut Source) -> Result<SourceConfig, Problem> {
    let name = source.name.parse::<SourceName>().map_err(bad_name)?;
    let endpoint = match source.url.as_deref() {
        Some(url) => source_from_url(source, url)?,
        None => source_from_fields(source)?,
    };
    let protocol = match &endpoint {
        SourceEndpoint::Udp(_) => Protocol::Udp,
        SourceEndpoint::Rtp(rtp) if rtp.receiver.fec => Protocol::RtpFec,
        SourceEndpoint::Rtp(_) => Protocol::Rtp,
        SourceEndpoint::Srt(srt) => srt_protocol(srt),
        SourceEndpoint::Rist(_) => Protocol::Rist,
        SourceEndpoint::Rtmp(_) => Protocol::Rtmp,
        SourceEndpoint::Test(_) => Protocol::Test,
    };
    settle_protocol(&mut source.protocol, protocol)?;
    let without = |given: bool, field| refuse_if(given, field, protocol);
    let (is_caller, is_srt) = (protocol == Protocol::SrtCaller, matches!(endpoint, SourceEndpoint::Srt(_)));
    without(source.sender_ip_address.is_some() && !is_caller, "sender_ip_address")?;
    without(source.sender_control_port.is_some() && !is_caller, "sender_control_port")?;
    without(source.stream_id.is_some() && !is_srt, "stream_id")?;
    without(source.decryption.is_some() && !is_srt && protocol != Protocol::Rist, "decryption")?;
    check_latencies(source.min_latency.map(|ms| ms.value()), source.max_latency.map(|ms| ms.value()))?;
    Ok(SourceConfig {
        name,
        endpoint,
        allow: allow_list(source.whitelist_cidr.as_deref())?,
        limit: source.max_bitrate.map(|rate| limit_config(rate.as_bitrate())),
    })
}

fn source_from_url(source: &Source, url: &str) -> Result<SourceEndpoint, Problem> {
    refuse_beside_url(source.ingest_port.is_some(), "ingest_port")?;
    refuse_beside_url(source.ingest_ip.is_some(), "ingest_ip")?;
    refuse_beside_url(source.sender_ip_address.is_some(), "sender_ip_address")?;
    refuse_beside_url(source.sender_control_port.is_some(), "sender_control_port")?;
    refuse_beside_url(source.stream_id.is_some(), "stream_id")?;
    refuse_beside_url(source.decryption.is_some(), "decryption")?;
    check_scheme(url)?;
    let endpoint = parse_source(url).map_err(|error| bad_url(&error))?;
    refuse_beside_url(source.max_latency.is_some() && matches!(endpoint, SourceEndpoint::Rtp(_)), "max_latency")?;
    Ok(endpoint)
}

fn source_from_fields(source: &Source) -> Result<SourceEndpoint, Problem> {
    let protocol = source.protocol.ok_or_else(no_protocol)?;
    let socket = SocketOptions::default;
    match protocol {
        Protocol::Udp => {
            let listen = listen_address(source, protocol)?;
            Ok(SourceEndpoint::Udp(udp::SourceConfig { listen, multicast_source: None, socket: socket() }))
        }
        Protocol::Rtp | Protocol::RtpFec => {
            let listen = listen_address(source, protocol)?;
            let receiver = ReceiverConfig {
                fec: protocol == Protocol::RtpFec,
                reorder_window: source.max_latency.map(|latency| Duration::from_millis(latency.value())),
                ..ReceiverConfig::default()
            };
            Ok(SourceEndpoint::Rtp(rtp::SourceConfig { listen, multicast_source: None, socket: socket(), receiver }))
        }
        Protocol::Test => {
            refuse_if(source.ingest_port.is_some(), "ingest_port", protocol)?;
            refuse_if(source.ingest_ip.is_some(), "ingest_ip", protocol)?;
            parse_source("test:").map_err(|error| bad_url(&error))
        }
        Protocol::SrtListener => {
            let listen = host_port(listen_address(source, protocol)?);
            srt_source(source, srt::Side::Listener { listen })
        }
        Protocol::SrtCaller => {
            srt_source(source, srt::Side::Caller { peer: called(source, protocol)?, local: srt::Local::default() })
        }
        Protocol::SrtRendezvous => {
            let peer = called(source, protocol)?;
            let local = match source.ingest_port {
                Some(_) => {
                    let listen = listen_address(source, protocol)?;
                    let ip = Some(listen.ip()).filter(|ip| !ip.is_unspecified());
                    srt::Local { port: listen.port(), ip }
                }
                None => srt::Local { port: peer.port, ip: None },
            };
            srt_source(source, srt::Side::Rendezvous { peer, local })
        }
        Protocol::Rist => {
            let listen = host_port(listen_address(source, protocol)?);
            let latency = source.min_latency.or(source.max_latency).map(|ms| ms.value());
            let session = rist_session(latency, source.decryption.as_ref(), "decryption")?;
            let side = rist::Side::Listener { listen };
            Ok(SourceEndpoint::Rist(Box::new(rist::EndpointConfig { side, session, login: None, socket: socket() })))
        }
        Protocol::Rtmp => Err(needs_url("rtmp://@:1935/APP/KEY to be called, rtmp://HOST/APP/KEY to call")),
        Protocol::Moq | Protocol::File => Err(protocol_not_available(protocol)),
    }
}

/// Whom a source calls.
fn called(source: &Source, protocol: Protocol) -> Result<HostPort, Problem> {
    let text = source.sender_ip_address.as_ref().ok_or_else(|| {
        let message = format!("must be given: whom {protocol} calls");
        Problem::at("sender_ip_address", Code::MissingField, message)
    })?;
    let host = text
        .parse()
        .map_err(|_| Problem::at("sender_ip_address", Code::InvalidValue, format!("{text} is no address")))?;
    Ok(HostPort { host, port: needed_port("sender_control_port", source.sender_control_port, protocol)? })
}

fn srt_source(source: &Source, side: srt::Side) -> Result<SourceEndpoint, Problem> {
    let latency = source.min_latency.or(source.max_latency).map(|ms| ms.value());
    let mut connection = srt_connection(latency, source.decryption.as_ref(), "decryption")?;
    connection.stream_id = source.stream_id.clone().unwrap_or_default();
    let (payload, socket) = (srt::Payload::default(), SocketOptions::default());
    let endpoint = srt::EndpointConfig { side, connection, payload, socket };
    Ok(SourceEndpoint::Srt(Box::new(endpoint)))
}

fn srt_connection(latency_ms: Option<u64>, encryption: Option<&Encryption>, field: &str) -> Result<Config, Problem> {
    let mut connection = Config::default();
    if let Some(ms) = latency_ms {
        connection.receive_latency = Duration::from_millis(ms);
        connection.peer_latency = connection.receive_latency;
    }
    if let Some(encryption) = encryption {
        let passphrase = encryption.passphrase.reveal().parse().map_err(|error: PassphraseError| {
            Problem::at(format!("{field}.passphrase"), Code::InvalidValue, error.to_string())
        })?;
        connection.passphrase = Some(passphrase);
        connection.key_length = Some(match encryption.algorithm {
            Algorithm::Aes128 => KeyLength::Aes128,
            Algorithm::Aes192 => KeyLength::Aes192,
            Algorithm::Aes256 => KeyLength::Aes256,
        });
    }
    Ok(connection)
}

/// The Main profile, which has everything that fields can ask for.
fn rist_session(
    latency_ms: Option<u64>,
    encryption: Option<&Encryption>,
    field: &str,
) -> Result<rist_core::Config, Problem> {
    let mut session = rist_core::Config::default();
    session.buffer = latency_ms.map_or(session.buffer, Duration::from_millis);
    if let Some(encryption) = encryption {
        let secret = encryption.passphrase.reveal().parse().map_err(|error: SecretError| {
            Problem::at(format!("{field}.passphrase"), Code::InvalidValue, error.to_string())
        })?;
        session.secret = Some(secret);
        session.key_length = match encryption.algorithm {
            Algorithm::Aes128 => rist_core::crypto::KeyLength::Aes128,
            Algorithm::Aes256 => rist_core::crypto::KeyLength::Aes256,
            Algorithm::Aes192 => {
                let message = "rist has keys of 128 and 256 bits";
                return Err(Problem::at(format!("{field}.algorithm"), Code::InvalidValue, message));
            }
        };
    }
    Ok(session)
}

const fn host_port(address: SocketAddr) -> HostPort {
    HostPort { host: Host::Ip(address.ip()), port: address.port() }
}

const fn srt_protocol(endpoint: &srt::EndpointConfig) -> Protocol {
    match endpoint.side {
        srt::Side::Caller { .. } | srt::Side::Group { .. } => Protocol::SrtCaller,
        srt::Side::Listener { .. } => Protocol::SrtListener,
        srt::Side::Rendezvous { .. } => Protocol::SrtRendezvous,
    }
}

fn listen_address(source: &Source, protocol: Protocol) -> Result<SocketAddr, Problem> {
    let port = needed_port("ingest_port", source.ingest_port, protocol)?;
    let ip = match &source.ingest_ip {
        None => Ipv4Addr::UNSPECIFIED.into(),
        Some(text) => text.parse::<IpAddr>().map_err(|_| {
            let message = format!("{text} is no IP address: write an address of this machine or a multicast group");
            Problem::at("ingest_ip", Code::InvalidValue, message)
        })?,
    };
    Ok(SocketAddr::new(ip, port))
}

fn allow_list(text: Option<&str>) -> Result<AllowList, Problem> {
    let bad = |message| Problem::at("whitelist_cidr", Code::InvalidValue, message);
    let one = |part: &str| part.trim().parse::<Cidr>().map_err(|error| bad(format!("{part}: {error}")));
    let networks = text.map(|text| text.split(',').map(one).collect::<Result<_, _>>()).transpose()?;
    AllowList::new(networks.unwrap_or_default()).map_err(|error| bad(error.to_string()))
}

fn output_config(output: &mut Output) -> Result<OutputConfig, Problem> {
    let name = output.name.parse::<OutputName>().map_err(bad_name)?;
    let (endpoint, coalesce) = match output.url.as_deref() {
        Some(url) => output_from_url(output, url)?,
        None => (output_from_fields(output)?, None),
    };
    let protocol = match &endpoint {
        OutputEndpoint::Udp(_) => Protocol::Udp,
        OutputEndpoint::Rtp(rtp) if rtp.sender.fec.is_some() => Protocol::RtpFec,
        OutputEndpoint::Rtp(_) => Protocol::Rtp,
        OutputEndpoint::Srt(srt) => srt_protocol(srt),
        OutputEndpoint::Rist(_) => Protocol::Rist,
        OutputEndpoint::Rtmp(_) => Protocol::Rtmp,
    };
    settle_protocol(&mut output.protocol, protocol)?;
    refuse_if(output.stream_key.is_some() && protocol != Protocol::Rtmp, "stream_key", protocol)?;
    let (is_srt, is_rtp) = (matches!(endpoint, OutputEndpoint::Srt(_)), matches!(endpoint, OutputEndpoint::Rtp(_)));
    refuse_if(output.legs.is_some() && !is_rtp, "legs", protocol)?;
    refuse_if(output.encryption.is_some() && !is_srt && protocol != Protocol::Rist, "encryption", protocol)?;
    check_latencies(output.min_latency.map(|ms| ms.value()), output.max_latency.map(|ms| ms.value()))?;
    if output.smoothing_latency.is_some_and(|ms| ms.value() > 0) {
        let message = "is not available in this version: leave it out or 0";
        return Err(Problem::at("smoothing_latency", Code::NotAvailable, message));
    }
    let mut networks = Vec::new();
    for (index, network) in output.cidr_allow_list.iter().flatten().enumerate() {
        networks.push(network.parse::<Cidr>().map_err(|error| {
            Problem::at(format!("cidr_allow_list[{index}]"), Code::InvalidValue, format!("{network}: {error}"))
        })?);
    }
    let allow = AllowList::new(networks)
        .map_err(|error| Problem::at("cidr_allow_list", Code::InvalidValue, error.to_string()))?;
    let coalesce = match (coalesce, output.coalesce_ms) {
        (Some(_), Some(_)) => {
            let message = "is given in url as well: leave one of the two out";
            return Err(Problem::at("coalesce_ms", Code::InvalidValue, message));
        }
        (Some(span), None) => span,
        (None, given) => given.map_or(Duration::ZERO, |ms| Duration::from_millis(ms.value())),
    };
    Ok(OutputConfig {
        name,
        endpoint,
        enabled: output.status == OutputState::Enabled,
        limit: output.max_bitrate.map(|rate| limit_config(rate.as_bitrate())),
        coalesce,
        policy: match output.policy {
            None | Some(model::Policy::DropOldest) => LagPolicy::DropOldest,
            Some(model::Policy::ToNextKeyFrame) => LagPolicy::ToNextKeyFrame,
        },
        allow,
    })
}

fn output_from_url(output: &Output, url: &str) -> Result<(OutputEndpoint, Option<Duration>), Problem> {
    refuse_beside_url(output.destination.is_some(), "destination")?;
    refuse_beside_url(output.port.is_some(), "port")?;
    refuse_beside_url(output.legs.is_some(), "legs")?;
    refuse_beside_url(output.encryption.is_some(), "encryption")?;
    check_scheme(url)?;
    if output.stream_key.as_ref().is_some_and(model::Secret::is_hidden) {
        let message = "is *** where it is shown: write it out";
        return Err(Problem::at("stream_key", Code::InvalidValue, message));
    }
    let parsed = match &output.stream_key {
        // As encoders ask for it: the server with the application, and the key apart.
        Some(key) if url.starts_with("rtmp://") || url.starts_with("rtmps://") => {
            parse_output(&format!("{}/{}", url.trim_end_matches('/'), key.reveal()))
        }
        Some(_) | None => parse_output(url),
    };
    parsed.map(|output| (output.endpoint, output.coalesce)).map_err(|error| bad_url(&error))
}

fn output_from_fields(output: &Output) -> Result<OutputEndpoint, Problem> {
    let protocol = output.protocol.ok_or_else(no_protocol)?;
    let destination = || -> Result<HostPort, Problem> {
        let Some(text) = &output.destination else {
            let message = format!("must be given: {protocol} sends to a host");
            return Err(Problem::at("destination", Code::MissingField, message));
        };
        let host = text
            .parse::<Host>()
            .map_err(|error| Problem::at("destination", Code::InvalidValue, format!("{text} is {error}")))?;
        Ok(HostPort { host, port: needed_port("port", output.port, protocol)? })
    };
    let socket = SocketOptions::default;
    match protocol {
        Protocol::Udp => Ok(OutputEndpoint::Udp(udp::OutputConfig {
            destination: destination()?,
            packet_size_max: None,
            socket: socket(),
        })),
        Protocol::Rtp => rtp_output(output, destination, SenderConfig::default()),
        // Another matrix can be chosen in a url.
        Protocol::RtpFec => rtp_output(output, destination, SenderConfig::with_fec(Matrix::DEFAULT)),
        Protocol::Test => {
            Err(Problem::at("protocol", Code::NotApplicable, "test can only be a source: choose udp or rtp"))
        }
        Protocol::SrtCaller => {
            srt_output(output, srt::Side::Caller { peer: destination()?, local: srt::Local::default() })
        }
        // As libsrt: from the port that is called, unless a url says otherwise.
        Protocol::SrtRendezvous => {
            let peer = destination()?;
            let local = srt::Local { port: peer.port, ip: None };
            srt_output(output, srt::Side::Rendezvous { peer, local })
        }
        Protocol::SrtListener => {
            let any = Host::Ip(Ipv4Addr::UNSPECIFIED.into());
            let listen = match &output.destination {
                Some(_) => destination()?,
                None => HostPort { host: any, port: needed_port("port", output.port, protocol)? },
            };
            srt_output(output, srt::Side::Listener { listen })
        }
        Protocol::Rist => {
            let latency = output.min_latency.or(output.max_latency).map(|ms| ms.value());
            let session = rist_session(latency, output.encryption.as_ref(), "encryption")?;
            let side = rist::Side::Caller { peer: destination()? };
            Ok(OutputEndpoint::Rist(Box::new(rist::EndpointConfig { side, session, login: None, socket: socket() })))
        }
        Protocol::Rtmp => Err(needs_url("rtmp://@:1935/APP/KEY to be called, rtmp://HOST/APP/KEY to call")),
        Protocol::Moq | Protocol::File => Err(protocol_not_available(protocol)),
    }
}

/// To `destination`, or over legs.
fn rtp_output(
    output: &Output,
    destination: impl FnOnce() -> Result<HostPort, Problem>,
    sender: SenderConfig,
) -> Result<OutputEndpoint, Problem> {
    let Some(legs) = &output.legs else {
        let (destination, socket) = (destination()?, SocketOptions::default());
        return Ok(OutputEndpoint::Rtp(rtp::OutputConfig { destination, socket, sender, legs: Vec::new() }));
    };
    for (given, field) in [(output.destination.is_some(), "destination"), (output.port.is_some(), "port")] {
        let message = "is in legs as well: leave one of the two out, or set it to null";
        if given {
            return Err(Problem::at(field, Code::InvalidValue, message));
        }
    }
    if !(2..=LEGS_MAX).contains(&legs.len()) {
        let message = format!("{} are given, write 2 to {LEGS_MAX}", legs.len());
        return Err(Problem::at("legs", Code::InvalidValue, message));
    }
    let mut parsed = Vec::with_capacity(legs.len());
    for (index, text) in legs.iter().enumerate() {
        let bad = |message| Problem::at(format!("legs[{index}]"), Code::InvalidValue, message);
        let leg = parse_leg(text).ok_or_else(|| bad(format!("{text}: write IP:PORT or IP:PORT@INTERFACE")))?;
        if parsed.contains(&leg) {
            return Err(bad(format!("{text} is given twice")));
        }
        parsed.push(leg);
    }
    let first = parsed.remove(0);
    let socket = SocketOptions { interface: first.interface, ..SocketOptions::default() };
    Ok(OutputEndpoint::Rtp(rtp::OutputConfig { destination: host_port(first.address), socket, sender, legs: parsed }))
}

fn srt_output(output: &Output, side: srt::Side) -> Result<OutputEndpoint, Problem> {
    let latency = output.min_latency.or(output.max_latency).map(|ms| ms.value());
    let connection = srt_connection(latency, output.encryption.as_ref(), "encryption")?;
    let (payload, socket) = (srt::Payload::default(), SocketOptions::default());
    let endpoint = srt::EndpointConfig { side, connection, payload, socket };
    Ok(OutputEndpoint::Srt(Box::new(endpoint)))
}

fn failover_config(flow: &Flow, defaults: &Defaults) -> Result<FailoverConfig, Problem> {
    let given = flow.source_failover_config.clone().unwrap_or_default();
    let (mode, mode_wanted, switch_at) = (failover_mode(&given), given.failover_mode, switch_at(&given)?);
    let primary = given.source_priority.and_then(|priority| priority.primary_source);
    if let Some(name) = primary.as_ref().filter(|name| flow.sources.iter().all(|source| source.name != **name)) {
        let message = format!("there is no source named {name} in this flow");
        return Err(Problem::at("source_priority.primary_source", Code::InvalidValue, message));
    }
    let millis = |ms: u64| Duration::from_millis(ms);
    let otherwise = FailoverConfig::default();
    let given_rules = given.switch_on.as_ref().map(|given| rules(given, mode_wanted));
    let switch_on = given_rules.transpose().map_err(|problem| problem.inside("switch_on"))?;
    // Whoever does not want a flow to change its source does not want it for this either.
    let switch_on = switch_on.filter(|_| given.state == FailoverState::Enabled).unwrap_or(otherwise.switch_on);
    Ok(FailoverConfig {
        mode,
        switch_on,
        switch_at,
        primary: primary.map(|name| name.parse()).transpose().map_err(bad_name)?,
        health_timeout: match given.state {
            FailoverState::Enabled => given.health_timeout_ms.map_or(defaults.health_timeout, |ms| millis(ms.value())),
            FailoverState::Disabled => NEVER,
        },
        hold_off: given.hold_off_ms.map_or(otherwise.hold_off, |ms| millis(ms.value())),
    })
}

fn switch_at(given: &Failover) -> Result<SwitchAt, Problem> {
    let is_aligned = given.switch_at == Some(model::SwitchAt::KeyFrame);
    if is_aligned && given.failover_mode == model::FailoverMode::Merge {
        let message = "merged sources are all in use: leave it out, or choose FAILOVER";
        return Err(Problem::at("switch_at", Code::NotApplicable, message));
    }
    if given.switch_wait_ms.is_some() && !is_aligned {
        return Err(Problem::at("switch_wait_ms", Code::NotApplicable, "only goes with \"switch_at\": \"keyframe\""));
    }
    let wait_max = given.switch_wait_ms.map_or(KEY_FRAME_WAIT, |ms| Duration::from_millis(ms.value()));
    Ok(if is_aligned { SwitchAt::KeyFrame { wait_max } } else { SwitchAt::Once })
}

fn rules(given: &model::SwitchOn, mode: model::FailoverMode) -> Result<health::Rules, Problem> {
    if mode == model::FailoverMode::Merge {
        let message = "merged sources are all in use: leave switch_on out, or choose FAILOVER";
        return Err(Problem::new(Code::NotApplicable, message));
    }
    let otherwise = health::Rules::default();
    let rules = health::Rules {
        loss_per_mille: given.loss_per_mille.map(|loss| loss.value() as u32),
        ts_errors_per_second: given.ts_errors_per_second.map(|errors| errors.value() as u32),
        seen: health::Seen {
            black: given.black,
            frozen: given.frozen,
            silent: given.silent,
            no_video: given.no_video,
            no_audio: given.no_audio,
        },
        hold_off: given.hold_off_ms.map_or(otherwise.hold_off, |ms| Duration::from_millis(ms.value())),
        return_hold_off: given
            .return_hold_off_ms
            .map_or(otherwise.return_hold_off, |ms| Duration::from_millis(ms.value())),
    };
    if !rules.is_any() {
        let message = "give loss_per_mille, ts_errors_per_second, or one of black, frozen, silent, no_video, no_audio";
        return Err(Problem::new(Code::MissingField, message));
    }
    Ok(rules)
}

/// Refused even where it is switched off, as is [`check_merge`].
fn check_rules(flow: &Flow, sources: &[SourceConfig]) -> Result<(), Problem> {
    let given = flow.source_failover_config.as_ref().and_then(|given| given.switch_on.as_ref());
    let Some(loss) = given.and_then(|given| given.loss_per_mille) else { return Ok(()) };
    let rules = health::Rules { loss_per_mille: Some(loss.value() as u32), ..health::Rules::default() };
    diff::check_rules(&rules, sources).map_err(|cause| {
        Problem::at("source_failover_config.switch_on.loss_per_mille", Code::InvalidValue, cause.to_string())
    })
}

fn failover_mode(given: &Failover) -> FailoverMode {
    // Whoever does not want a flow to change its source does not want two at once.
    if given.state == FailoverState::Disabled || given.failover_mode == model::FailoverMode::Failover {
        return FailoverMode::Failover;
    }
    let otherwise = MergeConfig::default();
    let window = given.recovery_window.map(|window| match window {
        WindowMs::Fixed(ms) => RecoveryWindow::Fixed(Duration::from_millis(ms.value())),
        WindowMs::Auto => RecoveryWindow::Auto,
    });
    FailoverMode::Merge(MergeConfig {
        recovery_window: window.unwrap_or(otherwise.recovery_window),
        release: if given.align { Release::Align } else { otherwise.release },
    })
}

/// Refused even where it is switched off: it would not be when it is switched on.
fn check_merge(flow: &Flow, sources: &[SourceConfig]) -> Result<(), Problem> {
    let given = flow.source_failover_config.as_ref().map(|given| given.failover_mode);
    if given != Some(model::FailoverMode::Merge) {
        return Ok(());
    }
    diff::check_sequences(sources)
        .map_err(|cause| Problem::at("source_failover_config.failover_mode", Code::InvalidValue, cause.to_string()))
}

fn limit_config(rate: crate::units::Bitrate) -> limit::Config {
    limit::Config { bitrate: Some(rate), ..limit::Config::default() }
}

fn settle_protocol(given: &mut Option<Protocol>, actual: Protocol) -> Result<(), Problem> {
    match given.replace(actual) {
        Some(given) if given != actual => {
            let message = format!("{given} does not match url, which says {actual}: leave one of the two out");
            Err(Problem::at("protocol", Code::InvalidValue, message))
        }
        _ => Ok(()),
    }
}

fn check_latencies(min_ms: Option<u64>, max_ms: Option<u64>) -> Result<(), Problem> {
    match (min_ms, max_ms) {
        (Some(min), Some(max)) if min > max => {
            let message = format!("{min} is above max_latency, which is {max}");
            Err(Problem::at("min_latency", Code::InvalidValue, message))
        }
        _ => Ok(()),
    }
}

/// A scheme of the contract that this version cannot speak is no typing error.
fn check_scheme(url: &str) -> Result<(), Problem> {
    let scheme = url.split_once(':').map_or("", |parts| parts.0);
    if ["moq", "https", "file"].contains(&scheme) {
        let message = format!(
            "{scheme} is not available in this version: use udp://, rtp://, rtp-fec://, srt://, rist://, rtmp://, rtmps:// or test:"
        );
        return Err(Problem::at("url", Code::NotAvailable, message));
    }
    Ok(())
}

fn bad_url(error: &UrlError) -> Problem {
    let code = if matches!(error, UrlError::UnknownKey { .. }) { Code::UnknownField } else { Code::InvalidValue };
    Problem::at("url", code, error.to_string())
}

fn bad_name(error: IdError) -> Problem {
    Problem::at(
        "name",
        if error == IdError::Empty { Code::MissingField } else { Code::InvalidValue },
        error.to_string(),
    )
}

fn no_protocol() -> Problem {
    Problem::at("protocol", Code::MissingField, "must be given, or a url instead")
}

fn protocol_not_available(protocol: Protocol) -> Problem {
    let message = format!(
        "{protocol} is not available in this version: use udp, rtp, rtp-fec, rist, rtmp, srt-listener or srt-caller"
    );
    Problem::at("protocol", Code::NotAvailable, message)
}

fn needs_url(examples: &str) -> Problem {
    Problem::at("url", Code::MissingField, format!("must be given: {examples}"))
}

fn needed_port(field: &str, port: Option<Port>, protocol: Protocol) -> Result<u16, Problem> {
    let message = || format!("must be given: {protocol} needs a port from 1 to 65535");
    port.map(Port::number).ok_or_else(|| Problem::at(field, Code::MissingField, message()))
}

fn refuse_if(given: bool, field: &str, protocol: Protocol) -> Result<(), Problem> {
    let message = || format!("{protocol} has no use for it: leave it out");
    if given { Err(Problem::at(field, Code::NotApplicable, message())) } else { Ok(()) }
}

fn refuse_beside_url(given: bool, field: &str) -> Result<(), Problem> {
    let message = "is part of url: leave one of the two out, or set url to null";
    if given { Err(Problem::at(field, Code::InvalidValue, message)) } else { Ok(()) }
}

/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(flow: &Value) -> Result<Wanted, Problem> {
        Wanted::new(Flow::from_json(flow.to_string().as_bytes())?, &Defaults::default())
    }

    fn refusal(flow: &Value) -> (&'static str, String) {
        let problem = wanted(flow).expect_err(&flow.to_string());
        (problem.code.as_str(), problem.field.unwrap_or_default())
    }

    /// A good flow, changed by `change`.
    fn flow(change: impl FnOnce(&mut Value)) -> Value {
        let mut flow = json!({
            "name": "news",
            "sources": [
                { "name": "a", "protocol": "udp", "ingest_port": 5000 },
                { "name": "b", "protocol": "rtp", "ingest_port": 5002, "ingest_ip": "239.1.1.1", "max_latency": 80 },
            ],
            "outputs": [
                { "name": "x", "protocol": "udp", "destination": "10.0.0.9", "port": 6000 },
                { "name": "y", "url": "rtp://10.0.0.9:6002?coalesce=2ms", "status": "DISABLED" },
            ],
        });
        change(&mut flow);
        flow
    }

    #[test]
    fn a_flow_becomes_engine_configuration() {
        let wanted = wanted(&flow(|_| {})).unwrap();
        let config = wanted.config();
        assert_eq!(config.name, "news");
        let SourceEndpoint::Rtp(rtp) = &config.sources[1].endpoint else { unreachable!("an RTP source") };
        assert_eq!(rtp.listen, ([239, 1, 1, 1], 5002).into());
        assert_eq!(rtp.receiver.reorder_window, Some(Duration::from_millis(80)));
        assert!(config.outputs[0].enabled && !config.outputs[1].enabled);
        assert_eq!(config.outputs[1].coalesce, Duration::from_millis(2));
        assert_eq!(config.failover.health_timeout, Duration::from_millis(500));
        assert_eq!(wanted.flow().outputs[1].protocol, Some(Protocol::Rtp));
    }

    #[test]
    fn rtp_fec_is_rtp_with_fec() {
        let wanted = wanted(&flow(|flow| {
            flow["sources"][1]["protocol"] = json!("rtp-fec");
            flow["outputs"][0]["protocol"] = json!("rtp-fec");
            flow["outputs"][1]["url"] = json!("rtp://10.0.0.9:6002?fec=2022-1&l=10&d=5");
        }));
        let wanted = wanted.unwrap();
        let SourceEndpoint::Rtp(rtp) = &wanted.config().sources[1].endpoint else { unreachable!("an RTP source") };
        assert_eq!((rtp.receiver.fec, rtp.receiver.reorder_window), (true, Some(Duration::from_millis(80))));
        for (output, matrix) in wanted.config().outputs.iter().zip([Ok(Matrix::DEFAULT), Matrix::new(10, 5, false)]) {
            let OutputEndpoint::Rtp(rtp) = &output.endpoint else { unreachable!("an RTP output") };
            assert_eq!(rtp.sender.fec, matrix.ok());
        }
        assert_eq!(wanted.flow().outputs[1].protocol, Some(Protocol::RtpFec));
    }

    #[test]
    fn what_is_accepted_is_accepted_again() {
        check_any_bytes(flow(|_| {}).to_string().as_bytes());
        let text = flow(|flow| flow["outputs"][0]["coalesce_ms"] = json!(3)).to_string();
        for end in 0..=text.len() {
            check_any_bytes(&text.as_bytes()[..end]);
        }
    }

    #[test]
    fn an_answer_can_be_sent_back() {
        let first = wanted(&flow(|_| {})).unwrap();
        let mut answer = first.flow().clone();
        answer.id = Some("7".into());
        answer.status = Some("ACTIVE".into());
        answer.source = answer.sources.first().cloned();
        answer.sources[0].status = Some("CONNECTED".into());
        let again = wanted(&serde_json::to_value(&answer).unwrap()).unwrap();
        assert_eq!(again, first);
        answer.sources[0].description = Some("changed".into());
        assert_eq!(refusal(&serde_json::to_value(&answer).unwrap()), ("invalid_value", "source".into()));
    }

    #[test]
    fn null_is_nothing() {
        let json = flow(|flow| {
            flow["description"] = json!(null);
            flow["source"] = json!(null);
            flow["outputs"] = json!(null);
            flow["source_failover_config"] = json!(null);
        });
        assert_eq!(wanted(&json).unwrap().config().outputs, []);
    }

    #[test]
    fn one_source_may_be_given_alone() {
        let json = json!({ "name": "n", "source": { "name": "a", "url": "test:bars?rate=20M" } });
        let wanted = wanted(&json).unwrap();
        assert_eq!(wanted.config().sources.len(), 1);
        assert_eq!(wanted.flow().sources[0].protocol, Some(Protocol::Test));
    }

    #[test]
    fn srt_has_its_fields_and_its_secrets_stay_hidden() {
        let json = json!({
            "name": "n",
            "sources": [
                {
                    "name": "a", "protocol": "srt-listener", "ingest_port": 9000, "min_latency": 250, "stream_id": "news",
                    "decryption": { "algorithm": "aes256", "passphrase": "a-secret-of-ours" },
                },
                { "name": "b", "protocol": "srt-caller", "sender_ip_address": "10.0.0.9", "sender_control_port": 9001 },
            ],
            "outputs": [{ "name": "x", "url": "srt://10.0.0.8:9000?passphrase=another-secret" }],
        });
        let accepted = wanted(&json).unwrap();
        let SourceEndpoint::Srt(listener) = &accepted.config().sources[0].endpoint else { unreachable!("SRT") };
        assert_eq!(listener.connection.receive_latency, Duration::from_millis(250));
        assert_eq!(listener.connection.key_length, Some(KeyLength::Aes256));
        assert_eq!(accepted.flow().sources[1].protocol, Some(Protocol::SrtCaller));
        let shown = accepted.flow().clone().without_secrets();
        let text = serde_json::to_string(&shown).unwrap();
        assert!(text.contains("passphrase=***") && !text.contains("secret"), "{text}");
        assert_eq!(shown.with_secrets_of(accepted.flow()), *accepted.flow());
    }

    #[test]
    fn rtmp_has_its_key_in_the_url_or_beside_it_and_it_stays_hidden() {
        let json = json!({
            "name": "n",
            "sources": [{ "name": "a", "url": "rtmp://@:1935/live/a-secret" }],
            "outputs": [
                { "name": "x", "url": "rtmp://cdn.example/app/", "stream_key": "another-secret" },
                { "name": "y", "url": "rtmp://cdn.example/app/third-secret?token=fourth-secret" },
            ],
        });
        let accepted = wanted(&json).unwrap();
        assert_eq!(accepted.flow().sources[0].protocol, Some(Protocol::Rtmp));
        let OutputEndpoint::Rtmp(push) = &accepted.config().outputs[0].endpoint else { unreachable!("RTMP") };
        assert_eq!((push.app.as_str(), push.address().port), ("app", 1_935));
        let shown = accepted.flow().clone().without_secrets();
        let text = serde_json::to_string(&shown).unwrap();
        assert!(text.contains("rtmp://@:1935/live/***") && !text.contains("secret"), "{text}");
        assert!(text.contains("rtmp://cdn.example/app/\""), "the application is no secret: {text}");
        assert!(!format!("{:?}", accepted.config()).contains("secret"));
        assert_eq!(shown.clone().with_secrets_of(accepted.flow()), *accepted.flow());
        let changed = |change: &dyn Fn(&mut Flow)| {
            let mut flow = shown.clone();
            change(&mut flow);
            Wanted::new(flow.with_secrets_of(accepted.flow()), &Defaults::default()).map_err(|problem| problem.field)
        };
        // Sent back with something else changed, it keeps its keys; where they are not known they are asked for.
        let again = changed(&|flow| flow.sources[0].url = Some("rtmp://@:1936/live/***?takeover=1".into())).unwrap();
        assert_eq!(again.flow().sources[0].url.as_deref(), Some("rtmp://@:1936/live/a-secret?takeover=1"));
        let refused = |change: &dyn Fn(&mut Flow)| changed(change).unwrap_err();
        assert_eq!(refused(&|flow| flow.sources[0].name = "other".into()), Some("sources[0].url".into()));
        assert_eq!(refused(&|flow| flow.outputs[0].name = "other".into()), Some("outputs[0].stream_key".into()));
        assert_eq!(refused(&|flow| flow.outputs[1].name = "other".into()), Some("outputs[1].url".into()));
    }

    #[test]
    fn every_refusal_names_its_field() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str, &str); 34] = [
            (|f| f["name"] = json!(""), "missing_field", "name"),
            (|f| f["name"] = json!(null), "invalid_value", "name"),
            (|f| f["nmae"] = json!("x"), "unknown_field", "nmae"),
            (|f| f["sources"] = json!([]), "missing_field", "sources"),
            (|f| f["sources"][1]["ingest_port"] = json!(0), "invalid_value", "sources[1].ingest_port"),
            (|f| f["sources"][1]["ingest_port"] = json!(99_999), "invalid_value", "sources[1].ingest_port"),
            (|f| f["sources"][1]["ingest_port"] = json!("5000"), "invalid_value", "sources[1].ingest_port"),
            (|f| f["sources"][1]["ingest_port"] = json!(null), "missing_field", "sources[1].ingest_port"),
            (|f| f["sources"][1]["ingest_ip"] = json!("x"), "invalid_value", "sources[1].ingest_ip"),
            (|f| f["sources"][1]["name"] = json!("a"), "duplicate_name", "sources[1].name"),
            (|f| f["sources"][1]["name"] = json!("a/b"), "invalid_value", "sources[1].name"),
            (|f| f["sources"][1]["protocol"] = json!(null), "missing_field", "sources[1].protocol"),
            (|f| f["sources"][1]["protocol"] = json!("sctp"), "invalid_value", "sources[1].protocol"),
            (|f| f["sources"][1]["protocol"] = json!("moq"), "not_available", "sources[1].protocol"),
            (|f| f["sources"][1]["protocol"] = json!("rtmp"), "missing_field", "sources[1].url"),
            (|f| f["outputs"][0]["stream_key"] = json!("k"), "not_applicable", "outputs[0].stream_key"),
            (|f| f["sources"][1]["url"] = json!("rtp://:1"), "invalid_value", "sources[1].ingest_port"),
            (
                |f| f["sources"][1] = json!({ "name": "b", "url": "rtp://:1", "max_latency": 9 }),
                "invalid_value",
                "sources[1].max_latency",
            ),
            (|f| f["sources"][1]["stream_id"] = json!("x"), "not_applicable", "sources[1].stream_id"),
            (|f| f["sources"][1]["min_latency"] = json!(90), "invalid_value", "sources[1].min_latency"),
            (
                |f| f["sources"][1]["whitelist_cidr"] = json!("10.0.0.0/33"),
                "invalid_value",
                "sources[1].whitelist_cidr",
            ),
            (
                |f| {
                    let decryption = json!({ "algorithm": "aes128", "passphrase": "too short" });
                    f["sources"][0] =
                        json!({ "name": "a", "protocol": "srt-listener", "ingest_port": 1, "decryption": decryption });
                },
                "invalid_value",
                "sources[0].decryption.passphrase",
            ),
            (|f| f["sources"][0] = json!({ "name": "a", "url": "moq://@:1" }), "not_available", "sources[0].url"),
            (|f| f["sources"][0] = json!({ "name": "a", "url": "udp://:1?x=1" }), "unknown_field", "sources[0].url"),
            (|f| f["outputs"][0]["port"] = json!(null), "missing_field", "outputs[0].port"),
            (|f| f["outputs"][0]["destination"] = json!("10.0.0.256"), "invalid_value", "outputs[0].destination"),
            (|f| f["outputs"][0]["destination"] = json!(null), "missing_field", "outputs[0].destination"),
            (|f| f["outputs"][0]["protocol"] = json!("test"), "not_applicable", "outputs[0].protocol"),
            (|f| f["outputs"][0]["smoothing_latency"] = json!(20), "not_available", "outputs[0].smoothing_latency"),
            (|f| f["outputs"][0]["coalesce_ms"] = json!(101), "invalid_value", "outputs[0].coalesce_ms"),
            (|f| f["outputs"][1]["coalesce_ms"] = json!(1), "invalid_value", "outputs[1].coalesce_ms"),
            (|f| f["outputs"][1]["protocol"] = json!("udp"), "invalid_value", "outputs[1].protocol"),
            (
                |f| f["maintenance_window"] = json!({ "day_of_week": "Monday", "start_hour": 3 }),
                "not_available",
                "maintenance_window",
            ),
            (
                |f| f["source_failover_config"] = json!({ "source_priority": { "primary_source": "z" } }),
                "invalid_value",
                "source_failover_config.source_priority.primary_source",
            ),
        ];
        for (change, code, field) in cases {
            assert_eq!(refusal(&flow(change)), (code, field.to_string()));
        }
    }

    #[test]
    fn refusals_of_what_is_watched_name_their_field() {
        let refused = |monitor: Value| refusal(&flow(|f| f["source_monitor_config"] = monitor));
        let field = |name: &str| format!("source_monitor_config.{name}");
        let interval = json!({ "thumbnail_enabled": true, "thumbnail_interval_sec": 0 });
        assert_eq!(refused(interval), ("invalid_value", field("thumbnail_interval_sec")));
        assert_eq!(refused(json!({ "thumbnails": true })), ("unknown_field", field("thumbnails")));
    }

    #[test]
    fn the_ninth_source_and_the_257th_output_are_refused() {
        let many = |count: usize| -> Vec<Value> {
            (0..count)
                .map(|i| json!({ "name": i.to_string(), "url": format!("udp://127.0.0.1:{}", 5000 + i) }))
                .collect()
        };
        assert!(wanted(&json!({ "name": "n", "sources": many(8), "outputs": many(256) })).is_ok());
        assert_eq!(refusal(&json!({ "name": "n", "sources": many(9) })), ("too_many", "sources".into()));
        let json = json!({ "name": "n", "sources": many(1), "outputs": many(257) });
        assert_eq!(refusal(&json), ("too_many", "outputs".into()));
    }

    #[test]
    fn legs_stand_in_place_of_one_destination() {
        let over = |legs: &[&str]| {
            flow(|flow| flow["outputs"][0] = json!({ "name": "x", "protocol": "rtp-fec", "legs": legs }))
        };
        let wanted = wanted(&over(&["10.0.0.9:6000@eth0", "10.1.0.9:6000@eth1", "[::1]:6000"])).unwrap();
        let OutputEndpoint::Rtp(rtp) = &wanted.config().outputs[0].endpoint else { unreachable!("an RTP output") };
        let url = "rtp-fec://10.0.0.9:6000?iface=eth0&leg=10.1.0.9:6000@eth1&leg=[::1]:6000";
        assert_eq!(OutputEndpoint::Rtp(rtp.clone()), parse_output(url).unwrap().endpoint);
        check_any_bytes(over(&["10.0.0.9:6000", "10.0.0.9:6002"]).to_string().as_bytes());
        for (legs, field) in [
            (&["10.0.0.9:6000"; 1][..], "outputs[0].legs"),
            (&["10.0.0.9:6000"; 9], "outputs[0].legs"),
            (&["10.0.0.9:6000"; 2], "outputs[0].legs[1]"),
            (&["host:6000", "10.0.0.9:6000"], "outputs[0].legs[0]"),
        ] {
            assert_eq!(refusal(&over(legs)), ("invalid_value", field.into()), "{legs:?}");
        }
    }

    #[test]
    fn merge_needs_sequence_numbers() {
        let merge = |protocols: &[&str]| {
            let sources: Vec<Value> = (protocols.iter().zip(1..))
                .map(
                    |(protocol, i)| json!({ "name": i.to_string(), "protocol": protocol, "ingest_port": 5000 + 2 * i }),
                )
                .collect();
            json!({ "name": "n", "sources": sources, "source_failover_config": { "failover_mode": "MERGE" } })
        };
        let mode = |json: &Value| wanted(json).unwrap().config().failover.mode;
        let fixed = |ms| RecoveryWindow::Fixed(Duration::from_millis(ms));
        let merged = |ms| FailoverMode::Merge(MergeConfig { recovery_window: fixed(ms), ..MergeConfig::default() });
        assert_eq!(mode(&merge(&["rtp"])), merged(100));
        let mut three = merge(&["rtp", "rtp-fec", "rist"]);
        three["source_failover_config"]["recovery_window"] = json!(250);
        assert_eq!(mode(&three), merged(250));
        three["source_failover_config"]["recovery_window"] = json!("auto");
        three["source_failover_config"]["align"] = json!(true);
        let (recovery_window, release) = (RecoveryWindow::Auto, Release::Align);
        assert_eq!(mode(&three), FailoverMode::Merge(MergeConfig { recovery_window, release }));
        check_any_bytes(three.to_string().as_bytes());
        for wrong in [json!("fast"), json!(0), json!(-1), json!(15_001), json!(1.5)] {
            let mut json = three.clone();
            json["source_failover_config"]["recovery_window"] = wrong;
            assert_eq!(refusal(&json), ("invalid_value", "source_failover_config.recovery_window".into()), "{json}");
        }
        three["source_failover_config"]["state"] = json!("DISABLED");
        assert_eq!(mode(&three), FailoverMode::Failover);
        let field = "source_failover_config.failover_mode".to_string();
        for protocol in ["udp", "srt-listener"] {
            assert_eq!(refusal(&merge(&["rtp", protocol])), ("invalid_value", field.clone()), "{protocol}");
        }
        three["sources"][1] = json!({ "name": "2", "url": "srt://:6000?payload=rtp" });
        assert!(wanted(&three).is_ok());
    }

    #[test]
    fn what_is_watched_is_as_asked_for() {
        let every = |seconds: u64| Some(Duration::from_secs(seconds));
        for (given, thumbnail_every, content_quality) in [
            (Value::Null, None, false),
            (json!({ "thumbnail_enabled": true }), Some(THUMBNAIL_EVERY), false),
            // An interval alone asks for nothing.
            (json!({ "thumbnail_interval_sec": 2 }), None, false),
            (json!({ "thumbnail_enabled": true, "thumbnail_interval_sec": 2 }), every(2), false),
            (json!({ "content_quality_enabled": true }), None, true),
        ] {
            let json = flow(|flow| flow["source_monitor_config"] = given);
            let wanted = wanted(&json).unwrap();
            let monitor = &wanted.config().monitor;
            let found = (monitor.ts_analysis, monitor.thumbnail_every, monitor.content_quality);
            assert_eq!(found, (true, thumbnail_every, content_quality));
        }
    }

    #[test]
    fn a_flow_may_switch_on_more_than_silence() {
        let with = |failover: Value| flow(|flow| flow["source_failover_config"] = failover);
        let rules = |failover| wanted(&with(failover)).unwrap().config().failover.switch_on;
        let given = json!({ "switch_on": { "loss_per_mille": 20, "hold_off_ms": 700 } });
        let otherwise = health::Rules::default();
        let hold_off = Duration::from_millis(700);
        assert_eq!(rules(given.clone()), health::Rules { loss_per_mille: Some(20), hold_off, ..otherwise });
        let shown = serde_json::to_value(wanted(&with(given)).unwrap().flow()).unwrap();
        assert_eq!(shown["source_failover_config"]["switch_on"], json!({ "loss_per_mille": 20, "hold_off_ms": 700 }));
        assert_eq!(rules(json!({ "switch_on": { "loss_per_mille": 20 }, "state": "DISABLED" })), otherwise);
        assert_eq!(rules(json!({})), otherwise);
        for (failover, code, field) in [
            (json!({ "switch_on": {} }), "missing_field", "switch_on"),
            (json!({ "switch_on": { "black": false } }), "missing_field", "switch_on"),
            (json!({ "switch_on": { "black": 1 } }), "invalid_value", "switch_on.black"),
            (json!({ "switch_on": { "loss_per_mille": 0 } }), "invalid_value", "switch_on.loss_per_mille"),
            (json!({ "switch_on": { "loss": 20 } }), "unknown_field", "switch_on.loss"),
            (
                json!({ "switch_on": { "ts_errors_per_second": 5 }, "failover_mode": "MERGE" }),
                "not_applicable",
                "switch_on",
            ),
        ] {
            let field = format!("source_failover_config.{field}");
            assert_eq!(refusal(&with(failover)), (code, field));
        }
        let seen = json!({ "switch_on": { "black": true, "no_audio": true } });
        assert_eq!(rules(seen).seen, health::Seen { black: true, no_audio: true, ..health::Seen::NONE });
        let mut blind = with(json!({ "switch_on": { "loss_per_mille": 20 } }));
        blind["sources"] = json!([{ "name": "a", "url": "udp://:5000" }]);
        let field = "source_failover_config.switch_on.loss_per_mille".to_string();
        assert_eq!(refusal(&blind), ("invalid_value", field));
    }

    #[test]
    fn a_flow_may_change_its_source_and_its_outputs_go_on_at_key_frames() {
        let with = |failover: Value| flow(|flow| flow["source_failover_config"] = failover);
        let switch_at = |failover| wanted(&with(failover)).unwrap().config().failover.switch_at;
        let after = |ms| SwitchAt::KeyFrame { wait_max: Duration::from_millis(ms) };
        assert_eq!(switch_at(json!({})), SwitchAt::Once);
        assert_eq!(switch_at(json!({ "switch_at": "immediate" })), SwitchAt::Once);
        assert_eq!(switch_at(json!({ "switch_at": "keyframe" })), after(2_000));
        assert_eq!(switch_at(json!({ "switch_at": "keyframe", "switch_wait_ms": 700 })), after(700));
        for (failover, code, field) in [
            (json!({ "switch_at": "KEYFRAME" }), "invalid_value", "switch_at"),
            (json!({ "switch_at": "keyframe", "failover_mode": "MERGE" }), "not_applicable", "switch_at"),
            (json!({ "switch_wait_ms": 700 }), "not_applicable", "switch_wait_ms"),
            (json!({ "switch_at": "keyframe", "switch_wait_ms": 60_001 }), "invalid_value", "switch_wait_ms"),
        ] {
            assert_eq!(refusal(&with(failover)), (code, format!("source_failover_config.{field}")));
        }
        let given = flow(|flow| flow["outputs"][0]["policy"] = json!("to-next-keyframe"));
        let wanted = wanted(&given).unwrap();
        assert_eq!(wanted.config().outputs[0].policy, LagPolicy::ToNextKeyFrame);
        assert_eq!(wanted.config().outputs[1].policy, LagPolicy::DropOldest);
        check_any_bytes(given.to_string().as_bytes());
        let refused = flow(|flow| flow["outputs"][0]["policy"] = json!("disconnect"));
        assert_eq!(refusal(&refused), ("invalid_value", "outputs[0].policy".to_string()));
    }

    #[test]
    fn a_bitrate_in_bytes_limits_in_bits() {
        let wanted = wanted(&flow(|flow| {
            flow["sources"][0]["max_bitrate"] = json!(1_000_000);
            flow["sources"][0]["whitelist_cidr"] = json!("10.0.0.0/8, 2001:db8::/32");
        }))
        .unwrap();
        let source = &wanted.config().sources[0];
        assert_eq!(source.limit.and_then(|limit| limit.bitrate), Some(crate::units::Bitrate::from_bps(8_000_000)));
        assert!(source.allow.allows([10, 1, 1, 1].into()) && !source.allow.allows([11, 1, 1, 1].into()));
    }

    #[test]
    fn without_failover_silence_never_counts() {
        let json = flow(|flow| flow["source_failover_config"] = json!({ "state": "DISABLED" }));
        assert_eq!(wanted(&json).unwrap().config().failover.health_timeout, NEVER);
    }
}
