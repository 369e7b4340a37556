//! The cells of one field: nuclei that drift, grow, divide and die.
//!
//! Lengths are in µm and time in steps, of which one passes between two frames of a field and
//! stands for three minutes in the incubator. A population is a function of its seed and of
//! the number of steps, whatever was rendered in between.

use std::f32::consts::{LN_2, PI, TAU};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

/// Steps from one division to the next: 15 hours, as of a quick line such as HeLa.
const CYCLE: f32 = 300.0;
/// Steps from the first condensation of the chromatin to the metaphase plate.
const PROPHASE: u32 = 4;
/// Steps from the first condensation to the separation of the daughters.
const MITOSIS: u32 = 9;
/// Steps in which the daughters drift apart and unfold.
const TELOPHASE: u32 = 12;
/// Steps from the first shrinking of a dying nucleus until nothing is left.
const DYING: u32 = 16;
/// How much a nucleus grows in area over its cycle.
const GROWTH: f32 = 0.7;
/// Mean radius just after division, µm; 14 µm across in the middle of the cycle.
const RADIUS: f32 = 6.1;
/// A field can hold this many times the nuclei it was seeded with; then deaths balance
/// divisions.
const CAPACITY: f32 = 1.5;
/// Cells live this far beyond the edge of the view, so that they wander in and out, µm.
const MARGIN: f32 = 18.0;
/// Centres of a field that is spread keep this far from the edge of the view: all of most nuclei
/// is seen, µm.
const INSET: f32 = 8.5;
/// Room for one nucleus of a field that is spread, µm²: they cover at most six tenths of it, where
/// pushing apart still leaves no two that overlap by more than a pixel or two.
const ROOM: f32 = 260.0;
/// Edge of the squares in which neighbours are looked for, µm; no two nuclei whose centres
/// are further apart can touch.
const CELL: f32 = 34.0;

/// What a nucleus is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Grows until its age reaches its cycle.
    Interphase,
    /// Condenses into a plate; divides after [`MITOSIS`] steps.
    Mitosis(u32),
    /// A young daughter, unfolding for [`TELOPHASE`] steps.
    Telophase(u32),
    /// Shrinks, brightens and fades for [`DYING`] steps.
    Dying(u32),
}

/// A hole in the stain, in units of the nucleus' axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nucleolus {
    pub(super) u: f32,
    pub(super) v: f32,
    pub(super) radius: f32,
}

/// One nucleus.
#[derive(Clone, Debug)]
pub(super) struct Nucleus {
    /// Centre, µm from the left edge of the view.
    pub(super) x: f32,
    /// Centre, µm from the upper edge of the view.
    pub(super) y: f32,
    /// Direction of the long axis, radians.
    pub(super) angle: f32,
    /// Deviation of the outline from an ellipse: cosine and sine parts of its second and third
    /// harmonic, as fractions of the radius.
    pub(super) bumps: [f32; 4],
    /// Where in the chromatin texture this nucleus is cut from, in texels.
    pub(super) texture: [f32; 2],
    /// Dark spots.
    pub(super) nucleoli: [Nucleolus; 2],
    velocity: [f32; 2],
    radius: f32,
    elongation: f32,
    stain: f32,
    age: f32,
    cycle: f32,
    phase: Phase,
}

impl Nucleus {
    fn born(rng: &mut ChaCha8Rng, x: f32, y: f32) -> Self {
        let unit = Normal::new(0.0_f32, 1.0).expect("a deviation of 1 is fine");
        let mut normal = || unit.sample(rng);
        let radius = RADIUS * (1.0 + 0.11 * normal()).clamp(0.7, 1.4);
        let elongation = (1.3 + 0.28 * normal()).clamp(1.0, 2.1);
        let stain = (0.22 * normal()).exp().clamp(0.55, 1.8);
        let bumps = [0.045, 0.045, 0.038, 0.038].map(|size| (size * normal()).clamp(-0.1, 0.1));
        let cycle = CYCLE * (1.0 + 0.12 * normal()).clamp(0.6, 1.5);
        let mut spot = || {
            let at = rng.random::<f32>() * TAU;
            let from_centre = 0.55 * rng.random::<f32>().sqrt();
            let radius = rng.random_range(0.14_f32..0.3);
            Nucleolus { u: from_centre * at.cos(), v: from_centre * at.sin(), radius }
        };
        Self {
            x,
            y,
            nucleoli: [spot(), spot()],
            angle: rng.random::<f32>() * PI,
            bumps,
            texture: [rng.random::<f32>() * 256.0, rng.random::<f32>() * 256.0],
            velocity: [0.0; 2],
            radius,
            elongation,
            stain,
            age: 0.0,
            cycle,
            phase: Phase::Interphase,
        }
    }

    /// How condensed the chromatin is: 0 in interphase, 1 as a metaphase plate.
    pub(super) fn condensation(&self) -> f32 {
        match self.phase {
            Phase::Interphase | Phase::Dying(_) => 0.0,
            Phase::Mitosis(step) => (step as f32 / PROPHASE as f32).min(1.0),
            Phase::Telophase(step) => 1.0 - step as f32 / TELOPHASE as f32,
        }
    }

    /// Half axes along and across [`Nucleus::angle`], µm.
    pub(super) fn half_axes(&self) -> (f32, f32) {
        let grown = self.radius * (1.0 + GROWTH * (self.age / self.cycle).min(1.0)).sqrt();
        let shrunk = match self.phase {
            Phase::Dying(step) => grown * (1.0 - 0.65 * (step as f32 / 6.0).min(1.0)),
            _ => grown,
        };
        let stretch = self.elongation.sqrt();
        let condensed = self.condensation();
        let between = |loose: f32, tight: f32| loose + (tight - loose) * condensed;
        (shrunk * between(stretch, 1.0), shrunk * between(1.0 / stretch, 0.4))
    }

    /// Brightness against a usual nucleus of 1.
    pub(super) fn brightness(&self) -> f32 {
        let fate = match self.phase {
            Phase::Dying(step) if step <= 6 => 1.0 + 1.4 * step as f32 / 6.0,
            Phase::Dying(step) => 2.4 * (DYING - step.min(DYING)) as f32 / (DYING - 6) as f32,
            _ => 1.0 + 1.5 * self.condensation(),
        };
        self.stain * fate
    }

    /// Whether a person would still call it a nucleus.
    pub(super) fn is_object(&self) -> bool {
        !matches!(self.phase, Phase::Dying(step) if step > DYING - 4)
    }

    /// The ellipse that others bump into.
    fn hull(&self) -> Hull {
        let (long, short) = self.half_axes();
        let (sin, cos) = self.angle.sin_cos();
        Hull { long, short, sin, cos }
    }
}

/// An ellipse around its centre, µm.
#[derive(Clone, Copy)]
struct Hull {
    long: f32,
    short: f32,
    sin: f32,
    cos: f32,
}

impl Hull {
    /// Distance from the centre to the outline in the direction `(dx, dy)` of length 1.
    fn reach(&self, dx: f32, dy: f32) -> f32 {
        let along = dx * self.cos + dy * self.sin;
        let across = dy * self.cos - dx * self.sin;
        self.long * self.short / (self.short * along).hypot(self.long * across)
    }
}

/// All nuclei of one field.
#[derive(Clone, Debug)]
pub(super) struct Population {
    nuclei: Vec<Nucleus>,
    rng: ChaCha8Rng,
    steps: u64,
    width: f32,
    height: f32,
    capacity: f32,
}

impl Population {
    /// Seeds a field of `width × height` µm.
    pub(super) fn seeded(seed: u64, width: f32, height: f32, nuclei_per_mm2: f64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (whole_width, whole_height) = (width + 2.0 * MARGIN, height + 2.0 * MARGIN);
        let area_mm2 = f64::from(whole_width) * f64::from(whole_height) / 1e6;
        let uneven = rng.random_range(0.8_f64..1.25);
        let count = (nuclei_per_mm2 * area_mm2 * uneven).round() as usize;
        let mut nuclei: Vec<Nucleus> = Vec::with_capacity(count);
        for _ in 0..count {
            // A third of the cells sit beside another one: they grew from a common mother.
            let (x, y) = if !nuclei.is_empty() && rng.random_bool(0.35) {
                let mother = &nuclei[rng.random_range(0..nuclei.len())];
                let direction = rng.random::<f32>() * TAU;
                let apart = rng.random_range(1.6_f32..3.2) * RADIUS;
                (mother.x + apart * direction.cos(), mother.y + apart * direction.sin())
            } else {
                (rng.random::<f32>() * whole_width, rng.random::<f32>() * whole_height)
            };
            let mut nucleus = Nucleus::born(&mut rng, x, y);
            // In a growing culture the young are twice as many as those about to divide.
            nucleus.age = nucleus.cycle * (-(1.0 - 0.5 * rng.random::<f32>()).log2());
            nuclei.push(nucleus);
        }
        let capacity = (count as f32 * CAPACITY).max(1.0);
        let mut field = Self { nuclei, rng, steps: 0, width, height, capacity };
        for nucleus in &mut field.nuclei {
            nucleus.x -= MARGIN;
            nucleus.y -= MARGIN;
        }
        for _ in 0..40 {
            field.push_apart();
        }
        field.wrap();
        field
    }

    /// How many nuclei a spread field of `width × height` µm holds side by side.
    pub(super) fn room_for(width: f32, height: f32) -> usize {
        let inner = |edge: f32| (edge - 2.0 * INSET).max(0.0);
        (inner(width) * inner(height) / ROOM) as usize
    }

    /// A field of `width × height` µm with `count` nuclei, all of them within the view and spread
    /// evenly over it.
    pub(super) fn spread(seed: u64, width: f32, height: f32, count: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (inner_width, inner_height) = (width - 2.0 * INSET, height - 2.0 * INSET);
        // A grid of about square cells, of which as many are taken by chance.
        let edge = (inner_width * inner_height / count.max(1) as f32).sqrt();
        let columns = ((inner_width / edge).round() as usize).max(1);
        let rows = count.div_ceil(columns);
        let nuclei = rand::seq::index::sample(&mut rng, rows * columns, count)
            .into_iter()
            .map(|cell| {
                let mut along = |cell: usize, cells: usize, length: f32| {
                    let within = cell as f32 + rng.random_range(0.2_f32..0.8);
                    INSET + within * length / cells as f32
                };
                let x = along(cell % columns, columns, inner_width);
                let y = along(cell / columns, rows, inner_height);
                let mut nucleus = Nucleus::born(&mut rng, x, y);
                nucleus.age = nucleus.cycle * rng.random::<f32>();
                nucleus
            })
            .collect();
        let mut field = Self { nuclei, rng, steps: 0, width, height, capacity: count as f32 };
        for _ in 0..40 {
            field.push_apart();
            for nucleus in &mut field.nuclei {
                nucleus.x = nucleus.x.clamp(INSET, width - INSET);
                nucleus.y = nucleus.y.clamp(INSET, height - INSET);
            }
        }
        field
    }

    /// The nuclei, those beyond the edge of the view included.
    pub(super) fn nuclei(&self) -> &[Nucleus] {
        &self.nuclei
    }

    /// Lives on until `steps` steps have passed since the seeding.
    pub(super) fn live_until(&mut self, steps: u64) {
        while self.steps < steps {
            self.steps += 1;
            self.drift();
            self.age();
            self.push_apart();
            self.wrap();
        }
    }

    /// A persistent random walk: direction is kept for some ten steps.
    fn drift(&mut self) {
        let nudge = Normal::new(0.0_f32, 0.11).expect("a deviation above 0 is fine");
        for nucleus in &mut self.nuclei {
            for velocity in &mut nucleus.velocity {
                *velocity = 0.9 * *velocity + nudge.sample(&mut self.rng);
            }
            nucleus.angle += 0.08 * nudge.sample(&mut self.rng);
            nucleus.x += nucleus.velocity[0];
            nucleus.y += nucleus.velocity[1];
        }
    }

    /// Every nucleus grows a step older: some begin to divide, some divide, some die.
    fn age(&mut self) {
        let crowding = self.nuclei.len() as f32 / self.capacity;
        let death = f64::from((LN_2 / CYCLE * crowding * crowding).min(1.0));
        let mut daughters = Vec::new();
        for nucleus in &mut self.nuclei {
            nucleus.phase = match nucleus.phase {
                Phase::Interphase if self.rng.random_bool(death) => Phase::Dying(1),
                Phase::Interphase if nucleus.age >= nucleus.cycle => Phase::Mitosis(1),
                Phase::Interphase => {
                    nucleus.age += 1.0;
                    Phase::Interphase
                }
                Phase::Mitosis(MITOSIS) => {
                    let (daughter, twin) = divide(nucleus, &mut self.rng);
                    *nucleus = daughter;
                    daughters.push(twin);
                    Phase::Telophase(0)
                }
                Phase::Mitosis(step) => Phase::Mitosis(step + 1),
                Phase::Telophase(TELOPHASE) => Phase::Interphase,
                Phase::Telophase(step) => Phase::Telophase(step + 1),
                Phase::Dying(step) => Phase::Dying(step + 1),
            };
        }
        self.nuclei.append(&mut daughters);
        self.nuclei.retain(|nucleus| !matches!(nucleus.phase, Phase::Dying(step) if step >= DYING));
    }

    /// Nuclei that overlap push each other away; touching is allowed, and so is a little
    /// overlap, as cells in a dish do.
    fn push_apart(&mut self) {
        let square = |at: f32| ((at + MARGIN) / CELL).floor() as i32;
        let mut order: Vec<(i32, i32, usize)> = self
            .nuclei
            .iter()
            .enumerate()
            .map(|(index, nucleus)| (square(nucleus.y), square(nucleus.x), index))
            .collect();
        order.sort_unstable();
        let hulls: Vec<Hull> = self.nuclei.iter().map(Nucleus::hull).collect();
        // Of the neighbouring squares only those that come later in `order`: each pair once.
        for (place, &(row, column, one)) in order.iter().enumerate() {
            for &(_, _, other) in
                order[place + 1..].iter().take_while(|&&(r, c, _)| (r, c) <= (row, column + 1))
            {
                self.push_pair(one, other, &hulls);
            }
            let below = order.partition_point(|&(r, c, _)| (r, c) < (row + 1, column - 1));
            for &(_, _, other) in
                order[below..].iter().take_while(|&&(r, c, _)| (r, c) <= (row + 1, column + 1))
            {
                self.push_pair(one, other, &hulls);
            }
        }
    }

    fn push_pair(&mut self, one: usize, other: usize, hulls: &[Hull]) {
        let (dx, dy) =
            (self.nuclei[other].x - self.nuclei[one].x, self.nuclei[other].y - self.nuclei[one].y);
        let square = dx * dx + dy * dy;
        let farthest = hulls[one].long + hulls[other].long;
        if !(1e-6..farthest * farthest).contains(&square) {
            return;
        }
        let distance = square.sqrt();
        let (dx, dy) = (dx / distance, dy / distance);
        let touching = hulls[one].reach(dx, dy) + hulls[other].reach(dx, dy);
        let push = 0.2 * (0.97 * touching - distance);
        if push > 0.0 {
            self.nuclei[one].x -= dx * push;
            self.nuclei[one].y -= dy * push;
            self.nuclei[other].x += dx * push;
            self.nuclei[other].y += dy * push;
        }
    }

    /// Who leaves on one side beyond the margin comes in on the other.
    fn wrap(&mut self) {
        let (width, height) = (self.width + 2.0 * MARGIN, self.height + 2.0 * MARGIN);
        for nucleus in &mut self.nuclei {
            nucleus.x = (nucleus.x + MARGIN).rem_euclid(width) - MARGIN;
            nucleus.y = (nucleus.y + MARGIN).rem_euclid(height) - MARGIN;
        }
    }
}

/// Two daughters on both sides of the metaphase plate, moving apart.
fn divide(mother: &Nucleus, rng: &mut ChaCha8Rng) -> (Nucleus, Nucleus) {
    let (_, short) = mother.half_axes();
    let (sin, cos) = mother.angle.sin_cos();
    let daughter = |rng: &mut ChaCha8Rng, side: f32| {
        let away = [-sin * side, cos * side];
        let apart = 0.85 * short;
        let mut daughter =
            Nucleus::born(rng, mother.x + away[0] * apart, mother.y + away[1] * apart);
        daughter.angle = mother.angle;
        daughter.radius = 0.5 * (daughter.radius + mother.radius);
        daughter.stain = mother.stain;
        daughter.phase = Phase::Telophase(0);
        daughter.velocity = away.map(|part| part * 0.8);
        daughter
    };
    (daughter(rng, -1.0), daughter(rng, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(nuclei_per_mm2: f64) -> Population {
        Population::seeded(3, 660.0, 660.0, nuclei_per_mm2)
    }

    fn dividing(field: &Population) -> usize {
        field.nuclei.iter().filter(|nucleus| nucleus.phase == Phase::Telophase(0)).count()
    }

    #[test]
    fn a_division_makes_two_of_one_and_the_field_fills_up_to_its_capacity() {
        let mut field = field(300.0);
        let seeded = field.nuclei.len();
        let mut divisions = 0;
        for step in 1..=u64::from(3 * CYCLE as u16) {
            let (before, dying) = (
                field.nuclei.len(),
                field
                    .nuclei
                    .iter()
                    .filter(|nucleus| nucleus.phase == Phase::Dying(DYING - 1))
                    .count(),
            );
            field.live_until(step);
            let born = dividing(&field) / 2;
            assert_eq!(field.nuclei.len(), before + born - dying, "step {step}");
            divisions += born;
        }
        assert!(divisions > seeded, "{divisions} divisions of {seeded}");
        let grown = field.nuclei.len() as f32 / seeded as f32;
        assert!((0.75 * CAPACITY..1.25 * CAPACITY).contains(&grown), "grown {grown} times");
    }

    #[test]
    fn mitosis_is_seen_in_a_few_of_a_hundred_nuclei() {
        let mut field = field(900.0);
        field.live_until(100);
        let condensed =
            field.nuclei.iter().filter(|nucleus| nucleus.condensation() > 0.0).count() as f32;
        let share = condensed / field.nuclei.len() as f32;
        assert!((0.01..0.12).contains(&share), "{share}");
    }

    #[test]
    fn nuclei_touch_but_hardly_overlap() {
        let mut field = field(1_500.0);
        field.live_until(50);
        let nuclei = field.nuclei();
        let mut worst = 0.0_f32;
        let mut touching = 0;
        for (index, one) in nuclei.iter().enumerate() {
            for other in &nuclei[index + 1..] {
                let (dx, dy) = (other.x - one.x, other.y - one.y);
                let distance = dx.hypot(dy);
                if !(1e-3..CELL).contains(&distance) {
                    continue;
                }
                let (dx, dy) = (dx / distance, dy / distance);
                let overlap = one.hull().reach(dx, dy) + other.hull().reach(dx, dy) - distance;
                touching += usize::from(overlap > -0.5);
                // Daughters begin on top of each other, and margins meet when wrapping.
                let settled = one.condensation() + other.condensation() < 0.1;
                let inside = |nucleus: &Nucleus| {
                    (20.0..640.0).contains(&nucleus.x) && (20.0..640.0).contains(&nucleus.y)
                };
                if settled && inside(one) && inside(other) {
                    worst = worst.max(overlap);
                }
            }
        }
        assert!(touching > 20, "{touching} touching pairs of {}", nuclei.len());
        assert!(worst < 0.6 * RADIUS, "{worst} µm of overlap");
    }

    #[test]
    fn steps_taken_at_once_or_one_by_one_lead_to_the_same_field() {
        let (mut at_once, mut one_by_one) = (field(400.0), field(400.0));
        at_once.live_until(60);
        (1..=60).for_each(|step| one_by_one.live_until(step));
        let positions =
            |field: &Population| field.nuclei.iter().map(|n| (n.x, n.y)).collect::<Vec<_>>();
        assert_eq!(positions(&at_once), positions(&one_by_one));
    }
}
