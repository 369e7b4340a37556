use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const PARAMETERS: Postprocessing = Postprocessing {
    foreground_threshold: 0.5,
    seed_threshold: 0.3,
    sure_threshold: 1.0,
    merge_height: 0.2,
    contact_weight: 0.0,
    smoothing_passes: 0,
    min_area: 1,
};

fn maps(width: usize, distance: &[f32]) -> Maps {
    Maps {
        width,
        height: distance.len() / width,
        foreground: distance.iter().map(|&value| f32::from(u8::from(value > 0.0))).collect(),
        distance: distance.to_vec(),
        contact: vec![0.0; distance.len()],
        size: vec![],
    }
}

fn read(maps: &Maps, parameters: &Postprocessing) -> LabelImage {
    from_maps(maps, parameters, &mut Workspace::default())
}

#[test]
fn two_peaks_with_a_deep_valley_are_two_objects() {
    let maps = maps(7, &[0.5, 1.0, 0.6, 0.3, 0.6, 0.9, 0.5]);
    let labels = read(&maps, &PARAMETERS);
    assert_eq!(labels.count(), 2);
    assert_eq!(labels.labels()[1], 1);
    assert_eq!(labels.labels()[5], 2);
}

#[test]
fn two_peaks_with_a_shallow_valley_are_one_object() {
    let maps = maps(7, &[0.5, 1.0, 0.9, 0.85, 0.9, 0.95, 0.5]);
    assert_eq!(read(&maps, &PARAMETERS).count(), 1);
}

#[test]
fn low_and_small_objects_are_dropped() {
    let low = maps(5, &[0.1, 0.2, 0.1, 0.0, 0.0]);
    assert_eq!(read(&low, &PARAMETERS).count(), 0);
    let small = Postprocessing { min_area: 4, ..PARAMETERS };
    assert_eq!(read(&maps(5, &[0.5, 0.9, 0.5, 0.0, 0.0]), &small).count(), 0);
}

#[test]
fn a_hole_in_one_object_is_filled_and_a_gap_between_two_is_not() {
    #[rustfmt::skip]
    let rings = [
        0.9, 0.9, 0.9, 0.0, 0.8, 0.8, 0.8,
        0.9, 0.0, 0.9, 0.0, 0.8, 0.8, 0.8,
        0.9, 0.9, 0.9, 0.0, 0.8, 0.8, 0.8,
    ];
    let filled = read(&maps(7, &rings), &PARAMETERS);
    #[rustfmt::skip]
    assert_eq!(filled.labels(), [
        1, 1, 1, 0, 2, 2, 2,
        1, 1, 1, 0, 2, 2, 2,
        1, 1, 1, 0, 2, 2, 2,
    ]);
}

#[test]
fn what_is_low_stays_where_the_network_is_sure_of_a_pixel() {
    let mut maps = maps(3, &[0.2, 0.2, 0.2]);
    maps.foreground = vec![0.9, 0.97, 0.9];
    let sure = |sure_threshold| Postprocessing { sure_threshold, ..PARAMETERS };
    assert_eq!(read(&maps, &sure(0.98)).count(), 0);
    assert_eq!(read(&maps, &sure(0.96)).labels(), [1, 1, 1]);
}

#[test]
fn a_ring_around_another_object_is_not_filled() {
    #[rustfmt::skip]
    let ring = [
        0.9, 0.9, 0.9, 0.9, 0.9,
        0.9, 0.0, 0.0, 0.0, 0.9,
        0.9, 0.0, 0.8, 0.0, 0.9,
        0.9, 0.0, 0.0, 0.0, 0.9,
        0.9, 0.9, 0.9, 0.9, 0.9,
    ];
    let read = read(&maps(5, &ring), &PARAMETERS);
    assert_eq!(read.count(), 2);
    assert_eq!(read.labels()[6], 0);
}

/// Maps as the network gives them: ellipses that touch and overlap, some with a dark middle,
/// noise on everything.
fn cells(width: usize, height: usize, cells: usize, noise: f32, seed: u64) -> Maps {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pixels = width * height;
    let mut maps = Maps {
        width,
        height,
        foreground: vec![0.0; pixels],
        distance: vec![0.0; pixels],
        contact: vec![0.0; pixels],
        size: vec![],
    };
    for _ in 0..cells {
        let centre = [rng.random_range(0.0..width as f32), rng.random_range(0.0..height as f32)];
        let radii = [rng.random_range(3.0..14.0_f32), rng.random_range(3.0..14.0_f32)];
        let dark = rng.random_bool(0.2);
        for y in 0..height {
            for x in 0..width {
                let (dx, dy) =
                    ((x as f32 - centre[0]) / radii[0], (y as f32 - centre[1]) / radii[1]);
                let inside = 1.0 - libm::hypotf(dx, dy);
                let at = y * width + x;
                if inside > 0.0 && !(dark && inside > 0.8) {
                    if maps.foreground[at] > 0.0 {
                        maps.contact[at] = 0.8;
                    }
                    maps.foreground[at] = 1.0;
                    maps.distance[at] = maps.distance[at].max(inside);
                }
            }
        }
    }
    for map in [&mut maps.foreground, &mut maps.distance, &mut maps.contact] {
        for value in map {
            *value = (*value + noise * rng.random_range(-1.0..1.0)).clamp(0.0, 1.0);
        }
    }
    maps
}

fn parameters() -> impl Strategy<Value = Postprocessing> {
    let levels = (0.0_f32..0.9, 0.0_f32..0.6, 0.7_f32..1.2);
    (levels, 0.0_f32..0.5, 0.0_f32..1.0, 0_u32..4, 0_u32..40).prop_map(
        |((foreground, seed, sure), merge, contact, passes, area)| Postprocessing {
            foreground_threshold: foreground,
            seed_threshold: seed,
            sure_threshold: sure,
            merge_height: merge,
            contact_weight: contact,
            smoothing_passes: passes,
            min_area: area,
        },
    )
}

fn expect_the_reference(maps: &Maps, parameters: &Postprocessing, workspace: &mut Workspace) {
    let found = from_maps(maps, parameters, workspace);
    let expected = reference::from_maps(maps, parameters);
    assert!(found.is_contiguous());
    assert_eq!(found, expected);
    assert!(found.labels() == expected.labels());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn labels_of_cells_are_those_of_the_definition(
        (width, height) in (1_usize..150, 1_usize..150),
        number in 0_usize..40,
        noise in prop::sample::select(vec![0.0_f32, 0.02, 0.2, 0.6]),
        seed: u64,
        parameters in parameters(),
        other in parameters(),
    ) {
        let maps = cells(width, height, number, noise, seed);
        let mut workspace = Workspace::default();
        expect_the_reference(&maps, &parameters, &mut workspace);
        // What the workspace held does not matter, be it of the same size or of another.
        expect_the_reference(&maps, &other, &mut workspace);
        let turned = cells(height, width, number, noise, seed);
        expect_the_reference(&turned, &parameters, &mut workspace);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Few levels make many equal heights, where all depends on how ties are broken.
    #[test]
    fn labels_of_any_maps_are_those_of_the_definition(
        width in 1_usize..24,
        steps in prop::sample::select(vec![1.0_f32, 2.0, 3.0, 8.0, 1e6]),
        values in prop::collection::vec((0.0_f32..1.0, 0.0_f32..1.2, 0.0_f32..1.0), 1..400),
        parameters in parameters(),
        min_area in 0_u32..4,
    ) {
        let height = values.len().div_ceil(width);
        let value = |at: usize| values[at % values.len()];
        let coarse = |value: f32| (value * steps).round() / steps;
        let all = 0..width * height;
        let maps = Maps {
            width,
            height,
            foreground: all.clone().map(|at| value(at).0).collect(),
            distance: all.clone().map(|at| coarse(value(at).1)).collect(),
            contact: all.map(|at| coarse(value(at).2)).collect(),
            size: vec![],
        };
        let parameters = Postprocessing { min_area, ..parameters };
        expect_the_reference(&maps, &parameters, &mut Workspace::default());
    }
}

#[test]
fn numbers_that_are_none_are_background() {
    let mut maps = cells(70, 66, 8, 0.1, 1);
    for at in (0..maps.distance.len()).step_by(7) {
        maps.distance[at] = f32::NAN;
        maps.foreground[at / 2] = f32::NAN;
        maps.contact[at / 3] = f32::INFINITY;
    }
    let parameters = Postprocessing { smoothing_passes: 2, contact_weight: 0.5, ..PARAMETERS };
    expect_the_reference(&maps, &parameters, &mut Workspace::default());
}
