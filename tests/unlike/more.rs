//! More pictures of each kind that no model knows: what cameras, stages and samples do besides.
//! Those that still go without a word are listed in `docs/design/unlike.md`.

use std::f64::consts::TAU;
use std::sync::Arc;

use reticle_domain::frame::Frame;
use reticle_domain::look::Unlike;

use super::pictures::Picture;
use super::{EDGE, SEEDS, dark, each_is_right_or_said, nuclei};

/// Panics where one of four pictures neither has the true count nor any word.
fn each(what: &str, count: usize, picture: impl Fn(u64) -> Arc<Frame>) {
    each_is_right_or_said(what, &Unlike::ALL, count, SEEDS.map(picture));
}

/// Sixteen bits of what is 8 bits, as a camera of 12 bits has it.
fn twelve_bits(picture: &Picture) -> Arc<Frame> {
    picture.clone().each(|_, _, value| 100.0 + 12.0 * value).words()
}

fn from_centre(x: usize, y: usize) -> f64 {
    let half = EDGE as f64 / 2.0;
    (x as f64 - half).hypot(y as f64 - half)
}

#[test]
fn dark_nuclei_are_said_in_other_lights_too() {
    let inverted = |seed| nuclei(seed, 40, 20.0).inverted();
    each("inverted, 12 bits", 40, |seed| twelve_bits(&inverted(seed)));
    each("inverted, light from one side", 40, |seed| {
        inverted(seed).each(|x, _, v| v * (0.6 + 0.4 * x as f64 / EDGE as f64)).bytes()
    });
    each("inverted, faint", 40, |seed| {
        inverted(seed).each(|_, _, v| 180.0 + (v - 200.0) * 0.25).bytes()
    });
    each("inverted, black nuclei", 40, |seed| {
        nuclei(seed, 40, 20.0).each(|_, _, v| if v > 55.0 { 2.0 } else { 235.0 }).bytes()
    });
    each("inverted, dense", 130, |seed| nuclei(seed, 130, 24.0).inverted().bytes());
    each("inverted, few", 3, |seed| nuclei(seed, 3, 20.0).inverted().bytes());
}

#[test]
fn other_lines_and_patterns_are_said_or_empty() {
    let wave = |along: f64, period: f64| (along / period * TAU).sin();
    each("oblique stripes", 0, |seed| {
        dark(seed).each(|x, y, v| v + 20.0 * wave(x as f64 + 0.2 * y as f64, 20.0)).bytes()
    });
    each("square stripes", 0, |seed| {
        dark(seed).each(|_, y, v| v + if y % 32 < 16 { 25.0 } else { 0.0 }).bytes()
    });
    each("one bright row in 40", 0, |seed| {
        dark(seed).each(|_, y, v| v + if y % 40 < 3 { 60.0 } else { 0.0 }).bytes()
    });
    each("checks", 0, |seed| {
        dark(seed).each(|x, y, v| v + if (x / 16 + y / 16) % 2 == 0 { 30.0 } else { 0.0 }).bytes()
    });
    each("hexagons", 0, |seed| {
        dark(seed)
            .each(|x, y, v| {
                let row = y as f64 / 26.0;
                let shift = if (y / 26) % 2 == 0 { 0.0 } else { 0.5 };
                v + 25.0 * wave(x as f64 / 30.0 + shift, 1.0).max(0.0) * wave(row, 2.0).abs()
            })
            .bytes()
    });
    each("pillars of a chip", 0, |seed| {
        dark(seed)
            .each(|x, y, v| {
                let (dx, dy) = ((x % 32) as f64 - 16.0, (y % 32) as f64 - 16.0);
                v + if dx.hypot(dy) < 9.0 { 80.0 } else { 0.0 }
            })
            .bytes()
    });
    each("tiles with shading", 0, |seed| {
        dark(seed)
            .each(|x, y, v| {
                let (dx, dy) = ((x % 128) as f64 - 64.0, (y % 128) as f64 - 64.0);
                v + 40.0 - 0.4 * dx.hypot(dy)
            })
            .bytes()
    });
    each("columns, 12 bits", 0, |seed| twelve_bits(&dark(seed).with_row_offsets(10.0, true, seed)));
}

#[test]
fn other_glow_is_said_or_empty() {
    each("one large glow", 0, |seed| dark(seed).with_glow(1, 100.0, 120.0, seed).bytes());
    each("clouds", 0, |seed| dark(seed).with_glow(60, 20.0, 25.0, seed).bytes());
    each("glow, 12 bits", 0, |seed| twelve_bits(&dark(seed).with_glow(10, 35.0, 80.0, seed)));
    each("nuclei far out of focus", 40, |seed| nuclei(seed, 40, 20.0).blurred(12.0).bytes());
    each("medium with a bright rim", 0, |seed| {
        dark(seed).each(|x, y, v| v + (from_centre(x, y) - 200.0).max(0.0)).bytes()
    });
}

#[test]
fn other_dim_nuclei_are_found_or_said() {
    for dim in [14.0, 20.0] {
        each(&format!("dim, {dim} of 220, 8 bits"), 25, |seed| {
            let flat = Picture::flat(EDGE, 20.0).noisy(1.0, seed);
            flat.with_nuclei(25, 20.0, |k| if k < 5 { 220.0 } else { dim }, seed).bytes()
        });
    }
    each("one dead cell as a lamp", 30, |seed| {
        let flat = Picture::flat(EDGE, 300.0).noisy(10.0, seed);
        flat.with_nuclei(30, 20.0, |k| if k == 0 { 60_000.0 } else { 300.0 }, seed).words()
    });
    each("large dim ones", 18, |seed| {
        let flat = Picture::flat(EDGE, 200.0).noisy(8.0, seed);
        flat.with_nuclei(18, 50.0, |k| if k < 3 { 50_000.0 } else { 200.0 }, seed).words()
    });
}

#[test]
fn other_debris_is_said_or_left_out() {
    each("hot pixels", 0, |seed| {
        dark(seed).each(|x, y, v| if (x * 31 + y * 17) % 997 == 0 { 255.0 } else { v }).bytes()
    });
    each("hot clusters among nuclei", 20, |seed| {
        let hot = |x: usize, y: usize| (x / 2 * 31 + y / 2 * 17).is_multiple_of(997);
        nuclei(seed, 20, 20.0).each(|x, y, v| if hot(x, y) { 255.0 } else { v }).bytes()
    });
}
