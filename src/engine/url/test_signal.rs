//! `test:` URLs: which built-in signal, what it is like, and what is wrong with it.

use super::{Parts, Query, UrlError};
use crate::engine::config::{TestConfig, TestSignal};
use crate::proto::mpegts::faults::{self, Fault};
use crate::proto::mpegts::{generator, picture};
use crate::units::Bitrate;

pub(super) fn parse(parts: &Parts<'_>) -> Result<TestConfig, UrlError> {
    let is_picture = match parts.rest.trim_start_matches('/') {
        "" | "bars" => false,
        "picture" => true,
        _ => return Err(UrlError::Scheme { given: parts.url.into(), allowed: "test:, test:bars or test:picture" }),
    };
    let mut query = parts.query(if is_picture { PICTURE_KEYS } else { NUMBERS_KEYS })?;
    let mut faults = faults::Config::default();
    for fault in Fault::ALL {
        if let Some(value) = query.take(fault.name()) {
            let set = faults.set(fault, &value);
            set.map_err(|error| query.value_error(fault.name(), &value, &error.to_string()))?;
        }
    }
    let rate = query.take("rate").unwrap_or_else(|| TEST_RATE.into());
    let signal = if is_picture { picture(&mut query, &rate)? } else { numbers(&mut query, &rate)? };
    Ok(TestConfig { signal, faults })
}

fn numbers(query: &mut Query<'_>, rate: &str) -> Result<TestSignal, UrlError> {
    let size = query.number("pkt_size", 188, 7 * 188)?.unwrap_or(7 * 188);
    let parsed = rate.parse::<Bitrate>().ok().and_then(|rate| generator::Config::new(rate, size / 188).ok());
    match parsed {
        Some(config) if size % 188 == 0 => Ok(TestSignal::Numbers(config)),
        Some(_) => Err(query.value_error("pkt_size", &size.to_string(), "188 times 1 to 7, as 1316")),
        None => Err(query.value_error("rate", rate, "a bit rate from 250k to 10G, as 20M")),
    }
}

fn picture(query: &mut Query<'_>, rate: &str) -> Result<TestSignal, UrlError> {
    let parsed = rate.parse::<Bitrate>().ok().and_then(|rate| picture::Config::new(rate).ok());
    let mut config = parsed.ok_or_else(|| query.value_error("rate", rate, "a bit rate from 1M to 10G, as 20M"))?;
    config = match query.take("size").as_deref() {
        None | Some("1280x720") => config,
        Some("1920x1080") => config.with_size(picture::Size::Hd1080),
        Some(other) => return Err(query.value_error("size", other, "1280x720 or 1920x1080")),
    };
    if let Some(given) = query.take("fps") {
        let config_then = given.parse().ok().and_then(|picture_rate| config.with_picture_rate(picture_rate));
        config = config_then.ok_or_else(|| query.value_error("fps", &given, "25, 30 or 50"))?;
    }
    if let Some(given) = query.take("name") {
        let allowed = "up to 12 letters, digits, blanks, dots, colons and hyphens, as STUDIO-1";
        config = config.with_name(&given).ok_or_else(|| query.value_error("name", &given, allowed))?;
    }
    Ok(TestSignal::Picture(config))
}

/// What a numbered stream can be told; faults behind the rest.
const NUMBERS_KEYS: &[&str] = &[
    "pkt_size",
    "rate",
    "buffer_overflow",
    "cc",
    "crc",
    "eit_other_gap",
    "nit_other_gap",
    "pat_gap",
    "pcr_gap",
    "pcr_jitter",
    "pcr_jump",
    "pid_missing",
    "pmt_gap",
    "rst",
    "scrambled",
    "sdt_other_gap",
    "sync",
    "sync_loss",
    "tei",
    "unreferenced",
];
const PICTURE_KEYS: &[&str] = &[
    "fps",
    "name",
    "rate",
    "size",
    "black",
    "buffer_overflow",
    "cc",
    "crc",
    "data_delay",
    "eit_gap",
    "eit_other_gap",
    "eit_pf_gap",
    "empty_buffer",
    "freeze",
    "nit_gap",
    "nit_other_gap",
    "no_audio",
    "no_video",
    "pat_gap",
    "pcr_gap",
    "pcr_jitter",
    "pcr_jump",
    "pid_missing",
    "pmt_gap",
    "pts_gap",
    "rst",
    "scrambled",
    "sdt_gap",
    "sdt_other_gap",
    "si_repetition",
    "silence",
    "sync",
    "sync_loss",
    "tdt_gap",
    "tei",
    "unreferenced",
];

/// Unless told otherwise.
const TEST_RATE: &str = "10M";

#[cfg(test)]
mod tests {
    use super::super::parse_source;
    use super::*;
    use crate::engine::config::SourceEndpoint;

    #[test]
    fn the_test_source_takes_a_rate() {
        let TestSignal::Numbers(config) = test("test:bars?rate=20M").signal else {
            unreachable!("numbers");
        };
        assert_eq!(Ok(config), generator::Config::new(Bitrate::from_bps(20_000_000), 7));
        assert!(parse_source("test:bars?rate=0").is_err());
        let picture = test("test:picture?rate=5M");
        let config = picture::Config::new(Bitrate::from_bps(5_000_000)).unwrap();
        let (signal, faults) = (TestSignal::Picture(config), faults::Config::default());
        assert_eq!(picture, TestConfig { signal, faults });
        for wrong in ["test:picture?rate=999k", "test:picture?pkt_size=188", "test:card"] {
            assert!(parse_source(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_picture_takes_size_rate_and_name() {
        let TestSignal::Picture(config) = test("test:picture?size=1920x1080&fps=50&name=Studio%201").signal else {
            unreachable!("a picture");
        };
        let expected = picture::Config::new(Bitrate::from_bps(10_000_000)).unwrap().with_size(picture::Size::Hd1080);
        assert_eq!(Some(config), expected.with_picture_rate(50).and_then(|config| config.with_name("Studio 1")));
        for (wrong, told) in [
            ("size=640x360", "1280x720 or 1920x1080"),
            ("fps=24", "25, 30 or 50"),
            ("name=Prüfbild", "as STUDIO-1"),
            ("name=thirteen-long", "as STUDIO-1"),
        ] {
            let error = parse_source(&format!("test:picture?{wrong}")).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn every_fault_is_a_key_where_it_makes_sense() {
        for fault in Fault::ALL {
            for (signal, is_known) in [("picture", true), ("bars", !fault.needs_picture())] {
                let parsed = parse_source(&format!("test:{signal}?{}=1s/10s", fault.name()));
                let Ok(SourceEndpoint::Test(config)) = parsed else {
                    assert!(!is_known, "{fault:?} {signal}");
                    continue;
                };
                assert!(is_known && config.faults.schedule(fault).is_some(), "{fault:?} {signal}");
            }
        }
        let error = parse_source("test:picture?black=5s").unwrap_err().to_string();
        assert!(error.contains("black=5s is not allowed, write always, or how long in how long, as 5s/60s"), "{error}");
    }

    fn test(url: &str) -> TestConfig {
        let SourceEndpoint::Test(config) = parse_source(url).unwrap() else {
            unreachable!("a test source");
        };
        *config
    }
}
