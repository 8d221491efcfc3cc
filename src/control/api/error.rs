//! Problems as answers: status code and JSON, in one place.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::problem::{Code, Problem};

/// What every answer that is not a success says.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// What was given, what is allowed, and the fix.
    error: String,
    /// Stable word for programs.
    code: &'static str,
    /// Path of the value at fault, as `sources[1].ingest_port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = ErrorBody { error: self.to_string(), code: self.code.as_str(), field: self.field };
        (status, Json(body)).into_response()
    }
}

/// No route has this path.
pub(super) async fn no_route(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is no {}: GET /openapi.json lists what there is", uri.path()))
}

/// The path is known, the method is not.
pub(super) async fn no_method(method: Method, uri: Uri) -> Problem {
    let message = format!("{} does not take {method}: GET /openapi.json lists what there is", uri.path());
    Problem::new(Code::MethodNotAllowed, message)
}
