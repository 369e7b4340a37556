// What the page knows of the box, and what it asks of it: the one place where the live
// channel, the renderer and the components meet.

import { type Command, Refused, type Status, command } from './client';
import { type Mark, describe } from './describe';
import { type Doubt, doubtOf } from './doubt';
import { boxMark } from './health';
import { LiveChannel } from './live';
import { type FrameHeader, OtherVersion, decode } from './protocol';
import type { Renderer } from './renderer';

const FOCUS_HISTORY = 60;
const DOUBT_HISTORY = 5;
/** Skips are counted over this time. */
const SKIP_WINDOW_MS = 4000;
const TOAST_MS = 6000;
const RELOADED = 'reticle.reloaded';

/** What tests (and the curious) may look at: whose image and whose overlay are drawn. */
interface Probe {
  imageFrame: string | null;
  overlayFrame: string | null;
  shown: number;
  sequence: number;
  /** Where the frame's upper left corner lies in the window, and its pixels' size there. */
  readonly view: { left: number; top: number; scale: number };
}

declare global {
  interface Window {
    __reticle: Probe;
  }
}

/** The run state that a command of the page leads to. */
const RUN_AFTER: Partial<Record<Command, Status['run']>> = { start: 'running', pause: 'paused', stop: 'stopped' };

class Box {
  status = $state.raw<Status | null>(null);
  header = $state.raw<FrameHeader | null>(null);
  focus = $state.raw<number[]>([]);
  doubts = $state.raw<(Doubt | null)[]>([]);
  toast = $state.raw<{ text: string; tone: 'fine' | 'act' } | null>(null);
  /** A command that was sent and whose effect is not seen yet. */
  pending = $state.raw<Command | null>(null);
  #lostAt = $state.raw<number | null>(null);
  #statusAt = $state.raw(0);
  #tick = $state.raw(performance.now());
  #skips = $state.raw<{ at: number; skipped: number }[]>([]);
  #channel: LiveChannel | null = null;
  #renderer: Renderer | null = null;
  #toastTimer = 0;

  picture = $derived(
    describe({
      lostForMs: this.#lostAt === null ? null : Math.max(0, this.#tick - this.#lostAt),
      status: this.status,
      frameAgeMs: this.frameAgeMs,
      focus: this.focus,
      doubts: this.doubts,
      skippedPerSecond: this.#skippedPerSecond(),
    }),
  );

  /** Milliseconds since the frame on the screen was captured, by the box's clock. */
  get frameAgeMs(): number | null {
    if (this.header === null || this.status === null) return null;
    const behind = Date.parse(this.status.now) - Date.parse(this.header.captured);
    return Math.max(0, behind + Math.max(0, this.#tick - this.#statusAt));
  }

  /** The time by the box's clock, in milliseconds; it goes on while nothing is heard. */
  get nowMs(): number {
    if (this.status === null) return 0;
    return Date.parse(this.status.now) + Math.max(0, this.#tick - this.#statusAt);
  }

  /** What to think of the box, in one mark. */
  get care(): Mark {
    return boxMark(this.picture.connected ? this.status : null, this.nowMs);
  }

  connect(renderer: Renderer): void {
    this.#renderer = renderer;
    this.#probe({ imageFrame: null, overlayFrame: null, shown: 0, sequence: -1 });
    this.#channel = new LiveChannel({
      frame: (message) => void this.#frame(message),
      status: (status) => this.#hear(status),
      connected: () => {
        this.#lostAt = null;
      },
      lost: () => {
        // Silence began with the last word, not when it was noticed.
        this.#lostAt = this.#statusAt || performance.now();
        this.#tick = performance.now();
        this.pending = null;
      },
    });
    setInterval(() => (this.#tick = performance.now()), 250);
  }

  async command(name: Command): Promise<void> {
    this.pending = name;
    try {
      await command(name);
    } catch (error) {
      this.say(error instanceof Refused ? error.message : `“${name}” did not reach the box.`, 'act');
      this.pending = null;
    }
  }

  say(text: string, tone: 'fine' | 'act' = 'fine'): void {
    this.toast = { text, tone };
    clearTimeout(this.#toastTimer);
    this.#toastTimer = window.setTimeout(() => (this.toast = null), TOAST_MS);
  }

  async #frame(message: ArrayBuffer): Promise<void> {
    let frame: string | null = null;
    try {
      const { header, jpeg, jpegFrame, overlay } = decode(message);
      frame = header.frame;
      if (jpegFrame !== frame || overlay.frame !== frame) {
        throw new Error(`image of ${jpegFrame} and overlay of ${overlay.frame} came as ${frame}`);
      }
      // Decodes on another thread.
      const bitmap = await createImageBitmap(new Blob([jpeg], { type: 'image/jpeg' }));
      this.#renderer?.show({ header, bitmap, imageFrame: jpegFrame, overlay }, (drawn) => {
        this.#channel?.shown(drawn.header.frame);
        this.#probe({
          imageFrame: drawn.imageFrame,
          overlayFrame: drawn.overlay.frame,
          shown: window.__reticle.shown + 1,
          sequence: drawn.header.sequence,
        });
      });
      this.header = header;
      this.focus = [...this.focus.slice(1 - FOCUS_HISTORY), header.focus];
      this.doubts = [...this.doubts.slice(1 - DOUBT_HISTORY), doubtOf(header)];
    } catch (error) {
      if (error instanceof OtherVersion) this.#reloadOnce(error);
      else this.say(`A frame could not be drawn: ${String(error)}`, 'act');
      if (frame !== null) this.#channel?.failed(frame);
    }
  }

  #probe(drawn: Omit<Probe, 'view'>): void {
    const renderer = this.#renderer;
    window.__reticle = {
      ...drawn,
      get view() {
        return renderer?.place ?? { left: 0, top: 0, scale: 1 };
      },
    };
  }

  #hear(status: Status): void {
    const now = performance.now();
    if (this.pending !== null && status.run === RUN_AFTER[this.pending]) {
      this.pending = null;
    }
    this.status = status;
    this.#statusAt = now;
    this.#tick = now;
    const skips = this.#skips.filter(({ at }) => now - at < SKIP_WINDOW_MS);
    this.#skips = [...skips, { at: now, skipped: status.counters.skipped }];
  }

  #skippedPerSecond(): number {
    const [first, last] = [this.#skips[0], this.#skips.at(-1)];
    if (first === undefined || last === undefined || last.at - first.at < 500) return 0;
    return Math.max(0, ((last.skipped - first.skipped) / (last.at - first.at)) * 1000);
  }

  /** The box was updated: fetch its page, but never go round in circles. */
  #reloadOnce(error: OtherVersion): void {
    if (sessionStorage.getItem(RELOADED) === null) {
      sessionStorage.setItem(RELOADED, 'yes');
      location.reload();
    } else {
      this.say(`${error.message}. Empty the browser's cache and reload.`, 'act');
    }
  }
}

export const box = new Box();
