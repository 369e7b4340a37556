// Keys of the page. A barcode scanner types faster than any hand and ends with Enter; what
// it types must not start, stop or photograph anything, wherever the focus is.

/** Keys closer together than this are a scanner's. */
const SCANNER_MS = 45;

export interface Actions {
  /** By `KeyboardEvent.key`, letters in lower case. */
  [key: string]: () => void;
}

/** Listens on the whole page. `scanned` is given what a scanner typed. */
export function listen(actions: Actions, scanned: (text: string) => void): void {
  let buffer = '';
  let last = 0;
  let waiting: number | undefined;

  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target as HTMLElement;
    if (target.matches('input:not([type=range]), textarea, select')) return;
    const fast = event.timeStamp - last < SCANNER_MS && !event.repeat;
    last = event.timeStamp;
    if (event.key === 'Enter' && fast && buffer.length >= 3) {
      event.preventDefault();
      clearTimeout(waiting);
      scanned(buffer);
      buffer = '';
      return;
    }
    if (event.key.length === 1) buffer = fast ? buffer + event.key : event.key;
    else if (event.key !== 'Shift') buffer = '';
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // Space and Enter on a button that was reached by Tab press that button.
    if ((key === ' ' || key === 'Enter') && target.matches('button:focus-visible')) return;
    if (target.matches('input[type=range]') && key.startsWith('Arrow')) return;
    const action = actions[key];
    clearTimeout(waiting);
    if (action === undefined || (fast && buffer.length > 1)) return;
    event.preventDefault();
    // Keys that a scanner could have typed wait until it is clear that none did.
    if (event.key.length > 1 || event.repeat) action();
    else waiting = window.setTimeout(action, SCANNER_MS);
  });
}
