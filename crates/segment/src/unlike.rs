//! Whether a picture is of the kind that its model knows.
//!
//! Judged from [`Evidence`] by a few limits. A word here never changes what is found: giant cells,
//! dense ones and rare ones are what people look for, so each limit lies where none of the 537 + 45
//! images of the models' own kinds comes near it. `docs/design/unlike.md` has what was measured,
//! `make prove-unlike` measures it again.

use super::evidence::Evidence;
use super::golden;
use super::package::ModelPackage;
use super::scale::{Plane, Scale};
use reticle_base::clock::Clock;
use reticle_domain::look::Unlike;
use reticle_domain::segmentation::IN_FOCUS;

/// Which way the objects of a model differ from what is around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// They are brighter.
    Bright,
    /// They are darker.
    Dark,
    /// Both, as in phase contrast, or it cannot be told.
    Either,
}

/// Strips of a picture that are this much alike have lines through all of them. Own images have 0.32
/// at most, lines of a tenth of the contrast 0.5 and more in 19 of 20.
const LINES_ALIKE: f32 = 0.45;

/// How strong such lines are at least, in spans of the plane. Fainter ones do no harm; a few own
/// images have as much, and no lines.
const LINES_HIGH: f32 = 0.025;

/// Alike along rows and along columns: own images have 0.11 at most, patterns 0.56.
const LINES_BOTH_WAYS: f32 = 0.3;

/// Objects of a pattern are at one distance from each other, up to this spread; cells that fill a
/// picture evenly have 0.1.
const REGULAR: f32 = 0.06;

/// Fewer objects may be regular by chance.
const REGULAR_OBJECTS: u32 = 30;

/// Share of what stands out that is dark: own fluorescence has 0.32 at most, noise alone 0.5, and
/// the same images inverted 0.65 in 19 of 20.
const DARK: f32 = 0.55;

/// The same for a model whose objects are both: own phase contrast has 0.60 at most.
const DARK_OF_EITHER: f32 = 0.65;

/// How far the wider tail lies on the other side; own fluorescence lies 0.14 on the bright side.
const TAIL: f32 = 0.1;

/// Fewer cells than this, which is a picture of few objects' diameters, say little: light that falls off
/// over an empty field is dark at its corners. Its tail has up to 0.3, a whole field that was taken for
/// one object 0.48, inverted images 0.68 and more.
const FEW_CELLS: u32 = 256;
const TAIL_OF_FEW: f32 = 0.6;

/// Own phase contrast lies at most 0.47 on the bright side, fluorescence at 0.88 in three of four.
const TAIL_OF_EITHER: f32 = 0.6;

/// Spots of less contrast than this are noise to a model that does not look for bright ones.
const CONTRAST: f32 = 0.1;

/// Objects are at least so many times as high as what is not found beside them, and that is at least
/// so many, and half as many as the objects.
const DIM_DEPTH: f32 = 30.0;
const DIM_OBJECTS: u32 = 5;

/// Share of objects of less than two fifths of the typical diameter; own images have 0.29 at most.
const SPECKS: f32 = 0.33;

/// Fewer objects say nothing about shares.
const SPECKS_OBJECTS: u32 = 12;

/// How alike foreground and picture are in what a model of bright objects knows. Of own images one has
/// less, and its tail is a bright one.
const AGREES: f32 = 0.6;

/// A tail that is not clearly bright, in such a picture.
const NOT_BRIGHT: f32 = 0.45;

/// Share of the picture that is foreground, below which agreement is a matter of noise.
const LITTLE: f32 = 0.01;

/// So much of a picture is no few objects: own images have 0.46 at most, inverted ones that are taken for
/// one object 0.95 and more.
const NEARLY_ALL: f32 = 0.9;
const FEW_OBJECTS: u32 = 3;

/// Share of the foreground of which a model is sure, in pictures that it knows: the nuclei model 0.55
/// at least, the phase model 0.48, and that one in fluorescence 0.25 in 19 of 20.
const SURE: f32 = 0.4;

/// In which way the picture is unlike what the model knows; `None` where it is not.
pub fn judge(evidence: &Evidence, polarity: Polarity) -> Option<Unlike> {
    lines(evidence).or_else(|| contrast(evidence, polarity)).or_else(|| found(evidence, polarity))
}

/// What the camera put over the picture, cells or none.
fn lines(evidence: &Evidence) -> Option<Unlike> {
    let Evidence { stripes, stripe_height, both_ways, .. } = *evidence;
    if stripe_height > LINES_HIGH && stripes > LINES_ALIKE {
        let both = both_ways > LINES_BOTH_WAYS;
        return Some(if both { Unlike::FixedPattern } else { Unlike::Stripes });
    }
    let is_regular = evidence.objects >= REGULAR_OBJECTS && evidence.distance_spread < REGULAR;
    is_regular.then_some(Unlike::FixedPattern)
}

/// Which way things stand out, whether they were found or not.
fn contrast(evidence: &Evidence, polarity: Polarity) -> Option<Unlike> {
    let Evidence { dark_share, tail, contrast, cells, .. } = *evidence;
    if cells < FEW_CELLS && tail.abs() < TAIL_OF_FEW {
        return None;
    }
    match polarity {
        Polarity::Bright if dark_share > DARK && tail < -TAIL => Some(Unlike::DarkOnBright),
        Polarity::Dark if dark_share < 1.0 - DARK && tail > TAIL => Some(Unlike::BrightOnDark),
        Polarity::Either if dark_share > DARK_OF_EITHER && tail < -TAIL => {
            Some(Unlike::DarkOnBright)
        }
        Polarity::Either
            if dark_share < 1.0 - DARK && tail > TAIL_OF_EITHER && contrast > CONTRAST =>
        {
            Some(Unlike::BrightOnDark)
        }
        _ => None,
    }
}

/// What is strange about the objects that were found.
fn found(evidence: &Evidence, polarity: Polarity) -> Option<Unlike> {
    let Evidence { objects, unseen, .. } = *evidence;
    if objects == 0 {
        return None;
    }
    if unseen >= DIM_OBJECTS && 2 * unseen >= objects && evidence.unseen_depth > DIM_DEPTH {
        return Some(Unlike::DimBesideBright);
    }
    if evidence.focus < IN_FOCUS {
        return Some(Unlike::Soft);
    }
    let does_not_follow = polarity == Polarity::Bright
        && evidence.foreground > LITTLE
        && evidence.agreement < AGREES
        && evidence.tail < NOT_BRIGHT;
    let is_all = evidence.foreground > NEARLY_ALL && objects <= FEW_OBJECTS;
    if evidence.sure < SURE || does_not_follow || is_all {
        return Some(Unlike::Strange);
    }
    (evidence.small > SPECKS && objects >= SPECKS_OBJECTS).then_some(Unlike::Debris)
}

/// Which way the objects of a model's own golden frame differ from what is around them: the one
/// picture of its kind that comes with every model. Without one nothing is said of that.
pub fn polarity_of(package: &ModelPackage, clock: &Clock) -> Polarity {
    let Ok(frame) = golden::frame(package, clock) else { return Polarity::Either };
    let grey = package.manifest().normalisation.span(&frame.pixels, frame.width as usize);
    let mut plane = Plane::default();
    plane.fill(&frame, grey);
    polarity(&Evidence::of_picture(&plane, Scale::NATIVE))
}

/// Of a picture of the model's own kind. Of 10 own phase-contrast images, 8 are neither.
fn polarity(evidence: &Evidence) -> Polarity {
    let Evidence { dark_share, tail, .. } = *evidence;
    if dark_share < 1.0 - DARK_OF_EITHER && tail > NOT_BRIGHT {
        Polarity::Bright
    } else if dark_share > DARK_OF_EITHER && tail < -NOT_BRIGHT {
        Polarity::Dark
    } else {
        Polarity::Either
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::BUILT_IN;

    /// A full fluorescence picture, about as the median of `train`.
    const USUAL: Evidence = Evidence {
        objects: 30,
        cells: 4096,
        tail: 0.95,
        contrast: 0.5,
        dark_share: 0.07,
        agreement: 0.93,
        sure: 0.86,
        foreground: 0.1,
        focus: 0.8,
        stripes: -0.06,
        both_ways: -0.2,
        stripe_height: 0.0,
        area_spread: 0.3,
        distance_spread: 0.37,
        unseen: 0,
        unseen_depth: 0.0,
        small: 0.02,
    };

    #[test]
    fn each_word_has_its_reason_and_a_usual_picture_none() {
        let cases = [
            (None, USUAL),
            (Some(Unlike::Stripes), Evidence { stripes: 0.9, stripe_height: 0.05, ..USUAL }),
            (None, Evidence { stripes: 0.9, stripe_height: 0.01, ..USUAL }),
            (
                Some(Unlike::FixedPattern),
                Evidence { stripes: 0.9, both_ways: 0.8, stripe_height: 0.05, ..USUAL },
            ),
            (Some(Unlike::FixedPattern), Evidence { distance_spread: 0.01, ..USUAL }),
            (None, Evidence { distance_spread: 0.0, objects: 2, ..USUAL }),
            (Some(Unlike::DarkOnBright), Evidence { dark_share: 0.85, tail: -0.9, ..USUAL }),
            (None, Evidence { dark_share: 0.72, tail: -0.3, cells: 64, ..USUAL }),
            (
                Some(Unlike::DarkOnBright),
                Evidence { dark_share: 0.72, tail: -0.9, cells: 64, ..USUAL },
            ),
            (
                Some(Unlike::DimBesideBright),
                Evidence { objects: 5, unseen: 20, unseen_depth: 300.0, ..USUAL },
            ),
            (Some(Unlike::Soft), Evidence { focus: 0.1, ..USUAL }),
            (Some(Unlike::Strange), Evidence { sure: 0.2, ..USUAL }),
            (Some(Unlike::Strange), Evidence { agreement: 0.4, tail: 0.2, ..USUAL }),
            (Some(Unlike::Strange), Evidence { objects: 1, foreground: 0.97, ..USUAL }),
            (None, Evidence { objects: 90, foreground: 0.97, ..USUAL }),
            (Some(Unlike::Debris), Evidence { small: 0.5, ..USUAL }),
            (None, Evidence { objects: 0, focus: 0.0, sure: 0.0, ..USUAL }),
        ];
        for (expected, evidence) in cases {
            assert_eq!(judge(&evidence, Polarity::Bright), expected, "{evidence:?}");
        }
    }

    #[test]
    fn what_is_unlike_depends_on_what_the_model_looks_for() {
        let dark = Evidence { dark_share: 0.85, tail: -0.9, agreement: 0.2, ..USUAL };
        assert_eq!(judge(&USUAL, Polarity::Dark), Some(Unlike::BrightOnDark));
        assert_eq!(judge(&dark, Polarity::Dark), None);
        assert_eq!(judge(&USUAL, Polarity::Either), Some(Unlike::BrightOnDark));
        let both = Evidence { dark_share: 0.4, tail: 0.3, agreement: 0.1, sure: 0.6, ..USUAL };
        assert_eq!(judge(&both, Polarity::Either), None);
    }

    #[test]
    fn the_built_in_models_look_for_what_their_golden_frames_show() {
        let polarities: Vec<Polarity> = BUILT_IN
            .iter()
            .map(|model| {
                let package = ModelPackage::find(model.name).unwrap();
                polarity_of(&package, &Clock::system())
            })
            .collect();
        assert_eq!(polarities, [Polarity::Bright, Polarity::Either]);
    }
}
