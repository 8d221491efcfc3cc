//! What of a URL is shown, and what is meant where somebody sends back what he was shown.

use super::rtmp;

/// The URL as it may be shown: secrets replaced by `***`.
#[must_use]
pub fn without_secrets(url: &str) -> String {
    if let Some(shown) = rtmp::without_secrets(url) {
        return shown;
    }
    let Some((before, query)) = url.split_once('?') else { return url.into() };
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, value)) if SECRET_KEYS.contains(&key) && !value.is_empty() => format!("{key}={HIDDEN}"),
        _ => pair.into(),
    });
    format!("{before}?{}", shown.collect::<Vec<String>>().join("&"))
}

/// The URL with the secrets of `old` where it shows them hidden, if it leads to the same place; else as it is, which is
/// refused then.
#[must_use]
pub fn with_secrets_of(url: &str, old: &str) -> String {
    if url == without_secrets(old) {
        return old.into();
    }
    if let Some(whole) = rtmp::with_secrets_of(url, old) {
        return whole;
    }
    let (Some((before, query)), Some((old_before, old_query))) = (url.split_once('?'), old.split_once('?')) else {
        return url.into();
    };
    if before != old_before {
        return url.into();
    }
    let whole = query.split('&').map(|pair| {
        let is_hidden =
            |key: &&&str| pair.strip_prefix(**key).is_some_and(|value| value.strip_prefix('=') == Some(HIDDEN));
        let key = SECRET_KEYS.iter().find(is_hidden);
        let of_key = |old: &&str| key.is_some_and(|key| old.split_once('=').is_some_and(|(name, _)| name == *key));
        old_query.split('&').find(of_key).unwrap_or(pair)
    });
    format!("{before}?{}", whole.collect::<Vec<&str>>().join("&"))
}

/// What an environment variable or a file says, so that it stands on no command line.
pub(super) fn secret(text: String) -> Option<String> {
    if let Some(name) = text.strip_prefix("env:") {
        return std::env::var(name).ok();
    }
    match text.strip_prefix("file:") {
        Some(path) => std::fs::read_to_string(path).ok().map(|text| text.trim_end().to_string()),
        None => Some(text),
    }
}

/// What stands in place of a secret.
pub const HIDDEN: &str = "***";
pub(super) const SECRET_KEYS: [&str; 3] = ["passphrase", "password", "secret"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_and_changed_elsewhere_keeps_its_secrets() {
        for (url, old, whole) in [
            ("rtmp://@:1/live/***?takeover=1", "rtmp://@:2/live/cam1", "rtmp://@:1/live/cam1?takeover=1"),
            ("rtmp://@127.0.0.1/live/***", "rtmp://@:2/live/cam1", "rtmp://@127.0.0.1/live/cam1"),
            ("rtmp://a:2/live/***?***", "rtmp://a/live/k?t=1&u", "rtmp://a:2/live/k?t=1&u"),
            ("rtmps://a/live/***?tls_ca=b&***", "rtmps://a/live/k?t=1&tls_ca=c", "rtmps://a/live/k?tls_ca=b&t=1"),
            ("rtmp://a/live/other?***", "rtmp://a/live/k?t=1", "rtmp://a/live/other?t=1"),
            ("srt://a:1?latency=9&passphrase=***", "srt://a:1?passphrase=p", "srt://a:1?latency=9&passphrase=p"),
        ] {
            assert_eq!(with_secrets_of(url, old), whole);
        }
        // What hides nothing stays as it is written.
        assert_eq!(with_secrets_of("rtmp://a/live/", "rtmp://a/live/"), "rtmp://a/live/");
        // Nobody learns a secret by sending it elsewhere.
        for (url, old) in [
            ("rtmp://b/live/***", "rtmp://a/live/k"),
            ("rtmp://a/other/***", "rtmp://a/live/k"),
            ("rtmp://a/live/***", "rtmp://@/live/k"),
            ("srt://b:1?passphrase=***", "srt://a:1?passphrase=p"),
        ] {
            assert_eq!(with_secrets_of(url, old), url);
        }
    }
}
