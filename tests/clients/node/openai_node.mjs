// The official Node client: its stream helper, structured output, background mode with a stream that is taken up again.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "k-1", maxRetries: 0 });
const sky = {
  type: "function",
  name: "sky",
  strict: true,
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};

async function show(scenario, play) {
  let result;
  try {
    result = await play();
  } catch (error) {
    result = `${error.name}: ${error.message}`.slice(0, 600);
  }
  console.log(JSON.stringify({ scenario, result }));
}

async function ended(response) {
  while (["queued", "in_progress"].includes(response.status)) {
    await new Promise((wake) => setTimeout(wake, 50));
    response = await client.responses.retrieve(response.id);
  }
  return response;
}

async function toolLoop(more) {
  const input = [{ role: "user", content: "weather in both?" }];
  for (let round = 0; round < 3; round++) {
    const response = await ended(await client.responses.create({ model: "m-1", input, tools: [sky], ...more }));
    const calls = response.output.filter((item) => item.type === "function_call");
    if (!calls.length) return response.output_text;
    input.push(...response.output);
    for (const call of calls)
      input.push({
        type: "function_call_output",
        call_id: call.call_id,
        output: `${JSON.parse(call.arguments).city} is wet.`,
      });
  }
  return "no end";
}

await show("tool loop", () => toolLoop({}));
await show("tool loop, background", () => toolLoop({ background: true }));
await show("stream helper", async () => {
  const stream = client.responses.stream({ model: "m-1", input: "weather in Oslo?", tools: [sky] });
  for await (const _ of stream);
  return (await stream.finalResponse()).output.map((item) => item.type).join();
});
await show("parse", async () => {
  const format = {
    type: "json_schema",
    name: "weather",
    strict: true,
    schema: {
      type: "object",
      properties: { city: { type: "string" }, is_wet: { type: "boolean" } },
      required: ["city", "is_wet"],
      additionalProperties: false,
    },
  };
  return JSON.stringify((await client.responses.parse({ model: "m-1", input: "now", text: { format } })).output_parsed ?? null);
});
await show("resumed", async () => {
  const stream = await client.responses.create({ model: "m-1", input: "hello", background: true, stream: true });
  const seen = [];
  let id;
  for await (const event of stream) {
    seen.push(event.sequence_number);
    if (event.response) id = event.response.id;
    if (seen.length === 3) break;
  }
  for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: seen.at(-1) }))
    seen.push(event.sequence_number);
  const whole = await client.responses.retrieve(id);
  return `${seen.every((number, place) => number === place)} ${whole.status} ${whole.output_text}`;
});
