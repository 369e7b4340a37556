//! The inference engine.
//!
//! It owns the arithmetic of a network that is used: convolutions with what surrounds them, with
//! the widest vectors that the processor has (AVX-512, AVX2 or NEON, found at run time by
//! pulp). It promises:
//!
//! - the same input gives the same output to the bit, whatever ran in the workspace before and
//!   whatever vectors the processor has;
//! - a run allocates nothing and runs on the caller's thread alone: to use more cores, run
//!   several workspaces side by side;
//! - the result is that of the network's definition up to rounding (the tests say how far).
//!
//! A [`Graph`] says what the network computes. [`Engine::new`] chooses a kernel for each part
//! and brings the weights into the order in which they are used. A [`Workspace`] is the memory
//! for one size of image.

#![expect(
    clippy::needless_range_loop,
    reason = "arrays of vectors stay in registers only where every index is a constant"
)]

mod direct;
mod peak;
mod program;
#[cfg(test)]
mod reference;
mod resample;
mod stem;
#[cfg(test)]
mod tests;
mod vector;
mod winograd;
mod workspace;

use pulp::Arch;

pub use program::Unfit;
pub use workspace::Workspace;

use crate::block::CHANNELS;
use crate::graph::{Graph, Node};
use crate::planes::{Planes, Shape};
use program::{Kernel, Step};
use resample::Pooling;
use vector::{Addend, Finish};

/// One step of a run, for those who measure: a convolution and what it takes along, or what no
/// convolution could take along.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Layer {
    /// What computes it: `stem`, `winograd`, `direct`, `pool` or `pass`.
    pub kernel: &'static str,
    /// Width and height of the window that one pixel sees.
    pub size: usize,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Rows of the map that it computes, before a doubling that it takes along.
    pub height: usize,
    /// Columns of that map.
    pub width: usize,
    /// That the definition of the convolution has; 0 for what is none.
    pub multiply_adds: u64,
    /// That are done for it, with channels filled up to blocks; of Winograd's algorithm its products,
    /// a quarter with maps filled up to whole tiles, and not its two transforms.
    pub multiply_adds_done: u64,
}

/// Most nodes of a network: the largest that are in use for images have some hundred, and what is
/// kept between steps is found in time that grows with the square of them.
const MOST_NODES: usize = 10_000;

/// A network ready to run.
#[derive(Debug)]
pub struct Engine {
    arch: Arch,
    channels: usize,
    steps: Vec<Step>,
}

impl Engine {
    /// Prepares a network, once for all sizes.
    ///
    /// # Errors
    /// When it is not one that this engine runs.
    pub fn new(graph: &Graph) -> Result<Self, Unfit> {
        Self::with_arch(graph, Arch::new())
    }

    /// As [`Self::new`], for a vector extension that may not be the widest one.
    fn with_arch(graph: &Graph, arch: Arch) -> Result<Self, Unfit> {
        if graph.nodes().len() > MOST_NODES {
            return Err(Unfit { node: MOST_NODES, reason: "it has too many nodes" });
        }
        let Node::Image(channels) = graph.nodes()[0] else {
            unreachable!("a graph begins with its input, by construction");
        };
        Ok(Self { arch, channels, steps: program::steps(graph)? })
    }

    /// Memory for runs on images of `height × width` pixels.
    ///
    /// # Errors
    /// When the network does not take images of this size.
    pub fn workspace(&self, height: usize, width: usize) -> Result<Workspace, Unfit> {
        Workspace::new(&self.steps, Shape { channels: self.channels, height, width })
    }

    /// Runs the network on the image in the workspace, which must be one of this engine.
    pub fn run<'a>(&self, workspace: &'a mut Workspace) -> &'a Planes {
        self.run_watched(workspace, |_| ())
    }

    /// As [`Self::run`]; `done` hears the number of every step ([`Self::layers`]) when it is done.
    pub fn run_watched<'a>(
        &self,
        workspace: &'a mut Workspace,
        mut done: impl FnMut(usize),
    ) -> &'a Planes {
        let mut last = 0;
        for number in 0..self.steps.len() {
            self.step(number, workspace);
            done(number);
            last = workspace.routes[number].to;
        }
        &workspace.maps[last]
    }

    /// What every step is, when it runs in `workspace`.
    pub fn layers(&self, workspace: &Workspace) -> Vec<Layer> {
        let layer = |(step, route): (&Step, &workspace::Route)| {
            let inputs =
                route.from.map_or(self.channels, |from| workspace.maps[from].shape().channels);
            let output = workspace.maps[route.to].shape();
            let factor = if step.tail.doubled { 2 } else { 1 };
            let (height, width) = (output.height / factor, output.width / factor);
            let size = step.window.size;
            let outputs = output.channels;
            let taps = height * width * size * size;
            let all = taps * inputs * outputs;
            let filled = |channels: usize| channels.next_multiple_of(CHANNELS);
            let (kernel, all, done) = match step.kernel {
                Kernel::Stem(_) => ("stem", all, taps * inputs * filled(outputs)),
                Kernel::Winograd(_) => {
                    let products = winograd::products(height, width);
                    ("winograd", all, products * filled(inputs) * filled(outputs))
                }
                Kernel::Direct(_) => ("direct", all, taps * filled(inputs) * filled(outputs)),
                Kernel::Pool => ("pool", 0, 0),
                Kernel::Pass => ("pass", 0, 0),
            };
            Layer {
                kernel,
                size,
                inputs,
                outputs,
                height,
                width,
                multiply_adds: all as u64,
                multiply_adds_done: done as u64,
            }
        };
        self.steps.iter().zip(&workspace.routes).map(layer).collect()
    }

    /// Floating-point operations a second that one core does at most with the vectors that this
    /// engine uses, measured now; takes some milliseconds.
    pub fn peak_flops(&self) -> f64 {
        peak::flops(self.arch)
    }

    fn step(&self, number: usize, workspace: &mut Workspace) {
        let step = &self.steps[number];
        let route = workspace.routes[number];
        // Taken out, so that the other maps can be read while these are written.
        let mut output = std::mem::take(&mut workspace.maps[route.to]);
        let mut pooled = route.pooled.map(|pooled| std::mem::take(&mut workspace.maps[pooled]));
        let Workspace { image, phases, scratch, maps, .. } = workspace;
        let input = || &maps[route.from.expect("only the stem has no map to read")];
        let finish = Finish {
            bias: &step.bias,
            add: match route.add {
                None => Addend::Nothing,
                Some(add) if add == route.to => Addend::Output,
                Some(add) => Addend::Map(&maps[add]),
            },
            activation: step.tail.activation,
        };
        let doubled = step.tail.doubled;
        let pooling = pooled.as_mut().map(Pooling::new);
        let out = &mut output;
        match &step.kernel {
            Kernel::Stem(stem) => {
                let phases = phases.as_mut().expect("a workspace for a stem has its phases");
                stem.split(image, phases);
                self.arch.dispatch(stem::Run { stem, phases, finish, output: out, pooling });
            }
            Kernel::Winograd(winograd) => self.arch.dispatch(winograd::Run {
                winograd,
                input: input(),
                scratch,
                finish,
                output: out,
                pooling,
            }),
            Kernel::Direct(direct) => self.arch.dispatch(direct::Run {
                direct,
                input: input(),
                finish,
                doubled,
                output: out,
                pooling,
            }),
            Kernel::Pool => self.arch.dispatch(resample::Pool { input: input(), output: out }),
            Kernel::Pass => {
                self.arch.dispatch(resample::Pass { input: input(), finish, doubled, output: out })
            }
        }
        if let (Some(place), Some(pooled)) = (route.pooled, pooled) {
            workspace.maps[place] = pooled;
        }
        workspace.maps[route.to] = output;
    }
}
