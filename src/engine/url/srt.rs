//! `srt://`, with the names and units of libsrt's URLs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{HIDDEN, Host, HostPort, Parts, Query, UrlError, secret};
use crate::adapters::srt::{EndpointConfig, Local, Payload, Side};
use crate::proto::rtp::SenderConfig;
use crate::proto::srt::crypto::{CipherMode, KeyLength};
use crate::proto::srt::{Bandwidth, CallerGroup, Config, GroupKind, GroupMember, PAYLOAD_MAX};
use crate::units::Bitrate;

pub(super) fn parse_source(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    let mut query = parts.query(&KEYS)?;
    match ["header", "slowtimeout"].into_iter().find_map(|key| Some((key, query.take(key)?))) {
        Some((key, value)) => Err(query.value_error(key, &value, "it only on outputs")),
        None => parse(parts, query),
    }
}

pub(super) fn parse_output(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    parse(parts, parts.query(&KEYS)?)
}

fn parse(parts: &Parts<'_>, mut query: Query<'_>) -> Result<EndpointConfig, UrlError> {
    // What URLs for libsrt say, and what is always so here.
    for (key, only) in [("transtype", "live"), ("enforcedencryption", "1")] {
        if let Some(value) = query.take(key).filter(|value| value != only) {
            return Err(query.value_error(key, &value, &format!("{only}: there is nothing else here")));
        }
    }
    let side = match query.take("type") {
        Some(kind) => group(parts, &mut query, &kind)?,
        None => match ["nodes", "weight"].into_iter().find_map(|key| Some((key, query.take(key)?))) {
            Some((key, value)) => return Err(query.value_error(key, &value, "it only with type=broadcast or backup")),
            None => side(parts, &mut query)?,
        },
    };
    let connection = connection(&mut query)?;
    let payload = payload(&mut query, &connection)?;
    Ok(EndpointConfig { side, connection, payload, socket: query.socket_options()? })
}

/// Without a host it listens, with one it calls, unless `mode` says otherwise.
fn side(parts: &Parts<'_>, query: &mut Query<'_>) -> Result<Side, UrlError> {
    let (host, port) = parts.host_and_port()?;
    let bare = host.strip_prefix('@').unwrap_or(host);
    let any = |host: &Host| matches!(host, Host::Ip(ip) if ip.is_unspecified());
    let address = if bare.is_empty() {
        HostPort { host: Host::Ip(Ipv4Addr::UNSPECIFIED.into()), port }
    } else {
        HostPort { host: bare.parse().map_err(|_| parts.address_error("host missing or wrong"))?, port }
    };
    let mode = match query.take("mode").as_deref() {
        None if host.starts_with('@') || any(&address.host) => Mode::Listener,
        None => Mode::Caller,
        Some("listener" | "server") => Mode::Listener,
        Some("caller" | "client") => Mode::Caller,
        Some("rendezvous") => Mode::Rendezvous,
        Some(other) => return Err(query.value_error("mode", other, "caller, listener or rendezvous")),
    };
    let local = local(query)?;
    match (&address.host, mode) {
        (Host::Ip(ip), _) if ip.is_multicast() => Err(parts.address_error("SRT has no multicast")),
        (Host::Name(_), Mode::Listener) => {
            Err(parts.address_error("a listener has an address of this machine, or none"))
        }
        (_, Mode::Listener) if local != Local::default() => {
            Err(parts.address_error("a listener's own address and port stand before the ?"))
        }
        (_, Mode::Listener) => Ok(Side::Listener { listen: address }),
        (host, Mode::Caller | Mode::Rendezvous) if any(host) => {
            Err(parts.address_error("a caller needs a host to call"))
        }
        (_, Mode::Caller) => Ok(Side::Caller { peer: address, local }),
        // As libsrt: from the port that is called, unless another is said.
        (_, Mode::Rendezvous) => {
            let local = if local.port == 0 { Local { port, ..local } } else { local };
            Ok(Side::Rendezvous { peer: address, local })
        }
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Caller,
    Listener,
    Rendezvous,
}

/// Where to call from.
fn local(query: &mut Query<'_>) -> Result<Local, UrlError> {
    let ip = match query.take("adapter") {
        None => None,
        Some(text) => match text.parse() {
            Ok(ip) => Some(ip),
            Err(_) => return Err(query.value_error("adapter", &text, "an IP address of this machine")),
        },
    };
    Ok(Local { port: query.number("port", 1, u64::from(u16::MAX))?.unwrap_or(0), ip })
}

/// `srt://HOST:PORT?type=backup&weight=2&nodes=HOST:PORT?weight=1,HOST:PORT`, or all of them among the nodes of
/// `srt:////group`, as libsrt's `srt-test-live` has it.
fn group(parts: &Parts<'_>, query: &mut Query<'_>, kind: &str) -> Result<Side, UrlError> {
    let kind = match kind {
        "broadcast" => GroupKind::Broadcast,
        "backup" => GroupKind::Backup,
        other => return Err(query.value_error("type", other, "broadcast or backup")),
    };
    if let Some(mode) = query.take("mode").filter(|mode| !matches!(mode.as_str(), "caller" | "client")) {
        return Err(query.value_error("mode", &mode, "caller: a listener takes groups as they come"));
    }
    let mut members = Vec::new();
    let weight = query.number("weight", 0, u64::from(u16::MAX))?;
    if parts.rest.trim_matches('/') != "group" {
        let problem = "a member of a group is called by its IP address";
        let HostPort { host: Host::Ip(ip), port } = parts.host_port()? else {
            return Err(parts.address_error(problem));
        };
        members.push(GroupMember { peer: SocketAddr::new(ip, port), weight: weight.unwrap_or(0) });
    }
    let nodes = query.take("nodes").unwrap_or_default();
    for text in nodes.split(',').filter(|text| !text.is_empty()) {
        let allowed = "IP:PORT or IP:PORT?weight=NUMBER, with commas between them";
        members.push(node(text).ok_or_else(|| query.value_error("nodes", text, allowed))?);
    }
    let is_callable = |member: &GroupMember| !member.peer.ip().is_unspecified() && !member.peer.ip().is_multicast();
    let Some(first) = members.first().copied() else {
        return Err(query.value_error("nodes", &nodes, "IP:PORT of each member"));
    };
    if members.len() > CallerGroup::MEMBERS_MAX {
        return Err(query.value_error("nodes", &nodes, "at most 8 members"));
    }
    let is_alike = |member: &GroupMember| is_callable(member) && member.peer.is_ipv4() == first.peer.is_ipv4();
    let is_twice = |n: usize| members[..n].iter().any(|other| other.peer == members[n].peer);
    if !members.iter().all(is_alike) || (0..members.len()).any(is_twice) {
        return Err(query.value_error("nodes", &nodes, "different unicast addresses, all IPv4 or all IPv6"));
    }
    Ok(Side::Group { kind, first: HostPort::from(first.peer), members })
}

/// `10.0.0.1:5000`, `[2001:db8::1]:5000`, with `?weight=1` or without.
pub(super) fn node(text: &str) -> Option<GroupMember> {
    let (address, weight) = match text.split_once('?') {
        None => (text, 0),
        Some((address, option)) => (address, option.strip_prefix("weight=")?.parse().ok()?),
    };
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    match host.parse().ok()? {
        Host::Ip(ip) => Some(GroupMember { peer: SocketAddr::new(ip, port), weight }),
        Host::Name(_) => None,
    }
}

fn connection(query: &mut Query<'_>) -> Result<Config, UrlError> {
    let mut config = Config::default();
    let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
    if let Some(latency) = ms(query.number("latency", 0, LATENCY_MS_MAX)?) {
        config.receive_latency = latency;
        config.peer_latency = latency;
    }
    config.receive_latency = ms(query.number("rcvlatency", 0, LATENCY_MS_MAX)?).unwrap_or(config.receive_latency);
    config.peer_latency = ms(query.number("peerlatency", 0, LATENCY_MS_MAX)?).unwrap_or(config.peer_latency);
    if let Some(id) = query.take("streamid") {
        if id.len() > STREAM_ID_BYTES_MAX {
            return Err(query.value_error("streamid", &id, "at most 512 bytes"));
        }
        config.stream_id = id;
    }
    config.too_late_drop = query.switch("tlpktdrop")?.unwrap_or(config.too_late_drop);
    config.nak_reports = query.switch("nakreport")?.unwrap_or(config.nak_reports);
    config.groups = query.switch("groupconnect")?.unwrap_or(config.groups);
    config.reorder_max = query.number("lossmaxttl", 0, 1_000)?.unwrap_or(config.reorder_max);
    config.mtu = query.number("mss", 256, 1_500)?.unwrap_or(config.mtu);
    config.payload_max = query.number("payloadsize", 188, PAYLOAD_MAX as u64)?.unwrap_or(config.payload_max);
    if let Some(text) = query.take("packetfilter").filter(|text| !text.is_empty()) {
        let wrong =
            |error| query.value_error("packetfilter", &text, &format!("fec,cols:10,rows:5 or the like: {error}"));
        config.packet_filter = Some(text.parse().map_err(wrong)?);
    }
    config.connect_timeout = ms(query.number("conntimeo", 100, 60_000)?).unwrap_or(config.connect_timeout);
    config.idle_timeout = ms(query.number("peeridletimeo", 500, 60_000)?).unwrap_or(config.idle_timeout);
    config.slow_timeout = ms(query.number("slowtimeout", 0, SLOW_MS_MAX)?).unwrap_or(config.slow_timeout);
    config.bandwidth = bandwidth(query)?;
    encryption(query, &mut config)?;
    Ok(config)
}

/// `payloadsize` is without the RTP header.
fn payload(query: &mut Query<'_>, connection: &Config) -> Result<Payload, UrlError> {
    match query.take("payload").as_deref() {
        Some("rtp") => {
            let header = query.rtp_header()?;
            Ok(Payload::Rtp(SenderConfig {
                header,
                payload_bytes_max: connection.payload_max,
                ..SenderConfig::default()
            }))
        }
        None | Some("ts") => match query.take("header") {
            None => Ok(Payload::Bytes),
            Some(header) => Err(query.value_error("header", &header, "it only with payload=rtp")),
        },
        Some(other) => Err(query.value_error("payload", other, "ts or rtp")),
    }
}

fn encryption(query: &mut Query<'_>, config: &mut Config) -> Result<(), UrlError> {
    if let Some(text) = query.take("passphrase").filter(|text| !text.is_empty()) {
        // The passphrase itself stays out of the message.
        let allowed = "10 to 79 bytes, or env:NAME or file:PATH where they stand";
        let parsed = secret(text).and_then(|text| text.parse().ok());
        config.passphrase = Some(parsed.ok_or_else(|| query.value_error("passphrase", HIDDEN, allowed))?);
    }
    if let Some(bytes) = query.number("pbkeylen", 0, 32)?.filter(|bytes| *bytes != 0) {
        let length = KeyLength::of_bytes(bytes);
        let length = length.ok_or_else(|| query.value_error("pbkeylen", &bytes.to_string(), "16, 24 or 32"))?;
        config.key_length = Some(length);
    }
    config.cipher = match query.take("cryptomode").as_deref() {
        None | Some("0" | "auto" | "1" | "aes-ctr") => CipherMode::Ctr,
        Some("2" | "aes-gcm") => CipherMode::Gcm,
        Some(other) => return Err(query.value_error("cryptomode", other, "1 for AES-CTR or 2 for AES-GCM")),
    };
    let refresh = query.number("kmrefreshrate", 0, 1 << 32)?;
    config.key_refresh_packets = refresh.unwrap_or(config.key_refresh_packets);
    let announce = query.number("kmpreannounce", 0, 1 << 31)?;
    config.key_announce_packets = announce.unwrap_or(config.key_announce_packets);
    Ok(())
}

/// libsrt's rates are in bytes per second.
fn bandwidth(query: &mut Query<'_>) -> Result<Bandwidth, UrlError> {
    let overhead_percent = query.number("oheadbw", 5, 100)?.unwrap_or(25);
    let input = query.number("inputbw", 0, BYTES_PER_SECOND_MAX)?.unwrap_or(0);
    let rate = |bytes_per_second: u64| Bitrate::from_bps(bytes_per_second * 8);
    let max = match query.take("maxbw") {
        None => return Ok(Bandwidth::Unlimited),
        Some(value) if value == "-1" => return Ok(Bandwidth::Unlimited),
        Some(value) => value.parse().ok().filter(|max| *max <= BYTES_PER_SECOND_MAX).ok_or_else(|| {
            query.value_error("maxbw", &value, "-1 for any, 0 for inputbw and oheadbw, or bytes per second")
        })?,
    };
    Ok(match (max, input) {
        (0, 0) => Bandwidth::Estimated { floor: Bitrate::ZERO, overhead_percent },
        (0, input) => Bandwidth::Input { rate: rate(input), overhead_percent },
        (max, _) => Bandwidth::Max(rate(max)),
    })
}

const KEYS: [&str; 36] = [
    "adapter",
    "conntimeo",
    "cryptomode",
    "dscp",
    "enforcedencryption",
    "groupconnect",
    "header",
    "iface",
    "inputbw",
    "kmpreannounce",
    "kmrefreshrate",
    "latency",
    "lossmaxttl",
    "maxbw",
    "mode",
    "mss",
    "nakreport",
    "nodes",
    "oheadbw",
    "packetfilter",
    "passphrase",
    "payload",
    "payloadsize",
    "pbkeylen",
    "peeridletimeo",
    "peerlatency",
    "port",
    "rcvbuf",
    "rcvlatency",
    "slowtimeout",
    "sndbuf",
    "streamid",
    "tlpktdrop",
    "transtype",
    "type",
    "weight",
];
/// Half a minute; ffmpeg counts microseconds, and a pasted 200000 shall not become minutes.
const LATENCY_MS_MAX: u64 = 30_000;
/// An hour: longer is for ever, which is zero.
const SLOW_MS_MAX: u64 = 3_600_000;
const STREAM_ID_BYTES_MAX: usize = 512;
const BYTES_PER_SECOND_MAX: u64 = 12_500_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::url::{parse_output, parse_source};
    use crate::engine::{OutputEndpoint, SourceEndpoint};
    use crate::proto::rtp::HeaderMode;

    fn output(url: &str) -> EndpointConfig {
        let OutputEndpoint::Srt(srt) = parse_output(url).unwrap().endpoint else { unreachable!("an SRT output") };
        *srt
    }

    #[test]
    fn the_peers_own_urls_can_be_pasted() {
        for url in ["srt://:9000", "srt://0.0.0.0:9000?mode=listener", "srt://@:9000", "srt://:9000?mode=listener"] {
            assert!(matches!(output(url).side, Side::Listener { .. }), "{url}");
            assert!(matches!(parse_source(url), Ok(SourceEndpoint::Srt(_))), "{url}");
        }
        let config =
            output("srt://example.net:9000?latency=300&streamid=%23!::r=news,m=publish&maxbw=0&inputbw=250000");
        assert!(matches!(config.side, Side::Caller { .. }));
        assert_eq!(config.connection.receive_latency, Duration::from_millis(300));
        assert_eq!(config.connection.peer_latency, Duration::from_millis(300));
        assert_eq!(config.connection.stream_id, "#!::r=news,m=publish");
        let rate = Bitrate::from_bps(2_000_000);
        assert_eq!(config.connection.bandwidth, Bandwidth::Input { rate, overhead_percent: 25 });
    }

    #[test]
    fn a_packet_filter_is_written_as_for_libsrt_escaped_or_not() {
        let filter = "fec,cols:10,rows:5,layout:even,arq:never";
        for given in [filter, "fec%2Ccols%3A10%2Crows%3A5%2Clayout%3Aeven%2Carq%3Anever"] {
            let config = output(&format!("srt://10.0.0.1:9000?packetfilter={given}"));
            assert_eq!(config.connection.packet_filter, filter.parse().ok());
        }
        assert_eq!(output("srt://10.0.0.1:9000?packetfilter=").connection.packet_filter, None);
    }

    #[test]
    fn what_is_always_so_may_be_said() {
        assert_eq!(output("srt://:9000?transtype=live&enforcedencryption=1"), output("srt://:9000"));
        for wrong in ["transtype=file", "enforcedencryption=0"] {
            let error = parse_output(&format!("srt://:9000?{wrong}")).unwrap_err().to_string();
            assert!(error.contains("nothing else here"), "{error}");
        }
    }

    #[test]
    fn what_is_about_sending_is_no_key_of_a_source() {
        for key in ["slowtimeout=0", "payload=rtp&header=keep"] {
            let error = parse_source(&format!("srt://:9000?{key}")).unwrap_err().to_string();
            assert!(error.contains("only on outputs"), "{error}");
        }
    }

    #[test]
    fn packets_carry_rtp_if_it_is_said() {
        for url in ["srt://:9000", "srt://:9000?payload=ts"] {
            assert_eq!(output(url).payload, Payload::Bytes);
        }
        let sender = |header, payload_bytes_max| SenderConfig { header, payload_bytes_max, ..SenderConfig::default() };
        let new = Payload::Rtp(sender(HeaderMode::New, 1_316));
        assert_eq!(output("srt://:9000?payload=rtp").payload, new);
        let kept = Payload::Rtp(sender(HeaderMode::Keep, 1_000));
        assert_eq!(output("srt://10.0.0.1:9000?payload=rtp&header=keep&payloadsize=1000").payload, kept);
    }

    #[test]
    fn slow_callers_are_sent_away_after_ten_seconds_unless_said_otherwise() {
        for (url, seconds) in [("srt://:9000", 10), ("srt://:9000?slowtimeout=0", 0), ("srt://:1?slowtimeout=3000", 3)]
        {
            assert_eq!(output(url).connection.slow_timeout, Duration::from_secs(seconds));
        }
    }

    #[test]
    fn groups_are_called_as_libsrt_calls_them() {
        let member = |peer: &str, weight| GroupMember { peer: peer.parse().unwrap(), weight };
        let expected = [member("10.0.0.1:5000", 2), member("10.0.0.2:5001", 1), member("10.0.0.3:5002", 0)];
        for url in [
            "srt://10.0.0.1:5000?type=backup&weight=2&nodes=10.0.0.2:5001?weight=1,10.0.0.3:5002&latency=300",
            "srt:////group?type=backup&nodes=10.0.0.1:5000?weight=2,10.0.0.2:5001?weight=1,10.0.0.3:5002&latency=300",
        ] {
            let config = output(url);
            let Side::Group { kind, first, members } = &config.side else { unreachable!("{:?}", config.side) };
            assert_eq!((*kind, first.to_string().as_str()), (GroupKind::Backup, "10.0.0.1:5000"));
            assert_eq!(members[..], expected);
            assert_eq!(config.connection.peer_latency, Duration::from_millis(300));
            assert!(matches!(parse_source(url), Ok(SourceEndpoint::Srt(_))), "{url}");
        }
        let config = output("srt://[::1]:5000?type=broadcast&nodes=[::1]:5001");
        assert!(matches!(config.side, Side::Group { kind: GroupKind::Broadcast, members, .. } if members.len() == 2));
        assert!(!output("srt://:5000?groupconnect=0").connection.groups && output("srt://:5000").connection.groups);
    }

    #[test]
    fn whoever_calls_may_say_from_where() {
        let local = |url: &str| match output(url).side {
            Side::Caller { local, .. } | Side::Rendezvous { local, .. } => {
                (local.port, local.ip.map(|ip| ip.to_string()))
            }
            side @ (Side::Group { .. } | Side::Listener { .. }) => unreachable!("{side:?}"),
        };
        assert_eq!(local("srt://10.0.0.1:9000"), (0, None));
        assert_eq!(local("srt://10.0.0.1:9000?port=9001&adapter=10.0.0.2"), (9_001, Some("10.0.0.2".into())));
        assert_eq!(local("srt://10.0.0.1:9000?mode=rendezvous"), (9_000, None));
        assert_eq!(local("srt://example.net:9000?mode=rendezvous&port=9001"), (9_001, None));
    }

    #[test]
    fn a_passphrase_may_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "a-secret-of-ours\n").unwrap();
        let config = output(&format!("srt://10.0.0.1:9000?passphrase=file:{}", file.path().display()));
        assert_eq!(config.connection.passphrase, "a-secret-of-ours".parse().ok());
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_fix() {
        for (url, part) in [
            ("srt://239.1.1.1:9000", "no multicast"),
            ("srt://:9000?mode=caller", "a caller needs a host"),
            ("srt://10.0.0.1:9000?mode=both", "caller, listener or rendezvous"),
            ("srt://:9000?mode=rendezvous", "a host to call"),
            ("srt://:9000?port=9001", "stand before the ?"),
            ("srt://10.0.0.1:9000?adapter=eth0", "an IP address of this machine"),
            ("srt://10.0.0.1:9000?latency=200000", "0 to 30000"),
            ("srt://10.0.0.1:9000?tlpktdrop=maybe", "1 or 0"),
            ("srt://10.0.0.1:9000?passphrase=2short", "passphrase=*** is not allowed, write 10 to 79 bytes"),
            ("srt://10.0.0.1:9000?passphrase=env:ANABRANCH_NO_SUCH_VARIABLE", "env:NAME"),
            ("srt://10.0.0.1:9000?nosuch=1", "unknown key"),
            ("srt://10.0.0.1:9000?payload=flv", "ts or rtp"),
            ("srt://10.0.0.1:9000?header=keep", "only with payload=rtp"),
            ("srt://10.0.0.1:9000?payload=rtp&header=old", "keep or new"),
            ("srt://:9000?slowtimeout=never", "0 to 3600000"),
            ("srt://10.0.0.1:9000?packetfilter=rs,k:10", "fec is the only filter there is"),
            ("srt://10.0.0.1:9000?packetfilter=fec,cols:1", "cols must be from 2 to 255"),
            ("srt://10.0.0.1:9000?packetfilter=fec,cols:10,rows:-1", "rows must be from 1 to 255, or"),
            ("srt://10.0.0.1:9000?packetfilter=fec,weight:1", "write fec,cols:10,rows:5 or the like: fec has the keys"),
            ("srt://10.0.0.1:9000?type=balancing", "write broadcast or backup"),
            ("srt://10.0.0.1:9000?nodes=10.0.0.2:9000", "only with type="),
            ("srt://10.0.0.1:9000?weight=1", "only with type="),
            ("srt://10.0.0.1:9000?type=backup&mode=listener", "a listener takes groups"),
            ("srt://example.net:9000?type=backup", "by its IP address"),
            ("srt://10.0.0.1:9000?type=backup&nodes=10.0.0.2", "IP:PORT"),
            ("srt://10.0.0.1:9000?type=backup&nodes=10.0.0.2:9000?wait=1", "IP:PORT"),
            ("srt://10.0.0.1:9000?type=backup&nodes=10.0.0.1:9000", "different unicast addresses"),
            ("srt://10.0.0.1:9000?type=backup&nodes=[::1]:9000", "all IPv4 or all IPv6"),
            ("srt:////group?type=backup", "IP:PORT of each member"),
        ] {
            let error = parse_output(url).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("2short"), "{error}");
        }
    }
}
