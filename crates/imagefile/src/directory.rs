//! The directories of a TIFF file and the values of their tags, as bytes say them.
//!
//! Of our own making because the `tiff` crate judges a directory while it reads it: what it does
//! not like ends the file there, and what stands twice (Micro-Manager's descriptions) is there
//! once. Here nothing is judged but this: what lies behind the end of the file is missing.

use std::io::{Read, Seek, SeekFrom};

use crate::Problem;

/// Largest value of one tag: the OME-XML of a whole plate, the strips of a tall image.
const MAX_TAG_BYTES: u64 = 64 * 1024 * 1024;

/// Tags of one directory; classic TIFF cannot have more.
const MAX_TAGS: u64 = 65_535;

/// A TIFF file whose header was read.
#[derive(Debug)]
pub(crate) struct Source<R> {
    reader: R,
    pub(crate) big_endian: bool,
    /// BigTIFF: 8 bytes where classic TIFF has 4.
    big: bool,
    /// How long the file is.
    pub(crate) bytes: u64,
    /// Where the first directory is.
    pub(super) first: u64,
}

/// One directory: what one page says of itself.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    entries: Vec<Entry>,
    /// Where the next one is; 0 after the last.
    pub(super) next: u64,
}

/// A tag as it stands in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    tag: u16,
    pub(crate) kind: u16,
    pub(crate) count: u64,
    /// The value where it fits, else where it is.
    field: [u8; 8],
}

impl Entry {
    /// Bytes of all its values, where its kind is known.
    pub(crate) fn bytes(self) -> Option<u64> {
        Some(self.count.saturating_mul(self.size()?))
    }

    /// Bytes of one value of this kind; `None` for kinds that TIFF does not know.
    fn size(self) -> Option<u64> {
        match self.kind {
            // BYTE, ASCII, SBYTE, UNDEFINED
            1 | 2 | 6 | 7 => Some(1),
            // SHORT, SSHORT
            3 | 8 => Some(2),
            // LONG, SLONG, FLOAT, IFD
            4 | 9 | 11 | 13 => Some(4),
            // RATIONAL, SRATIONAL, DOUBLE, LONG8, SLONG8, IFD8
            5 | 10 | 12 | 16..=18 => Some(8),
            _ => None,
        }
    }
}

impl<R: Read + Seek> Source<R> {
    /// Reads the header of a file of `bytes`.
    pub(super) fn open(mut reader: R, bytes: u64) -> Result<Self, Problem> {
        let mut header = [0_u8; 8];
        reader.seek(SeekFrom::Start(0))?;
        reader.read_exact(&mut header)?;
        let big_endian = header[0] == b'M';
        let mut source = Self { reader, big_endian, big: false, bytes, first: 0 };
        let version = source.number(&header[2..4]);
        if version == 43 {
            source.big = true;
            if source.number(&header[4..6]) != 8 {
                return Err(Problem::kind("is a BigTIFF whose addresses have not 8 bytes"));
            }
            let mut first = [0_u8; 8];
            source.reader.read_exact(&mut first)?;
            source.first = source.number(&first);
        } else {
            source.first = source.number(&header[4..8]);
        }
        if source.first == 0 {
            return Err(Problem::Damaged("it holds no image".to_owned()));
        }
        Ok(source)
    }

    /// The bytes themselves.
    pub(super) fn reader(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Up to 8 bytes as one number.
    fn number(&self, bytes: &[u8]) -> u64 {
        let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
    }

    /// Reads `size` bytes at `at`, which the file must have.
    pub(crate) fn read_at(&mut self, at: u64, size: u64) -> Result<Vec<u8>, Problem> {
        if at.checked_add(size).is_none_or(|end| end > self.bytes) {
            return Err(Problem::Damaged("it ends too early".to_owned()));
        }
        if size > MAX_TAG_BYTES {
            return Err(Problem::Damaged("it names sizes that cannot be".to_owned()));
        }
        self.reader.seek(SeekFrom::Start(at))?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the directory at `at`.
    pub(super) fn directory(&mut self, at: u64) -> Result<Directory, Problem> {
        let (count_bytes, entry_bytes, field_bytes) =
            if self.big { (8, 20, 8) } else { (2, 12, 4) };
        let count = self.read_at(at, count_bytes)?;
        let count = self.number(&count);
        if count > MAX_TAGS {
            return Err(Problem::Damaged("it names sizes that cannot be".to_owned()));
        }
        let body = self.read_at(at + count_bytes, count * entry_bytes + field_bytes)?;
        let (entries, next) = body.split_at((count * entry_bytes) as usize);
        let entries = entries
            .chunks_exact(entry_bytes as usize)
            .map(|entry| {
                let (head, value) = entry.split_at(entry.len() - field_bytes as usize);
                let mut field = [0_u8; 8];
                field[..value.len()].copy_from_slice(value);
                Entry {
                    tag: self.number(&head[..2]) as u16,
                    kind: self.number(&head[2..4]) as u16,
                    count: self.number(&head[4..]),
                    field,
                }
            })
            .collect();
        Ok(Directory { entries, next: self.number(next) })
    }

    /// The bytes of a value, as they lie in the file; `None` for kinds that TIFF does not know.
    pub(crate) fn value(&mut self, entry: Entry) -> Result<Option<Vec<u8>>, Problem> {
        let Some(size) = entry.size() else { return Ok(None) };
        let field_bytes = if self.big { 8 } else { 4 };
        let bytes = entry.count.saturating_mul(size);
        if bytes <= field_bytes {
            return Ok(Some(entry.field[..bytes as usize].to_vec()));
        }
        let at = self.number(&entry.field[..field_bytes as usize]);
        self.read_at(at, bytes).map(Some)
    }

    /// Where a value is, if it does not fit into its entry.
    pub(crate) fn offset(&self, entry: Entry) -> u64 {
        self.number(&entry.field[..if self.big { 8 } else { 4 }])
    }

    /// A tag's whole numbers; `None` where it is not there or holds none.
    pub(super) fn numbers(
        &mut self,
        directory: &Directory,
        tag: u16,
    ) -> Result<Option<Vec<u64>>, Problem> {
        let Some(entry) = directory.entry(tag) else { return Ok(None) };
        let (Some(size), 1 | 3 | 4 | 6 | 8 | 9 | 13 | 16 | 17 | 18) = (entry.size(), entry.kind)
        else {
            return Ok(None);
        };
        let Some(bytes) = self.value(entry)? else { return Ok(None) };
        Ok(Some(bytes.chunks_exact(size as usize).map(|value| self.number(value)).collect()))
    }

    /// The first of a tag's whole numbers.
    pub(super) fn first_number(
        &mut self,
        directory: &Directory,
        tag: u16,
    ) -> Result<Option<u64>, Problem> {
        Ok(self.numbers(directory, tag)?.and_then(|numbers| numbers.first().copied()))
    }

    /// A tag as a number with a fraction, whichever kind of number it is.
    pub(super) fn fraction(
        &mut self,
        directory: &Directory,
        tag: u16,
    ) -> Result<Option<f64>, Problem> {
        let Some(entry) = directory.entry(tag) else { return Ok(None) };
        let Some(bytes) = self.value(entry)? else { return Ok(None) };
        Ok(match (entry.kind, bytes.as_slice()) {
            (5, [..]) if bytes.len() >= 8 => {
                Some(self.number(&bytes[..4]) as f64 / self.number(&bytes[4..8]) as f64)
            }
            (10, [..]) if bytes.len() >= 8 => {
                let signed = |bytes: &[u8]| f64::from(self.number(bytes) as u32 as i32);
                Some(signed(&bytes[..4]) / signed(&bytes[4..8]))
            }
            (2, text) => decode_text(text).trim().parse().ok(),
            (11, [..]) if bytes.len() >= 4 => {
                Some(f64::from(f32::from_bits(self.number(&bytes[..4]) as u32)))
            }
            (12, [..]) if bytes.len() >= 8 => Some(f64::from_bits(self.number(&bytes[..8]))),
            _ => self.first_number(directory, tag)?.map(|number| number as f64),
        })
    }

    /// The value of a tag as bytes.
    pub(super) fn raw(
        &mut self,
        directory: &Directory,
        tag: u16,
    ) -> Result<Option<Vec<u8>>, Problem> {
        let Some(entry) = directory.entry(tag) else { return Ok(None) };
        self.value(entry)
    }

    /// The texts of a tag without the zeros that end them, once for each time that it stands there.
    pub(super) fn texts(
        &mut self,
        directory: &Directory,
        tag: u16,
    ) -> Result<Vec<Vec<u8>>, Problem> {
        let mut texts = Vec::new();
        for entry in directory.entries.iter().filter(|entry| entry.tag == tag) {
            if let Some(mut text) = self.value(*entry)? {
                while text.last() == Some(&0) {
                    text.pop();
                }
                texts.push(text);
            }
        }
        Ok(texts)
    }

    /// Where the values are that do not fit into the directory.
    pub(super) fn outside(&self, directory: &Directory) -> Vec<u64> {
        let field_bytes = if self.big { 8 } else { 4 };
        let is_outside = |entry: &&Entry| {
            entry.size().is_some_and(|size| entry.count.saturating_mul(size) > field_bytes)
        };
        let place = |entry: &Entry| self.number(&entry.field[..field_bytes as usize]);
        directory.entries.iter().filter(is_outside).map(place).collect()
    }

    /// How many values a tag says it has, without reading them.
    pub(super) fn count(directory: &Directory, tag: u16) -> Option<u64> {
        directory.entry(tag).map(|entry| entry.count)
    }
}

impl Directory {
    fn entry(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.tag == tag).copied()
    }

    /// All entries of a tag: programs repeat what should be there once.
    pub(crate) fn all(&self, tag: u16) -> Vec<Entry> {
        self.entries.iter().filter(|entry| entry.tag == tag).copied().collect()
    }

    /// Whether the tag is there.
    pub(super) fn has(&self, tag: u16) -> bool {
        self.entry(tag).is_some()
    }
}

/// A tag's text: UTF-8, else UTF-16 by its mark, else Latin-1 (as ImageJ, Java and older programs
/// write `µ`). The zeros that end it are left out.
pub(crate) fn decode_text(bytes: &[u8]) -> String {
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
        Err(_not_utf8) => bytes.iter().copied().map(char::from).collect(),
    }
}
