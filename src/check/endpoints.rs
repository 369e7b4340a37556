//! The archive, the central database, the message broker, and the port of the page.

use reticle_base::remedy::Remedy;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Finding, Scene};
use crate::publish::{self, Broker, PublishError};
use crate::sync::SyncError;
use crate::sync::central::Central;
use crate::web::{self, WebError};
use reticle_object_storage::ObjectStorage;
use reticle_object_storage::Throttle;

/// How long a server may take for all of a check; less than the probe's own limit.
const SERVER: Duration = Duration::from_secs(25);

/// How long whoever holds our port may take to say who it is.
const NEIGHBOUR: Duration = Duration::from_secs(2);

pub(super) fn archive(scene: &Scene) -> Finding {
    let location = scene.settings.sync.archive.location();
    let store = &scene.settings.store;
    answered(async {
        let throttle = Throttle::new(0, scene.clock.clone());
        let opened =
            Box::pin(ObjectStorage::open(&location, &store.folder, throttle, scene.clock.clone()))
                .await;
        match opened {
            Err(error) => refusal(error),
            Ok(None) => Finding::skipped("none is configured"),
            // Made when it is first needed; asking would make it.
            Ok(Some(archive @ ObjectStorage::Folder(_))) if !store.folder.exists() => {
                Finding::ok(format!("{}, made with the data folder", archive.name()))
            }
            Ok(Some(archive)) => match Box::pin(archive.check()).await {
                Ok(()) => Finding::ok(format!("{} takes and gives back", archive.name())),
                Err(error) => refusal(error),
            },
        }
    })
}

pub(super) fn central(scene: &Scene) -> Finding {
    let settings = &scene.settings;
    let central = match Central::open(&settings.sync.central, settings.r#box.name()) {
        Err(error) => return refusal(error),
        Ok(None) => return Finding::skipped("none is configured"),
        Ok(Some(central)) => central,
    };
    answered(async {
        match Box::pin(central.probe()).await {
            Ok(true) => Finding::ok(format!("{} lets us deliver", central.name())),
            Ok(false) => Finding::warn(
                format!("{} can be reached; its schema is not there or older", central.name()),
                "nothing, where this box may make it: the first delivery does; else see \
                 docs/guide/database.md",
            ),
            Err(error) => refusal(error),
        }
    })
}

pub(super) fn mqtt(scene: &Scene) -> Finding {
    let settings = &scene.settings;
    let broker = match Broker::open(&settings.mqtt, &settings.r#box.name()) {
        Err(error) => return unheard(&error, settings.mqtt.mode),
        Ok(None) => return Finding::skipped("none is configured"),
        Ok(Some(broker)) => broker,
    };
    answered(async {
        match Box::pin(broker.probe()).await {
            Ok(()) => Finding::ok(format!("{} lets us in", broker.place())),
            Err(error) => unheard(&error, settings.mqtt.mode),
        }
    })
}

/// What came of it, within the time for a server.
fn answered(ask: impl Future<Output = Finding>) -> Finding {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Finding::fail(error.to_string(), "free some memory; try again"),
    };
    let asked = runtime.block_on(async { tokio::time::timeout(SERVER, ask).await });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    asked.unwrap_or_else(|_elapsed| {
        Finding::fail(
            format!("no answer within {} s", SERVER.as_secs()),
            "look at the network, at firewalls, and at the address in the configuration",
        )
    })
}

fn refusal(error: impl Into<SyncError>) -> Finding {
    let error: SyncError = error.into();
    let todo = match error.remedy {
        Remedy::Retry => {
            "look at the network, the server and the address in the configuration; results wait \
             here meanwhile, nothing is lost"
        }
        Remedy::GiveUp | Remedy::Stop => {
            "correct what is named; results wait here meanwhile, nothing is lost"
        }
    };
    Finding::fail(error.to_string(), todo)
}

fn unheard(error: &PublishError, mode: publish::Mode) -> Finding {
    let todo = match error.remedy {
        Remedy::Retry => "look at the network, the broker and the address in [mqtt]",
        Remedy::GiveUp | Remedy::Stop => "correct what is named",
    };
    let meanwhile = match mode {
        publish::Mode::Reticle => "what is to be told waits here meanwhile, nothing is lost",
        publish::Mode::Sparkplug => {
            "results are safe here; what happens meanwhile is not told later (Sparkplug)"
        }
    };
    Finding::fail(error.to_string(), format!("{todo}; {meanwhile}"))
}

pub(super) fn port(scene: &Scene) -> Finding {
    let options = &scene.settings.web;
    let address = options.listen;
    let open = web::open_to_network(address);
    let fine = |found: String| match &open {
        None => Finding::ok(found),
        Some(why) => Finding::warn(
            format!("{found}, open to the network without accounts"),
            format!("{why} (docs/runbook.md#open_network)"),
        ),
    };
    match web::bind(options) {
        Ok(_let_go) if open.is_some() => fine(format!("{address} is free")),
        Ok(_let_go) => fine(format!("{address} is free; the page is for this machine alone")),
        Err(WebError::PortInUse(_)) if is_reticle(address) => {
            if scene.running {
                return fine(format!("{address} is held by the running daemon"));
            }
            Finding::fail(
                format!("{address} is held by a Reticle with another data folder"),
                "stop that one, or set another `listen` in [web]",
            )
        }
        Err(WebError::PortInUse(_)) => Finding::fail(
            format!("{address} is held by another program"),
            "`ss -ltnp` shows which; stop it, or set another `listen` in [web]",
        ),
        Err(error) => Finding::fail(error.to_string(), "set `listen` in [web]"),
    }
}

/// Whether a Reticle answers there.
fn is_reticle(mut address: SocketAddr) -> bool {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, NEIGHBOUR)?;
        stream.set_read_timeout(Some(NEIGHBOUR))?;
        stream.set_write_timeout(Some(NEIGHBOUR))?;
        // Our server knows itself by `localhost`, whatever it listens on.
        let request = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(1 << 16).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    // Fields of a status that no other program has together.
    ask().is_ok_and(|answer| {
        answer.contains("\"source_name\"") && answer.contains("\"segment_fps\"")
    })
}
