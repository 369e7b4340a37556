//! What can be configured, and why a page cannot be served.

use std::io;
use std::net::SocketAddr;

/// `[web]`: the page and the HTTP API.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Address and port to listen on. Whoever reaches it may watch and command the box, so
    /// the default is this machine alone.
    pub listen: SocketAddr,
    /// Host names under which browsers may call the box, besides `localhost` and addresses
    /// written as numbers: `["scope-3.lab.example"]`. Any other name is refused, so that a
    /// foreign page cannot reach the box through a name it controls. Behind a proxy that speaks
    /// TLS, the address as browsers see it: `["https://scope-3.lab.example"]`.
    pub hosts: Vec<String>,
    /// Connections at a time; fewer where the limit of file descriptors is low. Beyond it the
    /// one that has waited longest for a request is closed.
    #[schemars(range(min = 4, max = 4096))]
    pub max_connections: u32,
    /// Connections at a time from one address. Programs on this machine, a proxy among them,
    /// may have three quarters of all.
    #[schemars(range(min = 1, max = 4096))]
    pub max_connections_per_address: u32,
    /// Longest edge of the image on the live page, in pixels; larger frames are averaged
    /// down for the page (never for segmentation or for the store).
    pub preview_px: u32,
    /// JPEG quality of the live image, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub preview_quality: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            hosts: Vec::new(),
            max_connections: 256,
            max_connections_per_address: 64,
            preview_px: 1536,
            preview_quality: 85,
        }
    }
}

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Somebody else has the port.
    #[error(
        "port {} on {} is already in use, perhaps by another reticle: stop that one, or set \
         `listen` in [web] (or --listen) to a free port",
        .0.port(), .0.ip()
    )]
    PortInUse(SocketAddr),
    /// Any other reason.
    #[error(
        "cannot listen on {address}: {error}; set `listen` in [web] to an address of this machine"
    )]
    CannotListen {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Why a page that listens there is not this machine's own, and what to do; there are no accounts
/// yet. `None` on loopback.
pub fn open_to_network(address: SocketAddr) -> Option<String> {
    let ip = address.ip().to_canonical();
    let from = if ip.is_unspecified() { "every network of this box" } else { "the network" };
    (!ip.is_loopback()).then(|| {
        format!(
            "the page listens on {address}, so whoever reaches it from {from} may watch and command \
             the box, without an account; set `listen` in [web] to 127.0.0.1:{} and let a reverse \
             proxy or an SSH tunnel ask who it is, or let a firewall choose who reaches it",
            address.port()
        )
    })
}
