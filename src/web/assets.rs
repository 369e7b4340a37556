//! The page itself: what `make ui` built, carried in the program.
//!
//! - Each file lies there as it is and compressed (`ui/compress.mjs`); a browser gets the smallest
//!   form that it takes, and nothing is compressed while the box works.
//! - An address of the page, as `/sessions/0192…`, is answered with the page, which reads the rest
//!   from its address. It is one if a person's browser asks for a document (`Accept: text/html`),
//!   the last part has no ending as a file has, and it does not lie where programs ask.

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::EmbeddedFile;

use super::bounded::OfTheProgram;
use super::problem::Problem;

/// `ui/dist`. A program built without it says so instead of showing a blank page.
#[derive(rust_embed::Embed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Built;

const INDEX: &str = "index.html";

/// Compressed forms, the smallest first: the coding in HTTP, and the ending of the file.
const CODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

/// Where programs ask. An address below these is never the page's.
const OF_PROGRAMS: [&str; 2] = ["api/", "streams/"];

/// Files under `assets/` have a hash in their name, so they never change.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// Everything else is asked for again each time, and mostly answered by 304.
const ASK_AGAIN: &str = "no-cache";

/// Answers with the file that `uri` names, with the page, or with a problem.
pub(super) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let is_compressed = CODINGS.iter().any(|(_, ending)| path.ends_with(ending));
    let path = if path.is_empty() || is_of_the_page(path, &headers) { INDEX } else { path };
    match Built::get(path).filter(|_| !is_compressed) {
        Some(plain) => answer(path, plain, &headers),
        None if path == INDEX => Problem::unavailable(
            "this program was built without its page: run `make ui` and build it again \
             (the API under /api/v1 works)",
        )
        .into_response(),
        None => Problem::not_found(format!("there is nothing at `{}`", uri.path())).into_response(),
    }
}

/// Whether `path` is an address within the page, which the page itself takes apart.
fn is_of_the_page(path: &str, headers: &HeaderMap) -> bool {
    let has_ending = path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    let wants_document = list(headers, &header::ACCEPT).any(|kind| kind == "text/html");
    wants_document && !has_ending && !OF_PROGRAMS.iter().any(|folder| path.starts_with(folder))
}

fn answer(path: &str, plain: EmbeddedFile, headers: &HeaderMap) -> Response {
    let kind = plain.metadata.mimetype();
    let kind =
        if kind.starts_with("text/") { format!("{kind}; charset=utf-8") } else { kind.into() };
    let (coding, file) = smallest(path, plain, headers);
    let etag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    let is_known = list(headers, &header::IF_NONE_MATCH)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag);
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let bytes = match file.data {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        Body::from(bytes).into_response()
    };
    let caching = if path.starts_with("assets/") { FOREVER } else { ASK_AGAIN };
    response.extensions_mut().insert(OfTheProgram);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    // Also where this file has one form: a cache must not know which have several.
    let by = if path == INDEX { "Accept, Accept-Encoding" } else { "Accept-Encoding" };
    headers.insert(header::VARY, HeaderValue::from_static(by));
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    for (name, value) in [(header::ETAG, etag), (header::CONTENT_TYPE, kind)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

/// The smallest form of a file that the client takes, and its coding.
fn smallest(
    path: &str,
    plain: EmbeddedFile,
    headers: &HeaderMap,
) -> (Option<&'static str>, EmbeddedFile) {
    let takes = |coding: &str| list(headers, &header::ACCEPT_ENCODING).any(|own| own == coding);
    let compressed = CODINGS.into_iter().filter(|(coding, _)| takes(coding));
    let found = compressed
        .filter_map(|(coding, ending)| {
            Some((Some(coding), Built::get(&format!("{path}{ending}"))?))
        })
        .next();
    found.unwrap_or((None, plain))
}

/// The members of a list in a header, without those that are said to be unwanted (`q=0`).
fn list<'a>(
    headers: &'a HeaderMap,
    name: &header::HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(|member| {
        let mut parts = member.split(';').map(str::trim);
        let value = parts.next()?;
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        (weight != Some(0.0)).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn an_address_of_the_page_is_one_that_a_person_opens_and_no_file_or_call() {
        let browser = headers(header::ACCEPT, "text/html,application/xml;q=0.9,*/*;q=0.8");
        for (path, is_one) in [
            ("sessions", true),
            ("sessions/0192f0c4-7b1e-7000-8000-0123456789ab", true),
            ("assets/index.js", false),
            ("api/v1/nothing", false),
            ("streams/nothing", false),
        ] {
            assert_eq!(is_of_the_page(path, &browser), is_one, "{path}");
            assert!(!is_of_the_page(path, &headers(header::ACCEPT, "*/*")), "{path}: a program");
        }
    }

    #[test]
    fn a_member_with_no_weight_is_unwanted() {
        let listed = |value| {
            let headers = headers(header::ACCEPT_ENCODING, value);
            list(&headers, &header::ACCEPT_ENCODING).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(listed("gzip, deflate;q=0.5 , br;q=1.0"), ["gzip", "deflate", "br"]);
        assert_eq!(listed("br; q=0, gzip;q=0.0"), [] as [&str; 0]);
    }
}
