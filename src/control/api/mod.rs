//! HTTP: every route in one table, which makes router and OpenAPI document alike.

mod access;
mod error;
mod events;
mod flows;
mod metrics;
mod monitor;
mod outputs;
mod request;
mod server;
mod sources;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

pub use access::Access;
pub(super) use server::serve;

use super::manager::Manager;
use super::problem::{Code, Problem};

macro_rules! routes {
    ($($method:ident $path:literal $module:ident::$handler:ident;)+) => {
        /// Every route: method in lower case, and path.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        fn table() -> Router<Shared> {
            Router::new()$(.route($path, axum::routing::$method($module::$handler)))+
        }

        /// Live-media transport: one feed in, many out.
        #[derive(OpenApi)]
        #[openapi(paths($($module::$handler),+), modifiers(&BearerToken))]
        struct Document;
    };
}

routes! {
    get "/health" metrics::health;
    get "/metrics" metrics::prometheus;
    get "/openapi.json" document::show;
    get "/v1/flows" flows::list;
    post "/v1/flows" flows::create;
    get "/v1/flows/{id}" flows::show;
    put "/v1/flows/{id}" flows::update;
    delete "/v1/flows/{id}" flows::delete;
    post "/v1/flows/{id}/start" flows::start;
    post "/v1/flows/{id}/stop" flows::stop;
    post "/v1/flows/{id}/source" sources::add;
    delete "/v1/flows/{id}/source/{name}" sources::remove;
    post "/v1/flows/{id}/outputs" outputs::add;
    put "/v1/flows/{id}/outputs/{name}" outputs::update;
    delete "/v1/flows/{id}/outputs/{name}" outputs::remove;
    get "/v1/flows/{id}/metrics" metrics::of_flow;
    get "/v1/flows/{id}/thumbnail" monitor::thumbnail;
    get "/v1/flows/{id}/thumbnail.jpg" monitor::thumbnail_jpeg;
    get "/v1/flows/{id}/metadata" monitor::metadata;
    get "/v1/flows/{id}/content-quality" monitor::content_quality;
    get "/v1/flows/{id}/events" events::of_flow;
    get "/v1/events" events::all;
}

/// What every handler has at hand.
#[derive(Clone, Debug)]
struct Shared(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    manager: Arc<Manager>,
    access: Access,
    document: String,
}

impl std::ops::Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Parts {
    /// Runs `work` on a thread that may block. It runs to its end even if the client hangs up.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Manager) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let manager = Arc::clone(&self.manager);
        let done = tokio::task::spawn_blocking(move || work(&manager)).await;
        done.unwrap_or_else(|error| Err(Problem::new(Code::Internal, error.to_string())))
    }
}

/// The whole API as a service.
pub(super) fn router(manager: Arc<Manager>, access: Access) -> Router {
    let document = Document::openapi().to_json().unwrap_or_default();
    let shared = Shared(Arc::new(Parts { manager, access, document }));
    table()
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(DefaultBodyLimit::max(request::BODY_BYTES_MAX))
        .layer(from_fn_with_state(shared.clone(), access::guard))
        .with_state(shared)
}

/// The OpenAPI document about the others.
mod document {
    use super::{IntoResponse, Shared, State, header};

    /// This document.
    #[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "server",
        responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
    pub(super) async fn show(State(app): State<Shared>) -> impl IntoResponse {
        ([(header::CONTENT_TYPE, "application/json")], app.document.clone())
    }
}

/// The token, where the server asks for one.
struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("token", scheme);
        let optional = [Default::default(), utoipa::openapi::SecurityRequirement::new("token", [""; 0])];
        document.security = Some(optional.into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(&Document::openapi().to_json().unwrap()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeSet<(&str, &str)> = paths
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (&**method, &**path)))
            .collect();
        assert_eq!(described, ROUTES.iter().copied().collect());
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        let text = Document::openapi().to_json().unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let references = text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
        for pointer in references {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let document = Document::openapi();
        let json = serde_json::to_value(&document).unwrap();
        let items = json["paths"].as_object().unwrap().values();
        let names: Vec<&str> = items
            .flat_map(|item| item.as_object().unwrap().values())
            .map(|o| o["operationId"].as_str().unwrap())
            .collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), ROUTES.len(), "{names:?}");
    }
}
