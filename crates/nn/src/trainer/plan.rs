//! The order in which a network is worked off: what is read, and where the result goes.

use super::net::Net;
use super::topology::{Operation, STEM, Topology};

/// A place for the values of one layer: its number. Each is written by one step.
pub(super) type Slot = usize;

/// The input's columns.
pub(super) const INPUT: Slot = 0;

/// One thing to do for a batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Convolves with a layer's weights.
    Convolve { layer: usize, from: Slot, to: Slot },
    /// Normalises as a layer says, adds, rectifies. Nothing else reads `from`.
    Activate { layer: usize, from: Slot, skip: Option<Slot>, to: Slot },
    /// Halves the resolution.
    Pool { from: Slot, to: Slot },
    /// Doubles the resolution and adds what is there already; rectifies or not. Nothing else
    /// reads `from`.
    Rise { from: Slot, finer: Slot, rectify: bool, to: Slot },
}

impl Step {
    /// The slot that it writes.
    pub(super) fn to(self) -> Slot {
        match self {
            Self::Convolve { to, .. }
            | Self::Activate { to, .. }
            | Self::Pool { to, .. }
            | Self::Rise { to, .. } => to,
        }
    }
}

/// The steps of a network; the last one gives the logits.
pub(super) struct Plan<'a> {
    net: &'a Net,
    pub(super) steps: Vec<Step>,
    /// Blocks and edge of each slot.
    pub(super) sizes: Vec<(usize, usize)>,
}

impl<'a> Plan<'a> {
    /// For images of `edge × edge`.
    pub(super) fn new(net: &'a Net, edge: usize) -> Self {
        let mut plan = Self { net, steps: Vec::new(), sizes: Vec::new() };
        let stem_columns = net.layers[0].filter().from;
        // Where each value of the topology is.
        let mut slots = vec![plan.slot(stem_columns, edge / STEM.1)];
        for operation in Topology::new(net.widths).operations {
            slots.push(match operation {
                Operation::Convolve { layer, from, skip } => {
                    plan.activated(layer, slots[from], skip.map(|skip| slots[skip]))
                }
                Operation::Pool { from } => plan.pooled(slots[from]),
                Operation::Rise { layer, from, finer, rectify } => {
                    plan.risen(layer, slots[from], slots[finer], rectify)
                }
                Operation::Head { layer, from } => plan.convolved(layer, slots[from]),
            });
        }
        plan
    }

    fn activated(&mut self, layer: usize, from: Slot, skip: Option<Slot>) -> Slot {
        let convolved = self.convolved(layer, from);
        let (blocks, edge) = self.sizes[convolved];
        let to = self.slot(blocks, edge);
        self.steps.push(Step::Activate { layer, from: convolved, skip, to });
        to
    }

    fn convolved(&mut self, layer: usize, from: Slot) -> Slot {
        let to = self.slot(self.net.layers[layer].filter().to, self.sizes[from].1);
        self.steps.push(Step::Convolve { layer, from, to });
        to
    }

    fn pooled(&mut self, from: Slot) -> Slot {
        let (blocks, edge) = self.sizes[from];
        let to = self.slot(blocks, edge / 2);
        self.steps.push(Step::Pool { from, to });
        to
    }

    fn risen(&mut self, layer: usize, from: Slot, finer: Slot, rectify: bool) -> Slot {
        let squeezed = self.convolved(layer, from);
        let (blocks, edge) = self.sizes[finer];
        let to = self.slot(blocks, edge);
        self.steps.push(Step::Rise { from: squeezed, finer, rectify, to });
        to
    }

    fn slot(&mut self, blocks: usize, edge: usize) -> Slot {
        self.sizes.push((blocks, edge));
        self.sizes.len() - 1
    }
}
