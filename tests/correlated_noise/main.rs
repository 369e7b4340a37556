//! An empty field stays empty whatever the camera did with its noise, and nuclei in it are found.
//!
//! `make prove-noise` looks at [`FIELDS`] fields of each named kind, in 8 and 16 bits, of 512² and 1024², and at a
//! tenth of them of each other kind; the tests of the suite look at a few.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::print_stdout, reason = "figures of the long run are printed to be kept")]

#[expect(clippy::disallowed_methods, reason = "pictures of a test are no results")]
mod fields;

use std::num::NonZeroUsize;
use std::sync::Arc;

use fields::{Field, HARD, Kind, NAMED, Nucleus, OTHERS, Scene};
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use reticle_base::clock::Clock;
use reticle_domain::frame::Frame;
use reticle_domain::segmentation::Segmentation;
use reticle_segment::{Options, Segmenter};

/// Fields of each named kind, depth and size that `make prove-noise` looks at, unless
/// `RETICLE_PROVE_NOISE` names another number.
const FIELDS: u64 = 100;

/// A camera of 16 bits: with much gain, and with little, where noise is of few grey values.
const GAINS: [Option<f32>; 3] = [None, Some(200.0), Some(1.5)];

fn segmenter() -> Segmenter {
    let options = Options { threads: NonZeroUsize::new(1), ..Options::default() };
    Segmenter::new(&options, Clock::system()).unwrap()
}

fn kinds() -> Vec<Kind> {
    NAMED.iter().chain(OTHERS).copied().collect()
}

/// The scene of a seed; its noise is between 6 and 12 grey values.
fn empty(edge: usize, seed: u64) -> Scene {
    let sigma = 6.0 + (seed * 37 % 61) as f32 / 10.0;
    Scene { edge, sigma, nuclei: Vec::new(), seed }
}

/// The same with four nuclei, one in each quarter.
fn sparse(edge: usize, seed: u64) -> Scene {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed + 1000);
    let half = edge as f32 / 2.0;
    let nuclei = [(0.0, 0.0), (half, 0.0), (0.0, half), (half, half)].map(|(left, top)| Nucleus {
        x: left + rng.random_range(60.0..half - 60.0),
        y: top + rng.random_range(60.0..half - 60.0),
        diameter: rng.random_range(16.0..30.0),
        rise: rng.random_range(70.0..140.0),
    });
    Scene { nuclei: nuclei.to_vec(), ..empty(edge, seed) }
}

/// How many objects there are in each of `scenes` after what each kind does, and the highest focus score.
fn counts(
    kinds: &[Kind],
    scenes: &[Scene],
    gains: &[Option<f32>],
) -> Vec<(&'static str, Vec<u32>, f32)> {
    kinds
        .par_iter()
        .map_init(segmenter, |segmenter, kind| {
            let (mut counts, mut sharpest) = (Vec::new(), 0.0_f32);
            for scene in scenes {
                let field = (kind.make)(scene);
                for gain in gains {
                    let found = segmenter.segment(&field.frame(*gain)).unwrap();
                    counts.push(found.labels.count());
                    sharpest = sharpest.max(found.focus);
                }
            }
            (kind.name, counts, sharpest)
        })
        .collect()
}

#[test]
fn an_empty_field_has_no_objects_and_no_focus_whatever_the_camera_did() {
    let scenes = [empty(512, 1), empty(512, 2)];
    for (kind, counts, focus) in counts(&kinds(), &scenes, &GAINS[..2]) {
        assert!(counts.iter().all(|&count| count == 0), "{kind}: {counts:?} objects");
        assert_eq!(focus, 0.0, "{kind}");
    }
}

#[test]
fn four_nuclei_are_four_whatever_the_camera_did() {
    for (kind, counts, _) in counts(&kinds(), &[sparse(1024, 1)], &GAINS[..1]) {
        assert_eq!(counts, [4], "{kind}");
    }
}

/// Nuclei of six diameters, six of each, `rise` above the background, in a field of 512².
fn dim(rise: f32, seed: u64) -> Scene {
    let nuclei = (0..36).map(|index| {
        let diameters = [8.0, 12.0, 16.0, 24.0, 36.0, 56.0];
        let (row, column) = (index / 6, index % 6);
        Nucleus {
            x: 43.0 + 85.0 * column as f32,
            y: 43.0 + 85.0 * row as f32,
            diameter: diameters[(row + column) % 6],
            rise,
        }
    });
    Scene { nuclei: nuclei.collect(), ..empty(512, seed) }
}

/// Share of the nuclei that an object covers at an IoU of at least 0.4.
fn found(segmentation: &Segmentation, scene: &Scene) -> f32 {
    let truth = scene.truth();
    let labels = segmentation.labels.labels();
    let mut areas = vec![0.0_f32; segmentation.labels.count() as usize + 1];
    labels.iter().for_each(|&label| areas[label as usize] += 1.0);
    let hits = (1..=scene.nuclei.len()).filter(|&nucleus| {
        let mut shared = vec![0.0_f32; areas.len()];
        let mut area = 0.0;
        for (&label, _) in labels.iter().zip(&truth).filter(|(_, own)| **own == nucleus) {
            shared[label as usize] += 1.0;
            area += 1.0;
        }
        (1..areas.len()).any(|label| shared[label] / (area + areas[label] - shared[label]) > 0.4)
    });
    hits.count() as f32 / scene.nuclei.len() as f32
}

/// A frame of `scene` after `kind`, whose nuclei rise by `times` the noise that is left then.
fn dim_frame(kind: &Kind, times: f32, seed: u64) -> (Scene, Arc<Frame>) {
    let noise: Field = (kind.make)(&empty(512, seed));
    let scene = dim(times * noise.deviation(), seed);
    let frame = (kind.make)(&scene).frame(Some(200.0));
    (scene, frame)
}

#[test]
fn nuclei_that_rise_ten_times_above_the_noise_are_found_in_any() {
    let shares: Vec<_> = kinds()
        .par_iter()
        // Turned nuclei do not lie where they were drawn.
        .filter(|kind| kind.name != "rotated")
        .map_init(segmenter, |segmenter, kind| {
            let (scene, frame) = dim_frame(kind, 10.0, 1);
            (kind.name, found(&segmenter.segment(&frame).unwrap(), &scene))
        })
        .collect();
    let poor: Vec<_> = shares.iter().filter(|(_, share)| *share < 0.5).collect();
    assert!(poor.is_empty(), "{poor:?}");
}

#[test]
fn the_diameter_that_is_stated_does_not_matter_for_noise() {
    let kinds: Vec<_> = NAMED.iter().step_by(3).collect();
    kinds.par_iter().for_each(|kind| {
        let frame = (kind.make)(&empty(512, 3)).frame(None);
        for diameter in [10.0, 20.0, 45.0] {
            let options = Options {
                threads: NonZeroUsize::new(1),
                object_diameter_px: Some(diameter),
                ..Options::default()
            };
            let mut segmenter = Segmenter::new(&options, Clock::system()).unwrap();
            let found = segmenter.segment(&frame).unwrap().labels.count();
            assert_eq!(found, 0, "{} at {diameter} px", kind.name);
        }
    });
}

/// What `make prove-noise` finds of one kind.
struct Proof {
    /// Objects in each empty field.
    empties: Vec<u32>,
    /// Objects in each field of four nuclei.
    four: Vec<u32>,
}

impl Proof {
    fn is_right(&self) -> bool {
        let none = self.empties.iter().filter(|&&count| count == 0).count();
        100 * none >= 99 * self.empties.len()
            && self.empties.iter().all(|&count| count <= 2)
            && self.four.iter().all(|&count| count == 4)
    }
}

/// Looks at `fields` empty fields of each size, and at a tenth as many with four nuclei; prints a row.
fn prove(kind: &Kind, fields: u64) -> Proof {
    let (mut empties, mut sharpest) = (Vec::new(), 0.0_f32);
    for edge in [512, 1024] {
        let scenes: Vec<_> = (0..fields).map(|seed| empty(edge, seed)).collect();
        for (_, found, focus) in counts(&[*kind], &scenes, &GAINS) {
            empties.extend(found);
            sharpest = sharpest.max(focus);
        }
    }
    let scenes: Vec<_> = (0..fields.div_ceil(10)).map(|seed| sparse(1024, seed)).collect();
    let four = counts(&[*kind], &scenes, &GAINS).remove(0).1;
    let mut segmenter = segmenter();
    let dim = [2.0, 3.0, 5.0, 8.0, 12.0].map(|times| {
        let (scene, frame) = dim_frame(kind, times, 1);
        format!("{:.0}", 100.0 * found(&segmenter.segment(&frame).unwrap(), &scene))
    });
    let none = empties.iter().filter(|&&count| count == 0).count();
    let most = empties.iter().max().copied().unwrap_or(0);
    let exact = four.iter().filter(|&&count| count == 4).count();
    println!(
        "| {} | {} | {none} | {most} | {sharpest:.2} | {exact} of {} | {} |",
        kind.name,
        empties.len(),
        four.len(),
        dim.join(", ")
    );
    Proof { empties, four }
}

#[test]
fn prove_noise() {
    let Ok(fields) = std::env::var("RETICLE_PROVE_NOISE") else {
        eprintln!("skipped: `make prove-noise` runs it, for half an hour");
        return;
    };
    let fields = fields.parse().unwrap_or(FIELDS);
    println!(
        "| kind | empty fields | none found | most found | sharpest | four of four | nuclei found at 2, 3, 5, 8, 12 times the noise, % |"
    );
    println!("|---|--:|--:|--:|--:|--:|---|");
    let named = NAMED.par_iter().map(|kind| (kind, fields));
    let others = OTHERS.par_iter().map(|kind| (kind, fields.div_ceil(10)));
    let wrong: Vec<_> = named
        .chain(others)
        .filter(|(kind, fields)| !prove(kind, *fields).is_right())
        .map(|(kind, _)| kind.name)
        .collect();
    // For the table only.
    HARD.par_iter().for_each(|kind| {
        prove(kind, fields.div_ceil(10));
    });
    assert!(wrong.is_empty(), "{wrong:?}");
}
