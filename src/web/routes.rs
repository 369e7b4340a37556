//! The HTTP API: which address answers what. Nothing here decides anything; it reads the
//! status board and the store, and hands commands on.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};

use super::cursor::Cursor;
use super::latency::ScreenTime;
use super::problem::Problem;
use super::{Shared, assets, bounded, commands, guard, live, openapi, streams};
use crate::telemetry::metrics::{CONTENT_TYPE, Refusal};
use reticle_base::ids::FrameId;
use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;
use reticle_domain::status::{SaveState, SourceState, Status};
use reticle_store::{Reader, SavedFrame, SessionSummary, StoreError, Totals};

/// Frames in one answer, unless asked for fewer or more.
const PAGE: u32 = 100;
/// Most frames in one answer.
const LONGEST_PAGE: u32 = 1000;
/// How long a question may wait for its turn at the store.
const QUESTION_PATIENCE: Duration = Duration::from_secs(5);

/// All routes with their guards.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/frames", get(frames))
        .route("/api/v1/frames/{id}", get(frame))
        .route("/api/v1/frames/{id}/objects", get(objects))
        .route("/api/v1/frames/{id}/labels.png", get(labels))
        .route("/api/v1/frames/{id}/image.png", get(image))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/totals", get(totals))
        .route("/api/v1/commands/{command}", post(commands::command))
        .route("/api/v1/live", get(live::upgrade))
        .route("/api/v1/openapi.json", get(document))
        .route("/api/v1/asyncapi.json", get(messages))
        .route("/streams/mjpeg", get(streams::mjpeg))
        .route("/streams/snapshot.jpg", get(streams::snapshot))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(get(assets::serve))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), bounded::body))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), bounded::answer))
        .with_state(shared)
}

/// Everything a status line needs, with its age.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct StatusReply {
    /// The box's time when it answered.
    now: String,
    /// Version of the software.
    version: &'static str,
    /// Milliseconds since the newest segmented frame was captured.
    newest_age_ms: Option<f64>,
    /// Capture to screen: here over all live views, in the live channel over that one.
    screen: Option<ScreenTime>,
    /// Live views that are open.
    viewers: usize,
    #[serde(flatten)]
    status: Status,
}

impl StatusReply {
    pub(super) fn new(shared: &Shared, screen: Option<ScreenTime>) -> Self {
        let now = shared.clock.now();
        let newest = shared.live.newest();
        Self {
            now: now.rfc3339(),
            version: env!("CARGO_PKG_VERSION"),
            newest_age_ms: newest.map(|slot| {
                now.since(&slot.frame.segmentation.frame.captured).as_secs_f64() * 1_000.0
            }),
            screen,
            viewers: shared.viewers.taken(),
            status: shared.status.read(),
        }
    }
}

/// Status of the box
///
/// Run state, source, newest frame, counters, and whether results are saved.
#[utoipa::path(get, path = "/api/v1/status", tag = "live", responses((status = 200, body = StatusReply)))]
pub(super) async fn status(State(shared): State<Arc<Shared>>) -> Json<StatusReply> {
    let screen = shared.screen_time();
    Json(StatusReply::new(&shared, screen))
}

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

/// Part of the list of saved frames.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct FramesReply {
    /// In the order in which they were committed.
    frames: Vec<SavedFrame>,
    /// Ask again with `after` set to this for what was committed since; also when there was
    /// nothing new. A text to be given back as it is: it holds the epoch of the store.
    #[schema(example = "0199b7c2d3e4755f8a6b1c2d3e4f5a6b-42")]
    next: String,
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
    let epoch = ask(&shared, Reader::identity).await?.epoch;
    let after = part.after.map(|text| Cursor::read(&text, epoch)).transpose()?;
    let frames = ask(&shared, move |reader| reader.saved_frames(after, limit)).await?;
    let last = frames.last().map(|frame| frame.cursor).or(after).unwrap_or(0);
    Ok(Json(FramesReply { frames, next: Cursor::new(epoch, last).to_string() }))
}

/// One saved frame
#[utoipa::path(
    get, path = "/api/v1/frames/{id}", tag = "results",
    params(("id" = FrameId, Path, description = "The frame")),
    responses((status = 200, body = SavedFrame), (status = 404, body = Problem))
)]
pub(super) async fn frame(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<SavedFrame>, Problem> {
    let id = parse_id(&id)?;
    let frame = ask(&shared, move |reader| reader.frame(id)).await?;
    frame.map(Json).ok_or_else(|| not_saved(id))
}

/// Objects of a saved frame
///
/// Names as in scikit-image's `regionprops_table`.
#[utoipa::path(
    get, path = "/api/v1/frames/{id}/objects", tag = "results",
    params(("id" = FrameId, Path, description = "The frame")),
    responses((status = 200, body = [Object]), (status = 404, body = Problem))
)]
pub(super) async fn objects(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<Vec<Object>>, Problem> {
    let id = parse_id(&id)?;
    let objects = ask(&shared, move |reader| reader.objects(id)).await?;
    objects.map(Json).ok_or_else(|| not_saved(id))
}

/// Label image of a saved frame
///
/// 16-bit grey PNG: 0 is background, 1 to n are the objects.
#[utoipa::path(
    get, path = "/api/v1/frames/{id}/labels.png", tag = "results",
    params(("id" = FrameId, Path, description = "The frame")),
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
    let png = ask(&shared, move |reader| Ok(reader.labels(id)?.map(|image| labels_png(&image))));
    Ok(png_reply(png.await?.ok_or_else(|| not_saved(id))??))
}

/// Pixels of a saved frame
///
/// Grey PNG with the values as captured, 8 or 16 bits; only while the frame's file is kept.
#[utoipa::path(
    get, path = "/api/v1/frames/{id}/image.png", tag = "results",
    params(("id" = FrameId, Path, description = "The frame")),
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
    let png = ask(&shared, move |reader| {
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

/// All sessions, newest first.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct SessionsReply {
    /// The sessions.
    sessions: Vec<SessionSummary>,
}

/// Sessions, newest first
#[utoipa::path(
    get, path = "/api/v1/sessions", tag = "results",
    responses((status = 200, body = SessionsReply))
)]
pub(super) async fn sessions(
    State(shared): State<Arc<Shared>>,
) -> Result<Json<SessionsReply>, Problem> {
    let sessions = ask(&shared, |reader| reader.sessions()).await?;
    Ok(Json(SessionsReply { sessions }))
}

/// The store in a few numbers
#[utoipa::path(
    get, path = "/api/v1/totals", tag = "results",
    responses((status = 200, body = Totals))
)]
pub(super) async fn totals(State(shared): State<Arc<Shared>>) -> Result<Json<Totals>, Problem> {
    Ok(Json(ask(&shared, |reader| reader.totals()).await?))
}

/// Whether the process answers
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = str)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether frames can be taken and results saved
///
/// Under a name that is not the box's own it says yes or no, and not why: reasons name folders and
/// machines.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses((status = 200, body = str), (status = 503, body = Problem))
)]
pub(super) async fn readyz(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<guard::Caller>,
) -> Result<&'static str, Problem> {
    match (not_ready(&shared.status.read()), caller) {
        (None, _) => Ok("ready\n"),
        (Some(reason), guard::Caller::Known) => Err(Problem::unavailable(reason)),
        (Some(_), guard::Caller::Unknown) => Err(Problem::unavailable(
            "the box is not ready; it says why to whoever calls it by its address or by a name in \
             `hosts` of [web]",
        )),
    }
}

/// Why frames cannot be taken or results not be saved.
fn not_ready(status: &Status) -> Option<String> {
    if let SaveState::Failing { reason, since } = &status.save {
        return Some(format!("results are not saved since {since}: {reason}"));
    }
    if let Some(reason) = &status.keep_fails {
        return Some(format!("the pixels of frames cannot be written: {reason}"));
    }
    if let Some(reason) = &status.hold {
        return Some(format!("frames are shown and not recorded: {reason}"));
    }
    match &status.source {
        SourceState::Opening => Some(format!("{} is being opened", status.source_name)),
        SourceState::Lost { reason, since } => {
            Some(format!("{} is lost since {since}: {reason}", status.source_name))
        }
        SourceState::Ready | SourceState::Ended => None,
    }
}

/// Metrics for Prometheus
///
/// In its text format; `docs/monitoring` has the names, alert rules and a dashboard. Guarded like
/// every other read and unlike the probes: how much a lab does, and with which version, is not
/// for a foreign page. Whoever scrapes calls the box by its address or by a name in `[web] hosts`.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, content_type = "text/plain", body = str))
)]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let (status, viewers) = (shared.status.read(), shared.viewers.taken());
    let text = shared.metrics.render(&status, viewers, &shared.clock.now());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::json())
}

async fn messages(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], shared.asyncapi.clone())
}

async fn wrong_method(uri: Uri) -> Problem {
    Problem::method(format!(
        "`{}` is not called by this method; /api/v1/openapi.json says how",
        uri.path()
    ))
}

/// Asks the store on a thread that may wait for the disk.
async fn ask<T: Send + 'static>(
    shared: &Shared,
    question: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let turn =
        tokio::time::timeout(QUESTION_PATIENCE, Arc::clone(&shared.questions).acquire_owned());
    let Ok(Ok(turn)) = turn.await else {
        shared.metrics.refused_client(Refusal::Crowded);
        let detail = "the store is asked too much at the moment; ask again";
        return Err(Problem::unavailable(detail).retry_after(QUESTION_PATIENCE));
    };
    let reader = shared.reader.clone();
    let answer = tokio::task::spawn_blocking(move || {
        // Also when the client has left: the thread is at work all the same.
        let _turn = turn;
        question(&reader)
    });
    match answer.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Problem::store(error.to_string())),
        Err(_) => Err(Problem::store("reading broke off; see the daemon's log")),
    }
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
