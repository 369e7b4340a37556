//! What the errors of an S3 server, and of the way there, mean for what was to be delivered.
//!
//! The codes are those of Amazon's list
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>), which other servers
//! borrow from. An object is given up only where the answer is about that object and nothing
//! else; what is not understood stops, and loses nothing.

use std::error::Error;
use std::io;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use rustls::CertificateError;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::body::Unanswered;
use super::error::StorageError;
use reticle_base::clock::Stamp;
use reticle_base::remedy::Remedy;

/// The longest wait that a server may ask for. A `Retry-After` beyond it is a mistake, or a
/// server that is as good as gone, and is looked at again after that long.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// A request that failed, and the server's code for why (empty where it gave none).
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: String,
    pub(super) error: StorageError,
}

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Self {
        Self { code: String::new(), error }
    }
}

impl From<Failed> for StorageError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// What an answer with this HTTP status and this code (empty where there is none, as after a
/// HEAD) means, and what a person can do about it.
pub fn classify(status: u16, code: &str) -> (Remedy, &'static str) {
    by_code(code).unwrap_or_else(|| by_status(status))
}

fn by_code(code: &str) -> Option<(Remedy, &'static str)> {
    let verdict = match code {
        "RequestTimeout" | "InternalError" | "OperationAborted" | "ServiceUnavailable" => {
            (Remedy::Retry, "will be tried again")
        }
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "BandwidthLimitExceeded" => {
            (Remedy::Retry, "the server is busy; will be tried again later")
        }
        "BadDigest"
        | "IncompleteBody"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch" => {
            (Remedy::Retry, "what arrived is not what was sent; will be tried again")
        }
        "NoSuchUpload" | "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" => {
            (Remedy::Retry, "the upload was ended by someone else; will be started over")
        }
        "InvalidAccessKeyId"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "NotSignedUp"
        | "AccountProblem"
        | "InvalidSecurity"
        | "UnrecognizedClientException" => {
            (Remedy::Stop, "the server does not know these credentials; give Reticle valid ones")
        }
        "SignatureDoesNotMatch" => (
            Remedy::Stop,
            "the secret key does not belong to the access key, or something on the way changes \
             requests; check AWS_SECRET_ACCESS_KEY or the profile",
        ),
        "ExpiredToken" | "ExpiredTokenException" => {
            (Remedy::Stop, "the credentials have expired; renew them")
        }
        "AccessDenied" | "AllAccessDisabled" | "MethodNotAllowed" => (
            Remedy::Stop,
            "these credentials may not do this; allow s3:PutObject, s3:GetObject, s3:ListBucket, \
             s3:AbortMultipartUpload and s3:ListMultipartUploadParts on the bucket and its objects",
        ),
        "NoSuchBucket" | "InvalidBucketName" => {
            (Remedy::Stop, "make the bucket, or name another in sync.archive.to")
        }
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => (
            Remedy::Stop,
            "the bucket is in another region or behind another address; check \
             sync.archive.region and sync.archive.endpoint",
        ),
        "RequestTimeTooSkewed" | "RequestExpired" => (
            Remedy::Stop,
            "this box's clock and the server's differ too much; set the time (timedatectl)",
        ),
        "QuotaExceeded" | "XMinioStorageFull" => {
            (Remedy::Retry, "the archive is full; make room there")
        }
        "NotImplemented" => (Remedy::Stop, "the server cannot do this; is it S3-compatible?"),
        "EntityTooLarge" | "KeyTooLong" | "KeyTooLongError" | "InvalidRequest" | "InvalidURI"
        | "MetadataTooLarge" => (Remedy::GiveUp, "the server will never take this object"),
        _ => return None,
    };
    Some(verdict)
}

fn by_status(status: u16) -> (Remedy, &'static str) {
    match status {
        408 | 425 | 429 => (Remedy::Retry, "the server is busy; will be tried again later"),
        300..=399 => (
            Remedy::Stop,
            "the bucket is in another region or behind another address; check \
             sync.archive.region and sync.archive.endpoint",
        ),
        401 | 403 => (
            Remedy::Stop,
            "the server refuses these credentials; check them, and their rights on the bucket",
        ),
        404 => (
            Remedy::Stop,
            "there is no such bucket, or no S3 server at this address; check sync.archive.to and \
             sync.archive.endpoint",
        ),
        413 | 414 => (Remedy::GiveUp, "the server will never take this object"),
        400..=499 | 501 => (Remedy::Stop, "the server refuses this; its words say why"),
        _ => (Remedy::Retry, "will be tried again"),
    }
}

/// What a failed request means. `what` was tried at `now`.
pub(super) fn refused<E>(what: &str, now: Stamp, error: &SdkError<E, HttpResponse>) -> Failed
where
    E: Error + ProvideErrorMetadata + 'static,
{
    let (raw, code, message) = match error {
        SdkError::ServiceError(refusal) => {
            let meta = refusal.err().meta();
            (refusal.raw(), meta.code().unwrap_or_default(), meta.message().unwrap_or_default())
        }
        // An answer that is no S3 answer, as a gateway's page.
        SdkError::ResponseError(answer) => (answer.raw(), "", ""),
        _ => return unreached(what, error).into(),
    };
    let status = raw.status().as_u16();
    let (remedy, advice) = classify(status, code);
    let name = if code.is_empty() { "no code" } else { code };
    let colon = if message.is_empty() { "" } else { ": " };
    let mut why = format!("the server answered {name} (HTTP {status}){colon}{message}; {advice}");
    if let Some(date) = raw.headers().get("date").filter(|_| code == "RequestTimeTooSkewed") {
        why = format!("{why}; the server says {date}, this box {}", now.rfc3339());
    }
    let after = raw.headers().get("retry-after").and_then(|value| retry_after(value, now));
    let error = StorageError { after, ..StorageError::new(remedy, what, why) };
    Failed { code: code.to_owned(), error }
}

/// What it means that nothing came back.
pub(super) fn unanswered(what: &str, error: &Unanswered) -> StorageError {
    StorageError::retry(what, error)
}

/// What it means that the server was not reached.
pub(super) fn unreached(what: &str, error: &(dyn Error + 'static)) -> StorageError {
    let words = words(error);
    for cause in chain(error) {
        if let Some(cause) = cause.downcast_ref::<CredentialsError>() {
            return no_credentials(what, cause, &words);
        }
        if let Some(rustls::Error::InvalidCertificate(cause)) = cause.downcast_ref() {
            return not_trusted(what, cause);
        }
    }
    StorageError::retry(what, format!("the server cannot be reached: {words}"))
}

fn no_credentials(what: &str, error: &CredentialsError, words: &str) -> StorageError {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => StorageError::stop(
            what,
            format!(
                "there are no credentials ({words}); set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY in the environment of the service, or \
                 sync.archive.profile, or give the machine a role"
            ),
        ),
        CredentialsError::InvalidConfiguration(_) => StorageError::stop(
            what,
            format!("the AWS configuration is wrong ({words}); mend it, or sync.archive.profile"),
        ),
        _ => StorageError::retry(what, format!("the credentials cannot be got: {words}")),
    }
}

fn not_trusted(what: &str, error: &CertificateError) -> StorageError {
    let advice = match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "check this box's clock (timedatectl) and the server's certificate"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "name the server in sync.archive.endpoint as its certificate does"
        }
        _ => "name the CA that signed it in sync.archive.ca_file",
    };
    StorageError::stop(what, format!("the server's certificate is not trusted ({error}); {advice}"))
}

/// How long the server wants to be left alone: seconds, or a date.
fn retry_after(value: &str, now: Stamp) -> Option<Duration> {
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = OffsetDateTime::parse(value.trim(), &Rfc2822).ok()?;
            let ns = date.unix_timestamp_nanos() - i128::from(now.wall_ns);
            Duration::from_nanos(u64::try_from(ns.max(0)).unwrap_or(u64::MAX))
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// An error and what caused it, one after the other, those inside I/O errors too (which
/// `source()` jumps over).
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// The whole chain in words, without what is said twice.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut all = String::new();
    for cause in chain(error) {
        let cause = cause.to_string();
        if all.contains(&cause) {
            continue;
        }
        if !all.is_empty() {
            all.push_str(": ");
        }
        all.push_str(&cause);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;

    #[test]
    fn answers_have_their_remedies() {
        let table = [
            (500, "InternalError", Remedy::Retry),
            (503, "SlowDown", Remedy::Retry),
            (400, "RequestTimeout", Remedy::Retry),
            (400, "BadDigest", Remedy::Retry),
            (400, "XAmzContentChecksumMismatch", Remedy::Retry),
            (404, "NoSuchUpload", Remedy::Retry),
            // The completion of an upload fails in a body that began with 200.
            (200, "InternalError", Remedy::Retry),
            (403, "InvalidAccessKeyId", Remedy::Stop),
            (403, "SignatureDoesNotMatch", Remedy::Stop),
            (403, "AccessDenied", Remedy::Stop),
            (403, "RequestTimeTooSkewed", Remedy::Stop),
            (404, "NoSuchBucket", Remedy::Stop),
            (400, "ExpiredToken", Remedy::Stop),
            (301, "PermanentRedirect", Remedy::Stop),
            (400, "AuthorizationHeaderMalformed", Remedy::Stop),
            (400, "EntityTooLarge", Remedy::GiveUp),
            (400, "KeyTooLongError", Remedy::GiveUp),
            (400, "InvalidRequest", Remedy::GiveUp),
            // Without a code: gateways, and answers to HEAD.
            (502, "", Remedy::Retry),
            (504, "", Remedy::Retry),
            (408, "", Remedy::Retry),
            (429, "", Remedy::Retry),
            (403, "", Remedy::Stop),
            (404, "", Remedy::Stop),
            (301, "", Remedy::Stop),
            (413, "", Remedy::GiveUp),
            // What nobody has heard of must not cost the object.
            (400, "", Remedy::Stop),
            (418, "ImATeapot", Remedy::Stop),
            (599, "SomethingNew", Remedy::Retry),
        ];
        for (status, code, remedy) in table {
            assert_eq!(classify(status, code).0, remedy, "{status} {code}");
        }
        assert!(classify(403, "RequestTimeTooSkewed").1.contains("clock"));
    }

    #[test]
    fn the_wait_that_a_server_asks_for_is_seconds_or_a_date_and_at_most_an_hour() {
        let now = Clock::manual(784_111_777_000_000_000).now();
        let table = [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("99999999", Some(3_600)),
            ("soon", None),
        ];
        for (value, seconds) in table {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn a_certificate_is_found_inside_an_io_error() {
        let cause = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, cause));
        let error = unreached("put a", &error);
        assert_eq!(error.remedy, Remedy::Stop);
        assert!(error.to_string().contains("sync.archive.ca_file"), "{error}");
        let cause = rustls::Error::InvalidCertificate(CertificateError::NotValidYet);
        let error = unreached("put a", &io::Error::other(cause));
        assert!(error.to_string().contains("clock"), "{error}");
    }

    #[test]
    fn what_cannot_be_reached_is_tried_again_and_credentials_are_asked_for() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(unreached("put a", &refused).remedy, Remedy::Retry);
        let error = unreached("put a", &CredentialsError::not_loaded("none"));
        assert_eq!(error.remedy, Remedy::Stop);
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
        let slow = CredentialsError::provider_timed_out(Duration::from_secs(1));
        assert_eq!(unreached("put a", &slow).remedy, Remedy::Retry);
    }
}
