//! What the HTTP API says in JSON: types of the wire, made from those of the domain and the store.
//!
//! Owns: the names of all JSON keys, their schemas in the OpenAPI document, and so the types of the
//! page. A column of the store or a field of the domain can be renamed without a client noticing.
//!
//! The values of enums are words that are public for ever and stand in one place each (`words!` in
//! `base`); here they are strings, and [`words`] lists them in the schema.

mod command;
mod results;
mod status;
mod words;

pub(super) use command::{Command, CommandBody, CommandReply};
pub(super) use results::{FramesReply, MeasuredObject, SavedFrame, SessionsReply, Totals};
pub(super) use status::{ScreenTime, StatusMessage, StatusReply};
pub(super) use words::FrameId;
