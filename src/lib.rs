//! Reticle segments cells as a microscope captures them, and never loses a result.
//!
//! ```text
//!               ┌ every frame ─► store (keep) ───► frame files, kept by the retention rule
//! source ─Frame─┤
//!               └ newest (camera) or each (folder) ─► segment ─Segmentation─► store (commit: one
//!                                                        │                      │   transaction)
//!                                                        └► live view           ├► Record: may be called saved
//!                                                                               ├► outbox ─► sync ─► archive (S3), PostgreSQL
//!                                                                               └► results and events ─► publish ─► broker (MQTT)
//! ```
//!
//! Where to look, from left to right: a frame enters in [`capture`], is segmented in
//! [`reticle_segment`], stored in [`reticle_store`], and leaves to people in [`web`], to the lab in
//! [`sync`] and [`publish`], and into files of other programs in [`reticle_exchange`]. [`app`] wires
//! them, in one file; [`app::threads`](app) is where a frame is handed to store and segmentation.
//! [`batch`] segments sets of files, exports and imports; [`learn`] trains models; [`telemetry`] has
//! logs and metrics; [`check`] looks a box over.
//!
//! What other programs link too lies in crates, and Cargo keeps who may name whom there (`a ← b`: b
//! may name a): `base ← domain ← imagefile`; `base ← nn`; `{imagefile, nn} ← segment`;
//! `imagefile ← {store, exchange}`; `base ← object-storage`. Only the store can make a
//! [`Record`](reticle_store::Record). Inside this program capture, segment and store never name each
//! other, they meet in [`app`]; what leaves the box may name the store. `tests/layering` has the whole
//! table and keeps it so.
//!
//! Where something new goes:
//!
//! | new | goes into |
//! |---|---|
//! | route of the HTTP API | a handler with `#[utoipa::path]` in [`web`], one line in `src/web/routes.rs` with its action, then `docs/api/openapi.json` and `npm run api` in `ui/` (the test of the document says how) |
//! | column of a table | a new file in `crates/store/src/sql`, listed in `schema.rs`; `rows.rs` writes it, `read/` reads it |
//! | archive of another kind | [`reticle_object_storage`] |
//! | another receiver of results | `Destination` in the store's `delivery.rs`, a migration, [`sync`]; a feed: [`publish`], which has a cursor of its own |
//! | image format | `Format` and `sniff` in [`reticle_imagefile`], and its ending in `list.rs` |
//! | camera, or another source of frames | [`capture`] |
//! | measure of an object | [`reticle_domain::object`], then `measure` in [`reticle_segment`], and each table and page where a neighbour stands: search for `solidity` |

pub mod app;
pub mod batch;
pub mod capture;
pub mod check;
pub mod cli;
pub mod config;
pub mod learn;
pub mod publish;
pub mod sync;
pub mod telemetry;
pub mod web;
