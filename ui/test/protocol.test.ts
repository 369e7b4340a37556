import assert from 'node:assert/strict';
import { test } from 'node:test';

import { OtherVersion, decode, labelAt } from '../src/lib/protocol';

const ID = '0192f0c4-7b1e-7000-8000-0123456789ab';
const ID_BYTES = ID.replaceAll('-', '').match(/../g)!.map((hex) => parseInt(hex, 16));

const word = (value: number) => [...new Uint8Array(Uint32Array.of(value).buffer)];
const text = (value: string) => [...new TextEncoder().encode(value)];

/** Start of image, APP0, our APP9, end of image. */
const JPEG = [
  ...[0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2],
  ...[0xff, 0xe9, 0, 26, ...text('reticle\0'), ...ID_BYTES],
  ...[0xff, 0xd9],
];

/** Packs steps as the box does: 0 right, 1 down, 2 left, 3 up. */
function ring(label: number, x: number, y: number, steps: number[]): number[] {
  const bytes = Array.from({ length: Math.ceil(steps.length / 4) }, () => 0);
  steps.forEach((step, i) => (bytes[i >> 2]! |= step << (2 * (i & 3))));
  return [...word(label), ...word(x), ...word(y), ...word(steps.length), ...bytes];
}

const square = (edge: number) => [0, 1, 2, 3].flatMap((step) => Array<number>(edge).fill(step));
const hole = (edge: number) => [0, 3, 2, 1].flatMap((step) => Array<number>(edge).fill(step));

function message(rings: number[][], colours: number[], version = 1): ArrayBuffer {
  const overlay = [...ID_BYTES, ...word(rings.length), ...rings.flat(), ...word(colours.length), ...colours];
  const header = text(
    JSON.stringify({
      version,
      frame: ID,
      preview: { bytes: JPEG.length },
      contours: { bytes: overlay.length },
    }),
  );
  return Uint8Array.from([...word(header.length), ...header, ...JPEG, ...overlay]).buffer;
}

test('both parts of a message say which frame they belong to', () => {
  const { header, jpegFrame, overlay } = decode(message([], []));
  assert.equal(header.frame, ID);
  assert.equal(jpegFrame, ID);
  assert.equal(overlay.frame, ID);
});

test('a ring has a point where it turns and nowhere else', () => {
  const { overlay } = decode(message([ring(1, 10, 20, square(3))], [4]));
  assert.deepEqual([...overlay.rings[0]!.points], [10, 20, 13, 20, 13, 23, 10, 23]);
  assert.deepEqual([...overlay.colours], [4]);
});

test('a point is in the object whose outline holds it, and not in its hole', () => {
  const rings = [ring(1, 0, 0, square(6)), ring(1, 2, 4, hole(2)), ring(2, 10, 0, square(2))];
  const { overlay } = decode(message(rings, [0, 1]));
  assert.equal(labelAt(overlay, 0.5, 0.5), 1);
  assert.equal(labelAt(overlay, 3, 3), null, 'in the hole');
  assert.equal(labelAt(overlay, 11, 1), 2);
  assert.equal(labelAt(overlay, 8, 1), null, 'between the two');
});

test('another version and a cut message are told apart', () => {
  assert.throws(() => decode(message([], [], 2)), OtherVersion);
  assert.throws(() => decode(message([ring(1, 0, 0, square(1))], [0]).slice(0, -1)), /announces/);
});
