//! Create, list, show, change, delete, start, stop.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Shared;
use super::error::ErrorBody;
use super::request::{Body, Params};
use crate::control::manager::Outcome;
use crate::control::model::Flow;
use crate::control::problem::Problem;

/// Every flow.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FlowList {
    /// Oldest first.
    flows: Vec<Flow>,
}

/// What a start or stop has led to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutcomeBody {
    id: String,
    status: String,
    message: String,
}

impl From<Outcome> for OutcomeBody {
    fn from(outcome: Outcome) -> Self {
        Self { id: outcome.id.to_string(), status: outcome.status.to_string(), message: outcome.message.into() }
    }
}

/// Every flow.
#[utoipa::path(get, path = "/v1/flows", operation_id = "list_flows", tag = "flows",
    responses((status = 200, description = "Every flow", body = FlowList)))]
pub(super) async fn list(State(app): State<Shared>) -> Result<Json<FlowList>, Problem> {
    app.run(|manager| Ok(manager.list())).await.map(|flows| Json(FlowList { flows }))
}

/// Takes a new flow in; it does not run before it is started.
#[utoipa::path(post, path = "/v1/flows", operation_id = "create_flow", tag = "flows", request_body = Flow,
    responses((status = 201, description = "The flow with its id", body = Flow),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 409, description = "Too many flows", body = ErrorBody)))]
pub(super) async fn create(
    State(app): State<Shared>,
    Body(flow): Body<Flow>,
) -> Result<(StatusCode, Json<Flow>), Problem> {
    app.run(|manager| manager.create(flow)).await.map(|flow| (StatusCode::CREATED, Json(flow)))
}

/// One flow.
#[utoipa::path(get, path = "/v1/flows/{id}", operation_id = "show_flow", tag = "flows",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "The flow", body = Flow),
        (status = 404, description = "No such flow", body = ErrorBody)))]
pub(super) async fn show(State(app): State<Shared>, Params(id): Params<String>) -> Result<Json<Flow>, Problem> {
    app.run(move |manager| manager.flow(&id)).await.map(Json)
}

/// Changes a flow, also while it runs: only what differs is touched. Top-level fields that are left out keep their
/// value; lists are replaced as a whole.
#[utoipa::path(put, path = "/v1/flows/{id}", operation_id = "update_flow", tag = "flows",
    request_body(content = Flow, description = "Any of these fields"),
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "The flow as it is now", body = Flow),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 404, description = "No such flow", body = ErrorBody),
        (status = 409, description = "A port is in use", body = ErrorBody)))]
pub(super) async fn update(
    State(app): State<Shared>,
    Params(id): Params<String>,
    Body(fields): Body<Map<String, Value>>,
) -> Result<Json<Flow>, Problem> {
    app.run(move |manager| manager.update(&id, fields)).await.map(Json)
}

/// Stops a flow and takes it out, with its events.
#[utoipa::path(delete, path = "/v1/flows/{id}", operation_id = "delete_flow", tag = "flows",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 204, description = "It is gone"),
        (status = 404, description = "No such flow", body = ErrorBody)))]
pub(super) async fn delete(State(app): State<Shared>, Params(id): Params<String>) -> Result<StatusCode, Problem> {
    app.run(move |manager| manager.delete(&id)).await.map(|()| StatusCode::NO_CONTENT)
}

/// Starts a flow: everything in it can be opened, or nothing happens.
#[utoipa::path(post, path = "/v1/flows/{id}/start", operation_id = "start_flow", tag = "flows",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "It runs", body = OutcomeBody),
        (status = 400, description = "Something cannot be opened", body = ErrorBody),
        (status = 404, description = "No such flow", body = ErrorBody),
        (status = 409, description = "A port is in use", body = ErrorBody)))]
pub(super) async fn start(State(app): State<Shared>, Params(id): Params<String>) -> Result<Json<OutcomeBody>, Problem> {
    app.run(move |manager| manager.start(&id)).await.map(|outcome| Json(outcome.into()))
}

/// Stops a flow; one that stands already is no error.
#[utoipa::path(post, path = "/v1/flows/{id}/stop", operation_id = "stop_flow", tag = "flows",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "It stands", body = OutcomeBody),
        (status = 404, description = "No such flow", body = ErrorBody)))]
pub(super) async fn stop(State(app): State<Shared>, Params(id): Params<String>) -> Result<Json<OutcomeBody>, Problem> {
    app.run(move |manager| manager.stop(&id)).await.map(|outcome| Json(outcome.into()))
}
