//! Thumbnail, metadata, content quality. This version does not look into the pictures: all answer 404, and say why.

use axum::extract::State;

use super::Shared;
use super::error::ErrorBody;
use super::request::Params;
use crate::control::problem::{Code, Problem};

/// The latest small picture.
#[utoipa::path(get, path = "/v1/flows/{id}/thumbnail", operation_id = "thumbnail", tag = "monitor",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 404, description = "No such flow, not running, or not enabled", body = ErrorBody)))]
pub(super) async fn thumbnail(app: State<Shared>, id: Params<String>) -> Problem {
    not_enabled(app, id, "thumbnails are").await
}

/// The latest small picture, for browsers.
#[utoipa::path(get, path = "/v1/flows/{id}/thumbnail.jpg", operation_id = "thumbnail_jpeg", tag = "monitor",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 404, description = "No such flow, not running, or not enabled", body = ErrorBody)))]
pub(super) async fn thumbnail_jpeg(app: State<Shared>, id: Params<String>) -> Problem {
    not_enabled(app, id, "thumbnails are").await
}

/// Programs and streams.
#[utoipa::path(get, path = "/v1/flows/{id}/metadata", operation_id = "metadata", tag = "monitor",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 404, description = "No such flow, not running, or not enabled", body = ErrorBody)))]
pub(super) async fn metadata(app: State<Shared>, id: Params<String>) -> Problem {
    not_enabled(app, id, "metadata is").await
}

/// Whether the picture is black or frozen, or the sound silent.
#[utoipa::path(get, path = "/v1/flows/{id}/content-quality", operation_id = "content_quality", tag = "monitor",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 404, description = "No such flow, not running, or not enabled", body = ErrorBody)))]
pub(super) async fn content_quality(app: State<Shared>, id: Params<String>) -> Problem {
    not_enabled(app, id, "content quality is").await
}

async fn not_enabled(State(app): State<Shared>, Params(id): Params<String>, what: &str) -> Problem {
    let running = app.run(move |manager| manager.running(&id)).await;
    running.err().unwrap_or_else(|| Problem::new(Code::NotEnabled, format!("{what} not available in this version")))
}
