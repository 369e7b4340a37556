//! What the daemon tells Prometheus, and what is made of it in `docs/monitoring`: read, checked and
//! tried with promtool and with Prometheus' Python library, and by name against a running daemon.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reticle::telemetry::metrics::{FAMILIES, Kind};
use reticle_domain::alarm::AlarmKind;
use serde_json::{Value, json};

mod common;

use common::{Daemon, wait_for};

/// Of the names in the design, those that are built (`reticle_update_state` comes with updates).
const DESIGN: [&str; 6] = [
    "reticle_frames_captured_total",
    "reticle_frames_skipped_total",
    "reticle_inference_seconds",
    "reticle_outbox_items",
    "reticle_outbox_oldest_seconds",
    "reticle_storage_free_bytes",
];

/// One value, as Prometheus' Python library read it.
#[derive(Debug, serde::Deserialize)]
struct Sample {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    value: Option<f64>,
}

type Scrape = BTreeMap<String, Sample>;

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring").join(file)
}

fn text(file: &str) -> String {
    std::fs::read_to_string(monitoring(file)).unwrap()
}

/// Gives `input` to a program and returns what it says; panics when it is not content.
fn satisfied(command: &mut Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("{command:?} cannot be started ({error}): run `scripts/setup test`")
    });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let [said, complained] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{complained}", output.status);
    said
}

fn promtool(args: &[&str], input: &str) -> String {
    satisfied(Command::new("promtool").args(args).current_dir(monitoring("")), input)
}

/// `/metrics` as text and as Prometheus' Python library reads it.
fn scrape(daemon: &Daemon) -> (String, Scrape) {
    let text = String::from_utf8(daemon.bytes("/metrics")).unwrap();
    let python = std::env::var_os("RETICLE_READERS_PYTHON").unwrap_or_else(|| "python3".into());
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/metrics.py");
    let found = satisfied(Command::new(python).arg(reader), &text);
    (text, serde_json::from_str(&found).unwrap())
}

/// A daemon that has saved frames and knows how far its destinations are.
fn busy_daemon() -> Daemon {
    let daemon = Daemon::start("virtual");
    wait_for("a saved frame and a destination in the status", || {
        let status = daemon.json("/api/v1/status");
        let saved = status["counters"]["saved"].as_u64()? > 0;
        (saved && !status["sync"].as_array()?.is_empty()).then_some(())
    });
    daemon
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("reticle_"))
        .collect()
}

/// Every query of the dashboard, with the time and the choice of boxes that Grafana fills in.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&text("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets
        .map(|target| target["expr"].as_str().unwrap())
        .map(|query| query.replace("$__rate_interval", "1m").replace("$site", ".*"))
        .map(|query| query.replace("$box", ".*"))
        .collect()
}

#[test]
fn parsers_that_we_did_not_write_accept_the_metrics_and_counters_grow() {
    let daemon = busy_daemon();
    let (text, before) = scrape(&daemon);
    // It complains of names, units, and missing explanations too.
    assert_eq!(promtool(&["check", "metrics"], &text), "");
    // More saved than were captured then: a frame that is on its way when they are read moves only
    // the counters that are still before it.
    let captured = before["reticle_frames_captured_total{}"].value.unwrap();
    wait_for("a frame that was captured later to be saved", || {
        let status = daemon.json("/api/v1/status");
        (status["counters"]["saved"].as_f64()? > captured).then_some(())
    });
    let (_, after) = scrape(&daemon);
    for (series, before) in &before {
        if before.kind != "gauge" {
            let after = after[series].value;
            assert!(after >= before.value, "{series} fell from {:?} to {after:?}", before.value);
        }
    }
    for series in [
        "reticle_frames_captured_total{}",
        "reticle_frames_segmented_total{}",
        "reticle_frames_saved_total{}",
        "reticle_objects_total{}",
        "reticle_inference_seconds_count{}",
        "reticle_inference_seconds_sum{}",
        "reticle_inference_seconds_bucket{le=+Inf}",
        "reticle_stage_seconds_sum{stage=network}",
        "reticle_capture_to_saved_seconds_count{}",
    ] {
        assert!(after[series].value > before[series].value, "{series} does not grow");
    }
    let frames = after["reticle_inference_seconds_count{}"].value.unwrap();
    let segmented = after["reticle_frames_segmented_total{}"].value.unwrap();
    assert!((frames - segmented).abs() <= 2.0, "{frames} times of {segmented} frames");
    assert_eq!(after["reticle_running{}"].value, Some(1.0));
    assert_eq!(after["reticle_source_up{}"].value, Some(1.0));
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_a_daemon_has() {
    let daemon = busy_daemon();
    let (_, scrape) = scrape(&daemon);
    let there: BTreeSet<&str> = scrape.values().map(|sample| sample.name.as_str()).collect();
    for file in ["reticle-alerts.yml", "reticle-alerts-test.yml", "grafana-dashboard.json"] {
        let text = text(file);
        let missing: Vec<_> = named(&text).difference(&there).copied().collect();
        assert_eq!(missing, [""; 0], "{file} names what no daemon has");
    }
    let shown: String = queries().join("\n");
    assert!(named(&shown).len() > 20, "the dashboard shows hardly anything: {shown}");
    for family in FAMILIES {
        let sample = match family.kind {
            Kind::Histogram => format!("{}_bucket", family.name),
            Kind::Counter | Kind::Gauge => family.name.to_owned(),
        };
        assert!(there.contains(sample.as_str()), "{} is not told", family.name);
        let is_shown = named(&shown).iter().any(|name| name.starts_with(family.name));
        assert!(is_shown, "{} is on no panel of the dashboard", family.name);
    }
    for kind in AlarmKind::ALL {
        let series = format!("reticle_alarm{{alarm={}}}", kind.word());
        assert!(scrape.contains_key(&series), "{series} is not told");
    }
}

#[test]
fn every_name_of_the_design_is_built_and_every_name_is_explained_to_people() {
    for name in DESIGN {
        assert!(FAMILIES.iter().any(|family| family.name == name), "{name} is missing");
    }
    let readme = text("README.md");
    for family in FAMILIES {
        let kind = format!("{:?}", family.kind).to_lowercase();
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{}` |", family.name)));
        let row = row.unwrap_or_else(|| panic!("README.md does not explain {}", family.name));
        assert!(row.contains(&format!("| {kind} |")), "{row}");
        assert!(row.ends_with(&format!("| {} |", family.help)), "{row}\nis not: {}", family.help);
    }
    let known: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let unknown: Vec<_> = named(&readme).difference(&known).copied().collect();
    assert_eq!(unknown, [""; 0], "README.md explains what there is not");
}

#[test]
fn promtool_accepts_the_rules_and_sees_every_alert_fire() {
    promtool(&["check", "rules", "reticle-alerts.yml"], "");
    promtool(&["check", "config", "prometheus.yml"], "");
    promtool(&["test", "rules", "reticle-alerts-test.yml"], "");
}

#[test]
fn every_alarm_has_an_alert_and_every_alert_is_tried_both_ways() {
    let (rules, tests) = (text("reticle-alerts.yml"), text("reticle-alerts-test.yml"));
    for kind in AlarmKind::ALL {
        let expr = format!("expr: reticle_alarm{{alarm=\"{}\"}} == 1\n", kind.word());
        let rule = rules.split("      - alert: ").find(|rule| rule.contains(&expr));
        let rule = rule.unwrap_or_else(|| panic!("no alert for {}", kind.word()));
        assert!(rule.contains(&format!("docs/runbook.md#{}\n", kind.word())), "{rule}");
        let severity = if kind.is_urgent() { "critical" } else { "warning" };
        assert!(rule.contains(&format!("severity: {severity}\n")), "{rule}");
    }
    let tried: Vec<&str> = tests.split("- eval_time: ").skip(1).collect();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let of_it = format!("alertname: {alert}\n");
        let of_it = tried.iter().filter(|case| case.contains(&of_it));
        let (quiet, fires): (Vec<&str>, Vec<&str>) =
            of_it.partition(|case| case.contains("exp_alerts: []"));
        assert!(!quiet.is_empty(), "no test shows that {alert} is quiet when all is well");
        assert!(!fires.is_empty(), "no test shows that {alert} fires");
    }
}

#[test]
fn every_query_of_the_dashboard_can_be_asked() {
    let rule = |(number, query)| json!({ "record": format!("panel:{number}"), "expr": query });
    let rules: Vec<Value> = queries().into_iter().enumerate().map(rule).collect();
    let count = rules.len();
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let path = folder.path().join("dashboard.yml");
    let groups = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    serde_json::to_writer(File::create(&path).unwrap(), &groups).unwrap();
    let said = promtool(&["check", "rules", path.to_str().unwrap()], "");
    assert!(said.contains(&format!("{count} rules found")), "{said}");
}
