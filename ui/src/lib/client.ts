// What the box says and takes over HTTP. All types come from its OpenAPI document, through api.ts
// (`npm run api` makes it; `npm run check` says when it is stale).

import type { components, paths } from './api';

type Schemas = components['schemas'];

export type Alarm = Schemas['Alarm'];
export type AlarmKind = Schemas['AlarmKind'];
export type Command = Schemas['Command'];
export type Health = Schemas['Health'];
export type MeasuredObject = Schemas['MeasuredObject'];
export type Place = Schemas['Place'];
export type ScaleFrom = Schemas['ScaleFrom'];
export type Status = Schemas['StatusReply'];
export type StatusMessage = Schemas['StatusMessage'];
export type SyncState = Schemas['SyncState'];
export type Timings = Schemas['Timings'];
export type Unlike = Schemas['Unlike'];

/** Paths that are read, with what each answers. */
type Read = {
  [Path in keyof paths as paths[Path] extends { get: Answer } ? Path : never]: paths[Path] extends {
    get: { responses: { 200: { content: { 'application/json': infer Body } } } };
  }
    ? Body
    : never;
};
type Answer = { responses: { 200: { content: { 'application/json': unknown } } } };

/** The box refused, and says why and what to do. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    detail: string | undefined,
  ) {
    super(detail ?? `The box answered ${status}.`);
  }
}

/** Reads from the box, with `{id}` of the path filled in. Throws `Refused`, or what `fetch` throws. */
export async function read<Path extends keyof Read & string>(path: Path, id = ''): Promise<Read[Path]> {
  const reply = await fetch(path.replace('{id}', id));
  if (!reply.ok) throw await refused(reply);
  return (await reply.json()) as Read[Path];
}

const RETRIES = 2;
const RETRY_MS = 300;

/**
 * Gives the box a command. Where no answer comes it is sent again under the same key, so that it is
 * carried out once. Throws as `read` does.
 */
export async function command(name: Command): Promise<void> {
  const key = crypto.getRandomValues(new Uint32Array(4)).join('-');
  for (let tried = 0; ; tried++) {
    try {
      const reply = await fetch(`/api/v1/commands/${name}`, { method: 'POST', headers: { 'Idempotency-Key': key } });
      if (!reply.ok) throw await refused(reply);
      return;
    } catch (error) {
      if (error instanceof Refused || tried === RETRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

async function refused(reply: Response): Promise<Refused> {
  const problem = (await reply.json().catch(() => ({}))) as Partial<Schemas['Problem']>;
  return new Refused(reply.status, problem.detail);
}
