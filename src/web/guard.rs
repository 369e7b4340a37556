//! Who may call: the box itself is not protected by a password yet, so at least no page of
//! another site may act through the browser of somebody who can reach the box ([`super::names`]
//! says how one is known). The probes answer under every name, and tell a name that is not ours
//! nothing but yes or no ([`super::access`]).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::{Action, Actions, Caller, may};
use super::problem::Problem;
use super::server::Crowded;
use super::shared::Shared;
use crate::telemetry::metrics::Refusal;
use reticle_domain::actor::Actor;

/// When it is worth asking again after all connections were in use.
const CROWDED_RETRY: Duration = Duration::from_secs(4);

/// Sent with every answer. `blob:` pictures are the live image, which the page has decoded
/// from the live channel.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Refuses who may not call; puts our headers on every answer.
pub(super) async fn guard(
    State((shared, actions)): State<(Arc<Shared>, Actions)>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let action = actions.of(path.as_ref().map(MatchedPath::as_str), request.method());
    let verdict = match request.extensions().get() {
        // Over the socket in the data folder no browser comes, and the kernel says who it is.
        Some(Actor::User { .. }) => Ok(()),
        _ => shared.names.check(&request),
    };
    let caller = if verdict.is_ok() { Caller::Known } else { Caller::Unknown };
    let crowded = request.extensions().get::<Crowded>().is_some();
    let mut response = match verdict {
        Err(problem) if !may(caller, action) => {
            shared.metrics.refused_client(Refusal::Foreign);
            if let Some(left_out) = shared.refusal_lines.line(&shared.clock.now()) {
                tracing::warn!(
                    path = request.uri().path(),
                    host = ?request.headers().get(header::HOST),
                    origin = ?request.headers().get(header::ORIGIN),
                    left_out,
                    "refused a request that is not from here"
                );
            }
            problem.into_response()
        }
        _ if crowded && action != Action::Probe => Problem::unavailable(
            "all connections that this box takes are in use (`max_connections` and \
             `max_connections_per_address` in [web]); ask again",
        )
        .retry_after(CROWDED_RETRY)
        .into_response(),
        _ => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    };
    if crowded {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // What says nothing about caching changes with the next frame.
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
