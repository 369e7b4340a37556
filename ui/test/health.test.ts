import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { ALARM_KINDS, alarmWords } from '../src/lib/alarms';
import { alarmLines, boxMark, bytes, destinationRows, healthAge, machineRows, span, stageRows } from '../src/lib/health';
import type { Alarm, AlarmKind, Health, Status, SyncState } from '../src/lib/client';

const NOW = '2026-01-02T03:04:13Z';
const NOW_MS = Date.parse(NOW);
const GIB = 2 ** 30;

const HEALTH: Health = {
  at: '2026-01-02T03:04:10Z', uptime_s: 7500, cpu_percent: 41.6, resident_bytes: 0.4 * GIB,
  memory_total_bytes: 8 * GIB, memory_available_bytes: 6 * GIB, storage_total_bytes: 100 * GIB, storage_free_bytes: 25 * GIB,
  temperature_c: 62.4, temperature_limit_c: 85, throttled: false, clock_trusted: true,
  stages: [{ name: 'capture', busy_s: null, stuck: false }, { name: 'segment', busy_s: 31.2, stuck: true }],
  threads: [],
};

function status(alarms: Alarm[] = [], health: Partial<Health> = {}, sync: SyncState[] = []): Status {
  // What the Box page reads of it.
  return { now: NOW, version: '0.1.0', alarms, sync, health: { ...HEALTH, ...health } } as unknown as Status;
}

const alarm = (kind: AlarmKind, since = NOW): Alarm => ({ kind, since, reason: 'it was seen' });

test('the page knows the alarms of the box, no more, no fewer, and which of them are urgent', () => {
  const rust = readFileSync('../crates/domain/src/alarm.rs', 'utf8');
  const words = new Map([...rust.matchAll(/Self::(\w+) => "(\w+)"/g)].map(([, name, word]) => [name!, word!]));
  assert.deepEqual([...words.values()], ALARM_KINDS);
  const urgent = rust.slice(rust.indexOf('fn is_urgent')).split('\n    }')[0]!;
  const named = [...urgent.matchAll(/Self::(\w+)/g)].map(([, name]) => words.get(name!));
  assert.deepEqual(ALARM_KINDS.filter((kind) => alarmWords(kind).urgent), named);
});

test('every alarm has a title, a meaning and a thing to do, each short enough for a glance', () => {
  for (const kind of ALARM_KINDS) {
    const { title, means, todo } = alarmWords(kind);
    assert.ok(title.length > 3 && title.length < 36, kind);
    for (const line of [means, todo]) assert.ok(line.endsWith('.') && line.length < 72, `${kind}: ${line}`);
  }
});

test('an alarm of a newer box is told by its own word and taken seriously', () => {
  const words = alarmWords('lens_missing' as AlarmKind);
  assert.deepEqual([words.title, words.urgent], ['lens missing', true]);
});

test('the button shows the worst of the alarms by word and shape', () => {
  const word = (...alarms: Alarm[]) => {
    const { word, shape, tone } = boxMark(status(alarms), NOW_MS);
    return [word, shape, tone];
  };
  assert.deepEqual(word(), ['Box', 'check', 'fine']);
  assert.deepEqual(word(alarm('too_hot')), ['Look', 'triangle', 'soon']);
  assert.deepEqual(word(alarm('too_hot'), alarm('stage_stuck')), ['Act', 'cross', 'act']);
});

test('a box that is not heard, or not measured, is never said to be fine', () => {
  assert.equal(boxMark(null, NOW_MS).tone, 'dim');
  assert.equal(boxMark(status([], { at: '' }), NOW_MS).tone, 'dim');
  assert.equal(boxMark(status(), NOW_MS + 11_000).tone, 'fine');
  assert.deepEqual(boxMark(status(), NOW_MS + 13_000), { word: 'Look', shape: 'triangle', tone: 'soon' });
});

test('a measurement has its age, and none has none', () => {
  assert.equal(healthAge(status(), NOW_MS), 3000);
  assert.equal(healthAge(status([], { at: '' }), NOW_MS), null);
});

test('urgent alarms come first, then the oldest', () => {
  const on = [alarm('too_hot', '2026-01-02T03:00:00Z'), alarm('disk_low', '2026-01-02T02:00:00Z'), alarm('no_room')];
  const lines = alarmLines(status(on), NOW_MS);
  assert.deepEqual(lines.map(({ kind }) => kind), ['no_room', 'disk_low', 'too_hot']);
  assert.match(lines[2]!.since, /^since .*, 4 min$/);
  assert.equal(lines[0]!.reason, 'It was seen');
});

test('the machine is told in numbers, and what is wrong is what the box says is wrong', () => {
  const rows = (...given: Parameters<typeof status>) =>
    new Map(machineRows(status(...given)).map((row) => [row.name, row]));
  const calm = rows();
  assert.deepEqual(calm.get('Disk'), { name: 'Disk', value: '25 GiB free', note: 'of 100 GiB', tone: 'fine', used: 0.75 });
  assert.equal(calm.get('Temperature')!.note, 'limit 85 °C');
  assert.equal(calm.get('Running for')!.value, '2 h 5 min');
  assert.equal(rows([alarm('disk_low')]).get('Disk')!.tone, 'soon');
  assert.equal(rows([alarm('disk_low'), alarm('no_room')]).get('Disk')!.tone, 'act');
  assert.equal(rows([], { throttled: true }).get('Speed')!.value, 'slowed down');
  assert.equal(rows([], { clock_trusted: false }).get('Clock')!.tone, 'soon');
});

test('what the machine does not tell is said, not made up', () => {
  const untold = machineRows(status([], { temperature_c: null, throttled: null, storage_total_bytes: 0, memory_total_bytes: 0 }));
  const said = untold.filter(({ value }) => value === 'not told by this machine').map(({ name }) => name);
  assert.deepEqual(said, ['Disk', 'Memory', 'Temperature', 'Speed']);
});

test('stages and destinations say what they do and for how long', () => {
  assert.deepEqual(
    stageRows(status()).map(({ name, value, note }) => [name, value, note]),
    [['capture', 'waits for work', ''], ['segment', 'stuck', 'at one piece for 31 s']],
  );
  const broker: SyncState = {
    destination: 'broker', location: 'mqtts://lab', waiting: 1200, quarantined: 2, oldest: '2026-01-02T02:00:00Z',
    reason: 'publish: the broker refuses: not authorised',
  };
  const [row] = destinationRows(status([], {}, [broker]), NOW_MS);
  assert.deepEqual([row!.name, row!.value, row!.tone], ['Broker', '1,200 wait', 'soon']);
  assert.equal(row!.note, 'oldest 64 min · 2 never taken · mqtts://lab: the broker refuses: not authorised');
});

test('sizes and spans are short and do not jump about', () => {
  assert.deepEqual([0, 900, 5 * 2 ** 20, 1.5 * GIB, 2000 * GIB].map(bytes), ['0 B', '900 B', '5.0 MiB', '1.5 GiB', '2.0 TiB']);
  assert.deepEqual([-1, 9.9, 840, 19_200, 1e6].map(span), ['0 s', '9 s', '14 min', '5 h 20 min', '11 days']);
});
