// The Box page in words: alarms, the machine, its stages and where results go. Nothing here
// draws and nothing asks for the time. What is wrong is decided by the box, in its alarms;
// the page puts no limits of its own beside them.

import { alarmWords } from './alarms';
import { type Mark, type Shape, type Tone, brief, clockTime, count, destinationWord, sentence } from './describe';
import type { AlarmKind, Status } from './client';

/** Measured a few times a minute; what is older than this is not of now. */
export const STALE_MS = 15_000;

export interface Row {
  name: string;
  value: string;
  /** Said after the value, smaller. */
  note: string;
  tone: Tone;
  /** Part that is used, 0 to 1, where a bar helps. */
  used: number | null;
}

export interface AlarmLine {
  kind: AlarmKind;
  title: string;
  since: string;
  reason: string;
  means: string;
  todo: string;
  word: string;
  tone: Tone;
  shape: Shape;
}

const NOT_TOLD = 'not told by this machine';

/** The button of the Box page; `status` is null while nothing is heard of the box. */
export function boxMark(status: Status | null, nowMs: number): Mark {
  if (status === null) return { word: 'Box', shape: 'dash', tone: 'dim' };
  if (status.alarms.some(({ kind }) => alarmWords(kind).urgent)) {
    return { word: 'Act', shape: 'cross', tone: 'act' };
  }
  const age = healthAge(status, nowMs);
  if (status.alarms.length > 0 || (age !== null && age > STALE_MS)) {
    return { word: 'Look', shape: 'triangle', tone: 'soon' };
  }
  if (age === null) return { word: 'Box', shape: 'ring', tone: 'dim' };
  return { word: 'Box', shape: 'check', tone: 'fine' };
}

/** Milliseconds since the machine was measured; null before the first time. */
export function healthAge(status: Status, nowMs: number): number | null {
  const at = Date.parse(status.health.at);
  return Number.isNaN(at) ? null : Math.max(0, nowMs - at);
}

/** What is urgent first, then what has been on for longest. */
export function alarmLines(status: Status, nowMs: number): AlarmLine[] {
  const lines = status.alarms.map(({ kind, since, reason }): AlarmLine & { urgent: boolean; at: number } => {
    const { title, means, todo, urgent } = alarmWords(kind);
    const at = Date.parse(since);
    const ago = Number.isNaN(at) ? '' : `, ${span((nowMs - at) / 1000)}`;
    const mark = urgent
      ? ({ word: 'Act', tone: 'act', shape: 'cross' } as const)
      : ({ word: 'Look', tone: 'soon', shape: 'triangle' } as const);
    return { kind, title, means, todo, reason: sentence(reason), since: `since ${clockTime(since)}${ago}`, ...mark, urgent, at };
  });
  return lines.sort((a, b) => Number(b.urgent) - Number(a.urgent) || a.at - b.at);
}

export function machineRows(status: Status): Row[] {
  const { health } = status;
  const on = (kind: AlarmKind) => status.alarms.some((alarm) => alarm.kind === kind);
  const toneOf = (...kinds: AlarmKind[]): Tone => {
    const [worst] = kinds.filter(on).sort((a, b) => Number(alarmWords(b).urgent) - Number(alarmWords(a).urgent));
    if (worst === undefined) return 'fine';
    return alarmWords(worst).urgent ? 'act' : 'soon';
  };
  const row = (name: string, value: string, note = '', tone: Tone = 'dim', used: number | null = null): Row =>
    ({ name, value, note, tone, used });
  const part = (free: number, total: number) => (total > 0 ? Math.min(1, Math.max(0, 1 - free / total)) : null);
  const untold = (name: string) => row(name, NOT_TOLD);
  const rows: Row[] = [];
  const { storage_free_bytes: free, storage_total_bytes: disk } = health;
  rows.push(
    disk === 0
      ? untold('Disk')
      : row('Disk', `${bytes(free)} free`, `of ${bytes(disk)}`, toneOf('disk_low', 'no_room', 'saving_fails'), part(free, disk)),
  );
  const { memory_available_bytes: left, memory_total_bytes: memory } = health;
  rows.push(
    memory === 0
      ? untold('Memory')
      : row(
          'Memory',
          `${bytes(left)} free`,
          `of ${bytes(memory)}, Reticle ${bytes(health.resident_bytes)}`,
          toneOf('memory_low'),
          part(left, memory),
        ),
  );
  const { temperature_c: hot, temperature_limit_c: limit } = health;
  rows.push(
    hot === null
      ? untold('Temperature')
      : row(
          'Temperature',
          `${hot.toFixed(0)} °C`,
          limit === null ? `limit ${NOT_TOLD}` : `limit ${limit.toFixed(0)} °C`,
          toneOf('too_hot'),
          limit === null || limit <= 0 ? null : Math.min(1, Math.max(0, hot / limit)),
        ),
  );
  rows.push(
    health.throttled === null
      ? untold('Speed')
      : health.throttled
        ? row('Speed', 'slowed down', 'by heat or weak power', 'soon')
        : row('Speed', 'full', 'not throttled', toneOf('throttled')),
  );
  rows.push(
    health.clock_trusted
      ? row('Clock', 'in step', '', toneOf('clock_untrusted'))
      : row('Clock', 'not in step', 'nobody corrects it', 'soon'),
  );
  rows.push(row('CPU', `${health.cpu_percent.toFixed(0)}%`, 'of one core, by Reticle'));
  rows.push(row('Running for', span(health.uptime_s), `version ${status.version}`));
  return rows;
}

export function stageRows(status: Status): Row[] {
  return status.health.stages.map(({ name, busy_s, stuck }) => ({
    name,
    value: stuck ? 'stuck' : busy_s === null ? 'waits for work' : 'works',
    note: busy_s === null || (busy_s < 1 && !stuck) ? '' : `at one piece for ${span(busy_s)}`,
    tone: stuck ? 'act' : 'fine',
    used: null,
  }));
}

export function destinationRows(status: Status, nowMs: number): Row[] {
  return status.sync.map(({ destination, location, waiting, quarantined, oldest, reason }) => {
    const notes: string[] = [];
    if (waiting > 0 && oldest !== null) notes.push(`oldest ${span((nowMs - Date.parse(oldest)) / 1000)}`);
    if (quarantined > 0) notes.push(`${count(quarantined)} never taken`);
    notes.push(reason === null ? location : `${location}: ${brief(reason)}`);
    return {
      name: sentence(destinationWord(destination)),
      value: waiting === 0 ? 'nothing waits' : `${count(waiting)} wait`,
      note: notes.join(' · '),
      tone: reason !== null || quarantined > 0 ? 'soon' : 'fine',
      used: null,
    };
  });
}

/** The shape that goes with a tone, so that colour is never alone. */
export function shapeOf(tone: Tone): Shape {
  if (tone === 'act') return 'cross';
  if (tone === 'soon') return 'triangle';
  return tone === 'fine' ? 'check' : 'dash';
}

/** Whole units, which do not jump about: `9 s`, `14 min`, `5 h 20 min`, `12 days`. */
export function span(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 100) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} days`;
}

/** `512 MiB`, `7.4 GiB`, as `df -h` and `free -h` say it. */
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [size, unit] = [value, 0];
  while (size >= 1000 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${size < 10 && unit > 0 ? size.toFixed(1) : size.toFixed(0)} ${units[unit]}`;
}
