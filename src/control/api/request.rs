//! What requests bring: path parameters, query, JSON body. Every refusal is a [`Problem`].

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::control::problem::{Code, Problem, from_json, suggestion};

/// Longest body of a request, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// The variable parts of the path.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(params)| Self(params)).map_err(|error| Problem::new(Code::NotFound, error.body_text()))
    }
}

/// A JSON object, whatever content type the request claims.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await;
        let body = body.map_err(|_| {
            let message = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Problem::new(Code::InvalidJson, message)
        })?;
        let body = body.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(Code::TooLarge, format!("the body is longer than {BODY_BYTES_MAX} bytes"))
            }
            _ => Problem::new(Code::InvalidJson, error.body_text()),
        })?;
        from_json(&body).map(Self)
    }
}

/// The query of a path that knows one key.
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self(form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes()).into_owned().collect()))
    }
}

impl Query {
    /// The value of `key`, the only one that may be there.
    pub(super) fn only(self, key: &str) -> Result<Option<String>, Problem> {
        let mut value = None;
        for (given, text) in self.0 {
            if given != key {
                let message = format!("unknown query key, {}", suggestion(&given, [key]));
                return Err(Problem::at(given, Code::UnknownField, message));
            }
            if value.replace(text).is_some() {
                return Err(Problem::at(given, Code::InvalidValue, "is given twice"));
            }
        }
        Ok(value)
    }

    /// The number of entries that an answer may have.
    pub(super) fn limit(self, default: u32) -> Result<u32, Problem> {
        let Some(text) = self.only("limit")? else {
            return Ok(default);
        };
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| {
            let message = format!("{text} is not allowed, write a number from 1 to {LIMIT_MAX}");
            Problem::at("limit", Code::InvalidValue, message)
        })
    }
}

/// Most entries of one answer (API contract).
const LIMIT_MAX: u32 = 10_000;
/// Judgement: a megabyte over a slow mobile line.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
