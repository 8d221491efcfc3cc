//! `rist://`, with the names and units of librist's URLs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{HIDDEN, Host, HostPort, Parts, Query, UrlError, secret, srt};
use crate::adapters::rist::{EndpointConfig, Side};
use crate::proto::rist::crypto::KeyLength;
use crate::proto::rist::rtcp::RequestFormat;
use crate::proto::rist::srp::Accounts;
use crate::proto::rist::{Config, Leg, Profile, Sender};
use crate::proto::srt::GroupMember;
use crate::units::Bitrate;

pub(super) fn parse_source(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    let mut query = parts.query(&KEYS)?;
    if let Some(value) = query.take("header") {
        return Err(query.value_error("header", &value, "it only on outputs"));
    }
    let endpoint = parse(parts, query)?;
    match (&endpoint.side, endpoint.session.profile) {
        (Side::Bonded { .. }, _) => Err(parts.address_error("all paths come to one port here, so leave out nodes")),
        (Side::Caller { .. }, Profile::Simple) => {
            Err(parts.address_error("in the Simple profile a source is called: write @ or an address of this machine"))
        }
        _ => Ok(endpoint),
    }
}

pub(super) fn parse_output(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    let endpoint = parse(parts, parts.query(&KEYS)?)?;
    match (&endpoint.side, endpoint.session.profile) {
        (Side::Listener { .. }, Profile::Simple) => {
            Err(parts.address_error("in the Simple profile an output calls: write whom"))
        }
        (Side::Caller { peer: HostPort { host: Host::Ip(ip), .. } }, _) if ip.is_multicast() => {
            Err(parts.address_error("RIST to a multicast group is not available in this version"))
        }
        _ => Ok(endpoint),
    }
}

fn parse(parts: &Parts<'_>, mut query: Query<'_>) -> Result<EndpointConfig, UrlError> {
    let session = session(&mut query)?;
    let side = match query.take("nodes") {
        Some(nodes) => bonded(parts, &mut query, &nodes)?,
        None => side(parts)?,
    };
    let login = login(&mut query, &side)?;
    let endpoint = EndpointConfig { side, session, login, socket: query.socket_options()? };
    // Librist has a weight for each peer; a single one gets everything.
    let _any: Option<u16> = query.number("weight", 0, 1_000)?;
    if endpoint.session.profile == Profile::Simple && endpoint.address().port % 2 == 1 {
        // TR-06-1 5.1.
        return Err(parts.address_error("in the Simple profile the port is even, and RTCP has the next one"));
    }
    Ok(endpoint)
}

/// `@`, no host, or any address: it listens. `@` before one: it listens there. Else it calls.
fn side(parts: &Parts<'_>) -> Result<Side, UrlError> {
    let (host, port) = parts.host_and_port()?;
    let bare = host.strip_prefix('@').unwrap_or(host);
    if bare.is_empty() {
        return Ok(Side::Listener { listen: HostPort { host: Host::Ip(Ipv4Addr::UNSPECIFIED.into()), port } });
    }
    let parsed = bare.parse().map_err(|_| parts.address_error("host missing or wrong"))?;
    match &parsed {
        Host::Ip(ip) if host.starts_with('@') || ip.is_unspecified() => {
            Ok(Side::Listener { listen: HostPort { host: parsed, port } })
        }
        Host::Name(_) if host.starts_with('@') => {
            Err(parts.address_error("a listener has an address of this machine, or none"))
        }
        Host::Ip(_) | Host::Name(_) => Ok(Side::Caller { peer: HostPort { host: parsed, port } }),
    }
}

/// `rist://IP:PORT?weight=2&nodes=IP:PORT?weight=1,IP:PORT`, as with groups of SRT.
fn bonded(parts: &Parts<'_>, query: &mut Query<'_>, nodes: &str) -> Result<Side, UrlError> {
    let HostPort { host: Host::Ip(ip), port } = parts.host_port()? else {
        return Err(parts.address_error("a leg is called by its IP address"));
    };
    let weight = query.number("weight", 0, 1_000)?.unwrap_or(0);
    let mut legs = vec![Leg { peer: SocketAddr::new(ip, port), weight }];
    for text in nodes.split(',').filter(|text| !text.is_empty()) {
        let allowed = "IP:PORT or IP:PORT?weight=NUMBER, with commas between them";
        let node = srt::node(text).filter(|node| node.weight <= 1_000);
        let GroupMember { peer, weight } = node.ok_or_else(|| query.value_error("nodes", text, allowed))?;
        legs.push(Leg { peer, weight });
    }
    let is_alike = |leg: &Leg| {
        let ip = leg.peer.ip();
        !ip.is_unspecified() && !ip.is_multicast() && ip.is_ipv4() == legs[0].peer.is_ipv4()
    };
    let is_twice = |n: usize| legs[..n].iter().any(|other| other.peer == legs[n].peer);
    if legs.len() > Sender::PEERS_MAX || !legs.iter().all(is_alike) || (0..legs.len()).any(is_twice) {
        return Err(query.value_error("nodes", nodes, "up to 15 different unicast addresses, all IPv4 or all IPv6"));
    }
    Ok(Side::Bonded { first: HostPort::from(legs[0].peer), legs })
}

fn session(query: &mut Query<'_>) -> Result<Config, UrlError> {
    let mut config = Config::default();
    let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
    config.profile = match query.take("profile").as_deref() {
        None | Some("1" | "main") => Profile::Main,
        Some("0" | "simple") => Profile::Simple,
        Some(other) => return Err(query.value_error("profile", other, "simple or main")),
    };
    // Ours does not change with the round trip: of a range it is the longer end.
    for key in ["buffer-min", "buffer-max", "buffer"] {
        config.buffer = ms(query.number(key, 20, BUFFER_MS_MAX)?).unwrap_or(config.buffer);
    }
    config.reorder = ms(query.number("reorder-buffer", 0, 1_000)?).unwrap_or(config.reorder);
    let (least, most) = config.round_trip;
    config.round_trip.0 = ms(query.number("rtt-min", 1, 5_000)?).unwrap_or(least);
    config.round_trip.1 = ms(query.number("rtt-max", 1, 10_000)?).unwrap_or(most).max(config.round_trip.0);
    config.header = query.rtp_header()?;
    let kbps: Option<u64> = query.number("bandwidth", 1, 100_000_000)?;
    config.bandwidth = kbps.map(|kbps| Bitrate::from_bps(kbps * 1_000));
    if let Some(cname) = query.take("cname") {
        if !(1..=128).contains(&cname.len()) {
            return Err(query.value_error("cname", &cname, "1 to 128 bytes"));
        }
        config.cname = cname;
    }
    config.session_timeout = ms(query.number("session-timeout", 250, 60_000)?).unwrap_or(config.session_timeout);
    config.requests = match query.take("nack").as_deref() {
        None => RequestFormat::Shorter,
        Some("range") => RequestFormat::Range,
        Some("bitmask") => RequestFormat::Bitmask,
        Some(other) => return Err(query.value_error("nack", other, "range or bitmask")),
    };
    main_profile(query, &mut config)?;
    Ok(config)
}

/// What the Simple profile has no use for.
fn main_profile(query: &mut Query<'_>, config: &mut Config) -> Result<(), UrlError> {
    if config.profile == Profile::Simple {
        for key in MAIN_KEYS {
            if query.take(key).is_some() {
                return Err(query.value_error(key, "...", "it only with profile=main"));
            }
        }
        return Ok(());
    }
    if let Some(text) = query.take("secret").filter(|text| !text.is_empty()) {
        // The secret itself stays out of the message.
        let parsed = secret(text).and_then(|text| text.parse().ok());
        let allowed = "1 to 127 bytes, or env:NAME or file:PATH where they stand";
        config.secret = Some(parsed.ok_or_else(|| query.value_error("secret", HIDDEN, allowed))?);
    }
    config.key_length = match query.number("aes-type", 0, 256)? {
        None | Some(0 | 128) => KeyLength::Aes128,
        Some(256) => KeyLength::Aes256,
        Some(bits) => return Err(query.value_error("aes-type", &bits.to_string(), "128 or 256")),
    };
    config.key_rotation = query.number("key-rotation", 64, 1 << 31)?.unwrap_or(config.key_rotation);
    let port = query.number("virt-dst-port", 1, 65_534)?.unwrap_or(config.virtual_port);
    if port % 2 == 1 {
        return Err(query.value_error("virt-dst-port", &port.to_string(), "an even number"));
    }
    config.virtual_port = port;
    let keep_alive = query.number("keepalive-interval", 100, 10_000)?;
    config.keep_alive = keep_alive.map_or(config.keep_alive, Duration::from_millis);
    config.null_packet_deletion = query.switch("npd")?.unwrap_or(false);
    Ok(())
}

/// Who a caller is; whom a listener lets in: one user, or those of a file that librist's `ristsrppasswd` makes.
fn login(query: &mut Query<'_>, side: &Side) -> Result<Option<Accounts>, UrlError> {
    let [user, password, file] =
        ["username", "password", "srpfile"].map(|key| query.take(key).filter(|text| !text.is_empty()));
    match (user, password, file) {
        (None, None, None) => Ok(None),
        (Some(user), Some(password), None) => {
            // The password itself stays out of the message.
            let parsed = secret(password).and_then(|password| Accounts::login(&user, &password).ok());
            let allowed =
                "user and password of 1 to 255 bytes each, or env:NAME or file:PATH where the password stands";
            parsed.map(Some).ok_or_else(|| query.value_error("password", HIDDEN, allowed))
        }
        (Some(user), None, None) => Err(query.value_error("username", &user, "a password with it")),
        (None, Some(_), None) => Err(query.value_error("password", HIDDEN, "a username with it")),
        (None, None, Some(file)) => {
            if !matches!(side, Side::Listener { .. }) {
                return Err(query.value_error("srpfile", &file, "it only where others call; a caller has a username"));
            }
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string());
            let accounts = text.and_then(|text| text.parse::<Accounts>().map_err(|error| error.to_string()));
            let wrong = |error| query.value_error("srpfile", &file, &format!("a file of ristsrppasswd: {error}"));
            accounts.map(Some).map_err(wrong)
        }
        (_, _, Some(file)) => Err(query.value_error("srpfile", &file, "either it or a username")),
    }
}

/// Longer holds more than 16 bits can number, at any rate worth protecting.
const BUFFER_MS_MAX: u64 = 30_000;

const MAIN_KEYS: [&str; 9] = [
    "aes-type",
    "keepalive-interval",
    "key-rotation",
    "npd",
    "password",
    "secret",
    "srpfile",
    "username",
    "virt-dst-port",
];
const KEYS: [&str; 28] = [
    "aes-type",
    "bandwidth",
    "buffer",
    "buffer-max",
    "buffer-min",
    "cname",
    "dscp",
    "header",
    "iface",
    "keepalive-interval",
    "key-rotation",
    "nack",
    "nodes",
    "npd",
    "password",
    "profile",
    "rcvbuf",
    "reorder-buffer",
    "rtt-max",
    "rtt-min",
    "secret",
    "session-timeout",
    "sndbuf",
    "srpfile",
    "ttl",
    "username",
    "virt-dst-port",
    "weight",
];

#[cfg(test)]
mod tests {
    use super::super::{parse_output, parse_source, without_secrets};
    use super::*;
    use crate::engine::{OutputEndpoint, SourceEndpoint};
    use crate::proto::rtp::HeaderMode;

    fn source(url: &str) -> EndpointConfig {
        let SourceEndpoint::Rist(endpoint) = parse_source(url).unwrap() else { unreachable!("a RIST source") };
        *endpoint
    }

    fn output(url: &str) -> EndpointConfig {
        let OutputEndpoint::Rist(endpoint) = parse_output(url).unwrap().endpoint else { unreachable!("a RIST output") };
        *endpoint
    }

    #[test]
    fn librists_own_urls_can_be_pasted() {
        let endpoint = output("rist://10.0.0.9:5000?secret=hunter22&aes-type=256&buffer=400&bandwidth=20000&cname=x");
        assert_eq!(endpoint.side, Side::Caller { peer: HostPort::from(SocketAddr::from(([10, 0, 0, 9], 5_000))) });
        let session = &endpoint.session;
        assert_eq!((session.profile, session.key_length), (Profile::Main, KeyLength::Aes256));
        assert_eq!((session.secret.clone(), session.buffer), ("hunter22".parse().ok(), Duration::from_millis(400)));
        assert_eq!(session.bandwidth, Some(Bitrate::from_bps(20_000_000)));
        let bonded = output("rist://10.0.0.9:5000?weight=2&nodes=10.1.0.9:5000?weight=1,10.2.0.9:5002");
        let Side::Bonded { legs, .. } = bonded.side else { unreachable!("several legs") };
        assert_eq!(
            legs.iter().map(|leg| (leg.peer.port(), leg.weight)).collect::<Vec<_>>(),
            [(5_000, 2), (5_000, 1), (5_002, 0)]
        );
        for url in ["rist://@:5000", "rist://@0.0.0.0:5000?profile=simple", "rist://:5000", "rist://0.0.0.0:5000"] {
            assert!(matches!(source(url).side, Side::Listener { .. }), "{url}");
        }
        assert_eq!(output("rist://10.0.0.9:5000?header=keep").session.header, HeaderMode::Keep);
        assert!(matches!(source("rist://example.com:5001").side, Side::Caller { .. }));
        assert!(matches!(output("rist://@:5000").side, Side::Listener { .. }));
    }

    #[test]
    fn errors_name_the_fix_and_hide_secrets() {
        let text = |url: &str| parse_output(url).unwrap_err().to_string();
        assert!(text("rist://@:5000?profile=simple").contains("an output calls"));
        assert!(text("rist://1.2.3.4:5001?profile=simple").contains("even"));
        assert!(text("rist://1.2.3.4:5000?profile=simple&secret=hunter22").contains("only with profile=main"));
        assert!(text("rist://1.2.3.4:5000?header=old").contains("keep or new"));
        assert!(parse_source("rist://@:5000?header=keep").unwrap_err().to_string().contains("only on outputs"));
        assert!(text("rist://1.2.3.4:5000?aes-type=192").contains("128 or 256"));
        let long = format!("rist://1.2.3.4:5000?secret={}", "x".repeat(200));
        assert!(!text(&long).contains("xx"), "{}", text(&long));
        assert!(parse_source("rist://1.2.3.4:5000?profile=simple").unwrap_err().to_string().contains("is called"));
        assert!(parse_source("rist://1.2.3.4:1?secret=***").unwrap_err().to_string().contains("write it out"));
        assert_eq!(without_secrets("rist://1.2.3.4:1?secret=abc&buffer=9"), "rist://1.2.3.4:1?secret=***&buffer=9");
    }

    #[test]
    fn users_are_given_by_name_or_by_file_and_passwords_stay_hidden() {
        let alice = Accounts::login("alice", "wonder").ok();
        let url = "rist://1.2.3.4:5000?username=alice&password=wonder";
        assert_eq!(output(url).login, alice);
        assert_eq!(without_secrets(url), "rist://1.2.3.4:5000?username=alice&password=***");
        assert_eq!(source("rist://@:5000?username=alice&password=wonder").login, alice);
        assert_eq!(source("rist://@:5000").login, None);
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let password = file("password", "wonder\n");
        assert_eq!(source(&format!("rist://@:5000?username=alice&password=file:{password}")).login, alice);
        let users = file("users", include_str!("../../../tests/data/rist/srp-027.txt"));
        assert!(source(&format!("rist://@:5000?srpfile={users}")).login.is_some_and(|users| !users.is_login()));
        let text = |url: &str| parse_output(url).unwrap_err().to_string();
        assert!(text("rist://1.2.3.4:5000?username=alice").contains("a password with it"));
        let alone = text("rist://1.2.3.4:5000?password=wonder");
        assert!(alone.contains("a username with it") && !alone.contains("wonder"), "{alone}");
        let long = text(&format!("rist://1.2.3.4:5000?username=alice&password={}", "x".repeat(256)));
        assert!(long.contains("1 to 255 bytes") && !long.contains("xx"), "{long}");
        assert!(text(&format!("rist://1.2.3.4:5000?srpfile={users}")).contains("where others call"));
        assert!(text(&format!("rist://@:5000?username=a&password=b&srpfile={users}")).contains("either"));
        assert!(text(&format!("rist://@:5000?srpfile={password}")).contains("line 1"));
        assert!(text("rist://1.2.3.4:5000?profile=simple&username=a&password=b").contains("only with profile=main"));
    }
}
