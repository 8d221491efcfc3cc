//! Add and remove sources.

use axum::Json;
use axum::extract::State;

use super::Shared;
use super::error::ErrorBody;
use super::request::{Body, Params};
use crate::control::model::{Flow, Source};
use crate::control::problem::Problem;

/// Adds a source behind those that are there, also while the flow runs.
#[utoipa::path(post, path = "/v1/flows/{id}/source", operation_id = "add_source", tag = "flows", request_body = Source,
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "The whole flow", body = Flow),
        (status = 400, description = "A field is wrong, or there are 8 already", body = ErrorBody),
        (status = 404, description = "No such flow", body = ErrorBody),
        (status = 409, description = "The name is taken, or the port is in use", body = ErrorBody)))]
pub(super) async fn add(
    State(app): State<Shared>,
    Params(id): Params<String>,
    Body(source): Body<Source>,
) -> Result<Json<Flow>, Problem> {
    app.run(move |manager| manager.add_source(&id, source)).await.map(Json)
}

/// Takes a source away, also while the flow runs; the last one stays.
#[utoipa::path(delete, path = "/v1/flows/{id}/source/{name}", operation_id = "remove_source", tag = "flows",
    params(("id" = String, Path, description = "Id of the flow"), ("name" = String, Path, description = "Name of the source")),
    responses((status = 200, description = "The whole flow", body = Flow),
        (status = 400, description = "It is the last one", body = ErrorBody),
        (status = 404, description = "No such flow or source", body = ErrorBody)))]
pub(super) async fn remove(
    State(app): State<Shared>,
    Params((id, name)): Params<(String, String)>,
) -> Result<Json<Flow>, Problem> {
    app.run(move |manager| manager.remove_source(&id, &name)).await.map(Json)
}
