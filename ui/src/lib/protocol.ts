// The binary message of the live channel, and how to read it. The layout is described in
// docs/design/live.md; `src/web/frame_message.rs` writes it. What the box says in JSON beside it is
// in client.ts.

import type { Place, ScaleFrom, Timings, Unlike } from './client';

export const VERSION = 1;

export interface FrameHeader {
  version: number;
  frame: string;
  sequence: number;
  /** RFC 3339, UTC. */
  captured: string;
  width: number;
  height: number;
  bit_depth: number;
  pixel_size_um: number | null;
  exposure_us: number | null;
  place: Place;
  origin: string | null;
  objects: number;
  focus: number;
  ap50: number | null;
  true_objects: number | null;
  model: string;
  model_sha256: string;
  /** Who said how large objects are. */
  scale_from: ScaleFrom;
  /** How many times as long an edge was made for the model. */
  scale: number;
  /** Objects look so many times as large as stated; null unless that is more than 2 or less than 0.5. */
  size_ratio: number | null;
  /** In which way the picture is unlike what the model knows; null if it is not. */
  unlike: Unlike | null;
  timings: Timings;
  preview: {
    bytes: number;
    width: number;
    height: number;
    factor: number;
    stretch: [number, number];
  };
  contours: { bytes: number };
}

/** Outlines of one frame, in pixels of the frame; corners of pixels are whole numbers. */
export interface Overlay {
  frame: string;
  rings: Ring[];
  /** One of six colours for each label from 1. */
  colours: Uint8Array;
}

export interface Ring {
  label: number;
  /** x0, y0, x1, y1, …: the corners where the outline turns. */
  points: Int32Array;
}

export interface FrameMessage {
  header: FrameHeader;
  jpeg: Uint8Array<ArrayBuffer>;
  /** Whose picture the JPEG says it is. */
  jpegFrame: string;
  overlay: Overlay;
}

/** Takes a binary message apart. Throws if it is not one. */
export function decode(message: ArrayBuffer): FrameMessage {
  const view = new DataView(message);
  const headerLength = view.getUint32(0, true);
  const headerText = new TextDecoder().decode(new Uint8Array(message, 4, headerLength));
  const header = JSON.parse(headerText) as FrameHeader;
  if (header.version !== VERSION) throw new OtherVersion(header.version);
  const jpegStart = 4 + headerLength;
  const overlayStart = jpegStart + header.preview.bytes;
  if (overlayStart + header.contours.bytes !== message.byteLength) {
    throw new Error(`a message of ${message.byteLength} bytes does not hold what it announces`);
  }
  const jpeg = new Uint8Array(message, jpegStart, header.preview.bytes);
  return {
    header,
    jpeg,
    jpegFrame: frameOfJpeg(jpeg),
    overlay: decodeOverlay(new DataView(message, overlayStart, header.contours.bytes)),
  };
}

/** The box speaks another version than this page: it was updated meanwhile. */
export class OtherVersion extends Error {
  constructor(version: number) {
    super(`the box speaks version ${version} of the live channel, this page ${VERSION}`);
  }
}

const APP9 = 0xe9;
const START_OF_SCAN = 0xda;
const TAG = 'reticle\0';

/** The frame's id from the JPEG's APP9 segment. */
function frameOfJpeg(jpeg: Uint8Array): string {
  const view = new DataView(jpeg.buffer, jpeg.byteOffset, jpeg.byteLength);
  let at = 2;
  while (at + 4 <= jpeg.length && view.getUint8(at) === 0xff) {
    const marker = view.getUint8(at + 1);
    if (marker === START_OF_SCAN) break;
    const length = view.getUint16(at + 2);
    const data = jpeg.subarray(at + 4, at + 2 + length);
    if (marker === APP9 && [...TAG].every((c, i) => data[i] === c.charCodeAt(0))) {
      return uuid(data.subarray(TAG.length, TAG.length + 16));
    }
    at += 2 + length;
  }
  throw new Error('the picture does not say which frame it is');
}

const STEP_X = [1, 0, -1, 0];
const STEP_Y = [0, 1, 0, -1];

function decodeOverlay(view: DataView): Overlay {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const frame = uuid(bytes.subarray(0, 16));
  let at = 16;
  const word = () => {
    at += 4;
    return view.getUint32(at - 4, true);
  };
  const rings: Ring[] = [];
  for (let left = word(); left > 0; left--) {
    const label = word();
    let x = word();
    let y = word();
    const steps = word();
    const points: number[] = [];
    let last = -1;
    for (let i = 0; i < steps; i++) {
      const step = (view.getUint8(at + (i >> 2)) >> (2 * (i & 3))) & 3;
      if (step !== last) points.push(x, y);
      last = step;
      x += STEP_X[step]!;
      y += STEP_Y[step]!;
    }
    at += (steps + 3) >> 2;
    rings.push({ label, points: Int32Array.from(points) });
  }
  const count = word();
  if (at + count !== bytes.length) throw new Error('outlines and colours do not fill their part');
  return { frame, rings, colours: bytes.slice(at, at + count) };
}

function uuid(bytes: Uint8Array): string {
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** The label of the object at a point of the frame; null on background. */
export function labelAt(overlay: Overlay, x: number, y: number): number | null {
  const inside = new Map<number, boolean>();
  for (const { label, points } of overlay.rings) {
    let crossings = 0;
    for (let i = 0, j = points.length - 2; i < points.length; j = i, i += 2) {
      const [xi, yi, yj] = [points[i]!, points[i + 1]!, points[j + 1]!];
      // Edges are upright or level, so an upright one is crossed at its own x.
      if (yi > y !== yj > y && x < xi) crossings++;
    }
    if (crossings % 2 === 1) inside.set(label, !inside.get(label));
  }
  for (const [label, isInside] of inside) if (isInside) return label;
  return null;
}
