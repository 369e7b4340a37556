//! Which planes of a file are segmented: a file is series × channel × z × time.
//!
//! - **Channels** are different stains or lights of one field, and one of them shows the objects.
//!   A file that holds several is refused until one is chosen, by name or number.
//! - **z planes** show the same objects again at other depths. Each is a page of its own unless
//!   one is chosen: programs say "z" of any stack (ImageJ's default, tifffile's too), so a file
//!   that says it is often a time series. That it is so is said in a note.
//! - **Time points and series** (fields, wells) are pages.
//!
//! Numbers that a person gives or reads count from 1, as ImageJ shows them; in the code they
//! count from 0.

use std::fmt;
use std::str::FromStr;

use super::Problem;
use reticle_base::plain_text;

/// Channels whose names are said.
const MOST_NAMED: usize = 20;

/// Longest name of a channel that is said, in characters.
const LONGEST_NAME: usize = 40;

/// One channel or z plane as a person names it: by its name, or by its number from 1.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct Pick(String);

/// How it stands in a configuration file: `channel = 2` and `channel = "DAPI"` are both fine.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u32),
    Name(String),
}

/// A pick that picks nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a name, or a number from 1")]
pub struct EmptyPick;

impl FromStr for Pick {
    type Err = EmptyPick;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() || text.len() > 200 || text.parse() == Ok(0_u32) {
            return Err(EmptyPick);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<Written> for Pick {
    type Error = EmptyPick;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Number(number) => number.to_string().parse(),
            Written::Name(name) => name.parse(),
        }
    }
}

impl From<Pick> for String {
    fn from(pick: Pick) -> Self {
        pick.0
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pick {
    /// Which of `count` it is, from 0: a name as it is written, a name in other case, a number
    /// from 1, or a part of exactly one name.
    fn find(&self, names: &[Option<String>], count: usize) -> Option<usize> {
        let position = |is: &dyn Fn(&str) -> bool| {
            names.iter().position(|name| name.as_deref().is_some_and(is))
        };
        let lower = self.0.to_lowercase();
        let number = || {
            let number: usize = self.0.parse().ok()?;
            (1..=count).contains(&number).then(|| number - 1)
        };
        let part = || {
            let has = |name: &Option<String>| {
                name.as_deref().is_some_and(|name| name.to_lowercase().contains(&lower))
            };
            let mut found = (0..names.len()).filter(|&at| has(&names[at]));
            found.next().filter(|_| found.next().is_none())
        };
        position(&|name| name == self.0)
            .or_else(|| position(&|name| name.to_lowercase() == lower))
            .or_else(number)
            .or_else(part)
    }
}

/// Which planes a person wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The channel, where a file holds several.
    pub channel: Option<Pick>,
    /// The z plane, where a file holds several: a number, or `middle`.
    pub z: Option<Pick>,
}

impl Selection {
    /// Which of a page's or file's channels is taken, from 0.
    ///
    /// # Errors
    /// Where there are several and none is chosen, or where the chosen one is not there.
    pub(super) fn channel(&self, names: &[Option<String>], count: usize) -> Result<usize, Problem> {
        match &self.channel {
            None if count == 1 => Ok(0),
            None => Err(Problem::Channels { count, channels: listed(names, count) }),
            // One channel without a name may be any.
            Some(pick) if count == 1 && names.iter().all(Option::is_none) => {
                match pick.0.parse::<u32>() {
                    Ok(number) if number != 1 => Err(not_there(pick, names, count)),
                    _ => Ok(0),
                }
            }
            Some(pick) => pick.find(names, count).ok_or_else(|| not_there(pick, names, count)),
        }
    }

    /// Which of `count` z planes is taken, from 0; `None` for all.
    fn z(&self, count: usize) -> Result<Option<usize>, Problem> {
        let Some(pick) = &self.z else { return Ok(None) };
        if pick.0.eq_ignore_ascii_case("middle") {
            return Ok(Some((count - 1) / 2));
        }
        let not_there = || {
            Problem::Unsupported(format!(
                "has {count} z plane{}, and `{pick}` is none of them; give a number from 1, or \
                 `middle`",
                if count == 1 { "" } else { "s" }
            ))
        };
        pick.find(&[], count).map(Some).ok_or_else(not_there)
    }
}

fn not_there(pick: &Pick, names: &[Option<String>], count: usize) -> Problem {
    let what = if count == 1 { "1 channel".to_owned() } else { format!("{count} channels") };
    Problem::Unsupported(format!(
        "has {what} ({}), and `{pick}` is none of them; give a name or a number from 1 with \
         `--channel`, or as `channel` in [source]",
        listed(names, count)
    ))
}

/// Channels as a person is to choose from them: `1 Brightfield, 2 DAPI`.
fn listed(names: &[Option<String>], count: usize) -> String {
    let shown = (0..count.min(MOST_NAMED)).map(|at| shown(names, at));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if count > MOST_NAMED {
        text.push_str(", …");
    }
    text
}

/// One channel: its number from 1, and its name, which is foreign text.
fn shown(names: &[Option<String>], at: usize) -> String {
    let number = at + 1;
    let Some(Some(name)) = names.get(at) else { return number.to_string() };
    let mut short: String = name.chars().take(LONGEST_NAME).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    format!("{number} {}", plain_text::one_line(&short))
}

/// Where a page stands in its file, each from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Coordinates {
    pub(super) series: usize,
    pub(super) channel: usize,
    pub(super) z: usize,
}

/// What a file says of its pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Axes {
    /// One for each page.
    pub(super) pages: Vec<Coordinates>,
    /// Names of the channels of each series, as many as it has.
    pub(super) channels: Vec<Vec<Option<String>>>,
    /// z planes of each series.
    pub(super) depths: Vec<usize>,
}

/// What is read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Numbers of the pages, rising.
    pub(super) pages: Vec<usize>,
    /// Sentences about what is left out or is not what one may think: "FILE `NOTE`".
    pub(super) notes: Vec<String>,
    /// Whether the channel was settled by choosing pages; else the samples of a page decide.
    pub(super) by_page: bool,
}

impl Axes {
    /// One series of `pages` pages without a word about them.
    pub(super) fn unknown(pages: usize) -> Self {
        Self {
            pages: vec![Coordinates::default(); pages],
            channels: vec![vec![None]],
            depths: vec![1],
        }
    }

    /// A series of planes in a regular order. `order` names the axes, the fastest first: of the
    /// letters C, Z and T.
    pub(super) fn regular(pages: usize, order: &str, sizes: (usize, usize, usize)) -> Self {
        let (channels, depth, times) = (sizes.0.max(1), sizes.1.max(1), sizes.2.max(1));
        let coordinates = (0..pages)
            .map(|page| {
                let mut left = page;
                let mut found = Coordinates::default();
                for axis in order.chars() {
                    match axis {
                        'C' => {
                            found.channel = left % channels;
                            left /= channels;
                        }
                        'Z' => {
                            found.z = left % depth;
                            left /= depth;
                        }
                        _ => left /= times,
                    }
                }
                found
            })
            .collect();
        Self { pages: coordinates, channels: vec![vec![None; channels]], depths: vec![depth] }
    }

    /// Keeps what is wanted.
    pub(super) fn choose(&self, selection: &Selection) -> Result<Chosen, Problem> {
        let mut notes = Vec::new();
        let several = self.channels.iter().any(|names| names.len() > 1);
        let named = self.channels.iter().flatten().any(Option::is_some);
        let by_page = several || named;
        let mut taken = Vec::new();
        for (at, names) in self.channels.iter().enumerate() {
            // Where pages are not told apart by channel, the samples of each page may be.
            let channel = if by_page { selection.channel(names, names.len())? } else { 0 };
            taken.push(channel);
            if at == 0 && names.len() > 1 {
                notes.push(format!(
                    "has {} channels; {} is read",
                    names.len(),
                    shown(names, channel)
                ));
            }
        }
        // Pages of which nothing is said are z planes for somebody who asks for one.
        let silent = self.channels.len() == 1 && self.depths == [1] && !by_page;
        let depth = |series: usize| {
            if silent { self.pages.len() } else { self.depths.get(series).copied().unwrap_or(1) }
        };
        let mut pages = Vec::new();
        for (number, page) in self.pages.iter().enumerate() {
            let z = if silent { number } else { page.z };
            let wanted_z = selection.z(depth(page.series).max(1))?;
            if taken.get(page.series) == Some(&page.channel)
                && wanted_z.is_none_or(|want| want == z)
            {
                pages.push(number);
            }
        }
        if let Some(&depth) = self.depths.iter().max()
            && depth > 1
            && selection.z.is_none()
        {
            notes.push(format!(
                "says that it has {depth} z planes; each is segmented by itself, so an object that \
                 is in several is counted in each; choose one with `--z` (a number from 1, or \
                 `middle`), or with `z` in [source]"
            ));
        }
        Ok(Chosen { pages, notes, by_page })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(text: &str) -> Option<Pick> {
        Some(text.parse().unwrap())
    }

    fn named(names: &[&str]) -> Axes {
        let names: Vec<_> = names.iter().map(|name| Some((*name).to_owned())).collect();
        let mut axes = Axes::regular(4, "CZT", (names.len(), 2, 1));
        axes.channels = vec![names];
        axes
    }

    fn channel(text: &str) -> Selection {
        Selection { channel: pick(text), z: None }
    }

    #[test]
    fn several_channels_are_refused_with_their_names_until_one_is_chosen() {
        let axes = named(&["Brightfield", "DAPI"]);
        let error = axes.choose(&Selection::default()).unwrap_err().to_string();
        assert!(error.contains("1 Brightfield, 2 DAPI") && error.contains("--channel"), "{error}");
        for text in ["DAPI", "dapi", "2", "dap"] {
            let chosen = axes.choose(&channel(text)).unwrap();
            assert_eq!(chosen.pages, [1, 3], "{text}");
            assert!(chosen.notes[0].contains("2 DAPI is read"), "{:?}", chosen.notes);
        }
        for text in ["GFP", "3", "i"] {
            let error = axes.choose(&channel(text)).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}` is none of them")), "{error}");
        }
    }

    #[test]
    fn names_are_said_whole_short_and_harmless() {
        let hostile = format!("\u{1b}[2J{}", "x".repeat(1000));
        let axes = named(&["DAPI, 405 nm", &hostile]);
        let first = axes.choose(&channel("1")).unwrap();
        assert!(first.notes[0].contains("1 DAPI, 405 nm is read"), "{:?}", first.notes);
        let error = axes.choose(&Selection::default()).unwrap_err().to_string();
        assert!(error.len() < 400 && !error.contains(plain_text::is_active), "{error}");
        let many = Axes::regular(30, "CZT", (30, 1, 1));
        let last = many.choose(&channel("30")).unwrap();
        assert!(last.notes[0].contains("has 30 channels; 30 is read"), "{:?}", last.notes);
    }

    #[test]
    fn a_name_counts_before_a_number() {
        let axes = named(&["2", "1"]);
        assert_eq!(axes.choose(&channel("2")).unwrap().pages, [0, 2]);
    }

    #[test]
    fn z_planes_are_pages_with_a_note_until_one_is_chosen() {
        let axes = Axes::regular(3, "CZT", (1, 3, 1));
        let all = axes.choose(&Selection::default()).unwrap();
        assert_eq!(all.pages, [0, 1, 2]);
        assert!(all.notes[0].contains("3 z planes"), "{:?}", all.notes);
        let z = |text: &str| axes.choose(&Selection { channel: None, z: pick(text) });
        assert_eq!(z("3").unwrap().pages, [2]);
        assert_eq!(z("middle").unwrap().pages, [1]);
        assert!(z("4").unwrap_err().to_string().contains("has 3 z planes"));
        assert!(z("top").is_err());
    }

    #[test]
    fn pages_of_which_nothing_is_said_stay_pages() {
        let axes = Axes::unknown(5);
        let all = axes.choose(&Selection::default()).unwrap();
        assert_eq!((all.pages.len(), all.notes.len(), all.by_page), (5, 0, false));
        let third = axes.choose(&Selection { channel: None, z: pick("3") }).unwrap();
        assert_eq!(third.pages, [2]);
        // A setup that names its channel also takes files of one channel that say nothing.
        assert_eq!(axes.choose(&channel("DAPI")).unwrap().pages.len(), 5);
    }

    #[test]
    fn a_single_named_channel_is_held_to_its_name() {
        let mut axes = Axes::unknown(1);
        axes.channels = vec![vec![Some("GFP".to_owned())]];
        assert_eq!(axes.choose(&Selection::default()).unwrap().pages, [0]);
        assert_eq!(axes.choose(&channel("GFP")).unwrap().pages, [0]);
        assert!(axes.choose(&channel("DAPI")).unwrap_err().to_string().contains("1 GFP"));
    }

    #[test]
    fn a_pick_is_a_name_or_a_number_from_1() {
        for text in ["", "  ", "0", "00"] {
            assert!(text.parse::<Pick>().is_err(), "{text:?}");
        }
        #[derive(serde::Deserialize)]
        struct Table {
            channel: Pick,
        }
        for (text, expected) in [("channel = 2", "2"), ("channel = \"DAPI\"", "DAPI")] {
            assert_eq!(toml::from_str::<Table>(text).unwrap().channel.to_string(), expected);
        }
        assert!(toml::from_str::<Table>("channel = 0").is_err());
        assert!(toml::from_str::<Table>("channel = \"\"").is_err());
    }
}
