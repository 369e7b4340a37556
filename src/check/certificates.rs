//! The certificates that the configuration names: can they be read, is there one in them.
//!
//! What they say of time and name is checked where they are used: a server whose certificate has
//! run out is refused there, and `archive` and `central` say so.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Finding, Scene};

pub(super) fn certificates(scene: &Scene) -> Finding {
    let sync = &scene.settings.sync;
    let named = [
        ("sync.archive.ca_file", &sync.archive.ca_file),
        ("sync.central.ca_file", &sync.central.ca_file),
    ];
    let findings = named.into_iter().filter_map(|(key, file)| Some(of_file(key, file.as_deref()?)));
    Finding::worst(findings.collect()).unwrap_or_else(|| {
        Finding::skipped("none is configured; servers are held against the system's")
    })
}

fn of_file(key: &str, file: &Path) -> Finding {
    let shown = file.display();
    let todo =
        format!("put the CA's certificate there as PEM, readable for this user, or mend {key}");
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) => return Finding::fail(format!("{key}: {shown}: {error}"), todo),
    };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(found) if !found.is_empty() => Finding::ok(format!("{key}: {} in {shown}", found.len())),
        Ok(_) => Finding::fail(format!("{key}: {shown} holds no certificate"), todo),
        Err(error) => Finding::fail(format!("{key}: {shown}: {error}"), todo),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::durable;
    use crate::check::Verdict;

    #[test]
    fn a_file_without_a_certificate_is_named_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for text in ["", "no PEM", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            durable::write(&file, text.as_bytes()).unwrap();
            let finding = of_file("sync.central.ca_file", &file);
            assert_eq!(finding.verdict, Verdict::Fail, "{text}");
            assert!(finding.found.contains("sync.central.ca_file"), "{finding:?}");
        }
        assert_eq!(of_file("k", &folder.path().join("none")).verdict, Verdict::Fail);
    }
}
