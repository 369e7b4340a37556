//! The certificates and keys that the configuration names: can they be read, until when do they
//! hold, can nobody else read the keys.
//!
//! - Judged by this box's clock. One that was never set is behind, so what has run out by it has run
//!   out; what is not valid yet may be the clock's fault, and wants a look only.
//! - A file of CAs may hold old ones beside new ones. It is wrong when none of them is good.
//! - Whether a server's certificate and a key fit is seen where they are used: `archive`, `central`
//!   and `mqtt` say so.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode as _;
use x509_cert::{Certificate, time::Time};

use super::files::{OTHERS_READ, mode};
use super::{Finding, Scene, Verdict};
use reticle_base::clock::Clock;
use reticle_base::foreign_file::{self, SMALL_BYTES};

/// From here on a certificate is to be renewed soon, seconds: 30 days.
const SOON_S: u64 = 30 * 86_400;

/// What a file of certificates is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Others are held against them; one good one is enough.
    Cas,
    /// This box shows them; each is needed.
    Own,
}

/// What this box thinks the time is.
#[derive(Clone, Copy)]
struct Now {
    /// Seconds since the Unix epoch.
    unix_s: u64,
    trusted: bool,
}

impl Now {
    fn of(clock: &Clock) -> Self {
        let unix_s = u64::try_from(clock.now().wall_ns / 1_000_000_000).unwrap_or(0);
        Self { unix_s, trusted: clock.is_trusted() }
    }
}

pub(super) fn certificates(scene: &Scene) -> Finding {
    let (sync, mqtt) = (&scene.settings.sync, &scene.settings.mqtt);
    let now = Now::of(&scene.clock);
    let named = [
        ("sync.archive.ca_file", &sync.archive.ca_file, Use::Cas),
        ("sync.central.ca_file", &sync.central.ca_file, Use::Cas),
        ("mqtt.ca_file", &mqtt.ca_file, Use::Cas),
        ("mqtt.cert_file", &mqtt.cert_file, Use::Own),
    ];
    let files = named
        .into_iter()
        .filter_map(|(key, file, purpose)| Some(of_file(key, file.as_deref()?, purpose, now)));
    let key = mqtt.key_file.as_deref().map(|file| of_key("mqtt.key_file", file));
    Finding::worst(files.chain(key).collect()).unwrap_or_else(|| {
        Finding::skipped("none is configured; servers are held against the system's")
    })
}

fn of_file(key: &str, file: &Path, purpose: Use, now: Now) -> Finding {
    let shown = file.display();
    let whose = match purpose {
        Use::Cas => "the CA's certificate",
        Use::Own => "this box's certificate",
    };
    let todo = format!("put {whose} there as PEM, readable for this user, or mend {key}");
    let text = match foreign_file::read(file, SMALL_BYTES) {
        Ok(text) => text,
        Err(error) => return Finding::fail(format!("{key}: {shown}: {error}"), todo),
    };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = match read {
        Ok(all) if all.is_empty() => {
            return Finding::fail(format!("{key}: {shown} holds no certificate"), todo);
        }
        Ok(all) => all,
        Err(error) => return Finding::fail(format!("{key}: {shown}: {error}"), todo),
    };
    let judged: Vec<(Verdict, String)> = all.iter().map(|one| term(one, now)).collect();
    let worst = judged.iter().map(|(verdict, _)| *verdict).max().unwrap_or(Verdict::Ok);
    if worst == Verdict::Ok {
        let terms = match judged.as_slice() {
            [(_, said)] => said.clone(),
            several => format!("{} that are valid", several.len()),
        };
        return Finding::ok(format!("{key}: {terms}"));
    }
    let is_one_good = judged.iter().any(|(verdict, _)| *verdict != Verdict::Fail);
    let said: Vec<&str> = judged
        .iter()
        .filter(|(verdict, _)| *verdict == worst)
        .map(|(_, said)| said.as_str())
        .collect();
    let found = format!("{key}: {shown}: {}", said.join(", "));
    let clock = if now.trusted { "" } else { "; see to the clock first, nobody keeps it in step" };
    let todo = format!("put {whose} there anew, as PEM{clock}");
    if worst == Verdict::Fail && !(purpose == Use::Cas && is_one_good) {
        return Finding::fail(found, todo);
    }
    Finding::warn(found, todo)
}

/// How one certificate is at this time, and in words.
fn term(certificate: &CertificateDer<'_>, now: Now) -> (Verdict, String) {
    let certificate = match Certificate::from_der(certificate) {
        Ok(certificate) => certificate.tbs_certificate,
        Err(error) => return (Verdict::Fail, format!("one cannot be read: {error}")),
    };
    let (name, validity) = (certificate.subject, certificate.validity);
    let seconds = |time: Time| time.to_unix_duration().as_secs();
    let (from, until) = (validity.not_before, validity.not_after);
    if seconds(until) < now.unix_s {
        return (Verdict::Fail, format!("{name} has run out, on {until}"));
    }
    if now.unix_s < seconds(from) {
        let verdict = if now.trusted { Verdict::Fail } else { Verdict::Warn };
        return (verdict, format!("{name} is not valid before {from}"));
    }
    let verdict = if seconds(until) - now.unix_s < SOON_S { Verdict::Warn } else { Verdict::Ok };
    (verdict, format!("{name} is valid until {until}"))
}

fn of_key(key: &str, file: &Path) -> Finding {
    let shown = file.display();
    let key_of = |file| {
        let text = foreign_file::read(file, SMALL_BYTES).map_err(|error| error.to_string())?;
        PrivateKeyDer::from_pem_slice(&text).map(drop).map_err(|error| error.to_string())
    };
    if let Err(error) = key_of(file) {
        return Finding::fail(
            format!("{key}: {shown}: {error}"),
            format!(
                "put the key there as PEM, without a passphrase, readable for this user alone, \
                     or mend {key}"
            ),
        );
    }
    if mode(file).is_some_and(|mode| mode & OTHERS_READ != 0) {
        return Finding::fail(
            format!("{key}: everybody may read {shown}, which is secret"),
            format!("`chmod 600 {shown}`; have a certificate made for a new key"),
        );
    }
    Finding::ok(format!("{key}: {shown} is a key"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use reticle_base::durable;

    /// `CN=test-ca`, valid in 2026.
    const IN_2026: &str = "-----BEGIN CERTIFICATE-----
MIIBCzCBsgIBATAKBggqhkjOPQQDAjASMRAwDgYDVQQDDAd0ZXN0LWNhMB4XDTI2
MDEwMTAwMDAwMFoXDTI3MDEwMTAwMDAwMFowEjEQMA4GA1UEAwwHdGVzdC1jYTBZ
MBMGByqGSM49AgEGCCqGSM49AwEHA0IABNUlu7KWVXNWzMyQ+mg/fD1Dc/+E886H
tmiYhgcnkbkbFxUB7/x64sQftaZc5+WGHfS6etQ8RUaxwm6r7MeF9DgwCgYIKoZI
zj0EAwIDSAAwRQIhALS7BV7Dw+zj9+F4OvQhp7/I10ForoG9zkAeLylO1ZKAAiA2
xquNdL53kbv7W4K9o5XqcT5xNfo/wc8Abau0Db0nfQ==
-----END CERTIFICATE-----
";

    /// One that rustls takes apart and that is no certificate.
    const NO_DER: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    /// First and last second in which it is valid.
    const BEGIN_S: u64 = 1_767_225_600;
    const END_S: u64 = 1_798_761_600;

    fn at(unix_s: u64) -> Now {
        Now { unix_s, trusted: true }
    }

    fn judge(text: &str, purpose: Use, now: Now) -> Finding {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some.pem");
        durable::write(&file, text.as_bytes()).unwrap();
        of_file("sync.central.ca_file", &file, purpose, now)
    }

    #[test]
    fn a_file_without_a_certificate_is_named_with_its_key() {
        let no_base64 = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        for text in ["", "no PEM", no_base64, NO_DER] {
            let finding = judge(text, Use::Cas, at(BEGIN_S));
            assert_eq!(finding.verdict, Verdict::Fail, "{text}");
            assert!(finding.found.contains("sync.central.ca_file"), "{finding:?}");
        }
        let nowhere = Path::new("/nowhere/ca.pem");
        assert_eq!(of_file("k", nowhere, Use::Cas, at(BEGIN_S)).verdict, Verdict::Fail);
    }

    #[test]
    fn a_certificate_is_good_from_its_first_to_its_last_second() {
        let cases = [
            (BEGIN_S - 1, Verdict::Fail, "is not valid before 2026-01-01"),
            (BEGIN_S, Verdict::Ok, "is valid until 2027-01-01"),
            (END_S - SOON_S, Verdict::Ok, "is valid until 2027-01-01"),
            (END_S - SOON_S + 1, Verdict::Warn, "is valid until 2027-01-01"),
            (END_S, Verdict::Warn, "is valid until 2027-01-01"),
            (END_S + 1, Verdict::Fail, "has run out, on 2027-01-01"),
        ];
        for (unix_s, verdict, said) in cases {
            let finding = judge(IN_2026, Use::Own, at(unix_s));
            assert_eq!(finding.verdict, verdict, "{unix_s}: {finding:?}");
            assert!(finding.found.contains("CN=test-ca"), "{finding:?}");
            assert!(finding.found.contains(said), "{finding:?}");
        }
    }

    #[test]
    fn a_clock_that_nobody_keeps_in_step_is_to_be_seen_to_first() {
        let early = judge(IN_2026, Use::Own, Now { unix_s: 0, trusted: false });
        assert_eq!(early.verdict, Verdict::Warn, "{early:?}");
        assert!(early.todo.as_deref().unwrap().contains("clock"), "{early:?}");
        let late = judge(IN_2026, Use::Own, Now { unix_s: END_S + 1, trusted: false });
        assert_eq!(late.verdict, Verdict::Fail, "{late:?}");
        assert!(late.todo.as_deref().unwrap().contains("clock"), "{late:?}");
    }

    #[test]
    fn one_good_ca_is_enough_and_of_its_own_chain_each_must_be_good() {
        let both = format!("{IN_2026}{NO_DER}");
        assert_eq!(judge(&both, Use::Cas, at(BEGIN_S)).verdict, Verdict::Warn);
        assert_eq!(judge(&both, Use::Own, at(BEGIN_S)).verdict, Verdict::Fail);
        assert_eq!(judge(&both, Use::Cas, at(END_S + 1)).verdict, Verdict::Fail);
        let twice = judge(&IN_2026.repeat(2), Use::Own, at(BEGIN_S));
        assert_eq!(twice, Finding::ok("sync.central.ca_file: 2 that are valid"));
    }

    #[test]
    fn a_key_must_be_a_key_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("box.key");
        assert_eq!(of_key("mqtt.key_file", &file).verdict, Verdict::Fail);
        durable::write(&file, IN_2026.as_bytes()).unwrap();
        assert_eq!(of_key("mqtt.key_file", &file).verdict, Verdict::Fail);
        // Built here, so that no search for secrets finds one.
        let key = format!("-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n", "PRIVATE KEY");
        durable::write(&file, key.as_bytes()).unwrap();
        let open_to = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            of_key("mqtt.key_file", &file)
        };
        assert_eq!(open_to(0o600).verdict, Verdict::Ok);
        let open = open_to(0o644);
        assert_eq!(open.verdict, Verdict::Fail);
        assert!(open.found.contains("everybody may read"), "{open:?}");
    }
}
