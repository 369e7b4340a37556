//! What the system tests share: where the real images are, the program under test, and a
//! daemon that is started, watched and taken down again.
//!
//! Nothing here waits a fixed time. A test waits for a fact ([`wait_for`]) and fails with the
//! daemon's own log when the fact does not come.

#![allow(dead_code, reason = "every test binary uses its own part of this module")]

pub(crate) mod fault_proxy;
pub(crate) mod lab;
pub(crate) mod mosquitto;
pub(crate) mod postgres;
pub(crate) mod s3_server;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a daemon may take to answer, and a fact to come true. Far above what is usual, so
/// that a busy machine does not fail a sound program.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of real images: `RETICLE_DATA`, or `../shared/data` beside the repository.
/// `None`, said on stderr, where there is none: the test then returns early.
pub(crate) fn data_dir() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("RETICLE_DATA").filter(|named| !named.is_empty());
    let folder = named.map_or_else(|| root.join("../shared/data"), |named| root.join(named));
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: RETICLE_DATA names no folder of images ({} is none)", folder.display());
    None
}

/// The program under test, with nothing of the caller's logging in its environment.
pub(crate) fn reticle() -> Command {
    reticle_through(&[])
}

/// The same, started by another program, as `prlimit --nofile=64`, which becomes it.
fn reticle_through(starter: &[String]) -> Command {
    let program = env!("CARGO_BIN_EXE_reticle");
    let mut command = match starter {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.env_remove("RUST_LOG").env_remove("RETICLE_LOG").env("NO_COLOR", "1");
    command.stdin(Stdio::null());
    command
}

/// A port of loopback that was free a moment ago. For a daemon, listening on port 0 is better
/// ([`Daemon`] does); this is for those that must be told a number.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Asks until there is an answer; panics, naming `what`, when there is none in [`PATIENCE`].
pub(crate) fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_at_most(PATIENCE, ask).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Asks until there is an answer or the time is over.
#[expect(clippy::disallowed_methods, reason = "a test's patience is real time")]
pub(crate) fn wait_at_most<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a daemon is to be started with. The data folder is a temporary one unless named.
#[derive(Default)]
pub(crate) struct Start {
    source: Option<String>,
    data: Option<PathBuf>,
    config: Option<PathBuf>,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    starter: Vec<String>,
}

impl Start {
    /// `--source`, for example `virtual` or `folder:PATH`.
    pub(crate) fn source(mut self, spec: impl Into<String>) -> Self {
        self.source = Some(spec.into());
        self
    }

    /// `--data`: a folder of the test's own, which outlives the daemon.
    pub(crate) fn data(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data = Some(folder.into());
        self
    }

    /// `--config`.
    pub(crate) fn config(mut self, file: impl Into<PathBuf>) -> Self {
        self.config = Some(file.into());
        self
    }

    /// Another argument of `reticle run`.
    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// A variable of its environment.
    pub(crate) fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The limit of file descriptors, soft and hard.
    pub(crate) fn descriptors(self, limit: u32) -> Self {
        self.through(&["prlimit", &format!("--nofile={limit}")])
    }

    /// With so much memory at most, as the shell's `ulimit` counts it (`-v` or `-d`): an allocation
    /// that goes beyond it ends the process.
    pub(crate) fn ulimit(self, which: &str, kib: u64) -> Self {
        self.through(&["sh", "-c", &format!("ulimit {which} {kib} && exec \"$0\" \"$@\"")])
    }

    /// Variables of its environment, unless they were named before.
    pub(crate) fn environment(mut self, variables: &[(&str, &str)]) -> Self {
        for (name, value) in variables {
            if self.environment.iter().all(|(known, _)| known != name) {
                self.environment.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        self
    }

    /// The program that starts it and becomes it, with its arguments.
    pub(crate) fn through(mut self, starter: &[&str]) -> Self {
        self.starter = starter.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts the daemon and returns once `/healthz` answers.
    pub(crate) fn start(self) -> Daemon {
        let mut daemon = self.spawn();
        let address = daemon.wait_for_address();
        daemon.base = format!("http://{address}");
        let healthz = daemon.url("/healthz");
        let healthy = wait_at_most(PATIENCE, || ureq::get(&healthz).call().ok());
        assert!(healthy.is_some(), "{healthz} does not answer; the log:\n{}", daemon.log());
        daemon
    }

    /// Starts the daemon and returns at once, for one that is to die.
    pub(crate) fn spawned(self) -> Daemon {
        self.spawn()
    }

    fn spawn(self) -> Daemon {
        let temp = tempfile::tempdir().expect("a temporary folder can be made");
        let data = self.data.unwrap_or_else(|| temp.path().join("data"));
        let config = self.config.unwrap_or_else(|| {
            // Not the machine's own configuration: an empty file is all defaults.
            let empty = temp.path().join("reticle.toml");
            std::fs::File::create(&empty).expect("the temporary folder can be written");
            empty
        });
        let mut command = reticle_through(&self.starter);
        command.arg("run").arg("--config").arg(config).arg("--data").arg(&data);
        command.args(["--listen", "127.0.0.1:0"]);
        if let Some(source) = self.source {
            command.arg("--source").arg(source);
        }
        command.args(self.args).envs(self.environment);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program under test can be started");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(String::new()));
        let lines = follow(stderr, Arc::clone(&log));
        Daemon { child, base: String::new(), data, log, lines, _temp: temp }
    }
}

/// Copies the daemon's stderr into `log` and passes on each address that it says it listens on.
#[expect(clippy::disallowed_methods, reason = "one address a daemon: the channel stays short")]
fn follow(
    stderr: impl std::io::Read + Send + 'static,
    log: Arc<Mutex<String>>,
) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(address) = address_in(&line) {
                // The receiver is gone only when the test is over.
                drop(sender.send(address.to_owned()));
            }
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(log, "{line}").expect("a string can be written");
        }
    });
    receiver
}

/// `127.0.0.1:8080` out of a line that has `listening on http://127.0.0.1:8080` in it.
fn address_in(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("listening on http://")?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
    Some(end.map_or(rest, |end| rest.split_at(end).0))
}

/// A running `reticle run`. Killed when it goes out of scope.
pub(crate) struct Daemon {
    child: Child,
    base: String,
    data: PathBuf,
    log: Arc<Mutex<String>>,
    lines: Receiver<String>,
    _temp: tempfile::TempDir,
}

impl Daemon {
    /// With the source named and everything else by default.
    pub(crate) fn start(source: &str) -> Daemon {
        Start::default().source(source).start()
    }

    fn wait_for_address(&mut self) -> String {
        let address = wait_at_most(PATIENCE, || match self.lines.try_recv() {
            Ok(address) => Some(Some(address)),
            Err(_) => self.child.try_wait().expect("a child can be asked").map(|_| None),
        });
        address.flatten().unwrap_or_else(|| {
            panic!("the daemon does not say that it is listening; its log:\n{}", self.log())
        })
    }

    /// `http://127.0.0.1:PORT` and the path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// The JSON that a GET of the path answers with; panics on anything but success.
    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        self.try_json(path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}; the log:\n{}", self.log()))
    }

    /// The same, for a daemon that may be dying.
    pub(crate) fn try_json(&self, path: &str) -> Result<serde_json::Value, ureq::Error> {
        ureq::get(self.url(path)).call()?.body_mut().read_json()
    }

    /// The bytes that a GET of the path answers with; panics on anything but success.
    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        let answer = ureq::get(self.url(path)).call();
        let body = answer.and_then(|mut answer| answer.body_mut().read_to_vec());
        body.unwrap_or_else(|error| panic!("GET {path}: {error}; the log:\n{}", self.log()))
    }

    /// Everything that the daemon has written to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The log for after its end.
    pub(crate) fn log_to_read(&self) -> impl Fn() -> String + use<> {
        let log = Arc::clone(&self.log);
        move || log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the log has `text` in it.
    pub(crate) fn wait_for_log(&self, text: &str) {
        if wait_at_most(PATIENCE, || self.log().contains(text).then_some(())).is_none() {
            panic!("the log never says {text:?}:\n{}", self.log());
        }
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB, as the kernel counts it.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.kib("VmRSS:")
    }

    fn kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a running process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).expect("it is a number of kB")
    }

    /// What `ulimit -d` counts, in KiB.
    pub(crate) fn data_kib(&self) -> u64 {
        self.kib("VmData:")
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended; waits until it has.
    pub(crate) fn end(mut self) -> ExitStatus {
        let ended = wait_at_most(PATIENCE, || self.child.try_wait().expect("a child can be asked"));
        ended.unwrap_or_else(|| panic!("the daemon does not end:\n{}", self.log()))
    }

    /// How it ended, where it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// Waits until it has ended by itself; how it did.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let ended = wait_at_most(PATIENCE, || self.child.try_wait().expect("a child can be asked"));
        ended.unwrap_or_else(|| panic!("the daemon does not end by itself:\n{}", self.log()))
    }

    /// Asks it to end (SIGTERM) and returns how it did.
    pub(crate) fn stop(mut self) -> ExitStatus {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("the kernel gives positive process ids");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .expect("a child can be signalled");
        let ended = wait_at_most(PATIENCE, || self.child.try_wait().expect("a child can be asked"));
        ended.unwrap_or_else(|| panic!("the daemon does not end on SIGTERM:\n{}", self.log()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails only where it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}
