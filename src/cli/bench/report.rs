//! What `reticle bench` prints: a table for people, or one JSON document.

use std::io::Write;
use std::num::NonZeroUsize;

use serde_json::{Value, json};

use super::super::out;
use super::{Bench, FRAMES, LARGE_FRAMES, Row};

const HEAD: &str = "    frame  threads    drawn  objects   frames/s   wall ms   CPU ms | decode  normalise  network  instances  measure | peak MB";

/// Prints what was measured with these numbers of threads.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn print(bench: &Bench, threads: &[NonZeroUsize], json: bool) -> anyhow::Result<()> {
    let mut out = out::stdout();
    if json {
        serde_json::to_writer_pretty(&mut out, &document(bench, threads))?;
        writeln!(out)?;
        return Ok(());
    }
    let model = bench.model.as_ref().map_or("", |model| &*model.name);
    let frames = bench.frames.map_or_else(
        || format!("{FRAMES} frames, above 4096×4096 pixels of {LARGE_FRAMES}"),
        |frames| format!("{frames} frames"),
    );
    writeln!(out, "{}, model {model}; medians of {frames}", processor())?;
    writeln!(out, "{HEAD}")?;
    for row in &bench.rows {
        writeln!(out, "{}", line(row))?;
    }
    writeln!(out, "{}", bench.warmth.course().words())?;
    Ok(())
}

/// Keys are only ever added: benches read them.
fn document(bench: &Bench, threads: &[NonZeroUsize]) -> Value {
    let course = bench.warmth.course();
    json!({
        "processor": processor(),
        // The most; each row has its own.
        "threads": threads.iter().max(),
        "model": bench.model.as_deref(),
        "temperature": course.span,
        "throttled": course.throttled,
        "rows": bench.rows,
    })
}

fn line(row: &Row) -> String {
    let size = format!("{}×{}", row.width, row.height);
    let drawn = row.drawn_objects.map_or_else(|| "–".to_owned(), |drawn| drawn.to_string());
    let line = format!(
        "{size:>9}  {:>7}  {drawn:>7}  {:>7}   {:>8.1}   {:>7.1}   {:>6.1} | {:>6.1}  {:>9.1}  {:>7.1}  {:>9.1}  {:>7.1} | {:>7.0}  {}",
        row.threads,
        row.objects,
        row.frames_per_second,
        row.wall_ms,
        row.cpu_ms,
        row.decode_cpu_ms,
        row.normalise_cpu_ms,
        row.network_cpu_ms,
        row.instances_cpu_ms,
        row.measure_cpu_ms,
        row.peak_memory_mb,
        row.image.as_deref().unwrap_or_default()
    );
    line.trim_end().to_owned()
}

/// The processor's name, else its architecture.
pub(super) fn processor() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?.to_owned();
            line.split_once(':').map(|(_, name)| name.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            image: None,
            width: 8192,
            height: 8192,
            threads: 2,
            frames: 3,
            drawn_objects: Some(20_000),
            objects: 19_876,
            frames_per_second: 0.4,
            wall_ms: 2500.25,
            cpu_ms: 4800.5,
            decode_cpu_ms: 0.0,
            normalise_cpu_ms: 60.1,
            network_cpu_ms: 4100.2,
            instances_cpu_ms: 500.1,
            measure_cpu_ms: 140.1,
            peak_memory_mb: 1812.4,
        }
    }

    #[test]
    fn the_columns_of_the_largest_frames_stand_under_their_heads() {
        let line = line(&row());
        let ends = |text: &str| -> Vec<usize> {
            let chars: Vec<char> = text.chars().chain([' ']).collect();
            let is_end = |at: &usize| chars[*at] != ' ' && chars[*at + 1] == ' ';
            (0..chars.len() - 1).filter(is_end).collect()
        };
        // "wall ms" and its like are two words: of each head its last one counts.
        let wanted: Vec<usize> =
            ends(HEAD).into_iter().filter(|end| ends(&line).contains(end)).collect();
        assert_eq!(wanted, ends(&line), "\n{HEAD}\n{line}");
    }

    #[test]
    fn a_row_keeps_the_keys_that_benches_read() {
        let drawn = serde_json::to_value(row()).unwrap();
        assert_eq!((&drawn["drawn_objects"], &drawn["threads"]), (&json!(20_000), &json!(2)));
        let image = Row { image: Some("a.tif".into()), drawn_objects: None, ..row() };
        let image = serde_json::to_value(image).unwrap();
        assert_eq!(image["image"], "a.tif");
        for key in ["width", "height", "objects", "frames_per_second", "wall_ms", "cpu_ms"] {
            assert!(image[key].is_number(), "{key}");
        }
        for stage in ["decode", "normalise", "network", "instances", "measure"] {
            assert!(image[format!("{stage}_cpu_ms")].is_number(), "{stage}");
        }
        assert!(image["peak_memory_mb"].is_number() && image.get("drawn_objects").is_none());
    }
}
