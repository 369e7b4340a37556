//! Opens all that the daemon is given: port, model, data folder, destinations, broker.
//!
//! Nothing runs yet. So whatever can be refused is refused here, in one line and with nothing begun:
//! what somebody else may hold (the port) before what takes seconds (the model, the store).

use std::net::{SocketAddr, TcpListener};

use anyhow::Context;

use super::watchdog::Stages;
use crate::config::Settings;
use crate::publish::Broker;
use crate::sync::Destinations;
use crate::web;
use reticle_base::clock::Clock;
use reticle_base::descriptors;
use reticle_base::fault_injection::Injections;
use reticle_base::supervise::Roster;
use reticle_segment::Segmenter;
use reticle_store::{Reader, Recovery, Store};

/// Everything that was opened, each for the thread that will have it.
pub(super) struct Opened {
    pub(super) stages: Stages,
    pub(super) roster: Roster,
    pub(super) listener: TcpListener,
    /// Where the page is.
    pub(super) address: SocketAddr,
    pub(super) segmenter: Segmenter,
    pub(super) store: Store,
    pub(super) reader: Reader,
    pub(super) recovery: Recovery,
    pub(super) destinations: Destinations,
    pub(super) broker: Option<Broker>,
}

impl Opened {
    /// Opens everything that the settings name.
    ///
    /// # Errors
    /// When something is refused: the port is in use, the model or the data folder is unusable, a
    /// destination or the broker cannot be meant.
    pub(super) fn open(settings: &Settings, clock: &Clock) -> anyhow::Result<Self> {
        let mut injections = Injections::from_environment()?;
        let stages = Stages::new(&mut injections, clock);
        let roster = Roster::new(injections, clock.clone());
        descriptors::raise_limit();
        let listener = web::bind(&settings.web)?;
        let address = listener.local_addr().context("cannot tell the port")?;
        let segmenter = Segmenter::new(&settings.segment, clock.clone())?;
        let (mut store, recovery) = Store::open(&settings.store, clock.clone())?;
        let reader = store.reader();
        let box_name = settings.r#box.name();
        let destinations =
            Destinations::open(&settings.sync, &box_name, &settings.store, clock.clone())?;
        // The store keeps for each destination what it has not got, so it knows them before the first
        // frame comes.
        store.deliver_to(destinations.deliveries())?;
        let broker = Broker::open(&settings.mqtt, &box_name)?;
        let told_all = broker.as_ref().filter(|broker| broker.tells_all());
        store.tell_to(told_all.map(Broker::place).as_deref())?;
        let store = store.report_to(stages.writer.clone());
        Ok(Self {
            stages,
            roster,
            listener,
            address,
            segmenter,
            store,
            reader,
            recovery,
            destinations,
            broker,
        })
    }
}
