//! Every address that the box answers, each registered once: its handler brings path, method and
//! entry in the OpenAPI document (`#[utoipa::path]`), the list in [`api`] says which action it is.
//! A route without an action, or without an entry in the document, does not build.

use std::sync::Arc;

use axum::extract::Extension;
use axum::http::{Method, Uri};
use axum::routing::get;
use axum::{Router, middleware};
use utoipa::OpenApi as _;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::access::{Action, Actions};
use super::problem::Problem;
use super::shared::Shared;
use super::{
    assets, bounded, commands, documents, guard, idempotency, live, probes, results, status,
    streams,
};

/// The list.
fn api() -> Api {
    Api::default()
        .route(Action::See, routes!(status::status))
        .route(Action::See, routes!(live::upgrade))
        .route(Action::Run, routes!(commands::command))
        .route(Action::See, routes!(results::frames))
        .route(Action::See, routes!(results::frame))
        .route(Action::See, routes!(results::objects))
        .route(Action::See, routes!(results::labels))
        .route(Action::See, routes!(results::image))
        .route(Action::See, routes!(results::sessions))
        .route(Action::See, routes!(results::totals))
        .route(Action::See, routes!(streams::mjpeg))
        .route(Action::See, routes!(streams::snapshot))
        .route(Action::Probe, routes!(probes::healthz))
        .route(Action::Probe, routes!(probes::readyz))
        .route(Action::See, routes!(probes::metrics))
        .route(Action::See, routes!(documents::openapi))
        .route(Action::See, routes!(documents::asyncapi))
}

/// The routes with their guards, from the outside in: what an answer may take, who may call, what a
/// request may send, whether it was answered before.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let Api { router, actions } = api();
    let (router, document) = router.split_for_parts();
    let guards = (Arc::clone(&shared), Actions::new(actions));
    let answers = Arc::new(idempotency::Answers::new(shared.clock.clone()));
    router
        .fallback(get(assets::serve))
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(documents::OpenApiDocument::new(&document)))
        .layer(middleware::from_fn_with_state(answers, idempotency::answer_once))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), bounded::body))
        .layer(middleware::from_fn_with_state(guards, guard::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), bounded::answer))
        .with_state(shared)
}

/// The OpenAPI document of the list.
#[cfg(test)]
pub(super) fn document() -> utoipa::openapi::OpenApi {
    api().router.into_openapi()
}

async fn wrong_method(uri: Uri) -> Problem {
    Problem::method(format!(
        "`{}` is not called by this method; /api/v1/openapi.json says how",
        uri.path()
    ))
}

/// Routes, their actions, and the document that they make.
struct Api {
    router: OpenApiRouter<Arc<Shared>>,
    actions: Vec<((String, Method), Action)>,
}

impl Default for Api {
    fn default() -> Self {
        let router = OpenApiRouter::with_openapi(Document::openapi());
        Self { router, actions: Vec::new() }
    }
}

impl Api {
    /// Adds the handlers of one path. There is no other way to serve an address under a name.
    fn route(mut self, action: Action, route: UtoipaMethodRouter<Arc<Shared>>) -> Self {
        let (schemas, mut paths, handlers) = route;
        for (path, item) in &mut paths.paths {
            for (method, operation) in operations(item) {
                self.actions.push(((path.clone(), method), action));
                operation.extensions = Some(Extensions::from_iter([("x-action", action.word())]));
            }
        }
        Self { router: self.router.routes((schemas, paths, handlers)), ..self }
    }
}

/// The operations of a path, each with its method.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [
        (Method::GET, get),
        (Method::PUT, put),
        (Method::POST, post),
        (Method::DELETE, delete),
        (Method::OPTIONS, options),
        (Method::HEAD, head),
        (Method::PATCH, patch),
        (Method::TRACE, trace),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// What the document says beside the routes.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Reticle",
        description = "Live segmentation on one box. Times are RFC 3339 in UTC, lengths are in \
                       pixels unless the name says otherwise, errors are problem details \
                       (RFC 9457). `x-action` of an operation says what a caller must be allowed \
                       to do. The live channel at `/api/v1/live` is a WebSocket; its messages are \
                       described in docs/design/live.md.",
    ),
    components(schemas(super::wire::StatusMessage)),
    tags(
        (name = "live", description = "What happens now"),
        (name = "results", description = "What is saved"),
        (name = "health", description = "For whoever watches over the box"),
        (name = "documents", description = "What this box speaks"),
    )
)]
struct Document;

#[cfg(test)]
mod tests {
    use super::*;

    /// Set to write the file instead of comparing it.
    const REWRITE: &str = "RETICLE_REWRITE_OPENAPI";

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file of the sources, written by hand")]
    fn the_published_document_is_the_one_that_the_routes_make() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api/openapi.json");
        let made = format!("{}\n", document().to_pretty_json().unwrap());
        if std::env::var_os(REWRITE).is_some() {
            std::fs::write(&file, &made).unwrap();
        }
        let published = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            published == made,
            "run this test with {REWRITE}=1, then `npm run api` in ui/, and commit {file:?} and \
             what that wrote"
        );
    }

    #[test]
    fn the_document_refers_to_nothing_that_is_not_there() {
        let text = document().to_json().unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let references: Vec<&str> = text.split("\"#/components/schemas/").skip(1).collect();
        assert!(references.len() > 20, "{} references were found", references.len());
        for reference in references {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name} is missing");
        }
    }
}
