//! Who may call: the box itself is not protected by a password yet, so at least no page of
//! another site may act through the browser of somebody who can reach the box.
//!
//! - *Host*: only `localhost`, addresses written as numbers, and the names in `[web] hosts`.
//!   A page that points a name of its own at our address (DNS rebinding) comes under that
//!   name and is refused. A number cannot be rebound.
//! - *Origin*: where a browser says from which page a request comes, commands and the live
//!   channel must come from a page of ours.
//!
//! Programs that are no browsers send no Origin and are let through.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::problem::Problem;

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

/// The names under which the box may be called.
pub(super) struct Names {
    listen: SocketAddr,
    hosts: Vec<String>,
}

impl Names {
    pub(super) fn new(listen: SocketAddr, hosts: &[String]) -> Self {
        Self { listen, hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    fn know(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if let Ok(address) = host.parse::<IpAddr>() {
            let listens_on = self.listen.ip();
            return address.is_loopback() || listens_on.is_unspecified() || address == listens_on;
        }
        host == "localhost" || host.ends_with(".localhost") || self.hosts.contains(&host)
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let host = authority(request.headers(), &header::HOST)
            .ok_or_else(|| Problem::bad_request("the request has no valid Host header"))?;
        if !self.know(host.host()) {
            return Err(Problem::foreign(format!(
                "this box does not answer to the name `{}`: call it by its address, or add the \
                 name to `hosts` in [web]",
                host.host()
            )));
        }
        let acts = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            || request.headers().contains_key(header::UPGRADE);
        if acts && request.headers().contains_key(header::ORIGIN) {
            let origin = authority(request.headers(), &header::ORIGIN);
            if origin.is_none_or(|origin| origin != host) {
                return Err(Problem::foreign(
                    "commands and the live channel are for pages of this box only; this request \
                     comes from a page of another origin",
                ));
            }
        }
        Ok(())
    }
}

/// Host and port of a header; of an Origin, what follows its scheme.
fn authority(headers: &HeaderMap, name: &HeaderName) -> Option<Authority> {
    let text = headers.get(name)?.to_str().ok()?;
    let text = text.split_once("://").map_or(text, |(_scheme, rest)| rest);
    text.parse().ok()
}

/// Refuses who may not call; puts our headers on every answer.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    // Probes of an orchestrator call by whatever name, and learn nothing.
    let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    let mut response = match shared.names.check(&request) {
        Err(problem) if !probe => {
            tracing::warn!(
                path = request.uri().path(),
                host = ?request.headers().get(header::HOST),
                origin = ?request.headers().get(header::ORIGIN),
                "refused a request that is not from here"
            );
            problem.into_response()
        }
        _ => next.run(request).await,
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listen: &str) -> Names {
        Names::new(listen.parse().unwrap(), &["Scope-3.lab.example".to_owned()])
    }

    fn verdict(names: &Names, method: Method, headers: &[(HeaderName, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        names.check(&request.body(axum::body::Body::empty()).unwrap()).is_ok()
    }

    #[test]
    fn a_name_that_somebody_else_controls_is_refused() {
        let local = names("127.0.0.1:8080");
        for (host, known) in [
            ("127.0.0.1:8080", true),
            ("localhost:8080", true),
            ("[::1]:8080", true),
            ("scope-3.lab.example", true),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("10.0.0.7:8080", false),
            ("", false),
        ] {
            let headers = [(header::HOST, host)];
            assert_eq!(verdict(&local, Method::GET, &headers), known, "{host}");
        }
        let open = names("0.0.0.0:8080");
        assert!(verdict(&open, Method::GET, &[(header::HOST, "10.0.0.7:8080")]));
        assert!(!verdict(&open, Method::GET, &[(header::HOST, "evil.example:8080")]));
    }

    #[test]
    fn a_page_of_another_site_can_neither_command_nor_watch() {
        let names = names("127.0.0.1:8080");
        let host = (header::HOST, "127.0.0.1:8080");
        for (origin, fine) in [
            ("http://127.0.0.1:8080", true),
            ("http://127.0.0.1:9090", false),
            ("http://localhost:8080", false),
            ("https://evil.example", false),
            ("null", false),
        ] {
            let headers = [host.clone(), (header::ORIGIN, origin)];
            assert_eq!(verdict(&names, Method::POST, &headers), fine, "{origin}");
            let upgrade = [&headers[..], &[(header::UPGRADE, "websocket")]].concat();
            assert_eq!(verdict(&names, Method::GET, &upgrade), fine, "{origin}");
        }
        assert!(verdict(&names, Method::POST, &[host]), "a program sends no Origin");
    }
}
