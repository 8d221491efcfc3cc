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
    let (app, key) = path.trim_matches('/').rsplit_once('/').ok_or_else(|| wrong(APP_AND_KEY))?;
    let is_secure = parts.scheme == "rtmps";
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

/// The URL without its key, and without what follows it where that is for a server; `None` if it is another one's.
pub(super) fn without_secrets(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "rtmp" | "rtmps"))?;
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let is_called = place.starts_with(['@', ':', '/']);
    let shown = match place.trim_end_matches('/').split_once('/') {
        Some((authority, path)) => match path.rsplit_once('/') {
            Some((app, _)) => format!("{authority}/{app}/{HIDDEN}"),
            None => format!("{authority}/{path}"),
        },
        None => place.into(),
    };
    Some(match query {
        Some(query) if is_called => format!("{scheme}://{shown}?{query}"),
        Some(_) => format!("{scheme}://{shown}?{HIDDEN}"),
        None => format!("{scheme}://{shown}"),
    })
}

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
            ("rtmp://@:1/live/cam1?takeover=1", "rtmp://@:1/live/***?takeover=1"),
            ("rtmp://host/live", "rtmp://host/live"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
        let config = source("rtmp://host/live/cam1");
        assert!(!format!("{config:?}").contains("cam1"));
    }
}
