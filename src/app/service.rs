//! What the service manager (systemd) is told: ready, alive, stopping, and one line of status.
//! Nobody is told anything unless `NOTIFY_SOCKET` names who listens.
//!
//! The messages are those of `sd_notify(3)`; the socket is our own, because the crate reads the
//! environment at every message and knows no abstract addresses, which containers use.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use std::{ffi::OsStr, io};

use sd_notify::NotifyState;

/// How long a manager may be too busy to take what it is told only once.
const PATIENCE: Duration = Duration::from_secs(5);

/// The service manager, if there is one.
pub(super) struct Service(Option<UnixDatagram>);

impl Service {
    /// The one that the environment names.
    pub(super) fn from_environment() -> Self {
        match std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) {
            Some(name) => Self::at(&name),
            None => Self(None),
        }
    }

    /// The one that listens at `name`: a path, or an abstract name after an `@`.
    pub(super) fn at(name: &OsStr) -> Self {
        let socket = connect(name).inspect_err(|error| {
            let socket = name.to_string_lossy();
            tracing::warn!(%error, %socket, "cannot reach the service manager; it may restart us");
        });
        Self(socket.ok())
    }

    /// Nobody.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Everything runs.
    pub(super) fn ready(&self) {
        self.insist(&NotifyState::Ready);
    }

    /// Every stage gets on with its work.
    pub(super) fn alive(&self) {
        self.tell(&NotifyState::Watchdog);
    }

    /// One line for `systemctl status`.
    pub(super) fn status(&self, line: &str) {
        self.tell(&NotifyState::Status(line));
    }

    /// No more frames are taken; what waits is being written.
    pub(super) fn stopping(&self) {
        self.insist(&NotifyState::Stopping);
    }

    /// Told once, so it must arrive: waits for a manager that is busy.
    fn insist(&self, state: &NotifyState<'_>) {
        let Some(socket) = &self.0 else { return };
        let waits = socket.set_nonblocking(false);
        let told = waits.and_then(|()| socket.send(format!("{state}\n").as_bytes()));
        if let Err(error) = told.and_then(|_| socket.set_nonblocking(true)) {
            tracing::warn!(%error, %state, "the service manager does not listen");
        }
    }

    fn tell(&self, state: &NotifyState<'_>) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.send(format!("{state}\n").as_bytes()) {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that takes nothing must not hold the control loop.
    socket.set_nonblocking(true)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}
