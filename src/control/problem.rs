//! Why the product refuses something: a stable code, the field at fault, a sentence with the fix.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::engine::{ApplyError, Cause};

/// Why something was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What programs match.
    pub code: Code,
    /// Path of the value at fault, as `sources[1].ingest_port`.
    pub field: Option<String>,
    /// What was given, what is allowed, and the fix; without the field.
    pub message: String,
}

/// What programs match. The text of a code never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The body is no JSON, or not declared as such.
    InvalidJson,
    /// A value outside what its field allows.
    InvalidValue,
    /// A field that must be there is not.
    MissingField,
    /// A field that does not exist.
    UnknownField,
    /// A field that the protocol has no use for.
    NotApplicable,
    /// Part of the contract, but not of this version.
    NotAvailable,
    /// More entries than allowed.
    TooMany,
    /// One name for two things in what was given.
    DuplicateName,
    /// The only source of a flow cannot be taken away.
    LastSource,
    /// The system will not open what was asked for.
    CannotOpen,
    /// No token, or not the right one.
    Unauthorized,
    /// A browser page from elsewhere asks.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Only a running flow has that.
    NotActive,
    /// Must be switched on first.
    NotEnabled,
    /// No picture could be taken so far.
    ThumbnailUnavailable,
    /// The path has other methods.
    MethodNotAllowed,
    /// Something that exists has the name.
    NameTaken,
    /// Somebody else has the port.
    PortInUse,
    /// As many flows as are allowed.
    TooManyFlows,
    /// The body is too long.
    TooLarge,
    /// The database cannot be read or written.
    Storage,
    /// A bug.
    Internal,
    /// Starting or ending; ask again.
    Unavailable,
}

impl Code {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.word_and_status().0
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.word_and_status().1
    }

    const fn word_and_status(self) -> (&'static str, u16) {
        match self {
            Self::InvalidJson => ("invalid_json", 400),
            Self::InvalidValue => ("invalid_value", 400),
            Self::MissingField => ("missing_field", 400),
            Self::UnknownField => ("unknown_field", 400),
            Self::NotApplicable => ("not_applicable", 400),
            Self::NotAvailable => ("not_available", 400),
            Self::TooMany => ("too_many", 400),
            Self::DuplicateName => ("duplicate_name", 400),
            Self::LastSource => ("last_source", 400),
            Self::CannotOpen => ("cannot_open", 400),
            Self::Unauthorized => ("unauthorized", 401),
            Self::Forbidden => ("forbidden", 403),
            Self::NotFound => ("not_found", 404),
            Self::NotActive => ("not_active", 404),
            Self::NotEnabled => ("not_enabled", 404),
            Self::ThumbnailUnavailable => ("thumbnail_unavailable", 404),
            Self::MethodNotAllowed => ("method_not_allowed", 405),
            Self::NameTaken => ("name_taken", 409),
            Self::PortInUse => ("port_in_use", 409),
            Self::TooManyFlows => ("too_many_flows", 409),
            Self::TooLarge => ("too_large", 413),
            Self::Storage => ("storage", 500),
            Self::Internal => ("internal", 500),
            Self::Unavailable => ("unavailable", 503),
        }
    }
}

impl Problem {
    /// A refusal that no single field is to blame for.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, field: None, message: one_line(message.into()) }
    }

    /// A refusal because of `field`.
    pub fn at(field: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self { field: Some(one_line(field.into())), ..Self::new(code, message) }
    }

    /// There is no `what` called `name`.
    #[must_use]
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} {name}"))
    }

    /// The same, found inside `parent`: `ingest_port` becomes `sources[1].ingest_port`.
    #[must_use]
    pub fn inside(mut self, parent: &str) -> Self {
        self.field = Some(match self.field {
            Some(field) if field.starts_with('[') => format!("{parent}{field}"),
            Some(field) => format!("{parent}.{field}"),
            None => parent.into(),
        });
        self
    }

    /// The same, as seen by somebody who sent `part` alone: `sources[1].ingest_port` becomes `ingest_port`.
    #[must_use]
    pub fn seen_from(mut self, part: &str) -> Self {
        if part.is_empty() {
            return self;
        }
        let inner = self.field.as_deref().and_then(|field| field.strip_prefix(part));
        if let Some(inner) = inner {
            self.field = inner.strip_prefix('.').map(String::from);
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Problem {}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        let code = match &error.cause {
            Cause::NoSource => Code::MissingField,
            Cause::NoMedia => Code::NotAvailable,
            Cause::TooMany { .. } => Code::TooMany,
            Cause::DuplicateName { .. } => Code::DuplicateName,
            Cause::UnknownSource { .. } | Cause::NoSequence { .. } | Cause::NoLosses => Code::InvalidValue,
            Cause::InUse { .. } => Code::PortInUse,
            Cause::System(_) => Code::CannotOpen,
            Cause::TooManyFlows { .. } => Code::TooManyFlows,
            Cause::Closing => Code::Unavailable,
        };
        if matches!(error.cause, Cause::TooManyFlows { .. } | Cause::Closing) {
            return Self::new(code, error.cause.to_string());
        }
        Self::at(error.field.to_string(), code, error.cause.to_string())
    }
}

/// Reads `T`, which is an object, from JSON text.
///
/// # Errors
/// With the line if the text is no JSON, with the field if it says something else than `T` allows.
pub fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    // serde would take an array for an object whose fields come without names.
    if text.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::new(Code::InvalidJson, "the body must be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() {
            let position = format!(" at line {} column {}", error.line(), error.column());
            let text = error.to_string();
            explain(&path, text.strip_suffix(&position).unwrap_or(&text))
        } else {
            no_json(&error)
        }
    })?;
    deserializer.end().map_err(|error| no_json(&error))?;
    Ok(value)
}

/// Reads `T` from a value that is already in memory.
///
/// # Errors
/// With the field that says something else than `T` allows.
pub fn from_value<'de, T, D>(deserializer: D) -> Result<T, Problem>
where
    T: DeserializeOwned,
    D: serde::Deserializer<'de, Error: fmt::Display>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let text = error.inner().to_string();
        // TOML puts the path on a second line.
        explain(&error.path().to_string(), text.lines().next().unwrap_or(&text))
    })
}

/// The word of `known` that a user who wrote `given` most likely meant.
pub fn nearest<'known>(given: &str, known: impl IntoIterator<Item = &'known str>) -> Option<&'known str> {
    let distance_max = (given.chars().count() / 3).max(2);
    let by_distance = known.into_iter().map(|word| (strsim::damerau_levenshtein(given, word), word));
    by_distance.filter(|pair| pair.0 <= distance_max).min_by_key(|pair| pair.0).map(|pair| pair.1)
}

/// "did you mean `nearest`?", or all that is known.
pub fn suggestion<'known>(given: &str, known: impl IntoIterator<Item = &'known str> + Clone) -> String {
    nearest(given, known.clone()).map_or_else(
        || format!("known are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        |word| format!("did you mean {word}?"),
    )
}

/// Users' own words stand in there; they must not write into terminals and logs what they like.
fn one_line(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text }
}

fn no_json(error: &serde_json::Error) -> Problem {
    Problem::new(Code::InvalidJson, format!("the body is no JSON: {error}"))
}

/// serde words its complaints in one way for every format; the ones about fields are told apart by how they begin
/// (`serde::de::Error`, the provided methods).
fn explain(path: &str, text: &str) -> Problem {
    let parent = match path {
        "." => "",
        path => path,
    };
    if let Some(rest) = text.strip_prefix("unknown field `") {
        let (given, expected) = rest.split_once('`').unwrap_or((rest, ""));
        let known = expected.split('`').skip(1).step_by(2);
        return Problem::at(
            child(parent, given),
            Code::UnknownField,
            format!("unknown field, {}", suggestion(given, known)),
        );
    }
    if let Some(name) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return Problem::at(child(parent, name), Code::MissingField, "must be given");
    }
    if let Some(name) = text.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`')) {
        return Problem::at(child(parent, name), Code::InvalidValue, "is given twice");
    }
    let problem = Problem::new(Code::InvalidValue, text.replace('`', ""));
    if parent.is_empty() { problem } else { problem.inside(parent) }
}

/// serde has sometimes stepped into the field already when it complains about it.
fn child(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.into()
    } else if parent == name || parent.ends_with(&format!(".{name}")) {
        parent.into()
    } else {
        format!("{parent}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "inner")]
        _inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "ingest_port")]
        _ingest_port: u16,
        #[serde(rename = "name")]
        _name: String,
    }

    fn problem(text: &str) -> (Code, String) {
        let problem = from_json::<Outer>(text.as_bytes()).unwrap_err();
        (problem.code, problem.to_string())
    }

    #[test]
    fn the_field_at_fault_is_named_with_its_path() {
        let cases = [
            (r#"{"inner":[{"ingest_port":1,"nam":"x"}]}"#, "inner[0].nam: unknown field, did you mean name?"),
            (r#"{"inner":[{"zzzzzz":1}]}"#, "inner[0].zzzzzz: unknown field, known are ingest_port, name"),
            (r#"{"inner":[{"name":"x"}]}"#, "inner[0].ingest_port: must be given"),
            (r#"{}"#, "inner: must be given"),
            (r#"{"inner":[{"ingest_port":1,"ingest_port":2}]}"#, "inner[0].ingest_port: is given twice"),
            (
                r#"{"inner":[{"ingest_port":99999}]}"#,
                "inner[0].ingest_port: invalid value: integer 99999, expected u16",
            ),
            (r#" []"#, "the body must be a JSON object"),
            (r#"7"#, "invalid type: integer 7, expected struct Outer"),
        ];
        for (text, expected) in cases {
            assert_eq!(problem(text).1, expected, "{text}");
        }
    }

    #[test]
    fn broken_json_says_where() {
        for text in ["", "{", "nonsense", r#"{"inner":[]} trailing"#] {
            let (code, text) = problem(text);
            assert_eq!(code, Code::InvalidJson);
            assert!(text.contains("line 1 column"), "{text}");
        }
    }

    #[test]
    fn words_of_users_stay_on_one_line() {
        assert_eq!(
            problem(r#"{"a\n\u001b[2Jb":1}"#).1,
            "a  [2Jb: unknown field, known are inner",
            "no control characters"
        );
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["listen", "token_file", "tls_cert"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("tokenfile", known), Some("token_file"));
        assert_eq!(nearest("port", known), None);
    }

    #[test]
    fn fields_move_between_the_whole_and_the_part() {
        let problem = Problem::at("ingest_port", Code::InvalidValue, "no").inside("sources[1]");
        assert_eq!(problem.field.as_deref(), Some("sources[1].ingest_port"));
        assert_eq!(problem.clone().seen_from("sources[1]").field.as_deref(), Some("ingest_port"));
        assert_eq!(problem.seen_from("sources[2]").field.as_deref(), Some("sources[1].ingest_port"));
    }
}
