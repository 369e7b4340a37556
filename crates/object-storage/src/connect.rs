//! From the settings to a client of the bucket's server.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_async::time::TimeSource;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Location;
use super::error::StorageError;
use reticle_base::address;
use reticle_base::clock::Clock;
use reticle_base::foreign_file::{self, SMALL_BYTES};

/// How long a connection may take to come about, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// The region where none is named anywhere. Servers other than Amazon's take any.
const REGION: &str = "us-east-1";

/// An access key of one's own, instead of those that are looked for in the environment.
#[derive(Clone)]
pub struct Keys {
    /// Access key.
    pub id: String,
    /// Secret key.
    pub secret: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A client for what the options name. Nothing is asked over the network yet, except where a
/// profile wants to.
pub(super) async fn client(
    options: &Location,
    keys: Option<Keys>,
    clock: Clock,
) -> Result<Client, StorageError> {
    if let Some(endpoint) = &options.endpoint {
        check_endpoint(endpoint)?;
    }
    let time = WallTime(clock);
    let http = http_client(options.ca_file.as_deref())?;
    let profile = options.profile.as_deref();
    let region = region(options.region.as_deref(), profile).await;
    let version = BehaviorVersion::v2026_01_12();
    let mut loader = aws_config::defaults(version)
        .http_client(http.clone())
        .time_source(time.clone())
        .region(region.clone());
    if let Some(name) = profile {
        let config = ProviderConfig::without_region()
            .with_behavior_version(Some(version))
            .with_http_client(http)
            .with_time_source(time)
            .with_region(Some(region));
        let provider =
            ProfileFileCredentialsProvider::builder().configure(&config).profile_name(name).build();
        // Not the chain: it would prefer keys of the environment to the profile that was named.
        loader = loader.profile_name(name).credentials_provider(provider);
    }
    if let Some(Keys { id, secret }) = keys {
        loader = loader.credentials_provider(Credentials::new(id, secret, None, None, "reticle"));
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let shared = Box::pin(loader.load()).await;
    let config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(options.path_style.unwrap_or(options.endpoint.is_some()))
        // What is read is compared with what is known of it, by whoever reads; a body that is not
        // what its checksum says must be seen to be mended.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // The scheduler tries again, with pauses that grow and survive a restart.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
        // An upload that is slow because the throttle wants it so is not stalled: see `body`.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Ok(Client::from_conf(config))
}

fn check_endpoint(endpoint: &str) -> Result<(), StorageError> {
    let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let is_host = |host: &str| !host.is_empty() && !host.starts_with(['/', ':']);
    if host.is_some_and(|host| is_host(host) && !host.contains('@')) {
        return Ok(());
    }
    let why = format!(
        "\"{}\" is no address; write \"https://HOST\" or \"http://HOST:PORT\", without user or key",
        address::shown(endpoint)
    );
    Err(StorageError::stop("sync.archive.endpoint", why))
}

async fn region(named: Option<&str>, profile: Option<&str>) -> Region {
    // Not the default chain, which asks the network for the region of a cloud machine, and waits
    // for the answer on every box that is none.
    let mut files = ProfileFileRegionProvider::builder();
    if let Some(name) = profile {
        files = files.profile_name(name);
    }
    let environment = aws_config::environment::region::EnvironmentVariableRegionProvider::new();
    RegionProviderChain::first_try(named.map(|name| Region::new(name.to_owned())))
        .or_else(environment)
        .or_else(files.build())
        .or_else(Region::from_static(REGION))
        .region()
        .await
        .unwrap_or_else(|| Region::from_static(REGION))
}

fn http_client(ca_file: Option<&Path>) -> Result<SharedHttpClient, StorageError> {
    let mut trusted = TrustStore::default();
    if let Some(path) = ca_file {
        trusted.add_pem_certificate(certificates(path)?);
    }
    let context = TlsContext::builder()
        .with_trust_store(trusted)
        .build()
        .map_err(|error| StorageError::stop("sync.archive", super::classify::words(&error)))?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}

/// The certificates of a file. Looked at here, because the client panics on those it cannot use.
fn certificates(path: &Path) -> Result<Vec<u8>, StorageError> {
    let wrong = |why: String| {
        StorageError::stop("sync.archive.ca_file", format!("{}: {why}", path.display()))
    };
    let text = foreign_file::read(path, SMALL_BYTES).map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate =
            certificate.map_err(|error| wrong(format!("is not a file in PEM format: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("has no certificates; it must have some in PEM format".to_owned()));
    }
    Ok(text)
}

/// The time that requests are signed with.
#[derive(Clone)]
struct WallTime(Clock);

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}

impl TimeSource for WallTime {
    fn now(&self) -> SystemTime {
        let ns = u64::try_from(self.0.now().wall_ns).unwrap_or(0);
        UNIX_EPOCH + Duration::from_nanos(ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::remedy::Remedy;

    #[test]
    fn an_endpoint_is_an_address_of_a_server() {
        for endpoint in ["https://minio.lab:9000", "http://127.0.0.1:1", "https://[::1]:9000"] {
            assert!(check_endpoint(endpoint).is_ok(), "{endpoint}");
        }
        for endpoint in ["", "minio.lab:9000", "https://", "https:///x", "ftp://lab"] {
            let error = check_endpoint(endpoint).expect_err(endpoint);
            assert_eq!(error.remedy, Remedy::Stop);
            assert!(error.to_string().contains("sync.archive.endpoint"), "{error}");
        }
        for endpoint in ["https://k:hush@minio.lab", "k:hush@minio.lab", "https//k:hush@minio.lab"]
        {
            let said = check_endpoint(endpoint).expect_err(endpoint).to_string();
            assert!(!said.contains("hush") && said.contains("without user or key"), "{said}");
        }
    }

    #[test]
    fn a_file_that_holds_no_certificates_is_refused_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "not a certificate", broken] {
            reticle_base::durable::write(&path, text.as_bytes()).unwrap();
            let error = certificates(&path).expect_err(text);
            assert!(error.to_string().contains("sync.archive.ca_file"), "{error}");
        }
        assert!(certificates(&folder.path().join("none")).is_err());
    }

    #[test]
    fn requests_are_signed_with_the_clock_that_was_given() {
        let time = WallTime(Clock::manual(1_700_000_000_000_000_000));
        assert_eq!(time.now(), UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    }

    #[test]
    fn a_secret_is_not_in_what_is_printed() {
        let keys = Keys { id: "id".to_owned(), secret: "hush".to_owned() };
        assert!(!format!("{keys:?}").contains("hush"));
    }
}
