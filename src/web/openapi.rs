//! The OpenAPI document, made from the routes and the types they answer with.

use std::sync::OnceLock;

use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Reticle",
        description = "Live segmentation on one box. Times are RFC 3339 in UTC, lengths are in \
                       pixels unless the name says otherwise, errors are problem details \
                       (RFC 9457). The live channel at `/api/v1/live` is a WebSocket; its \
                       messages are described in docs/design/live.md.",
    ),
    paths(
        super::routes::status,
        super::routes::frames,
        super::routes::frame,
        super::routes::objects,
        super::routes::labels,
        super::routes::image,
        super::routes::sessions,
        super::routes::totals,
        super::commands::command,
        super::routes::healthz,
        super::routes::readyz,
        super::routes::metrics,
        super::streams::mjpeg,
        super::streams::snapshot,
    ),
    tags(
        (name = "live", description = "What happens now"),
        (name = "results", description = "What is saved"),
        (name = "health", description = "For whoever watches over the box"),
    )
)]
struct Document;

/// The document as JSON.
pub(super) fn json() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| {
        Document::openapi().to_pretty_json().expect("the document has string keys only")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_names_every_route_and_refers_to_nothing_that_is_not_there() {
        let document: serde_json::Value = serde_json::from_str(super::json()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for path in [
            "/api/v1/status",
            "/api/v1/frames",
            "/api/v1/frames/{id}",
            "/api/v1/frames/{id}/objects",
            "/api/v1/frames/{id}/labels.png",
            "/api/v1/frames/{id}/image.png",
            "/api/v1/sessions",
            "/api/v1/totals",
            "/api/v1/commands/{command}",
            "/healthz",
            "/readyz",
            "/metrics",
            "/streams/mjpeg",
            "/streams/snapshot.jpg",
        ] {
            assert!(paths.contains_key(path), "{path} is not in {:?}", paths.keys());
        }
        let text = super::json();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            let known = &document["components"]["schemas"][name];
            assert!(known.is_object(), "schema {name} is missing");
        }
    }
}
