// Fingers, mouse and wheel on the image: drag pans, pinch and wheel zoom, a tap picks.

import type { View } from './view';

/** A press that moves less than this is a tap; gloves are not steady. */
const TAP_PX = 8;

export interface Gestures {
  view: View;
  changed(): void;
  tapped(x: number, y: number): void;
}

export function attach(element: HTMLElement, { view, changed, tapped }: Gestures): void {
  const down = new Map<number, { x: number; y: number }>();
  let travelled = 0;
  let several = false;

  const at = (event: PointerEvent | WheelEvent) => {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  element.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    if (down.size === 0) {
      travelled = 0;
      several = false;
    }
    down.set(event.pointerId, at(event));
    several ||= down.size > 1;
  });

  element.addEventListener('pointermove', (event) => {
    const before = down.get(event.pointerId);
    if (before === undefined) return;
    const now = at(event);
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    down.set(event.pointerId, now);
    travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (other === undefined) {
      if (several || travelled >= TAP_PX) view.panBy(now.x - before.x, now.y - before.y);
    } else {
      const spread = (p: { x: number; y: number }) => Math.hypot(p.x - other.x, p.y - other.y);
      const ratio = spread(now) / Math.max(1, spread(before));
      view.panBy((now.x - before.x) / 2, (now.y - before.y) / 2);
      view.zoomBy(ratio, (now.x + other.x) / 2, (now.y + other.y) / 2);
    }
    changed();
  });

  const up = (event: PointerEvent, cancelled: boolean) => {
    if (!down.delete(event.pointerId)) return;
    if (!cancelled && !several && travelled < TAP_PX) {
      const { x, y } = at(event);
      tapped(x, y);
    }
  };
  element.addEventListener('pointerup', (event) => up(event, false));
  element.addEventListener('pointercancel', (event) => up(event, true));

  element.addEventListener(
    'wheel',
    (event) => {
      event.preventDefault();
      const { x, y } = at(event);
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      view.zoomBy(Math.exp(-event.deltaY * lines * 0.002), x, y);
      changed();
    },
    { passive: false },
  );
}
