//! `rtmp://HOST[:PORT]/APP/KEY`, as encoders and servers write it; `rtmp://@[ADDRESS][:PORT]/APP/KEY` to be called; `rtmps://`
//! over TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::{HIDDEN, Host, HostPort, Parts, Query, UrlError, secret};
use crate::adapters::rtmp::{Absent, EndpointConfig, Key, PORT, Side, TLS_PORT};
use crate::adapters::tls::{IdentityFiles, ServerId};
use crate::proto::mpegts::mux::{RATE_MAX, RATE_MIN};
use crate::units::Bitrate;

pub(super) fn parse_source(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    let called: &[_] = match parts.scheme {
        "rtmps" => &["absent", "grace", "rate", "takeover", "tls_cert", "tls_key"],
        _ => &["absent", "grace", "rate", "takeover"],
    };
    parse(parts, called, &["rate", "timeout", "tls_ca"])
}

pub(super) fn parse_output(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    let called: &[_] = if parts.scheme == "rtmps" { &["tls_cert", "tls_key"] } else { &[] };
    parse(parts, called, &["timeout", "tls_ca"])
}

/// With the keys of one who is called, and of one who calls.
fn parse(
    parts: &Parts<'_>,
    called_keys: &'static [&'static str],
    caller_keys: &'static [&'static str],
) -> Result<EndpointConfig, UrlError> {
    let wrong = |problem| parts.address_error(problem);
    let (authority, path) = parts.rest.split_once('/').unwrap_or((parts.rest, ""));
    if authority.rfind('@').is_some_and(|at| at > 0) {
        return Err(wrong("no user stands before the host"));
    }
    let (app, key) = split_path(path);
    if app.is_empty() {
        return Err(wrong(APP_AND_KEY));
    }
    if key == HIDDEN {
        return Err(parts.hidden_error("stream key"));
    }
    let place_of_key =
        || parts.value_error("stream key", HIDDEN, "its text, or env:NAME or file:PATH where that stands");
    let key = secret(key.to_owned()).ok_or_else(place_of_key)?;
    let is_secure = parts.scheme == "rtmps";
    if is_secure && !cfg!(feature = "tls") {
        return Err(wrong("this program was built without TLS"));
    }
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("port wrong"))?),
        None => (authority, if is_secure { TLS_PORT } else { PORT }),
    };
    let bare = host.strip_prefix('@').unwrap_or(host);
    let host_or_any = match bare {
        "" => Host::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        name => name.parse().map_err(|_| wrong("host missing or wrong"))?,
    };
    let is_any = matches!(host_or_any, Host::Ip(ip) if ip.is_unspecified());
    let address = HostPort { host: host_or_any, port };
    let app = app.to_owned();
    let parsed = |key: &str| Key::new(key).ok_or_else(|| wrong(APP_AND_KEY));
    if !host.starts_with('@') && !is_any {
        let (ours, theirs) = parts.query.split('&').filter(|pair| !pair.is_empty()).partition::<Vec<_>, _>(is_ours);
        if theirs.iter().any(|pair| pair.rsplit('=').next() == Some(HIDDEN)) {
            return Err(parts.hidden_error("query"));
        }
        let ours = ours.join("&");
        let mut query = Parts { query: &ours, ..*parts }.query(caller_keys)?;
        let authorities = authorities(&mut query, is_secure)?;
        // What else follows the key is for the server: a token, mostly.
        let mark = if key.contains('?') { "&" } else { "?" };
        let key = if theirs.is_empty() { parsed(&key)? } else { parsed(&[&key, mark, &theirs.join("&")].concat())? };
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = is_secure.then_some(ServerId { name, authorities });
        let timeout = query.number("timeout", 1, 3_600)?.map(Duration::from_secs);
        let side = Side::Caller { server: address, tls, timeout };
        return Ok(EndpointConfig { side, app, key, rate: rate(&mut query)? });
    }
    if matches!(address.host, Host::Name(_)) {
        return Err(wrong("a listener has an address of this machine, or none"));
    }
    let mut query = parts.query(called_keys)?;
    let mut file = |key: &'static str| {
        let path = query.take(key).filter(|path| !path.is_empty());
        path.map(PathBuf::from).ok_or_else(|| query.value_error(key, "", "the path of a file in PEM"))
    };
    let tls = if is_secure { Some((file("tls_cert")?, file("tls_key")?)) } else { None };
    let tls = tls.map(|(certificate, key)| IdentityFiles { certificate, key });
    let takeover = query.switch("takeover")?.unwrap_or(false);
    let side = Side::Listener { listen: address, takeover, tls, absent: absent(&mut query)? };
    Ok(EndpointConfig { side, app, key: parsed(&key)?, rate: rate(&mut query)? })
}

/// Application and key, of which nobody else knows where the one ends: a file has a path of its own.
fn split_path(path: &str) -> (&str, &str) {
    let path = path.trim_matches('/');
    let split = path.find("/file:").map(|at| (&path[..at], &path[at + 1..])).or_else(|| path.rsplit_once('/'));
    let (app, key) = split.unwrap_or(("", path));
    (app.trim_matches('/'), key)
}

/// `tls_ca=FILE`, which is also found where `file:FILE` or `env:NAME` say.
fn authorities(query: &mut Query<'_>, is_secure: bool) -> Result<Option<PathBuf>, UrlError> {
    let Some(text) = query.take("tls_ca") else { return Ok(None) };
    let path = match text.strip_prefix("env:") {
        Some(name) => std::env::var(name).ok(),
        None => Some(text.strip_prefix("file:").unwrap_or(&text).to_owned()),
    };
    let path = path.filter(|path| is_secure && !path.is_empty());
    path.map(|path| Some(path.into())).ok_or_else(|| query.value_error("tls_ca", &text, "a file in PEM, with rtmps://"))
}

/// `rate=8M`: exactly so much, filled up with null packets.
fn rate(query: &mut Query<'_>) -> Result<Option<Bitrate>, UrlError> {
    let Some(text) = query.take("rate") else { return Ok(None) };
    let parsed = text.parse().ok().filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
    parsed.map(Some).ok_or_else(|| query.value_error("rate", &text, "a bit rate from 250k to 10G, as 8M"))
}

/// `absent=slate&grace=30`: what comes while no publisher is there.
fn absent(query: &mut Query<'_>) -> Result<Absent, UrlError> {
    let wanted = query.take("absent");
    let grace = query.number("grace", 1, 3_600)?;
    match wanted.as_deref() {
        Some("slate") => Ok(Absent::Slate { grace: Duration::from_secs(grace.unwrap_or(GRACE_SECONDS)) }),
        Some("hold") | None if grace.is_none() => Ok(Absent::Hold),
        Some("hold") | None => Err(query.value_error("grace", "given", "absent=slate beside it")),
        Some(other) => Err(query.value_error("absent", other, "hold or slate")),
    }
}

/// Judgement: an encoder that is started again, or a line that comes back.
const GRACE_SECONDS: u64 = 30;

/// A URL of RTMP taken apart, whether it is right or not.
struct Named<'url> {
    scheme: &'url str,
    /// Without a user, which has no place there and may have a password.
    authority: &'url str,
    has_user: bool,
    app: &'url str,
    key: &'url str,
    /// Where we call: what is ours, and what is for the server.
    ours: Vec<&'url str>,
    theirs: Vec<&'url str>,
}

impl<'url> Named<'url> {
    /// `None` if it is another scheme's. Those of other forms of RTMP have keys as well.
    fn split(url: &'url str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        if !scheme.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("rtmp")) {
            return None;
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (app, key) = split_path(path);
        let user = authority.rfind('@').filter(|at| *at > 0);
        let authority = user.map_or(authority, |at| &authority[at + 1..]);
        let is_called = authority.is_empty() || authority.starts_with(['@', ':']);
        let (ours, theirs) =
            query.split('&').filter(|pair| !pair.is_empty()).partition(|pair: &&str| is_called || is_ours(pair));
        Some(Self { scheme, authority, has_user: user.is_some(), app, key, ours, theirs })
    }

    fn join(&self) -> String {
        let user = if self.has_user { "***@" } else { "" };
        let parts = [self.app, self.key].into_iter().filter(|part| !part.is_empty()).map(|part| format!("/{part}"));
        let path: String = parts.collect();
        let query: Vec<&str> = self.ours.iter().chain(&self.theirs).copied().collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}://{user}{}{path}{mark}{}", self.scheme, self.authority, query.join("&"))
    }

    /// Where it leads, as far as a key is concerned: one of this machine's ports is as good as another.
    fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let host = host.map_or(self.authority, |(host, _)| host);
        if host.is_empty() || host.starts_with('@') { "@" } else { host }
    }
}

/// Whether a pair behind the key is for us where we call. A server that wants one of these for itself gets it with a letter
/// written as `%74`.
fn is_ours(pair: &&str) -> bool {
    KEYS.contains(&pair.split('=').next().unwrap_or_default())
}

/// The URL without its key, and without what follows it where that is for a server; `None` if it is another one's.
pub(super) fn without_secrets(url: &str) -> Option<String> {
    let mut named = Named::split(url)?;
    // What stands alone may be an application as well as a key without one.
    if !named.key.is_empty() {
        named.key = HIDDEN;
    }
    if !named.theirs.is_empty() {
        named.theirs = vec![HIDDEN];
    }
    Some(named.join())
}

/// The URL with the key of `old`, and with what followed it, where it shows them hidden; `None` if it leads elsewhere.
pub(super) fn with_secrets_of(url: &str, old: &str) -> Option<String> {
    let (mut named, old) = (Named::split(url)?, Named::split(old)?);
    if named.host() != old.host() || named.app != old.app || named.has_user {
        return None;
    }
    if named.key != HIDDEN && named.theirs != [HIDDEN] {
        return None;
    }
    if named.key == HIDDEN {
        named.key = old.key;
    }
    if named.theirs == [HIDDEN] {
        named.theirs = old.theirs;
    }
    Some(named.join())
}

/// All keys of either side: where they have no place they are a mistake, and nothing that a server wants.
const KEYS: [&str; 8] = ["absent", "grace", "rate", "takeover", "timeout", "tls_ca", "tls_cert", "tls_key"];

const APP_AND_KEY: &str = "an application and a key must follow, as /live/KEY";

#[cfg(test)]
mod tests {
    use super::super::{parse_output, parse_source, without_secrets};
    use super::*;
    use crate::engine::config::{OutputEndpoint, SourceEndpoint};

    fn source(url: &str) -> EndpointConfig {
        match parse_source(url) {
            Ok(SourceEndpoint::Rtmp(rtmp)) => *rtmp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn called_and_calling_ends_are_told_apart() {
        let config = source("rtmp://@:1936/live/cam1?takeover=1");
        let listen = HostPort { host: Host::Ip([0, 0, 0, 0].into()), port: 1_936 };
        assert_eq!(config.side, Side::Listener { listen, takeover: true, tls: None, absent: Absent::Hold });
        assert_eq!((config.app.as_str(), &config.key), ("live", &Key::new("cam1").unwrap()));
        assert!(config.holds_port());
        let config = source("rtmp://cdn.example/live/eu/cam1?token=a%20b");
        assert_eq!(config.address().to_string(), "cdn.example:1935");
        assert_eq!((config.app.as_str(), &config.key), ("live/eu", &Key::new("cam1?token=a%20b").unwrap()));
        assert!(matches!(source("rtmp://0.0.0.0/live/cam1").side, Side::Listener { takeover: false, .. }));
        assert!(matches!(source("rtmp://[::1]/live/cam1").side, Side::Caller { .. }));
        let output = parse_output("rtmp://127.0.0.1:1935/live/cam1").unwrap();
        assert!(matches!(output.endpoint, OutputEndpoint::Rtmp(rtmp) if matches!(rtmp.side, Side::Caller { .. })));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn there_is_no_tls_in_a_program_without() {
        let error = parse_source("rtmps://localhost/live/cam1").unwrap_err().to_string();
        assert!(error.contains("built without TLS"), "{error}");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn over_tls_there_are_files() {
        let config = source("rtmps://@:1936/live/cam1?tls_cert=/a/cert.pem&tls_key=key%20.pem");
        let files = IdentityFiles { certificate: "/a/cert.pem".into(), key: "key .pem".into() };
        assert!(matches!(config.side, Side::Listener { tls: Some(tls), .. } if tls == files));
        let config = source("rtmps://localhost/live/cam1?a=%20b&tls_ca=/ca.pem&c");
        let server = ServerId { name: "localhost".into(), authorities: Some("/ca.pem".into()) };
        assert!(matches!(config.side, Side::Caller { tls: Some(tls), .. } if tls == server));
        assert_eq!(config.key, Key::new("cam1?a=%20b&c").unwrap());
        assert_eq!(source("rtmps://[::1]/live/cam1").address().port, 443);
        for (url, told) in [
            ("rtmps://@/live/cam1", "tls_cert="),
            ("rtmps://@/live/cam1?tls_cert=a", "tls_key="),
            ("rtmp://@/live/cam1?tls_cert=a&tls_key=b", "unknown key tls_cert"),
        ] {
            let error = parse_source(url).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn what_is_for_us_is_taken_out_and_the_rest_is_for_the_server() {
        let config = source("rtmp://host/live/cam1?a=1&timeout=5&rate=8M&token=x");
        assert_eq!(config.key, Key::new("cam1?a=1&token=x").unwrap());
        assert_eq!(config.rate, Some(Bitrate::from_bps(8_000_000)));
        assert!(matches!(config.side, Side::Caller { timeout: Some(timeout), .. } if timeout.as_secs() == 5));
        assert_eq!(source("rtmp://host/live/cam1?%74imeout=5").key, Key::new("cam1?%74imeout=5").unwrap());
        assert_eq!(source("rtmp://@/live/cam1?rate=500k").rate, Some(Bitrate::from_bps(500_000)));
    }

    #[test]
    fn a_key_may_stand_in_a_file_or_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "cam1?token=a\n").unwrap();
        let url = format!("rtmp://host/live/eu/file:{}?user=b", path.display());
        let config = source(&url);
        assert_eq!((config.app.as_str(), config.key), ("live/eu", Key::new("cam1?token=a&user=b").unwrap()));
        assert_eq!(without_secrets(&url), "rtmp://host/live/eu/***?***");
        let home = std::env::var("PATH").unwrap();
        assert_eq!(source("rtmp://@/live/env:PATH").key, Key::new(&home).unwrap());
        let config = source("rtmps://host/live/cam1?tls_ca=env:PATH");
        assert!(matches!(config.side, Side::Caller { tls: Some(tls), .. } if tls.authorities == Some(home.into())));
    }

    #[test]
    fn errors_name_the_fix_and_no_key() {
        for (url, told) in [
            ("rtmp://host", "/live/KEY"),
            ("rtmp://host/live", "/live/KEY"),
            ("rtmp://host:0/live/cam1", "port wrong"),
            ("rtmp://@name/live/cam1", "address of this machine"),
            ("rtmp://@/live/cam1?x=1", "unknown key x"),
            ("rtmp://@/live/cam1?absent=black", "hold or slate"),
            ("rtmp://@/live/cam1?grace=5", "absent=slate"),
            ("rtmp://a b/live/cam1", "host missing"),
            ("rtmp://user:cam1@host/live/cam1", "no user"),
            ("RTMP://host/live/cam1", "unknown scheme"),
            ("rtmp://host/cam1", "/live/KEY"),
            ("rtmp://host/live/env:ANABRANCH_NOT_THERE", "env:NAME or file:PATH"),
            ("rtmp://host/live/file:/not/there", "env:NAME or file:PATH"),
            ("rtmp://host/live/cam1?takeover=1", "known are rate, timeout, tls_ca"),
            ("rtmp://host/live/cam1?rate=1", "250k to 10G"),
            ("rtmp://host/live/cam1?timeout=0", "1 to 3600"),
            ("rtmp://host/live/cam1?tls_ca=a", "with rtmps://"),
            ("rtmp://@/live/cam1?timeout=5", "unknown key timeout"),
            ("rtmp://@/live/***?takeover=1", "write it out"),
            ("rtmp://host/live/a?***", "write it out"),
            ("rtmp://host/live/a?token=***", "write it out"),
        ] {
            let error = parse_source(url).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("cam1"), "{error}");
        }
        assert!(parse_output("rtmp://@/live/cam1?takeover=1").is_err(), "players take nothing over");
        assert!(parse_output("rtmp://host/live/cam1?rate=8M").is_err(), "an output sends what there is");
    }

    #[test]
    fn keys_and_tokens_are_not_shown() {
        for (url, shown) in [
            ("rtmp://host/live/cam1", "rtmp://host/live/***"),
            ("rtmps://host/live/eu/cam1?token=t", "rtmps://host/live/eu/***?***"),
            ("rtmps://host/live/cam1?token=t&tls_ca=a", "rtmps://host/live/***?tls_ca=a&***"),
            ("rtmp://@:1/live/cam1?takeover=1", "rtmp://@:1/live/***?takeover=1"),
            ("rtmp://host/cam1", "rtmp://host/***"),
            ("RTMP://host/live/cam1", "RTMP://host/live/***"),
            ("rtmpt://host/live/cam1", "rtmpt://host/live/***"),
            ("rtmp://user:cam1@host:1/live/cam1", "rtmp://***@host:1/live/***"),
            ("rtmp://host", "rtmp://host"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
        let config = source("rtmp://host/live/cam1");
        assert!(!format!("{config:?}").contains("cam1"));
    }
}
