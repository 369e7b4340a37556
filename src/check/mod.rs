//! `reticle check`: is this box fit for work, and if not, what to do.
//!
//! - One [`Item`] a subject, in the order of [`NAMES`]; each has its section in
//!   `docs/runbook.md`.
//! - Looks and does not mend. What it writes is one small file in the data folder, removed at
//!   once, and one small object in a bucket (`.reticle/probe-<host>`). At the message broker it is a
//!   client of another name than the daemon, and says nothing.
//! - A daemon at work in the data folder is not disturbed: no lock is taken, no camera opened.
//! - Each probe has a thread and a time limit of its own. One that hangs or panics is one wrong
//!   item; the others are told all the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::capture::SourceSpec;
use crate::config::{self, ConfigError, Settings};
use reticle_base::clock::Clock;

mod certificates;
mod endpoints;
mod files;
mod machine;
mod model;
mod source;

/// How long a probe may take that asks only this machine.
const LOCAL: Duration = Duration::from_secs(10);

/// How long one may take that waits for a frame or a server. Longer than their own limits.
const PATIENT: Duration = Duration::from_secs(30);

/// Making the network ready on a slow processor takes seconds, segmenting as long again.
const MODEL: Duration = Duration::from_secs(120);

/// The subjects, in the order in which they are told. The words stay.
pub const NAMES: [&str; 15] = [
    "configuration",
    "source",
    "model",
    "data",
    "disk",
    "memory",
    "clock",
    "temperature",
    "throttling",
    "archive",
    "central",
    "mqtt",
    "certificates",
    "permissions",
    "port",
];

/// What is to be looked over.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Configuration file; the usual one where none is named.
    pub config: Option<PathBuf>,
    /// Data folder, instead of the configured one.
    pub data: Option<PathBuf>,
    /// Source, instead of the configured one.
    pub source: Option<SourceSpec>,
}

/// How a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It could not be looked at, or is not used here.
    Skipped,
    /// It is right.
    Ok,
    /// It works, and wants a look.
    Warn,
    /// It does not work.
    Fail,
}

/// One subject.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Item {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub found: String,
    /// What to do, where something is to be done.
    pub todo: Option<String>,
    /// Where the runbook says more, as `docs/runbook.md#check-disk`.
    pub runbook: String,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CheckReport {
    /// Data folder that was looked at; `None` where the configuration cannot be read.
    pub folder: Option<PathBuf>,
    /// Whether a daemon is at work in it.
    pub running: bool,
    /// The worst of the items.
    pub verdict: Verdict,
    /// The subjects, in the order of [`NAMES`].
    pub items: Vec<Item>,
}

/// What a probe found.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    found: String,
    todo: Option<String>,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, found: found.into(), todo: None }
    }

    fn skipped(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, found: found.into(), todo: None }
    }

    fn warn(found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, found: found.into(), todo: Some(todo.into()) }
    }

    fn fail(found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, found: found.into(), todo: Some(todo.into()) }
    }

    /// Several things about one subject: the worst verdict, and all that was found of that kind.
    fn worst(findings: Vec<Self>) -> Option<Self> {
        let verdict = findings.iter().map(|finding| finding.verdict).max()?;
        let of_it: Vec<Self> =
            findings.into_iter().filter(|finding| finding.verdict == verdict).collect();
        let found: Vec<&str> = of_it.iter().map(|finding| finding.found.as_str()).collect();
        let found = found.join("; ");
        let todos: Vec<String> = of_it.into_iter().filter_map(|finding| finding.todo).collect();
        let todo = (!todos.is_empty()).then(|| todos.join("; "));
        Some(Self { verdict, found, todo })
    }

    fn about(self, name: &'static str) -> Item {
        let runbook = format!("docs/runbook.md#check-{name}");
        Item { name, verdict: self.verdict, found: self.found, todo: self.todo, runbook }
    }
}

/// What the probes may know.
struct Scene {
    settings: Settings,
    /// Whether a daemon is at work in the data folder.
    running: bool,
    clock: Clock,
}

/// Looks over the box.
pub fn check(request: &Request, clock: &Clock) -> CheckReport {
    let loaded = config::load_explained(request.config.as_deref());
    let (mut settings, configuration) = match loaded {
        Ok(loaded) => (Some(loaded.settings), sound(&loaded.files)),
        Err(error) => (None, unsound(&error)),
    };
    if let Some(settings) = &mut settings {
        if let Some(folder) = &request.data {
            settings.store.folder.clone_from(folder);
        }
        if let Some(spec) = &request.source {
            settings.source.spec.clone_from(spec);
        }
    }
    let folder = settings.as_ref().map(|settings| settings.store.folder.clone());
    let running = folder.as_deref().is_some_and(reticle_store::is_in_use);
    let readable = settings.is_some();
    let settings = settings.unwrap_or_default();
    let scene = Arc::new(Scene { settings, running, clock: clock.clone() });

    let probes: Vec<(&'static str, Duration, Option<Receiver<Finding>>)> = NAMES
        .into_iter()
        .filter_map(|name| {
            let (limit, probe) = probe_of(name)?;
            let is_asked = readable || is_about_the_machine(name);
            Some((name, limit, is_asked.then(|| begin(probe, &scene))))
        })
        .collect();
    let mut items = vec![configuration.about("configuration")];
    items.extend(probes.into_iter().map(|(name, limit, answer)| {
        let finding = match answer {
            Some(answer) => wait(&answer, limit),
            None => Finding::skipped("the configuration cannot be read"),
        };
        finding.about(name)
    }));
    let verdict = items.iter().map(|item| item.verdict).max().unwrap_or(Verdict::Ok);
    CheckReport { folder, running, verdict, items }
}

type Probe = fn(&Scene) -> Finding;

/// How a subject is looked at, and how long that may take. The configuration comes before all.
fn probe_of(name: &str) -> Option<(Duration, Probe)> {
    Some(match name {
        "source" => (PATIENT, source::source),
        "model" => (MODEL, model::model),
        "data" => (LOCAL, files::data),
        "disk" => (LOCAL, machine::disk),
        "memory" => (LOCAL, machine::memory),
        "clock" => (LOCAL, machine::clock),
        "temperature" => (LOCAL, machine::temperature),
        "throttling" => (LOCAL, machine::throttling),
        "archive" => (PATIENT, endpoints::archive),
        "central" => (PATIENT, endpoints::central),
        "mqtt" => (PATIENT, endpoints::mqtt),
        "certificates" => (LOCAL, certificates::certificates),
        "permissions" => (LOCAL, files::permissions),
        "port" => (LOCAL, endpoints::port),
        _ => return None,
    })
}

/// Whether the subject can be looked at without a configuration.
fn is_about_the_machine(name: &str) -> bool {
    matches!(name, "clock" | "temperature" | "throttling")
}

/// Starts a probe. Its thread is not waited for: one that hangs ends with the process.
fn begin(probe: Probe, scene: &Arc<Scene>) -> Receiver<Finding> {
    let (sender, receiver) = sync_channel(1);
    let scene = Arc::clone(scene);
    // Without a thread the sender is dropped, which the receiver hears.
    drop(thread::Builder::new().name("check".to_owned()).spawn(move || {
        // Nobody listens where it took too long.
        sender.send(probe(&scene)).ok();
    }));
    receiver
}

fn wait(answer: &Receiver<Finding>, limit: Duration) -> Finding {
    match answer.recv_timeout(limit) {
        Ok(finding) => finding,
        Err(RecvTimeoutError::Timeout) => Finding::fail(
            format!("no answer within {} s", limit.as_secs()),
            "something hangs: the device, the disk or the network; see the system's log",
        ),
        Err(RecvTimeoutError::Disconnected) => Finding::fail(
            "the check itself failed",
            "report this as a defect, with what is on standard error",
        ),
    }
}

fn sound(files: &[PathBuf]) -> Finding {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    if names.is_empty() {
        return Finding::ok(format!("no {}; everything has its default", config::DEFAULT_FILE));
    }
    Finding::ok(names.join(", "))
}

fn unsound(error: &ConfigError) -> Finding {
    let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    Finding::fail(
        problems.join("; "),
        "correct the file, then `reticle config check`; `reticle config default` explains every key",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Arc<Scene> {
        let (settings, clock) = (Settings::default(), Clock::manual(0));
        Arc::new(Scene { settings, running: false, clock })
    }

    #[test]
    fn every_subject_has_a_probe_and_a_section_in_the_runbook() {
        let runbook = include_str!("../../docs/runbook.md");
        for name in NAMES {
            assert!(name == "configuration" || probe_of(name).is_some(), "{name}");
            assert!(runbook.contains(&format!("\n## check-{name}\n")), "{name}");
        }
    }

    #[test]
    fn a_probe_that_hangs_or_panics_is_a_wrong_item() {
        let hangs: Probe = |_| loop {
            thread::park();
        };
        let finding = wait(&begin(hangs, &scene()), Duration::from_millis(10));
        assert_eq!((finding.verdict, finding.todo.is_some()), (Verdict::Fail, true));
        let panics: Probe = |_| panic!("planted");
        let finding = wait(&begin(panics, &scene()), LOCAL);
        assert_eq!(finding.found, "the check itself failed");
    }

    #[test]
    fn of_several_findings_the_worst_is_told() {
        let findings = vec![Finding::ok("a"), Finding::fail("b", "x"), Finding::fail("c", "y")];
        let worst = Finding::worst(findings).unwrap();
        assert_eq!(worst, Finding::fail("b; c", "x; y"));
        assert_eq!(Finding::worst(Vec::new()), None);
    }
}
