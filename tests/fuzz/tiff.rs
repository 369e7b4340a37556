//! TIFF files of every sort: sound ones over all the format's kinds, and then lies in their
//! directories, where a reader's trust is.

use fastrand::Rng;

use super::mutate::{deflate, edge};

const SHORT: u16 = 3;
const LONG: u16 = 4;

/// Tags that readers look at.
const TAGS: [u16; 36] = [
    254, 255, 256, 257, 258, 259, 262, 266, 269, 270, 273, 274, 277, 278, 279, 280, 281, 282, 283,
    284, 285, 296, 305, 317, 320, 322, 323, 324, 325, 330, 338, 339, 347, 530, 33628, 50838,
];

/// One entry of a directory, in the file's byte order already.
struct Entry {
    tag: u16,
    kind: u16,
    count: u64,
    value: Vec<u8>,
}

struct Writer {
    bytes: Vec<u8>,
    is_little: bool,
    is_big_tiff: bool,
}

impl Writer {
    fn number(&self, value: u64, width: usize) -> Vec<u8> {
        if self.is_little {
            value.to_le_bytes()[..width].to_vec()
        } else {
            value.to_be_bytes()[8 - width..].to_vec()
        }
    }

    fn push(&mut self, value: u64, width: usize) {
        let number = self.number(value, width);
        self.bytes.extend(number);
    }

    fn entry(&self, tag: u16, kind: u16, values: &[u64]) -> Entry {
        let width = match kind {
            SHORT => 2,
            LONG => 4,
            16 => 8,
            _ => 1,
        };
        let value = values.iter().flat_map(|&value| self.number(value, width)).collect();
        Entry { tag, kind, count: values.len() as u64, value }
    }

    fn text(tag: u16, text: &[u8]) -> Entry {
        let mut value = text.to_vec();
        value.push(0);
        Entry { tag, kind: 2, count: value.len() as u64, value }
    }

    /// Writes a directory, and gives the place at which the next one's place is to be written.
    fn directory(&mut self, entries: &[Entry]) -> usize {
        let word = if self.is_big_tiff { 8 } else { 4 };
        self.push(entries.len() as u64, if self.is_big_tiff { 8 } else { 2 });
        let size = entries.len() * (4 + 2 * word) + word;
        let mut values_at = self.bytes.len() + size;
        let mut values: Vec<u8> = Vec::new();
        for entry in entries {
            self.push(u64::from(entry.tag), 2);
            self.push(u64::from(entry.kind), 2);
            self.push(entry.count, word);
            if entry.value.len() <= word {
                let mut inline = entry.value.clone();
                inline.resize(word, 0);
                self.bytes.extend(inline);
            } else {
                self.push(values_at as u64, word);
                values_at += entry.value.len();
                values.extend(&entry.value);
            }
        }
        let next = self.bytes.len();
        self.push(0, word);
        self.bytes.extend(values);
        next
    }
}

/// A file of one to three pages, sometimes of many; half of them with lies.
pub(crate) fn build(jpeg: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut file =
        Writer { bytes: Vec::new(), is_little: rng.bool(), is_big_tiff: rng.u8(..4) == 0 };
    let word = if file.is_big_tiff { 8 } else { 4 };
    file.bytes.extend(if file.is_little { b"II" } else { b"MM" });
    if file.is_big_tiff {
        file.push(43, 2);
        file.push(8, 2);
        file.push(0, 2);
    } else {
        file.push(42, 2);
    }
    let mut link = file.bytes.len();
    file.push(0, word);
    let lies = rng.bool();
    let pages = if rng.u8(..32) == 0 { rng.usize(3..60) } else { rng.usize(1..=3) };
    let mut first = None;
    for _ in 0..pages {
        let mut entries = page(&mut file, jpeg, rng);
        if lies {
            for _ in 0..rng.usize(..4) {
                lie(&file, &mut entries, rng);
            }
        }
        if rng.u8(..8) != 0 {
            entries.sort_by_key(|entry| entry.tag);
        }
        if !file.bytes.len().is_multiple_of(2) {
            file.bytes.push(0);
        }
        let here = file.bytes.len() as u64;
        first.get_or_insert(here);
        patch(&mut file, link, here, word);
        link = file.directory(&entries);
    }
    if lies && rng.u8(..8) == 0 {
        // A chain that leads back, or out of the file.
        let to = if rng.bool() { first.unwrap_or(8) } else { edge(rng) };
        patch(&mut file, link, to, word);
    }
    file.bytes
}

fn patch(file: &mut Writer, at: usize, value: u64, width: usize) {
    let number = file.number(value, width);
    file.bytes[at..at + width].copy_from_slice(&number);
}

/// Writes the pixels of a page, and gives its directory.
fn page(file: &mut Writer, jpeg: &[u8], rng: &mut Rng) -> Vec<Entry> {
    let (width, height) = match rng.u8(..16) {
        0 => (rng.u64(1..3000), 1),
        1 => (1, rng.u64(1..3000)),
        _ => (rng.u64(1..48), rng.u64(1..48)),
    };
    let bits = [8, 8, 8, 16, 16, 16, 1, 2, 4, 12, 32, 64, rng.u64(..65)][rng.usize(..13)];
    let samples = [1, 1, 1, 1, 2, 3, 4, rng.u64(1..8)][rng.usize(..8)];
    let compression = [1, 1, 1, 5, 8, 32946, 32773, 50000, 7, rng.u64(..10)][rng.usize(..10)];
    let photometric = [1, 1, 1, 0, 2, 3, 6, rng.u64(..9)][rng.usize(..8)];
    let is_planar = samples > 1 && rng.u8(..3) == 0;
    let is_tiled = rng.u8(..3) == 0;
    let (chunk_width, chunk_height) = if is_tiled {
        (16 * rng.u64(1..4), 16 * rng.u64(1..4))
    } else {
        (width, rng.u64(1..=height))
    };
    let across = width.div_ceil(chunk_width);
    let down = height.div_ceil(chunk_height);
    let planes = if is_planar { samples } else { 1 };
    let in_pixel = if is_planar { 1 } else { samples };
    let row_bytes = (chunk_width * in_pixel * bits).div_ceil(8);
    let (mut offsets, mut counts) = (Vec::new(), Vec::new());
    for chunk in 0..(across * down * planes).min(4_000) {
        let rows = match is_tiled {
            true => chunk_height,
            false => chunk_height.min(height - (chunk % down) * chunk_height),
        };
        let is_flat = rng.bool();
        let grey = rng.u8(..);
        let raw: Vec<u8> = (0..row_bytes * rows)
            .map(|at| if is_flat { grey } else { (at as u8).wrapping_mul(grey) ^ (at >> 3) as u8 })
            .collect();
        let packed = compress(&raw, compression, jpeg, rng);
        offsets.push(file.bytes.len() as u64);
        counts.push(packed.len() as u64);
        file.bytes.extend(packed);
    }
    let offset_kind = if file.is_big_tiff { 16 } else { LONG };
    let mut entries = vec![
        file.entry(256, if rng.bool() { SHORT } else { LONG }, &[width]),
        file.entry(257, if rng.bool() { SHORT } else { LONG }, &[height]),
        file.entry(258, SHORT, &vec![bits; samples as usize]),
        file.entry(259, SHORT, &[compression]),
        file.entry(262, SHORT, &[photometric]),
        file.entry(277, SHORT, &[samples]),
        file.entry(284, SHORT, &[1 + u64::from(is_planar)]),
    ];
    if is_tiled {
        entries.push(file.entry(322, SHORT, &[chunk_width]));
        entries.push(file.entry(323, SHORT, &[chunk_height]));
        entries.push(file.entry(324, offset_kind, &offsets));
        entries.push(file.entry(325, LONG, &counts));
    } else {
        entries.push(file.entry(278, LONG, &[chunk_height]));
        entries.push(file.entry(273, offset_kind, &offsets));
        entries.push(file.entry(279, LONG, &counts));
    }
    if rng.u8(..3) == 0 {
        entries.push(file.entry(317, SHORT, &[rng.u64(1..4)]));
    }
    if rng.u8(..3) == 0 {
        entries.push(file.entry(339, SHORT, &vec![rng.u64(1..7); samples as usize]));
    }
    if rng.u8(..4) == 0 {
        entries.push(file.entry(266, SHORT, &[rng.u64(1..4)]));
    }
    if rng.u8(..4) == 0 {
        entries.push(file.entry(338, SHORT, &[rng.u64(..4)]));
    }
    if rng.u8(..4) == 0 {
        entries.push(file.entry(254, LONG, &[rng.u64(..8)]));
    }
    if photometric == 3 && rng.u8(..4) != 0 {
        let colours: Vec<u64> = (0..3 << bits.min(9)).map(|at| at * 97 % 65_536).collect();
        entries.push(file.entry(320, SHORT, &colours));
    }
    if rng.bool() {
        entries.push(Writer::text(270, &description(rng)));
    }
    if rng.u8(..3) == 0 {
        for tag in [282, 283] {
            let mut value = file.number(edge(rng), 4);
            value.extend(file.number(edge(rng), 4));
            entries.push(Entry { tag, kind: 5, count: 1, value });
        }
        entries.push(file.entry(296, SHORT, &[rng.u64(..4)]));
    }
    entries
}

fn compress(raw: &[u8], compression: u64, jpeg: &[u8], rng: &mut Rng) -> Vec<u8> {
    match compression {
        5 => lzw(raw),
        7 => jpeg.to_vec(),
        8 | 32946 => deflate(raw),
        32773 => packbits(raw, rng),
        50000 => zstd::encode_all(raw, 1).expect("memory takes every byte"),
        _ => raw.to_vec(),
    }
}

/// Runs and literals as they come.
fn packbits(raw: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut rest = raw;
    while let Some(&first) = rest.first() {
        let run = rest.iter().take(128).take_while(|&&byte| byte == first).count();
        if run > 2 {
            packed.extend([257_usize.wrapping_sub(run) as u8, first]);
            rest = &rest[run..];
        } else {
            let length = rng.usize(1..=128).min(rest.len());
            packed.push(length as u8 - 1);
            packed.extend(&rest[..length]);
            rest = &rest[length..];
        }
    }
    packed
}

/// Codes of 9 bits only: the table is cleared before it grows.
fn lzw(raw: &[u8]) -> Vec<u8> {
    let mut codes = Vec::new();
    for piece in raw.chunks(200) {
        codes.push(256_u32);
        codes.extend(piece.iter().copied().map(u32::from));
    }
    codes.push(257);
    let (mut packed, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for code in codes {
        held = held << 9 | code;
        bits += 9;
        while bits >= 8 {
            bits -= 8;
            packed.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    packed.push((held << (8 - bits)) as u8);
    packed
}

/// What programs write about a picture, with a number in it changed.
fn description(rng: &mut Rng) -> Vec<u8> {
    let dialects: [&str; 8] = [
        "ImageJ=1.53t\nimages=3\nchannels=1\nslices=3\nunit=\\u00B5m\nspacing=2.0\nloop=false\n",
        "ImageJ=1.53t\nimages=6\nchannels=2\nframes=3\nhyperstack=true\nmode=grayscale\nunit=cm\n",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><OME><Image ID=\"Image:0\"><Pixels SizeX=\"9\" \
         SizeY=\"9\" SizeC=\"1\" SizeZ=\"3\" SizeT=\"1\" DimensionOrder=\"XYZCT\" Type=\"uint16\" \
         SignificantBits=\"12\" PhysicalSizeX=\"0.65\" PhysicalSizeXUnit=\"µm\" \
         PhysicalSizeY=\"0.65\"><Channel ID=\"C\" Name=\"DAPI\"/><TiffData IFD=\"0\" FirstZ=\"0\" \
         PlaneCount=\"3\"/></Pixels></Image></OME>",
        "<MetaData><PlaneInfo><prop id=\"spatial-calibration-x\" type=\"float\" value=\"0.65\"/>\
         <prop id=\"spatial-calibration-units\" type=\"string\" value=\"um\"/></PlaneInfo></MetaData>",
        "{\"Width\":9,\"Height\":9,\"PixelSizeUm\":0.65,\"Slices\":3,\"Channels\":2}",
        "{\"shape\": [3, 9, 9], \"axes\": \"ZYX\"}",
        "Aperio Image Library v10\n240x240 (16x16) -> 60x60 - |AppMag = 20|MPP = 0.499",
        "<OME",
    ];
    let mut text = dialects[rng.usize(..dialects.len())].as_bytes().to_vec();
    if rng.bool() {
        let digits: Vec<usize> = (0..text.len()).filter(|&at| text[at].is_ascii_digit()).collect();
        if let Some(&at) = digits.get(rng.usize(..digits.len().max(1))) {
            let number = match rng.u8(..4) {
                0 => format!("-{}", edge(rng)),
                1 => "1e400".to_owned(),
                2 => "nan".to_owned(),
                _ => edge(rng).to_string(),
            };
            text.splice(at..=at, number.into_bytes());
        }
    }
    if rng.u8(..4) == 0 {
        super::mutate::havoc(&mut text, b"<&\"\xb5\xff]]>", rng);
    }
    text
}

/// Makes one entry say what is not so.
fn lie(file: &Writer, entries: &mut Vec<Entry>, rng: &mut Rng) {
    let at = rng.usize(..entries.len());
    match rng.u8(..10) {
        0 => entries[at].count = edge(rng),
        1 => entries[at].kind = rng.u16(..20),
        2 => entries[at].tag = TAGS[rng.usize(..TAGS.len())],
        3 => drop(entries.remove(at)),
        4 => {
            let Entry { tag, kind, count, ref value } = entries[at];
            let value = value.clone();
            entries.push(Entry { tag, kind, count, value });
        }
        5 => {
            let tag = TAGS[rng.usize(..TAGS.len())];
            let kind = [1, 2, SHORT, LONG, 5, 7, 12, 13, 16][rng.usize(..9)];
            let values: Vec<u64> = (0..rng.usize(..5)).map(|_| edge(rng)).collect();
            entries.push(file.entry(tag, kind, &values));
        }
        6 => {
            // Values that lie elsewhere: the word is a place then.
            let place = file.number(edge(rng), if file.is_big_tiff { 8 } else { 4 });
            entries[at].value = place;
            entries[at].count = rng.u64(2..2000);
        }
        _ => {
            let width = [1, 2, 4, 8][rng.usize(..4)];
            let number = file.number(edge(rng), width);
            let value = &mut entries[at].value;
            if !value.is_empty() {
                let from = rng.usize(..value.len()) / width * width;
                for (to, byte) in value[from..].iter_mut().zip(number) {
                    *to = byte;
                }
            }
        }
    }
    if entries.is_empty() {
        entries.push(file.entry(256, SHORT, &[1]));
    }
}
