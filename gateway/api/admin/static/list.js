// The list of jobs: filters that live in the URL, rows, selection.

import { h, number, span } from "./dom.js";
import { RAIL_WORDS } from "./overview.js";

export const FILTERS = ["state", "id", "model", "backend", "tenant", "error", "older", "newer"];

const FIELDS = [
  ["id", "Id begins with", "resp_…", 14], ["model", "Model", "any", 12], ["backend", "Backend", "any", 10],
  ["tenant", "Tenant", "hex digits", 9], ["error", "Error code", "any", 12], ["older", "Older than", "5m", 5], ["newer", "Newer than", "1h", 5],
];

const took = (job, now) => (job.started_at_ms || job.finished_at_ms ? ((job.finished_at_ms ?? now) - (job.started_at_ms ?? job.created_at_ms)) / 1000 : null);

// Orders of the server's that are of jobs in progress only.
export const RANKED = new Set(["events", "speed"]);

// To which jobs something can be done.
export const FITS = {
  cancel: (job) => !job.finished_at_ms, tier: (job) => job.status === "queued", rerun: (job) => job.finished_at_ms, delete: (job) => job.finished_at_ms,
};

// Lists in which it can be done to none.
const [ENDED, LIVE] = [["completed", "failed", "incomplete", "cancelled"], ["live", "queued", "in_progress"]];
const CANNOT = { cancel: ENDED, tier: [...ENDED, "in_progress"], rerun: LIVE, delete: LIVE };

// Some columns are orders of all jobs, which the server keeps; others sort those that are shown, the largest first.
const COLUMNS = [
  ["Job"], ["State"], ["Model"], ["Backend", "opt"], ["Tenant", "opt"],
  ["Age", "num"], ["Took", "num opt few", took], ["Events", "num"], ["/s", "num opt"], ["Try", "num opt few", (job) => job.attempt],
];

const ORDERS = {
  Age: (now) => (now === "oldest" ? ["newest", "descending", "Sort all jobs: the newest first"] : ["oldest", now && now !== "newest" ? undefined : "ascending", "Sort all jobs: the oldest first"]),
  Events: (now) => (now === "events" ? ["newest", "descending", "Back to the newest first"] : ["events", undefined, "Sort all jobs in progress: the most events first"]),
  "/s": (now) => (now === "speed" ? ["newest", "descending", "Back to the newest first"] : ["speed", undefined, "Sort all jobs in progress: the fastest first"]),
};
const ARROWS = { ascending: " ↑", descending: " ↓" };

function sorted(jobs, by, now) {
  const value = COLUMNS.find(([name]) => name === by)?.[2];
  return value ? [...jobs].sort((a, b) => (value(b, now) ?? -1) - (value(a, now) ?? -1)) : jobs;
}

function heading([name, kind, value], { sort: by, filters: { order } }) {
  if (ORDERS[name]) {
    const [next, way, title] = ORDERS[name](order);
    const isOn = !by && way;
    return h("th", { scope: "col", class: kind, "aria-sort": isOn ? way : undefined },
      h("button", { class: "sort", "data-act": "order", "data-order": next, title }, name, isOn ? ARROWS[way] : ""));
  }
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
      known[name] && h("datalist", { id: `known-${name}` }, known[name].map((value) => h("option", { value, label: value }))))),
    h("label", {}, h("span", {}, "Order"), h("select", { name: "order", "data-change": "filter" },
      [["newest", "newest first"], ["oldest", "oldest first"], ["events", "most events"], ["speed", "fastest"]]
        .map(([value, words]) => h("option", { value, selected: (now.order || "newest") === value }, words)))),
    h("button", { type: "button", "data-act": "clear", disabled: !FILTERS.some((name) => now[name]) }, "Clear"),
  ];
}

export function bulk(state) {
  const { selected, jobs, overview, filters: now } = state;
  const chosen = jobs.filter((job) => selected.has(job.id));
  const canChange = overview?.role === "admin";
  const isFiltered = FILTERS.some((name) => now[name]);
  const button = (doing, before, after = "") => {
    const isBad = doing === "cancel" || doing === "delete" ? "danger" : undefined;
    if (chosen.length) {
      const count = chosen.filter(FITS[doing]).length;
      return count > 0 && h("button", { "data-act": "many-selected", "data-doing": doing, class: isBad }, `${before} ${number(count)} selected${after}…`);
    }
    if (CANNOT[doing].includes(now.state)) return null;
    const words = doing === "cancel" && !isFiltered ? "all live jobs" : "all that match";
    return (isFiltered || doing === "cancel") && h("button", { "data-act": "many-matching", "data-doing": doing, class: isBad }, `${before} ${words}${after}…`);
  };
  return [
    h("h2", {}, RAIL_WORDS[now.state ?? ""] ?? "Jobs"),
    h("span", { class: "dim" }, jobs.length ? `${number(jobs.length)}${state.next ? "+" : ""} shown` : ""),
    state.problem && h("span", { class: "badge bad", role: "alert" }, state.problem),
    h("span", { class: "grow" }),
    canChange && [button("rerun", "Run", " again"), button("tier", "Move"), button("delete", "Delete"), button("cancel", "Cancel")],
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
        COLUMNS.map((column) => heading(column, state)))),
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
    h("td", { "data-label": "State", class: "state" }, status(job)),
    h("td", { "data-label": "Model", class: "cut", title: job.model }, h("bdi", {}, job.model ?? "–")),
    h("td", { "data-label": "Backend", class: "opt" }, job.backend),
    h("td", { "data-label": "Tenant", class: "opt" }, h("code", {}, job.tenant), job.tier !== "default" && h("span", { class: "dim small" }, ` ${job.tier}`)),
    h("td", { "data-label": "Age", class: "num" }, span((now - job.created_at_ms) / 1000)),
    h("td", { "data-label": "Took", class: "num opt few" }, span(took(job, now))),
    h("td", { "data-label": "Events", class: "num" }, number(job.event_count)),
    h("td", { "data-label": "Events/s", class: "num opt" }, job.events_per_s ?? "–"),
    h("td", { "data-label": "Try", class: "num opt few" }, job.attempt || "–"));
}

export function status(job) {
  const words = job.status.replace("_", " ");
  const more = job.error ?? (job.waits_for ? `waits: ${WAITS[job.waits_for] ?? job.waits_for}` : job.silent_s > 10 ? `silent ${span(job.silent_s)}` : null);
  return [h("span", { class: `badge s-${job.status}` }, words), more && h("span", { class: "dim small" }, ` ${more}`)];
}

const short = (id) => (id.length > 20 ? `${id.slice(0, 13)}…${id.slice(-4)}` : id);
