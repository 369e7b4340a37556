// What each alarm is called, what it means and what to do, in one short line each. The long
// form is docs/runbook.md.

import type { AlarmKind } from './client';

export interface AlarmWords {
  title: string;
  means: string;
  todo: string;
  /** Data is at stake or a person is needed, rather than a look soon. */
  urgent: boolean;
}

const WORDS: Record<AlarmKind, AlarmWords> = {
  source_lost: {
    title: 'Camera or folder lost',
    means: 'No frames come; it is opened again and again.',
    todo: 'Check cable, power or network drive.',
    urgent: true,
  },
  stage_stuck: {
    title: 'A stage is stuck',
    means: 'Part of Reticle makes no progress.',
    todo: 'It is restarted by itself; if not, restart Reticle.',
    urgent: true,
  },
  thread_died: {
    title: 'A part of Reticle died',
    means: 'It begins again, or all of Reticle does. Nothing saved is lost.',
    todo: 'Keep the log and report it.',
    urgent: false,
  },
  saving_fails: {
    title: 'Results are not saved',
    means: 'The disk does not take them. What is counted as not saved is lost.',
    todo: 'Pause if the sample can wait; mend the disk.',
    urgent: true,
  },
  store_unlinked: {
    title: 'The store is not where it was',
    means: 'Removed, replaced or no longer mounted. Nothing more is saved.',
    todo: 'Mount it or put it back; Reticle starts again.',
    urgent: true,
  },
  no_room: {
    title: 'No room: not recording',
    means: 'Frames are shown and not recorded.',
    todo: 'Make room, or bring the archive back.',
    urgent: true,
  },
  disk_low: {
    title: 'Disk almost full',
    means: 'Recording stops when no room is left.',
    todo: 'Free some room soon.',
    urgent: false,
  },
  delivery_fails: {
    title: 'A destination takes nothing',
    means: 'Results wait here; none is lost.',
    todo: 'Check network and server when you can.',
    urgent: false,
  },
  quarantined: {
    title: 'Refused by a destination',
    means: 'It will never take some results. They are safe here.',
    todo: 'reticle outbox quarantine says why.',
    urgent: false,
  },
  name_taken: {
    title: 'Another box has this name',
    means: 'Both throw each other out at the message broker.',
    todo: 'Give each box its own name in [box].',
    urgent: false,
  },
  archive_ahead: {
    title: 'The archive is ahead of this box',
    means: 'Deliveries have stopped. Results are saved here.',
    todo: 'A second box of this name? reticle sync adopt.',
    urgent: true,
  },
  image_quarantined: {
    title: 'An image is left alone',
    means: 'Reticle ended twice while it read it. The others are segmented.',
    todo: 'reticle intake list names it.',
    urgent: false,
  },
  model_differs: {
    title: 'The model counts differently here',
    means: 'Its test image gives other cells than it should.',
    todo: 'Do not trust counts; copy the model again.',
    urgent: true,
  },
  clock_untrusted: {
    title: 'Clock not in step',
    means: 'Nobody corrects the clock; times may be wrong.',
    todo: 'Check the network and the time service.',
    urgent: false,
  },
  too_hot: {
    title: 'Too hot',
    means: 'The processor is close to its limit.',
    todo: 'Free the air slots; check the fan.',
    urgent: false,
  },
  throttled: {
    title: 'Slowed down',
    means: 'Heat or weak power slows the processor.',
    todo: 'Cool the box; check its power supply.',
    urgent: false,
  },
  memory_low: {
    title: 'Memory almost used up',
    means: 'The system may end a program.',
    todo: 'Close other programs on the box.',
    urgent: false,
  },
  open_network: {
    title: 'Open to the network',
    means: 'Whoever reaches this page may command the box.',
    todo: 'Listen on 127.0.0.1 behind a proxy, or use a firewall.',
    urgent: false,
  },
};

export const ALARM_KINDS = Object.keys(WORDS) as AlarmKind[];

/** One that this page does not know is told by its own word, and taken seriously. */
export function alarmWords(kind: AlarmKind): AlarmWords {
  const unknown = {
    title: (kind as string).replaceAll('_', ' '),
    means: 'This page is older than the box.',
    todo: 'Reload the page.',
    urgent: true,
  };
  return (WORDS as Partial<Record<AlarmKind, AlarmWords>>)[kind] ?? unknown;
}
