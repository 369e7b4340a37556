//! The names under which the box may be called, and the pages that may call it.
//!
//! - *Host*: exactly one, and only `localhost`, addresses written as numbers, and the names in
//!   `[web] hosts`. A page that points a name of its own at our address (DNS rebinding) comes under
//!   that name and is refused. A number cannot be rebound.
//! - *Origin*: where a browser says from which page a request comes, that must be a page of ours,
//!   scheme, name and port.
//! - *Sec-Fetch-Site*: where a browser says that a request comes from another site, only somebody
//!   who follows a link is let in, and not to a stream: pictures on a foreign page would take its
//!   seats. Browsers say it to `https` and to this machine only.
//!
//! Programs that are no browsers send neither and are let through.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use super::problem::Problem;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The names under which the box may be called.
pub(super) struct Names {
    listen: SocketAddr,
    hosts: Vec<String>,
    /// Where a proxy that speaks TLS shows our page.
    proxied: Vec<Origin>,
}

/// Where a page comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Origin {
    /// `http://host:port`, as browsers write it and nothing else.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://")? {
            ("http", rest) => (Scheme::Http, rest),
            ("https", rest) => (Scheme::Https, rest),
            _ => return None,
        };
        Some(Self::of(scheme, &rest.parse().ok()?))
    }

    fn of(scheme: Scheme, authority: &Authority) -> Self {
        let port = authority.port_u16().unwrap_or_else(|| scheme.port());
        Self { scheme, host: authority.host().to_ascii_lowercase(), port }
    }
}

impl Names {
    pub(super) fn new(listen: SocketAddr, hosts: &[String]) -> Self {
        let (proxied, plain): (Vec<_>, Vec<_>) =
            hosts.iter().partition(|host| host.contains("://"));
        let proxied: Vec<Origin> = proxied
            .into_iter()
            .filter_map(|host| {
                let origin = Origin::parse(host);
                if origin.is_none() {
                    tracing::warn!(host, "`hosts` in [web] has names and https://name; not used");
                }
                origin
            })
            .collect();
        let plain = plain.into_iter().map(|host| host.to_ascii_lowercase());
        let hosts = plain.chain(proxied.iter().map(|origin| origin.host.clone())).collect();
        Self { listen, hosts, proxied }
    }

    fn know(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if let Ok(address) = host.parse::<IpAddr>() {
            let listens_on = self.listen.ip();
            return address.is_loopback() || listens_on.is_unspecified() || address == listens_on;
        }
        host == "localhost" || host.ends_with(".localhost") || self.hosts.contains(&host)
    }

    /// Whether a request comes under a name of this box and from no foreign page.
    ///
    /// # Errors
    /// With what is wrong and what to do.
    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        let host = host(request.headers(), request.uri())?;
        if !self.know(host.host()) {
            return Err(Problem::foreign(format!(
                "this box does not answer to the name `{}`: call it by its address, or add the \
                 name to `hosts` in [web]",
                host.host()
            )));
        }
        if !self.is_our_page(request.headers(), &host) {
            return Err(Problem::foreign(
                "this box answers pages of its own only; this request comes from a page of \
                 another origin",
            ));
        }
        if is_of_another_site(request) {
            return Err(Problem::foreign(
                "this box answers pages of its own only; this request comes from a page of \
                 another site (Sec-Fetch-Site)",
            ));
        }
        Ok(())
    }

    /// Whether no Origin is said, or ours.
    fn is_our_page(&self, headers: &HeaderMap, host: &Authority) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        let ours = Origin::of(Scheme::Http, host);
        let origin = origin.to_str().ok().and_then(Origin::parse);
        origins.next().is_none()
            && origin.is_some_and(|origin| {
                origin == ours || (origin.host == ours.host && self.proxied.contains(&origin))
            })
    }
}

/// The one Host of a request. Two of them would be read in one way here and in another by a proxy.
fn host(headers: &HeaderMap, uri: &Uri) -> Result<Authority, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Problem::bad_request("a request has exactly one Host header"));
    };
    let host: Option<Authority> = host.to_str().ok().and_then(|text| text.parse().ok());
    let host = host.ok_or_else(|| Problem::bad_request("the Host header is no name and port"))?;
    // `GET http://name/ HTTP/1.1`: the name there counts for more than the header.
    if uri.authority().is_some_and(|named| *named != host) {
        return Err(Problem::bad_request("the Host header is not the host of the address"));
    }
    Ok(host)
}

/// Whether a browser says that the request comes from another site, and it is not that somebody
/// follows a link. A page at another port of this machine is `same-site`, and as foreign.
fn is_of_another_site(request: &Request) -> bool {
    let said = |name: &HeaderName| request.headers().get(name).map(HeaderValue::as_bytes);
    let is_ours = match said(&FETCH_SITE) {
        None => true,
        Some(site) => site == b"same-origin" || site == b"none",
    };
    let path = request.uri().path();
    let follows_a_link = matches!(*request.method(), Method::GET | Method::HEAD)
        && said(&FETCH_MODE) == Some(b"navigate")
        && said(&FETCH_DEST) == Some(b"document")
        && !path.starts_with("/streams/")
        && !request.headers().contains_key(header::UPGRADE);
    !is_ours && !follows_a_link
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
            ("https://127.0.0.1:8080", false),
            ("http://127.0.0.1:9090", false),
            ("http://127.0.0.1", false),
            ("127.0.0.1:8080", false),
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

    #[test]
    fn a_page_behind_a_proxy_that_speaks_tls_is_ours_where_it_is_configured() {
        let hosts = ["https://Scope-3.lab.example".to_owned(), "plain.lab.example".to_owned()];
        let names = Names::new("127.0.0.1:8080".parse().unwrap(), &hosts);
        for (host, origin, fine) in [
            ("scope-3.lab.example", "https://scope-3.lab.example", true),
            ("scope-3.lab.example", "https://scope-3.lab.example:8443", false),
            ("plain.lab.example", "https://plain.lab.example", false),
            ("plain.lab.example", "http://plain.lab.example", true),
            ("plain.lab.example", "https://scope-3.lab.example", false),
        ] {
            let headers = [(header::HOST, host), (header::ORIGIN, origin)];
            assert_eq!(verdict(&names, Method::POST, &headers), fine, "{host} from {origin}");
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        let names = names("127.0.0.1:8080");
        let host = (header::HOST, "127.0.0.1:8080");
        assert!(verdict(&names, Method::GET, std::slice::from_ref(&host)));
        assert!(!verdict(&names, Method::GET, &[host.clone(), host.clone()]));
        assert!(!verdict(&names, Method::GET, &[]));
        for url in ["http://127.0.0.1:8080/", "http://evil.example/"] {
            let request = Request::builder().uri(url).header(&host.0, host.1);
            let request = request.body(axum::body::Body::empty()).unwrap();
            assert_eq!(names.check(&request).is_ok(), !url.contains("evil"), "{url}");
        }
    }

    #[test]
    fn a_foreign_page_takes_no_seat_at_a_stream_and_a_link_leads_to_the_page() {
        let names = names("127.0.0.1:8080");
        let asks = |path: &str, site: &str, mode: &str, dest: &str| {
            let request = Request::builder()
                .uri(path)
                .header(header::HOST, "127.0.0.1:8080")
                .header(FETCH_SITE, site)
                .header(FETCH_MODE, mode)
                .header(FETCH_DEST, dest);
            names.check(&request.body(axum::body::Body::empty()).unwrap()).is_ok()
        };
        for path in ["/streams/mjpeg", "/streams/snapshot.jpg", "/api/v1/status", "/"] {
            for site in ["cross-site", "same-site"] {
                assert!(!asks(path, site, "no-cors", "image"), "{path} from {site}");
                assert!(!asks(path, site, "navigate", "iframe"), "{path} framed by {site}");
            }
            assert!(asks(path, "same-origin", "no-cors", "image"), "{path} on our page");
            assert!(asks(path, "none", "navigate", "document"), "{path} typed in");
        }
        assert!(asks("/", "cross-site", "navigate", "document"), "a link leads to the page");
        assert!(!asks("/streams/mjpeg", "cross-site", "navigate", "document"));
    }
}
