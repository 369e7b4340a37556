//! What is served, who may ask for it, and what the OpenAPI document says of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::{Answer, Server};
use crate::web::connection::Times;
use crate::web::shared::Shared;
use crate::web::{Options, Ports, Seats, routes};

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// An operation of the document: method, path, and what a caller must be allowed to do.
fn operations(document: &Value) -> Vec<(String, String, String)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let action = operation["x-action"].as_str().expect("each operation has its action");
            operations.push((method.to_uppercase(), path.clone(), action.to_owned()));
        }
    }
    assert!(operations.len() > 10, "{operations:?}");
    operations
}

/// An address that is matched to this path, of a thing that is not there.
fn filled(path: &str) -> String {
    path.replace("{id}", "0192f0c4-7b1e-7000-8000-0123456789ab").replace("{command}", "fly")
}

/// Whether no route was found.
fn leads_nowhere(answer: &Answer) -> bool {
    answer.status == 404 && answer.problem().starts_with("there is nothing at")
}

#[test]
fn every_documented_operation_is_served_and_no_other_method() {
    let server = Server::start();
    let document = server.get("/api/v1/openapi.json").json();
    let documented = operations(&document);
    assert!(leads_nowhere(&server.get("/api/v1/nothing")));
    for (method, path, _) in documented.iter().filter(|(_, path, _)| path != "/streams/mjpeg") {
        let answer = server.ask(method, &filled(path), &[("Content-Length", "0")]);
        assert!(!leads_nowhere(&answer) && answer.status != 405, "{method} {path}");
    }
    for path in documented.iter().map(|(_, path, _)| path).collect::<BTreeSet<_>>() {
        for method in METHODS {
            if documented.iter().any(|known| known.0 == method && known.1 == *path) {
                continue;
            }
            let answer = server.ask(method, &filled(path), &[("Content-Length", "0")]);
            assert_eq!(answer.status, 405, "{method} {path}");
        }
    }
}

#[test]
fn every_path_that_is_served_is_documented() {
    let server = Server::start();
    let options = Options::default();
    let (_, stopping) = tokio::sync::watch::channel(false);
    let ports = Ports {
        status: server.status.clone(),
        live: server.live.clone(),
        executor: Arc::new(super::Taken::default()),
        local: None,
        reader: reticle_store::Reader::open(&server.data.path().join("data")).unwrap(),
        metrics: server.metrics.clone(),
        asyncapi: String::new(),
        viewers: Seats::default(),
        clock: server.clock.clone(),
    };
    let shared = Shared::new(server.address, Times::default(), &options, ports, stopping);
    // There is no list of a router's paths; what it prints of itself has them all.
    let printed = format!("{:?}", routes::router(Arc::new(shared)));
    let (routes, _page) = printed.split_once("fallback_router").unwrap();
    let paths = routes.split("RouteId(").filter_map(|part| {
        let (_, path) = part.split_once("): \"")?;
        path.split('"').next()
    });
    let served: BTreeSet<&str> = paths.collect();
    let document = server.get("/api/v1/openapi.json").json();
    let documented = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(served, documented);
}

#[test]
fn a_foreign_name_is_let_to_the_probes_and_to_nothing_else() {
    let server = Server::start();
    let document = server.get("/api/v1/openapi.json").json();
    for (method, path, action) in operations(&document) {
        let headers = [("Host", "evil.example"), ("Content-Length", "0")];
        let answer = server.ask(&method, &filled(&path), &headers);
        assert_eq!(answer.status != 403, action == "probe", "{method} {path}: {action}");
    }
    for path in ["/", "/sessions/1", "/api/v1/nothing"] {
        let answer = server.ask("GET", path, &[("Host", "evil.example")]);
        assert_eq!(answer.status, 403, "{path}");
    }
}

#[test]
fn the_page_is_in_the_program_and_may_load_nothing_from_elsewhere() {
    let server = Server::start();
    let page = server.get("/");
    assert_eq!(page.status, 200, "run `make ui` before building");
    assert!(page.head.contains("content-security-policy: default-src 'self'"), "{}", page.head);
    assert!(page.head.contains("cache-control: no-cache"));
    let html = String::from_utf8(page.body.clone()).unwrap();
    let script = html.split("src=\"").nth(1).unwrap().split('"').next().unwrap();
    let asset = server.get(script);
    assert!(asset.head.contains("immutable"), "{}", asset.head);
    let etag = page.head.split("etag: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(server.ask("GET", "/", &[("If-None-Match", &etag)]).status, 304);
}

#[test]
fn an_address_of_the_page_shows_the_page_to_a_person_and_says_404_to_a_program() {
    let server = Server::start();
    let page = server.get("/").body;
    let person = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let opened = server.ask("GET", "/sessions/0192f0c4-7b1e-7000-8000-0123456789ab", &person);
    assert_eq!(opened.status, 200);
    assert!(opened.body == page, "it is the page");
    assert!(opened.head.contains("content-security-policy"), "{}", opened.head);
    for path in ["/api/v1/nothing", "/streams/nothing", "/assets/nothing.js"] {
        assert!(leads_nowhere(&server.ask("GET", path, &person)), "{path}");
    }
    assert!(leads_nowhere(&server.get("/sessions/1")), "a program asked");
    assert_eq!(server.ask("POST", "/sessions/1", &[("Content-Length", "0")]).status, 405);
}

#[test]
fn a_browser_gets_the_smallest_form_that_it_takes_and_each_form_has_its_own_tag() {
    let server = Server::start();
    let html = String::from_utf8(server.get("/").body).unwrap();
    let script = html.split("src=\"").nth(1).unwrap().split('"').next().unwrap();
    let ask = |coding| server.ask("GET", script, &[("Accept-Encoding", coding)]);
    let tag = |answer: &Answer| {
        answer.head.split("etag: ").nth(1).unwrap().lines().next().unwrap().to_owned()
    };
    let (plain, gzip, br) = (ask("identity"), ask("gzip, deflate"), ask("gzip, deflate, br, zstd"));
    assert!(!plain.head.contains("content-encoding"), "{}", plain.head);
    assert!(gzip.head.contains("content-encoding: gzip"), "{}", gzip.head);
    assert!(br.head.contains("content-encoding: br"), "{}", br.head);
    assert!(br.body.len() < gzip.body.len() && gzip.body.len() < plain.body.len() / 2);
    assert!(gzip.body.starts_with(&[0x1F, 0x8B]));
    for answer in [&plain, &gzip, &br] {
        assert!(answer.head.contains("content-type: text/javascript"), "{}", answer.head);
        assert!(answer.head.contains("vary: accept-encoding"), "{}", answer.head);
    }
    let known = tag(&br);
    assert!(tag(&plain) != known && tag(&gzip) != known);
    let headers = [("If-None-Match", known.as_str()), ("Accept-Encoding", "br")];
    let unchanged = server.ask("GET", script, &headers);
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let other = [("If-None-Match", known.as_str()), ("Accept-Encoding", "gzip")];
    assert_eq!(server.ask("GET", script, &other).status, 200, "another form is another thing");
    assert!(leads_nowhere(&server.get(&format!("{script}.br"))), "a form is no file of its own");
}
