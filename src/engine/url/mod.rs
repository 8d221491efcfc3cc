//! Source and output URLs: `udp://`, `rtp://`, `rtp-fec://`, `srt://`, `rist://`, `rtmp://`, `test:`.

mod rist;
mod rtmp;
mod secrets;
mod srt;
mod test_signal;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

pub use secrets::{HIDDEN, with_secrets_of, without_secrets};

use secrets::{SECRET_KEYS, secret};

use super::config::{COALESCE_MAX, OutputEndpoint, SourceEndpoint};
use crate::adapters::{Host, HostPort, Interface, LEGS_MAX, LegConfig, SocketOptions, rtp, udp};
use crate::proto::fec::{Matrix, MatrixError};
use crate::proto::rtp::{HeaderMode, PayloadTypes, ReceiverConfig, SenderConfig};
use crate::units::DataSize;

/// Why a URL is no source or output. The text is one line with what was given, what is allowed, and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No scheme that we know.
    #[error("{given}: unknown scheme, write one of {allowed}")]
    Scheme {
        /// The URL.
        given: String,
        /// What would do.
        allowed: &'static str,
    },
    /// The scheme cannot be used on this side.
    #[error("{given}: {scheme} can only be a source")]
    SourceOnly {
        /// The URL.
        given: String,
        /// Its scheme.
        scheme: &'static str,
    },
    /// Host or port missing or wrong.
    #[error("{given}: {problem}, write {scheme}://HOST:PORT with a port from 1 to 65535")]
    Address {
        /// The URL.
        given: String,
        /// Its scheme.
        scheme: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A query key that does not exist here.
    #[error("{given}: unknown key {key}, known are {known}")]
    UnknownKey {
        /// The URL.
        given: String,
        /// The key.
        key: String,
        /// Those that exist.
        known: String,
    },
    /// What is shown in place of a secret was given for it.
    #[error("{given}: *** only stands for the {what} where that is shown, write it out")]
    Hidden {
        /// The URL.
        given: String,
        /// Which secret.
        what: String,
    },
    /// A key given twice.
    #[error("{given}: key {key} is given twice")]
    RepeatedKey {
        /// The URL.
        given: String,
        /// The key.
        key: String,
    },
    /// A value outside what its key allows.
    #[error("{given}: {key}={value} is not allowed, write {allowed}")]
    Value {
        /// The URL.
        given: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would do.
        allowed: String,
    },
}

/// What an output URL says.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputUrl {
    /// Protocol and address.
    pub endpoint: OutputEndpoint,
    /// Value of `coalesce`, if given.
    pub coalesce: Option<Duration>,
}

/// Reads a source URL.
///
/// # Errors
/// [`UrlError`], one line fit for a user.
pub fn parse_source(url: &str) -> Result<SourceEndpoint, UrlError> {
    let shown = without_secrets(url);
    let parts = Parts::split(url, &shown)?;
    match parts.scheme {
        "udp" => {
            let mut query = parts.query(&["iface", "rcvbuf", "source"])?;
            Ok(SourceEndpoint::Udp(udp::SourceConfig {
                listen: parts.listen()?,
                multicast_source: query.multicast_source(parts.listen()?)?,
                socket: query.socket_options()?,
            }))
        }
        "rtp" | "rtp-fec" => {
            let mut query = parts.query(&["fec", "iface", "pt", "rcvbuf", "reorder", "source"])?;
            Ok(SourceEndpoint::Rtp(rtp::SourceConfig {
                listen: parts.listen()?,
                multicast_source: query.multicast_source(parts.listen()?)?,
                socket: query.socket_options()?,
                receiver: query.rtp_receiver(parts.scheme == "rtp-fec")?,
            }))
        }
        "srt" => Ok(SourceEndpoint::Srt(Box::new(srt::parse_source(&parts)?))),
        "rist" => Ok(SourceEndpoint::Rist(Box::new(rist::parse_source(&parts)?))),
        "rtmp" | "rtmps" => Ok(SourceEndpoint::Rtmp(Box::new(rtmp::parse_source(&parts)?))),
        "test" => test_signal::parse(&parts).map(|test| SourceEndpoint::Test(Box::new(test))),
        _ => Err(UrlError::Scheme {
            given: shown.clone(),
            allowed: "udp://, rtp://, rtp-fec://, srt://, rist://, rtmp://, rtmps://, test:",
        }),
    }
}

/// Reads an output URL.
///
/// # Errors
/// [`UrlError`], one line fit for a user.
pub fn parse_output(url: &str) -> Result<OutputUrl, UrlError> {
    let shown = without_secrets(url);
    let parts = Parts::split(url, &shown)?;
    match parts.scheme {
        "udp" => {
            let mut query = parts.query(&["coalesce", "dscp", "iface", "pkt_size", "sndbuf", "ttl"])?;
            let coalesce = query.coalesce()?;
            let endpoint = OutputEndpoint::Udp(udp::OutputConfig {
                destination: parts.host_port()?,
                packet_size_max: query.number("pkt_size", 1, 65_507)?,
                socket: query.socket_options()?,
            });
            Ok(OutputUrl { endpoint, coalesce })
        }
        "rtp" | "rtp-fec" => {
            let mut query = parts.query(RTP_OUTPUT_KEYS)?;
            let coalesce = query.coalesce()?;
            let (destination, socket) = (parts.host_port()?, query.socket_options()?);
            let legs = query.legs(&destination, socket.interface.as_ref())?;
            let sender = query.rtp_sender(parts.scheme == "rtp-fec")?;
            let endpoint = OutputEndpoint::Rtp(rtp::OutputConfig { destination, socket, sender, legs });
            Ok(OutputUrl { endpoint, coalesce })
        }
        "srt" => {
            let endpoint = OutputEndpoint::Srt(Box::new(srt::parse_output(&parts)?));
            Ok(OutputUrl { endpoint, coalesce: None })
        }
        "rist" => {
            let endpoint = OutputEndpoint::Rist(Box::new(rist::parse_output(&parts)?));
            Ok(OutputUrl { endpoint, coalesce: None })
        }
        "rtmp" | "rtmps" => {
            let endpoint = OutputEndpoint::Rtmp(Box::new(rtmp::parse_output(&parts)?));
            Ok(OutputUrl { endpoint, coalesce: None })
        }
        "test" => Err(UrlError::SourceOnly { given: shown.clone(), scheme: "test:" }),
        _ => Err(UrlError::Scheme {
            given: shown.clone(),
            allowed: "udp://, rtp://, rtp-fec://, srt://, rist://, rtmp://, rtmps://",
        }),
    }
}

const RTP_OUTPUT_KEYS: &[&str] =
    &["coalesce", "d", "dscp", "fec", "header", "iface", "l", "leg", "pkt_size", "pt", "rows", "sndbuf", "ssrc", "ttl"];

/// A URL taken apart.
struct Parts<'url> {
    /// As errors show it.
    url: &'url str,
    scheme: &'url str,
    /// Host and port, or what follows `test:`.
    rest: &'url str,
    query: &'url str,
}

impl<'url> Parts<'url> {
    fn split(url: &'url str, shown: &'url str) -> Result<Self, UrlError> {
        let (before, query) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, rest) = before
            .split_once("://")
            .or_else(|| before.split_once(':').filter(|parts| parts.0 == "test"))
            .ok_or_else(|| UrlError::Scheme { given: shown.into(), allowed: "udp://HOST:PORT, rtp://HOST:PORT" })?;
        Ok(Self { url: shown, scheme, rest, query })
    }

    fn query(&self, known: &'static [&'static str]) -> Result<Query<'url>, UrlError> {
        let given = || self.url.to_string();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (key, value) in form_urlencoded::parse(self.query.as_bytes()) {
            if !known.contains(&&*key) {
                return Err(UrlError::UnknownKey { given: given(), key: key.into(), known: known.join(", ") });
            }
            if key != "leg" && pairs.iter().any(|pair| pair.0 == key) {
                return Err(UrlError::RepeatedKey { given: given(), key: key.into() });
            }
            if SECRET_KEYS.contains(&&*key) && value == HIDDEN {
                return Err(UrlError::Hidden { given: given(), what: key.into() });
            }
            pairs.push((key.into(), value.into()));
        }
        Ok(Query { url: self.url, pairs })
    }

    fn address_error(&self, problem: &'static str) -> UrlError {
        UrlError::Address { given: self.url.into(), scheme: self.scheme.into(), problem }
    }

    fn value_error(&self, key: &'static str, value: &str, allowed: &str) -> UrlError {
        UrlError::Value { given: self.url.into(), key, value: value.into(), allowed: allowed.into() }
    }

    fn hidden_error(&self, what: &str) -> UrlError {
        UrlError::Hidden { given: self.url.into(), what: what.into() }
    }

    fn host_port(&self) -> Result<HostPort, UrlError> {
        let (host, port) = self.host_and_port()?;
        let host = Host::from_str(host).map_err(|_| self.address_error("host missing or wrong"))?;
        Ok(HostPort { host, port })
    }

    /// An empty host and `@` both mean every interface; `@GROUP` is the group.
    fn listen(&self) -> Result<SocketAddr, UrlError> {
        let (host, port) = self.host_and_port()?;
        let host = host.strip_prefix('@').unwrap_or(host);
        if host.is_empty() {
            return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        }
        match Host::from_str(host) {
            Ok(Host::Ip(ip)) => Ok(SocketAddr::new(ip, port)),
            Ok(Host::Name(_)) | Err(_) => {
                Err(self.address_error("a source listens on an address of this machine or a group"))
            }
        }
    }

    fn host_and_port(&self) -> Result<(&'url str, u16), UrlError> {
        let rest = self.rest.strip_suffix('/').unwrap_or(self.rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| self.address_error("port missing"))?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0);
        Ok((host, port.ok_or_else(|| self.address_error("port wrong"))?))
    }
}

/// The query's keys, each taken at most once, in the order in which they are given.
struct Query<'url> {
    url: &'url str,
    pairs: Vec<(String, String)>,
}

impl Query<'_> {
    fn take(&mut self, key: &str) -> Option<String> {
        let index = self.pairs.iter().position(|pair| pair.0 == key)?;
        Some(self.pairs.remove(index).1)
    }

    fn value_error(&self, key: &'static str, value: &str, allowed: &str) -> UrlError {
        UrlError::Value { given: self.url.into(), key, value: value.into(), allowed: allowed.into() }
    }

    fn number<N>(&mut self, key: &'static str, min: u64, max: u64) -> Result<Option<N>, UrlError>
    where
        N: TryFrom<u64>,
    {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let number = value.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
        number
            .and_then(|number| N::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| self.value_error(key, &value, &format!("a number from {min} to {max}")))
    }

    /// `1` or `0`, as libsrt writes them, or in words.
    fn switch(&mut self, key: &'static str) -> Result<Option<bool>, UrlError> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("1" | "yes" | "on" | "true") => Ok(Some(true)),
            Some("0" | "no" | "off" | "false") => Ok(Some(false)),
            Some(other) => Err(self.value_error(key, other, "1 or 0")),
        }
    }

    fn socket_options(&mut self) -> Result<SocketOptions, UrlError> {
        let interface =
            match self.take("iface") {
                None => None,
                Some(value) => Some(Interface::from_str(&value).map_err(|_| {
                    self.value_error("iface", &value, "an interface's name or its IPv4 address, as eth0")
                })?),
            };
        let buffer = |bytes: Option<u64>| bytes.map(DataSize::from_bytes);
        Ok(SocketOptions {
            interface,
            ttl: self.number("ttl", 1, 255)?,
            dscp: self.number("dscp", 0, 63)?,
            receive_buffer: buffer(self.number("rcvbuf", 4_096, 1 << 30)?),
            send_buffer: buffer(self.number("sndbuf", 4_096, 1 << 30)?),
        })
    }

    /// Every further leg.
    fn legs(&mut self, first: &HostPort, interface: Option<&Interface>) -> Result<Vec<LegConfig>, UrlError> {
        let mut legs: Vec<LegConfig> = Vec::new();
        while let Some(value) = self.take("leg") {
            let parsed = parse_leg(&value);
            let leg = parsed.ok_or_else(|| self.value_error("leg", &value, "IP:PORT or IP:PORT@INTERFACE"))?;
            let is_first = first == &HostPort::from(leg.address) && interface == leg.interface.as_ref();
            if is_first || legs.contains(&leg) {
                return Err(self.value_error("leg", &value, "each address and interface once"));
            }
            if legs.len() + 1 >= LEGS_MAX {
                return Err(self.value_error("leg", &value, &format!("at most {} of them", LEGS_MAX - 1)));
            }
            legs.push(leg);
        }
        Ok(legs)
    }

    fn multicast_source(&mut self, listen: SocketAddr) -> Result<Option<IpAddr>, UrlError> {
        let Some(value) = self.take("source") else {
            return Ok(None);
        };
        if !listen.ip().is_multicast() {
            return Err(self.value_error("source", &value, "it only with a multicast group"));
        }
        let parsed = value.parse().map(Some);
        parsed.map_err(|_| self.value_error("source", &value, "the IP address of the sender"))
    }

    /// `2ms`, or plain milliseconds.
    fn coalesce(&mut self) -> Result<Option<Duration>, UrlError> {
        let Some(value) = self.take("coalesce") else {
            return Ok(None);
        };
        parse_coalesce(&value)
            .map(Some)
            .ok_or_else(|| self.value_error("coalesce", &value, "a time from 0 to 100ms, as 2ms"))
    }

    /// Whether there is FEC, of the one kind that there may be.
    fn fec(&mut self) -> Result<bool, UrlError> {
        match self.take("fec").as_deref() {
            None => Ok(false),
            Some("2022-1") => Ok(true),
            Some(other) => Err(self.value_error("fec", other, "2022-1")),
        }
    }

    /// `l` columns, `d` rows, and `rows=1` if those are sent, too; with none of them the usual matrix.
    fn fec_matrix(&mut self) -> Result<Option<Matrix>, UrlError> {
        let has_fec = self.fec()?;
        let shape = ["l", "d", "rows"].map(|key| self.take(key));
        let [columns, rows, sends_rows] = &shape;
        if shape.iter().all(Option::is_none) {
            return Ok(has_fec.then_some(Matrix::DEFAULT));
        }
        let shown = |text: &Option<String>| text.clone().unwrap_or_default();
        let wrong = |allowed: &str| {
            let given = format!("2022-1&l={}&d={}&rows={}", shown(columns), shown(rows), shown(sends_rows));
            self.value_error("fec", &given, allowed)
        };
        if !has_fec {
            return Err(wrong("l, d and rows only with fec=2022-1"));
        }
        let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<u8>().ok());
        let sends_rows = match sends_rows.as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(_) => return Err(wrong("rows as 0 or 1")),
        };
        let (Some(columns), Some(rows)) = (number(columns), number(rows)) else {
            return Err(wrong("both l, columns, and d, rows, as numbers"));
        };
        let matrix = Matrix::new(columns, rows, sends_rows)
            .map_err(|error: MatrixError| wrong(&format!("a matrix within the limits: {error}")))?;
        Ok(Some(matrix))
    }

    fn rtp_receiver(&mut self, fec: bool) -> Result<ReceiverConfig, UrlError> {
        let mut config = ReceiverConfig { fec, ..ReceiverConfig::default() };
        config.fec |= self.fec()?;
        match self.take("pt").as_deref() {
            None => {}
            Some("any") => config.payload_types = PayloadTypes::Any,
            Some(value) => {
                let payload_type = value.parse().ok().filter(|number| *number < 128);
                let payload_type = payload_type.ok_or_else(|| self.value_error("pt", value, "any, or 0 to 127"))?;
                config.payload_types = PayloadTypes::Only(payload_type);
            }
        }
        if let Some(window_ms) = self.number("reorder", 0, 10_000)? {
            config.reorder_window = Some(Duration::from_millis(window_ms));
        }
        Ok(config)
    }

    fn rtp_sender(&mut self, fec: bool) -> Result<SenderConfig, UrlError> {
        let matrix = self.fec_matrix()?.or_else(|| fec.then_some(Matrix::DEFAULT));
        let mut config = matrix.map_or_else(SenderConfig::default, SenderConfig::with_fec);
        if let Some(payload_type) = self.number("pt", 0, 127)? {
            config.payload_type = payload_type;
        }
        config.ssrc = self.number("ssrc", 0, u64::from(u32::MAX))?;
        config.payload_bytes_max = self.number("pkt_size", 188, 65_495)?.unwrap_or(config.payload_bytes_max);
        config.header = self.rtp_header()?;
        Ok(config)
    }

    fn rtp_header(&mut self) -> Result<HeaderMode, UrlError> {
        match self.take("header").as_deref() {
            None => Ok(HeaderMode::default()),
            Some("keep") => Ok(HeaderMode::Keep),
            Some("new") => Ok(HeaderMode::New),
            Some(other) => Err(self.value_error("header", other, "keep or new")),
        }
    }
}

/// Reads a time that an output may hold packets back: `2ms`, `500us`, or plain milliseconds.
#[must_use]
pub fn parse_coalesce(text: &str) -> Option<Duration> {
    let span = if let Some(us) = text.strip_suffix("us") {
        Duration::from_micros(us.parse::<u32>().ok()?.into())
    } else {
        Duration::from_millis(text.strip_suffix("ms").unwrap_or(text).parse::<u32>().ok()?.into())
    };
    (span <= COALESCE_MAX).then_some(span)
}

/// Reads one leg: `10.0.0.2:5004`, or with the interface that it leaves by, `10.0.0.2:5004@eth1`.
#[must_use]
pub fn parse_leg(text: &str) -> Option<LegConfig> {
    let (address, interface) = match text.split_once('@') {
        Some((address, interface)) => (address, Some(interface.parse().ok()?)),
        None => (text, None),
    };
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    match host.parse().ok()? {
        Host::Ip(ip) => Some(LegConfig { address: SocketAddr::new(ip, port), interface }),
        Host::Name(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(url: &str) -> String {
        parse_output(url).unwrap_err().to_string()
    }

    #[test]
    fn the_peers_own_urls_can_be_pasted() {
        for url in ["udp://0.0.0.0:5000", "udp://@239.1.1.1:5000", "udp://:5000", "udp://@:5000", "udp://[::]:5000"] {
            assert!(parse_source(url).is_ok(), "{url}");
        }
        let Ok(SourceEndpoint::Udp(config)) = parse_source("udp://@232.1.1.1:5000?iface=lo&source=10.0.0.9") else {
            unreachable!("a UDP source");
        };
        assert_eq!(config.listen, ([232, 1, 1, 1], 5000).into());
        assert_eq!(config.multicast_source, Some([10, 0, 0, 9].into()));
        assert_eq!(parse_output("udp://10.0.0.1:5000?coalesce=2ms").unwrap().coalesce, Some(Duration::from_millis(2)));
    }

    #[test]
    fn errors_name_what_was_given_and_the_fix() {
        assert_eq!(
            text("udp://1.2.3.4:5000?tttl=4"),
            "udp://1.2.3.4:5000?tttl=4: unknown key tttl, known are coalesce, dscp, iface, pkt_size, sndbuf, ttl"
        );
        assert_eq!(
            text("udp://1.2.3.4:99999"),
            "udp://1.2.3.4:99999: port wrong, write udp://HOST:PORT with a port from 1 to 65535"
        );
        assert_eq!(
            text("udp://1.2.3.4:1?ttl=0"),
            "udp://1.2.3.4:1?ttl=0: ttl=0 is not allowed, write a number from 1 to 255"
        );
        let source = parse_source("udp://0.0.0.0:5000?source=10.0.0.9").unwrap_err().to_string();
        assert!(source.contains("only with a multicast group"), "{source}");
        assert_eq!(text("test:bars"), "test:bars: test: can only be a source");
        assert_eq!(text("udp://1.2.3.4:1?ttl=1&ttl=2"), "udp://1.2.3.4:1?ttl=1&ttl=2: key ttl is given twice");
        assert!(text("gopher://x:1").contains("unknown scheme"));
    }

    #[test]
    fn fec_is_asked_for_by_key_or_scheme() {
        let source = |url: &str| match parse_source(url) {
            Ok(SourceEndpoint::Rtp(config)) => Ok((config.receiver.fec, config.receiver.reorder_window)),
            Ok(_) => unreachable!("an RTP source"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(source("rtp://:5000"), Ok((false, None)));
        assert_eq!(source("rtp://:5000?fec=2022-1&reorder=80"), Ok((true, Some(Duration::from_millis(80)))));
        assert_eq!(source("rtp-fec://:5000"), Ok((true, None)));
        assert!(source("rtp://:5000?fec=8x4").unwrap_err().contains("write 2022-1"));
        let output = |query: &str| match parse_output(query).map(|output| output.endpoint) {
            Ok(OutputEndpoint::Rtp(config)) => Ok((config.sender.fec, config.sender.payload_bytes_max)),
            Ok(_) => unreachable!("an RTP output"),
            Err(error) => Err(error.to_string()),
        };
        let matrix = |columns, rows, sends_rows| Matrix::new(columns, rows, sends_rows).ok();
        assert_eq!(output("rtp://10.0.0.1:5000"), Ok((None, 1_456)));
        assert_eq!(output("rtp-fec://10.0.0.1:5000"), Ok((matrix(8, 4, true), 1_440)));
        assert_eq!(output("rtp://10.0.0.1:5000?fec=2022-1"), Ok((matrix(8, 4, true), 1_440)));
        assert_eq!(output("rtp://10.0.0.1:5000?fec=2022-1&l=10&d=10"), Ok((matrix(10, 10, false), 1_440)));
        let all = output("rtp://10.0.0.1:5000?fec=2022-1&l=5&d=20&rows=1&pkt_size=1316");
        assert_eq!(all, Ok((matrix(5, 20, true), 1_316)));
        for (wrong, told) in [
            ("fec=2022-1&l=20&d=20", "at most 100"),
            ("fec=2022-1&l=20", "both l, columns, and d"),
            ("fec=2022-1&l=8&d=4&rows=2", "rows as 0 or 1"),
            ("l=8&d=4", "only with fec=2022-1"),
        ] {
            let error = output(&format!("rtp://10.0.0.1:5000?{wrong}")).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn legs_are_repeated_and_each_leads_elsewhere() {
        let legs = |url: &str| match parse_output(url).map(|output| output.endpoint) {
            Ok(OutputEndpoint::Rtp(config)) => Ok(config.legs.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Ok(_) => unreachable!("an RTP output"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(legs("rtp://10.0.0.1:5004"), Ok(Vec::new()));
        let two = "rtp://host:5004?iface=eth0&leg=10.1.0.1:5004@eth1&ttl=9&leg=[::1]:6000&leg=239.1.1.1:5004@10.0.0.7";
        let expected = ["10.1.0.1:5004@eth1", "[::1]:6000", "239.1.1.1:5004@10.0.0.7"].map(String::from);
        assert_eq!(legs(two), Ok(expected.to_vec()), "in the order given");
        let same = "rtp-fec://10.0.0.1:5004?iface=eth0&leg=10.0.0.1:5004@eth1&leg=10.0.0.1:5004";
        assert_eq!(legs(same).map(|legs| legs.len()), Ok(2), "over other interfaces");
        for (wrong, told) in [
            ("leg=10.0.0.1", "IP:PORT"),
            ("leg=10.0.0.1:0", "IP:PORT"),
            ("leg=host:5004", "IP:PORT"),
            ("leg=10.0.0.1:5004@", "IP:PORT"),
            ("leg=10.0.0.9:5004", "each address and interface once"),
            ("leg=10.0.0.1:5004&leg=10.0.0.1:5004", "each address and interface once"),
            ("ttl=9&ttl=9", "given twice"),
        ] {
            let error = legs(&format!("rtp://10.0.0.9:5004?{wrong}")).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let many = |count| (1..=count).map(|n| format!("&leg=10.0.0.1:{n}")).collect::<String>();
        assert_eq!(legs(&format!("rtp://10.0.0.9:5004?ttl=9{}", many(7))).map(|legs| legs.len()), Ok(7));
        assert!(legs(&format!("rtp://10.0.0.9:5004?ttl=9{}", many(8))).unwrap_err().contains("at most 7"));
        assert!(
            parse_output("udp://10.0.0.9:5004?leg=10.0.0.1:1").unwrap_err().to_string().contains("unknown key leg")
        );
    }
}
