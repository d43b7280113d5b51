// One job: what happened to it, why it waits, what if the gateway dies now; and its content, where that is shown.

import { bytes, h, moment, number, span } from "./dom.js";
import { status } from "./list.js";
import { reason } from "./overview.js";

const STEPS = {
  queued: "queued", in_progress: "in progress", called: "backend called", answered: "backend answers", waiting: "waits to run again", silent: "the backend is silent",
  completed: "completed", failed: "failed", incomplete: "incomplete", cancelled: "cancelled",
};
const TABS = ["text", "events", "request", "result"];

export function panel(job, state, link) {
  const { overview, tab } = state;
  const canChange = overview?.role === "admin";
  const isOver = Boolean(job.finished_at_ms);
  return [
    h("div", { class: "bar head" },
      h("h2", {}, status({ ...job, error: null, waits_for: null, silent_s: 0 }), " ", h("code", { class: "id" }, job.id)),
      h("button", { "data-act": "copy", "data-text": job.id, "aria-label": "Copy the id" }, "Copy"),
      h("button", { "data-act": "close", "aria-label": "Close this job" }, "×")),
    canChange && h("div", { class: "bar" },
      !isOver && h("button", { "data-act": "cancel", "data-id": job.id, class: "danger" }, "Cancel…"),
      job.status === "queued" && h("button", { "data-act": "move", "data-id": job.id }, "Move to a tier…"),
      isOver && h("button", { "data-act": "rerun", "data-id": job.id }, "Run again…"),
      isOver && h("button", { "data-act": "resend", "data-id": job.id }, "Send webhooks again…"),
      isOver && h("button", { "data-act": "delete", "data-id": job.id, class: "danger" }, "Delete…")),
    job.waits && h("div", { class: "sentence warn" }, h("h3", {}, "Why does it wait?"), h("p", {}, job.waits.sentence)),
    h("div", { class: `sentence ${job.if_killed.why === "fails" ? "bad" : "ok"}` }, h("h3", {}, "If the gateway dies now"), h("p", {}, job.if_killed.sentence)),
    flow(job),
    h("h3", {}, "Timeline"),
    timeline(job),
    h("h3", {}, "Facts"),
    facts(job),
    links(job, state, link),
    watching(job),
    deliveries(job),
    content(job, overview, tab),
  ];
}

/** The state chart, with the way that this job took. */
function flow(job) {
  const waited = (job.started_at_ms ?? job.finished_at_ms ?? job.now_ms) - job.created_at_ms;
  const ran = job.started_at_ms ? (job.finished_at_ms ?? job.now_ms) - job.started_at_ms : null;
  const isOver = Boolean(job.finished_at_ms);
  const box = (state, words, time, isOn, isNow) => h("li", { class: `${isOn ? "on" : ""} ${isNow ? "now" : ""}`, "aria-current": isNow ? "step" : undefined },
    h("span", { class: `dot s-${state}` }), h("b", {}, words), h("span", { class: "dim" }, time));
  return h("ol", { class: "flow", "aria-label": "States" },
    box("queued", "queued", span(waited / 1000), true, job.status === "queued"),
    box("in_progress", "in progress", ran === null ? "" : `${span(ran / 1000)}${job.attempt > 1 ? `, try ${job.attempt}` : ""}`, ran !== null, job.status === "in_progress"),
    box(isOver ? job.status : "end", isOver ? job.status : "its end", isOver ? span((job.finished_at_ms - job.created_at_ms) / 1000) : "", isOver, isOver));
}

function timeline(job) {
  const longest = Math.max(0.001, ...job.timeline.map((step) => step.for_s));
  return h("ol", { class: "timeline" }, job.timeline.map((step, index) => {
    const isLast = index === job.timeline.length - 1;
    const more = [
      step.attempt && `attempt ${step.attempt}`, step.replica !== undefined && step.to === "called" && `replica ${step.replica}`, step.upstream_status && `HTTP ${step.upstream_status}`,
      step.reason && step.reason.replaceAll("_", " "), step.code && step.code !== step.reason && step.code, step.after_s && `for ${span(step.after_s)}`,
      step.is_earlier_process && "in an earlier process",
    ].filter(Boolean).join(" · ");
    return h("li", {}, h("span", { class: `dot s-${step.to}` }), h("b", {}, STEPS[step.to] ?? step.to),
      h("span", { class: "dim small" }, more),
      h("time", { class: "dim small", title: moment(step.at_ms) }, moment(step.at_ms).slice(11)),
      h("span", { class: "num small" }, isLast && job.finished_at_ms ? "" : span(step.for_s)),
      h("svg", { viewBox: "0 0 100 3", class: "gauge", "aria-hidden": "true", preserveAspectRatio: "none" },
        h("rect", { width: ((100 * step.for_s) / longest).toFixed(1), height: 3, class: "used" })));
  }));
}

function facts(job) {
  const rows = [
    ["Error", job.error], ["Model", job.model], ["Backend", job.backend], ["Tenant", job.tenant], ["Tier", job.tier],
    ["Attempts", `${job.attempt}${job.put_offs ? `, and sent away ${job.put_offs} times` : ""}`],
    ["Events", `${number(job.event_count)} (${bytes(job.events_bytes)})`],
    ["Speed", job.is_running ? (job.events_per_s === null ? "…" : `${job.events_per_s} events/s, about as many tokens`) : null],
    ["Last event", job.is_running ? (job.silent_s < 1 ? "just now" : `${span(job.silent_s)} ago`) : null],
    ["Readers", number(job.readers)],
    ["Accepted", moment(job.created_at_ms)], ["Started", job.started_at_ms && moment(job.started_at_ms)],
    ["Ended", job.finished_at_ms && moment(job.finished_at_ms)], ["Deadline", !job.finished_at_ms && moment(job.deadline_ms)],
    ["Kept until", job.expires_at_ms && moment(job.expires_at_ms)],
    ["Created as", job.is_streamed ? "stream" : "polled"],
    ["Replica", job.replica], ["Backend's status", job.upstream_status], ["Request id", job.request], ["Upstream request id", job.upstream_request],
  ];
  return h("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, h("bdi", {}, String(value)))]));
}

function links(job, state, link) {
  const { previous, later } = job.chain;
  if (!previous && !later.length) return null;
  const one = (id) => h("li", {}, h("a", { href: link({ ...state.filters, job: id }), "data-act": "open", "data-id": id }, h("code", {}, id)));
  return [
    h("h3", {}, "Chain"),
    previous && [h("span", { class: "dim small" }, "goes on from"), h("ul", { class: "plain" }, one(previous))],
    later.length > 0 && [h("span", { class: "dim small" }, "is gone on from by"), h("ul", { class: "plain" }, later.map(one))],
  ];
}

const table = (names, rows) => h("div", { class: "scroll" }, h("table", {},
  h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));

function watching(job) {
  if (!job.watching.length) return null;
  return [
    h("h3", {}, "Who reads it now"),
    table(["Caller", "For", "Has events up to", "From"], job.watching.map((each) => [
      h("code", {}, each.tenant), span(each.for_s), each.last_seq < 0 ? "none yet" : number(each.last_seq), each.peer ?? "–"])),
    job.readers > job.watching.length && h("p", { class: "dim small" }, `and ${number(job.readers - job.watching.length)} more`),
  ];
}

const ENDS = { delivered: "taken", waiting: "failed", given_up: "given up" };

function deliveries(job) {
  const { deliveries: waiting, told } = job;
  return [
    told.length > 0 && [
      h("h3", {}, "Webhooks that were sent"),
      table(["When", "Endpoint", "Try", "Answer", ""], told.map((each) => [
        h("time", { title: moment(each.at_ms) }, moment(each.at_ms).slice(11, 19)), each.endpoint, each.attempt ?? "–", reason(each.reason),
        h("span", { class: `badge ${each.to === "delivered" ? "ok" : "bad"}` }, ENDS[each.to] ?? each.to)])),
    ],
    waiting.length > 0 && [
      h("h3", {}, "Webhooks that wait"),
      table(["Endpoint", "Event", "Tries", "Last failure", "Next"], waiting.map((each) => [
        each.endpoint, each.event.replace("response.", ""), each.attempts, each.failure ? reason(each.failure) : "–", each.due_in_s > 0 ? `in ${span(each.due_in_s)}` : "now"])),
    ],
  ];
}

function content(job, overview, tab) {
  if (!overview?.content) {
    return h("p", { class: "note" }, "Prompts and answers are private: requests, results and events are not shown here (ui.content).");
  }
  return [
    h("div", { class: "tabs", role: "tablist", "aria-label": "Content" }, TABS.map((name) =>
      h("button", { role: "tab", id: `tab-${name}`, "aria-selected": String(tab === name), "aria-controls": "content", tabindex: tab === name ? "0" : "-1", "data-act": "tab", "data-tab": name }, name[0].toUpperCase() + name.slice(1)))),
    h("div", { id: "content", class: "content", role: "tabpanel", "aria-labelledby": `tab-${tab}`, tabindex: "0", "data-own": "" }),
  ];
}
