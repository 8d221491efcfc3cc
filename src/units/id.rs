//! `FlowId`, `SourceName`, `OutputName`: parsed once, cheap to clone.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name or id, in bytes. Judgement: fits a UUID and a human's label, and bounds metric labels.
const NAME_BYTES_MAX: usize = 128;

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// More than 128 bytes.
    #[error("must have at most 128 bytes")]
    TooLong,
    /// A control character or a slash, which could not stand in a URL path or on a terminal.
    #[error("must not contain control characters or '/'")]
    Character,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The text as given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text).map(|()| Self(text.into()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Names a flow for its whole life.
    FlowId
}
name! {
    /// Names a source within its flow.
    SourceName
}
name! {
    /// Names an output within its flow.
    OutputName
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        Err(IdError::Empty)
    } else if text.len() > NAME_BYTES_MAX {
        Err(IdError::TooLong)
    } else if text.chars().any(|c| c.is_control() || c == '/') {
        Err(IdError::Character)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_break_paths_or_terminals_are_refused() {
        assert_eq!("".parse::<FlowId>(), Err(IdError::Empty));
        assert_eq!("a/b".parse::<OutputName>(), Err(IdError::Character));
        assert_eq!("a\u{1b}[2J".parse::<SourceName>(), Err(IdError::Character));
        assert_eq!("x".repeat(129).parse::<FlowId>(), Err(IdError::TooLong));
        assert_eq!("Kanal 1 – Süd".parse::<FlowId>().map(|id| id.to_string()), Ok("Kanal 1 – Süd".into()));
    }
}
