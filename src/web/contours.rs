//! Outlines of a label image as the page gets them: rings, each its start and a chain of unit
//! steps of two bits. That is a quarter of the size of coordinate pairs: a nucleus of 26 pixels
//! across takes some 45 bytes.

pub(crate) use reticle_domain::outline::rings;
use reticle_domain::outline::{Ring, Step};

/// Bytes of `rings` on the wire; `docs/design/live.md` has the layout.
pub(crate) fn encode(rings: &[Ring], out: &mut Vec<u8>) {
    out.extend(wire_length(rings.len()).to_le_bytes());
    for ring in rings {
        out.extend(ring.label.to_le_bytes());
        out.extend(ring.x.to_le_bytes());
        out.extend(ring.y.to_le_bytes());
        out.extend(wire_length(ring.steps.len()).to_le_bytes());
        for four in ring.steps.chunks(4) {
            // The discriminants are the codes on the wire.
            let pack = |byte, (at, step): (usize, &Step)| byte | (*step as u8) << (2 * at);
            out.push(four.iter().enumerate().fold(0, pack));
        }
    }
}

fn wire_length(length: usize) -> u32 {
    u32::try_from(length).expect("a frame has fewer than 2³² pixel edges")
}

#[cfg(test)]
mod tests {
    use reticle_domain::label_image::LabelImage;

    use super::*;

    #[test]
    fn steps_are_packed_four_to_a_byte_from_the_lowest_bits() {
        let mut bytes = Vec::new();
        encode(&rings(&LabelImage::new(1, 1, vec![1]).unwrap()), &mut bytes);
        let expected = [
            &[1, 0, 0, 0][..], // rings
            &[1, 0, 0, 0],     // label
            &[0, 0, 0, 0],     // x
            &[0, 0, 0, 0],     // y
            &[4, 0, 0, 0],     // steps
            &[0b11_10_01_00],  // right, down, left, up
        ];
        assert_eq!(bytes, expected.concat());
    }
}
