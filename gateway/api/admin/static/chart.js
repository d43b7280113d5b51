// One chart over time and the small ones in the rows, as SVG.

import { clock, h, number, span } from "./dom.js";

const COLOURS = 9;
const WIDTH_MIN = 300;
const HEIGHT = 150;
const LEFT = 46;
const BOTTOM = 22;
const TOP = 8;

const OUTCOMES = { completed: "ok", failed: "bad", incomplete: "warn", cancelled: "idle" };

const classOf = (line, index) => `line ${OUTCOMES[line.name] ?? `c${index % COLOURS}`}`;

/** The large one, as wide as its place: its text stays as large as all other. */
export function chart(found, width) {
  const WIDTH = Math.max(WIDTH_MIN, width);
  if (!found || !found.series.length) {
    return h("p", { class: "empty" }, "Nothing yet: a point comes every ten seconds, and this is the hour since the start.");
  }
  const isTime = found.what === "wait";
  const format = (value) => (value === null ? "–" : isTime ? span(value) : number(Math.round(value)));
  const length = Math.max(...found.series.map((line) => line.points.length));
  const steps = Math.max(length, 30);
  const top = nice(Math.max(...found.series.flatMap((line) => line.points.map((value) => value ?? 0)), isTime ? 0.01 : 2));
  const x = (index) => LEFT + ((WIDTH - LEFT - 6) * (index + steps - length)) / (steps - 1);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const grid = [0, 0.5, 1].map((part) => [
    h("line", { x1: LEFT, x2: WIDTH - 6, y1: y(top * part), y2: y(top * part), class: "grid" }),
    h("text", { x: LEFT - 6, y: y(top * part) + 4, class: "tick end" }, format(top * part)),
  ]);
  const times = (WIDTH < 500 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((part) => {
    const at = found.end_ms - (1 - part) * (steps - 1) * found.step_s * 1000;
    const place = LEFT + (WIDTH - LEFT - 6) * part;
    const anchor = part === 0 ? "tick" : part === 1 ? "tick end" : "tick mid";
    return h("text", { x: place, y: HEIGHT - 6, class: anchor }, clock(at));
  });
  const lines = found.series.map((line, index) => h("path", { d: path(line.points, x, y), class: classOf(line, index) }));
  const said = found.series.map((line) => `${line.name}: now ${format(line.points.at(-1) ?? null)}, most ${format(most(line.points))}`);
  const per = isTime || found.what === "waiting" || found.what === "running" ? "" : ` per ${found.step_s} s`;
  return [
    h("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "img", "aria-label": `${found.what}${per}. ${said.join("; ")}` }, grid, times, lines),
    h("ul", { class: "legend" }, found.series.map((line, index) =>
      h("li", {}, h("span", { class: `dot ${classOf(line, index)}` }), h("bdi", {}, line.name || "(no model)"), " ",
        h("b", {}, format(line.points.at(-1) ?? null)), h("span", { class: "dim" }, ` most ${format(most(line.points))}${per}`)))),
  ];
}

/** A small one: running as an area, waiting as a line. */
export function spark(backend) {
  const { running, waiting } = backend.spark;
  const length = Math.max(running.length, waiting.length, 2);
  const top = Math.max(1, ...running.map((value) => value ?? 0), ...waiting.map((value) => value ?? 0));
  const x = (index, points) => 1 + (98 * (index + 30 - points.length)) / 29;
  const y = (value) => 23 - (21 * value) / top;
  const line = (points) => path(points, (index) => x(index, points), y);
  const label = `Last five minutes, up to ${number(top)}: running ${number(running.at(-1))}, waiting ${number(waiting.at(-1))}`;
  return h("svg", { viewBox: "0 0 100 24", class: "spark", role: "img", "aria-label": label, preserveAspectRatio: "none" },
    h("title", {}, label),
    length > 1 && h("path", { d: line(waiting), class: "line warn" }),
    length > 1 && h("path", { d: line(running), class: "line c0" }));
}

function path(points, x, y) {
  let isDown = false;
  return points.map((value, index) => {
    if (value === null) {
      isDown = false;
      return "";
    }
    const step = `${isDown ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    const isAlone = !isDown && (points[index + 1] ?? null) === null;
    isDown = true;
    return isAlone ? `${step}h-4` : step;
  }).join("") || "M0 0";
}

function most(points) {
  const known = points.filter((value) => value !== null);
  return known.length ? Math.max(...known) : null;
}

function nice(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 10].map((factor) => factor * size).find((step) => step >= value);
}
