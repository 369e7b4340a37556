//! What a failure means: what may work later, what never will, and what wants a person.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::time::Duration;

use super::super::error::SyncError;
use reticle_base::remedy::Remedy;

/// A step that failed, before it is known on whose behalf it was taken.
#[derive(Debug)]
pub(super) struct Failure {
    remedy: Remedy,
    /// What was tried, where it is narrower than the whole delivery.
    what: Option<String>,
    why: String,
    /// The connection ended below the step; the task that carried it knows why.
    closed: bool,
    /// The mark that the database has, where it knows more than the store that delivers.
    conflict: Option<i64>,
}

impl Failure {
    /// The data of one frame or session can never be taken.
    pub(super) fn poison(what: impl Into<String>, why: impl Into<String>) -> Self {
        let what = Some(what.into());
        Self { remedy: Remedy::GiveUp, what, why: why.into(), closed: false, conflict: None }
    }

    /// The database knows more than the store that delivers.
    pub(super) fn conflict(why: impl Into<String>, high_water: i64) -> Self {
        Self { conflict: Some(high_water), ..Self::stop(why) }
    }

    /// Nothing can be delivered until a person has acted.
    pub(super) fn stop(why: impl Into<String>) -> Self {
        Self { remedy: Remedy::Stop, what: None, why: why.into(), closed: false, conflict: None }
    }

    /// The same may work later.
    pub(super) fn retry(why: impl Into<String>) -> Self {
        Self { remedy: Remedy::Retry, what: None, why: why.into(), closed: false, conflict: None }
    }

    /// What the driver says of a step, as "copy the objects".
    pub(super) fn of(step: &str, error: &tokio_postgres::Error) -> Self {
        let (remedy, why) = explain(error);
        let (why, closed) = (format!("{step}: {why}"), error.is_closed());
        Self { remedy, what: None, why, closed, conflict: None }
    }

    /// Whether the connection may be used again: only where the data alone was refused.
    pub(super) fn spares_the_connection(&self) -> bool {
        self.remedy == Remedy::GiveUp
    }

    /// Whether the database knows more.
    pub(super) fn is_conflict(&self) -> bool {
        self.conflict.is_some()
    }

    /// Whether the connection's own end says more than this does.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// With what was tried as a whole.
    pub(super) fn into_sync(self, what: String) -> SyncError {
        let what = self.what.map_or(what.clone(), |narrower| format!("{what}, {narrower}"));
        SyncError { conflict: self.conflict, ..SyncError::new(self.remedy, what, self.why) }
    }
}

/// One step, which may take `limit`. Where no answer comes in that time the server counts as
/// gone, and the connection must not be used again.
pub(super) async fn within<T>(
    limit: Duration,
    step: &str,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::of(step, &error)),
        Err(_) => Err(Failure::retry(format!(
            "{step}: no answer in {} s; tried again on a new connection",
            limit.as_secs()
        ))),
    }
}

/// What an error of the driver means, and its whole text with advice.
fn explain(error: &tokio_postgres::Error) -> (Remedy, String) {
    if let Some(answer) = error.as_db_error() {
        let (remedy, advice) = classify(answer.code().code());
        let mut text = format!("{} (SQLSTATE {})", answer.message(), answer.code().code());
        for more in [answer.detail(), answer.where_()].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(more);
        }
        return (remedy, format!("{text}; {advice}"));
    }
    let text = chain(error);
    if let Some(tls) = tls_cause(error) {
        return match tls {
            rustls::Error::InvalidCertificate(_) => (
                Remedy::Stop,
                format!(
                    "{text}; the server's certificate is not trusted: name the certificate of its \
                     CA in sync.central.ca_file, and the server in sync.central.url as its \
                     certificate does, or say sslmode=require there to encrypt without knowing \
                     who answers"
                ),
            ),
            rustls::Error::PeerIncompatible(_) => {
                (Remedy::Stop, format!("{text}; the server must offer TLS 1.2 or 1.3"))
            }
            _ => (Remedy::Retry, text),
        };
    }
    if error.is_closed() {
        return (Remedy::Retry, "the server closed the connection".to_owned());
    }
    if io_cause(error).is_some() {
        return (Remedy::Retry, text);
    }
    // What is left is between the driver and the settings: no TLS where it is demanded, no
    // password where one is asked for, a way to log in that the driver does not know.
    let advice = "check sync.central.url (sslmode), and the password: RETICLE_CENTRAL_PASSWORD or \
                  the credential central-password";
    (Remedy::Stop, format!("{text}; {advice}"))
}

/// What an SQLSTATE means for a delivery, and what to do. Codes are those of PostgreSQL's
/// appendix A; the first two characters are the class.
fn classify(state: &str) -> (Remedy, &'static str) {
    use Remedy::{GiveUp, Retry, Stop};
    match state {
        "25006" => (
            Retry,
            "the server takes no writes (a standby, or default_transaction_read_only is on); \
             tried again until it does",
        ),
        "53100" => (Retry, "the disk of the server is full: make room there; tried again"),
        "53300" => (
            Retry,
            "the server has no free connection (max_connections, or a role's limit); tried again",
        ),
        "55P03" => (Retry, "somebody else holds a lock there, as a box that migrates; tried again"),
        "57014" => (Retry, "the server took longer than a step may take; tried again"),
        "57P04" => (Stop, "the database was dropped: make it again, or correct sync.central.url"),
        "57P01" | "57P02" | "57P03" => {
            (Retry, "the server is being stopped or is starting; tried again")
        }
        "42501" => (Stop, "grant the role what \"Rights\" in docs/guide/database.md lists"),
        "3D000" => (Stop, "make the database, or correct its name in sync.central.url"),
        _ => match state.get(..2).unwrap_or_default() {
            "28" => (
                Stop,
                "check the user in sync.central.url, the password (RETICLE_CENTRAL_PASSWORD or the \
                 credential central-password), and pg_hba.conf on the server",
            ),
            // Two rows of one batch with one key, a value that its column cannot hold, a
            // constraint, a row too large: the same rows would be refused again.
            "21" | "22" | "23" | "54" => (
                GiveUp,
                "the server refuses these rows themselves; nothing of the delivery was written",
            ),
            "0A" | "3F" | "42" => (
                Stop,
                "the schema reticle there is not what this program expects: was it changed by \
                 hand, or is the server older than PostgreSQL 14?",
            ),
            // 08 connection, 40 deadlock and serialisation, 53 resources, 57 operator, 58 the
            // system below, and whatever is not known: nothing is lost by trying again.
            _ => (Retry, "tried again"),
        },
    }
}

/// The error with all its causes; each says only its own part.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn io_cause(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        cause = inner.source();
    }
    None
}

/// rustls speaks through an `io::Error`, whose `source` leaves it out.
fn tls_cause(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    io_cause(error)?.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_means_what_can_be_done_about_it() {
        use Remedy::{GiveUp, Retry, Stop};
        let table = [
            // The way there, and the server's state.
            ("08006", Retry), // connection_failure
            ("25006", Retry), // read_only_sql_transaction
            ("25P03", Retry), // idle_in_transaction_session_timeout
            ("40001", Retry), // serialization_failure
            ("40P01", Retry), // deadlock_detected
            ("53100", Retry), // disk_full
            ("53200", Retry), // out_of_memory
            ("53300", Retry), // too_many_connections
            ("55P03", Retry), // lock_not_available
            ("57014", Retry), // query_canceled
            ("57P01", Retry), // admin_shutdown
            ("57P02", Retry), // crash_shutdown
            ("57P03", Retry), // cannot_connect_now
            ("57P05", Retry), // idle_session_timeout
            ("58030", Retry), // io_error
            ("XX000", Retry), // internal_error
            ("", Retry),
            // A person must act.
            ("0A000", Stop), // feature_not_supported
            ("28000", Stop), // invalid_authorization_specification
            ("28P01", Stop), // invalid_password
            ("3D000", Stop), // invalid_catalog_name
            ("3F000", Stop), // invalid_schema_name
            ("42501", Stop), // insufficient_privilege
            ("42703", Stop), // undefined_column
            ("42P01", Stop), // undefined_table
            ("57P04", Stop), // database_dropped
            // The rows themselves.
            ("21000", GiveUp), // cardinality_violation
            ("22003", GiveUp), // numeric_value_out_of_range
            ("22021", GiveUp), // character_not_in_repertoire
            ("23502", GiveUp), // not_null_violation
            ("23503", GiveUp), // foreign_key_violation
            ("23505", GiveUp), // unique_violation
            ("23514", GiveUp), // check_violation
            ("54000", GiveUp), // program_limit_exceeded
        ];
        for (state, remedy) in table {
            assert_eq!(classify(state).0, remedy, "{state}");
        }
    }

    #[test]
    fn a_narrower_cause_is_named_after_the_delivery() {
        let error = Failure::poison("frame 7", "its width is 0").into_sync("deliver".to_owned());
        assert_eq!(error.to_string(), "deliver, frame 7: its width is 0");
        assert_eq!(error.remedy, Remedy::GiveUp);
    }
}
