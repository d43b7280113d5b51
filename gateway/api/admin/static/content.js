// The content of one job, where it may be shown: its text as it grows, its events, its request and its result.

import { events, text } from "./api.js";
import { copy, h, say } from "./dom.js";
import { treeOf } from "./tree.js";

const EVENTS_SHOWN = 500;

let following = null; // {id, stop, events, texts, isOver}

/** Fill the tab. What streams goes on by itself until another job is opened, or none. */
export async function fill(place, id, tab) {
  if (place.dataset.shows === `${id} ${tab}`) return;
  place.dataset.shows = `${id} ${tab}`;
  if (tab === "request" || tab === "result") {
    place.replaceChildren(h("p", { class: "empty" }, "Reading…"));
    try {
      const raw = await text(`jobs/${encodeURIComponent(id)}/${tab}`);
      const button = h("button", { type: "button" }, "Copy");
      button.addEventListener("click", () => copy(raw));
      if (place.dataset.shows === `${id} ${tab}`) place.replaceChildren(button, treeOf(raw));
    } catch (error) {
      delete place.dataset.shows; // it may be there at the next look
      place.replaceChildren(h("p", { class: "empty" }, error.message));
    }
    return;
  }
  if (following?.id !== id) follow(id);
  following.place = place;
  following.tab = tab;
  draw();
}

export function stop() {
  following?.stop.abort();
  following = null;
}

function follow(id) {
  stop();
  const mine = { id, stop: new AbortController(), events: [], texts: new Map(), isOver: false, place: null, tab: "text", isDrawn: true };
  following = mine;
  (async () => {
    try {
      for await (const event of events(id, mine.stop.signal)) {
        take(mine, event);
        later(mine);
      }
      mine.isOver = true;
      later(mine);
    } catch (error) {
      if (error.name !== "AbortError" && following === mine) say(error.message, true);
    }
  })();
}

function take(mine, { name, data }) {
  if (name === "rewound") {
    mine.events = [];
    mine.texts.clear();
    return;
  }
  mine.events.push(data);
  if (mine.events.length > EVENTS_SHOWN) mine.events.shift();
  if (!data.includes("_text.delta") && !data.includes("_text.done") && !data.includes("arguments.delta")) return;
  const event = JSON.parse(data);
  const key = `${event.output_index ?? 0} ${event.type.replace(/^response\.|\.(delta|done)$/g, "")}`;
  if (typeof event.delta === "string") mine.texts.set(key, (mine.texts.get(key) ?? "") + event.delta);
  else if (typeof event.text === "string") mine.texts.set(key, event.text);
}

/** Once for all that comes within a frame. */
function later(mine) {
  if (!mine.isDrawn) return;
  mine.isDrawn = false;
  requestAnimationFrame(() => {
    mine.isDrawn = true;
    if (following === mine) draw();
  });
}

function draw() {
  const { place, tab, texts, events: latest, isOver } = following;
  if (!place) return;
  const isAtEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 30;
  if (tab === "text") {
    const parts = [...texts].sort().map(([key, said]) => [h("h4", { class: "dim" }, key.replace(/^\d+ /, "").replaceAll("_", " ")), h("p", { class: "said" }, said)]);
    place.replaceChildren(...(parts.length ? parts.flat() : [h("p", { class: "empty" }, isOver ? "It has no text." : "No text yet.")]));
  } else {
    const first = latest.length ? JSON.parse(latest[0]).sequence_number : 0;
    place.replaceChildren(
      ...(first > 0 ? [h("p", { class: "dim small" }, `${first} earlier events are not shown`)] : []),
      h("ol", { class: "events" }, latest.map((data) => h("li", {}, h("code", {}, data)))),
    );
    place.querySelector("ol").start = first;
  }
  if (isAtEnd && !isOver) place.scrollTop = place.scrollHeight;
}
