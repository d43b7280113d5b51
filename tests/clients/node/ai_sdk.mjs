// The Vercel AI SDK with its default options: tools, streams, a second turn, objects.
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: process.env.BASE_URL, apiKey: "k-1" });
const sky = tool({
  description: "The weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `${city} is wet.`,
});
const common = (model, options) => ({
  model: openai(model),
  tools: { sky },
  stopWhen: stepCountIs(4),
  maxRetries: 0,
  providerOptions: { openai: options },
});

async function show(scenario, play) {
  let result;
  try {
    result = await play();
  } catch (error) {
    result = `${error.name}: ${error.message} ${error.responseBody ?? ""}`.slice(0, 600);
  }
  console.log(JSON.stringify({ scenario, result }));
}

async function twoTurns(model, options) {
  const messages = [{ role: "user", content: "my name is Ada; weather in Oslo?" }];
  const first = await generateText({ ...common(model, options), messages });
  messages.push(...first.response.messages, { role: "user", content: "what is my name?" });
  return (await generateText({ ...common(model, options), messages })).text;
}

async function streamed(model, options) {
  let failed = "";
  const result = streamText({
    ...common(model, options),
    prompt: "weather in both?",
    onError: ({ error }) => (failed = String(error.responseBody ?? error.message)),
  });
  let text = "";
  for await (const piece of result.textStream) text += piece;
  return failed || text;
}

const cases = [["m-1", {}], ["gpt-5", {}], ["m-1", { store: false }], ["gpt-5", { store: false }]];
for (const [model, options] of cases) {
  const name = `${model} ${JSON.stringify(options)}`;
  await show(`tools, ${name}`, async () =>
    (await generateText({ ...common(model, options), prompt: "weather in both?" })).text);
  await show(`two turns, ${name}`, () => twoTurns(model, options));
  await show(`stream, ${name}`, () => streamed(model, options));
}
await show("object", async () => {
  const schema = z.object({ city: z.string(), is_wet: z.boolean() });
  return JSON.stringify((await generateObject({ model: openai("m-1"), schema, prompt: "now", maxRetries: 0 })).object);
});
await show("chained", async () => {
  const first = await generateText({ ...common("m-1", {}), prompt: "my name is Ada" });
  const previousResponseId = first.providerMetadata.openai.responseId;
  return (await generateText({ ...common("m-1", { previousResponseId }), prompt: "what is my name?" })).text;
});
