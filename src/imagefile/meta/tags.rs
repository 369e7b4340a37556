//! The first directory of a TIFF as its bytes are: every description, and vendors' private tags.
//!
//! The decoder keeps one value of a tag and takes text for UTF-8. Micro-Manager writes two
//! `ImageDescription`s into one directory, and ImageJ writes Latin-1. Structures that a private tag
//! only begins, or points to, are followed here as far as they say the size of a pixel.

use std::io::{ErrorKind, Read, Seek, SeekFrom};

use crate::imagefile::Problem;

/// Largest description: the OME-XML of a whole plate.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Largest private tag that is looked at.
const MAX_PRIVATE_BYTES: u64 = 4 << 20;

/// Entries of a directory that are looked at; a classic TIFF cannot have more.
const MAX_ENTRIES: u64 = 65_535;

pub(super) const IMAGE_DESCRIPTION: u16 = 270;
/// Olympus Soft Imaging System: a structure at the tag's offset.
pub(super) const OLYMPUS_SIS: u16 = 33_560;
/// MetaMorph STK: pairs of an id and a value or an offset.
pub(super) const METAMORPH_UIC1: u16 = 33_628;
pub(super) const FLUOVIEW_HEADER: u16 = 34_361;
pub(super) const ZEISS_LSM: u16 = 34_412;
pub(super) const FEI_SFEG: u16 = 34_680;
pub(super) const FEI_HELIOS: u16 = 34_682;
pub(super) const IMAGEJ_PROPERTIES: u16 = 50_839;
pub(super) const MICRO_MANAGER: u16 = 51_123;
pub(super) const NIS_ELEMENTS: u16 = 65_332;
pub(super) const NIS_ELEMENTS_2: u16 = 65_333;

const WANTED: [u16; 11] = [
    IMAGE_DESCRIPTION,
    OLYMPUS_SIS,
    METAMORPH_UIC1,
    FLUOVIEW_HEADER,
    ZEISS_LSM,
    FEI_SFEG,
    FEI_HELIOS,
    IMAGEJ_PROPERTIES,
    MICRO_MANAGER,
    NIS_ELEMENTS,
    NIS_ELEMENTS_2,
];

/// A value as it lies in the file.
pub(super) struct Value {
    pub(super) tag: u16,
    pub(super) bytes: Vec<u8>,
}

/// What was found, in the order of the file.
#[derive(Default)]
pub(super) struct Tags {
    pub(super) big_endian: bool,
    pub(super) values: Vec<Value>,
}

impl Tags {
    /// All values of a tag.
    pub(super) fn all(&self, tag: u16) -> impl Iterator<Item = &[u8]> {
        self.values.iter().filter(move |value| value.tag == tag).map(|value| &*value.bytes)
    }
}

/// Reads from the beginning of the file, and leaves the reader there.
///
/// A description that is cut off is damage, as pixels would be. Whatever else is not as it should
/// be is left out: the decoder says what is wrong with the rest, and private tags are
/// nobody's promise.
pub(super) fn first_directory(reader: &mut (impl Read + Seek)) -> Result<Tags, Problem> {
    reader.rewind()?;
    let tags = match Cursor::begin(reader) {
        Ok(mut cursor) => cursor.tags(),
        Err(cut) => cut.or(Tags::default()),
    }?;
    reader.rewind()?;
    Ok(tags)
}

/// Why bytes are not there.
enum Cut {
    /// The file does not have them, or they are no TIFF's.
    Missing,
    Unreadable(std::io::Error),
}

impl Cut {
    fn or<T>(self, instead: T) -> Result<T, Problem> {
        match self {
            Self::Missing => Ok(instead),
            Self::Unreadable(error) => Err(Problem::from(error)),
        }
    }
}

impl From<std::io::Error> for Cut {
    fn from(error: std::io::Error) -> Self {
        // A seek beyond 2⁶³ is as good as one beyond the end.
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::InvalidInput => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}

struct Cursor<'r, R> {
    reader: &'r mut R,
    big_endian: bool,
    big_tiff: bool,
}

impl<'r, R: Read + Seek> Cursor<'r, R> {
    fn begin(reader: &'r mut R) -> Result<Self, Cut> {
        let mut start = [0_u8; 4];
        reader.read_exact(&mut start)?;
        let (big_endian, big_tiff) = match start {
            [b'I', b'I', 42, 0] => (false, false),
            [b'M', b'M', 0, 42] => (true, false),
            [b'I', b'I', 43, 0] => (false, true),
            [b'M', b'M', 0, 43] => (true, true),
            _ => return Err(Cut::Missing),
        };
        Ok(Self { reader, big_endian, big_tiff })
    }

    fn tags(&mut self) -> Result<Tags, Problem> {
        let mut tags = Tags { big_endian: self.big_endian, values: Vec::new() };
        let entries = match self.entries() {
            Ok(entries) => entries,
            Err(cut) => return cut.or(tags),
        };
        for entry in entries {
            match self.value(&entry) {
                Ok(Some(bytes)) => tags.values.push(Value { tag: entry.tag, bytes }),
                Ok(None) => {}
                Err(Cut::Missing) if entry.tag == IMAGE_DESCRIPTION => {
                    return Err(Problem::Damaged("it ends too early".to_owned()));
                }
                Err(cut) => cut.or(())?,
            }
        }
        Ok(tags)
    }

    /// The wanted entries of the first directory.
    fn entries(&mut self) -> Result<Vec<Entry>, Cut> {
        if self.big_tiff {
            // Bytes of an offset, and a zero.
            self.bytes::<4>()?;
        }
        let at = self.offset()?;
        self.reader.seek(SeekFrom::Start(at))?;
        let count = if self.big_tiff { self.u64()? } else { u64::from(self.u16()?) };
        let mut entries = Vec::new();
        for _ in 0..count.min(MAX_ENTRIES) {
            let (tag, kind) = (self.u16()?, self.u16()?);
            let count = self.offset()?;
            let at = self.reader.stream_position()?;
            let offset = self.offset()?;
            if WANTED.contains(&tag) {
                entries.push(Entry { tag, kind, count, at, offset });
            }
        }
        Ok(entries)
    }

    fn value(&mut self, entry: &Entry) -> Result<Option<Vec<u8>>, Cut> {
        let width = match entry.kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => return Ok(None),
        };
        let mut bytes = entry.count.saturating_mul(width);
        let inline = if self.big_tiff { 8 } else { 4 };
        match entry.tag {
            OLYMPUS_SIS => return self.olympus_sis(entry.offset).map(Some),
            METAMORPH_UIC1 if entry.kind == 4 => {
                // Its count is of pairs, whatever the tag's type says.
                return self.metamorph_uic1(entry.offset, entry.count).map(Some);
            }
            // Its count may be that of its bytes or 1.
            FLUOVIEW_HEADER | ZEISS_LSM => bytes = bytes.clamp(2048, MAX_PRIVATE_BYTES),
            _ => {}
        }
        let most = if entry.tag == IMAGE_DESCRIPTION { MAX_TEXT_BYTES } else { MAX_PRIVATE_BYTES };
        if bytes > most {
            return Ok(None);
        }
        let is_structure = matches!(entry.tag, FLUOVIEW_HEADER | ZEISS_LSM);
        let at = if bytes <= inline { entry.at } else { entry.offset };
        let found = self.up_to(at, bytes)?;
        if found.len() as u64 == bytes || is_structure {
            Ok(Some(found))
        } else {
            Err(Cut::Missing)
        }
    }

    /// The general block of the structure: exponent of the unit and both calibrations.
    fn olympus_sis(&mut self, at: u64) -> Result<Vec<u8>, Cut> {
        let head = self.exactly(at, 60)?;
        let blocks = match head.as_slice() {
            [b'S', b'I', b'S', b'0', .., low, high] => u16::from_le_bytes([*low, *high]),
            _ => return Err(Cut::Missing),
        };
        for block in 0..u64::from(blocks.min(64)) {
            let entry = self.exactly(at + 60 + 8 * block, 8)?;
            if let [1, 0, _, _, a, b, c, d] = *entry.as_slice() {
                return self.exactly(u64::from(u32::from_le_bytes([a, b, c, d])), 112);
            }
        }
        Err(Cut::Missing)
    }

    /// State, both calibrations as fractions, and the unit's name: 4 + 8 + 8 bytes and the rest.
    fn metamorph_uic1(&mut self, at: u64, pairs: u64) -> Result<Vec<u8>, Cut> {
        let mut found = vec![0_u8; 20];
        let mut unit = Vec::new();
        let list = self.up_to(at, pairs.min(1024) * 8)?;
        for pair in list.chunks_exact(8) {
            let (id, value) = (le_u32(pair, 0), le_u32(pair, 4));
            match id {
                3 => found[..4].copy_from_slice(&value.to_le_bytes()),
                4 => found[4..12].copy_from_slice(&self.exactly(value.into(), 8)?),
                5 => found[12..].copy_from_slice(&self.exactly(value.into(), 8)?),
                6 => {
                    let length = le_u32(&self.exactly(value.into(), 4)?, 0);
                    unit = self.exactly(u64::from(value) + 4, u64::from(length.min(64)))?;
                }
                _ => {}
            }
        }
        found.extend(unit);
        Ok(found)
    }

    fn exactly(&mut self, at: u64, bytes: u64) -> Result<Vec<u8>, Cut> {
        let found = self.up_to(at, bytes)?;
        if found.len() as u64 == bytes { Ok(found) } else { Err(Cut::Missing) }
    }

    fn up_to(&mut self, at: u64, bytes: u64) -> Result<Vec<u8>, Cut> {
        self.reader.seek(SeekFrom::Start(at))?;
        let mut found = Vec::new();
        (&mut *self.reader).take(bytes).read_to_end(&mut found)?;
        Ok(found)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Cut> {
        let mut bytes = [0_u8; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u16(&mut self) -> Result<u16, Cut> {
        let bytes = self.bytes()?;
        Ok(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u64(&mut self) -> Result<u64, Cut> {
        let bytes = self.bytes()?;
        Ok(if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    /// A count or an offset: of 4 bytes, in BigTIFF of 8.
    fn offset(&mut self) -> Result<u64, Cut> {
        if self.big_tiff {
            return self.u64();
        }
        let bytes = self.bytes()?;
        let value =
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        Ok(value.into())
    }
}

/// An entry of a directory.
struct Entry {
    tag: u16,
    kind: u16,
    count: u64,
    /// Where its value is, if it is so short that it lies in the entry.
    at: u64,
    /// Where it is otherwise.
    offset: u64,
}

/// Four bytes of a structure; 0 where they are not there.
pub(super) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Eight bytes of a structure as a number; 0 where they are not there.
pub(super) fn le_f64(bytes: &[u8], at: usize) -> f64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0.0, f64::from_le_bytes)
}

/// Text of whatever encoding: UTF-8, else UTF-16 by its mark, else Latin-1 (which ImageJ, Java and
/// many cameras' programs write). What follows a NUL is another string of the same tag.
pub(super) fn text(bytes: &[u8]) -> String {
    let utf16 = match bytes {
        [0xff, 0xfe, ..] => Some(u16::from_le_bytes as fn([u8; 2]) -> u16),
        [0xfe, 0xff, ..] => Some(u16::from_be_bytes as fn([u8; 2]) -> u16),
        _ => None,
    };
    if let Some(unit) = utf16 {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        return String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned();
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let bytes = &bytes[..end];
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}
