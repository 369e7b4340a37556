//! Where a frame was taken, as far as its file's name says it beyond doubt.
//!
//! A name is read as words: runs of letters and digits.
//! - Well: an upper-case row A to P with a two-digit column 01 to 24 (`A02`), or, after the
//!   word `well`, any case and one digit too (`Well c7`). Harmony's `r03c07f02` gives both.
//!   Two different wells in one name are none.
//! - Field: the number after the word `field`, `site` or `fov` (`Field 2`, `site_2`, `fov2`);
//!   `s2` and `f02` count only in a name that has a well. Fields count from 1.
//!
//! The plate is not guessed: any word could be one.

use reticle_domain::frame::Place;

/// Reads the place from a file name.
pub(super) fn from_name(name: &str) -> Place {
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    let words: Vec<&str> =
        stem.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    if let Some(place) = words.iter().find_map(|word| harmony(word)) {
        return place;
    }
    let well = well(&words);
    let field = field(&words, well.is_some());
    Place { plate: None, well, field }
}

fn well(words: &[&str]) -> Option<String> {
    let mut found: Option<String> = None;
    for (at, word) in words.iter().enumerate() {
        let labelled = at.checked_sub(1).is_some_and(|at| words[at].eq_ignore_ascii_case("well"));
        let word = match prefixed(word, "well") {
            Some(rest) if !rest.is_empty() => Some((rest, true)),
            _ => Some((*word, labelled)),
        };
        let Some(well) = word.and_then(|(word, labelled)| one_well(word, labelled)) else {
            continue;
        };
        match &found {
            Some(other) if *other != well => return None,
            _ => found = Some(well),
        }
    }
    found
}

/// `A02` (or, labelled as a well, `a2`) as `A02`.
fn one_well(word: &str, labelled: bool) -> Option<String> {
    let (row, digits) = word.split_at_checked(1)?;
    let row = row.chars().next().filter(|row| labelled || row.is_ascii_uppercase())?;
    let row = row.to_ascii_uppercase();
    if !row.is_ascii_uppercase() || row > 'P' || (!labelled && digits.len() != 2) {
        return None;
    }
    let column = number(digits).filter(|column| (1..=24).contains(column) && digits.len() <= 2)?;
    Some(format!("{row}{column:02}"))
}

fn field(words: &[&str], in_a_well: bool) -> Option<u32> {
    for (at, word) in words.iter().enumerate() {
        for label in ["field", "site", "fov"] {
            match prefixed(word, label) {
                Some("") => {
                    if let Some(field) = words.get(at + 1).and_then(|next| number(next)) {
                        return counted(field);
                    }
                }
                Some(rest) => {
                    if let Some(field) = number(rest) {
                        return counted(field);
                    }
                }
                None => {}
            }
        }
    }
    let short = |word: &&str| ["s", "f"].iter().find_map(|label| number(prefixed(word, label)?));
    if in_a_well { words.iter().find_map(short).and_then(counted) } else { None }
}

fn counted(field: u32) -> Option<u32> {
    (field > 0).then_some(field)
}

/// `r03c07f02p01` as well C07, field 2.
fn harmony(word: &str) -> Option<Place> {
    let (row, rest) = leading_number(prefixed(word, "r")?)?;
    let (column, rest) = leading_number(prefixed(rest, "c")?)?;
    let (field, _) = leading_number(prefixed(rest, "f")?)?;
    let row = row.checked_sub(1).and_then(|row| "ABCDEFGHIJKLMNOP".chars().nth(row as usize))?;
    (1..=24).contains(&column).then(|| Place {
        plate: None,
        well: Some(format!("{row}{column:02}")),
        field: counted(field),
    })
}

/// What follows `label` at the beginning of `word`, in any case.
fn prefixed<'a>(word: &'a str, label: &str) -> Option<&'a str> {
    let (start, rest) = word.split_at_checked(label.len())?;
    start.eq_ignore_ascii_case(label).then_some(rest)
}

fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(length)?;
    Some((number(digits)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> (Option<String>, Option<u32>) {
        let place = from_name(name);
        assert_eq!(place.plate, None);
        (place.well, place.field)
    }

    fn at(well: &str, field: Option<u32>) -> (Option<String>, Option<u32>) {
        (Some(well.to_owned()), field)
    }

    #[test]
    fn names_that_say_the_place_give_it() {
        assert_eq!(place("A01_s2.tif"), at("A01", Some(2)));
        assert_eq!(place("IXMtest_A02_s1_w1.tif"), at("A02", Some(1)));
        assert_eq!(place("Well C07 Field 2.ome.tif"), at("C07", Some(2)));
        assert_eq!(place("well-c7_site12.png"), at("C07", Some(12)));
        assert_eq!(place("WellP24.tif"), at("P24", None));
        assert_eq!(place("r03c07f02p01-ch1sk1fk1fl1.tiff"), at("C07", Some(2)));
        assert_eq!(place("fov3.tif"), (None, Some(3)));
    }

    #[test]
    fn names_that_do_not_say_it_give_nothing() {
        for name in [
            "t0001.tif",
            "IMG_1234.jpg",
            "cells.png",
            "a01.tif",
            "Q01.tif",
            "A25.tif",
            "s2.tif",
            "A01_B02.tif",
            "A1.tif",
            "Field.tif",
            "µ.png",
            ".tif",
            "field0.tif",
        ] {
            assert_eq!(place(name), (None, None), "{name}");
        }
    }
}
