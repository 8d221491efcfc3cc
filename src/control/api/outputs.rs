//! Add, change and remove outputs. The others go on undisturbed.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value};

use super::Shared;
use super::error::ErrorBody;
use super::request::{Body, Params};
use crate::control::model::{Flow, Output};
use crate::control::problem::Problem;

/// Adds an output, also while the flow runs.
#[utoipa::path(post, path = "/v1/flows/{id}/outputs", operation_id = "add_output", tag = "flows", request_body = Output,
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "The whole flow", body = Flow),
        (status = 400, description = "A field is wrong, or there are 256 already", body = ErrorBody),
        (status = 404, description = "No such flow", body = ErrorBody),
        (status = 409, description = "The name is taken", body = ErrorBody)))]
pub(super) async fn add(
    State(app): State<Shared>,
    Params(id): Params<String>,
    Body(output): Body<Output>,
) -> Result<Json<Flow>, Problem> {
    app.run(move |manager| manager.add_output(&id, output)).await.map(Json)
}

/// Changes an output, also while the flow runs. Fields that are left out keep their value.
#[utoipa::path(put, path = "/v1/flows/{id}/outputs/{name}", operation_id = "update_output", tag = "flows",
    request_body(content = Output, description = "Any of these fields"),
    params(("id" = String, Path, description = "Id of the flow"), ("name" = String, Path, description = "Name of the output")),
    responses((status = 200, description = "The whole flow", body = Flow),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 404, description = "No such flow or output", body = ErrorBody),
        (status = 409, description = "The new name is taken", body = ErrorBody)))]
pub(super) async fn update(
    State(app): State<Shared>,
    Params((id, name)): Params<(String, String)>,
    Body(fields): Body<Map<String, Value>>,
) -> Result<Json<Flow>, Problem> {
    app.run(move |manager| manager.update_output(&id, &name, fields)).await.map(Json)
}

/// Takes an output away, also while the flow runs.
#[utoipa::path(delete, path = "/v1/flows/{id}/outputs/{name}", operation_id = "remove_output", tag = "flows",
    params(("id" = String, Path, description = "Id of the flow"), ("name" = String, Path, description = "Name of the output")),
    responses((status = 200, description = "The whole flow", body = Flow),
        (status = 404, description = "No such flow or output", body = ErrorBody)))]
pub(super) async fn remove(
    State(app): State<Shared>,
    Params((id, name)): Params<(String, String)>,
) -> Result<Json<Flow>, Problem> {
    app.run(move |manager| manager.remove_output(&id, &name)).await.map(Json)
}
