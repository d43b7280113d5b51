// Trees of elements, made anew at each look and laid over what is there: focus, scroll and selection stay.
// Text of strangers only ever becomes a text node. Events are heard at the document, by `data-act`.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "line", "text", "g", "rect", "circle", "title", "polyline"]);

// What a reader does not see, or what turns the direction of writing: shown as what it is, or a name could pass for
// another one. Joiners are left alone: scripts and emoji need them.
const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
export const visible = (text) => text.replace(UNSEEN, (sign) => `⟨U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

/** An element. Children may be text, numbers, elements, lists, or nothing. */
export function h(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    element.setAttribute(name, value === true ? "" : name === "title" || name === "label" || name.startsWith("aria-") ? visible(String(value)) : value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : visible(String(child)));
  }
}

/** Make `element` have these children, with as few changes as can be. */
export function show(element, ...children) {
  const wanted = document.createElement("div");
  add(wanted, children);
  morphChildren(element, wanted);
}

function morphChildren(old, wanted) {
  const keyed = new Map();
  for (const child of old.children) {
    if (child.dataset.key) keyed.set(child.dataset.key, child);
  }
  let at = old.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = next.dataset?.key;
    const known = key ? keyed.get(key) : undefined;
    if (known) {
      if (known !== at) old.insertBefore(known, at);
      else at = at.nextSibling;
      morph(known, next);
    } else if (at && !key && !at.dataset?.key && isLike(at, next)) {
      const place = at;
      at = at.nextSibling;
      morph(place, next);
    } else {
      old.insertBefore(next, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function isLike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName;
}

function morph(old, wanted) {
  if (!isLike(old, wanted)) return old.replaceWith(wanted);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.nodeName === "INPUT") {
    if (old.type === "checkbox") old.checked = wanted.checked;
    else if (old !== document.activeElement && old.value !== wanted.value) old.value = wanted.value;
    return;
  }
  const value = old.nodeName === "SELECT" ? wanted.value : undefined;
  if (old.dataset.own === undefined) morphChildren(old, wanted); // an element that fills itself is left alone
  if (value !== undefined && old !== document.activeElement) old.value = value;
}

/** A length of time, short: 12 s, 4 min, 3 h, 2 d. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.95) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}

export const number = (value) => (value ?? 0).toLocaleString("en");

export function bytes(size) {
  for (const [unit, factor] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (size >= factor) return `${(size / factor).toFixed(1)} ${unit}`;
  }
  return `${size} B`;
}

// Times are UTC, as in the log.
export const moment = (ms) => new Date(ms).toISOString().replace("T", " ").slice(0, 23);
export const clock = (ms) => moment(ms).slice(11, 19);

export function say(text, isBad = false) {
  const toast = document.getElementById("toast");
  toast.textContent = visible(text);
  toast.classList.toggle("bad", isBad);
  toast.classList.add("on");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => toast.classList.remove("on"), 6000);
}

/** Plain http has no clipboard: then the old way. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "sr" });
    area.value = text;
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    if (!isCopied) return say("This browser does not let a page copy.", true);
  }
  say("Copied.");
}
