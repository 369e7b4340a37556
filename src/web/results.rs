//! What is saved, over HTTP: frames, objects, label images, pixels, sessions.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use serde::Deserialize;

use super::cursor::Cursor;
use super::problem::Problem;
use super::shared::Shared;
use super::wire::{self, FramesReply, MeasuredObject, SavedFrame, SessionsReply, Totals};
use reticle_base::ids::FrameId;
use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;
use reticle_store::Reader;

/// Frames in one answer, unless asked for fewer or more.
const PAGE: u32 = 100;
/// Most frames in one answer.
const LONGEST_PAGE: u32 = 1000;

/// Which part of a long list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// `next` of the part before, as it was; none for the first part.
    #[param(example = "0199b7c2d3e4755f8a6b1c2d3e4f5a6b-42")]
    after: Option<String>,
    /// Most frames in the answer; 100 unless said, 1000 at most.
    limit: Option<u32>,
}

/// Saved frames
///
/// What stands here is committed and fsynced. After the store was restored from a backup, or read
/// back from its archive, a cursor from before is refused with 409: start again without one, and
/// tell by their ids which results are known already.
#[utoipa::path(
    get, path = "/api/v1/frames", tag = "results", params(Part),
    responses(
        (status = 200, body = FramesReply),
        (status = 400, body = Problem),
        (status = 409, body = Problem, description = "the cursor is of an older epoch")
    )
)]
pub(super) async fn frames(
    State(shared): State<Arc<Shared>>,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Json<FramesReply>, Problem> {
    let Query(part) = part.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = part.limit.unwrap_or(PAGE);
    if !(1..=LONGEST_PAGE).contains(&limit) {
        return Err(Problem::bad_request(format!("limit is 1 to {LONGEST_PAGE}, not {limit}")));
    }
    // It changes only while no daemon runs.
    let epoch = shared.ask(Reader::identity).await?.epoch;
    let after = part.after.map(|text| Cursor::read(&text, epoch)).transpose()?;
    let frames = shared.ask(move |reader| reader.saved_frames(after, limit)).await?;
    let last = frames.last().map(|frame| frame.cursor).or(after).unwrap_or(0);
    let frames = frames.into_iter().map(SavedFrame::from).collect();
    Ok(Json(FramesReply { frames, next: Cursor::new(epoch, last).to_string() }))
}

/// One saved frame
#[utoipa::path(
    get, path = "/api/v1/frames/{id}", tag = "results",
    params(("id" = wire::FrameId, Path, description = "The frame")),
    responses((status = 200, body = SavedFrame), (status = 404, body = Problem))
)]
pub(super) async fn frame(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<SavedFrame>, Problem> {
    let id = parse_id(&id)?;
    let frame = shared.ask(move |reader| reader.frame(id)).await?;
    frame.map(|frame| Json(frame.into())).ok_or_else(|| not_saved(id))
}

/// Objects of a saved frame
///
/// Names as in scikit-image's `regionprops_table`.
#[utoipa::path(
    get, path = "/api/v1/frames/{id}/objects", tag = "results",
    params(("id" = wire::FrameId, Path, description = "The frame")),
    responses((status = 200, body = [MeasuredObject]), (status = 404, body = Problem))
)]
pub(super) async fn objects(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<Vec<MeasuredObject>>, Problem> {
    let id = parse_id(&id)?;
    let objects = shared.ask(move |reader| reader.objects(id)).await?;
    let objects = objects.ok_or_else(|| not_saved(id))?;
    Ok(Json(objects.into_iter().map(MeasuredObject::from).collect()))
}

/// Label image of a saved frame
///
/// 16-bit grey PNG: 0 is background, 1 to n are the objects.
#[utoipa::path(
    get, path = "/api/v1/frames/{id}/labels.png", tag = "results",
    params(("id" = wire::FrameId, Path, description = "The frame")),
    responses(
        (status = 200, content_type = "image/png", body = Vec<u8>),
        (status = 404, body = Problem)
    )
)]
pub(super) async fn labels(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let png = shared.ask(move |reader| Ok(reader.labels(id)?.map(|image| labels_png(&image))));
    Ok(png_reply(png.await?.ok_or_else(|| not_saved(id))??))
}

/// Pixels of a saved frame
///
/// Grey PNG with the values as captured, 8 or 16 bits; only while the frame's file is kept.
#[utoipa::path(
    get, path = "/api/v1/frames/{id}/image.png", tag = "results",
    params(("id" = wire::FrameId, Path, description = "The frame")),
    responses(
        (status = 200, content_type = "image/png", body = Vec<u8>),
        (status = 404, body = Problem)
    )
)]
pub(super) async fn image(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let png = shared.ask(move |reader| {
        let stored = reader.pixels(id)?;
        Ok(stored.map(|stored| match stored.pixels {
            Pixels::U8(values) => png(&values, stored.width, stored.height, ExtendedColorType::L8),
            Pixels::U16(values) => png_16(&values, stored.width, stored.height),
        }))
    });
    let no_file = || {
        Problem::not_found(format!(
            "the pixels of frame {id} are not on this box: no such frame, or its file was not \
             kept (see `file` and `no_file` of /api/v1/frames/{id})"
        ))
    };
    Ok(png_reply(png.await?.ok_or_else(no_file)??))
}

/// Sessions, newest first
#[utoipa::path(
    get, path = "/api/v1/sessions", tag = "results",
    responses((status = 200, body = SessionsReply))
)]
pub(super) async fn sessions(
    State(shared): State<Arc<Shared>>,
) -> Result<Json<SessionsReply>, Problem> {
    let sessions = shared.ask(|reader| reader.sessions()).await?;
    Ok(Json(SessionsReply { sessions: sessions.into_iter().map(Into::into).collect() }))
}

/// The store in a few numbers
#[utoipa::path(
    get, path = "/api/v1/totals", tag = "results",
    responses((status = 200, body = Totals))
)]
pub(super) async fn totals(State(shared): State<Arc<Shared>>) -> Result<Json<Totals>, Problem> {
    Ok(Json(shared.ask(|reader| reader.totals()).await?.into()))
}

fn parse_id(text: &str) -> Result<FrameId, Problem> {
    text.parse().map_err(|error| {
        Problem::bad_request(format!("`{text}` is not the id of a frame (a UUID): {error}"))
    })
}

fn not_saved(id: FrameId) -> Problem {
    Problem::not_found(format!("no result of frame {id} is saved on this box"))
}

fn labels_png(image: &LabelImage) -> Result<Vec<u8>, Problem> {
    reticle_imagefile::encode_labels_png(image).ok_or_else(|| {
        Problem::unavailable(format!("{} labels do not fit into 16 bits", image.count()))
    })
}

fn png_16(values: &[u16], width: u32, height: u32) -> Result<Vec<u8>, Problem> {
    // The encoder wants the machine's own byte order and writes PNG's.
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    png(&bytes, width, height, ExtendedColorType::L16)
}

fn png(
    bytes: &[u8],
    width: u32,
    height: u32,
    colour: ExtendedColorType,
) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(bytes.len() / 2);
    PngEncoder::new_with_quality(&mut out, CompressionType::Fast, FilterType::Adaptive)
        .write_image(bytes, width, height, colour)
        .map_err(|error| Problem::store(format!("cannot write a PNG: {error}")))?;
    Ok(out)
}

fn png_reply(png: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "image/png")], png).into_response()
}
