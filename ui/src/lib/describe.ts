// From what the box says to what a person reads: words, shapes and how urgent they are.
// Nothing here draws and nothing asks for the time, so each state can be tested.

import { alarmWords } from './alarms';
import { type Doubt, lasting } from './doubt';
import type { Command, Place, Status, SyncState } from './client';

/** `act`: a hand is needed now; `soon`: look at it; `live`: all is as it should be. */
export type Tone = 'live' | 'fine' | 'soon' | 'act' | 'dim';
export type Shape = 'dot' | 'ring' | 'bars' | 'square' | 'triangle' | 'check' | 'dash' | 'cross';

export interface Mark {
  word: string;
  shape: Shape;
  tone: Tone;
}

/** Something that is said over the image. */
export interface Notice {
  title: string;
  lines: string[];
  tone: Tone;
  shape: Shape;
  action?: { command: Command; word: string };
  /** One line: the image stays what is looked at. */
  compact?: boolean;
}

export interface Picture {
  run: Mark;
  save: Mark;
  /** The most important thing to say, if there is one. */
  notice: Notice | null;
  /** Less important things, one line each. */
  remarks: Notice[];
  /** The image is not of now: it is dimmed and its age is said. */
  stale: boolean;
  /** Whether the box would hear a command. */
  connected: boolean;
  /** Start is what the main button does; else pause. */
  canStart: boolean;
  canStop: boolean;
}

export interface Seen {
  /** Milliseconds since the channel was lost; null while it is open. */
  lostForMs: number | null;
  /** The last status, however old. */
  status: Status | null;
  /** Milliseconds since the frame on the screen was captured; null if there is none. */
  frameAgeMs: number | null;
  /** Focus of the last frames, newest last. */
  focus: number[];
  /** What speaks against the numbers of the last frames, newest last. */
  doubts: (Doubt | null)[];
  /** Frames skipped a second, lately. */
  skippedPerSecond: number;
}

/** No frame for this long, and it is said. Slow time lapses have their own rate. */
const QUIET_MS = 3000;
/** Below this the image is useless for measuring; between the two it is soft. */
const BLURRED = 0.3;
const SOFT = 0.5;

export function describe(seen: Seen): Picture {
  const { status } = seen;
  const base = {
    remarks: [] as Notice[],
    stale: false,
    connected: seen.lostForMs === null && status !== null,
    canStart: status !== null && status.run !== 'running',
    canStop: status !== null && status.run !== 'stopped',
  };
  if (seen.lostForMs !== null) return { ...base, ...disconnected(seen) };
  if (status === null) {
    const run: Mark = { word: 'Connecting', shape: 'ring', tone: 'dim' };
    return { ...base, run, save: { word: '–', shape: 'dash', tone: 'dim' }, notice: null };
  }
  const save = saving(status);
  const lead = saveNotice(status) ?? holdNotice(status);
  const state = running(status, seen);
  // Focus and pace are of frames that come.
  const remarks = state.notice === null ? remarksOn(status, seen) : [];
  remarks.unshift(...urgent(status));
  remarks.push(...deliveries(status));
  // Results that are not saved come first: they are being lost.
  const notices = [lead, state.notice].filter((notice) => notice !== null);
  const [notice = null, ...rest] = notices;
  return { ...base, ...state, save, notice, remarks: [...rest, ...remarks] };
}

function disconnected(seen: Seen): Pick<Picture, 'run' | 'save' | 'notice' | 'stale'> {
  const lines = [`No word from it for ${duration(seen.lostForMs ?? 0)}. Trying again all the time.`];
  lines.push(
    seen.status === null
      ? 'Is Reticle running, and is the network up?'
      : 'The box may well go on capturing and saving; this page cannot tell.',
  );
  return {
    run: { word: 'No connection', shape: 'cross', tone: 'act' },
    save: { word: 'Unknown', shape: 'dash', tone: 'dim' },
    notice: { title: 'No connection to the box', lines, tone: 'act', shape: 'cross' },
    stale: true,
  };
}

function running(
  status: Status,
  seen: Seen,
): Pick<Picture, 'run' | 'notice' | 'stale'> {
  const age = seen.frameAgeMs;
  const start = { command: 'start' as const, word: 'Start' };
  if (status.run === 'paused') {
    const lines = ['No frames are taken; the session stays open.'];
    if (age !== null) lines.unshift(`Image from ${duration(age)} ago.`);
    return {
      run: { word: 'Paused', shape: 'bars', tone: 'soon' },
      notice: {
        title: 'Paused',
        lines,
        tone: 'soon',
        shape: 'bars',
        ...(age === null ? { action: { command: 'start' as const, word: 'Go on' } } : { compact: true }),
      },
      stale: false,
    };
  }
  const source = status.source;
  // A source that ended or cannot be used stops the run: what it says matters more than that.
  if (status.run === 'stopped' && source.state !== 'lost' && source.state !== 'ended') {
    const first = age === null;
    return {
      run: { word: 'Stopped', shape: 'square', tone: 'dim' },
      notice: {
        title: first ? 'Ready' : 'Stopped',
        lines: first
          ? [`${sentence(sourceWord(status))} is set up. Start takes frames, finds the cells and saves the results.`]
          : [`The session has ended. Image from ${duration(age)} ago. Start begins a new session.`],
        tone: first ? 'live' : 'dim',
        shape: first ? 'ring' : 'square',
        ...(first ? { action: start } : { compact: true }),
      },
      stale: false,
    };
  }
  if (source.state === 'lost') {
    const lostFor = since(status.now, source.since);
    const folder = status.source_name.startsWith('folder:');
    const stopped = status.run === 'stopped';
    const check = folder ? 'check the path and the network drive' : 'check its cable and power';
    return {
      run: { word: folder ? 'No folder' : 'No camera', shape: 'triangle', tone: 'act' },
      notice: {
        title: `${folder ? 'Folder' : 'Camera'} lost ${duration(lostFor)} ago`,
        lines: [
          `${sentence(sourceWord(status))}: ${source.reason}`,
          `Since ${clockTime(source.since)}. ` +
            (stopped ? 'Put it right, then press Start. ' : `Opening it again and again; ${check}. `) +
            'Results so far are kept.',
        ],
        tone: 'act',
        shape: 'triangle',
        ...(stopped ? { action: start } : {}),
      },
      stale: true,
    };
  }
  if (source.state === 'ended') {
    return {
      run: { word: 'At the end', shape: 'square', tone: 'fine' },
      notice: {
        title: 'All images are done',
        lines: [`${sentence(sourceWord(status))} has no more images.`],
        tone: 'fine',
        shape: 'check',
        compact: age !== null,
      },
      stale: false,
    };
  }
  if (age === null) {
    const opening = source.state === 'opening';
    return {
      run: { word: opening ? 'Opening' : 'Waiting', shape: 'ring', tone: 'dim' },
      notice: {
        title: opening ? `Opening ${sourceWord(status)}` : 'No frame yet',
        lines: [opening ? 'The first frame follows.' : `Waiting for the first frame from ${sourceWord(status)}.`],
        tone: 'dim',
        shape: 'ring',
      },
      stale: false,
    };
  }
  const quiet = Math.max(QUIET_MS, status.segment_fps > 0 ? 3000 / status.segment_fps : 0);
  if (age > quiet) {
    return {
      run: { word: 'No new frame', shape: 'ring', tone: 'soon' },
      notice: {
        title: `No new frame for ${duration(age)}`,
        lines: [`Waiting for ${sourceWord(status)}.`],
        tone: 'soon',
        shape: 'ring',
      },
      stale: true,
    };
  }
  return { run: { word: 'Live', shape: 'dot', tone: 'live' }, notice: null, stale: false };
}

function saving(status: Status): Mark {
  if (status.recording_paused !== null && status.save.state !== 'failing') {
    return { word: 'Not recording', shape: 'triangle', tone: 'act' };
  }
  switch (status.save.state) {
    case 'saved':
      if (status.frame_files_failing !== null) {
        return { word: 'Saved without pixels', shape: 'triangle', tone: 'act' };
      }
      return { word: 'Saved', shape: 'check', tone: 'fine' };
    case 'failing':
      return { word: `Not saved: ${count(status.counters.not_saved)}`, shape: 'triangle', tone: 'act' };
    case 'idle':
      return { word: 'Nothing to save yet', shape: 'dash', tone: 'dim' };
  }
}

function saveNotice(status: Status): Notice | null {
  if (status.save.state !== 'failing') {
    if (status.frame_files_failing === null) return null;
    return {
      title: `Pixels of frames are not kept: ${count(status.counters.not_kept)}`,
      lines: [sentence(status.frame_files_failing), 'Results are saved all the same.'],
      tone: 'act',
      shape: 'triangle',
    };
  }
  const { reason, since: start } = status.save;
  return {
    title: `Results are not saved: ${count(status.counters.not_saved)}`,
    lines: [reason, `Since ${clockTime(start)}, ${duration(since(status.now, start))} ago.`],
    tone: 'act',
    shape: 'triangle',
  };
}

function holdNotice(status: Status): Notice | null {
  if (status.recording_paused === null) return null;
  return {
    title: 'No room: frames are shown, not recorded',
    lines: [
      sentence(status.recording_paused),
      `${count(status.counters.unrecorded)} frames were only shown. Recording goes on by itself when there is room.`,
    ],
    tone: 'act',
    shape: 'triangle',
    compact: true,
  };
}

/** Alarms that cannot wait and that no other line tells already, as it happens. */
function urgent(status: Status): Notice[] {
  const told = ['source_lost', 'no_room', 'saving_fails'];
  return status.alarms
    .filter(({ kind }) => alarmWords(kind).urgent && !told.includes(kind))
    .map(({ kind, since: start, reason }) => ({
      title: alarmWords(kind).title,
      lines: [`${sentence(brief(reason))}. Since ${clockTime(start)}. ${alarmWords(kind).todo}`],
      tone: 'act',
      shape: 'cross',
    }));
}

/** What people call a destination. */
export function destinationWord(destination: SyncState['destination']): string {
  return { archive: 'archive', central: 'database', broker: 'broker' }[destination];
}

/** Results that wait for a destination, once that is worth a word. */
function deliveries(status: Status): Notice[] {
  const remarks: Notice[] = [];
  for (const { destination, location, waiting, quarantined, oldest, reason, conflict } of status.sync) {
    const name = destinationWord(destination);
    if (quarantined > 0) {
      remarks.push({
        title: `Never taken by the ${name}: ${count(quarantined)}`,
        lines: [`They are safe here. Why: reticle outbox quarantine.`],
        tone: 'act',
        shape: 'triangle',
      });
    }
    // A conflict has its alarm, which says what to do.
    if (reason !== null && waiting > 0 && !conflict) {
      const age = oldest === null ? '' : `, the oldest for ${duration(since(status.now, oldest))}`;
      remarks.push({
        title: `${count(waiting)} wait for the ${name}${age}`,
        lines: [`Nothing is lost; ${location} is tried again and again: ${brief(reason)}.`],
        tone: 'soon',
        shape: 'ring',
      });
    }
  }
  return remarks;
}

/** Of `put this into that: the cause: its cause: …` the causes, as far as a glance goes. */
export function brief(reason: string): string {
  const [, ...causes] = reason.split(': ');
  const words = causes.length === 0 ? reason : causes.join(': ');
  return words.length <= 90 ? words : `${words.slice(0, 90).trimEnd()}…`;
}

function remarksOn(status: Status, seen: Seen): Notice[] {
  const remarks: Notice[] = [];
  const remark = (title: string, line: string, tone: Tone = 'soon', shape: Shape = 'triangle') =>
    remarks.push({ title, lines: [line], tone, shape });
  if (focusWord(median(seen.focus.slice(-5)))?.tone === 'soon') {
    remark('Out of focus', 'Check the focus; these frames are marked with a low score.');
  }
  const doubt = lasting(seen.doubts);
  // Out of focus says it already.
  if (doubt !== null && !(doubt.word === 'no edges?' && remarks.length > 0)) {
    remark(doubt.title, doubt.line);
  }
  // While there is no room nothing is recorded, skipped or not; that is said already.
  if (seen.skippedPerSecond > 0.2 && status.recording_paused === null) {
    remark(
      'Segmentation is behind',
      `${status.segment_fps.toFixed(1)} of ${status.capture_fps.toFixed(1)} frames a second; ` +
        'the others are recorded, and kept as far as the retention rule allows.',
    );
  }
  if (status.counters.missed > 0) {
    remark('Frames missed', `The camera gave ${count(status.counters.missed)} frames that never came here.`);
  }
  if (status.last_refusal !== null) {
    remark(`Refused: ${count(status.counters.refused)}`, status.last_refusal);
  }
  return remarks;
}

export function focusWord(focus: number | null): Mark | null {
  if (focus === null) return null;
  if (focus < BLURRED) return { word: 'out of focus', shape: 'triangle', tone: 'soon' };
  if (focus < SOFT) return { word: 'soft', shape: 'ring', tone: 'dim' };
  return { word: 'sharp', shape: 'dot', tone: 'fine' };
}

export function median(values: number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? null;
}

/** Plate, well, field, as far as they are known. */
export function placeWords(place: Place): string[] {
  const words: string[] = [];
  if (place.plate !== null) words.push(`plate ${place.plate}`);
  if (place.well !== null) words.push(`well ${place.well}`);
  if (place.field !== null) words.push(`field ${place.field}`);
  return words;
}

function sourceWord(status: Status): string {
  const name = status.source_name;
  if (name === '' || name === 'virtual') return 'the virtual microscope';
  if (name.startsWith('folder:')) return `the folder ${name.slice('folder:'.length)}`;
  if (name.startsWith('v4l:')) return `the camera ${name.slice('v4l:'.length)}`;
  return name;
}

export function sentence(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Milliseconds from one RFC 3339 time to a later one. */
export function since(now: string, then: string): number {
  const ms = Date.parse(now) - Date.parse(then);
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}

/** Wall time of this place, as `14:03:12`. */
export function clockTime(rfc3339: string): string {
  const date = new Date(rfc3339);
  return Number.isNaN(date.getTime()) ? rfc3339 : date.toLocaleTimeString('en-GB');
}

/** A session's name; one that is only the time it began is said as people say times. */
export function sessionWords(name: string): string {
  if (!/^\d{4}-\d\d-\d\dT/.test(name)) return name;
  const began = new Date(name);
  if (Number.isNaN(began.getTime())) return name;
  const day = began.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
  return `since ${day}, ${clockTime(name).slice(0, 5)}`;
}

/** `0.8 s`, `12 s`, `3 min`, `2 h`, `4 days`. */
export function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

/** `12,345` */
export function count(value: number): string {
  return value.toLocaleString('en-US');
}
