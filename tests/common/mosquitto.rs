//! A mosquitto of the test's own on a free port of loopback, and its `mosquitto_sub` as a client
//! that we did not write. Both are gone when they go out of scope.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::{PATIENCE, free_port, wait_at_most};

/// Whether Debian's mosquitto is there; said on stderr where it is not.
pub(crate) fn is_installed() -> bool {
    let installed = Command::new("mosquitto").arg("-h").stdout(Stdio::null()).status().is_ok();
    if !installed {
        eprintln!("skipped: mosquitto is not installed (mosquitto, mosquitto-clients)");
    }
    installed
}

/// A broker.
pub(crate) struct Mosquitto {
    folder: tempfile::TempDir,
    port: u16,
    secure: bool,
    server: Option<Child>,
}

impl Mosquitto {
    /// Plain and open to all. `persistent` is whether it remembers over a restart.
    pub(crate) fn plain(persistent: bool) -> Self {
        Self::new(false, persistent, "allow_anonymous true\n")
    }

    /// With TLS, the users `box` (password `pw-box`) and `lab` (`pw-lab`), and this ACL.
    pub(crate) fn secure(acl: &str) -> Self {
        let own = |folder: &Path| {
            certificates(folder);
            let passwords = folder.join("passwords");
            write(&passwords, "");
            for user in ["box", "lab"] {
                let mut command = Command::new("mosquitto_passwd");
                command.arg("-b").arg(&passwords).args([user, &format!("pw-{user}")]);
                run(&mut command);
            }
            write(&folder.join("acl"), acl);
        };
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        own(folder.path());
        let at = folder.path().display();
        let settings = format!(
            "cafile {at}/ca.crt\ncertfile {at}/server.crt\nkeyfile {at}/server.key\n\
             allow_anonymous false\npassword_file {at}/passwords\nacl_file {at}/acl\n"
        );
        Self::in_folder(folder, true, true, &settings)
    }

    fn new(secure: bool, persistent: bool, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self::in_folder(folder, secure, persistent, settings)
    }

    fn in_folder(
        folder: tempfile::TempDir,
        secure: bool,
        persistent: bool,
        settings: &str,
    ) -> Self {
        let port = free_port();
        let at = folder.path().display();
        // As root mosquitto becomes another user, who could not read the folder.
        let mut text = format!(
            "listener {port} 127.0.0.1\n{settings}user root\nmax_queued_messages 0\n\
             queue_qos0_messages true\n"
        );
        if persistent {
            // Written at once: a killed broker has forgotten nothing that it acknowledged.
            write!(
                text,
                "persistence true\npersistence_location {at}/\nautosave_interval 1\n\
                 autosave_on_changes true\n"
            )
            .expect("a string can be written");
        }
        write(&folder.path().join("mosquitto.conf"), &text);
        let mut broker = Self { folder, port, secure, server: None };
        broker.start();
        broker
    }

    /// Starts it, and returns once it answers.
    pub(crate) fn start(&mut self) {
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto can be started");
        self.server = Some(child);
        let port = self.port;
        let there =
            wait_at_most(PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        assert!(there.is_some(), "mosquitto does not listen");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("a child can be killed");
            server.wait().expect("a killed child can be waited for");
        }
    }

    /// Asks it to end, so that it writes down what it knows.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = i32::try_from(server.id()).ok().and_then(rustix::process::Pid::from_raw);
            let pid = pid.expect("the kernel gives positive process ids");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .expect("a child can be signalled");
            server.wait().expect("a child can be waited for");
        }
    }

    /// For `mqtt.url`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.secure { "mqtts" } else { "mqtt" };
        format!("{scheme}://localhost:{}", self.port)
    }

    /// Certificate of its CA.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "localhost", "-V", "mqttv5", "-p", &self.port.to_string()]);
        if self.secure {
            command.arg("--cafile").arg(self.ca()).args(["-u", "lab", "-P", "pw-lab"]);
        }
        command
    }

    /// Sends one message with mosquitto_pub, QoS 1.
    pub(crate) fn say(&self, topic: &str, payload: &str) {
        run(self.client("mosquitto_pub").args(["-q", "1", "-t", topic, "-m", payload]));
    }

    /// The same with properties of MQTT 5 and other options, as `["-D", "publish", "response-topic", "a"]`.
    pub(crate) fn say_with(&self, topic: &str, payload: &str, options: &[&str]) {
        let mut client = self.client("mosquitto_pub");
        run(client.args(["-q", "1", "-t", topic, "-m", payload]).args(options));
    }

    /// Sends bytes with mosquitto_pub, QoS 0.
    pub(crate) fn say_bytes(&self, topic: &str, payload: &[u8]) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        #[expect(clippy::disallowed_methods, reason = "a test's file need not last")]
        std::fs::write(file.path(), payload).expect("the temporary file can be written");
        run(self.client("mosquitto_pub").args(["-t", topic, "-f"]).arg(file.path()));
    }

    /// Connects under another client's name, without its session: the broker throws the other one
    /// out, and forgets what was on its way to and from it.
    pub(crate) fn take_over(&self, client_id: &str) {
        run(self.client("mosquitto_pub").args(["-i", client_id, "-t", "lab/taken", "-m", ""]));
    }

    /// Listens with a session that outlives the broker's restarts.
    pub(crate) fn listen(&self, filter: &str) -> Listener {
        self.listen_as("listener", filter, "%p")
    }

    /// The same for payloads that are no text: they are told in hex.
    pub(crate) fn listen_in_hex(&self, filter: &str) -> Listener {
        self.listen_as("listener-in-hex", filter, "%x")
    }

    fn listen_as(&self, name: &str, filter: &str, payload: &str) -> Listener {
        let mut command = self.client("mosquitto_sub");
        command.args(["-i", name, "-c", "-x", "86400", "-q", "1", "-t", filter]);
        command.args(["-F", &format!("%t\t%r\t%q\t{payload}")]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub can be started");
        let stdout = child.stdout.take().expect("stdout is piped");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&heard);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut parts = line.splitn(4, '\t');
                let mut next = || parts.next().unwrap_or_default().to_owned();
                let (topic, retained, qos, payload) = (next(), next() == "1", next(), next());
                let message = Message { topic, retained, qos, payload };
                into.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
        });
        Listener { child, heard }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What was heard.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) retained: bool,
    /// `0` or `1`.
    pub(crate) qos: String,
    pub(crate) payload: String,
}

impl Message {
    /// The payload as JSON; panics where it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A running mosquitto_sub.
pub(crate) struct Listener {
    child: Child,
    heard: Arc<Mutex<Vec<Message>>>,
}

impl Listener {
    /// Everything so far.
    pub(crate) fn heard(&self) -> Vec<Message> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was heard under topics that end so.
    pub(crate) fn under(&self, end: &str) -> Vec<Message> {
        self.heard().into_iter().filter(|message| message.topic.ends_with(end)).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's file need not last")]
fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("the temporary folder can be written");
}

fn run(command: &mut Command) {
    let output = command.output().expect("a program can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// A CA, and a certificate for localhost.
fn certificates(folder: &Path) {
    let openssl = |args: &str| {
        run(Command::new("openssl").current_dir(folder).args(args.split(' ')));
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt \
         -days 2 -subj /CN=test-ca",
    );
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key \
         -out server.csr -subj /CN=localhost",
    );
    write(
        &folder.join("san.ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n\
         extendedKeyUsage=serverAuth\n",
    );
    openssl(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
         -extfile san.ext -out server.crt",
    );
}
