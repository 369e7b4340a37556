// The live channel: connects, notices silence, connects again. Knows nothing of drawing.

import type { Status, StatusMessage } from './client';

/** The box sends its status four times a second; silence for this long means it is lost. */
const SILENCE_MS = 1300;
const RETRY_MS = 700;
const CHECK_MS = 200;

export interface Listener {
  frame(message: ArrayBuffer): void;
  status(status: Status): void;
  connected(): void;
  /** Called once for each loss, also when the first connection cannot be made. */
  lost(): void;
}

export class LiveChannel {
  #listener: Listener;
  #socket: WebSocket | null = null;
  #heard = 0;
  #open = false;
  #retryAt = 0;
  #reportedLost = false;

  constructor(listener: Listener) {
    this.#listener = listener;
    this.#connect();
    setInterval(() => this.#check(), CHECK_MS);
    document.addEventListener('visibilitychange', () => this.#say({ hidden: document.hidden }));
    addEventListener('offline', () => this.#check());
  }

  /** The frame is on the screen: the box may send the next one. */
  shown(frame: string): void {
    this.#say({ shown: frame });
  }

  /** The frame could not be drawn: the box may send the next one. */
  failed(frame: string): void {
    this.#say({ failed: frame });
  }

  #say(word: Record<string, string | boolean>): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(word));
  }

  #connect(): void {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const socket = new WebSocket(`${scheme}://${location.host}/api/v1/live`);
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    this.#heard = performance.now();
    socket.onopen = () => {
      this.#heard = performance.now();
      if (document.hidden) this.#say({ hidden: true });
    };
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (socket !== this.#socket) return;
      this.#heard = performance.now();
      if (!this.#open) {
        this.#open = true;
        this.#reportedLost = false;
        this.#listener.connected();
      }
      if (typeof data === 'string') this.#listener.status(JSON.parse(data) as StatusMessage);
      else this.#listener.frame(data);
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#lose();
    };
  }

  #lose(): void {
    this.#socket?.close();
    this.#socket = null;
    this.#open = false;
    this.#retryAt = performance.now() + RETRY_MS;
    if (!this.#reportedLost) {
      this.#reportedLost = true;
      this.#listener.lost();
    }
  }

  #check(): void {
    const now = performance.now();
    if (this.#socket === null) {
      if (now >= this.#retryAt) this.#connect();
    } else if (now - this.#heard > SILENCE_MS) {
      // A hidden page's timers are slowed down, so silence proves nothing there.
      if (!document.hidden) this.#lose();
    }
  }
}
