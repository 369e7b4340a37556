//! The network: a small U-Net with a strided stem and a pixel-shuffle head.
//!
//! ```text
//! image 1 ─6×6 /2─► 16 ───────────────────────────────────────────► + ─3×3─► 12 maps
//!                   └─max─► 32 ═ 3×3 + residual ═ ────► + ═3×3═ ─1×1─┘ ×2
//!                           └─max─► 64 ═ ═ ────► + ═3×3═ ─1×1─┘ ×2
//!                                   └─max─► 96 ═ ═ ─1×1─┘ ×2
//! ```
//!
//! Full-resolution convolutions are what costs, so there is none: the stem halves the
//! resolution and the head gives each of three maps as 2×2 sub-pixels (channel
//! `4·map + 2·dy + dx`). There are no normalisation layers: a frame's result must not
//! depend on what else is in the batch or tile.

use burn::module::{Initializer, Module};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::activation::relu;
use burn::tensor::module::{interpolate, max_pool2d};
use burn::tensor::ops::{InterpolateMode, InterpolateOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor};

/// Maps the network gives, in the order of its channels: foreground, distance, contact.
pub const MAPS: usize = 3;

/// Width and height of an input must be multiples of this: the stem and three poolings halve.
pub const GRANULE: usize = 16;

/// Channels at 1/2, 1/4, 1/8 and 1/16 of the frame's resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Widths(pub [usize; 4]);

impl Default for Widths {
    /// Measured, not derived: 0.27 GMAC for 256², and few channels where pixels are many.
    fn default() -> Self {
        Self([16, 32, 64, 96])
    }
}

/// Two convolutions, the second one residual.
#[derive(Module, Debug)]
pub struct Level {
    /// Changes the number of channels.
    pub enter: Conv2d,
    /// Adds to its own input.
    pub refine: Conv2d,
}

/// One step up: fewer channels, twice the resolution, plus what the way down saw.
#[derive(Module, Debug)]
pub struct Rise {
    /// 1×1 to the channels of the finer level.
    pub squeeze: Conv2d,
    /// 3×3 over the sum.
    pub merge: Conv2d,
}

/// The network. Input `[batch, 1, height, width]`, output logits
/// `[batch, 4·MAPS, height/2, width/2]`.
#[derive(Module, Debug)]
pub struct Net {
    /// 6×6 with stride 2: a space-to-depth and a 3×3 in one.
    pub stem: Conv2d,
    /// Levels at 1/4, 1/8 and 1/16.
    pub levels: Vec<Level>,
    /// From 1/16 to 1/8, and from 1/8 to 1/4.
    pub rises: Vec<Rise>,
    /// From 1/4 to the stem's channels.
    pub squeeze: Conv2d,
    /// 3×3 to the maps.
    pub head: Conv2d,
}

fn conv(from: usize, to: usize, kernel: usize, device: &Device) -> Conv2d {
    let (stride, padding) = match kernel {
        6 => (2, 2),
        3 => (1, 1),
        _ => (1, 0),
    };
    Conv2dConfig::new([from, to], [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
        // He et al. 2015, for rectified units.
        .with_initializer(Initializer::KaimingNormal { gain: 2_f64.sqrt(), fan_out_only: false })
        .init(device)
}

impl Net {
    /// A network with random weights.
    pub fn new(widths: Widths, device: &Device) -> Self {
        let Widths([half, quarter, eighth, sixteenth]) = widths;
        let level =
            |from, to| Level { enter: conv(from, to, 3, device), refine: conv(to, to, 3, device) };
        let rise =
            |from, to| Rise { squeeze: conv(from, to, 1, device), merge: conv(to, to, 3, device) };
        Self {
            stem: conv(1, half, 6, device),
            levels: vec![level(half, quarter), level(quarter, eighth), level(eighth, sixteenth)],
            rises: vec![rise(sixteenth, eighth), rise(eighth, quarter)],
            squeeze: conv(quarter, half, 1, device),
            head: conv(half, 4 * MAPS, 3, device),
        }
    }

    /// Logits of the maps.
    pub fn forward(&self, image: Tensor<4>) -> Tensor<4> {
        let stem = relu(self.stem.forward(image));
        let mut down = Vec::with_capacity(self.levels.len());
        let mut current = stem.clone();
        for level in &self.levels {
            let pooled = max_pool2d(current, MaxPoolOptions::new([2, 2]));
            let entered = relu(level.enter.forward(pooled));
            current = relu(entered.clone() + level.refine.forward(entered));
            down.push(current.clone());
        }
        down.pop();
        for rise in &self.rises {
            let finer = down.pop().expect("one level for each rise, by construction");
            let risen = doubled(rise.squeeze.forward(current)) + finer;
            current = relu(rise.merge.forward(risen));
        }
        let full = relu(doubled(self.squeeze.forward(current)) + stem);
        self.head.forward(full)
    }
}

fn doubled(tensor: Tensor<4>) -> Tensor<4> {
    let options = InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]);
    interpolate(tensor, options)
}
