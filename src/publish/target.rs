//! Where the broker is, and how this box shows itself there.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::error::PublishError;
use super::options::{Mode, Options};
use reticle_base::foreign_file::{self, SMALL_BYTES};
use reticle_domain::facts::BoxName;

/// Environment variable with the password.
pub const PASSWORD_VARIABLE: &str = "RETICLE_MQTT_PASSWORD";

/// Name of the systemd credential with the password, where the variable is not set.
pub const PASSWORD_CREDENTIAL: &str = "mqtt-password";

/// Longest message that is read, bytes: commands are short.
const LONGEST: u32 = 64 * 1024;

/// Packet ids in use; more than messages that are on their way.
const PACKET_IDS: u16 = 100;

/// How long connecting may take, with name, TCP, TLS and CONNACK, seconds.
const CONNECT_S: u64 = 10;

/// Everything that is needed to connect.
#[derive(Clone)]
pub(super) struct Target {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    client_id: String,
    credentials: Option<(String, String)>,
    keep_alive: Duration,
    /// Zero where no session outlives its connection.
    session_expiry_s: u32,
    clean: bool,
}

impl Target {
    /// # Errors
    /// Names the key at fault.
    pub(super) fn of(
        url: &str,
        options: &Options,
        box_name: &BoxName,
        password: Option<String>,
    ) -> Result<Self, PublishError> {
        let (encrypted, host, port) = parse(url).map_err(|why| wrong("mqtt.url", why))?;
        let tls = if encrypted {
            Some(Arc::new(client_config(options)?))
        } else {
            let files = [
                ("mqtt.ca_file", &options.ca_file),
                ("mqtt.cert_file", &options.cert_file),
                ("mqtt.key_file", &options.key_file),
            ];
            if let Some((key, _)) = files.into_iter().find(|(_, file)| file.is_some()) {
                return Err(wrong(key, "is for mqtts://, and mqtt.url is not encrypted"));
            }
            None
        };
        if !(5..=600).contains(&options.keep_alive_s) {
            return Err(wrong("mqtt.keep_alive_s", "must be 5 to 600"));
        }
        if options.username.is_none() && password.is_some() {
            return Err(wrong("mqtt.username", "is missing, although there is a password"));
        }
        let client_id = match &options.client_id {
            Some(own) if own.trim().is_empty() => {
                return Err(wrong("mqtt.client_id", "is empty; leave it out, or write a name"));
            }
            Some(own) => own.clone(),
            None => format!("reticle-{}-{}", box_name.site, box_name.name),
        };
        let clean = options.mode == Mode::Sparkplug;
        let credentials = options.username.clone().map(|user| (user, password.unwrap_or_default()));
        Ok(Self {
            host,
            port,
            tls,
            client_id,
            credentials,
            keep_alive: Duration::from_secs(options.keep_alive_s.into()),
            // Sparkplug asks for both: its host believes only what was said after the last birth.
            session_expiry_s: if clean { 0 } else { options.session_expiry_s },
            clean,
        })
    }

    /// `mqtts://host:8883`.
    pub(super) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Name of this box at the broker.
    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn keep_alive(&self) -> Duration {
        self.keep_alive
    }

    /// For the feed: its session outlives the connection, but for that of Sparkplug.
    pub(super) fn options(&self, will: Option<LastWill>) -> MqttOptions {
        let mut options = self.base(self.client_id.clone(), self.session_expiry_s);
        options.set_clean_start(self.clean);
        if let Some(will) = will {
            options.set_last_will(will);
        }
        options
    }

    /// For a look whether one is let in, beside a daemon that is.
    pub(super) fn probe_options(&self) -> MqttOptions {
        let mut options = self.base(format!("{}-check", self.client_id), 0);
        options.set_clean_start(true);
        options
    }

    fn base(&self, client_id: String, expiry_s: u32) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, self.host.clone(), self.port);
        if let Some(tls) = &self.tls {
            let tls = TlsConfiguration::Rustls(Arc::clone(tls));
            options.set_transport(Transport::tls_with_config(tls));
        }
        if let Some((user, password)) = &self.credentials {
            options.set_credentials(user.clone(), password.clone());
        }
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = Some(expiry_s);
        properties.max_packet_size = Some(LONGEST);
        options.set_connect_properties(properties);
        options.set_keep_alive(self.keep_alive).set_connection_timeout(CONNECT_S);
        // rumqttc sets room aside for each packet id: 10 MB for all of them.
        options.set_outgoing_inflight_upper_limit(PACKET_IDS);
        options
    }
}

fn wrong(key: &str, why: impl ToString) -> PublishError {
    PublishError::stop(key, why)
}

/// Whether it is encrypted, host and port.
fn parse(url: &str) -> Result<(bool, String, u16), String> {
    const LIKE: &str = "it must be like mqtt://host:1883 or mqtts://host:8883";
    let (encrypted, rest) = match url.split_once("://") {
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        _ => return Err(LIKE.to_owned()),
    };
    if rest.contains('@') {
        return Err("it holds a user or password, which many could read here; say mqtt.username, \
                    and give the password in RETICLE_MQTT_PASSWORD or as the systemd credential \
                    mqtt-password"
            .to_owned());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let default = if encrypted { 8883 } else { 1883 };
    let (host, port) = match rest.rsplit_once(':') {
        // The colon of an address, not of a port.
        Some(_) if rest.ends_with(']') => (rest, default),
        Some((host, port)) => {
            // Not named: after the colon stands a password where the host was forgotten.
            let port: u16 = port.parse().map_err(|_error| format!("its port is none; {LIKE}"))?;
            (host, port)
        }
        None => (rest, default),
    };
    if host.is_empty() || host.contains(['/', '?', '#', ' ']) || port == 0 {
        return Err(LIKE.to_owned());
    }
    Ok((encrypted, host.to_owned(), port))
}

fn client_config(options: &Options) -> Result<ClientConfig, PublishError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("mqtt.url", error))?
        .with_root_certificates(roots(options.ca_file.as_deref())?);
    match (&options.cert_file, &options.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates("mqtt.cert_file", cert)?;
            let text = pem("mqtt.key_file", key)?;
            let key = PrivateKeyDer::from_pem_slice(&text)
                .map_err(|error| not_pem("mqtt.key_file", key, &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong("mqtt.key_file", format!("does not fit: {error}")))
        }
        (Some(_), None) => Err(wrong("mqtt.key_file", "is missing beside mqtt.cert_file")),
        (None, Some(_)) => Err(wrong("mqtt.cert_file", "is missing beside mqtt.key_file")),
    }
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, PublishError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem(key, file)?)
        .collect::<Result<_, _>>()
        .map_err(|error| not_pem(key, file, &error))?;
    if found.is_empty() {
        return Err(wrong(key, format!("{} holds no certificate", file.display())));
    }
    Ok(found)
}

/// The bytes of a file that is said to be PEM.
fn pem(key: &str, file: &Path) -> Result<Vec<u8>, PublishError> {
    foreign_file::read(file, SMALL_BYTES).map_err(|error| not_pem(key, file, &error))
}

fn not_pem(key: &str, file: &Path, error: &dyn Display) -> PublishError {
    wrong(key, format!("{} cannot be read as PEM: {error}", file.display()))
}

/// The CA's own, else those that this machine trusts.
fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, PublishError> {
    const KEY: &str = "mqtt.ca_file";
    let mut roots = RootCertStore::empty();
    let Some(file) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let why = "is not given, and this machine has no certificates of CAs: install \
                       ca-certificates, or name the broker's CA";
            return Err(wrong(KEY, why));
        }
        return Ok(roots);
    };
    for certificate in certificates(KEY, file)? {
        roots.add(certificate).map_err(|error| {
            wrong(KEY, format!("{} holds one that is no CA's: {error}", file.display()))
        })?;
    }
    Ok(roots)
}

/// The password of the variable, else of the credential; `None` where there is neither.
pub(super) fn password(
    variable: Option<OsString>,
    credentials: Option<OsString>,
) -> Result<Option<String>, PublishError> {
    if let Some(password) = variable.filter(|password| !password.is_empty()) {
        return password
            .into_string()
            .map(Some)
            .map_err(|_password| wrong(PASSWORD_VARIABLE, "it is not UTF-8"));
    }
    let Some(folder) = credentials else { return Ok(None) };
    let file = Path::new(&folder).join(PASSWORD_CREDENTIAL);
    match foreign_file::read_text(&file, SMALL_BYTES) {
        // An editor ends the line; a password does not.
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(wrong(&format!("read the password of mqtt from {}", file.display()), error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> BoxName {
        BoxName { site: "lab".to_owned(), name: "box-1".to_owned() }
    }

    #[test]
    fn a_url_has_a_scheme_a_host_and_no_password() {
        assert_eq!(parse("mqtt://broker"), Ok((false, "broker".to_owned(), 1883)));
        assert_eq!(parse("mqtts://broker/"), Ok((true, "broker".to_owned(), 8883)));
        assert_eq!(parse("mqtt://[::1]:99"), Ok((false, "[::1]".to_owned(), 99)));
        for bad in ["broker:1883", "http://broker", "mqtt://", "mqtt://b:x", "mqtt://b/topic"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("mqtt://me:secret@broker").unwrap_err().contains("RETICLE_MQTT_PASSWORD"));
    }

    #[test]
    fn what_cannot_be_meant_is_named_by_its_key() {
        let at_fault = |url: &str, options: &Options, password: Option<&str>| {
            Target::of(url, options, &named(), password.map(str::to_owned)).err().unwrap().what
        };
        let file = Some(std::path::PathBuf::from("/nowhere.pem"));
        let ca = Options { ca_file: file.clone(), ..Options::default() };
        assert_eq!(at_fault("mqtt://b", &ca, None), "mqtt.ca_file");
        assert_eq!(at_fault("mqtts://b", &ca, None), "mqtt.ca_file");
        let short = Options { keep_alive_s: 4, ..Options::default() };
        assert_eq!(at_fault("mqtt://b", &short, None), "mqtt.keep_alive_s");
        assert_eq!(at_fault("mqtt://b", &Options::default(), Some("x")), "mqtt.username");
    }

    #[test]
    fn the_name_at_the_broker_is_that_of_site_and_box() {
        let target = Target::of("mqtt://b", &Options::default(), &named(), None).unwrap();
        assert_eq!(target.options(None).client_id(), "reticle-lab-box-1");
        assert!(!target.options(None).clean_start());
        assert_eq!(target.probe_options().client_id(), "reticle-lab-box-1-check");
    }

    #[test]
    fn sparkplug_begins_every_connection_without_a_session() {
        let expiry = |mode| {
            let options = Options { mode, ..Options::default() };
            let options = Target::of("mqtt://b", &options, &named(), None).unwrap().options(None);
            let properties = options.connect_properties().unwrap();
            (options.clean_start(), properties.session_expiry_interval)
        };
        assert_eq!(expiry(Mode::Sparkplug), (true, Some(0)));
        assert_eq!(expiry(Mode::Reticle), (false, Some(86_400)));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's file need not last")]
    fn the_variable_goes_before_the_credential() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = || Some(folder.path().as_os_str().to_owned());
        assert_eq!(password(None, credentials()).unwrap(), None, "no such credential");
        std::fs::write(folder.path().join(PASSWORD_CREDENTIAL), "from a file\n").unwrap();
        assert_eq!(password(None, credentials()).unwrap().as_deref(), Some("from a file"));
        assert_eq!(password(Some("said".into()), credentials()).unwrap().as_deref(), Some("said"));
    }
}
