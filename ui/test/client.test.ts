import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Refused, command, read } from '../src/lib/client';

/** What was asked for, while `fetch` answers in turn; an error is thrown. */
function box(...answers: (Response | Error)[]): { path: string; key: string | null }[] {
  const asked: { path: string; key: string | null }[] = [];
  globalThis.fetch = (input, init) => {
    asked.push({ path: String(input), key: new Headers(init?.headers).get('Idempotency-Key') });
    const answer = answers.shift()!;
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  };
  return asked;
}

const refusal = (detail: string) => Response.json({ detail }, { status: 503 });

test('a command that gets no answer is sent again under its key, and the next one has another key', async () => {
  const asked = box(new TypeError('no network'), new Response('{}'), new Response('{}'));
  await command('start');
  await command('start');
  const [first, again, next] = asked.map(({ key }) => key);
  assert.ok(first !== null && first === again && next !== first, `${first} ${again} ${next}`);
  assert.equal(asked[0]!.path, '/api/v1/commands/start');
});

test('a command that is refused is not sent again, and says what the box said', async () => {
  const asked = box(refusal('the daemon is stopping'));
  await assert.rejects(command('stop'), (error) => error instanceof Refused && error.message === 'the daemon is stopping');
  assert.equal(asked.length, 1);
});

test('what is read is of the frame that was asked for', async () => {
  const asked = box(Response.json([]), new Response('no JSON', { status: 500 }));
  assert.deepEqual(await read('/api/v1/frames/{id}/objects', 'a-frame'), []);
  assert.equal(asked[0]!.path, '/api/v1/frames/a-frame/objects');
  await assert.rejects(read('/api/v1/status'), /answered 500/);
});
