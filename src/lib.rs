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
//! [`segment`], stored in [`store`], and leaves to people in [`web`], to the lab in [`sync`]
//! and [`publish`], and into files of other programs in [`exchange`]. [`app`] wires them, in one
//! screen; [`check`] looks a box over. Who may name whom (`tests/layering.rs` keeps it so):
//! `base ← domain ← imagefile ← {capture, segment, store, exchange}`; `base ← nn ← {segment, learn}`;
//! `store ← {web, publish}`;
//! `{store, exchange} ← sync`;
//! `{segment, store} ← learn`; everything `← config ← {app, check} ← cli`.

pub mod app;
pub mod capture;
pub mod check;
pub mod cli;
pub mod config;
pub mod learn;
pub mod publish;
pub mod sync;
pub mod telemetry;
pub mod web;
