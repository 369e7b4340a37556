//! The command line's way in: the same routes, over a Unix socket in the data folder.
//!
//! 1. Only the user that runs the daemon, and root, can open the socket: its mode is 0600 before it
//!    has its name. The kernel says who called (`SO_PEERCRED`), and that user is the actor.
//! 2. No page in a browser can reach it, so neither Host nor Origin is looked at.
//! 3. The socket of an earlier process is replaced. One that is left behind answers nobody; whether a
//!    daemon has the folder, its lock says.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::server::LONGEST_HEADER;
use reticle_domain::actor::Actor;

/// Name of the socket in the data folder.
const NAME: &str = "reticle.sock";

/// Connections at a time; the others wait in the kernel. A command line has one.
const MOST: usize = 16;

/// How long a connection may be without a whole request.
const HEADER: Duration = Duration::from_secs(30);

/// A file in a folder, by a path that is short however long that of the folder is: the name of a
/// socket has 107 bytes at most. It is good while the folder is open.
struct Within {
    folder: File,
}

impl Within {
    fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { folder: File::open(folder)? })
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }
}

/// Takes the socket of a data folder, which must be this process' own.
///
/// # Errors
/// When the folder's file system has no sockets, or cannot be written.
pub fn bind(folder: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let within = Within::open(folder)?;
    let new = within.path("reticle.sock.tmp");
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = std::os::unix::net::UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, within.path(NAME))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Calls the daemon of a data folder.
///
/// # Errors
/// When nobody answers there, or this user may not call.
pub fn connect(folder: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    std::os::unix::net::UnixStream::connect(Within::open(folder)?.path(NAME))
}

/// What it takes to serve.
pub(super) struct Local {
    pub(super) listener: UnixListener,
    pub(super) routes: Router,
    /// Turns true when the daemon stops.
    pub(super) stop: watch::Receiver<bool>,
}

impl Local {
    /// Serves until it is to stop. What is still answered then is broken off: everything that could
    /// be waited for has ended before the page does.
    pub(super) async fn run(mut self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = super::shared::stopped(&mut self.stop) => return,
                taken = self.listener.accept(), if connections.len() < MOST => match taken {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, self.routes.clone()));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a call of the command line was not taken");
                        tokio::time::sleep(super::server::BACK_OFF).await;
                    }
                },
                Some(ended) = connections.join_next() => super::server::note(ended),
            }
        }
    }
}

async fn serve(stream: UnixStream, routes: Router) {
    let actor = match stream.peer_cred() {
        Ok(peer) => Actor::User { uid: peer.uid() },
        Err(error) => {
            tracing::warn!(%error, "the kernel does not say who calls; the call is not answered");
            return;
        }
    };
    let routes = TowerToHyperService::new(routes);
    let answer = |mut request: Request<Incoming>| {
        request.extensions_mut().insert(actor.clone());
        routes.call(request)
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LONGEST_HEADER).timer(TokioTimer::new()).header_read_timeout(HEADER);
    let connection = builder.serve_connection(TokioIo::new(stream), service_fn(answer));
    if let Err(error) = connection.with_upgrades().await {
        tracing::debug!(%error, "a call of the command line broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_long_path_has_a_socket_that_its_owner_alone_may_open() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a".repeat(200));
        fs::create_dir(&deep).unwrap();
        let listener = bind(&deep).unwrap();
        let mode = fs::metadata(deep.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(connect(&deep).is_ok());
        // As a process leaves it that is killed.
        drop(listener);
        let refused = connect(&deep).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _next = bind(&deep).unwrap();
        assert!(connect(&deep).is_ok(), "the next process answers");
    }

    #[test]
    fn a_planted_link_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("precious");
        File::create(&target).unwrap();
        for name in [NAME, "reticle.sock.tmp"] {
            std::os::unix::fs::symlink(&target, folder.path().join(name)).unwrap();
        }
        let _listener = bind(folder.path()).unwrap();
        assert!(connect(folder.path()).is_ok());
        assert!(fs::metadata(&target).unwrap().is_file());
    }
}
