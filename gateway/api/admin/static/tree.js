// JSON as a tree: keys sorted, large numbers as they were written, branches that fold.

import { h } from "./dom.js";

class Exact {
  constructor(source) {
    this.source = source;
  }
}

// Not every browser says how a number was written: one that does not gets the text instead of the tree.
const IS_EXACT = JSON.parse("1", (_key, _value, context) => context?.source === "1");

/** The tree of a JSON text. */
export const treeOf = (text) => (IS_EXACT ? tree(parse(text)) : h("p", { class: "said" }, text));

/** Parse, and keep the text of numbers that would be rounded. */
function parse(text) {
  return JSON.parse(text, (_key, value, context) =>
    typeof value === "number" && context?.source !== undefined && String(value) !== context.source ? new Exact(context.source) : value);
}

function tree(value, depth = 0) {
  if (value instanceof Exact) return h("span", { class: "j-number" }, value.source);
  if (value === null || typeof value !== "object") {
    return h("span", { class: `j-${value === null ? "null" : typeof value}` }, JSON.stringify(value));
  }
  const isList = Array.isArray(value);
  const entries = isList ? value.map((each, index) => [index, each]) : Object.keys(value).sort().map((key) => [key, value[key]]);
  if (!entries.length) return h("span", { class: "dim" }, isList ? "[]" : "{}");
  return h("details", { open: depth < 3 && entries.length <= 50, class: "j" },
    h("summary", {}, h("span", { class: "dim" }, isList ? `[ ${entries.length} ]` : `{ ${entries.length} }`)),
    h("ul", {}, entries.map(([key, each]) => h("li", {}, h("span", { class: "j-key" }, String(key)), ": ", tree(each, depth + 1)))));
}
