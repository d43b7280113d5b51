// The unmodified official Node client against a running gateway, in front of a model server that replays
// recordings: `metadata.recording` says which, `metadata.hold_after` where it waits for `POST /release`.
// Its accumulator throws on every event that is out of order, unknown or inconsistent.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import OpenAI, { BadRequestError, NotFoundError, UnprocessableEntityError } from 'openai';

const { GATEWAY_URL, MODEL_SERVER_URL, RECORDED_STREAMS } = process.env;
const UNKNOWN = `resp_${'0'.repeat(48)}`;
const OVER = new Set(['completed', 'failed', 'incomplete', 'cancelled']);
const options = { timeout: 30_000 };

const client = new OpenAI({ baseURL: GATEWAY_URL, apiKey: 'sk-node', maxRetries: 0, timeout: 20_000 });

const ask = (recording = 'vllm/responses-stream', more = {}) => ({
  model: 'tiny',
  input: 'Count to 5.',
  background: true,
  metadata: { recording },
  ...more,
});

const held = (after) => ask('vllm/responses-stream', { metadata: { recording: 'vllm/responses-stream', hold_after: String(after) } });

const release = async () => assert.equal((await fetch(new URL('/release', MODEL_SERVER_URL), { method: 'POST' })).status, 200);

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

/** Reads up to and including the event `last`, then hangs up. */
async function readTo(stream, last) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (event.sequence_number === last) break;
  }
  return events;
}

async function poll(id) {
  for (;;) {
    const response = await client.responses.retrieve(id);
    if (OVER.has(response.status)) return response;
    await pause(20);
  }
}

async function rejection(promise, kind) {
  const error = await promise.then(() => assert.fail('it was accepted'), (reason) => reason);
  assert.ok(error instanceof kind, `${error}`);
  return error;
}

test('create and poll', options, async () => {
  const created = await client.responses.create(ask());
  assert.equal(created.status, 'queued');
  assert.deepEqual(created.output, []);
  assert.match(created.id, /^resp_[0-9a-f]{48}$/);
  assert.match(created._request_id, /^[0-9a-f-]{36}$/);
  const done = await poll(created.id);
  assert.equal(done.status, 'completed');
  assert.match(done.output_text, /^one two three four five/);
  assert.equal(done.usage.total_tokens, done.usage.input_tokens + done.usage.output_tokens);
});

test('a stream is numbered from zero and adds up to the stored response', options, async () => {
  const events = await collect(await client.responses.create(ask('vllm/responses-stream', { stream: true })));
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  assert.deepEqual(events.slice(0, 3).map((event) => event.type), ['response.created', 'response.queued', 'response.in_progress']);
  const last = events.at(-1);
  assert.equal(last.type, 'response.completed');
  const text = events.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta).join('');
  assert.equal((await client.responses.retrieve(last.response.id)).output_text, text);
});

test('a reader dropped at every event resumes without gap or double', options, async () => {
  const whole = await collect(await client.responses.create(ask('vllm/responses-stream', { stream: true })));
  const { id } = whole[0].response;
  for (const cut of whole.keys()) {
    const before = await readTo(await client.responses.retrieve(id, { stream: true }), cut);
    const after = await collect(await client.responses.retrieve(id, { stream: true, starting_after: cut }));
    assert.deepEqual([...before, ...after], whole);
  }
});

test('a reader dropped while the response runs resumes live', options, async () => {
  const before = await readTo(await client.responses.create({ ...held(12), stream: true }), 7);
  const { id } = before[0].response;
  const resumed = await client.responses.retrieve(id, { stream: true, starting_after: 7 });
  await release();
  const after = await collect(resumed);
  assert.deepEqual([...before, ...after], await collect(await client.responses.retrieve(id, { stream: true })));
  assert.equal(after.at(-1).type, 'response.completed');
});

test('the stream helper resumes at several points and gives the final response', options, async () => {
  const whole = await collect(await client.responses.create(ask('vllm/responses-stream', { stream: true })));
  const { id } = whole[0].response;
  for (const after of [0, 1, 2, 5, 11, whole.length - 2]) {
    const stream = client.responses.stream({ response_id: id, starting_after: after });
    const seen = await collect(stream);
    assert.deepEqual(seen.map((event) => event.sequence_number), whole.map((event) => event.sequence_number).slice(after + 1));
    const final = await stream.finalResponse();
    assert.equal(final.output_text, (await client.responses.retrieve(id)).output_text);
  }
});

test('the stream helper creates a background stream', options, async () => {
  const stream = client.responses.stream(ask('vllm/responses-stream'));
  let text = '';
  stream.on('response.output_text.delta', ({ delta }) => (text += delta));
  const final = await stream.finalResponse();
  assert.equal(final.status, 'completed');
  assert.equal(final.output_text, text);
});

for (const name of JSON.parse(RECORDED_STREAMS)) {
  test(`the accumulator takes the recorded stream ${name}`, options, async () => {
    const events = await collect(await client.responses.create(ask(name, { stream: true })));
    const { response } = events.at(-1);
    assert.ok(['completed', 'incomplete'].includes(response.status), response.status);
    const stream = client.responses.stream({ response_id: response.id });
    assert.equal((await collect(stream)).length, events.length);
    const final = await stream.finalResponse();
    const stored = await client.responses.retrieve(response.id);
    assert.equal(final.output_text, stored.output_text);
    assert.deepEqual(final.output.map(({ type, id }) => ({ type, id })), stored.output.map(({ type, id }) => ({ type, id })));
    const calls = (of) => of.output.filter((item) => item.type === 'function_call').map((call) => call.arguments);
    assert.deepEqual(calls(final), calls(stored));
  });
}

test('the accumulator takes a failed stream with what it had', options, async () => {
  const events = await collect(await client.responses.create(ask('vllm/responses-error-bad-model-stream', { stream: true })));
  const last = events.at(-1);
  assert.equal(last.type, 'response.failed');
  assert.match(last.response.error.message, /does not exist/);
  const stream = client.responses.stream({ response_id: last.response.id });
  assert.equal((await collect(stream)).length, events.length);
});

test('a running response is cancelled, and once more; its stream ends with failed', options, async () => {
  const stream = await client.responses.create({ ...held(9), stream: true });
  const reader = stream[Symbol.asyncIterator]();
  const { id } = (await reader.next()).value.response;
  const first = await client.responses.cancel(id);
  const second = await client.responses.cancel(id);
  assert.equal(first.status, 'cancelled');
  assert.deepEqual(second, first);
  let last;
  for (let step = await reader.next(); !step.done; step = await reader.next()) last = step.value;
  assert.equal(last.type, 'response.failed');
  assert.equal(last.response.status, 'cancelled');
  const helper = client.responses.stream({ response_id: id });
  assert.equal((await collect(helper)).at(-1).type, 'response.failed');
  await release();
});

test('what is over or unknown cannot be cancelled', options, async () => {
  const { id } = await client.responses.create(ask());
  await poll(id);
  const over = await rejection(client.responses.cancel(id), BadRequestError);
  assert.match(over.message, /Cannot cancel a completed response/);
  const unknown = await rejection(client.responses.cancel(UNKNOWN), NotFoundError);
  assert.match(unknown.message, new RegExp(UNKNOWN));
});

test('a deleted response is gone, running or over', options, async () => {
  for (const request of [ask(), held(5)]) {
    const { id } = await client.responses.create(request);
    if (request.metadata.hold_after === undefined) await poll(id);
    await client.responses.delete(id);
    await rejection(client.responses.retrieve(id), NotFoundError);
    await rejection(client.responses.delete(id), NotFoundError);
    await rejection(client.responses.retrieve(id, { stream: true }), NotFoundError);
  }
  await release();
});

test('input items are paged through in both orders', options, async () => {
  const words = ['one', 'two', 'three', 'four', 'five'];
  const input = words.map((content) => ({ role: 'user', content }));
  const { id } = await client.responses.create(ask('vllm/responses-stream', { input }));
  for (const order of ['asc', 'desc']) {
    for (const limit of [1, 2, 20]) {
      const items = await collect(client.responses.inputItems.list(id, { order, limit }));
      const expected = order === 'asc' ? words : words.toReversed();
      assert.deepEqual(items.map((item) => item.content[0].text), expected);
    }
  }
});

test('turns go on from each other, in background and not', options, async () => {
  const first = await poll((await client.responses.create(ask())).id);
  const second = await poll((await client.responses.create(ask('vllm/responses-stream', { previous_response_id: first.id }))).id);
  assert.equal(second.previous_response_id, first.id);
  const items = await collect(client.responses.inputItems.list(second.id, { order: 'asc' }));
  assert.deepEqual(items.map((item) => item.role), ['user', 'assistant', 'user']);
  const plain = await client.responses.create({ model: 'tiny', input: 'Go on.', previous_response_id: second.id });
  assert.equal(plain.status, 'completed');
});

test('errors are typed and say which parameter', options, async () => {
  const cases = [
    [{ input: undefined }, 'input', 'missing_required_parameter'],
    [{ temperature: 'hot' }, 'temperature', 'invalid_type'],
    [{ store: false }, 'background', 'unsupported_parameter'],
    [{ previous_response_id: UNKNOWN }, 'previous_response_id', 'previous_response_not_found'],
    [{ include: ['nothing'] }, 'include', 'invalid_value'],
  ];
  for (const [wrong, param, code] of cases) {
    const error = await rejection(client.responses.create(ask('vllm/responses-stream', wrong)), BadRequestError);
    assert.deepEqual([error.param, error.code, error.type], [param, code, 'invalid_request_error']);
    assert.match(error.requestID, /^[0-9a-f-]{36}$/);
  }
  const { id } = await client.responses.create(ask());
  const notStreamed = await rejection(client.responses.retrieve(id, { stream: true }), BadRequestError);
  assert.equal(notStreamed.param, 'stream');
});

test('what is not ours passes through', options, async () => {
  assert.ok((await collect(client.models.list())).length > 0);
  const chat = { model: 'tiny', messages: [{ role: 'user', content: 'Hello' }] };
  assert.ok((await client.chat.completions.create(chat)).choices[0].message.content);
  const chunks = await collect(await client.chat.completions.create({ ...chat, stream: true }));
  assert.ok(chunks.length > 1);
  const refused = await rejection(
    client.responses.create({ model: 'tiny', input: 'x', metadata: { recording: 'transformers/responses-unknown-field' } }),
    UnprocessableEntityError,
  );
  assert.equal(refused.status, 422);
});
