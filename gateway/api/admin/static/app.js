// The page as a whole: what it knows, when it looks, and what happens at a click or a key.

import * as actions from "./actions.js";
import { ApiError, look, token } from "./api.js";
import { chart } from "./chart.js";
import * as content from "./content.js";
import { ask, isOpen } from "./dialogs.js";
import { copy, h, say, show } from "./dom.js";
import { bulk, filters, FILTERS, FITS, list, RANKED } from "./list.js";
import * as above from "./overview.js";
import { panel } from "./panel.js";

const HISTORY_S = 10;
const PAGE = 50;
const SHOWN_MAX = 200;
const RATES = [2, 5, 10, 30, 60];
const TYPING_MS = 300;
const COST = 20; // a list that took long is asked for again only after so many times as long

const at = (id) => document.getElementById(id);
const state = {
  overview: null, hour: null, jobs: [], next: null, now_ms: Date.now(), isLoaded: false, selected: new Set(),
  filters: {}, open: null, job: null, sort: "", tab: "text", chart: { what: "created", by: "" }, problem: null,
};
let timer = null;
let listAfter = 0;
let historyAfter = 0;
let round = 0;

// -- the URL holds what is looked at: a link can be sent to somebody else

function readUrl() {
  const query = new URLSearchParams(location.search);
  state.filters = Object.fromEntries([...FILTERS, "order"].map((name) => [name, query.get(name) ?? ""]));
  state.open = query.get("job");
  state.sort = query.get("sort") ?? "";
  state.chart = { what: query.get("chart") || "created", by: query.get("by") ?? "" };
  at("what").value = state.chart.what;
  at("by").value = state.chart.by;
}

function link(wanted) {
  const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
  return query.size ? `?${query}` : location.pathname;
}

function here() {
  const { what, by } = state.chart;
  return link({ ...state.filters, job: state.open, sort: state.sort, chart: what === "created" ? "" : what, by });
}

function go({ replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", here());
  draw();
}

// -- looking

async function tick() {
  clearTimeout(timer);
  if (document.hidden) return;
  const mine = ++round;
  try {
    const overview = await look("overview");
    if (mine !== round) return;
    if (!state.overview) rates(overview.refresh_s);
    state.overview = overview;
    state.now_ms = overview.now_ms;
    health(null);
    const wanted = [];
    if (performance.now() >= listAfter) wanted.push(load());
    if (performance.now() >= historyAfter) wanted.push(hour());
    if (state.open) wanted.push(one());
    await Promise.all(wanted);
    draw();
  } catch (error) {
    if (mine === round) await failed(error);
  }
  if (mine === round && at("live").checked) timer = setTimeout(tick, 1000 * Number(at("refresh").value || 2));
}

async function load() {
  const began = performance.now();
  const asked = here();
  const limit = Math.min(SHOWN_MAX, Math.max(PAGE, state.jobs.length));
  try {
    const found = await look("jobs", { ...state.filters, limit });
    if (asked !== here()) return;
    Object.assign(state, { jobs: found.jobs, next: found.next, now_ms: found.now_ms, isLoaded: true, problem: null });
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 400) throw error;
    Object.assign(state, { jobs: [], next: null, isLoaded: true, problem: error.message });
  }
  const took = performance.now() - began;
  listAfter = took > 100 ? performance.now() + COST * took : 0;
}

async function more() {
  const found = await look("jobs", { ...state.filters, limit: PAGE, cursor: state.next });
  const known = new Set(state.jobs.map((job) => job.id));
  state.jobs = [...state.jobs, ...found.jobs.filter((job) => !known.has(job.id))];
  state.next = found.next;
  if (state.jobs.length > SHOWN_MAX || !found.jobs.length) listAfter = Infinity; // what was looked for stays
  draw();
}

async function hour() {
  historyAfter = performance.now() + HISTORY_S * 1000;
  const { backend, model, tenant } = state.filters;
  const only = { backend, model, tenant: /^[0-9a-f]*$/.test(tenant) ? tenant : "" };
  const [found, hooks] = await Promise.all([look("history", { ...state.chart, ...only }), look("webhooks")]);
  state.hour = found;
  at("webhooks").hidden = !hooks.endpoints.some((each) => each.waiting || each.down || each.disabled_for_s !== null || each.failure);
  show(at("webhooks"), above.webhooks(hooks, state.overview.role === "admin", state.now_ms));
}

async function one() {
  const id = state.open;
  try {
    const job = await look(`jobs/${encodeURIComponent(id)}`);
    if (id === state.open) state.job = job;
  } catch (error) {
    if (error.status !== 404) throw error;
    say("There is no such job (any more).", true);
    close();
  }
}

async function failed(error) {
  if (error.status === 401) {
    token.set(null);
    health("a token is wanted");
    const given = await ask("Sign in", [
      h("p", {}, "This gateway wants the admin token, or the token of those who may look."),
      h("label", {}, "Token ", h("input", { type: "password", name: "token", autocomplete: "off", required: true })),
    ], { confirm: "Sign in" });
    if (given?.token) {
      token.set(given.token.trim());
      setTimeout(tick);
    }
    return;
  }
  health(error instanceof ApiError ? error.message : "the gateway does not answer");
}

function health(problem) {
  show(at("health"), state.overview ? above.health(state.overview, problem) : h("span", { class: problem ? "badge bad" : "dim" }, problem ?? "looking…"));
}

// -- drawing

function draw() {
  const { overview } = state;
  if (!overview) return;
  show(at("rail"), above.rail(overview, state.filters, link));
  show(at("summary"), above.summary(overview, state.filters, link));
  show(at("backends"), above.backends(overview));
  const known = {
    model: [...new Set([...overview.models, ...state.jobs.map((job) => job.model)])].filter(Boolean).sort(),
    backend: overview.backends.map((each) => each.name),
    tenant: overview.tenants.map((each) => each.tenant),
    error: [...new Set(state.jobs.map((job) => job.error).filter(Boolean))].sort(),
  };
  show(at("filters"), filters(state.filters, known));
  show(at("bulk"), bulk(state));
  show(at("list"), list(state, link));
  const place = at("panel");
  place.hidden = !state.open;
  document.body.classList.toggle("has-panel", Boolean(state.open));
  if (!state.open) content.stop();
  else if (state.job?.id === state.open) {
    show(place, panel(state.job, state, link));
    if (at("content")) content.fill(at("content"), state.open, state.tab);
  } else show(place, h("p", { class: "empty" }, "Looking…"));
  if (state.hour) show(at("chart"), chart(state.hour, at("chart").clientWidth)); // now the panel has its place
  document.title = overview.waiting ? `(${overview.waiting}) Backburner` : "Backburner";
}

function refilter() {
  Object.assign(state, { jobs: [], next: null, isLoaded: false });
  state.selected.clear();
  listAfter = historyAfter = 0;
}

function open(id) {
  if (state.open !== id) content.stop();
  Object.assign(state, { open: id, job: null });
  go();
  at("panel").focus({ preventScroll: true });
  one().then(draw, failed);
}

function close() {
  const id = state.open;
  Object.assign(state, { open: null, job: null });
  go();
  document.querySelector(`tr[data-id="${CSS.escape(id ?? "")}"] a`)?.focus();
}

// Only jobs in progress are sorted by what they have done.
function reorder(order) {
  Object.assign(state.filters, { order }, RANKED.has(order) ? { state: "in_progress" } : {});
  state.sort = "";
}

function unrank() {
  if (RANKED.has(state.filters.order) && state.filters.state !== "in_progress") state.filters.order = "";
}

// -- doing

const matching = () => Object.fromEntries(FILTERS.filter((name) => state.filters[name]).map((name) => [name, state.filters[name]]));

const DOES = {
  state: ({ state: value }) => { state.filters.state = value; unrank(); refilter(); go(); tick(); },
  tenant: ({ tenant }) => { Object.assign(state.filters, { tenant, state: "live" }); unrank(); refilter(); go(); tick(); },
  clear: () => { for (const name of FILTERS) state.filters[name] = ""; unrank(); refilter(); go(); tick(); },
  open: ({ id }) => open(id),
  close,
  more,
  copy: ({ text }) => copy(text),
  sort: ({ by }) => { state.sort = by; go({ replace: true }); },
  order: ({ order }) => { reorder(order); refilter(); go({ replace: true }); tick(); },
  drain: actions.drain,
  tab: ({ tab }) => { state.tab = tab; draw(); at(`tab-${tab}`)?.focus(); },
  pause: ({ backend }) => actions.pause(backend, true),
  resume: ({ backend }) => actions.pause(backend, false),
  slots: ({ backend, now, default: standard }) => actions.slots(backend, now, standard),
  enable: ({ endpoint }) => actions.enable(endpoint),
  cancel: ({ id }) => actions.cancel(id),
  resend: ({ id }) => actions.resend(id),
  rerun: async ({ id }) => { const made = await actions.rerun(id); if (made) open(made); },
  delete: async ({ id }) => { if (await actions.remove(id)) close(); },
  move: ({ id }) => actions.move(id),
  "many-selected": async ({ doing }) => {
    await actions.many(doing, { ids: state.jobs.filter((job) => state.selected.has(job.id) && FITS[doing](job)).map((job) => job.id) });
    state.selected.clear();
  },
  "many-matching": ({ doing }) => actions.many(doing, { filter: matching() }),
};
const LOOKS = new Set(["state", "tenant", "clear", "open", "close", "more", "copy", "tab", "sort", "order"]);

async function does(name, data) {
  try {
    await DOES[name](data);
    if (!LOOKS.has(name)) {
      historyAfter = 0;
      await tick();
    }
  } catch (error) {
    if (error instanceof ApiError && error.status !== 401) say(error.message, true);
    else await failed(error);
  }
}

document.addEventListener("click", (event) => {
  if (event.target.closest("input, select, label, summary") && !event.target.closest("[data-act]:not(tr)")) return;
  const element = event.target.closest("[data-act]");
  if (!element || element.disabled || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (element.nodeName === "TR" && String(getSelection())) return; // text is being copied
  event.preventDefault();
  does(element.dataset.act, element.dataset);
});

document.addEventListener("change", ({ target }) => {
  switch (target.dataset.change) {
    case "select":
      state.selected[target.checked ? "add" : "delete"](target.dataset.id);
      return draw();
    case "select-all":
      for (const job of state.jobs) state.selected[target.checked ? "add" : "delete"](job.id);
      return draw();
    case "filter":
      return typed(target);
  }
  switch (target.id) {
    case "what": case "by":
      state.chart = { what: at("what").value, by: at("by").value };
      historyAfter = 0;
      go({ replace: true });
      return tick();
    case "live": case "refresh":
      return tick();
    case "theme":
      localStorage.setItem("backburner-theme", target.value);
      return theme();
  }
});

let typing = null;
document.addEventListener("input", ({ target }) => {
  if (target.dataset.change !== "filter" || target.nodeName !== "INPUT") return;
  clearTimeout(typing);
  typing = setTimeout(() => typed(target), TYPING_MS);
});

function typed(field) {
  clearTimeout(typing);
  if ((state.filters[field.name] ?? "") === field.value.trim()) return;
  if (field.name === "order") reorder(field.value);
  else state.filters[field.name] = field.value.trim();
  refilter();
  go({ replace: true });
  tick();
}

document.addEventListener("submit", (event) => {
  if (event.target.id === "filters") event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (isOpen() || event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape" && state.open && !isTyping) return close();
  if (event.target.role === "tab" && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    const tabs = [...event.target.parentElement.children];
    const next = tabs.at((tabs.indexOf(event.target) + (event.key === "ArrowRight" ? 1 : -1)) % tabs.length);
    return does("tab", next.dataset);
  }
  if (isTyping) return;
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("#filters [name=id]").focus();
  } else if (event.key === "j" || event.key === "k") {
    const links = [...document.querySelectorAll("#list tbody a")];
    const now = links.indexOf(document.activeElement);
    links.at(Math.max(0, Math.min(links.length - 1, now + (event.key === "j" ? 1 : -1))))?.focus();
  }
});

// -- the beginning

function rates(preferred) {
  const all = [...new Set([...RATES, preferred])].sort((a, b) => a - b);
  at("refresh").replaceChildren(...all.map((seconds) => h("option", { value: seconds, selected: seconds === preferred }, `${seconds} s`)));
}

function theme() {
  const chosen = localStorage.getItem("backburner-theme") ?? "";
  at("theme").value = chosen;
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}

document.addEventListener("visibilitychange", () => { if (!document.hidden && at("live").checked) tick(); });
addEventListener("resize", draw);
addEventListener("popstate", () => { content.stop(); readUrl(); refilter(); state.job = null; tick(); });
theme();
readUrl();
health(null);
tick();
