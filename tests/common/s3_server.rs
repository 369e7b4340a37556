//! A real S3 server for tests: `s3s-fs`, which checks signatures and checksums, and keeps the
//! objects of a bucket as files of a folder.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{free_port, wait_for};

/// Access key that the server knows.
pub(crate) const ACCESS_KEY: &str = "reticle-test";

/// Its secret.
pub(crate) const SECRET_KEY: &str = "a-secret-of-the-tests";

/// The bucket that is there from the start.
pub(crate) const BUCKET: &str = "lab";

/// A running server on a port of loopback, with an empty bucket. Killed when it goes out of
/// scope, and its folder with it.
pub(crate) struct S3Server {
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl S3Server {
    /// Starts one and returns once it takes connections.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("the folder can be written");
        let mut server = Self { folder, port: free_port(), process: None };
        server.restart();
        server
    }

    /// Starts it again after [`S3Server::kill`], on the same port, with what it held.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(program());
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
        command.arg(self.folder.path()).env("RUST_LOG", "error");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let process = command.spawn().unwrap_or_else(|error| {
            panic!("s3s-fs cannot be started ({error}); scripts/setup test installs it")
        });
        self.process = Some(process);
        wait_for("s3s-fs to take connections", || {
            let process = self.process.as_mut().expect("it was started above");
            let ended = process.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "s3s-fs ended: {ended:?}");
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()
        });
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Fails only where it has ended already, which is what is wanted.
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The folder with the objects of [`BUCKET`].
    pub(crate) fn bucket(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// The folder that the server keeps everything in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `s3s-fs` of the PATH, which `scripts/test` sets, or else where `scripts/setup` puts it.
fn program() -> PathBuf {
    let name = "s3s-fs";
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    let tools = cache.map(|cache| cache.join("reticle/tools/bin"));
    std::env::split_paths(&paths)
        .chain(tools)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}
