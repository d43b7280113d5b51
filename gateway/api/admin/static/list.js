// The list of jobs: filters that live in the URL, rows, selection.

import { h, number, span } from "./dom.js";
import { RAIL_WORDS } from "./overview.js";

export const FILTERS = ["state", "id", "model", "backend", "tenant", "error", "older", "newer"];

const FIELDS = [
  ["id", "Id begins with", "resp_…", 14], ["model", "Model", "any", 12], ["backend", "Backend", "any", 10],
  ["tenant", "Tenant", "hex digits", 9], ["error", "Error code", "any", 12], ["older", "Older than", "5m", 5], ["newer", "Newer than", "1h", 5],
];

const took = (job, now) => (job.started_at_ms || job.finished_at_ms ? ((job.finished_at_ms ?? now) - (job.started_at_ms ?? job.created_at_ms)) / 1000 : null);

// Some columns sort what is shown: by a number, the largest first. The order of all jobs is the server's.
const COLUMNS = [
  ["Job"], ["State"], ["Model"], ["Backend", "opt"], ["Tenant", "opt"],
  ["Age", "num", (job, now) => now - job.created_at_ms], ["Took", "num opt", took],
  ["Events", "num", (job) => job.event_count], ["/s", "num opt", (job) => job.events_per_s], ["Try", "num opt", (job) => job.attempt],
];

function sorted(jobs, by, now) {
  const value = COLUMNS.find(([name]) => name === by)?.[2];
  return value ? [...jobs].sort((a, b) => (value(b, now) ?? -1) - (value(a, now) ?? -1)) : jobs;
}

function heading([name, kind, value], by) {
  const isOn = name === by;
  return h("th", { scope: "col", class: kind, "aria-sort": isOn ? "descending" : undefined },
    value ? h("button", { class: "sort", "data-act": "sort", "data-by": isOn ? "" : name, title: `Sort those that are shown by ${name}` }, name, isOn ? " ↓" : "") : name);
}

const WAITS = {
  slot: "a slot", next: "its turn", paused: "paused", breaker: "breaker", rest: "backend's rest", backfill: "backfill",
  retry: "retry", retry_after: "Retry-After", share: "its share", caller: "rate limit", removed: "removed", store: "the store", draining: "restart",
};

export function filters(now, known) {
  return [
    FIELDS.map(([name, words, hint, size]) => h("label", {}, h("span", {}, words),
      h("input", { name, value: now[name] ?? "", placeholder: hint, size, list: known[name] ? `known-${name}` : undefined, autocomplete: "off", spellcheck: "false", "data-change": "filter" }),
      known[name] && h("datalist", { id: `known-${name}` }, known[name].map((value) => h("option", { value }))))),
    h("label", {}, h("span", {}, "Order"), h("select", { name: "order", "data-change": "filter" },
      h("option", { value: "newest", selected: now.order !== "oldest" }, "newest first"),
      h("option", { value: "oldest", selected: now.order === "oldest" }, "oldest first"))),
    h("button", { type: "button", "data-act": "clear", disabled: !FILTERS.some((name) => now[name]) }, "Clear"),
  ];
}

export function bulk(state) {
  const { selected, jobs, overview, filters: now } = state;
  const chosen = jobs.filter((job) => selected.has(job.id));
  const over = chosen.filter((job) => job.finished_at_ms).length;
  const live = chosen.length - over;
  const canChange = overview?.role === "admin";
  const isFiltered = FILTERS.some((name) => now[name]);
  return [
    h("h2", {}, RAIL_WORDS[now.state ?? ""] ?? "Jobs"),
    h("span", { class: "dim" }, jobs.length ? `${number(jobs.length)}${state.next ? "+" : ""} shown` : ""),
    state.problem && h("span", { class: "badge bad", role: "alert" }, state.problem),
    h("span", { class: "grow" }),
    canChange && h("button", { "data-act": "rerun-selected", disabled: !over }, over ? `Run ${number(over)} selected again…` : "Run selected again…"),
    canChange && isFiltered && h("button", { "data-act": "rerun-matching" }, "Run all that match again…"),
    canChange && h("button", { "data-act": "cancel-selected", disabled: !live, class: "danger" }, live ? `Cancel ${number(live)} selected…` : "Cancel selected…"),
    canChange && h("button", { "data-act": "cancel-matching", class: "danger" }, isFiltered ? "Cancel all that match…" : "Cancel all live jobs…"),
  ];
}

export function list(state, link) {
  const { jobs, next, isLoaded, open, overview } = state;
  if (!isLoaded) return h("p", { class: "empty" }, "Looking…");
  if (!jobs.length && !next) {
    const isFiltered = FILTERS.some((name) => state.filters[name]);
    return h("p", { class: "empty" }, isFiltered ? "No job matches these filters." : "There are no jobs. Send one with \"background\": true, and it appears here.");
  }
  const canChange = overview?.role === "admin";
  const isAll = jobs.length > 0 && jobs.every((job) => state.selected.has(job.id));
  return [
    h("div", { class: "scroll" }, h("table", { class: "jobs stack" },
      h("thead", {}, h("tr", {},
        canChange && h("th", { scope: "col" }, h("input", { type: "checkbox", "data-change": "select-all", checked: isAll, "aria-label": "Select all that are shown" })),
        COLUMNS.map((column) => heading(column, state.sort)))),
      h("tbody", {}, sorted(jobs, state.sort, state.now_ms).map((job) => row(job, state, link, canChange, open === job.id))))),
    h("div", { class: "bar more" }, next
      ? h("button", { "data-act": "more" }, jobs.length ? "Show more" : "Look further: the newest 10,000 have none")
      : h("span", { class: "dim" }, "That is all.")),
  ];
}

function row(job, state, link, canChange, isOpen) {
  const now = state.now_ms;
  return h("tr", { "data-key": job.id, "data-act": "open", "data-id": job.id, class: isOpen ? "open" : "" },
    canChange && h("td", { class: "pick" }, h("input", { type: "checkbox", "data-change": "select", "data-id": job.id, checked: state.selected.has(job.id), "aria-label": `Select ${job.id}` })),
    h("td", { "data-label": "Job" }, h("a", { href: link({ ...state.filters, job: job.id }), "data-act": "open", "data-id": job.id, title: job.id, "aria-current": isOpen ? "true" : undefined }, h("code", {}, short(job.id)))),
    h("td", { "data-label": "State" }, status(job)),
    h("td", { "data-label": "Model", class: "cut", title: job.model }, job.model ?? "–"),
    h("td", { "data-label": "Backend", class: "opt" }, job.backend),
    h("td", { "data-label": "Tenant", class: "opt" }, h("code", {}, job.tenant), job.tier !== "default" && h("span", { class: "dim small" }, ` ${job.tier}`)),
    h("td", { "data-label": "Age", class: "num" }, span((now - job.created_at_ms) / 1000)),
    h("td", { "data-label": "Took", class: "num opt" }, span(took(job, now))),
    h("td", { "data-label": "Events", class: "num" }, number(job.event_count)),
    h("td", { "data-label": "Events/s", class: "num opt" }, job.events_per_s ?? "–"),
    h("td", { "data-label": "Try", class: "num opt" }, job.attempt || "–"));
}

export function status(job) {
  const words = job.status.replace("_", " ");
  const more = job.error ?? (job.waits_for ? `waits: ${WAITS[job.waits_for] ?? job.waits_for}` : job.silent_s > 10 ? `silent ${span(job.silent_s)}` : null);
  return [h("span", { class: `badge s-${job.status}` }, words), more && h("span", { class: "dim small" }, ` ${more}`)];
}

const short = (id) => (id.length > 20 ? `${id.slice(0, 13)}…${id.slice(-4)}` : id);
