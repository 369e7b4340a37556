//! Runs a network from a file on square images of one channel: by the [`engine`](crate::engine), or
//! by tract where the engine does not know the network and the feature `tract` is on.
//!
//! Several threads may run images side by side; each takes a workspace of its own, and workspaces
//! are kept for the next image.

use std::sync::{Mutex, PoisonError};

use crate::engine::{Engine, Workspace};
use crate::onnx;
use crate::planes::Planes;
use crate::run_error::RunError;
#[cfg(feature = "tract")]
use crate::with_tract::WithTract;

/// A network ready to run.
pub struct Runner(By);

enum By {
    Engine {
        engine: Engine,
        idle: Mutex<Idle>,
    },
    #[cfg(feature = "tract")]
    Tract(WithTract),
}

/// Workspaces that are not in use now, for images of some edges, the latest last. Of each edge there
/// are as many as its images were ever run at the same time.
#[derive(Default)]
struct Idle(Vec<(usize, Vec<Workspace>)>);

impl Idle {
    /// Edges kept: that of the frames' tiles, that of the window in which sizes are estimated, and
    /// one of other frames in between.
    const EDGES: usize = 3;

    /// Those for images of `edge`.
    fn of(&mut self, edge: usize) -> &mut Vec<Workspace> {
        let known = self.0.iter().position(|(other, _)| *other == edge);
        let entry = known.map_or_else(|| (edge, Vec::new()), |at| self.0.remove(at));
        if self.0.len() == Self::EDGES {
            self.0.remove(0);
        }
        self.0.push(entry);
        let last = self.0.len() - 1;
        &mut self.0[last].1
    }
}

impl Runner {
    /// Reads a network from ONNX. Whether it takes an image, the first run shows.
    ///
    /// # Errors
    /// When the engine does not know the network and there is no tract.
    pub fn new(onnx: Vec<u8>) -> Result<Self, RunError> {
        let engine = onnx::read(&onnx)
            .map_err(|error| error.to_string())
            .and_then(|graph| Engine::new(&graph).map_err(|error| error.to_string()));
        match engine {
            Ok(engine) => Ok(Self(By::Engine { engine, idle: Mutex::default() })),
            Err(reason) => Self::other(onnx, reason),
        }
    }

    /// Whether the engine runs it, which gives the same bits on every processor; tract does not
    /// promise that.
    pub fn is_exact(&self) -> bool {
        matches!(self.0, By::Engine { .. })
    }

    #[cfg(feature = "tract")]
    fn other(onnx: Vec<u8>, reason: String) -> Result<Self, RunError> {
        tracing::warn!(%reason, "the network will run several times slower than it could");
        Ok(Self::with_tract(onnx))
    }

    #[cfg(not(feature = "tract"))]
    fn other(_: Vec<u8>, reason: String) -> Result<Self, RunError> {
        Err(RunError::run(reason))
    }

    /// A network that tract runs, whether the engine knows it or not: to compare the two.
    #[cfg(feature = "tract")]
    pub fn with_tract(onnx: Vec<u8>) -> Self {
        Self(By::Tract(WithTract::new(onnx)))
    }

    /// Runs one image of `edge × edge` that `fill` writes; `read` gets the maps that come out.
    ///
    /// # Errors
    /// When the network does not take such an image.
    pub fn run<T>(
        &self,
        edge: usize,
        fill: impl FnOnce(&mut [f32]),
        read: impl FnOnce(&Planes) -> T,
    ) -> Result<T, RunError> {
        match &self.0 {
            By::Engine { engine, idle } => {
                let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
                let waiting = lock().of(edge).pop();
                let mut workspace = match waiting {
                    Some(workspace) => workspace,
                    None => engine
                        .workspace(edge, edge)
                        .map_err(|error| RunError::run(error.to_string()))?,
                };
                let image = workspace.image_mut();
                if image.len() != edge * edge {
                    let channels = image.len() / edge / edge;
                    return Err(RunError::run(format!("it takes {channels} channels, not one")));
                }
                fill(image);
                let read = read(engine.run(&mut workspace));
                lock().of(edge).push(workspace);
                Ok(read)
            }
            #[cfg(feature = "tract")]
            By::Tract(tract) => {
                let mut image = vec![0.0; edge * edge];
                fill(&mut image);
                let maps = tract.run(&image, edge)?;
                Ok(read(&maps))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Conv, Graph, Node, Window};

    fn shipped() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nuclei/model.onnx"))
            .unwrap()
    }

    #[test]
    fn the_shipped_network_is_run_by_the_engine() {
        assert!(Runner::new(shipped()).unwrap().is_exact());
    }

    /// A network whose image two convolutions read, which the engine refuses.
    fn foreign() -> Vec<u8> {
        let conv = |name: &str| Conv {
            name: name.to_owned(),
            inputs: 1,
            outputs: 1,
            window: Window { size: 1, stride: 1, pad: 0 },
            weights: vec![2.0],
            bias: vec![0.5],
        };
        let mut graph = Graph::new(1);
        let left = graph.push(Node::Conv(0, conv("left")));
        let right = graph.push(Node::Conv(0, conv("right")));
        graph.push(Node::Add(left, right));
        let size = ["height", "width"];
        onnx::write(&graph, &onnx::Output { image: "image", maps: "maps", size })
    }

    /// What a file that was made to take all memory holds: few bytes, and sizes without a bound.
    #[test]
    fn a_network_that_wants_endless_memory_is_refused() {
        let refused = |graph: &Graph| {
            let engine = Engine::new(graph);
            let error = match engine.and_then(|engine| engine.workspace(256, 256).map(drop)) {
                Err(error) => error.to_string(),
                Ok(()) => panic!("it is taken"),
            };
            assert!(error.contains("too"), "{error}");
        };
        let conv = |inputs: usize, outputs: usize| Conv {
            name: "conv".to_owned(),
            inputs,
            outputs,
            window: Window { size: 1, stride: 1, pad: 0 },
            weights: vec![1.0; inputs * outputs],
            bias: vec![0.0; outputs],
        };
        let mut doubled = Graph::new(1);
        let mut last = doubled.push(Node::Conv(0, conv(1, 1)));
        for _ in 0..40 {
            last = doubled.push(Node::Double(last));
        }
        refused(&doubled);
        let mut many = Graph::new(1_000_000);
        many.push(Node::Conv(0, conv(1_000_000, 1)));
        refused(&many);
        let mut wide = Graph::new(1);
        wide.push(Node::Conv(0, conv(1, 1_000_000)));
        refused(&wide);
        let mut long = Graph::new(1);
        for _ in 0..20_000 {
            long.push(Node::Relu(0));
        }
        refused(&long);
    }

    #[cfg(feature = "tract")]
    #[test]
    fn the_engine_gives_what_tract_gives() {
        let noise = |image: &mut [f32]| {
            for (at, pixel) in image.iter_mut().enumerate() {
                *pixel = (at * 7919 % 1000) as f32 / 1000.0;
            }
        };
        let maps = |runner: Runner| runner.run(96, noise, Planes::clone).unwrap();
        let ours = maps(Runner::new(shipped()).unwrap());
        let theirs = maps(Runner::with_tract(shipped()));
        assert_eq!(ours.shape(), theirs.shape());
        for (block, y) in ours.rows() {
            let values = |planes: &Planes| -> Vec<f32> {
                planes.row(block, y).iter().flat_map(|pixel| pixel.0).collect()
            };
            for (ours, theirs) in values(&ours).into_iter().zip(values(&theirs)) {
                assert!((ours - theirs).abs() < 1e-5, "{ours} and {theirs} in row {y}");
            }
        }
    }

    #[cfg(feature = "tract")]
    #[test]
    fn tract_runs_what_the_engine_does_not_know() {
        let runner = Runner::new(foreign()).unwrap();
        assert!(!runner.is_exact());
        let first = runner.run(16, |image| image.fill(1.0), |maps| maps.row(0, 0)[0].0[0]);
        assert_eq!(first.unwrap(), 5.0);
    }

    #[cfg(not(feature = "tract"))]
    #[test]
    fn without_tract_a_network_that_the_engine_does_not_know_is_refused() {
        let error = Runner::new(foreign()).err().unwrap().to_string();
        assert!(error.contains("cannot run it: node 0 of the network"), "{error}");
    }
}
