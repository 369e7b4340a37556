//! Reticle segments cells as a microscope captures them, and never loses a result.
//!
//! ```text
//!               ┌ every frame ─► store (keep) ────► frame files ─┐ what is not yet segmented
//! source ─Frame─┤                                                │ (the backlog)
//!               └ newest only ─► segment ─Segmentation─► store (commit: one transaction)
//!                                   │                        │
//!                                   └► live view             ├► Record: may be called saved
//!                                                            └► outbox ─┬► sync ─► archive (S3), PostgreSQL
//!                                                                       └► publish ─► broker (MQTT)
//! ```
//!
//! Where to look, from left to right: a frame enters in [`capture`], is segmented in
//! [`reticle_segment`], stored in [`reticle_store`], and leaves to people in [`web`], to the lab in
//! [`sync`] and [`publish`], and into files of other programs in [`reticle_exchange`]. [`app`] wires
//! them, in one screen; [`batch`] segments sets of files, exports and imports; [`check`] looks a box
//! over.
//!
//! What other programs link too lies in crates, and Cargo keeps who may name whom there:
//! `base ← domain ← {imagefile, nn} ← segment`; `{store, exchange} ← domain, imagefile`;
//! `object-storage ← base`. Only the store can make a [`Record`](reticle_store::Record). In this
//! program (`tests/layering` keeps it so) stages never name each other, they meet in [`app`]:
//! `store ← {web, publish}`; `{store, exchange, object-storage} ← sync`; `{segment, store} ← learn`;
//! `{segment, store, exchange} ← batch`;
//! everything `← config ← {app, check} ← cli`.
//!
//! Where something new goes:
//!
//! | new | goes into |
//! |---|---|
//! | route of the HTTP API | [`web`]: one entry registers path, action, handler and documentation |
//! | column of a table | a new migration beside `crates/store/src/sql`, then its row type in [`reticle_store`] |
//! | destination | [`sync`] or [`publish`]; what it still needs is in the store's outbox |
//! | image format | [`reticle_imagefile`] |
//! | camera, or another source of frames | [`capture`] |
//! | measure of an object | `measure` in [`reticle_segment`], then [`reticle_domain::object`] |

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
