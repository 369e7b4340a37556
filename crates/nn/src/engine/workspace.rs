//! The memory of a run: feature maps for one size of image, and what kernels need between.

use super::program::{Kernel, Step, Unfit};
use super::stem::Phases;
use super::winograd::Scratch;
use crate::block::CHANNELS;
use crate::planes::{Planes, Shape, TILE};

/// Everything a run writes to, for one size of image. A run allocates nothing.
#[derive(Debug)]
pub struct Workspace {
    pub(super) image: Vec<f32>,
    pub(super) phases: Option<Phases>,
    pub(super) scratch: Scratch,
    pub(super) maps: Vec<Planes>,
    /// For each step the places in `maps` of its input, of what it adds, and of its outputs.
    pub(super) routes: Vec<Route>,
}

/// Places in the list of maps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// None for the step that reads the image.
    pub(super) from: Option<usize>,
    pub(super) add: Option<usize>,
    pub(super) to: usize,
    pub(super) pooled: Option<usize>,
}

/// Most bytes of one map: a network that wants more is not one for tiles of some hundred pixels, but
/// a file that was made to take all memory.
const LARGEST_MAP: usize = 1 << 30;

/// Whether a map of this shape, filled up to blocks and tiles, is one that there is memory for.
fn is_bounded(shape: Shape, margin: usize) -> bool {
    let edge = |pixels: usize| pixels.checked_add(TILE)?.checked_add(2 * margin);
    let channels = shape.channels.checked_add(CHANNELS);
    let bytes = || {
        channels?
            .checked_mul(edge(shape.height)?)?
            .checked_mul(edge(shape.width)?)?
            .checked_mul(size_of::<f32>())
    };
    bytes().is_some_and(|bytes| bytes <= LARGEST_MAP)
}

impl Workspace {
    pub(super) fn new(steps: &[Step], image: Shape) -> Result<Self, Unfit> {
        let margin = steps.iter().map(|step| step.window.pad).max().unwrap_or(0);
        if !is_bounded(image, margin) {
            return Err(Unfit { node: 0, reason: "it wants an image of too many channels" });
        }
        let mut workspace = Self {
            image: vec![0.0; image.channels * image.height * image.width],
            phases: None,
            scratch: Scratch::default(),
            maps: Vec::new(),
            routes: Vec::new(),
        };
        // The place of the map that each node gave, as long as a later step reads it.
        let mut held: Vec<(usize, usize)> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            let place_of = |node| held.iter().find(|held| held.0 == node).map(|held| held.1);
            let (from, add) = (place_of(step.from), step.tail.add.and_then(place_of));
            let input = from.map_or(image, |from| workspace.maps[from].shape());
            let unfit = |reason| Unfit { node: step.tail.to, reason };
            if step.channels.is_some_and(|(channels, _)| channels != input.channels) {
                return Err(unfit("its weights are for another number of channels"));
            }
            let shape = output_shape(step, input).ok_or(unfit("its input is too small"))?;
            if !is_bounded(shape, margin) {
                return Err(unfit("it makes a map that is too large"));
            }
            if add.is_some_and(|add| workspace.maps[add].shape() != shape) {
                return Err(unfit("it adds maps of different shapes"));
            }
            match &step.kernel {
                Kernel::Stem(stem) => {
                    workspace.phases = Some(stem.phases(image.height, image.width));
                }
                Kernel::Winograd(winograd) => winograd.reserve(&mut workspace.scratch),
                Kernel::Direct(_) | Kernel::Pool | Kernel::Pass => {}
            }
            // A map that nobody will read again makes room for one of the same shape: zeros
            // around it stay where they are.
            let mut place_for = |shape| {
                let fitting = free.iter().position(|&place| workspace.maps[place].shape() == shape);
                fitting.map(|index| free.swap_remove(index)).unwrap_or_else(|| {
                    workspace.maps.push(Planes::new(shape, margin));
                    workspace.maps.len() - 1
                })
            };
            // What is added and not wanted again may be where the result goes, but not while
            // its neighbours are still to be read.
            let ends_here = |&add: &usize| {
                let wanted = |step: &Step| step.from == add || step.tail.add == Some(add);
                add != step.from && !steps[number + 1..].iter().any(wanted)
            };
            let to = if step.tail.add.as_ref().is_some_and(ends_here) {
                held.retain(|&(_, place)| Some(place) != add);
                add.expect("a map that is added is held")
            } else {
                place_for(shape)
            };
            held.push((step.tail.to, to));
            let pooled = step.tail.pooled.map(|node| {
                let Shape { channels, height, width } = shape;
                let place = place_for(Shape { channels, height: height / 2, width: width / 2 });
                held.push((node, place));
                place
            });
            workspace.routes.push(Route { from, add, to, pooled });
            let later = &steps[number + 1..];
            held.retain(|&(node, place)| {
                let wanted = later.is_empty()
                    || later.iter().any(|step| step.from == node || step.tail.add == Some(node));
                if !wanted {
                    free.push(place);
                }
                wanted
            });
        }
        Ok(workspace)
    }

    /// Where the image goes before a run: `[channel][y][x]`.
    pub fn image_mut(&mut self) -> &mut [f32] {
        &mut self.image
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let maps: usize = self.maps.iter().map(Planes::bytes).sum();
        maps + size_of_val(&self.image[..])
            + self.phases.as_ref().map_or(0, Phases::bytes)
            + self.scratch.bytes()
    }
}

fn output_shape(step: &Step, input: Shape) -> Option<Shape> {
    let factor = if step.tail.doubled { 2 } else { 1 };
    let length = |length| step.window.output_length(length)?.checked_mul(factor);
    Some(Shape {
        channels: step.channels.map_or(input.channels, |(_, channels)| channels),
        height: length(input.height)?,
        width: length(input.width)?,
    })
}
