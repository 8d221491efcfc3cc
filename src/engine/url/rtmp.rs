//! `rtmp://HOST[:PORT]/APP/KEY`, as encoders and servers write it; `rtmp://@[ADDRESS][:PORT]/APP/KEY` to be called; `rtmps://`
//! over TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::{HIDDEN, Host, HostPort, Parts, Query, UrlError};
use crate::adapters::rtmp::{Absent, EndpointConfig, Key, PORT, Side, TLS_PORT};
use crate::adapters::tls::{IdentityFiles, ServerId};

pub(super) fn parse_source(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    parse(parts, &["absent", "grace", "takeover"], &["absent", "grace", "takeover", "tls_cert", "tls_key"])
}

pub(super) fn parse_output(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    parse(parts, &[], &["tls_cert", "tls_key"])
}

/// With the keys of one who is called, without TLS and with it.
fn parse(
    parts: &Parts<'_>,
    keys: &'static [&'static str],
    secure_keys: &'static [&'static str],
) -> Result<EndpointConfig, UrlError> {
    let wrong = |problem| parts.address_error(problem);
    let (authority, path) = parts.rest.split_once('/').unwrap_or((parts.rest, ""));
    if authority.rfind('@').is_some_and(|at| at > 0) {
        return Err(wrong("no user stands before the host"));
    }
    let (app, key) = path.trim_matches('/').rsplit_once('/').ok_or_else(|| wrong(APP_AND_KEY))?;
    if key == HIDDEN {
        return Err(parts.hidden_error("stream key"));
    }
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
    let app = app.trim_matches('/').to_owned();
    let parsed = |key: &str| Key::new(key).ok_or_else(|| wrong(APP_AND_KEY));
    if app.is_empty() {
        return Err(wrong(APP_AND_KEY));
    }
    if !host.starts_with('@') && !is_any {
        let (authorities, query) = if is_secure { take_authorities(parts.query) } else { (None, parts.query.into()) };
        if query.split('&').any(|pair| pair.rsplit('=').next() == Some(HIDDEN)) {
            return Err(parts.hidden_error("query"));
        }
        // What follows the key is for the server: a token, mostly.
        let key = if query.is_empty() { parsed(key)? } else { parsed(&format!("{key}?{query}"))? };
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = is_secure.then_some(ServerId { name, authorities });
        return Ok(EndpointConfig { side: Side::Caller { server: address, tls }, app, key });
    }
    if matches!(address.host, Host::Name(_)) {
        return Err(wrong("a listener has an address of this machine, or none"));
    }
    let mut query = parts.query(if is_secure { secure_keys } else { keys })?;
    let mut file = |key: &'static str| {
        let path = query.take(key).filter(|path| !path.is_empty());
        path.map(PathBuf::from).ok_or_else(|| query.value_error(key, "", "the path of a file in PEM"))
    };
    let tls = if is_secure { Some((file("tls_cert")?, file("tls_key")?)) } else { None };
    let tls = tls.map(|(certificate, key)| IdentityFiles { certificate, key });
    let takeover = query.switch("takeover")?.unwrap_or(false);
    let side = Side::Listener { listen: address, takeover, tls, absent: absent(&mut query)? };
    Ok(EndpointConfig { side, app, key: parsed(key)? })
}

/// `tls_ca=FILE` is ours; the rest stays as it is written.
fn take_authorities(query: &str) -> (Option<PathBuf>, String) {
    let (mut authorities, mut rest) = (None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match form_urlencoded::parse(pair.as_bytes()).next() {
            Some((key, path)) if key == "tls_ca" => authorities = Some(PathBuf::from(&*path)),
            _ => rest.push(pair),
        }
    }
    (authorities, rest.join("&"))
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
        let path = path.trim_matches('/');
        let (app, key) = path.rsplit_once('/').unwrap_or(("", path));
        let user = authority.rfind('@').filter(|at| *at > 0);
        let authority = user.map_or(authority, |at| &authority[at + 1..]);
        let is_called = authority.is_empty() || authority.starts_with(['@', ':']);
        let is_ours = |pair: &&str| is_called || CALLER_KEYS.iter().any(|key| is_pair_of(key, pair));
        let (ours, theirs) = query.split('&').filter(|pair| !pair.is_empty()).partition(is_ours);
        Some(Self { scheme, authority, has_user: user.is_some(), app: app.trim_matches('/'), key, ours, theirs })
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

fn is_pair_of(key: &str, pair: &str) -> bool {
    pair.strip_prefix(key).is_some_and(|value| value.starts_with('='))
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

/// Where we call, these are ours.
const CALLER_KEYS: [&str; 1] = ["tls_ca"];

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
            ("rtmp://@/live/***?takeover=1", "write it out"),
            ("rtmp://host/live/a?***", "write it out"),
            ("rtmp://host/live/a?token=***", "write it out"),
        ] {
            let error = parse_source(url).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("cam1"), "{error}");
        }
        assert!(parse_output("rtmp://@/live/cam1?takeover=1").is_err(), "players take nothing over");
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
