//! Addresses (URLs and the like) as they may be shown: without what lets anyone in.
//!
//! An address in the configuration should hold no password, and whoever writes one is told so. The
//! telling, the log, the status and `reticle config show` must not spread it: they show addresses
//! through here. A text that cannot be taken apart loses everything before its last `@`, because
//! then nobody knows which part of it is the secret.

use std::borrow::Cow;

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Parts of the names of parameters that hold secrets.
const SECRET_NAMES: [&str; 8] =
    ["password", "passwd", "pwd", "secret", "token", "signature", "credential", "apikey"];

/// Names of parameters that hold secrets and are part of other words.
const SHORT_SECRET_NAMES: [&str; 4] = ["sig", "key", "pass", "api_key"];

/// One address, well formed or not: no password, no access key, nothing that stands where one
/// may be. A plain user name of PostgreSQL stays, because it is how a box is known there.
pub fn shown(address: &str) -> String {
    let text = address.trim_start();
    let is_path = ["file:", "folder:", "v4l:"]
        .iter()
        .any(|kind| text.strip_prefix(kind).is_some_and(|path| !path.starts_with("//")));
    if is_path {
        return address.to_owned();
    }
    let (scheme, rest) = split(text);
    if let Some((before, after)) = rest.rsplit_once('@') {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_user = scheme.starts_with("postgres") && !before.is_empty();
        let user = if is_user && before.chars().all(plain) { before } else { HIDDEN };
        return format!("{scheme}{user}@{}", without_parameters(after));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.find(':').filter(|_| !scheme.is_empty() && !is_hosts(authority)) {
        Some(colon) => format!("{scheme}{}:{HIDDEN}", rest.get(..colon).unwrap_or_default()),
        None => format!("{scheme}{}", without_parameters(rest)),
    }
}

/// A text of others (an error, a line of a file) in which addresses may stand.
pub fn shown_in(text: &str) -> Cow<'_, str> {
    if !text.contains(['@', '=']) && !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c| !is_between(c)) {
        let (between, tail) = rest.split_at(start);
        let end = tail.find(is_between).unwrap_or(tail.len());
        let (word, tail) = tail.split_at(end);
        out.push_str(between);
        // The sentence's own, not the port's or the password's.
        let address = word.trim_end_matches([':', ';', ',', '.', '!']);
        let holds_login = address.split_once('@').is_some_and(|(before, _)| before.contains(':'));
        if holds_login || address.contains("://") {
            out.push_str(&shown(address));
        } else {
            out.push_str(&without_parameters(address));
        }
        out.push_str(word.get(address.len()..).unwrap_or_default());
        rest = tail;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// What ends an address in a sentence.
fn is_between(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '(' | ')' | '“' | '”')
}

/// `s3://` and the rest; no scheme where there is none that looks like one.
fn split(text: &str) -> (&str, &str) {
    let is_scheme = |scheme: &str| {
        scheme.len() <= 12
            && scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '+')
    };
    match text.find("://") {
        Some(at) if is_scheme(text.get(..at).unwrap_or_default()) => text.split_at(at + 3),
        _ => ("", text),
    }
}

/// Whether it is hosts, each with a number as its port at most.
fn is_hosts(authority: &str) -> bool {
    authority.split(',').all(|host| {
        let (is_address, port) = match host.rsplit_once(']') {
            Some((address, port)) => (address.starts_with('['), port.strip_prefix(':')),
            None => (true, host.split_once(':').map(|(_, port)| port)),
        };
        is_address && port.is_none_or(|port| port.chars().all(|c| c.is_ascii_digit()))
    })
}

/// The text with the values of parameters like `password=` hidden.
fn without_parameters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(['?', '&', ';', ' ']) {
        let (pair, end) = match piece.strip_suffix(['?', '&', ';', ' ']) {
            Some(pair) => (pair, piece.get(pair.len()..).unwrap_or_default()),
            None => (piece, ""),
        };
        match pair.split_once('=') {
            Some((name, value)) if is_secret_name(name) && !value.is_empty() => {
                out.push_str(name);
                out.push('=');
                out.push_str(HIDDEN);
            }
            _ => out.push_str(pair),
        }
        out.push_str(end);
    }
    out
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
        || SHORT_SECRET_NAMES.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_or_key_is_shown_however_it_is_written() {
        for (address, expected) in [
            ("postgresql://box:hush@db.lab:5432/lab", "postgresql://***@db.lab:5432/lab"),
            ("postgresql://box:hu/sh@db.lab/lab", "postgresql://***@db.lab/lab"),
            ("postgresql://box:hush?@#x@db.lab/lab", "postgresql://***@db.lab/lab"),
            (
                "postgres://box@db.lab/lab?password=hush&x=1",
                "postgres://box@db.lab/lab?password=***&x=1",
            ),
            ("s3://AKIA:hush/+hush@lab/box-1", "s3://***@lab/box-1"),
            ("s3://hush@lab", "s3://***@lab"),
            ("s3://AKIA:hush/hush", "s3://AKIA:***"),
            ("mqtts://u:hush@broker:8883", "mqtts://***@broker:8883"),
            ("mqtts://u:hush", "mqtts://u:***"),
            ("http://u:hush@cam/x?token=hush", "http://***@cam/x?token=***"),
            ("https://hush@collector:4318", "https://***@collector:4318"),
            ("s3:/AKIA:hush@lab", "***@lab"),
            ("u:hush@host", "***@host"),
            (" s3://a:hush @lab", "s3://***@lab"),
            ("S3://AKIA:hush@lab", "***@lab"),
            (
                "host=db user=box password=hush dbname=lab",
                "host=db user=box password=*** dbname=lab",
            ),
        ] {
            let safe = shown(address);
            assert_eq!(safe, expected, "{address}");
            assert!(!safe.contains("hush"), "{safe}");
        }
    }

    #[test]
    fn an_address_without_a_secret_stays_as_it_is() {
        for address in [
            "",
            "none",
            "file:/srv/anna@lab/archive",
            "folder:/data/u:x@y",
            "s3://lab/box-1",
            "postgresql://box@db.lab:5432/lab?sslmode=require",
            "postgresql://a:5432,[::1]:5433/lab",
            "mqtt://broker.lab:1883",
            "https://[::1]:9000",
            "http://collector:4318/otlp",
            "virtual",
        ] {
            assert_eq!(shown(address), address);
        }
    }

    #[test]
    fn a_sentence_keeps_its_words_and_loses_its_secrets() {
        let said = "\"s3://a:hush@lab\" is no address (got mqtt://u:hush@b), ask anna@lab; a=b";
        assert_eq!(
            shown_in(said),
            "\"s3://***@lab\" is no address (got mqtt://***@b), ask anna@lab; a=b"
        );
        let refused = "mqtt://broker:1883: refused; then https://minio.lab:9000, http://[::1]:1.";
        assert_eq!(shown_in(refused), refused);
        assert_eq!(shown_in("login u:hush@host failed"), "login ***@host failed");
        assert_eq!(shown_in("connect: password=hush;x"), "connect: password=***;x");
        assert!(matches!(shown_in("nothing here"), Cow::Borrowed(_)));
    }
}
