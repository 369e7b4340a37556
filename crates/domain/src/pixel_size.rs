//! Edge of a pixel in the sample: who states it, whose word counts, and what is worth saying.
//!
//! - [`PixelSizeSource::RANKED`] is the one table of who wins. A plausible size of a higher rank
//!   always stands; lower ranks only confirm or contradict it.
//! - A size is plausible within [`SMALLEST_UM`] and [`LARGEST_UM`], whoever states it. One outside
//!   is never used: it would set the scale in which the objects are looked for.
//! - [`decide`] also says what a person should know: that two disagree, that an implausible size
//!   was left, that the pixels are not square.

use std::fmt;

use reticle_base::plain_text;

/// Smallest pixel that is believed, in µm. Light resolves 0.2 µm, so no camera samples finer than
/// 0.05 µm to any use; super-resolution maps are drawn at 0.01 µm.
pub const SMALLEST_UM: f64 = 0.01;

/// Largest pixel that is believed, in µm. Cameras have pixels of 2 to 16 µm and microscopes
/// enlarge; plate scanners with less than 1× stay below this. Office programs write 72 to 300 dots
/// an inch, which is 85 µm and more.
pub const LARGEST_UM: f64 = 20.0;

/// Two sizes that differ by more than this part of the larger one disagree. Writers round: to
/// whole pixels a centimetre, and to two digits in dialogs.
const SAME: f64 = 0.02;

/// Pixels whose edges differ by more than this part are not square.
const SQUARE: f64 = 0.01;

/// Longest note, in characters.
pub const MAX_NOTE: usize = 300;

/// Longest text of a file within a note, in characters.
const MAX_QUOTED: usize = 24;

/// Who stated a pixel size. The words are stable: they are stored, sent and exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PixelSizeSource {
    /// `[source] pixel_size_um`, or the simulated microscope.
    Configured,
    /// `PhysicalSizeX` of OME-XML.
    OmeXml,
    /// `PixelSizeUm` of Micro-Manager.
    MicroManager,
    /// MetaMorph and MetaXpress: the calibration in XML, or in an STK's own tags.
    Metamorph,
    /// Nikon NIS-Elements: its XML.
    NisElements,
    /// Olympus cellSens and its kin: the tag of Soft Imaging System.
    OlympusSis,
    /// Olympus FluoView: its header.
    Fluoview,
    /// Zeiss LSM: its header.
    ZeissLsm,
    /// BioTek Gen5: width of the image in µm.
    Gen5,
    /// Volocity and Openlab (Improvision).
    Volocity,
    /// Aperio SVS: `MPP`.
    Aperio,
    /// FEI and Thermo Fisher: `PixelWidth` in metres.
    Fei,
    /// SCIFIO: its scales and units.
    Scifio,
    /// TIFF's resolution in pixels a centimetre or an inch.
    Resolution,
    /// TIFF's resolution in the unit that ImageJ's text names.
    Imagej,
    /// `PixelSizeUm` among the properties that ImageJ keeps of an image's past.
    ImagejProperties,
    /// PNG's `pHYs`.
    Png,
    /// JFIF's density.
    Jfif,
}

impl PixelSizeSource {
    /// Who wins, first to last, each with its word and its name in a sentence. Software of the
    /// microscope comes before what any image program writes, and the more explicit before the
    /// less: Micro-Manager puts OME-XML, JSON of its own, a resolution in centimetres and an
    /// ImageJ text with `unit=um` into one file, and only the last of them misleads.
    pub const RANKED: [(Self, &'static str, &'static str); 18] = [
        (Self::Configured, "configured", "the configuration"),
        (Self::OmeXml, "ome-xml", "the OME-XML"),
        (Self::MicroManager, "micro-manager", "Micro-Manager"),
        (Self::Metamorph, "metamorph", "MetaMorph"),
        (Self::NisElements, "nis-elements", "NIS-Elements"),
        (Self::OlympusSis, "olympus-sis", "the Olympus tag"),
        (Self::Fluoview, "fluoview", "FluoView"),
        (Self::ZeissLsm, "zeiss-lsm", "the LSM header"),
        (Self::Gen5, "gen5", "Gen5"),
        (Self::Volocity, "volocity", "Volocity"),
        (Self::Aperio, "aperio", "Aperio's MPP"),
        (Self::Fei, "fei", "the FEI header"),
        (Self::Scifio, "scifio", "SCIFIO"),
        (Self::Resolution, "resolution", "the resolution tag"),
        (Self::Imagej, "imagej", "ImageJ's unit"),
        (Self::ImagejProperties, "imagej-properties", "ImageJ's properties"),
        (Self::Png, "png", "the PNG's pHYs"),
        (Self::Jfif, "jfif", "the JPEG's density"),
    ];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The one of that word. A newer program may know more of them.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::RANKED.iter().find(|(_, known, _)| *known == word).map(|row| row.0)
    }

    fn name(self) -> &'static str {
        self.row().2
    }

    fn rank(self) -> usize {
        Self::RANKED.iter().position(|row| row.0 == self).unwrap_or(usize::MAX)
    }

    fn row(self) -> (Self, &'static str, &'static str) {
        // A test holds each of them against the table.
        Self::RANKED.into_iter().find(|row| row.0 == self).unwrap_or((self, "", ""))
    }
}

impl fmt::Display for PixelSizeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one of them says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Edges along x and y, in µm. One that is not a positive number says nothing.
    Size {
        /// Along x.
        x: f64,
        /// Along y.
        y: f64,
    },
    /// A number with a unit that is not known here.
    UnknownUnit(String),
    /// Several sizes for different images, and no telling which is whose.
    Several(Vec<f64>),
    /// So many dots an inch, as scanners and printers have them.
    Printed(f64),
}

/// A statement with who made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stated {
    /// Who.
    pub source: PixelSizeSource,
    /// What.
    pub said: Said,
}

impl Stated {
    /// A size in µm.
    pub fn size(source: PixelSizeSource, x: f64, y: f64) -> Self {
        Self { source, said: Said::Size { x, y } }
    }

    /// Whether it says anything: 0 is how Micro-Manager writes "not calibrated".
    fn is_empty(&self) -> bool {
        let is_edge = |edge: f64| edge.is_finite() && edge > 0.0;
        match self.said {
            Said::Size { x, y } => !(is_edge(x) && is_edge(y)),
            Said::UnknownUnit(_) | Said::Several(_) | Said::Printed(_) => false,
        }
    }

    /// The edge in µm, where it can be believed.
    fn believed(&self) -> Option<f64> {
        match self.said {
            Said::Size { x, y } => {
                ((x - y).abs() <= SQUARE * x.max(y) && is_plausible(x)).then_some(x)
            }
            Said::UnknownUnit(_) | Said::Several(_) | Said::Printed(_) => None,
        }
    }
}

impl fmt::Display for Stated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.source.name();
        match &self.said {
            Said::Size { x, y } if (x - y).abs() > SQUARE * x.max(*y) => {
                write!(f, "{name} says {} × {} µm, which is not square", Um(*x), Um(*y))
            }
            Said::Size { x, .. } if is_plausible(*x) => write!(f, "{name} says {} µm", Um(*x)),
            Said::Size { x, .. } => write!(
                f,
                "{name} says {} µm, which is not between {SMALLEST_UM} and {LARGEST_UM} µm",
                Um(*x)
            ),
            Said::UnknownUnit(unit) => {
                let mut short: String = unit.chars().take(MAX_QUOTED).collect();
                if short.len() < unit.len() {
                    short.push('…');
                }
                write!(f, "{name} has the unknown unit \"{}\"", plain_text::one_line(&short))
            }
            Said::Several(sizes) => {
                write!(f, "{name} has different sizes for its images (")?;
                for (at, size) in sizes.iter().take(3).enumerate() {
                    write!(f, "{}{}", if at == 0 { "" } else { ", " }, Um(*size))?;
                }
                write!(f, "{} µm)", if sizes.len() > 3 { ", …" } else { "" })
            }
            Said::Printed(dots) => write!(f, "{name} says {dots:.0} dots an inch, as scanners do"),
        }
    }
}

/// A number of µm to four digits, however large or small it is.
struct Um(f64);

impl fmt::Display for Um {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(um) = *self;
        if (0.001..100_000.0).contains(&um.abs()) {
            // Rounded to four digits, written without zeros at the end.
            let least = [1000.0, 100.0, 10.0, 1.0, 0.1, 0.01];
            let digits = least.iter().take_while(|least| um.abs() < **least).count();
            let factor = 10_f64.powi(digits as i32);
            write!(f, "{}", (um * factor).round() / factor)
        } else {
            write!(f, "{um:.2e}")
        }
    }
}

/// What is known of the edge of a pixel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PixelSize {
    /// In µm, where one is believed.
    pub um: Option<f64>,
    /// Who stated it.
    pub source: Option<PixelSizeSource>,
    /// What a person should know: a sentence or two of up to [`MAX_NOTE`] characters, plain text.
    pub note: Option<String>,
}

/// Whether a pixel may have this edge, in µm.
pub fn is_plausible(um: f64) -> bool {
    (SMALLEST_UM..=LARGEST_UM).contains(&um)
}

/// Whose word counts.
///
/// The note names those of a higher rank that were left, and those of a lower rank that are
/// plausible and disagree. What is of a lower rank and implausible is not worth a word: every
/// second image has 72 dots an inch.
pub fn decide(stated: impl IntoIterator<Item = Stated>) -> PixelSize {
    let mut stated: Vec<Stated> = stated.into_iter().filter(|said| !said.is_empty()).collect();
    stated.sort_by_key(|said| said.source.rank());
    let Some((at, um)) =
        stated.iter().enumerate().find_map(|(at, said)| Some((at, said.believed()?)))
    else {
        let note = (!stated.is_empty())
            .then(|| bounded(format!("no pixel size is believed: {}", listed(&stated))));
        return PixelSize { um: None, source: None, note };
    };
    let (left, rest) = stated.split_at(at);
    let (winner, lower) = rest.split_first().map_or((None, rest), |(w, l)| (Some(w), l));
    let disagree: Vec<Stated> = lower
        .iter()
        .filter(|other| other.believed().is_some_and(|o| differ(o, um)))
        .cloned()
        .collect();
    let others = [left, disagree.as_slice()].concat();
    let source = winner.map(|winner| winner.source);
    let name = source.map_or("", PixelSizeSource::name);
    let note = (!others.is_empty()).then(|| {
        bounded(format!("the pixel size of {} µm is that of {name}; {}", Um(um), listed(&others)))
    });
    PixelSize { um: Some(um), source, note }
}

impl PixelSize {
    /// The size that a person configured, before what the image says of itself.
    pub fn configured(self, um: Option<f64>) -> Self {
        let Some(um) = um else { return self };
        let own = self.um.zip(self.source).map(|(um, source)| Stated::size(source, um, um));
        let configured = Stated::size(PixelSizeSource::Configured, um, um);
        decide([configured].into_iter().chain(own))
    }
}

fn differ(a: f64, b: f64) -> bool {
    (a - b).abs() > SAME * a.max(b)
}

fn listed(stated: &[Stated]) -> String {
    stated.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn bounded(note: String) -> String {
    if note.chars().count() <= MAX_NOTE {
        return note;
    }
    let mut short: String = note.chars().take(MAX_NOTE - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use PixelSizeSource::*;

    use super::*;

    fn of(stated: &[(PixelSizeSource, f64)]) -> PixelSize {
        decide(stated.iter().map(|&(source, um)| Stated::size(source, um, um)))
    }

    #[test]
    fn the_higher_rank_wins_in_whatever_order_they_come() {
        let size = of(&[(Imagej, 0.65), (Resolution, 0.65), (OmeXml, 0.651)]);
        assert_eq!((size.um, size.source, size.note), (Some(0.651), Some(OmeXml), None));
        for (at, (higher, _, _)) in PixelSizeSource::RANKED.iter().enumerate() {
            for (lower, _, _) in &PixelSizeSource::RANKED[at + 1..] {
                let size = of(&[(*lower, 0.3), (*higher, 0.6)]);
                assert_eq!((size.um, size.source), (Some(0.6), Some(*higher)));
                let note = size.note.expect("they disagree by a factor of two");
                assert!(note.contains("0.6 µm") && note.contains("0.3 µm"), "{note}");
            }
        }
    }

    #[test]
    fn nobody_is_believed_outside_of_the_plausible_sizes() {
        for (source, _, name) in PixelSizeSource::RANKED {
            for um in [2e-10, 0.0099, 20.01, 84.67, 650.0, 1e12] {
                let size = of(&[(source, um)]);
                assert_eq!((size.um, size.source), (None, None), "{source} {um}");
                assert!(size.note.is_some_and(|note| note.contains(name)), "{source} {um}");
            }
            for um in [0.01, 0.0645, 1.0, 20.0] {
                let size = of(&[(source, um)]);
                assert_eq!((size.um, size.source, size.note), (Some(um), Some(source), None));
            }
        }
    }

    #[test]
    fn what_is_no_size_says_nothing() {
        for um in [0.0, -0.65, f64::NAN, f64::INFINITY] {
            assert_eq!(of(&[(OmeXml, um)]), PixelSize::default());
        }
        let uncalibrated = of(&[(OmeXml, 0.0), (MicroManager, 0.0), (Resolution, 2.328e-6)]);
        assert_eq!(uncalibrated.um, None);
        assert_eq!(
            uncalibrated.note.as_deref(),
            Some(
                "no pixel size is believed: the resolution tag says 2.33e-6 µm, which is not \
                 between 0.01 and 20 µm"
            )
        );
    }

    #[test]
    fn an_implausible_size_leaves_the_word_to_the_next_and_is_named() {
        let size = of(&[(OmeXml, 650.0), (Resolution, 0.65), (Imagej, 0.000_065)]);
        assert_eq!((size.um, size.source), (Some(0.65), Some(Resolution)));
        assert_eq!(
            size.note.as_deref(),
            Some(
                "the pixel size of 0.65 µm is that of the resolution tag; the OME-XML says 650 µm, \
                 which is not between 0.01 and 20 µm"
            )
        );
    }

    #[test]
    fn pixels_that_are_not_square_have_no_size_and_a_word() {
        let size = decide([Stated::size(OmeXml, 0.65, 1.3)]);
        assert_eq!(size.um, None);
        assert!(size.note.unwrap().contains("0.65 × 1.3 µm, which is not square"));
        assert_eq!(decide([Stated::size(OmeXml, 0.65, 0.6501)]).um, Some(0.65));
    }

    #[test]
    fn what_a_person_configured_stands_and_the_files_word_is_kept() {
        let file = of(&[(OmeXml, 0.65)]);
        assert_eq!(file.clone().configured(None), file);
        let same = file.clone().configured(Some(0.65));
        assert_eq!((same.um, same.source, same.note), (Some(0.65), Some(Configured), None));
        let other = file.configured(Some(0.5));
        assert_eq!((other.um, other.source), (Some(0.5), Some(Configured)));
        assert!(other.note.unwrap().contains("the OME-XML says 0.65 µm"));
        assert_eq!(PixelSize::default().configured(Some(0.5)).note, None);
    }

    #[test]
    fn a_note_is_short_and_harmless_whatever_the_file_says() {
        let hostile = format!("\u{1b}]52;c;cm0=\u{7}{}", "µ".repeat(10_000));
        let stated = PixelSizeSource::RANKED
            .map(|(source, _, _)| Stated { source, said: Said::UnknownUnit(hostile.clone()) });
        let note = decide(stated).note.unwrap();
        assert!(note.chars().count() <= MAX_NOTE, "{note}");
        assert!(!note.contains(plain_text::is_active), "{note}");
    }

    #[test]
    fn the_guide_has_the_same_table_in_the_same_order() {
        let guide = include_str!("../../../docs/guide/scientist.md");
        let (_, section) = guide.split_once("## Pixel size").expect("the guide has a section");
        let (section, _) = section.split_once("\n## ").expect("another follows");
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let words: Vec<&str> = PixelSizeSource::RANKED.iter().map(|row| row.1).collect();
        assert_eq!(rows.collect::<Vec<_>>(), words);
    }

    #[test]
    fn each_source_has_one_word_which_serde_writes_too() {
        for (source, word, _) in PixelSizeSource::RANKED {
            assert_eq!(source.as_str(), word);
            assert_eq!(PixelSizeSource::from_word(word), Some(source));
            assert_eq!(serde_json::to_value(source).unwrap(), word);
        }
        assert_eq!(PixelSizeSource::from_word("a newer one"), None);
    }
}
