// Draws a frame and its overlay. Both come from one message and are set together, and one
// draw uses the pair, so an overlay cannot lie over another frame's image.

import type { FrameHeader, Overlay } from './protocol';
import { View } from './view';

export type Mode = 'off' | 'outlines' | 'fills';

export interface Style {
  mode: Mode;
  /** Strength of what the mode draws, 0 to 1. */
  opacity: number;
  /** A colour for each object instead of yellow for all. */
  perObject: boolean;
}

export interface Picture {
  header: FrameHeader;
  bitmap: ImageBitmap;
  imageFrame: string;
  overlay: Overlay;
}

/** Okabe–Ito, the six that hold on a dark image. */
export const PALETTE = ['#E69F00', '#56B4E9', '#009E73', '#F0E442', '#D55E00', '#CC79A7'];
const YELLOW = 3;
const EDGE = 'rgba(0, 0, 0, 0.8)';
/** Line widths in CSS pixels: the dark edge shows one half pixel on each side. */
const LINE = 1.75;
const EDGE_LINE = LINE + 1.75;
const SELECTED_LINE = 3.5;

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

/** The overlay as paths, built once a frame. */
interface Paths {
  all: Path2D;
  byColour: Path2D[] | null;
}

export class Renderer {
  readonly view = new View();
  style: Style = { mode: 'outlines', opacity: 1, perObject: false };
  /** Label that is drawn emphasised, on the frame it belongs to. */
  selected: { frame: string; label: number } | null = null;
  /** Called when the view has changed and was drawn. */
  onView: () => void = () => {};
  #canvas: HTMLCanvasElement;
  #context: CanvasRenderingContext2D;
  #picture: Picture | null = null;
  #paths: Paths | null = null;
  #scheduled = false;
  #onDrawn: ((picture: Picture) => void) | null = null;

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
    const context = canvas.getContext('2d', { alpha: false });
    if (context === null) throw new Error('this browser has no canvas');
    this.#context = context;
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
  }

  get picture(): Picture | null {
    return this.#picture;
  }

  /** Shows `picture` from the next repaint on; `onDrawn` is called when it is painted. */
  show(picture: Picture, onDrawn: (picture: Picture) => void): void {
    if (this.#picture !== null && this.#picture.bitmap !== picture.bitmap) {
      this.#picture.bitmap.close();
    }
    this.#picture = picture;
    this.#paths = null;
    this.#onDrawn = onDrawn;
    this.view.setFrame(picture.header);
    this.redraw();
  }

  /** Draws again at the next repaint. */
  redraw(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#draw();
    });
  }

  /** The frame at its own size with the overlay as it is on the screen. */
  async snapshot(): Promise<Blob | null> {
    const picture = this.#picture;
    if (picture === null) return null;
    const { width, height } = picture.header;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext('2d', { alpha: false });
    if (context === null) return null;
    context.drawImage(picture.bitmap, 0, 0, width, height);
    // Lines as thick as on a screen that shows the whole frame in about 1,000 pixels.
    this.#drawOverlay(context, picture, Math.min(1, 1000 / Math.max(width, height)));
    return canvas.convertToBlob({ type: 'image/png' });
  }

  /** A square around an object, for the panel with its measurements. */
  crop(picture: Picture, label: number, size: number): ImageData | null {
    const box = boundsOf(picture.overlay, label);
    if (box === null) return null;
    const edge = Math.max(box.right - box.left, box.bottom - box.top) * 1.4 + 6;
    const canvas = new OffscreenCanvas(size, size);
    const context = canvas.getContext('2d', { alpha: false });
    if (context === null) return null;
    const scale = size / edge;
    context.setTransform(
      scale,
      0,
      0,
      scale,
      size / 2 - ((box.left + box.right) / 2) * scale,
      size / 2 - ((box.top + box.bottom) / 2) * scale,
    );
    context.drawImage(picture.bitmap, 0, 0, picture.header.width, picture.header.height);
    strokeTwice(context, pathOf(picture.overlay, label), PALETTE[YELLOW]!, scale, 2);
    return context.getImageData(0, 0, size, size);
  }

  #resize(): void {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = devicePixelRatio;
    this.#canvas.width = Math.max(1, Math.round(width * ratio));
    this.#canvas.height = Math.max(1, Math.round(height * ratio));
    this.view.resize({ width, height });
    // At once: a canvas that changes its size is empty until it is drawn.
    this.#draw();
  }

  #draw(): void {
    const context = this.#context;
    const ratio = devicePixelRatio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = getComputedStyle(this.#canvas).backgroundColor;
    context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    const picture = this.#picture;
    if (picture === null) return;
    const { scale, x, y } = this.view;
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
    // Close up, pixels are shown as pixels.
    context.imageSmoothingEnabled = scale * ratio * picture.header.preview.factor < 3;
    const { width, height } = picture.header;
    context.drawImage(picture.bitmap, 0, 0, width, height);
    this.#drawOverlay(context, picture, scale);
    this.onView();
    const drawn = this.#onDrawn;
    this.#onDrawn = null;
    if (drawn !== null) afterPaint(() => drawn(picture));
  }

  #drawOverlay(context: Context, picture: Picture, scale: number): void {
    if (picture.imageFrame !== picture.overlay.frame) return;
    const { mode, opacity, perObject } = this.style;
    if (mode !== 'off') {
      this.#paths ??= { all: pathOf(picture.overlay), byColour: null };
      if (perObject) this.#paths.byColour ??= pathsByColour(picture.overlay);
      const coloured: [string, Path2D][] = perObject
        ? this.#paths.byColour!.map((path, i) => [PALETTE[i]!, path])
        : [[PALETTE[YELLOW]!, this.#paths.all]];
      context.globalAlpha = opacity;
      if (mode === 'outlines') {
        line(context, this.#paths.all, EDGE, EDGE_LINE / scale);
        for (const [colour, path] of coloured) line(context, path, colour, LINE / scale);
      } else {
        for (const [colour, path] of coloured) {
          context.fillStyle = colour;
          context.fill(path, 'evenodd');
        }
        // Without a thin line, fills of one colour that touch would look like one object.
        context.globalAlpha = Math.min(1, opacity * 2);
        for (const [colour, path] of coloured) line(context, path, colour, LINE / 2 / scale);
      }
      context.globalAlpha = 1;
    }
    if (this.selected !== null && this.selected.frame === picture.header.frame) {
      strokeTwice(context, pathOf(picture.overlay, this.selected.label), '#56B4E9', scale, SELECTED_LINE);
    }
  }
}

function strokeTwice(context: Context, path: Path2D, colour: string, scale: number, width: number) {
  line(context, path, EDGE, (width + EDGE_LINE - LINE) / scale);
  line(context, path, colour, width / scale);
}

function line(context: Context, path: Path2D, colour: string, width: number): void {
  context.lineJoin = 'round';
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke(path);
}

function pathOf(overlay: Overlay, label?: number): Path2D {
  const path = new Path2D();
  for (const ring of overlay.rings) {
    if (label === undefined || ring.label === label) addRing(path, ring.points);
  }
  return path;
}

function pathsByColour(overlay: Overlay): Path2D[] {
  const paths = PALETTE.map(() => new Path2D());
  for (const { label, points } of overlay.rings) {
    addRing(paths[overlay.colours[label - 1] ?? YELLOW]!, points);
  }
  return paths;
}

function addRing(path: Path2D, points: Int32Array): void {
  path.moveTo(points[0]!, points[1]!);
  for (let i = 2; i < points.length; i += 2) path.lineTo(points[i]!, points[i + 1]!);
  path.closePath();
}

function boundsOf(overlay: Overlay, label: number) {
  const xs: number[] = [];
  const ys: number[] = [];
  for (const ring of overlay.rings) {
    if (ring.label !== label) continue;
    for (let i = 0; i < ring.points.length; i += 2) {
      xs.push(ring.points[i]!);
      ys.push(ring.points[i + 1]!);
    }
  }
  if (xs.length === 0) return null;
  return {
    left: Math.min(...xs),
    right: Math.max(...xs),
    top: Math.min(...ys),
    bottom: Math.max(...ys),
  };
}

/** Calls back when what was drawn in this animation frame has been painted. */
function afterPaint(then: () => void): void {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => {
    channel.port1.close();
    then();
  };
  channel.port2.postMessage(null);
}
