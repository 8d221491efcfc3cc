//! Health, a flow's figures as JSON, everything for Prometheus.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::error::ErrorBody;
use super::request::{Params, Query};
use crate::control::figures::FlowMetrics;
use crate::control::metrics;
use crate::control::problem::{Code, Problem};

/// Whether the server does its work.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, or `starting` while flows are started again.
    status: &'static str,
    total_flows: usize,
    active_flows: usize,
}

/// Whether the server does its work; needs no token.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "server",
    params(("probe" = Option<String>, Query, description = "`live` (the default): it answers; `ready`: flows that ran are started again")),
    responses((status = 200, description = "It does", body = Health),
        (status = 503, description = "Not ready yet", body = Health)))]
pub(super) async fn health(State(app): State<Shared>, query: Query) -> Result<(StatusCode, Json<Health>), Problem> {
    let probe = query.only("probe")?;
    let ready = app.manager.is_restored();
    let status = match probe.as_deref() {
        None | Some("live") => StatusCode::OK,
        Some("ready") if ready => StatusCode::OK,
        Some("ready") => StatusCode::SERVICE_UNAVAILABLE,
        Some(other) => {
            let message = format!("{other} is not allowed, write live or ready");
            return Err(Problem::at("probe", Code::InvalidValue, message));
        }
    };
    let counts = app.run(|manager| Ok(manager.counts())).await?;
    let word = if ready { "ok" } else { "starting" };
    Ok((status, Json(Health { status: word, total_flows: counts.total, active_flows: counts.active })))
}

/// Figures of a running flow.
#[utoipa::path(get, path = "/v1/flows/{id}/metrics", operation_id = "flow_metrics", tag = "metrics",
    params(("id" = String, Path, description = "Id of the flow")),
    responses((status = 200, description = "Its figures", body = FlowMetrics),
        (status = 404, description = "No such flow, or it does not run", body = ErrorBody)))]
pub(super) async fn of_flow(
    State(app): State<Shared>,
    Params(id): Params<String>,
) -> Result<Json<FlowMetrics>, Problem> {
    app.run(move |manager| manager.running(&id))
        .await
        .map(|flow| Json(FlowMetrics::new(flow.id.as_str(), &flow.snapshot)))
}

/// Figures of everything, for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "prometheus", tag = "metrics",
    responses((status = 200, description = "Text format 0.0.4", body = String, content_type = "text/plain")))]
pub(super) async fn prometheus(State(app): State<Shared>) -> Result<impl IntoResponse, Problem> {
    let text = app
        .run(|manager| {
            let events = manager.events().counts();
            Ok(metrics::prometheus(&manager.all_running(), manager.counts(), &manager.pool_usage(), &events))
        })
        .await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}
