// What an operator does here. Each change is asked for first, and says afterwards what it did.

import { act } from "./api.js";
import { ask } from "./dialogs.js";
import { h, number, say } from "./dom.js";

const path = (id, what) => `jobs/${encodeURIComponent(id)}/${what}`;

export async function cancelMany(wanted) {
  const preview = await act("jobs/cancel", { dry_run: true, ...wanted });
  const jobs = (count) => (count === 1 ? "1 job" : `${number(count)} jobs`);
  if (!preview.count) {
    await ask("Nothing to cancel", h("p", {}, "No live job matches. Those that are over stay as they are."));
    return;
  }
  const body = [
    h("p", {}, `${jobs(preview.count)} will be cancelled. Backends are told to stop; output so far is kept. `,
      preview.is_all ? "" : "More match than one go may end: repeat it afterwards."),
    listed(preview),
  ];
  if (!(await ask(`Cancel ${jobs(preview.count)}?`, body, { confirm: `Cancel ${jobs(preview.count)}`, isDangerous: true }))) return;
  const done = await act("jobs/cancel", { token: preview.token });
  say(`${jobs(done.cancelled)} cancelled${done.over ? `; ${number(done.over)} were over already` : ""}.`);
}

export async function rerunMany(wanted) {
  const preview = await act("jobs/rerun", { dry_run: true, ...wanted });
  const jobs = (count) => (count === 1 ? "1 job" : `${number(count)} jobs`);
  if (!preview.count) {
    await ask("Nothing to run again", h("p", {}, "No job that is over matches. Those that are live have to end first."));
    return;
  }
  const body = [
    h("p", {}, `${jobs(preview.count)} will be run again, as new ones of the same callers. The callers do not know their ids, and URLs of the callers' own are not told of them. `,
      preview.is_all ? "" : "More match than one go may change: narrow the filters."),
    listed(preview),
  ];
  if (!(await ask(`Run ${jobs(preview.count)} again?`, body, { confirm: `Run ${jobs(preview.count)} again`, isDangerous: true }))) return;
  const done = await act("jobs/rerun", { token: preview.token });
  const refused = Object.entries(done.refused).map(([code, count]) => `${number(count)} not: ${code.replaceAll("_", " ")}`);
  say([`${jobs(done.rerun)} run again`, ...refused].join("; ") + ".", !done.rerun);
}

const listed = (preview) => h("ul", { class: "plain" }, preview.first.map((id) => h("li", {}, h("code", {}, id))),
  preview.count > preview.first.length && h("li", { class: "dim" }, `and ${number(preview.count - preview.first.length)} more`));

export async function cancel(id) {
  if (!(await ask("Cancel this job?", h("p", {}, h("code", {}, id), " ends as cancelled; its output so far is kept."), { confirm: "Cancel it", isDangerous: true }))) return;
  const done = await act(path(id, "cancel"));
  say(done.cancelled ? "Cancelled." : "It was over already.");
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
