//! Who may ask: everyone on this machine, or whoever has the token.

use std::fmt;
use std::fs;
use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::Shared;
use crate::control::config::{Api, ConfigError};
use crate::control::problem::{Code, Problem};

/// Decides which requests are answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    token: Option<Vec<u8>>,
    /// Without a token, only names and addresses of this machine are expected in `Host`.
    own_host_only: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("token", &self.token.as_ref().map(|_| "***")).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the token, and refuses to listen beyond this machine without one.
    ///
    /// # Errors
    /// One line with the setting at fault and the fix.
    pub fn new(api: &Api) -> Result<Self, ConfigError> {
        let refuse = |origin: &str, code, message: String| {
            Err(ConfigError { origin: origin.into(), problem: Problem::new(code, message) })
        };
        let local = api.listen.ip().to_canonical().is_loopback();
        let Some(path) = &api.token_file else {
            if local || api.insecure_open {
                return Ok(Self { token: None, own_host_only: local });
            }
            let message = format!(
                "{} can be reached from other machines and there is no token: set api.token_file, listen on 127.0.0.1, \
                 or say --insecure-open",
                api.listen
            );
            return refuse("api.listen", Code::InvalidValue, message);
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                return refuse("api.token_file", Code::InvalidValue, message);
            }
        };
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = format!(
                "{} must hold one token of printable characters without spaces, as made by: openssl rand -hex 32",
                path.display()
            );
            return refuse("api.token_file", Code::InvalidValue, message);
        }
        Ok(Self { token: Some(token.into()), own_host_only: false })
    }

    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        if path == "/health" {
            return Ok(());
        }
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
        let host = text(header::HOST).unwrap_or("");
        // A browser says which page asks. Pages from elsewhere have no business here, token or not.
        if let Some(origin) = text(header::ORIGIN).filter(|origin| origin.split_once("://").is_none_or(|o| o.1 != host))
        {
            return Err(Problem::new(Code::Forbidden, format!("a page from {origin} may not ask")));
        }
        let Some(token) = &self.token else {
            // Somebody else's name may lead a browser to this machine (DNS rebinding).
            if self.own_host_only && !is_own(host) {
                let message =
                    format!("{host} is no name of this machine: use 127.0.0.1 or localhost, or set api.token_file");
                return Err(Problem::new(Code::Forbidden, message));
            }
            return Ok(());
        };
        let given = text(header::AUTHORIZATION).and_then(|text| text.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let right = given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(token)));
        let message = "the token is missing or wrong: send Authorization: Bearer TOKEN";
        if right { Ok(()) } else { Err(Problem::new(Code::Unauthorized, message)) }
    }
}

fn is_own(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|parts| !parts.1.ends_with(']')).map_or(host, |parts| parts.0);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Every request passes here first, every answer last.
pub(super) async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = match app.access.check(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            let unauthorized = problem.code == Code::Unauthorized;
            let mut response = problem.into_response();
            if unauthorized {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    };
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(listen: &str, token_file: Option<&std::path::Path>) -> Api {
        Api { listen: listen.parse().unwrap(), token_file: token_file.map(Into::into), insecure_open: false }
    }

    fn code(access: &Access, headers: &[(&'static str, &str)]) -> Option<Code> {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        access.check("/v1/flows", &headers.collect()).err().map(|problem| problem.code)
    }

    #[test]
    fn listening_to_the_world_needs_a_token_or_a_word() {
        let error = Access::new(&api("0.0.0.0:8080", None)).unwrap_err().to_string();
        assert!(error.contains("--insecure-open") && error.contains("api.token_file"), "{error}");
        assert!(Access::new(&Api { insecure_open: true, ..api("0.0.0.0:8080", None) }).is_ok());
        assert!(Access::new(&api("[::1]:8080", None)).is_ok());
    }

    #[test]
    fn only_the_right_token_opens() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "s3cret-token\n").unwrap();
        let access = Access::new(&api("0.0.0.0:8080", Some(file.path()))).unwrap();
        assert_eq!(code(&access, &[("authorization", "Bearer s3cret-token")]), None);
        assert_eq!(code(&access, &[("authorization", "bearer s3cret-token")]), None);
        for wrong in ["Bearer s3cret-toke", "Bearer s3cret-token2", "Basic s3cret-token", "s3cret-token", "Bearer "] {
            assert_eq!(code(&access, &[("authorization", wrong)]), Some(Code::Unauthorized), "{wrong}");
        }
        assert_eq!(code(&access, &[]), Some(Code::Unauthorized));
        assert!(access.check("/health", &HeaderMap::new()).is_ok());
        assert!(!format!("{access:?}").contains("s3cret"));
    }

    #[test]
    fn an_empty_token_file_is_no_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "\n").unwrap();
        let error = Access::new(&api("127.0.0.1:8080", Some(file.path()))).unwrap_err().to_string();
        assert!(error.starts_with("api.token_file: "), "{error}");
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        let access = Access::new(&api("127.0.0.1:8080", None)).unwrap();
        assert_eq!(code(&access, &[("host", "127.0.0.1:8080")]), None);
        assert_eq!(code(&access, &[("host", "localhost:8080"), ("origin", "http://localhost:8080")]), None);
        assert_eq!(code(&access, &[("host", "[::1]:8080")]), None);
        for origin in ["https://evil.example", "null", "http://localhost:9999"] {
            let headers = [("host", "localhost:8080"), ("origin", origin)];
            assert_eq!(code(&access, &headers), Some(Code::Forbidden), "{origin}");
        }
        assert_eq!(code(&access, &[("host", "rebound.example:8080")]), Some(Code::Forbidden));
    }
}
