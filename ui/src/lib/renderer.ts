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
const SELECTED = '#56B4E9';
const SELECTED_LINE = 3.5;

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

/**
 * One ring, ready to be drawn. A path each, because browsers without a graphics card stroke
 * 270 small paths three times as fast as one large path, and what is off the screen is left out.
 */
interface Outline {
  path: Path2D;
  label: number;
  colour: string;
  left: number;
  top: number;
  right: number;
  bottom: number;
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
  #outlines: Outline[] = [];
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

  /** Where the frame lies in the window. */
  get place(): { left: number; top: number; scale: number } {
    const box = this.#canvas.getBoundingClientRect();
    return { left: box.left + this.view.x, top: box.top + this.view.y, scale: this.view.scale };
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
    this.#outlines = outlinesOf(picture.overlay);
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
    const own = outlinesOf(picture.overlay).filter((outline) => outline.label === label);
    if (own.length === 0) return null;
    const box = {
      left: Math.min(...own.map(({ left }) => left)),
      top: Math.min(...own.map(({ top }) => top)),
      right: Math.max(...own.map(({ right }) => right)),
      bottom: Math.max(...own.map(({ bottom }) => bottom)),
    };
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
    strokeTwice(context, own, PALETTE[YELLOW]!, scale, 2);
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
    this.#drawOverlay(context, picture, scale, this.#visiblePart());
    this.onView();
    const drawn = this.#onDrawn;
    this.#onDrawn = null;
    if (drawn !== null) afterPaint(() => drawn(picture));
  }

  #visiblePart(): Part {
    const { clientWidth, clientHeight } = this.#canvas;
    const from = this.view.toFrame(0, 0);
    const to = this.view.toFrame(clientWidth, clientHeight);
    return { left: from.x, top: from.y, right: to.x, bottom: to.y };
  }

  #drawOverlay(context: Context, picture: Picture, scale: number, part?: Part): void {
    if (picture.imageFrame !== picture.overlay.frame) return;
    const { mode, opacity, perObject } = this.style;
    const visible = part === undefined ? this.#outlines : this.#outlines.filter((one) => overlaps(one, part));
    const colour = (outline: Outline) => (perObject ? outline.colour : PALETTE[YELLOW]!);
    context.lineJoin = 'miter';
    if (mode === 'outlines') {
      context.globalAlpha = opacity;
      // Where objects are small on the screen, lines are thinner, or they would fill them.
      const thin = Math.min(1, Math.max(0.55, scale * 1.6));
      stroke(context, visible, () => EDGE, (thin * EDGE_LINE) / scale);
      stroke(context, visible, colour, (thin * LINE) / scale);
    } else if (mode === 'fills') {
      context.globalAlpha = opacity;
      this.#fill(context, visible, colour);
      // Without a thin line, fills of one colour that touch would look like one object.
      context.globalAlpha = Math.min(1, opacity * 2);
      stroke(context, visible, colour, LINE / 2 / scale);
    }
    context.globalAlpha = 1;
    if (this.selected !== null && this.selected.frame === picture.header.frame) {
      const { label } = this.selected;
      const own = visible.filter((outline) => outline.label === label);
      strokeTwice(context, own, SELECTED, scale, SELECTED_LINE);
    }
  }

  /** The rings of a label together, so that holes stay open. */
  #fill(context: Context, outlines: Outline[], colour: (outline: Outline) => string): void {
    const whole = new Map<number, { path: Path2D; colour: string }>();
    for (const outline of outlines) {
      const known = whole.get(outline.label);
      if (known === undefined) {
        whole.set(outline.label, { path: outline.path, colour: colour(outline) });
      } else {
        known.path = new Path2D(known.path);
        known.path.addPath(outline.path);
      }
    }
    for (const { path, colour } of whole.values()) {
      context.fillStyle = colour;
      context.fill(path, 'evenodd');
    }
  }
}

/** A rectangle of the frame. */
type Part = Pick<Outline, 'left' | 'top' | 'right' | 'bottom'>;

function overlaps(outline: Outline, part: Part): boolean {
  return (
    outline.left < part.right &&
    outline.right > part.left &&
    outline.top < part.bottom &&
    outline.bottom > part.top
  );
}

function stroke(
  context: Context,
  outlines: Outline[],
  colour: (outline: Outline) => string,
  width: number,
): void {
  context.lineWidth = width;
  for (const outline of outlines) {
    context.strokeStyle = colour(outline);
    context.stroke(outline.path);
  }
}

function strokeTwice(
  context: Context,
  outlines: Outline[],
  colour: string,
  scale: number,
  width: number,
): void {
  stroke(context, outlines, () => EDGE, (width + EDGE_LINE - LINE) / scale);
  stroke(context, outlines, () => colour, width / scale);
}

function outlinesOf(overlay: Overlay): Outline[] {
  return overlay.rings.map(({ label, points }) => {
    const path = new Path2D();
    const outline = {
      path,
      label,
      colour: PALETTE[overlay.colours[label - 1] ?? YELLOW]!,
      left: Infinity,
      top: Infinity,
      right: -Infinity,
      bottom: -Infinity,
    };
    for (let i = 0; i < points.length; i += 2) {
      const [x, y] = [points[i]!, points[i + 1]!];
      path.lineTo(x, y);
      outline.left = Math.min(outline.left, x);
      outline.right = Math.max(outline.right, x);
      outline.top = Math.min(outline.top, y);
      outline.bottom = Math.max(outline.bottom, y);
    }
    path.closePath();
    return outline;
  });
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
