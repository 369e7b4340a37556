//! Logging set-up, [`metrics`], [`otlp`], and what the process knows of itself.
//!
//! Logs go to stderr, where systemd and containers expect them, or to the journal with their
//! fields; nothing here writes files.
//! The level says the consequence (error: data lost or a person is needed; warn: degraded,
//! nothing lost; info: an operator's logbook; debug: one operation; trace: one frame).

use std::fmt;
use std::io::{self, IsTerminal};

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{Directive, ParseError};
use tracing_subscriber::fmt::{FormatFields, SubscriberBuilder, format};
use tracing_subscriber::prelude::*;

use reticle_base::plain_text;

pub mod metrics;

pub mod host;

pub mod otlp;

/// Environment variable that overrides the configured level, module by module if wanted:
/// `RETICLE_LOG=warn,reticle::capture=trace`.
pub const FILTER_VARIABLE: &str = "RETICLE_LOG";

/// What is logged, and how: the table `[log]`. The environment variable `RETICLE_LOG`
/// overrides the level, module by module if wanted (`warn,reticle::capture=trace`).
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The least consequence that is logged: `error` (data lost or a person is needed),
    /// `warn` (degraded, nothing lost), `info` (an operator's logbook), `debug` (each
    /// operation) or `trace` (each frame).
    pub level: Level,
    /// `text` for people, `json` for one JSON object a line, `journal` for the journal of
    /// systemd with its fields. On a terminal, and where there is no journal, that is `text`.
    pub format: Format,
    /// Where traces and metrics go by OTLP over HTTP, as `http://collector:4318`. Left out:
    /// nowhere. Only a build with the feature `otlp` takes it; `/metrics` is in every build.
    pub otlp_endpoint: Option<String>,
    /// One in so many saved frames is traced.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub otlp_trace_every: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            level: Level::default(),
            format: Format::default(),
            otlp_endpoint: None,
            otlp_trace_every: 10,
        }
    }
}

/// The least consequence that is logged.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the levels are described where they are configured")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// Form of a line of the log.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the formats are described where they are configured")]
pub enum Format {
    #[default]
    Text,
    Json,
    Journal,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The environment variable says nothing that can be understood.
    #[error(
        "{FILTER_VARIABLE}=`{value}` is no log filter ({error}); write a level as `debug`, or \
         levels by module as `warn,reticle::capture=trace`"
    )]
    BadFilter {
        /// What it says.
        value: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// Logging was set up before in this process.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Whether [`init`] would take these options and the environment variable.
///
/// # Errors
/// When `RETICLE_LOG` is set and is no filter.
pub fn check(options: &Options) -> Result<(), TelemetryError> {
    filter(options, std::env::var(FILTER_VARIABLE).ok().as_deref()).map(drop)
}

/// Sends the log of this process to stderr from now on. Once a process.
///
/// # Errors
/// When `RETICLE_LOG` is set and is no filter, or logging was set up before.
pub fn init(options: &Options) -> Result<(), TelemetryError> {
    let variable = std::env::var(FILTER_VARIABLE).ok();
    let filter = filter(options, variable.as_deref())?;
    let (form, fallen_back) = match options.format {
        // Who starts it by hand wants to see something.
        Format::Journal if io::stderr().is_terminal() => (Form::Text, None),
        format => form(format, tracing_journald::layer),
    };
    let lines = SubscriberBuilder::default()
        .with_writer(std::io::stderr)
        // It would say with `eprintln!` that stderr is gone, and so panic the thread that logs.
        .log_internal_errors(false)
        .with_env_filter(filter);
    let set = match form {
        Form::Journal(journal) => {
            let filter = self::filter(options, variable.as_deref())?;
            tracing_subscriber::registry().with(filter).with(*journal).try_init().map_err(Box::from)
        }
        Form::Text => {
            lines.with_ansi(io::stderr().is_terminal()).fmt_fields(plain_fields()).try_init()
        }
        Form::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    // The only way to fail is a second subscriber.
    set.map_err(|_already| TelemetryError::AlreadySet)?;
    if let Some(error) = fallen_back {
        tracing::warn!(%error, "there is no journal to log to ([log] format); logging text to stderr");
    }
    Ok(())
}

/// Fields of a line of text, each on that line: a name with a line break in it must not make a
/// line of its own that looks like ours, nor one with an escape sequence rewrite others. (JSON and
/// the journal keep fields apart by themselves.)
fn plain_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    format::debug_fn(|to, field, value| {
        let text = format!("{value:?}");
        let text = plain_text::one_line(&text);
        match field.name() {
            "message" => write!(to, "{text}"),
            name => write!(to, "{}={text}", name.trim_start_matches("r#")),
        }
    })
    .delimited(" ")
}

/// Where lines go in the end.
enum Form {
    Text,
    Json,
    Journal(Box<tracing_journald::Layer>),
}

/// What is possible of what was asked for, and why no more is.
fn form(
    format: Format,
    journal: impl FnOnce() -> io::Result<tracing_journald::Layer>,
) -> (Form, Option<io::Error>) {
    match format {
        Format::Text => (Form::Text, None),
        Format::Json => (Form::Json, None),
        Format::Journal => match journal() {
            Ok(layer) => (Form::Journal(Box::new(named(layer))), None),
            Err(error) => (Form::Text, Some(error)),
        },
    }
}

/// Fields are `RETICLE_FRAME` and so on; levels have the priorities that syslog knows them by.
fn named(layer: tracing_journald::Layer) -> tracing_journald::Layer {
    layer
        .with_syslog_identifier("reticle".to_owned())
        .with_field_prefix(Some("RETICLE".to_owned()))
        .with_priority_mappings(PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            ..PriorityMappings::new()
        })
}

/// What is let through: our own events by level, those of libraries from `warn` on.
fn filter(options: &Options, variable: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    match variable.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => EnvFilter::try_new(text)
            .map_err(|error| TelemetryError::BadFilter { value: text.to_owned(), error }),
        None => {
            let others = Directive::from(tracing::Level::WARN);
            let ours = format!("reticle={}", options.level);
            Ok(EnvFilter::default()
                .add_directive(others)
                .add_directive(ours.parse().expect("a level of ours is a directive")))
        }
    }
}

/// Resident memory of this process in bytes; 0 where the kernel does not tell.
pub fn resident_bytes() -> u64 {
    status_kib("VmRSS:") * 1024
}

/// Largest resident memory of this process so far, in bytes; 0 where the kernel does not tell.
pub fn peak_resident_bytes() -> u64 {
    status_kib("VmHWM:") * 1024
}

fn status_kib(field: &str) -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_makes_a_line_of_its_own_or_moves_the_cursor() {
        let (reader, writer) = io::pipe().unwrap();
        let subscriber = SubscriberBuilder::default()
            .with_writer(move || writer.try_clone().unwrap())
            .with_ansi(false)
            .fmt_fields(plain_fields())
            .finish();
        let hostile = "a\n2026-01-01T00:00:00Z ERROR reticle: forged\r\u{1b}[2J\u{9b}\u{202e}";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(file = hostile, also = %hostile, debug = ?hostile, "seen: {hostile}");
        });
        let said = io::read_to_string(reader).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!said.trim_end().contains(plain_text::is_active), "{said:?}");
        assert!(said.contains("seen: a\\n2026") && said.contains(" also=a\\n2026"), "{said}");
    }

    #[test]
    fn the_environment_overrides_the_configured_level() {
        let options = Options { level: Level::Debug, ..Options::default() };
        assert_eq!(filter(&options, None).unwrap().to_string(), "reticle=debug,warn");
        assert_eq!(filter(&options, Some(" ")).unwrap().to_string(), "reticle=debug,warn");
        assert_eq!(filter(&options, Some("trace")).unwrap().to_string(), "trace");
    }

    #[test]
    fn without_a_journal_the_log_goes_to_stderr_as_text_and_says_why() {
        let missing = || Err(io::Error::from(io::ErrorKind::NotFound));
        let (form, why) = form(Format::Journal, missing);
        assert!(matches!(form, Form::Text));
        assert_eq!(why.map(|error| error.kind()), Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn a_journal_is_not_looked_for_unless_asked_for() {
        let asked = || panic!("nobody asked for the journal");
        assert!(matches!(form(Format::Text, asked), (Form::Text, None)));
        assert!(matches!(form(Format::Json, asked), (Form::Json, None)));
    }

    #[test]
    fn a_filter_that_is_none_is_refused_with_what_to_write() {
        let error = filter(&Options::default(), Some("reticle=loud")).unwrap_err().to_string();
        assert!(error.starts_with("RETICLE_LOG=`reticle=loud` is no log filter ("), "{error}");
        assert!(error.contains("write a level as `debug`"), "{error}");
    }
}
