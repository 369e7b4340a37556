//! Where the central database is, and the one connection to it.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::error::SyncError;
use super::super::options::CentralOptions;
use super::fault::{Failure, within};
use super::tls::{self, SslMode};
use reticle_domain::facts::BoxName;

/// How long logging in may take, with name, TCP, TLS and password.
const CONNECT: Duration = Duration::from_secs(15);

/// How long one step may be without an answer. A batch takes a fraction of a second.
pub(super) const STEP: Duration = Duration::from_secs(30);

/// The same for what reads a whole session or builds the schema.
pub(super) const LONG_STEP: Duration = Duration::from_secs(300);

/// How long the good-bye may take.
const CLOSE: Duration = Duration::from_secs(2);

/// A server that is gone without a word is noticed after 10 + 3 × 5 s, whether we wait for it
/// (keep-alive) or send to it (user timeout).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(25);

/// What a connection is told first.
///
/// The time limits are for the server's side: when this box is cut off, its transaction must not
/// hold locks, nor its connection one of `max_connections`, until somebody notices. COPY waits
/// for this box's uplink, so that the limit of a statement is the long one.
/// Where the server is set not to wait for its disk, this connection waits all the same: what
/// was delivered is marked so on the box.
const SETTINGS: &str = "
    SET search_path = pg_catalog;
    SET TimeZone = 'UTC';
    SET statement_timeout = '300s';
    SET lock_timeout = '20s';
    SET idle_in_transaction_session_timeout = '60s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SELECT set_config('client_connection_check_interval', '10s', false)
        FROM pg_settings WHERE name = 'client_connection_check_interval';
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') = 'off';
";

/// Everything that is needed to connect.
pub(super) struct Target {
    config: Config,
    tls: MakeRustlsConnect,
    name: String,
}

impl Target {
    /// From the settings and the password, where there is one.
    ///
    /// # Errors
    /// [`SyncError::stop`] that names the key at fault.
    pub(super) fn new(
        url: &str,
        options: &CentralOptions,
        password: Option<String>,
        box_name: &BoxName,
    ) -> Result<Self, SyncError> {
        let wrong = |why: String| SyncError::stop("sync.central.url", why);
        if !["postgresql://", "postgres://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(wrong("it must be like postgresql://user@host:5432/database".to_owned()));
        }
        let (url, mode) = take_sslmode(url);
        let password_in_it = || {
            wrong(
                "it holds a password, which many could read here; take it out and give it in \
                 RETICLE_CENTRAL_PASSWORD or as the systemd credential central-password"
                    .to_owned(),
            )
        };
        let mut config: Config = match url.parse() {
            Ok(config) => config,
            // Where it breaks off is not named: a part of the password may stand there.
            Err(_) if holds_password(&url) => return Err(password_in_it()),
            Err(error) => {
                let why = std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string);
                return Err(wrong(format!(
                    "{why}; it must be like postgresql://user@host:5432/database"
                )));
            }
        };
        if config.get_password().is_some() {
            return Err(password_in_it());
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong("it names no host".to_owned()));
        }
        if config.get_dbname().is_none() {
            return Err(wrong("it names no database, as in …@host:5432/database".to_owned()));
        }
        let ca_file = options.ca_file.as_deref();
        let mode = decide(mode.as_deref(), ca_file, &config).map_err(wrong)?;
        let tls = tls::client_config(mode, ca_file)
            .map_err(|why| SyncError::stop("sync.central.ca_file", why))?;
        if let Some(password) = password {
            config.password(password);
        }
        if config.get_application_name().is_none() {
            config.application_name(format!("reticle {}/{}", box_name.site, box_name.name));
        }
        config
            .ssl_mode(mode.driver())
            .connect_timeout(CONNECT)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(USER_TIMEOUT);
        let name = name_of(&config);
        Ok(Self { config, tls: MakeRustlsConnect::new(tls), name })
    }

    /// `postgresql://host:port/database`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Logs in.
    pub(super) async fn connect(&self) -> Result<Link, Failure> {
        let connecting = self.config.connect(self.tls.clone());
        let (client, connection) = within(CONNECT, "connect", connecting).await?;
        let mut carrier = JoinSet::new();
        carrier.spawn(connection);
        let link = Link { client, carrier };
        within(STEP, "set up the connection", link.client.batch_execute(SETTINGS)).await?;
        Ok(link)
    }
}

/// An open connection. When it is dropped its task is aborted and its socket closed.
pub(super) struct Link {
    pub(super) client: Client,
    carrier: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Link {
    /// Says good-bye, so that the server frees the connection at once, and returns what ended it
    /// if it had ended already.
    pub(super) async fn close(self) -> Option<tokio_postgres::Error> {
        let Self { client, mut carrier } = self;
        drop(client);
        let ended = tokio::time::timeout(CLOSE, carrier.join_next()).await;
        ended.ok().flatten().and_then(Result::ok).and_then(Result::err)
    }

    /// Whether it has ended below us.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

/// Whether a password may stand before the last `@`, for a URL that cannot be taken apart.
fn holds_password(url: &str) -> bool {
    let login = url.rsplit_once('@').map_or("", |(login, _)| login);
    login.split_once("://").is_some_and(|(_, login)| login.contains([':', '/', '?', '#']))
}

/// Takes `sslmode` out of the URL, because the driver does not know all of its values.
fn take_sslmode(url: &str) -> (String, Option<String>) {
    let Some((address, query)) = url.split_once('?') else {
        return (url.to_owned(), None);
    };
    let mut mode = None;
    let mut others = Vec::new();
    for pair in query.split('&') {
        match pair.strip_prefix("sslmode=") {
            Some(value) => mode = Some(value.to_owned()),
            None => others.push(pair),
        }
    }
    let separator = if others.is_empty() { "" } else { "?" };
    (format!("{address}{separator}{}", others.join("&")), mode)
}

/// The mode that is meant. Where the URL says nothing: the whole check, except on this machine.
fn decide(said: Option<&str>, ca_file: Option<&Path>, config: &Config) -> Result<SslMode, String> {
    let said = said.map(SslMode::parse).transpose()?;
    match (said, ca_file) {
        (Some(SslMode::Disable | SslMode::Prefer), Some(_)) => Err(
            "its sslmode has no use for sync.central.ca_file; say verify-full, or leave one of \
             them out"
                .to_owned(),
        ),
        // As libpq does: a CA that is named is meant to be asked.
        (_, Some(_)) => Ok(SslMode::VerifyFull),
        (Some(mode), None) => Ok(mode),
        (None, None) if is_here(config) => Ok(SslMode::Prefer),
        (None, None) => Ok(SslMode::VerifyFull),
    }
}

/// Whether the server is on this machine, so that nobody is in between.
fn is_here(config: &Config) -> bool {
    let by_name = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
        Host::Unix(_) => true,
    });
    by_name && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

fn name_of(config: &Config) -> String {
    let mut hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        })
        .collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    let ports = config.get_ports();
    let with_ports: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            format!("{host}:{port}")
        })
        .collect();
    let database = config.get_dbname().unwrap_or_default();
    format!("postgresql://{}/{database}", with_ports.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::remedy::Remedy;

    fn target(url: &str) -> Result<Target, SyncError> {
        let box_name = BoxName { site: "lab".to_owned(), name: "box-1".to_owned() };
        Target::new(url, &CentralOptions::default(), Some("secret".to_owned()), &box_name)
    }

    fn refusal(url: &str) -> String {
        let error = target(url).err().expect("the URL is refused");
        assert_eq!(error.remedy, Remedy::Stop);
        error.to_string()
    }

    #[test]
    fn the_name_has_neither_user_nor_password() {
        let name = |url| target(url).unwrap().name().to_owned();
        assert_eq!(
            name("postgresql://box@127.0.0.1:5433/lab?sslmode=require"),
            "postgresql://127.0.0.1:5433/lab"
        );
        assert_eq!(
            name("postgres://box@a,[::1]:5433/lab?sslmode=require&target_session_attrs=read-write"),
            "postgresql://a:5432,[::1]:5433/lab"
        );
        let shown = format!("{:?}", target("postgresql://box@localhost/lab").unwrap().config);
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_by_its_key() {
        for (url, why) in [
            ("mysql://box@host/lab", "must be like postgresql://"),
            ("host=db user=box dbname=lab", "must be like postgresql://"),
            ("postgresql://box@host", "names no database"),
            ("postgresql:///lab", "names no host"),
            ("postgresql://box@host:many/lab", "invalid value for option `port`"),
            ("postgresql://box:secret@host/lab", "it holds a password"),
            ("postgresql://box@host/lab?sslmode=verify-ca", "say verify-full"),
            ("postgresql://box@host/lab?sslrootcert=ca.pem", "unknown option `sslrootcert`"),
        ] {
            let text = refusal(url);
            assert!(text.starts_with("sync.central.url: "), "{text}");
            assert!(text.contains(why), "{url}: {text}");
            assert!(!text.contains("secret@"), "{text}");
        }
    }

    #[test]
    fn no_part_of_a_password_is_named_however_the_url_breaks() {
        for url in [
            "postgresql://box:hush@host/lab",
            "postgresql://box:hush?hush=1@host/lab",
            "postgresql://box:x?hush@host/lab",
            "postgresql://box:x/hush@host/lab",
            "postgresql://box:x#hush@host/lab",
            "postgresql://box:%zzhush@host/lab",
            "postgresql://box@host:hush@lab/lab",
            "postgresql://host/lab?user=box&password=hush",
            "postgres:/box:hush@host/lab",
            "host=db user=box password=hush dbname=lab",
        ] {
            let text = refusal(url);
            assert!(!text.contains("hush"), "{url}: {text}");
        }
    }

    #[test]
    fn who_answers_is_checked_unless_it_is_this_machine_or_the_url_says_otherwise() {
        let mode = |url: &str, ca: Option<&str>| {
            let (url, said) = take_sslmode(url);
            decide(said.as_deref(), ca.map(Path::new), &url.parse().unwrap())
        };
        let all = SslMode::VerifyFull;
        for (url, ca, expected) in [
            ("postgresql://box@db.lab/lab", None, all),
            ("postgresql://box@192.168.1.5/lab", None, all),
            ("postgresql://box@localhost,db.lab/lab", None, all),
            ("postgresql://box@localhost/lab", None, SslMode::Prefer),
            ("postgresql://box@127.0.0.1/lab", None, SslMode::Prefer),
            ("postgresql://box@[::1]/lab", None, SslMode::Prefer),
            ("postgresql://box@%2Frun%2Fpostgresql/lab", None, SslMode::Prefer),
            ("postgresql://box@localhost/lab", Some("ca.pem"), all),
            ("postgresql://box@db.lab/lab?sslmode=require", Some("ca.pem"), all),
            ("postgresql://box@db.lab/lab?sslmode=require", None, SslMode::Require),
            ("postgresql://box@db.lab/lab?sslmode=disable", None, SslMode::Disable),
        ] {
            assert_eq!(mode(url, ca), Ok(expected), "{url} {ca:?}");
        }
        let error = mode("postgresql://box@db.lab/lab?sslmode=disable", Some("ca.pem"));
        assert!(error.unwrap_err().contains("sync.central.ca_file"));
    }
}
