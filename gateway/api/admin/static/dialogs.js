// Questions before something is done: how many, and is it meant.

import { h, show } from "./dom.js";

const dialog = document.getElementById("dialog");

/** Ask; the values of the form's fields, or null. */
export function ask(title, body, { confirm, isDangerous = false } = {}) {
  show(dialog, h("form", { method: "dialog", "aria-labelledby": "dialog-title" },
    h("h2", { id: "dialog-title" }, title), body,
    h("div", { class: "bar end" }, h("button", { value: "", formnovalidate: true }, "Back"), confirm && h("button", { value: "yes", class: isDangerous ? "danger solid" : "solid" }, confirm))));
  dialog.returnValue = "";
  dialog.showModal();
  dialog.querySelector("input")?.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const form = new FormData(dialog.querySelector("form"));
      resolve(dialog.returnValue === "yes" ? Object.fromEntries(form) : null);
    }, { once: true });
  });
}

export const isOpen = () => dialog.open;
