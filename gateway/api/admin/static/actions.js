// What an operator does here. Each change is asked for first, and says afterwards what it did.

import { act } from "./api.js";
import { ask } from "./dialogs.js";
import { h, number, say } from "./dom.js";

const path = (id, what) => `jobs/${encodeURIComponent(id)}/${what}`;

const jobs = (count) => (count === 1 ? "1 job" : `${number(count)} jobs`);
const besides = (count, words) => (count ? `; ${number(count)} ${words}` : "");

// What can be done to many: the question, what follows from a yes, and what it came to.
const MANY = {
  cancel: {
    title: (count) => `Cancel ${count}`, none: "No live job matches. Those that are over stay as they are.",
    follows: () => "will be cancelled. Backends are told to stop; output so far is kept.",
    done: (it) => `${jobs(it.cancelled)} cancelled${besides(it.over, "were over already")}.`,
  },
  rerun: {
    title: (count) => `Run ${count} again`, none: "No job that is over matches. Those that are live have to end first.",
    follows: () => "will be run again, as new ones of the same callers. The callers do not know their ids, and URLs of the callers' own are not told of them.",
    done: (it) => [`${jobs(it.rerun)} run again`, ...Object.entries(it.refused).map(([code, count]) => `${number(count)} not: ${code.replaceAll("_", " ")}`)].join("; ") + ".",
  },
  delete: {
    title: (count) => `Delete ${count}`, none: "No job that is over matches. Those that are live have to end first.",
    follows: () => "will be deleted: requests, results and events, for good. Their callers find them no more. Turns that go on from them keep what they need.",
    done: (it) => `${jobs(it.deleted)} deleted${besides(it.not_deleted, "were live, or gone already")}.`,
  },
  tier: {
    title: (count) => `Move ${count}`, none: "No queued job matches. Those that were started keep their tier.",
    follows: (tier) => `will be of the tier ${tier}, each in its place by age. What callers read in service_tier stays as it is.`,
    done: (it) => `${jobs(it.moved)} moved${besides(it.started, "had been started, or were over")}.`,
  },
};

/** Args: wanted: `{ids}` or `{filter}`. */
export async function many(doing, wanted) {
  const { title, none, follows, done } = MANY[doing];
  const more = doing === "tier" ? await whichTier() : {};
  if (!more) return;
  const preview = await act(`jobs/${doing}`, { dry_run: true, ...more, ...wanted });
  if (!preview.count) {
    await ask("Nothing to do", h("p", {}, none));
    return;
  }
  const words = title(jobs(preview.count));
  const body = [
    h("p", {}, `${jobs(preview.count)} ${follows(more.tier)} `, preview.is_all ? "" : "More match than one go may change: repeat it afterwards."),
    listed(preview),
  ];
  if (!(await ask(`${words}?`, body, { confirm: words, isDangerous: doing !== "tier" }))) return;
  say(done(await act(`jobs/${doing}`, { token: preview.token })));
}

/** `{tier}`, or null. */
const whichTier = () => ask("Move to which tier?", [
  h("p", {}, "Tiers order the jobs of one caller; between callers they weigh."),
  h("label", {}, "Tier ", h("select", { name: "tier" }, ["priority", "default", "flex"].map((tier) => h("option", { value: tier }, tier)))),
], { confirm: "Go on" });

const listed = (preview) => h("ul", { class: "plain" }, preview.first.map((id) => h("li", {}, h("code", {}, id))),
  preview.count > preview.first.length && h("li", { class: "dim" }, `and ${number(preview.count - preview.first.length)} more`));

export async function cancel(id) {
  if (!(await ask("Cancel this job?", h("p", {}, h("code", {}, id), " ends as cancelled; its output so far is kept."), { confirm: "Cancel it", isDangerous: true }))) return;
  const done = await act(path(id, "cancel"));
  say(done.cancelled ? "Cancelled." : "It was over already.");
}

export async function remove(id) {
  const body = h("p", {}, h("code", {}, id), " vanishes with its request, its result and its events, for good: its caller finds it no more.");
  if (!(await ask("Delete this job?", body, { confirm: "Delete it", isDangerous: true }))) return false;
  await act(path(id, "delete"));
  say("Deleted.");
  return true;
}

export async function move(id) {
  const given = await whichTier();
  if (!given) return;
  const done = await act(path(id, "tier"), { tier: given.tier });
  say(done.moved ? `It is of the tier ${given.tier} now.` : "It has been started already, and keeps its tier.");
}

export async function rerun(id) {
  const body = h("p", {}, "A new job of the same caller is made with the same request. The caller does not know its id, and a URL of the caller's own is not told of it.");
  if (!(await ask("Run it again?", body, { confirm: "Run again" }))) return null;
  const done = await act(path(id, "rerun"));
  say("A new job was made.");
  return done.id;
}

export async function resend(id) {
  const body = h("p", {}, "All endpoints that are told of this end get its event once more, with the same id: also those that took it already.");
  if (!(await ask("Send its webhooks again?", body, { confirm: "Send again" }))) return;
  const done = await act(path(id, "resend"));
  say(`Sent again to ${done.sent_again}${done.disabled.length ? `; disabled: ${done.disabled.join(", ")}` : ""}.`);
}

export async function pause(backend, isPaused) {
  if (isPaused) {
    const body = h("p", {}, `No more background jobs are started at ${backend}; those that run go on to their end. It holds until somebody resumes it, after a restart too, and at every gateway of a shared store. Plain requests go on.`);
    if (!(await ask(`Pause the queue of ${backend}?`, body, { confirm: "Pause", isDangerous: true }))) return;
  }
  await act(`backends/${encodeURIComponent(backend)}/${isPaused ? "pause" : "resume"}`);
  say(isPaused ? `${backend} is paused.` : `${backend} goes on.`);
}

export async function slots(backend, now, standard) {
  const body = [
    h("p", {}, `How many background jobs may run at each replica of ${backend}. The settings say ${standard}; what you say here holds until somebody sets that number again, after a restart too, and at every gateway of a shared store.`),
    h("label", {}, "Slots per replica ", h("input", { type: "number", name: "slots", min: 1, max: 1000000, value: now, required: true })),
  ];
  const given = await ask(`Slots of ${backend}`, body, { confirm: "Set" });
  if (!given) return;
  const count = Number(given.slots);
  await act(`backends/${encodeURIComponent(backend)}/slots`, { slots: count === Number(standard) ? null : count });
  say(`${backend} has ${count} slots per replica.`);
}

export async function drain() {
  const body = h("p", {}, "The gateway takes no new jobs, lets those that run end for as long as server.drain_timeout_s says, and then ends, as after SIGTERM. What still waits runs after the next start, which is up to whatever supervises it.");
  if (!(await ask("Drain and end this gateway?", body, { confirm: "Drain", isDangerous: true }))) return;
  await act("drain");
  say("It drains.");
}

export async function enable(endpoint) {
  await act(`webhooks/${encodeURIComponent(endpoint)}/enable`);
  say(`${endpoint} is told again.`);
}
