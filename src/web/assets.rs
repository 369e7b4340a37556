//! The page itself: what `make ui` built, carried in the program.

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::bounded::OfTheProgram;
use super::problem::Problem;

/// `ui/dist`. A program built without it says so instead of showing a blank page.
#[derive(rust_embed::Embed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Built;

const INDEX: &str = "index.html";

/// Files under `assets/` have a hash in their name, so they never change.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// Everything else is asked for again each time, and mostly answered by 304.
const ASK_AGAIN: &str = "no-cache";

/// Answers with the file that `uri` names, or with a problem.
pub(super) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() { INDEX } else { path };
    let Some(file) = Built::get(path) else {
        if path == INDEX {
            return Problem::unavailable(
                "this program was built without its page: run `make ui` and build it again \
                 (the API under /api/v1 works)",
            )
            .into_response();
        }
        return Problem::not_found(format!("there is nothing at `{}`", uri.path())).into_response();
    };
    let etag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let bytes = match file.data {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        Body::from(bytes).into_response()
    };
    let caching = if path.starts_with("assets/") { FOREVER } else { ASK_AGAIN };
    let kind = file.metadata.mimetype();
    let kind =
        if kind.starts_with("text/") { format!("{kind}; charset=utf-8") } else { kind.into() };
    response.extensions_mut().insert(OfTheProgram);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    for (name, value) in [(header::ETAG, etag), (header::CONTENT_TYPE, kind)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}
