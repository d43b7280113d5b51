// The unmodified official Node client reads what a chat answer may hold, while it is made and again after its end.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

const { GATEWAY_URL, TYPES, TEXTS } = process.env;
const client = new OpenAI({ baseURL: GATEWAY_URL, apiKey: 'sk-node', maxRetries: 0, timeout: 20_000 });
const ask = { model: 'tiny', input: 'How is the sea?' };

for (const background of [false, true]) {
  test(`a stream, background: ${background}`, { timeout: 30_000 }, async () => {
    const stream = client.responses.stream({ ...ask, background });
    const final = await stream.finalResponse();
    assert.deepEqual(final.output.map((item) => item.type), JSON.parse(TYPES));
    assert.equal(final.output_text, JSON.parse(TEXTS).join(''));
    assert.equal(final.output[1].content[0].annotations[0].type, 'url_citation');
    assert.equal(final.usage.total_tokens, 10);
    if (background) {
      const again = await client.responses.stream({ response_id: final.id }).finalResponse();
      assert.deepEqual(again, final);
    }
  });
}
