// What stands above the list: the rail of states, the summary, and a row for each backend.

import { h, moment, number, span } from "./dom.js";
import { spark } from "./chart.js";

const RAIL = [
  ["", "All jobs"], ["live", "Live"], ["queued", "Queued"], ["in_progress", "In progress"],
  ["completed", "Completed"], ["failed", "Failed"], ["incomplete", "Incomplete"], ["cancelled", "Cancelled"],
];

export const RAIL_WORDS = Object.fromEntries(RAIL);

const SLOW_COMMIT_S = 0.1;

const HALTS = { paused: "paused", breaker: "breaker open", rest: "asked for time", hold: "backfill holds", removed: "removed" };
const REASONS = {
  slot: "for a slot", paused: "paused", breaker: "for the breaker", rest: "it asked for time", hold: "backfill",
  retry: "for a retry", caller: "caller's rate limit", share: "caller has its share", removed: "backend removed",
};

export function rail(overview, filters, link) {
  const { states } = overview;
  const all = Object.values(states).reduce((sum, count) => sum + count, 0);
  const counts = { "": all, live: states.queued + states.in_progress, ...states };
  return h("ul", {}, RAIL.map(([state, words]) =>
    h("li", {}, h("a", {
      href: link({ ...filters, state }), "data-act": "state", "data-state": state,
      "aria-current": (filters.state ?? "") === state ? "page" : undefined,
    }, h("span", { class: `dot s-${state || "all"}` }), h("span", {}, words), h("b", {}, number(counts[state]))))));
}

export function health(overview, problem) {
  if (problem) return h("span", { class: "badge bad" }, problem);
  const { store, draining, role, version, commit_s } = overview;
  const isSlow = commit_s > SLOW_COMMIT_S;
  return [
    draining && h("span", { class: "badge warn" }, "draining"),
    h("span", { class: `badge ${store === "ok" ? "ok" : "bad"}`, title: "State of the store" }, `store ${store.replace("_", " ")}`),
    commit_s !== null && h("span", { class: isSlow ? "badge warn" : "dim small", title: "One commit, on average" }, `commits take ${span(commit_s)}`),
    role === "read" && h("span", { class: "badge" }, "read only"),
    h("span", { class: "dim" }, `v${version}`),
    role === "admin" && !draining && h("button", { class: "quiet", "data-act": "drain" }, "Drain…"),
  ];
}

export function summary(overview, filters, link) {
  const tile = (words, value, isBad) => h("div", { class: "tile" }, h("span", { class: "dim" }, words), h("b", { class: isBad ? "warn" : "" }, value));
  const largest = overview.tenants.slice(0, 6);
  const all = overview.waiting + overview.running;
  return [
    tile("Waiting", number(overview.waiting)),
    tile("Running", number(overview.running)),
    tile("Oldest waits", span(overview.oldest_waiting_s), overview.oldest_waiting_s > 300),
    h("div", { class: "tile wide" }, h("span", { class: "dim" }, "Callers with live jobs"),
      largest.length
        ? h("div", { class: "chips" }, largest.map((one) => {
          const count = one.waiting + one.running;
          return h("a", {
            class: "chip", href: link({ ...filters, tenant: one.tenant, state: "live" }), "data-act": "tenant", "data-tenant": one.tenant,
            title: `${one.waiting} waiting, ${one.running} running`,
          }, h("code", {}, one.tenant), ` ${number(count)}`, all > 0 && h("span", { class: "dim" }, ` ${Math.round((100 * count) / all)} %`));
        }))
        : h("b", {}, "none")),
  ];
}

export function backends(overview) {
  const canChange = overview.role === "admin";
  return [
    h("h2", {}, "Backends"),
    h("div", { class: "scroll" }, h("table", { class: "backends stack" },
      h("thead", {}, h("tr", {}, ["Backend", "Slots in use", "Waiting", "State", "Oldest", "Demand", "5 min", "Actions"].map((name) => h("th", { scope: "col", class: ["Oldest", "Demand"].includes(name) ? "num" : undefined }, name)))),
      h("tbody", {}, overview.backends.map((each) => [
        row(each, canChange),
        each.why && h("tr", { "data-key": `${each.name} why`, class: "why" }, h("td", { colspan: 8 }, each.why, h("span", { class: "dim" }, each.paused && ordered(each, "pause")))),
      ])))),
  ];
}

function row(each, canChange) {
  const isLimited = each.slots < each.capacity && !each.halted;
  const whys = Object.entries(each.reasons).map(([reason, count]) => [number(count), REASONS[reason] ?? reason]);
  const reasons = whys.length === 1 ? whys[0][1] : whys.map((why) => why.join(" ")).join(", ");
  const changed = each.slots_per_replica !== each.slots_per_replica_default;
  return h("tr", { "data-key": each.name, class: each.why ? "told" : "" },
    h("th", { scope: "row", "data-label": "Backend" }, each.name, h("div", { class: "dim small" }, each.api === "not known yet" ? "API not known yet" : each.api)),
    h("td", { "data-label": "Slots in use" }, gauge(each.running, each.capacity),
      h("span", { class: "small" }, `${number(each.running)} of ${number(each.capacity)}`,
        isLimited && h("span", { class: "dim", title: "What plain requests and backfill leave at this moment" }, ` (${number(Math.max(0, each.slots))} open now)`),
        changed && h("span", { class: "badge warn", title: `The settings say ${each.slots_per_replica_default}${ordered(each, "slots")}` }, "changed"))),
    h("td", { "data-label": "Waiting" }, h("b", {}, number(each.waiting)), reasons && h("span", { class: "dim small" }, ` ${reasons}`)),
    h("td", { "data-label": "State" }, state(each)),
    h("td", { "data-label": "Oldest", class: "num" }, span(each.oldest_waiting_s)),
    h("td", { "data-label": "Demand", class: "num" }, number(each.demand)),
    h("td", { "data-label": "5 min" }, spark(each)),
    h("td", { "data-label": "Actions", class: "actions" }, canChange
      ? [
        h("button", { "data-act": each.paused ? "resume" : "pause", "data-backend": each.name }, each.paused ? "Resume" : "Pause"),
        h("button", { "data-act": "slots", "data-backend": each.name, "data-now": each.slots_per_replica, "data-default": each.slots_per_replica_default }, "Slots…"),
      ]
      : h("span", { class: "dim" }, "–")));
}

function ordered(each, doing) {
  const order = each.orders.find((one) => one.doing === doing);
  return order ? `; ordered ${new Date(order.since_ms).toLocaleString()}${order.by ? ` from ${order.by}` : ""}` : "";
}

function state(each) {
  const sick = each.replicas.filter((replica) => !replica.healthy);
  const badges = [];
  if (each.halted) badges.push(h("span", { class: `badge ${each.halted === "breaker" ? "bad" : "warn"}` }, HALTS[each.halted] ?? each.halted));
  if (sick.length) {
    const checks = [...new Set(sick.map((replica) => (replica.check === "ok" ? `breaker ${replica.breaker}` : replica.check.replace("_", " "))))].join(", ");
    badges.push(h("span", { class: "badge bad" }, each.replicas.length > 1 ? `${sick.length} of ${each.replicas.length} replicas: ${checks}` : checks));
  }
  return badges.length ? badges : h("span", { class: "badge ok" }, each.replicas.length > 1 ? `${each.replicas.length} replicas up` : "up");
}

function gauge(used, of) {
  const part = of ? Math.min(1, used / of) : 0;
  return h("svg", { viewBox: "0 0 100 8", class: "gauge", role: "img", "aria-label": `${used} of ${of} slots in use`, preserveAspectRatio: "none" },
    h("rect", { width: 100, height: 8, rx: 2, class: "track" }),
    h("rect", { width: (100 * part).toFixed(1), height: 8, rx: 2, class: part >= 1 ? "full" : "used" }));
}

export function webhooks(found, canChange, now) {
  // Of what still waits a failure is known also after a restart, though not when it was.
  const failed = (each) => each.failure ?? found.failing.find((event) => event.endpoint === each.name)?.failure;
  return [
    h("h2", {}, "Webhooks"),
    h("div", { class: "scroll" }, h("table", { class: "stack" },
      h("thead", {}, h("tr", {}, ["Endpoint", "State", "Waiting", "Oldest", "Last failure", "Actions"].map((name) => h("th", { scope: "col", class: ["Waiting", "Oldest"].includes(name) ? "num" : undefined }, name)))),
      h("tbody", {}, found.endpoints.map((each) => {
        const isOff = each.disabled_for_s !== null;
        const words = isOff ? `disabled for ${span(each.disabled_for_s)}` : each.down ? `down for ${span(each.down_for_s)}` : "up";
        return h("tr", { "data-key": each.name },
          h("th", { scope: "row", "data-label": "Endpoint" }, each.name),
          h("td", { "data-label": "State" }, h("span", { class: `badge ${isOff || each.down ? "bad" : "ok"}` }, words)),
          h("td", { "data-label": "Waiting", class: "num" }, number(each.waiting)),
          h("td", { "data-label": "Oldest", class: "num" }, each.waiting ? span(each.oldest_s) : "–"),
          h("td", { "data-label": "Last failure" }, failed(each) ? reason(failed(each)) : "–",
            each.failed_at_ms && h("span", { class: "dim small", title: moment(each.failed_at_ms) }, ` ${span((now - each.failed_at_ms) / 1000)} ago`)),
          h("td", { "data-label": "Actions", class: "actions" }, isOff && canChange ? h("button", { "data-act": "enable", "data-endpoint": each.name }, "Enable") : h("span", { class: "dim" }, "–")));
      })))),
  ];
}

/** Why an attempt failed: `http_503` is HTTP 503. */
export const reason = (word) => word.replace(/^http_/, "HTTP ").replaceAll("_", " ");
