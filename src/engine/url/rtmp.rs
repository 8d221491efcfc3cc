//! `rtmp://HOST[:PORT]/APP/KEY`, as encoders and servers write it; `rtmp://@[ADDRESS][:PORT]/APP/KEY` to be called.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{HIDDEN, Host, HostPort, Parts, Query, UrlError};
use crate::adapters::rtmp::{Absent, EndpointConfig, Key, PORT, Side};

pub(super) fn parse_source(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    parse(parts, &["absent", "grace", "takeover"])
}

pub(super) fn parse_output(parts: &Parts<'_>) -> Result<EndpointConfig, UrlError> {
    parse(parts, &[])
}

fn parse(parts: &Parts<'_>, keys: &'static [&'static str]) -> Result<EndpointConfig, UrlError> {
    let wrong = |problem| parts.address_error(problem);
    let (authority, path) = parts.rest.split_once('/').unwrap_or((parts.rest, ""));
    let (app, key) = path.trim_matches('/').rsplit_once('/').ok_or_else(|| wrong(APP_AND_KEY))?;
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("port wrong"))?),
        None => (authority, PORT),
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
        // What follows the key is for the server: a token, mostly.
        let key = if parts.query.is_empty() { parsed(key)? } else { parsed(&format!("{key}?{}", parts.query))? };
        return Ok(EndpointConfig { side: Side::Caller { server: address }, app, key });
    }
    if matches!(address.host, Host::Name(_)) {
        return Err(wrong("a listener has an address of this machine, or none"));
    }
    let mut query = parts.query(keys)?;
    let takeover = query.switch("takeover")?.unwrap_or(false);
    let side = Side::Listener { listen: address, takeover, absent: absent(&mut query)? };
    Ok(EndpointConfig { side, app, key: parsed(key)? })
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
        assert_eq!(config.side, Side::Listener { listen, takeover: true, absent: Absent::Hold });
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
