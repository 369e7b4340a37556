//! Vendors' private tags of a TIFF's first directory, as bytes.
//!
//! Structures that a private tag only begins, or points to, are followed here as far as they say
//! the size of a pixel.

use std::io::{Read, Seek};

use crate::Problem;
use crate::directory::{Directory, Entry, Source};

/// Largest private tag that is looked at.
const MAX_PRIVATE_BYTES: u64 = 4 << 20;

/// Bytes of FluoView's and LSM's headers that are looked at: their tags' counts are of bytes or 1.
const HEADER_BYTES: u64 = 2048;

/// The kind of a tag of 4-byte numbers.
const LONG: u16 = 4;

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

const WANTED: [u16; 10] = [
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

/// Reads what is wanted. A private tag is nobody's promise: one that points nowhere is left out.
pub(super) fn of_directory<R: Read + Seek>(
    source: &mut Source<R>,
    directory: &Directory,
) -> Result<Tags, Problem> {
    let mut tags = Tags { big_endian: source.big_endian, values: Vec::new() };
    for tag in WANTED {
        for entry in directory.all(tag) {
            match value(source, tag, entry) {
                Ok(Some(bytes)) => tags.values.push(Value { tag, bytes }),
                Ok(None) | Err(Problem::Damaged(_)) => {}
                Err(problem) => return Err(problem),
            }
        }
    }
    Ok(tags)
}

fn value<R: Read + Seek>(
    source: &mut Source<R>,
    tag: u16,
    entry: Entry,
) -> Result<Option<Vec<u8>>, Problem> {
    let at = source.offset(entry);
    match tag {
        OLYMPUS_SIS => olympus_sis(source, at),
        METAMORPH_UIC1 if entry.kind == LONG => metamorph_uic1(source, at, entry.count).map(Some),
        // Of other kinds it has distances along z: MetaMorph before 2.5.
        METAMORPH_UIC1 => Ok(None),
        FLUOVIEW_HEADER | ZEISS_LSM if entry.bytes().is_some_and(|bytes| bytes < HEADER_BYTES) => {
            let there = source.bytes.saturating_sub(at).min(HEADER_BYTES);
            source.read_at(at, there).map(Some)
        }
        _ if entry.bytes().is_some_and(|bytes| bytes <= MAX_PRIVATE_BYTES) => source.value(entry),
        _ => Ok(None),
    }
}

/// The general block of the structure: exponent of the unit and both calibrations.
fn olympus_sis<R: Read + Seek>(
    source: &mut Source<R>,
    at: u64,
) -> Result<Option<Vec<u8>>, Problem> {
    let head = source.read_at(at, 60)?;
    let [b'S', b'I', b'S', b'0', .., low, high] = *head.as_slice() else { return Ok(None) };
    let blocks = u64::from(u16::from_le_bytes([low, high])).min(64);
    for block in source.read_at(at + 60, 8 * blocks)?.chunks_exact(8) {
        if let [1, 0, ..] = block {
            return source.read_at(le_u32(block, 4).into(), 112).map(Some);
        }
    }
    Ok(None)
}

/// State, both calibrations as fractions, and the unit's name: 4 + 8 + 8 bytes and the rest. The
/// tag's count is of pairs of an id and a value.
fn metamorph_uic1<R: Read + Seek>(
    source: &mut Source<R>,
    at: u64,
    pairs: u64,
) -> Result<Vec<u8>, Problem> {
    let mut found = vec![0_u8; 20];
    let mut unit = Vec::new();
    for pair in source.read_at(at, 8 * pairs.min(1024))?.chunks_exact(8) {
        let (id, value) = (le_u32(pair, 0), le_u32(pair, 4));
        match id {
            3 => found[..4].copy_from_slice(&value.to_le_bytes()),
            4 => found[4..12].copy_from_slice(&source.read_at(value.into(), 8)?),
            5 => found[12..].copy_from_slice(&source.read_at(value.into(), 8)?),
            6 => {
                let length = le_u32(&source.read_at(value.into(), 4)?, 0);
                unit = source.read_at(u64::from(value) + 4, u64::from(length.min(64)))?;
            }
            _ => {}
        }
    }
    found.extend(unit);
    Ok(found)
}

/// Four bytes of a structure; 0 where they are not there.
pub(super) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Eight bytes of a structure as a number; 0 where they are not there.
pub(super) fn le_f64(bytes: &[u8], at: usize) -> f64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0.0, f64::from_le_bytes)
}
