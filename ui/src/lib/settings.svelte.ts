// What a person has set on this screen; kept in the browser.

import type { Mode, Style } from './renderer';

export type Theme = 'night' | 'light';

interface Stored {
  mode: Mode;
  outlineOpacity: number;
  fillOpacity: number;
  perObject: boolean;
  theme: Theme;
}

const KEY = 'reticle.settings';
const DEFAULTS: Stored = {
  mode: 'outlines',
  outlineOpacity: 1,
  fillOpacity: 0.25,
  perObject: false,
  theme: 'night',
};

function load(): Stored {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<Stored>;
    return { ...DEFAULTS, ...stored };
  } catch {
    // A browser that keeps nothing, or something else under our key.
    return DEFAULTS;
  }
}

class Settings {
  #stored = $state(load());
  /** What `toggle` goes back to. */
  #lastMode: Exclude<Mode, 'off'> = this.#stored.mode === 'fills' ? 'fills' : 'outlines';

  get style(): Style {
    const { mode, perObject } = this.#stored;
    return { mode, perObject, opacity: this.opacity };
  }

  get mode(): Mode {
    return this.#stored.mode;
  }

  set mode(mode: Mode) {
    if (mode !== 'off') this.#lastMode = mode;
    this.#change({ mode });
  }

  get opacity(): number {
    return this.#lastMode === 'fills' ? this.#stored.fillOpacity : this.#stored.outlineOpacity;
  }

  set opacity(value: number) {
    const opacity = Math.round(Math.min(1, Math.max(0.05, value)) * 100) / 100;
    this.#change(this.#lastMode === 'fills' ? { fillOpacity: opacity } : { outlineOpacity: opacity });
  }

  get perObject(): boolean {
    return this.#stored.perObject;
  }

  set perObject(perObject: boolean) {
    this.#change({ perObject });
  }

  get theme(): Theme {
    return this.#stored.theme;
  }

  set theme(theme: Theme) {
    this.#change({ theme });
  }

  toggleOverlay(): void {
    this.mode = this.mode === 'off' ? this.#lastMode : 'off';
  }

  #change(change: Partial<Stored>): void {
    this.#stored = { ...this.#stored, ...change };
    try {
      localStorage.setItem(KEY, JSON.stringify(this.#stored));
    } catch {
      // Then it holds until the page is closed.
    }
  }
}

export const settings = new Settings();
