//! Stream ids in the form of libsrt's access control guidelines: `#!::u=anna,r=news,m=publish`.

use super::handshake::TEXT_BYTES_MAX;

/// What a stream id of that form says. Nothing in it is proven: anybody may claim to be anybody.
///
/// Values go to the next comma, whatever is in them: nothing is quoted, escaped or decoded. What has no `=` is passed
/// over, keys that mean nothing here stay readable, and of a key that comes twice the first counts. Nested ids (`#!:{`)
/// are not of this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessControl<'a> {
    pairs: &'a str,
}

/// What a caller means to do (`m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To receive; so it is if nothing is said.
    Request,
    /// To send.
    Publish,
    /// To do both.
    Bidirectional,
}

impl<'a> AccessControl<'a> {
    /// Reads a stream id; `None` if it has another form, or is longer than the 512 bytes that one may have.
    #[must_use]
    pub fn parse(stream_id: &'a str) -> Option<Self> {
        let pairs = stream_id.strip_prefix("#!::").filter(|_| stream_id.len() <= TEXT_BYTES_MAX)?;
        Some(Self { pairs })
    }

    /// Which stream or file (`r`).
    #[must_use]
    pub fn resource(&self) -> Option<&'a str> {
        self.value("r")
    }

    /// Who calls, and thus which passphrase he has (`u`).
    #[must_use]
    pub fn user(&self) -> Option<&'a str> {
        self.value("u")
    }

    /// The host under whose name we were called (`h`).
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        self.value("h")
    }

    /// What was agreed on elsewhere before, good for one call (`s`).
    #[must_use]
    pub fn session(&self) -> Option<&'a str> {
        self.value("s")
    }

    /// What the connection is for (`t`): `stream`, which it is if nothing is said, `file`, `auth`, or something else.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.value("t").unwrap_or("stream")
    }

    /// What the caller means to do (`m`); `None` if that is nothing known.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        match self.value("m") {
            None | Some("request") => Some(Mode::Request),
            Some("publish") => Some(Mode::Publish),
            Some("bidirectional") => Some(Mode::Bidirectional),
            Some(_) => None,
        }
    }

    /// The value of any key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.pairs().find_map(|(given, value)| (given == key).then_some(value))
    }

    /// All keys with their values, in the order in which they stand.
    pub fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.pairs.split(',').filter_map(|pair| pair.split_once('='))
    }
}

/// Whether a caller's stream id is, or names as its resource, the one that is served.
#[must_use]
pub fn names(given: &str, served: &str) -> bool {
    given == served || AccessControl::parse(given).and_then(|access| access.resource()) == Some(served)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_guidelines_are_read() {
        let access = AccessControl::parse("#!::u=admin,r=bluesbrothers1_hi").unwrap();
        assert_eq!((access.user(), access.resource()), (Some("admin"), Some("bluesbrothers1_hi")));
        assert_eq!((access.kind(), access.mode()), ("stream", Some(Mode::Request)));
        let access = AccessControl::parse("#!::u=johnny,t=file,m=publish,r=results.csv").unwrap();
        assert_eq!(
            (access.kind(), access.mode(), access.resource()),
            ("file", Some(Mode::Publish), Some("results.csv"))
        );
        let access = AccessControl::parse("#!::h=somehost.com,r=videos/query.php?vid=366,s=1,acme_x=y").unwrap();
        assert_eq!((access.host(), access.session()), (Some("somehost.com"), Some("1")));
        assert_eq!(access.resource(), Some("videos/query.php?vid=366"), "only the first = parts");
        assert_eq!((access.value("acme_x"), access.value("acme"), access.user()), (Some("y"), None, None));
    }

    #[test]
    fn what_is_malformed_is_passed_over_or_none() {
        for other in ["", "news", "#!:", "#!:{u=anna}", "#!", " #!::r=news", "r=news"] {
            assert_eq!(AccessControl::parse(other), None, "{other}");
        }
        for (text, resource, pairs) in [
            ("#!::", None, 0),
            ("#!::,,,", None, 0),
            ("#!::r", None, 0),
            ("#!::r=", Some(""), 1),
            ("#!::=news", None, 1),
            ("#!::u=r=news", None, 1),
            ("#!::,r=news,", Some("news"), 1),
            ("#!::R=chess, r=chess,r=news,r=chess", Some("news"), 4),
            ("#!::r=%6eews", Some("%6eews"), 1),
            ("#!::r=n\u{e9}ws\0", Some("n\u{e9}ws\0"), 1),
        ] {
            let access = AccessControl::parse(text).unwrap();
            assert_eq!((access.resource(), access.pairs().count()), (resource, pairs), "{text}");
        }
        assert_eq!(AccessControl::parse("#!::m=both").unwrap().mode(), None);
        let longest = format!("#!::r={}", "x".repeat(506));
        assert!(AccessControl::parse(&longest).is_some() && AccessControl::parse(&(longest + "x")).is_none());
    }

    #[test]
    fn a_stream_is_named_by_itself_or_as_a_resource() {
        assert!(names("news", "news") && names("#!::u=anna,r=news", "news") && names("#!::r=news", "#!::r=news"));
        assert!(!names("#!::u=news", "news") && !names("#!::r=newspaper", "news") && !names("", "news"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_none(text in "(#!::)?[ruhstm=,:{} %\u{0}a-z\u{e9}]{0,600}", key in "[a-z]{0,3}") {
            let access = AccessControl::parse(&text);
            prop_assert_eq!(access.is_some(), text.starts_with("#!::") && text.len() <= 512);
            if let Some(access) = access {
                let first = access.pairs().find(|pair| pair.0 == key);
                prop_assert_eq!(access.value(&key), first.map(|pair| pair.1));
                let is_whole = access.pairs().all(|(key, value)| text.contains(&format!("{key}={value}")));
                prop_assert!(is_whole);
                let _ = (access.kind(), access.mode());
            }
        }

        #[test]
        fn what_was_put_in_comes_out(pairs in prop::collection::vec(("[a-z_]{1,8}", "[^,]{0,8}"), 0..8)) {
            let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let text = format!("#!::{}", text.join(","));
            let access = AccessControl::parse(&text).unwrap();
            let read: Vec<_> = access.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            prop_assert_eq!(read, pairs);
        }
    }
}
