// What speaks against the numbers of a frame: the picture is unlike what the model knows, or its
// objects are not of the size that was stated. A word beside the count, and a line over the image while
// it goes on. Nothing is stopped by it: the person decides.

import type { Unlike } from './client';
import type { FrameHeader } from './protocol';

export interface Doubt {
  /** Beside the count. */
  word: string;
  title: string;
  line: string;
}

type Looked = Pick<FrameHeader, 'scale_from' | 'size_ratio' | 'unlike' | 'model'>;

const UNLIKE: Record<Unlike, { word: string; line: string }> = {
  'dark-on-bright': { word: 'dark on bright?', line: 'Dark cells on bright?' },
  'bright-on-dark': { word: 'bright on dark?', line: 'Bright cells on dark?' },
  stripes: { word: 'stripes?', line: 'Stripes from the camera?' },
  'fixed-pattern': { word: 'a pattern?', line: 'A regular pattern, not cells?' },
  soft: { word: 'no edges?', line: 'Glow without edges, or far out of focus?' },
  'dim-beside-bright': { word: 'dim ones missed?', line: 'Many dim cells beside very bright ones?' },
  debris: { word: 'debris?', line: 'Many specks or debris among the cells?' },
  strange: { word: 'unlike the model', line: 'Another contrast or another kind of sample?' },
};

/** The gravest doubt about a frame. */
export function doubtOf(frame: Looked): Doubt | null {
  if (frame.unlike !== null) {
    // A newer box may know more words.
    const known = UNLIKE[frame.unlike] as { word: string; line: string } | undefined;
    const { word, line } = known ?? UNLIKE.strange;
    return { word, title: `Unlike what ${frame.model} was trained on`, line: `${line} The count may be wrong.` };
  }
  if (frame.size_ratio !== null) {
    const larger = frame.size_ratio > 1;
    const times = (larger ? frame.size_ratio : 1 / frame.size_ratio).toFixed(1);
    const stated = frame.scale_from === 'configured' ? 'configured diameter' : 'stated pixel size';
    return {
      word: 'size?',
      title: 'Sizes disagree',
      line: `Objects look ${times} times ${larger ? 'larger' : 'smaller'} than the ${stated} says. Is it right? It is used as it stands.`,
    };
  }
  return null;
}

/** The doubt that most of the last frames share, newest last. One odd frame covers no image. */
export function lasting(doubts: (Doubt | null)[]): Doubt | null {
  const last = doubts.slice(-5);
  const newest = last.at(-1) ?? null;
  if (newest === null) return null;
  const same = last.filter((doubt) => doubt?.title === newest.title && doubt.word === newest.word);
  return 2 * same.length > last.length ? newest : null;
}
