//! What `reticle run` would refuse at its start, found without starting it.
//!
//! Each part of the settings goes through the very function that `run` gives it to, so that
//! nothing passes here that `run` refuses. Files (certificates, packages, profiles) are read; no
//! server is asked, nothing is written, and the port is let go at once. What only the moment
//! decides is no fault of the settings: a port or a data folder that the daemon itself holds.

use crate::config::Settings;
use crate::publish::Broker;
use crate::sync;
use crate::telemetry;
use crate::web::{self, WebError};
use reticle_base::clock::Clock;
use reticle_segment::Segmenter;

/// The keys that `run` would refuse, each with why.
pub fn refusals(settings: &Settings, clock: &Clock) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut refuse = |key: &str, why: String| found.push((key.to_owned(), why));
    if let Err(error) = telemetry::check(&settings.log) {
        refuse("log", error.to_string());
    }
    match web::bind(&settings.web) {
        Ok(_) | Err(WebError::PortInUse(_)) => {}
        Err(error) => refuse("web.listen", error.to_string()),
    }
    if let Err(error) = Segmenter::new(&settings.segment, clock.clone()) {
        refuse("segment.model", error.to_string());
    }
    let folder = &settings.store.folder;
    if folder.exists() && !folder.is_dir() {
        let why =
            format!("{} is no folder; name another, or move that file away", folder.display());
        refuse("store.folder", why);
    }
    let box_name = settings.r#box.name();
    let opened =
        sync::Destinations::open(&settings.sync, &box_name, &settings.store, clock.clone());
    if let Err(error) = opened {
        refuse(&error.what, error.why);
    }
    if let Err(error) = Broker::open(&settings.mqtt, &box_name) {
        refuse(&error.what, error.why);
    }
    found
}
