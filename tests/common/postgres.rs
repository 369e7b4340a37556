//! A PostgreSQL of the test's own: a fresh cluster in a temporary folder, on a free port of
//! loopback, gone when it goes out of scope.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, free_port, wait_at_most};

/// Database that the tests deliver into.
const DATABASE: &str = "lab";

/// Role of a box: may log in and make the schema, and is no superuser.
const ROLE: &str = "box";

/// Password of every role.
const PASSWORD: &str = "open sesame";

/// A running server.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    server: Option<Child>,
}

impl Postgres {
    /// A new cluster with the database `lab` and the role `box`, started.
    pub(crate) fn new() -> Self {
        Self::with_settings(&[])
    }

    /// The same with settings of the server, as `max_connections=6`.
    pub(crate) fn with_settings(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        give_to_owner(folder.path());
        let password = folder.path().join("password");
        #[expect(clippy::disallowed_methods, reason = "a test's file need not last")]
        std::fs::write(&password, PASSWORD).expect("the temporary folder can be written");
        give_to_owner(&password);
        let made = as_owner("initdb")
            .arg("-D")
            .arg(folder.path().join("data"))
            .args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync", "--pwfile"])
            .arg(&password)
            .output()
            .expect("initdb can be started");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut postgres = Self { folder, port: free_port(), settings, server: None };
        postgres.start();
        postgres.run("postgres", &format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"));
        postgres.run("postgres", &format!("CREATE DATABASE {DATABASE}"));
        postgres.psql(&format!("GRANT CREATE ON DATABASE {DATABASE} TO {ROLE}"));
        postgres
    }

    /// Where the role `box` delivers to.
    pub(crate) fn url(&self) -> String {
        self.url_of(ROLE)
    }

    /// The same for another role.
    pub(crate) fn url_of(&self, role: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The password of every role.
    pub(crate) fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Starts the server where it does not run, on the same port with the same data.
    pub(crate) fn start(&mut self) {
        if self.server.is_some() {
            return;
        }
        let log = std::fs::File::options().create(true).append(true).open(self.log_file());
        let log = log.expect("the temporary folder can be written");
        let mut command = as_owner("postgres");
        command.arg("-D").arg(self.folder.path().join("data"));
        command.arg("-p").arg(self.port.to_string());
        // What is to be there after a crash of the machine is no subject of these tests.
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"] {
            command.arg("-c").arg(setting);
        }
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().expect("postgres can be started"));
        let port = self.port.to_string();
        let ready = wait_at_most(PATIENCE, || {
            let asked = Command::new(program("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &port, "-d", "postgres"])
                .status()
                .expect("pg_isready can be started");
            asked.success().then_some(())
        });
        assert!(ready.is_some(), "PostgreSQL does not start; its log:\n{}", self.log());
    }

    /// Ends the server as its administrator does: connections are closed, nothing is lost.
    pub(crate) fn stop(&mut self) {
        self.signal_and_wait(Signal::INT);
    }

    /// Stops and starts it.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// What the server says to `sql` in the database of the tests, asked by its administrator:
    /// one line a row, columns apart by `|`.
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.run(DATABASE, sql)
    }

    /// What the server says to a role, whether it does what is asked or not: with what each
    /// command did (`UPDATE 4`).
    pub(crate) fn psql_as(&self, role: &str, sql: &str) -> String {
        let answer = self.client(role, DATABASE).args(["-c", sql]).output();
        let answer = answer.expect("psql can be started");
        let [out, error] =
            [&answer.stdout, &answer.stderr].map(|text| String::from_utf8_lossy(text));
        format!("{out}{error}")
    }

    fn client(&self, role: &str, database: &str) -> Command {
        let mut command = Command::new(program("psql"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", role]);
        command.args(["-d", database, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        command.env("PGPASSWORD", PASSWORD).env("PGTZ", "UTC").stdin(Stdio::null());
        command
    }

    fn run(&self, database: &str, sql: &str) -> String {
        let answer = self
            .client("postgres", database)
            .args(["-q", "-c", sql])
            .output()
            .expect("psql can be started");
        let error = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success(), "{sql}\n{error}\nthe server's log:\n{}", self.log());
        String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn signal_and_wait(&mut self, signal: Signal) {
        let Some(mut server) = self.server.take() else { return };
        let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the kernel gives positive process ids");
        // Fails only where it has ended already, which is what is wanted.
        kill_process(pid, signal).ok();
        let ended = wait_at_most(PATIENCE, || server.try_wait().expect("a child can be asked"));
        if ended.is_none() {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.signal_and_wait(Signal::QUIT);
        if std::thread::panicking() {
            eprintln!("PostgreSQL's log:\n{}", self.log());
        }
    }
}

/// A program of the newest PostgreSQL that is installed. Debian keeps the server's out of `PATH`.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest =
        versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    match newest {
        Some(version) => PathBuf::from(format!("/usr/lib/postgresql/{version}/bin/{name}")),
        None => PathBuf::from(name),
    }
}

/// The same, to be started as somebody whom the server accepts: it refuses root, so that root
/// becomes `postgres`. Should a test be killed, the server ends with the thread that started it.
fn as_owner(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.arg("--").arg(program(name)).current_dir("/");
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes a file or folder the server's, which reads no keys that are somebody else's.
pub(crate) fn give_to_owner(path: &Path) {
    if !is_root() {
        return;
    }
    let given = Command::new("chown").arg("postgres:").arg(path).status();
    let given = given.expect("chown can be started");
    assert!(given.success(), "there is no user postgres: install Debian's postgresql-15");
}
