//! Changes to bytes that know nothing of a format, and those that know a little: chunks of PNG,
//! segments of JPEG, values of JSON, lines of TOML.

use std::io::Write as _;

use fastrand::Rng;
use serde_json::{Value, json};

/// Numbers at which something ends: of sizes, of signs, of what programs use as marks.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX,
];

/// A number at an edge, or near one, or any.
pub(crate) fn edge(rng: &mut Rng) -> u64 {
    let edge = EDGES[rng.usize(..EDGES.len())];
    match rng.u8(..8) {
        0 => edge.wrapping_add(rng.u64(..4)),
        1 => edge.wrapping_sub(rng.u64(..4)),
        2 => rng.u64(..),
        3 => rng.u64(..300),
        _ => edge,
    }
}

/// One to eight changes anywhere; `other` is what pieces are taken from.
pub(crate) fn havoc(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..rng.usize(1..=8) {
        if bytes.is_empty() {
            bytes.push(rng.u8(..));
        }
        let at = rng.usize(..bytes.len());
        let length = rng.usize(1..=16).min(bytes.len() - at);
        match rng.u8(..12) {
            0 => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.usize(..5)],
            3 => put(bytes, at, &(edge(rng) as u16).to_le_bytes()),
            4 => put(bytes, at, &(edge(rng) as u16).to_be_bytes()),
            5 => put(bytes, at, &(edge(rng) as u32).to_le_bytes()),
            6 => put(bytes, at, &(edge(rng) as u32).to_be_bytes()),
            7 => put(bytes, at, &edge(rng).to_le_bytes()),
            8 => drop(bytes.drain(at..at + length)),
            9 => {
                let piece = bytes[at..at + length].to_vec();
                let to = rng.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
            10 if !other.is_empty() => {
                let from = rng.usize(..other.len());
                let length = rng.usize(1..=64).min(other.len() - from);
                let end = (at + length).min(bytes.len());
                bytes.splice(at..end, other[from..from + length].iter().copied());
            }
            10 => {}
            _ if rng.u8(..4) == 0 => bytes.truncate(at),
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
}

/// The first part of one and the last of the other.
pub(crate) fn splice(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    bytes.truncate(rng.usize(..=bytes.len()));
    bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
}

fn put(bytes: &mut [u8], at: usize, number: &[u8]) {
    for (to, from) in bytes[at..].iter_mut().zip(number) {
        *to = *from;
    }
}

/// A PNG whose chunks are changed, moved or left out, each with the right checksum, and now and
/// then with pixels that fit a header made up.
pub(crate) fn png(seed: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut chunks = chunks(seed);
    if chunks.is_empty() {
        return seed.to_vec();
    }
    if rng.bool() {
        let (width, height) = (rng.u32(1..40), rng.u32(1..40));
        let bits = [1, 2, 4, 8, 16, rng.u8(..)][rng.usize(..6)];
        let colour = [0, 2, 3, 4, 6, rng.u8(..)][rng.usize(..6)];
        let mut header = Vec::new();
        header.extend(width.to_be_bytes());
        header.extend(height.to_be_bytes());
        header.extend([bits, colour, rng.u8(..2) * rng.u8(..), 0, rng.u8(..3)]);
        let samples = [1, 1, 3, 1, 2, 1, 4][usize::from(colour % 7)];
        let row = (width as usize * samples * usize::from(bits)).div_ceil(8) + 1;
        let mut raw = vec![rng.u8(..5); row * height as usize];
        raw.iter_mut().skip(1).step_by(3).for_each(|byte| *byte = rng.u8(..));
        raw.iter_mut().step_by(row).for_each(|filter| *filter = rng.u8(..6));
        chunks = vec![(*b"IHDR", header), (*b"IDAT", deflate(&raw)), (*b"IEND", Vec::new())];
        if colour == 3 {
            chunks.insert(1, (*b"PLTE", (0..rng.usize(..800)).map(|_| rng.u8(..)).collect()));
        }
    }
    for _ in 0..rng.usize(..4) {
        let at = rng.usize(..chunks.len());
        match rng.u8(..6) {
            0 => drop(chunks.remove(at)),
            1 => chunks.insert(at, chunks[at].clone()),
            2 => {
                let kinds = [*b"tRNS", *b"gAMA", *b"acTL", *b"fcTL", *b"iCCP", *b"zTXt", *b"pHYs"];
                let data = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
                chunks.insert(at, (kinds[rng.usize(..kinds.len())], data));
            }
            3 => {
                let to = rng.usize(..chunks.len());
                chunks.swap(at, to);
            }
            _ => havoc(&mut chunks[at].1, other, rng),
        }
        if chunks.is_empty() {
            break;
        }
    }
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in &chunks {
        bytes.extend((data.len() as u32).to_be_bytes());
        let mut sum = flate2::Crc::new();
        sum.update(kind);
        sum.update(data);
        bytes.extend(kind);
        bytes.extend(data);
        bytes.extend(sum.sum().to_be_bytes());
    }
    bytes
}

fn chunks(png: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let mut chunks = Vec::new();
    let mut at = 8;
    while let Some(head) = png.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(data) = png.get(at + 8..at + 8 + length) else { break };
        chunks.push(([head[4], head[5], head[6], head[7]], data.to_vec()));
        at += 12 + length;
    }
    chunks
}

/// Bytes in the stream of zlib.
pub(crate) fn deflate(raw: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let written = encoder.write_all(raw).and_then(|()| encoder.finish());
    written.expect("memory takes every byte")
}

/// A JPEG whose segments are changed, moved, doubled or left out.
pub(crate) fn jpeg(seed: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let mut at = 2;
    while let Some(&[0xff, code, high, low]) = seed.get(at..at + 4) {
        let length = usize::from(u16::from_be_bytes([high, low])) + 2;
        let end = if code == 0xda { seed.len() } else { (at + length).min(seed.len()) };
        segments.push(seed[at..end].to_vec());
        at = end;
    }
    for _ in 0..rng.usize(1..4) {
        if segments.is_empty() {
            break;
        }
        let at = rng.usize(..segments.len());
        match rng.u8(..8) {
            0 => drop(segments.remove(at)),
            1 => segments.insert(at, segments[at].clone()),
            2 => {
                let to = rng.usize(..segments.len());
                segments.swap(at, to);
            }
            3 => {
                // Another kind of frame: progressive, lossless, arithmetic.
                if let Some(frame) = segments.iter_mut().find(|s| matches!(s[1], 0xc0..=0xc2)) {
                    frame[1] = 0xc0 + rng.u8(..16);
                }
            }
            4 => {
                if let Some(frame) = segments.iter_mut().find(|s| matches!(s[1], 0xc0..=0xc2)) {
                    let at = rng.usize(4..frame.len().max(5)).min(frame.len() - 1);
                    frame[at] = edge(rng) as u8;
                }
            }
            _ => {
                // Behind the marker and the length, so that what follows is found.
                let head = segments[at].len().min(4);
                let mut body = segments[at].split_off(head);
                havoc(&mut body, other, rng);
                segments[at].append(&mut body);
            }
        }
    }
    let mut bytes = vec![0xff, 0xd8];
    segments.iter().for_each(|segment| bytes.extend(segment));
    bytes
}

/// A JSON document with one to four values changed, left out or doubled.
pub(crate) fn json(document: &mut Value, rng: &mut Rng) {
    for _ in 0..rng.usize(1..=4) {
        change(document, rng, 0);
    }
}

fn change(value: &mut Value, rng: &mut Rng, depth: usize) {
    let goes_on = depth < 12 && rng.u8(..8) != 0;
    match value {
        Value::Object(fields) if goes_on && !fields.is_empty() => {
            let key = fields.keys().nth(rng.usize(..fields.len())).cloned().unwrap_or_default();
            match rng.u8(..20) {
                0 => drop(fields.remove(&key)),
                _ => change(&mut fields[&key], rng, depth + 1),
            }
        }
        Value::Array(values) if goes_on && !values.is_empty() => {
            let at = rng.usize(..values.len());
            match rng.u8(..20) {
                0 => drop(values.remove(at)),
                1 => values.insert(at, values[at].clone()),
                _ => change(&mut values[at], rng, depth + 1),
            }
        }
        Value::Number(_) => *value = number(rng),
        Value::String(text) if rng.u8(..4) != 0 => {
            let mut bytes = std::mem::take(text).into_bytes();
            havoc(&mut bytes, b"0PYo1O\"\\u0000", rng);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        value => {
            *value = match rng.u8(..6) {
                0 => Value::Null,
                1 => json!([]),
                2 => json!({}),
                3 => json!("x"),
                4 => json!([[[1.5, -2.5], [1e308, 3.0], [0, 0]]]),
                _ => number(rng),
            }
        }
    }
}

fn number(rng: &mut Rng) -> Value {
    match rng.u8(..5) {
        0 => json!(edge(rng)),
        1 => json!(-(edge(rng) as i32 as i64)),
        2 => json!(f64::from_bits(rng.u64(..))),
        3 => json!(rng.u32(..20)),
        _ => json!(f64::from(rng.u32(..40)) / 4.0 - 2.0),
    }
}

/// Some lines of a documented configuration, with what they set set to something else.
pub(crate) fn toml(lines: &[&str], rng: &mut Rng) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..rng.usize(1..12) {
        let line = lines[rng.usize(..lines.len())].trim_start_matches("# ");
        match (line.split_once('='), rng.u8(..4)) {
            (Some((key, _)), 0) => text.push_str(&format!("{key}= {}\n", edge(rng))),
            (Some((key, _)), 1) => {
                let value = ["\"x\"", "[]", "{}", "nan", "-1", "inf", "true", "1e999", "'''a'''"];
                text.push_str(&format!("{key}= {}\n", value[rng.usize(..value.len())]));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    let mut bytes = text.into_bytes();
    if rng.u8(..3) == 0 {
        havoc(&mut bytes, b"[[x]]\n\"\"\"{=}", rng);
    }
    bytes
}
