//! Errors of the API as problem details (RFC 9457).

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An error as the API tells it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// What kind of problem it is; stable, for programs.
    #[schema(example = "urn:reticle:problem:not-found")]
    r#type: &'static str,
    /// The same for people, the same words each time.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// What happened this time and what to do.
    detail: String,
    /// When it is worth asking again, for the header `Retry-After`.
    #[serde(skip)]
    retry_after: Option<Duration>,
}

impl Problem {
    fn new(
        status: StatusCode,
        r#type: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { r#type, title, status: status.as_u16(), detail: detail.into(), retry_after: None }
    }

    /// Says when it is worth asking again.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The request makes no sense.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        let status = StatusCode::BAD_REQUEST;
        Self::new(status, "urn:reticle:problem:bad-request", "Bad request", detail)
    }

    /// There is no such thing.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "urn:reticle:problem:not-found", "Not found", detail)
    }

    /// The cursor is of an older epoch of the store.
    pub(crate) fn old_cursor(detail: impl Into<String>) -> Self {
        let status = StatusCode::CONFLICT;
        Self::new(status, "urn:reticle:problem:old-cursor", "Cursor of an older epoch", detail)
    }

    /// There is such a thing, but not by this method.
    pub(crate) fn method(detail: impl Into<String>) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "urn:reticle:problem:method", "Method not allowed", detail)
    }

    /// The request came under a name, or from a page, that may not call this box.
    pub(crate) fn foreign(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "urn:reticle:problem:foreign", "Not from here", detail)
    }

    /// Whoever calls may not do this.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        let status = StatusCode::FORBIDDEN;
        Self::new(status, "urn:reticle:problem:forbidden", "Not allowed", detail)
    }

    /// The same request is being answered already.
    pub(crate) fn being_answered(detail: impl Into<String>) -> Self {
        let status = StatusCode::CONFLICT;
        Self::new(status, "urn:reticle:problem:being-answered", "Still being answered", detail)
    }

    /// The key of this request is that of another one.
    pub(crate) fn key_reused(detail: impl Into<String>) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::new(status, "urn:reticle:problem:key-reused", "Key of another request", detail)
    }

    /// The request is larger than any request needs to be.
    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(status, "urn:reticle:problem:too-large", "Too large", detail)
    }

    /// The request did not come in time.
    pub(crate) fn slow(detail: impl Into<String>) -> Self {
        let status = StatusCode::REQUEST_TIMEOUT;
        Self::new(status, "urn:reticle:problem:slow", "Too slow", detail)
    }

    /// The same was asked too often.
    pub(crate) fn too_often(detail: impl Into<String>) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, "urn:reticle:problem:too-often", "Too often", detail)
    }

    /// Not now; later perhaps.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "urn:reticle:problem:unavailable", "Not available now", detail)
    }

    /// The store could not answer.
    pub(crate) fn store(detail: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "urn:reticle:problem:store", "The store could not answer", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = retry_after {
            // Whole seconds, and never so few that it is still too early.
            let seconds = wait.as_secs() + 1;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
