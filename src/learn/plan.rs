//! The order in which a network is worked off: what is read, and where the result goes.

use super::net::{Net, STEM};

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
    edge: usize,
    pub(super) steps: Vec<Step>,
    /// Blocks and edge of each slot.
    pub(super) sizes: Vec<(usize, usize)>,
    next_layer: usize,
}

impl<'a> Plan<'a> {
    /// For images of `edge × edge`.
    pub(super) fn new(net: &'a Net, edge: usize) -> Self {
        let mut plan = Self { net, edge, steps: Vec::new(), sizes: Vec::new(), next_layer: 0 };
        plan.lay_out();
        plan
    }

    /// The same order as [`Net`]'s layers and [`super::export`]'s graph.
    fn lay_out(&mut self) {
        let stem_columns = self.net.layers[0].shape().from;
        let input = self.slot(stem_columns, self.edge / STEM.1);
        let stem = self.convolved(input, None);
        let mut down = Vec::new();
        let mut current = stem;
        for _ in 0..3 {
            let (blocks, edge) = self.sizes[current];
            let to = self.slot(blocks, edge / 2);
            self.steps.push(Step::Pool { from: current, to });
            let entered = self.convolved(to, None);
            current = self.convolved(entered, Some(entered));
            down.push(current);
        }
        down.pop();
        while let Some(finer) = down.pop() {
            let risen = self.risen(current, finer, false);
            current = self.convolved(risen, None);
        }
        let full = self.risen(current, stem, true);
        self.convolution(full);
    }

    fn convolved(&mut self, from: Slot, skip: Option<Slot>) -> Slot {
        let layer = self.next_layer;
        let convolved = self.convolution(from);
        let (blocks, edge) = self.sizes[convolved];
        let to = self.slot(blocks, edge);
        self.steps.push(Step::Activate { layer, from: convolved, skip, to });
        to
    }

    fn convolution(&mut self, from: Slot) -> Slot {
        let layer = self.next_layer;
        self.next_layer += 1;
        let to = self.slot(self.net.layers[layer].shape().to, self.sizes[from].1);
        self.steps.push(Step::Convolve { layer, from, to });
        to
    }

    fn risen(&mut self, from: Slot, finer: Slot, rectify: bool) -> Slot {
        let squeezed = self.convolution(from);
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
