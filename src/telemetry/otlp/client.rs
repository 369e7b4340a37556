//! The way to the collector: HTTP with ureq, TLS with rustls and ring.
//!
//! Blocks its caller, which is why only threads of [`super`] may call it. Redirects and proxies
//! are not followed: a collector stands in the lab.

use std::collections::BTreeSet;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::OtlpError;
use reticle_base::address;

/// How long one request may take, from the name to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer has a sentence in it at most, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// A collector, and how it is with it.
pub(super) struct Client {
    agent: ureq::Agent,
    /// Without a slash at its end.
    endpoint: String,
    /// The paths that did not take what was sent last.
    failing: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &address::shown(&self.endpoint))
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(endpoint: &str) -> Result<Self, OtlpError> {
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None);
        if endpoint.starts_with("https://") {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(OtlpError::Unusable {
                    endpoint: endpoint.to_owned(),
                    reason: "this machine has no certificates of CAs: install ca-certificates"
                        .to_owned(),
                });
            }
            let roots = found.certs.iter().map(|cert| Certificate::from_der(cert).to_owned());
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::from(roots))
                .unversioned_rustls_crypto_provider(Arc::new(
                    rustls::crypto::ring::default_provider(),
                ))
                .build();
            config = config.tls_config(tls);
        }
        Ok(Self {
            agent: ureq::Agent::new_with_config(config.build()),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            failing: Mutex::default(),
        })
    }

    /// Where a kind of thing goes, as `/v1/traces`.
    pub(super) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint)
    }

    /// Sends a message of protobuf. What becomes of it is in the log.
    pub(super) fn post(&self, path: &str, message: Vec<u8>) {
        let request = Request::post(self.address(path))
            .header("content-type", "application/x-protobuf")
            .body(message);
        match request {
            // How it went is noted.
            Ok(request) => drop(self.send(request)),
            Err(error) => self.note(path, Err(error.to_string())),
        }
    }

    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ureq::Error> {
        let path = request.uri().path().to_owned();
        let answer = self.agent.run(request).and_then(|answer| {
            let (parts, mut body) = answer.into_parts();
            let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
            Ok(Response::from_parts(parts, body))
        });
        let how = match &answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answers {}", answer.status())),
            Err(error) => Err(error.to_string()),
        };
        self.note(&path, how);
        answer
    }

    /// Tells trouble when it begins and when it is over, not for every request.
    fn note(&self, path: &str, how: Result<(), String>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let was_well = failing.is_empty();
        match how {
            Ok(()) => {
                failing.remove(path);
                if !was_well && failing.is_empty() {
                    tracing::info!("the collector takes traces and metrics again");
                }
            }
            Err(reason) => {
                failing.insert(path.to_owned());
                if was_well {
                    tracing::warn!(
                        endpoint = address::shown(&self.endpoint),
                        path,
                        reason = &*address::shown_in(&reason),
                        "the collector ([log] otlp_endpoint) does not take traces or metrics; they \
                         are dropped until it does, nothing else is lost"
                    );
                }
            }
        }
    }
}

impl HttpClient for Client {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let answer = self.send(request.map(Vec::from));
        Box::pin(ready(answer.map(|answer| answer.map(Bytes::from)).map_err(HttpError::from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_added_to_the_endpoint_whether_or_not_it_ends_in_a_slash() {
        for endpoint in ["http://collector:4318/otlp", "http://collector:4318/otlp/"] {
            let client = Client::new(endpoint).unwrap();
            assert_eq!(client.address("/v1/traces"), "http://collector:4318/otlp/v1/traces");
        }
    }

    #[test]
    fn trouble_is_over_when_every_path_is_taken() {
        let client = Client::new("http://collector:4318").unwrap();
        client.note("/v1/traces", Err("away".to_owned()));
        client.note("/v1/metrics", Err("away".to_owned()));
        client.note("/v1/traces", Ok(()));
        assert_eq!(client.failing.lock().unwrap().len(), 1);
        client.note("/v1/metrics", Ok(()));
        assert!(client.failing.lock().unwrap().is_empty());
    }
}
