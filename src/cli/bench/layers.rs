//! `reticle bench --layers`: where the network's time goes, layer by layer, and how near each comes
//! to what the processor can do.

use std::io::Write;
use std::num::NonZeroUsize;

use anyhow::Context;
use serde_json::json;

use super::super::out;
use super::{median, report};
use reticle_base::clock::thread_cpu;
use reticle_nn::engine::{Engine, Layer, Workspace};
use reticle_nn::onnx;
use reticle_segment::package::ModelPackage;

/// Runs of each tile unless the user says how many.
const RUNS: NonZeroUsize = NonZeroUsize::new(30).expect("it is not zero");

/// Runs that are not counted: they bring weights and maps into the caches.
const UNCOUNTED: usize = 3;

/// What the network took on one size of tile, on one thread. CPU times are medians over the runs.
#[derive(serde::Serialize)]
struct Tile {
    /// Width and height, pixels.
    edge: u32,
    cpu_ms: f64,
    layers: Vec<Timed>,
}

#[derive(serde::Serialize)]
struct Timed {
    #[serde(flatten)]
    layer: Layer,
    cpu_ms: f64,
}

/// Measures the network of `model` on tiles of `edges` and prints its layers.
///
/// # Errors
/// When the model cannot be used, or does not take tiles of such a size.
pub(super) fn run(
    model: &str,
    edges: &[u32],
    runs: Option<NonZeroUsize>,
    json: bool,
) -> anyhow::Result<()> {
    let package = ModelPackage::find(model)?;
    let not_ours = "only networks that Reticle's own engine runs have layers to measure";
    let graph = onnx::read(package.network()).context(not_ours)?;
    let engine = Engine::new(&graph).context(not_ours)?;
    let runs = runs.unwrap_or(RUNS).get();
    // A size that is refused is known before anything is measured.
    let workspaces = edges
        .iter()
        .map(|&edge| workspace(&engine, edge))
        .collect::<anyhow::Result<Vec<Workspace>>>()?;
    let peak_gflops = engine.peak_flops() / 1e9;
    let tiles: Vec<Tile> = std::iter::zip(edges, workspaces)
        .map(|(&edge, mut workspace)| measure(&engine, edge, &mut workspace, runs))
        .collect();
    let mut out = out::stdout();
    let name = &package.manifest().name;
    let processor = report::processor();
    if json {
        let document = json!({
            "processor": processor, "model": name, "runs": runs, "peak_gflops": peak_gflops,
            "tiles": tiles,
        });
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{processor}, one thread, model {name}; medians of {runs} runs")?;
    writeln!(out, "the processor does {peak_gflops:.0} GFLOP/s at most")?;
    for tile in &tiles {
        write!(out, "{}", table(tile, peak_gflops))?;
    }
    Ok(())
}

fn workspace(engine: &Engine, edge: u32) -> anyhow::Result<Workspace> {
    engine.workspace(edge as usize, edge as usize).with_context(|| {
        format!("the network takes no tiles of {edge}×{edge}; edges are multiples of 16 as a rule")
    })
}

fn measure(engine: &Engine, edge: u32, workspace: &mut Workspace, runs: usize) -> Tile {
    let layers = engine.layers(workspace);
    for (at, pixel) in workspace.image_mut().iter_mut().enumerate() {
        *pixel = (at * 7919 % 1000) as f32 / 1000.0;
    }
    for _ in 0..UNCOUNTED {
        engine.run(workspace);
    }
    let times: Vec<Vec<f64>> = (0..runs).map(|_| one(engine, workspace, layers.len())).collect();
    let layers = layers.into_iter().enumerate().map(|(number, layer)| {
        let cpu_ms = median(times.iter().map(|run| run[number]));
        Timed { layer, cpu_ms }
    });
    let cpu_ms = median(times.iter().map(|run| run.iter().sum()));
    Tile { edge, cpu_ms, layers: layers.collect() }
}

/// CPU ms of every layer in one run.
fn one(engine: &Engine, workspace: &mut Workspace, layers: usize) -> Vec<f64> {
    let mut times = vec![0.0; layers];
    let mut last = thread_cpu();
    engine.run_watched(workspace, |number| {
        let now = thread_cpu();
        times[number] = (now - last).as_secs_f64() * 1e3;
        last = now;
    });
    times
}

/// A multiply-add is two operations.
fn gflops(multiply_adds: u64, cpu_ms: f64) -> f64 {
    2.0 * multiply_adds as f64 / cpu_ms / 1e6
}

/// `GFLOP/s` is by the network's definition, `of peak` by what is done for it.
fn table(tile: &Tile, peak_gflops: f64) -> String {
    let Tile { edge, cpu_ms: whole_ms, layers } = tile;
    let line = |name: &str, multiply_adds: u64, done: u64, cpu_ms: f64| {
        format!(
            "{name:<36} {:>8.1} {cpu_ms:>8.3} {:>5.0}% {:>9.0} {:>7.2}\n",
            multiply_adds as f64 / 1e6,
            100.0 * cpu_ms / whole_ms,
            gflops(multiply_adds, cpu_ms),
            gflops(done, cpu_ms) / peak_gflops
        )
    };
    let mut text = format!("\ntile {edge}×{edge}\n");
    text += "layer                                    MMAC   CPU ms  share   GFLOP/s of peak\n";
    for Timed { layer, cpu_ms } in layers {
        let Layer { kernel, size, inputs, outputs, height, width, .. } = layer;
        let name = format!("{kernel} {size}×{size}, {inputs} to {outputs} at {width}×{height}");
        text += &line(&name, layer.multiply_adds, layer.multiply_adds_done, *cpu_ms);
    }
    let sum = |of: fn(&Layer) -> u64| layers.iter().map(|timed| of(&timed.layer)).sum();
    text + &line(
        "all",
        sum(|layer| layer.multiply_adds),
        sum(|layer| layer.multiply_adds_done),
        *whole_ms,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Engine {
        let package = ModelPackage::find("nuclei").unwrap();
        Engine::new(&onnx::read(package.network()).unwrap()).unwrap()
    }

    #[test]
    fn the_layers_have_the_networks_multiply_adds_and_shares_of_its_time() {
        let engine = shipped();
        let tile = measure(&engine, 80, &mut workspace(&engine, 80).unwrap(), 3);
        let sum: u64 = tile.layers.iter().map(|timed| timed.layer.multiply_adds).sum();
        // 0.28 GMAC for 256².
        let whole = sum as f64 * (256.0_f64 / 80.0).powi(2) / 1e9;
        assert!((whole - 0.277).abs() < 0.001, "{whole}");
        assert!(tile.layers.iter().all(|timed| timed.cpu_ms > 0.0));
        // At the coarsest level 5×5 pixels take two by two tiles of 36 products.
        let coarsest = tile.layers.iter().map(|timed| &timed.layer);
        let coarsest = coarsest.filter(|layer| layer.kernel == "winograd" && layer.width == 5);
        let done: Vec<u64> = coarsest.map(|layer| layer.multiply_adds_done).collect();
        assert_eq!(done, [4 * 36 * 64 * 96, 4 * 36 * 96 * 96]);
        let text = table(&tile, 100.0);
        assert!(text.lines().any(|line| line.starts_with("stem ")), "{text}");
        let widths: Vec<usize> = text.lines().skip(2).map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn a_size_that_the_network_does_not_take_is_refused() {
        let words = format!("{:#}", workspace(&shipped(), 100).unwrap_err());
        assert!(words.contains("no tiles of 100×100"), "{words}");
    }
}
