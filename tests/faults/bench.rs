//! What a run is made of: the servers, the daemon between its faults, the ledger beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::common::fault_proxy::FaultProxy;
use crate::common::mosquitto::{self, Mosquitto};
use crate::common::postgres::Postgres;
use crate::common::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use crate::common::{Daemon, Start, reticle, wait_at_most, wait_for};
use crate::kind::{Fired, Kind, one_in};
use crate::ledger::Ledger;
use crate::memory::Memory;
use crate::wire::Wire;

/// Where in the bucket the archive is.
pub(crate) const PREFIX: &str = "box-1";

/// How long all that waits may take to be delivered once everything works: longer than the
/// longest pause after a failure.
const DEADLINE: Duration = Duration::from_secs(300);

/// How soon a daemon ends that finds its files gone.
const END: Duration = Duration::from_secs(20);

/// Longest pause while a fault lasts, once it was seen to hit.
const LONGEST_DWELL_MS: u64 = 400;

/// Everything that a run needs, and what it has seen so far.
pub(crate) struct Bench {
    pub(crate) random: ChaCha8Rng,
    pub(crate) fired: Fired,
    pub(crate) ledger: Ledger,
    pub(crate) s3: S3Server,
    pub(crate) s3_proxy: FaultProxy,
    pub(crate) postgres: Postgres,
    pub(crate) wire: Wire,
    /// Sessions that a twin had begun before it was thrown away, and that PostgreSQL has rows of:
    /// `sync adopt` named each.
    pub(crate) gone: BTreeSet<String>,
    /// Where mosquitto is installed.
    pub(crate) broker: Option<Mosquitto>,
    pub(crate) memory: Memory,
    /// The bench's own things: outside of what the daemon may fill or lose.
    pub(crate) folder: PathBuf,
    /// The daemon's data folder.
    pub(crate) data: PathBuf,
    /// Root of the small file system, where the data folder is on one.
    pub(crate) disk: Option<PathBuf>,
    daemon: Option<Daemon>,
}

impl Bench {
    /// All servers and the daemon, running.
    pub(crate) fn start(folder: &Path, disk: Option<PathBuf>, random: ChaCha8Rng) -> Self {
        let data = disk.as_deref().unwrap_or(folder).join("data");
        let s3 = S3Server::start();
        let memory = Memory::begin(&s3.bucket().join(PREFIX));
        let s3_proxy = FaultProxy::start(s3.port());
        // Some for the administrator, few enough that all others can be held.
        let settings = ["max_connections=12", "superuser_reserved_connections=3"];
        let postgres = Postgres::with_settings(&settings);
        let wire = Wire::to(port_of(&postgres.url())).expect("loopback has a port");
        let ledger = Ledger::begin(&folder.join("ledger")).expect("the ledger can be begun");
        let mut bench = Self {
            random,
            fired: Fired::default(),
            ledger,
            s3,
            s3_proxy,
            postgres,
            wire,
            gone: BTreeSet::new(),
            broker: mosquitto::is_installed().then(|| Mosquitto::plain(true)),
            memory,
            folder: folder.to_owned(),
            data,
            disk,
            daemon: None,
        };
        write(&bench.config(), &bench.settings());
        bench.go();
        bench
    }

    /// A small, fast virtual microscope; parts are delivered after a second although not full;
    /// some frames are archived with their pixels.
    fn settings(&self) -> String {
        let central = self.postgres.url();
        let central = central
            .replace(&format!(":{}/", port_of(&central)), &format!(":{}/", self.wire.port()));
        let broker = self.broker.as_ref().map(|broker| {
            format!(
                r#"[mqtt]
url = "{}"
commands = ["start", "stop"]
measurements = "none"
trust_clock = true
"#,
                broker.url()
            )
        });
        let broker = broker.unwrap_or_default();
        format!(
            r#"[box]
site = "bench"
name = "box-1"

[source]
width = 128
height = 128
fps = 15.0

[store]
folder = "{}"

[store.frames]
keep = "every 4"
max_bytes = 8_000_000
min_free_bytes = 0

[sync.archive]
to = "s3://{BUCKET}/{PREFIX}"
endpoint = "{}"
region = "us-east-1"
path_style = true
pixels = "every 8"
max_delay_s = 1

[sync.central]
url = "{central}"

{broker}"#,
            self.data.display(),
            self.s3_proxy.endpoint(),
        )
    }

    fn config(&self) -> PathBuf {
        self.folder.join("reticle.toml")
    }

    /// The box's database.
    pub(crate) fn database(&self) -> PathBuf {
        self.data.join("reticle.db")
    }

    fn environment(&self) -> [(&'static str, &'static str); 3] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("RETICLE_CENTRAL_PASSWORD", self.postgres.password()),
        ]
    }

    /// A verb of the program on this configuration.
    pub(crate) fn reticle(&self, verb: &[&str]) -> Command {
        let mut command = reticle();
        command.args(verb).arg("--config").arg(self.config()).envs(self.environment());
        command
    }

    // ---- The daemon ---------------------------------------------------------------------------

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it runs between two faults")
    }

    /// Starts it.
    pub(crate) fn go(&mut self) {
        self.start_it(Start::default());
    }

    /// Starts it, with more in its environment.
    pub(crate) fn go_with(&mut self, more: &[(&str, &str)]) {
        let start =
            more.iter().fold(Start::default(), |start, (name, value)| start.env(*name, *value));
        self.start_it(start);
    }

    /// Starts it through another program, which becomes it.
    pub(crate) fn go_through(&mut self, starter: &[&str]) {
        self.start_it(Start::default().through(starter));
    }

    fn start_it(&mut self, start: Start) {
        let daemon = self.prepared(start, &self.data).start();
        self.ledger.ask(Some(daemon.url("")));
        self.daemon = Some(daemon);
    }

    /// With this configuration, on another data folder.
    pub(crate) fn twin(&self, data: &Path) -> Daemon {
        self.prepared(Start::default(), data).start()
    }

    fn prepared(&self, start: Start, data: &Path) -> Start {
        let start = start.config(self.config()).data(data);
        // What was said before counts more.
        let environment = self.environment();
        start.environment(&environment)
    }

    /// `kill -9`, at whatever it is doing.
    pub(crate) fn kill(&mut self) {
        let daemon = self.daemon.take().expect("it runs between two faults");
        let ended_itself = daemon.log().contains("everything captured is on disk");
        assert!(!ended_itself, "it was gone before it could be killed:\n{}", daemon.log());
        daemon.kill();
        self.ledger.ask(None);
        self.fired.count(Kind::Kill);
    }

    /// Ends it in order.
    pub(crate) fn end(&mut self) {
        let daemon = self.daemon.take().expect("it runs between two faults");
        assert!(daemon.stop().success(), "the daemon does not end in order");
        self.ledger.ask(None);
    }

    /// Waits until it ends by itself; how, and its log.
    pub(crate) fn wait_for_its_end(&mut self) -> (ExitStatus, String) {
        let mut daemon = self.daemon.take().expect("it runs between two faults");
        let ended = wait_at_most(END, || daemon.ended());
        self.ledger.ask(None);
        let log = daemon.log();
        let ended = ended.unwrap_or_else(|| {
            panic!("the daemon goes on for {END:?} and more, and saves where nobody finds it")
        });
        (ended, log)
    }

    /// Ends it, either way.
    pub(crate) fn end_or_kill(&mut self) {
        if one_in(&mut self.random, 2) { self.kill() } else { self.end() }
    }

    pub(crate) fn status(&self) -> Option<Value> {
        self.daemon().try_json("/api/v1/status").ok()
    }

    /// Whether this alarm is on.
    pub(crate) fn alarm(&self, word: &str) -> bool {
        self.status().is_some_and(|status| has_alarm(&status, word))
    }

    // ---- Time and waiting -----------------------------------------------------------------------

    /// A random while in the middle of a fault; sometimes the daemon is killed in it, too.
    pub(crate) fn dwell(&mut self) {
        self.pause();
        if one_in(&mut self.random, 3) {
            self.kill();
            self.go();
            self.pause();
        }
    }

    /// A random while.
    pub(crate) fn pause(&mut self) {
        let dwell = self.random.random_range(0..LONGEST_DWELL_MS);
        std::thread::sleep(Duration::from_millis(dwell));
    }

    /// Asks the daemon to deliver everything now, as a person does who has mended something, and
    /// waits for a fact.
    pub(crate) fn deliver_until(&self, what: &str, fact: impl Fn(&Self) -> bool) {
        let mut asking = Asking::new(self);
        wait_for(what, || {
            asking.go_on(self);
            fact(self).then_some(())
        });
    }

    /// Ends capture, lets everything arrive, and the ledger be told of all of it.
    pub(crate) fn settle(&self) {
        let stop = ureq::post(self.daemon().url("/api/v1/commands/stop")).send_empty();
        stop.expect("the daemon takes commands");
        wait_for("capture to end", || {
            self.status().filter(|status| status["run"] == "stopped").map(drop)
        });
        let mut asking = Asking::new(self);
        let empty = wait_at_most(DEADLINE, || {
            asking.go_on(self);
            self.all_delivered().then_some(())
        });
        let last = self.report(&["sync", "status", "--json"]).1;
        assert!(empty.is_some(), "not everything arrives in {DEADLINE:?}: {last:#}");
        wait_for("the ledger to be told of all results", || {
            let totals = self.daemon().json("/api/v1/totals");
            (totals["segmentations"].as_u64() == Some(self.ledger.noted())).then_some(())
        });
    }

    /// Whether nothing waits any more. What was refused for ever will never arrive.
    fn all_delivered(&self) -> bool {
        let (success, status) = self.report(&["sync", "status", "--json"]);
        assert!(success, "{status:#}");
        let destinations = status["destinations"].as_array().expect("a list of destinations");
        assert_eq!(destinations.len(), 2, "{status:#}");
        let sum = |key: &str| -> u64 {
            destinations.iter().map(|one| one[key].as_u64().expect("a count")).sum()
        };
        if sum("quarantined") + sum("refused") > 0 {
            let (_, why) = self.report(&["outbox", "quarantine", "--json"]);
            panic!("given up: {why:#}");
        }
        sum("waiting") == 0
    }

    /// What a verb answers in JSON, and whether it ended well.
    pub(crate) fn report(&self, verb: &[&str]) -> (bool, Value) {
        let output = self.reticle(verb).output().expect("the program can be started");
        let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let words = String::from_utf8_lossy(&output.stderr);
            panic!("reticle {}: no JSON ({error}); {words}", verb.join(" "))
        });
        (output.status.success(), answer)
    }

    /// Deliveries get through to the archive again.
    pub(crate) fn archive_again(&self) {
        let passed = |bench: &Self| bench.s3_proxy.fired(crate::common::fault_proxy::Fault::Pass);
        let before = passed(self);
        self.deliver_until("the archive to be asked again", |bench| passed(bench) > before);
    }

    /// Deliveries get through to PostgreSQL again.
    pub(crate) fn central_again(&self) {
        let before = self.wire.carried();
        self.deliver_until("PostgreSQL to be asked again", |bench| bench.wire.carried() > before);
    }
}

/// `reticle sync drain` beside a running daemon. It waits until nothing is left, which is never
/// while frames are captured: killed when it goes out of scope.
struct Asking(Child);

impl Asking {
    fn new(bench: &Bench) -> Self {
        let mut command = bench.reticle(&["sync", "drain"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("the program under test can be started"))
    }

    /// Asks again where it ended.
    fn go_on(&mut self, bench: &Bench) {
        if self.0.try_wait().expect("a child can be asked").is_some() {
            *self = Self::new(bench);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Fails only where it has ended already, which is what is wanted.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Whether an alarm is on in a status.
pub(crate) fn has_alarm(status: &Value, word: &str) -> bool {
    status["alarms"]
        .as_array()
        .is_some_and(|alarms| alarms.iter().any(|alarm| alarm["kind"] == word))
}

/// The port of a `postgresql://` address.
pub(crate) fn port_of(url: &str) -> u16 {
    let (host, _) = url.rsplit_once('/').expect("names a database");
    let (_, port) = host.rsplit_once(':').expect("names a port");
    port.parse().expect("a port is a number")
}

/// A file that need not survive.
#[expect(clippy::disallowed_methods, reason = "a test's file need not survive")]
pub(crate) fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the bench's folder can be written");
}
