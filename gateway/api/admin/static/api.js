// Calls of the admin API, relative to where the page is: it may be anywhere behind a proxy.

const BASE = new URL("../api/v1/", location.href.split(/[?#]/)[0]);
const TOKEN = "backburner-admin-token";

export class ApiError extends Error {
  constructor(status, error) {
    super(error?.message ?? `the gateway answered ${status}`);
    this.status = status;
    this.code = error?.code;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => (value ? sessionStorage.setItem(TOKEN, value) : sessionStorage.removeItem(TOKEN)),
};

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  const answer = await fetch(new URL(path, BASE), { ...options, headers, cache: "no-store" });
  if (answer.ok) return answer;
  let error = null;
  try {
    error = (await answer.json()).error;
  } catch { /* not ours: a proxy's page */ }
  throw new ApiError(answer.status, error);
}

export async function look(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const text = new URLSearchParams(given).toString();
  return (await call(text ? `${path}?${text}` : path)).json();
}

export async function act(path, body = {}) {
  const headers = { "Content-Type": "application/json", "X-Backburner-Action": "1" };
  return (await call(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

export const text = async (path) => (await call(path)).text();

/** The events of a job as they come: `{name, data}`, until the end or until the signal. */
export async function* events(id, signal) {
  const answer = await call(`jobs/${encodeURIComponent(id)}/events`, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const name = /^event: (.*)$/m.exec(frame)?.[1];
      const data = /^data: (.*)$/m.exec(frame)?.[1];
      if (data !== undefined) yield { name, data };
    }
  }
}
