// What receivers of webhooks were sent, as the unmodified official Node client takes it.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

const deliveries = JSON.parse(process.env.DELIVERIES);
const secrets = JSON.parse(process.env.SECRETS);
const client = new OpenAI({ baseURL: 'http://unused.invalid', apiKey: 'none' });
const unwrap = ({ body, headers }, secret) => client.webhooks.unwrap(body, headers, secret);

const EXPECTED = ['response.completed', 'response.incomplete', 'response.failed', 'response.cancelled'];

for (const [number, type] of EXPECTED.entries()) {
  test(`${type} is unwrapped with either secret`, async () => {
    for (const secret of secrets) {
      const event = await unwrap(deliveries[number], secret);
      assert.equal(event.type, type);
      assert.equal(event.object, 'event');
      assert.match(event.id, /^evt_[0-9a-f]{48}$/);
      assert.match(event.data.id, /^resp_[0-9a-f]{48}$/);
      assert.ok(Math.abs(event.created_at - Date.now() / 1000) < 300);
    }
  });
}

test('another secret, another body and another id are refused', async () => {
  const other = `whsec_${Buffer.alloc(32, 9).toString('base64')}`;
  const [first, second] = deliveries;
  await assert.rejects(unwrap(first, other));
  await assert.rejects(unwrap({ ...first, body: second.body }, secrets[0]));
  await assert.rejects(
    unwrap({ ...first, headers: { ...first.headers, 'webhook-id': second.headers['webhook-id'] } }, secrets[0]),
  );
});
