//! Encryption of the connection, in libpq's words (`sslmode`), done by rustls.
//!
//! What rustls does not do: certificates that name their server only in the common name (they
//! need a subject alternative name), self-signed certificates that are marked as a CA and used by
//! a server at the same time, keys of RSA below 2048 bits, TLS 1.1 and older, checking the chain
//! without the name (`verify-ca`), and certificates of the client's own.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use reticle_base::foreign_file::{self, SMALL_BYTES};

/// How much is asked of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    /// None.
    Disable,
    /// TLS where the server offers it, whoever it is.
    Prefer,
    /// TLS, whoever the server is.
    Require,
    /// TLS with a server whose certificate is trusted and names it.
    VerifyFull,
}

impl SslMode {
    /// The mode by its name in the URL.
    ///
    /// # Errors
    /// What to say instead.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        match name {
            "disable" => Ok(Self::Disable),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-full" => Ok(Self::VerifyFull),
            "allow" => Err("sslmode=allow is not offered; say prefer".to_owned()),
            "verify-ca" => {
                Err("sslmode=verify-ca is not offered, the server's name is always checked with \
                     its certificate; say verify-full"
                    .to_owned())
            }
            other => {
                Err(format!("sslmode={other} is none of disable, prefer, require and verify-full"))
            }
        }
    }

    /// What the driver is told; who the server is, is the verifier's affair.
    pub(super) fn driver(self) -> tokio_postgres::config::SslMode {
        match self {
            Self::Disable => tokio_postgres::config::SslMode::Disable,
            Self::Prefer => tokio_postgres::config::SslMode::Prefer,
            Self::Require | Self::VerifyFull => tokio_postgres::config::SslMode::Require,
        }
    }
}

/// The settings of TLS for a mode.
///
/// # Errors
/// A text that names the file of certificates that cannot be used.
pub(super) fn client_config(mode: SslMode, ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if mode == SslMode::VerifyFull {
        let roots = ca_file.map_or_else(system_roots, roots_of)?;
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let anyone = Arc::new(AnyServer(provider));
    Ok(builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth())
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let unusable = |why: String| format!("{} {why}", file.display());
    let not_pem = |error: &dyn Display| unusable(format!("cannot be read as PEM: {error}"));
    let text = foreign_file::read(file, SMALL_BYTES).map_err(|error| not_pem(&error))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| not_pem(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| unusable(format!("holds a certificate that is no CA's: {error}")))?;
    }
    if roots.is_empty() {
        return Err(unusable("holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// The certificates that this machine trusts. Single ones that rustls cannot use do not matter.
fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(" ({error})"));
        return Err(format!(
            "is not given, and this machine has no certificates of CAs{why}: install \
             ca-certificates, or name the server's CA"
        ));
    }
    Ok(roots)
}

/// Takes every certificate, as libpq does for `prefer` and `require`: what is sent is hidden from
/// those who listen, not from one who answers in the server's place.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_is_not_offered_says_which_to_take() {
        assert_eq!(SslMode::parse("verify-full"), Ok(SslMode::VerifyFull));
        assert!(SslMode::parse("verify-ca").unwrap_err().contains("say verify-full"));
        assert!(SslMode::parse("allow").unwrap_err().contains("say prefer"));
        assert!(SslMode::parse("on").unwrap_err().contains("sslmode=on is none of"));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a broken file need not last")]
    fn a_file_without_certificates_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, "no certificate").unwrap();
        let error = client_config(SslMode::VerifyFull, Some(&file)).unwrap_err();
        assert!(error.contains("ca.pem holds no certificate"), "{error}");
        let missing = folder.path().join("missing.pem");
        let error = client_config(SslMode::VerifyFull, Some(&missing)).unwrap_err();
        assert!(error.contains("missing.pem cannot be read"), "{error}");
    }
}
