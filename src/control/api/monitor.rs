//! Thumbnail, metadata, content quality.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::error::ErrorBody;
use super::request::Params;
use crate::control::content::{ContentQuality, Metadata, Thumbnail, wall_at};
use crate::control::manager::Manager;
use crate::control::problem::{Code, Problem};
use crate::media::watch::{Picture, Reason};

/// The latest small picture of what outputs get.
#[utoipa::path(get, path = "/v1/flows/{id}/thumbnail", operation_id = "thumbnail", tag = "monitor",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "A JPEG in base64", body = Thumbnail),
        (status = 404, description = "No such flow, not running (`not_active`), thumbnails not enabled (`not_enabled`), or \
            none yet, and why (`thumbnail_unavailable`)", body = ErrorBody)))]
pub(super) async fn thumbnail(
    State(app): State<Shared>,
    Params(id): Params<String>,
) -> Result<Json<Thumbnail>, Problem> {
    app.run(move |manager| picture(manager, &id).map(|picture| Json(Thumbnail::new(&id, &picture)))).await
}

/// The latest small picture of what outputs get, for browsers.
#[utoipa::path(get, path = "/v1/flows/{id}/thumbnail.jpg", operation_id = "thumbnail_jpeg", tag = "monitor",
    params(("id" = String, Path, description = "Id of the flow"),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of the picture that is there already")),
    responses((status = 200, description = "A JPEG, with ETag and Last-Modified", content_type = "image/jpeg", body = Vec<u8>),
        (status = 304, description = "It is still the same picture"),
        (status = 404, description = "As for `thumbnail`", body = ErrorBody)))]
pub(super) async fn thumbnail_jpeg(
    State(app): State<Shared>,
    Params(id): Params<String>,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let picture = app.run(move |manager| picture(manager, &id)).await?;
    let tag = tag(&picture);
    let headers = [
        (header::ETAG, tag.clone()),
        (header::LAST_MODIFIED, httpdate::fmt_http_date(wall_at(picture.taken))),
        // To be asked for again each time, which costs nothing while it is the same.
        (header::CACHE_CONTROL, "private, no-cache".into()),
    ];
    if is_known(&request, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, [(header::CONTENT_TYPE, "image/jpeg")], picture.jpeg.to_vec()).into_response())
}

/// Programs and streams of what outputs get.
#[utoipa::path(get, path = "/v1/flows/{id}/metadata", operation_id = "metadata", tag = "monitor",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "In ffprobe's words; empty until tables came", body = Metadata),
        (status = 404, description = "No such flow, not running, or nothing of it is watched", body = ErrorBody)))]
pub(super) async fn metadata(State(app): State<Shared>, Params(id): Params<String>) -> Result<Json<Metadata>, Problem> {
    app.run(move |manager| {
        let watch = manager.watch(&id)?.ok_or_else(|| not_enabled("the flow is not watched", "ts_analysis_enabled"))?;
        Ok(Json(Metadata::new(&id, watch.report.as_deref())))
    })
    .await
}

/// Whether the picture is black or frozen, or the sound silent. What is not known is null, and `analysis` says why.
#[utoipa::path(get, path = "/v1/flows/{id}/content-quality", operation_id = "content_quality", tag = "monitor",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "What is known", body = ContentQuality),
        (status = 404, description = "No such flow, not running, or not enabled", body = ErrorBody)))]
pub(super) async fn content_quality(
    State(app): State<Shared>,
    Params(id): Params<String>,
) -> Result<Json<ContentQuality>, Problem> {
    app.run(move |manager| {
        let watch = manager.watch(&id)?.filter(|watch| watch.settings.content_quality);
        let watch = watch.ok_or_else(|| not_enabled("content quality is not looked at", "content_quality_enabled"))?;
        let content = watch.report.as_ref().map(|report| report.content.clone()).unwrap_or_default();
        Ok(Json(ContentQuality::from(&content)))
    })
    .await
}

fn picture(manager: &Manager, id: &str) -> Result<Picture, Problem> {
    let watch = manager.watch(id)?.filter(|watch| watch.settings.thumbnail_every.is_some());
    let watch = watch.ok_or_else(|| not_enabled("no thumbnails are taken", "thumbnail_enabled"))?;
    let report = watch.report.as_deref();
    let picture = report.and_then(|report| report.thumbnail.clone());
    picture.ok_or_else(|| {
        let reason = report.and_then(|report| report.thumbnail_reason.clone()).unwrap_or(Reason::WaitingKeyFrame);
        let message = format!("there is no thumbnail: {} ({reason})", reason.code());
        Problem::new(Code::ThumbnailUnavailable, message)
    })
}

fn not_enabled(what: &str, field: &str) -> Problem {
    Problem::new(Code::NotEnabled, format!("{what}: set source_monitor_config.{field}"))
}

/// Of the picture's bytes: what is shown again after a restart need not be sent again.
fn tag(picture: &Picture) -> String {
    let mut hasher = DefaultHasher::new();
    picture.jpeg.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

/// Whether the client has it (RFC 9110 section 13.1.2).
fn is_known(request: &HeaderMap, tag: &str) -> bool {
    let given = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut given = given.flat_map(|value| value.split(',')).map(str::trim);
    given.any(|given| given == "*" || given.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_is_known_is_not_sent_again() {
        let known = |text: &'static str| {
            let headers = [(header::IF_NONE_MATCH, header::HeaderValue::from_static(text))];
            is_known(&headers.into_iter().collect(), "\"1f\"")
        };
        for text in ["\"1f\"", "W/\"1f\"", "\"2\", \"1f\"", "*"] {
            assert!(known(text), "{text}");
        }
        assert!(!known("\"2\"") && !known("1f") && !is_known(&HeaderMap::new(), "\"1f\""));
    }
}
