//! Events of one flow, and of all.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::error::ErrorBody;
use super::request::{Params, Query};
use crate::control::figures::rfc3339;
use crate::control::problem::Problem;
use crate::control::store::EventRecord;

/// Events, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventList {
    events: Vec<EventBody>,
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventBody {
    /// Grows with time.
    id: i64,
    /// Whose.
    flow_id: String,
    /// Stable name for programs. Of pictures and sound: `black_detected`, `black_ended`, `frozen_detected`, `frozen_ended`,
    /// `silent_detected`, `silent_ended`, `video_missing`, `video_back`, `audio_missing`, `audio_back`, `metadata_changed`,
    /// `watch_stretched`, `watch_restored`, `decoder_restarted`.
    #[serde(rename = "type")]
    type_name: String,
    /// Sentence for people.
    message: String,
    /// `info`, `warning` or `error`.
    severity: String,
    /// RFC 3339, UTC.
    timestamp: String,
    /// Details for programs.
    #[schema(value_type = Object)]
    data: Value,
}

impl From<EventRecord> for EventBody {
    fn from(event: EventRecord) -> Self {
        Self {
            id: event.id,
            flow_id: event.flow.to_string(),
            type_name: event.type_name,
            message: event.message,
            severity: event.severity,
            timestamp: rfc3339(event.at),
            data: event.data,
        }
    }
}

impl From<Vec<EventRecord>> for EventList {
    fn from(events: Vec<EventRecord>) -> Self {
        Self { events: events.into_iter().map(EventBody::from).collect() }
    }
}

/// The latest events of one flow; 1000 are kept.
#[utoipa::path(get, path = "/v1/flows/{id}/events", operation_id = "flow_events", tag = "events",
    params(("id" = String, Path, description = "Id of the flow"),
        ("limit" = Option<u32>, Query, description = "At most so many, 1 to 10000; 50 if not given")),
    responses((status = 200, description = "Newest first", body = EventList),
        (status = 400, description = "The limit is wrong", body = ErrorBody),
        (status = 404, description = "No such flow", body = ErrorBody)))]
pub(super) async fn of_flow(
    State(app): State<Shared>,
    Params(id): Params<String>,
    query: Query,
) -> Result<Json<EventList>, Problem> {
    let limit = query.limit(50)?;
    app.run(move |manager| manager.latest_events(Some(&id), limit)).await.map(|events| Json(events.into()))
}

/// The latest events of all flows.
#[utoipa::path(get, path = "/v1/events", operation_id = "events", tag = "events",
    params(("limit" = Option<u32>, Query, description = "At most so many, 1 to 10000; 100 if not given")),
    responses((status = 200, description = "Newest first", body = EventList),
        (status = 400, description = "The limit is wrong", body = ErrorBody)))]
pub(super) async fn all(State(app): State<Shared>, query: Query) -> Result<Json<EventList>, Problem> {
    let limit = query.limit(100)?;
    app.run(move |manager| manager.latest_events(None, limit)).await.map(|events| Json(events.into()))
}
