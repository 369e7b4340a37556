//! `reticle check`: looks over this box and says what is right, what is wrong and what to do.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use super::{Outcome, out};
use crate::capture::SourceSpec;
use crate::check::{self, CheckReport, Item, Request, Verdict};
use reticle_base::clock::Clock;

/// Columns of the shape, the word and the name, which go before what was found.
const NAME_COLUMNS: usize = 13;

/// Look over this box: what is right, what is wrong, what to do
///
/// Looks at the configuration, source, model (its golden frame), data folder, disk, memory,
/// clock, temperature, throttling, archive, central database, message broker,
/// certificates, permissions and port. A running daemon is not disturbed. Ends with exit code 0
/// when nothing is wrong (what wants a look is not), with 1 when something is.
///
/// With --json: one object with `folder`, `running` (a daemon is at work there), `verdict` (the
/// worst) and `items`, each with `name`, `verdict` (`ok`, `warn`, `fail`, `skipped`), `found`,
/// `todo` (or null) and `runbook` (the section that says more). These names stay.
#[derive(clap::Args)]
pub struct Args {
    /// Configuration file [default: /etc/reticle/reticle.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder [default: as configured]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where frames come from: virtual, folder:PATH or v4l:/dev/videoN [default: as configured]
    #[arg(long, value_name = "SPEC")]
    source: Option<SourceSpec>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Looks over the box.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let Args { config, data, source, json } = args;
    let report = check::check(&Request { config, data, source }, &Clock::system());
    let mut out = out::stdout();
    if json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)
    } else {
        print(&mut out, &report)
    }
    .context("cannot write to standard output")?;
    Ok(if report.verdict == Verdict::Fail { Outcome::WithFailures } else { Outcome::Fine })
}

/// A shape and a word, so that neither colour nor a font is needed.
fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "✓ ok     ",
        Verdict::Warn => "▲ look   ",
        Verdict::Fail => "✕ wrong  ",
        Verdict::Skipped => "○ skipped",
    }
}

fn print(out: &mut impl Write, report: &CheckReport) -> std::io::Result<()> {
    if let Some(folder) = report.folder.as_ref().filter(|_| report.running) {
        let folder = folder.display();
        writeln!(out, "A daemon is running on {folder}; it is not disturbed.")?;
    }
    for Item { name, verdict, found, todo, runbook } in &report.items {
        writeln!(out, "{}  {name:<NAME_COLUMNS$}  {found}", sign(*verdict))?;
        if let Some(todo) = todo {
            let indent = " ".repeat(9 + 2 + NAME_COLUMNS + 2);
            writeln!(out, "{indent}→ {todo}")?;
            writeln!(out, "{indent}  ({runbook})")?;
        }
    }
    let count =
        |verdict| report.items.iter().filter(|item: &&Item| item.verdict == verdict).count();
    writeln!(
        out,
        "{} ok, {} to look at, {} wrong, {} skipped",
        count(Verdict::Ok),
        count(Verdict::Warn),
        count(Verdict::Fail),
        count(Verdict::Skipped)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_line_by_line() {
        let item = |name, verdict, found: &str, todo: Option<&str>| Item {
            name,
            verdict,
            found: found.to_owned(),
            todo: todo.map(str::to_owned),
            runbook: format!("docs/runbook.md#check-{name}"),
        };
        let report = CheckReport {
            folder: Some("data".into()),
            running: true,
            verdict: Verdict::Fail,
            items: vec![
                item("model", Verdict::Ok, "nuclei", None),
                item("disk", Verdict::Fail, "1 MB free", Some("free some")),
                item("temperature", Verdict::Skipped, "no sensor", None),
            ],
        };
        let mut text = Vec::new();
        print(&mut text, &report).unwrap();
        insta::assert_snapshot!(String::from_utf8(text).unwrap(), @r"
        A daemon is running on data; it is not disturbed.
        ✓ ok       model          nuclei
        ✕ wrong    disk           1 MB free
                                  → free some
                                    (docs/runbook.md#check-disk)
        ○ skipped  temperature    no sensor
        1 ok, 0 to look at, 1 wrong, 1 skipped
        ");
    }
}
