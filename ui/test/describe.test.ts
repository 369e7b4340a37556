import assert from 'node:assert/strict';
import { test } from 'node:test';

import { type Seen, describe, duration, focusWord } from '../src/lib/describe';
import { doubtOf } from '../src/lib/doubt';
import type { Status } from '../src/lib/client';

const LOOKED = { model: 'nuclei', scale_from: 'stated', size_ratio: null, unlike: null } as const;

const STATUS: Status = {
  now: '2026-01-02T03:04:13Z',
  version: '0.1.0',
  newest_age_ms: 40,
  capture_to_screen: null,
  viewers: 1,
  run: 'running',
  source: { state: 'ready' },
  source_name: 'virtual',
  model: 'nuclei',
  session: null,
  session_name: null,
  capture_fps: 10,
  segment_fps: 10,
  save_ms: null,
  save: { state: 'saved' },
  frame_files_failing: null,
  recording_paused: null,
  sync: [],
  last_saved: null,
  counters: {
    captured: 0, missed: 0, kept: 0, segmented: 0, skipped: 0, unrecorded: 0, evicted: 0, saved: 0, not_saved: 3, not_kept: 0, refused: 0, gaps: 0, name_taken: 0,
  },
  last_refusal: null,
  alarms: [],
  health: {
    at: '', uptime_s: 0, cpu_percent: 0, resident_bytes: 0, memory_total_bytes: 0, memory_available_bytes: 0,
    storage_total_bytes: 0, storage_free_bytes: 0, temperature_c: null, temperature_limit_c: null, throttled: null,
    clock_trusted: true, stages: [], threads: [],
  },
};

function see(status: Partial<Status>, seen: Partial<Seen> = {}) {
  const usual: Seen = {
    lostForMs: null,
    status: { ...STATUS, ...status },
    frameAgeMs: 40,
    focus: [0.9, 0.9],
    doubts: [null, null],
    skippedPerSecond: 0,
  };
  return describe({ ...usual, ...seen });
}

test('all is well: live, saved, and nothing over the image', () => {
  const { run, save, notice, remarks, stale } = see({});
  assert.deepEqual([run.word, save.word, notice, remarks, stale], ['Live', 'Saved', null, [], false]);
});

test('a lost connection makes everything unknown, saved too', () => {
  const { run, save, notice, stale } = see({}, { lostForMs: 1600 });
  assert.deepEqual([run.word, save.word, stale], ['No connection', 'Unknown', true]);
  assert.match(notice!.lines[0]!, /1\.6 s/);
});

test('a lost camera says since when and what is being done', () => {
  const source = { state: 'lost' as const, reason: 'unplugged', since: '2026-01-02T03:04:05Z' };
  const { notice, stale } = see({ source });
  assert.match(notice!.title, /8\.0 s ago/);
  assert.match(notice!.lines.join(' '), /unplugged.*Opening it again/s);
  assert.equal(stale, true);
});

test('a source that cannot be used says why, also once the run has stopped', () => {
  const source = { state: 'lost' as const, reason: 'fps must be above 0', since: '2026-01-02T03:04:05Z' };
  const { run, notice } = see({ run: 'stopped', source, source_name: 'folder:/data' });
  assert.equal(run.word, 'No folder');
  assert.match(notice!.lines.join(' '), /fps must be above 0.*press Start/);
  assert.equal(notice!.action?.command, 'start');
});

test('results that are not saved come before everything else', () => {
  const save = { state: 'failing' as const, reason: 'disk full', since: '2026-01-02T03:04:05Z' };
  const { notice, save: mark, remarks } = see({ save, run: 'paused' });
  assert.match(notice!.title, /not saved: 3/);
  assert.equal(mark.tone, 'act');
  assert.equal(remarks[0]!.title, 'Paused', 'and the rest is not forgotten');
});

test('a pause by a person leaves the image bright and says how old it is', () => {
  const { notice, stale, canStart } = see({ run: 'paused' }, { frameAgeMs: 12_000 });
  assert.match(notice!.lines[0]!, /12 s ago/);
  assert.deepEqual([stale, canStart], [false, true]);
});

test('frames that stay out are said, but a slow time lapse is not a fault', () => {
  assert.equal(see({}, { frameAgeMs: 5000 }).run.word, 'No new frame');
  assert.equal(see({ segment_fps: 0.2 }, { frameAgeMs: 5000 }).run.word, 'Live');
});

test('being behind is said as what it is: skipped, not lost', () => {
  const { remarks } = see({ segment_fps: 4 }, { skippedPerSecond: 6 });
  assert.match(remarks[0]!.lines[0]!, /4\.0 of 10\.0 .* recorded, and kept/);
});

test('one blurred frame is no alarm, several are', () => {
  assert.equal(see({}, { focus: [0.9, 0.9, 0.9, 0.9, 0.1] }).remarks.length, 0);
  assert.equal(see({}, { focus: [0.9, 0.9, 0.1, 0.1, 0.1] }).remarks[0]!.title, 'Out of focus');
  assert.equal(focusWord(0.9)!.word, 'sharp');
});

test('a picture unlike what the model knows is said once it lasts, and stops nothing', () => {
  const dark = doubtOf({ ...LOOKED, unlike: 'dark-on-bright' });
  assert.equal(see({}, { doubts: [null, null, null, null, dark] }).remarks.length, 0);
  const { remarks, notice, run } = see({}, { doubts: [null, null, dark, dark, dark] });
  assert.equal(remarks[0]!.title, 'Unlike what nuclei was trained on');
  assert.match(remarks[0]!.lines[0]!, /^Dark cells on bright\? /);
  assert.deepEqual([notice, run.word], [null, 'Live']);
  // The first picture of a folder counts at once.
  assert.equal(see({}, { doubts: [dark] }).remarks.length, 1);
  assert.equal(see({}, { doubts: [dark, dark, dark, dark, null] }).remarks.length, 0);
});

test('glow and out of focus are one line', () => {
  const soft = doubtOf({ ...LOOKED, unlike: 'soft' });
  const titles = see({}, { doubts: [soft, soft], focus: [0.1, 0.1] }).remarks.map(({ title }) => title);
  assert.deepEqual(titles, ['Out of focus']);
});

test('sizes that disagree are said with how much, and a word that is not known yet is said', () => {
  assert.equal(doubtOf(LOOKED), null);
  assert.match(doubtOf({ ...LOOKED, size_ratio: 0.25 })!.line, /4\.0 times smaller than the stated pixel size/);
  const configured = doubtOf({ ...LOOKED, scale_from: 'configured', size_ratio: 3 })!;
  assert.match(configured.line, /3\.0 times larger than the configured diameter/);
  const newer = doubtOf({ ...LOOKED, unlike: 'upside-down' as never })!;
  assert.equal(newer.word, 'unlike the model');
});

test('durations are short', () => {
  assert.deepEqual([800, 12_000, 180_000, 7_200_000].map(duration), ['0.8 s', '12 s', '3 min', '2 h']);
});

test('without room it says that frames are only shown, and never "saved"', () => {
  const counters = { ...STATUS.counters, unrecorded: 12 };
  const { save, notice, stale } = see({ recording_paused: 'the disk has too little room: free some', counters });
  assert.deepEqual([save.word, save.tone, stale], ['Not recording', 'act', false]);
  assert.match(notice!.title, /No room/);
  assert.match(notice!.lines.join(' '), /The disk has too little room.*12 frames were only shown/s);
});

test('pixels that cannot be kept are told apart from results that are saved', () => {
  const counters = { ...STATUS.counters, not_saved: 0, not_kept: 12 };
  const { save, notice } = see({ frame_files_failing: 'too many open files', counters });
  assert.deepEqual([save.word, save.tone], ['Saved without pixels', 'act']);
  assert.match(notice!.title, /Pixels of frames are not kept: 12/);
  assert.match(notice!.lines.join(' '), /Too many open files.*Results are saved/s);
});

test('results that wait for the network say how many, how old, and why', () => {
  const waits = {
    destination: 'archive' as const,
    location: 's3://lab/box-1',
    waiting: 1234,
    quarantined: 0,
    oldest: '2026-01-02T01:04:13Z',
    reason: 'put a/key into s3://lab/box-1: the server cannot be reached: no route to host',
  };
  const [remark] = see({ sync: [waits] }).remarks;
  assert.match(remark!.title, /1,234 wait for the archive, the oldest for 2 h/);
  assert.match(remark!.lines[0]!, /Nothing is lost; s3:\/\/lab\/box-1 .*again: the server cannot be reached: no route to host\./);
  // On their way, as they should be: not worth a word.
  assert.deepEqual(see({ sync: [{ ...waits, reason: null }] }).remarks, []);
  const [refused] = see({ sync: [{ ...waits, reason: null, quarantined: 2 }] }).remarks;
  assert.deepEqual([refused!.tone, refused!.title], ['act', 'Never taken by the archive: 2']);
});

test('an urgent alarm is a line over the image, unless another line tells it already', () => {
  const since = '2026-01-02T03:00:00Z';
  const alarms = (['source_lost', 'no_room', 'saving_fails', 'stage_stuck', 'too_hot'] as const).map((kind) => ({
    kind, since, reason: 'segment has been at one frame for 31 s',
  }));
  const { remarks } = see({ alarms });
  assert.deepEqual(remarks.map(({ title }) => title), ['A stage is stuck']);
  assert.match(remarks[0]!.lines[0]!, /^Segment has been at one frame for 31 s\. Since .*restart/);
  assert.equal(remarks[0]!.tone, 'act');
});

test('what waits for the broker is said as such', () => {
  const sync = [{
    destination: 'broker' as const, location: 'mqtts://lab', waiting: 12, quarantined: 0, oldest: '2026-01-02T03:00:13Z',
    reason: 'connect: timed out',
  }];
  assert.equal(see({ sync }).remarks[0]!.title, '12 wait for the broker, the oldest for 4 min');
});
