//! The kernels against the definition, on every vector extension that this machine has.

use proptest::prelude::*;
use pulp::Arch;

use super::reference::{self, Plain};
use super::*;
use crate::graph::{Conv, Window};
use crate::onnx;

/// Numbers in -1..1 that look random.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        // Knuth's MMIX generator.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1 << 23) as f32) - 1.0
    }

    fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }

    /// A convolution whose output is about as large as its input.
    fn conv(&mut self, inputs: usize, outputs: usize, window: Window) -> Conv {
        let taps = inputs * window.size * window.size;
        let scale = (3.0 / taps as f32).sqrt();
        let weights = self.take(outputs * taps).iter().map(|weight| scale * weight).collect();
        Conv {
            name: "noise".to_owned(),
            inputs,
            outputs,
            window,
            weights,
            bias: self.take(outputs),
        }
    }
}

const POINT: Window = Window { size: 1, stride: 1, pad: 0 };
const SAME: Window = Window { size: 3, stride: 1, pad: 1 };

fn arches() -> Vec<Arch> {
    #[cfg(target_arch = "x86_64")]
    let narrower = pulp::x86::V3::try_new().map(Arch::V3);
    #[cfg(not(target_arch = "x86_64"))]
    let narrower = None;
    [Some(Arch::Scalar), Some(Arch::new()), narrower].into_iter().flatten().collect()
}

/// The largest difference from the definition, over all vector extensions.
fn error(graph: &Graph, height: usize, width: usize, noise: &mut Noise) -> f64 {
    let Node::Image(channels) = graph.nodes()[0] else { unreachable!() };
    let image = noise.take(channels * height * width);
    let plain = image.iter().map(|&value| f64::from(value)).collect();
    let plain = Plain { channels, height, width, data: plain };
    let expected = reference::run(graph, &plain);
    let mut worst = 0.0_f64;
    for arch in arches() {
        let engine = Engine::with_arch(graph, arch).unwrap();
        let mut workspace = engine.workspace(height, width).unwrap();
        workspace.image_mut().copy_from_slice(&image);
        let maps = engine.run(&mut workspace);
        let shape = maps.shape();
        assert_eq!(
            [shape.channels, shape.height, shape.width],
            [expected.channels, expected.height, expected.width]
        );
        for channel in 0..shape.channels {
            for y in 0..shape.height {
                for x in 0..shape.width {
                    let value = maps.row(channel / 16, y)[x].0[channel % 16];
                    let difference = (f64::from(value) - expected.at(channel, y, x)).abs();
                    // Not `max`, which passes over what is not a number.
                    assert!(difference.is_finite(), "{value} at {channel}, {y}, {x}");
                    worst = worst.max(difference);
                }
            }
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_first_convolution_is_that_of_its_definition(
        (channels, outputs) in (1_usize..4, 1_usize..40),
        (size, stride) in (1_usize..9, 1_usize..5),
        (height, width) in (9_usize..40, 9_usize..40),
        seed in any::<u64>(),
    ) {
        let noise = &mut Noise(seed);
        let mut graph = Graph::new(channels);
        let window = Window { size, stride, pad: (size - 1) / 2 };
        graph.push(Node::Conv(0, noise.conv(channels, outputs, window)));
        let error = error(&graph, height, width, noise);
        prop_assert!(error < 1e-5, "off by {error}");
    }

    #[test]
    fn a_direct_convolution_is_that_of_its_definition(
        (inputs, outputs) in (1_usize..40, 1_usize..70),
        (size, stride) in (1_usize..6, 1_usize..4),
        (height, width) in (5_usize..24, 5_usize..24),
        seed in any::<u64>(),
    ) {
        let noise = &mut Noise(seed);
        let mut graph = Graph::new(1);
        let first = graph.push(Node::Conv(0, noise.conv(1, inputs, POINT)));
        let window = Window { size, stride, pad: size / 2 };
        prop_assume!(window != SAME);
        graph.push(Node::Conv(first, noise.conv(inputs, outputs, window)));
        let error = error(&graph, height, width, noise);
        prop_assert!(error < 1e-5, "off by {error}");
    }

    #[test]
    fn winograds_convolution_is_that_of_its_definition_to_1e_4(
        (inputs, outputs) in (1_usize..70, 1_usize..70),
        (height, width) in (1_usize..33, 1_usize..33),
        seed in any::<u64>(),
    ) {
        let noise = &mut Noise(seed);
        let mut graph = Graph::new(1);
        let first = graph.push(Node::Conv(0, noise.conv(1, inputs, POINT)));
        graph.push(Node::Conv(first, noise.conv(inputs, outputs, SAME)));
        let error = error(&graph, height, width, noise);
        prop_assert!(error < 1e-4, "off by {error}");
    }

    #[test]
    fn what_convolutions_take_along_changes_nothing(
        (channels, wide) in (1_usize..40, 1_usize..40),
        (height, width) in (1_usize..9, 1_usize..9),
        seed in any::<u64>(),
    ) {
        let noise = &mut Noise(seed);
        let graph = two_levels(channels, wide, noise);
        prop_assert!(error(&graph, 4 * height, 4 * width, noise) < 1e-4);
    }
}

/// Every operation, taken along or on its own.
fn two_levels(channels: usize, wide: usize, noise: &mut Noise) -> Graph {
    let mut graph = Graph::new(1);
    let window = Window { size: 4, stride: 2, pad: 1 };
    let fine = graph.push(Node::Conv(0, noise.conv(1, channels, window)));
    let fine = graph.push(Node::Relu(fine));
    let pooled = graph.push(Node::MaxPool(fine));
    let entered = graph.push(Node::Conv(pooled, noise.conv(channels, wide, SAME)));
    let entered = graph.push(Node::Relu(entered));
    let refined = graph.push(Node::Conv(entered, noise.conv(wide, wide, SAME)));
    let summed = graph.push(Node::Add(entered, refined));
    let coarse = graph.push(Node::Relu(summed));
    let squeezed = graph.push(Node::Conv(coarse, noise.conv(wide, channels, POINT)));
    let doubled = graph.push(Node::Double(squeezed));
    let summed = graph.push(Node::Add(doubled, fine));
    let merged = graph.push(Node::Relu(summed));
    // From here on nothing can be taken along: each map is read twice.
    let twice = graph.push(Node::Add(merged, summed));
    let again = graph.push(Node::Add(twice, twice));
    let bent = graph.push(Node::Sigmoid(again));
    let small = graph.push(Node::MaxPool(bent));
    let large = graph.push(Node::Double(small));
    let both = graph.push(Node::Add(large, bent));
    let head = graph.push(Node::Conv(both, noise.conv(channels, 12, SAME)));
    graph.push(Node::Sigmoid(head));
    graph
}

/// Whatever size a tile has, and with the weights that are shipped.
#[test]
fn the_shipped_networks_give_maps_within_2e_5_of_their_definition() {
    for model in ["nuclei", "phase"] {
        let onnx = format!("{}/../../models/{model}/model.onnx", env!("CARGO_MANIFEST_DIR"));
        let graph = onnx::read(&std::fs::read(onnx).unwrap()).unwrap();
        let noise = &mut Noise(6);
        for (height, width) in [(64, 64), (48, 80)] {
            let error = error(&graph, height, width, noise);
            assert!(error < 2e-5, "{model} is off by {error} for {height} × {width}");
        }
    }
}

#[test]
fn a_used_workspace_gives_what_a_new_one_gives() {
    let noise = &mut Noise(3);
    let engine = Engine::new(&two_levels(20, 33, noise)).unwrap();
    let first = noise.take(44 * 36);
    let second = noise.take(44 * 36);
    let run = |workspace: &mut Workspace, image: &[f32]| {
        workspace.image_mut().copy_from_slice(image);
        let maps = engine.run(workspace);
        (0..maps.shape().height).flat_map(|y| maps.row(0, y).to_vec()).collect::<Vec<_>>()
    };
    let mut used = engine.workspace(44, 36).unwrap();
    run(&mut used, &vec![f32::MAX; 44 * 36]);
    run(&mut used, &first);
    let mut fresh = engine.workspace(44, 36).unwrap();
    assert_eq!(run(&mut used, &second), run(&mut fresh, &second));
}

/// So that a frame has the same labels on a microscope's box and on a workstation. Scalar is what a
/// processor without fused multiply-add runs.
#[test]
fn every_vector_extension_gives_the_same_bits() {
    let noise = &mut Noise(9);
    let graph = two_levels(20, 33, noise);
    let image = noise.take(44 * 36);
    for arch in arches() {
        let engine = Engine::with_arch(&graph, arch).unwrap();
        let mut workspace = engine.workspace(44, 36).unwrap();
        workspace.image_mut().copy_from_slice(&image);
        let maps = engine.run(&mut workspace);
        let mut hash = 0_u64;
        for y in 0..maps.shape().height {
            for value in maps.row(0, y).iter().flat_map(|pixel| pixel.0) {
                hash = hash.rotate_left(5) ^ u64::from(value.to_bits());
                hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }
        assert_eq!(hash, 8_666_678_634_590_582_033, "{arch:?}");
    }
}

/// Without vectors a fused product is the C library's, which has the processor's instruction for it
/// where there is one. Here it believes that there is none, and computes it.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[test]
fn a_processor_without_fused_multiply_add_gives_the_same_bits() {
    use std::process::Command;
    if !std::arch::is_x86_feature_detected!("fma") {
        return;
    }
    const NO_FMA: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-FMA,-FMA4");
    let features = |tunables: Option<(&str, &str)>| {
        let mut loader = Command::new("/lib64/ld-linux-x86-64.so.2");
        loader.arg("--list-diagnostics").envs(tunables);
        let text = String::from_utf8(loader.output().unwrap().stdout).unwrap();
        let active = text.lines().filter(|line| line.starts_with("x86.cpu_features.features"));
        active.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_ne!(features(None), features(Some(NO_FMA)), "this C library does not know {NO_FMA:?}");
    let name = "engine::tests::every_vector_extension_gives_the_same_bits";
    let mut again = Command::new(std::env::current_exe().unwrap());
    let again = again.args(["--exact", name]).envs([NO_FMA]).output().unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn maps_of_different_shapes_are_not_added() {
    let noise = &mut Noise(4);
    let mut graph = Graph::new(1);
    let first = graph.push(Node::Conv(0, noise.conv(1, 16, POINT)));
    let pooled = graph.push(Node::MaxPool(first));
    let doubled = graph.push(Node::Double(pooled));
    graph.push(Node::Add(first, doubled));
    let engine = Engine::new(&graph).unwrap();
    assert!(engine.workspace(8, 8).is_ok());
    let error = engine.workspace(9, 8).unwrap_err();
    assert!(error.to_string().contains("different shapes"), "{error}");
}

#[test]
fn weights_for_another_number_of_channels_are_refused() {
    let noise = &mut Noise(7);
    let mut graph = Graph::new(1);
    let first = graph.push(Node::Conv(0, noise.conv(1, 16, POINT)));
    graph.push(Node::Conv(first, noise.conv(32, 16, SAME)));
    let error = Engine::new(&graph).unwrap().workspace(8, 8).unwrap_err();
    assert!(error.to_string().contains("number of channels"), "{error}");
}

#[test]
fn a_map_that_nobody_reads_is_refused() {
    let noise = &mut Noise(8);
    let mut graph = Graph::new(1);
    let first = graph.push(Node::Conv(0, noise.conv(1, 16, POINT)));
    graph.push(Node::MaxPool(first));
    graph.push(Node::Double(first));
    let error = Engine::new(&graph).unwrap_err();
    assert!(error.to_string().contains("node 2"), "{error}");
}

#[test]
fn a_network_that_reads_its_image_twice_is_refused() {
    let noise = &mut Noise(5);
    let mut graph = Graph::new(1);
    let left = graph.push(Node::Conv(0, noise.conv(1, 16, POINT)));
    let right = graph.push(Node::Conv(0, noise.conv(1, 16, POINT)));
    graph.push(Node::Add(left, right));
    assert!(Engine::new(&graph).is_err());
}
