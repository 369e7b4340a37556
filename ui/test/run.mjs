// Bundles the tests with what Vite already brings and hands them to Node's own runner, so
// that TypeScript is tested without another test framework.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

import { rolldown } from 'rolldown';

const here = new URL('.', import.meta.url).pathname;
const out = mkdtempSync(join(tmpdir(), 'reticle-ui-test-'));
try {
  const input = readdirSync(here).filter((name) => name.endsWith('.test.ts'));
  const bundle = await rolldown({
    input: input.map((name) => join(here, name)),
    platform: 'node',
    logLevel: 'warn',
  });
  const { output } = await bundle.write({ dir: out, format: 'esm', entryFileNames: '[name].mjs' });
  const files = output.filter((chunk) => chunk.isEntry).map((chunk) => join(out, chunk.fileName));
  const tests = run({ files, concurrency: true });
  tests.on('test:fail', () => (process.exitCode = 1));
  for await (const text of tests.compose(spec)) process.stdout.write(text);
} finally {
  rmSync(out, { recursive: true, force: true });
}
