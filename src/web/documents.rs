//! What this box speaks, for programs and for whoever writes one.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use utoipa::openapi::OpenApi;

use super::shared::Shared;

const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

/// The OpenAPI document of the routes, as text. Cheap to clone.
#[derive(Clone)]
pub(super) struct OpenApiDocument(Bytes);

impl OpenApiDocument {
    pub(super) fn new(document: &OpenApi) -> Self {
        let text = document.to_pretty_json().expect("the document has string keys only");
        Self(text.into())
    }
}

/// This document
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "documents",
    responses((status = 200, body = serde_json::Value, description = "OpenAPI"))
)]
pub(super) async fn openapi(Extension(document): Extension<OpenApiDocument>) -> impl IntoResponse {
    (JSON, document.0)
}

/// What the box says over MQTT
#[utoipa::path(
    get, path = "/api/v1/asyncapi.json", tag = "documents",
    responses((status = 200, body = serde_json::Value, description = "AsyncAPI"))
)]
pub(super) async fn asyncapi(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    (JSON, shared.asyncapi.clone())
}
