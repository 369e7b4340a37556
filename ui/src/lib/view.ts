// Where the frame lies on the screen: fit, one to one, zoom about a point, pan. Lengths on the
// screen are CSS pixels, lengths in the frame are its pixels.

export interface Size {
  width: number;
  height: number;
}

const MARGIN = 8;
const MOST = 64;
/** This much of the frame always stays on the screen. */
const LEAST_VISIBLE = 48;

export class View {
  /** CSS pixels per pixel of the frame. */
  scale = 1;
  /** Where the frame's upper left corner lies. */
  x = 0;
  y = 0;
  fitted = true;
  #screen: Size = { width: 1, height: 1 };
  #frame: Size = { width: 1, height: 1 };

  resize(screen: Size): void {
    this.#screen = screen;
    this.#settle();
  }

  setFrame(frame: Size): void {
    if (frame.width === this.#frame.width && frame.height === this.#frame.height) return;
    this.#frame = { width: frame.width, height: frame.height };
    this.fitted = true;
    this.#settle();
  }

  fit(): void {
    this.fitted = true;
    this.#settle();
  }

  /** One pixel of the frame on one pixel of the screen, about the middle. */
  oneToOne(): void {
    this.zoomTo(1 / devicePixelRatio, this.#screen.width / 2, this.#screen.height / 2);
  }

  zoomBy(factor: number, x = this.#screen.width / 2, y = this.#screen.height / 2): void {
    this.zoomTo(this.scale * factor, x, y);
  }

  /** Zooms so that what lies under (x, y) stays there. */
  zoomTo(scale: number, x: number, y: number): void {
    const least = Math.min(this.#fitScale() / 2, 1);
    const bounded = Math.min(Math.max(scale, least), MOST);
    const ratio = bounded / this.scale;
    this.x = x - (x - this.x) * ratio;
    this.y = y - (y - this.y) * ratio;
    this.scale = bounded;
    this.fitted = false;
    this.#settle();
  }

  panBy(dx: number, dy: number): void {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.#settle();
  }

  toFrame(x: number, y: number): { x: number; y: number } {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  #fitScale(): number {
    const width = (this.#screen.width - 2 * MARGIN) / this.#frame.width;
    const height = (this.#screen.height - 2 * MARGIN) / this.#frame.height;
    return Math.max(Math.min(width, height), 0.01);
  }

  #settle(): void {
    if (this.fitted) {
      this.scale = this.#fitScale();
      this.x = (this.#screen.width - this.#frame.width * this.scale) / 2;
      this.y = (this.#screen.height - this.#frame.height * this.scale) / 2;
      return;
    }
    const keep = (at: number, length: number, screen: number) =>
      Math.min(Math.max(at, LEAST_VISIBLE - length), screen - LEAST_VISIBLE);
    this.x = keep(this.x, this.#frame.width * this.scale, this.#screen.width);
    this.y = keep(this.y, this.#frame.height * this.scale, this.#screen.height);
  }
}

/** A round length for the scale bar: 1, 2 or 5 times a power of ten, at most `most` long. */
export function scaleBar(umPerCssPixel: number, most: number): { um: number; px: number } {
  const limit = umPerCssPixel * most;
  const power = 10 ** Math.floor(Math.log10(limit));
  const um = ([5, 2, 1].find((step) => step * power <= limit) ?? 1) * power;
  return { um, px: um / umPerCssPixel };
}
