// Snippets to connect with, one client at a time; the texts come from the server.

import { $, copy, el, say } from "./dom.js";
import { ask } from "./server.js";

export class Connect {
  #snippets = [];

  constructor() {
    $("snippet-copy").addEventListener("click", () => copy($("snippet-code").textContent, $("snippet-copy")));
    $("snippet-tabs").addEventListener("keydown", (event) => this.#move(event));
  }

  async load() {
    const { snippets } = await ask("api/snippets");
    const chosen = Math.max(0, this.#snippets.findIndex((snippet) => snippet.id === this.chosen));
    this.#snippets = snippets;
    $("snippet-tabs").replaceChildren(
      ...snippets.map((snippet, i) =>
        el("button", { type: "button", role: "tab", id: `tab-${snippet.id}`, "aria-controls": "snippet", text: snippet.title, onclick: () => this.#choose(i) })),
    );
    this.#choose(chosen);
  }

  #choose(index) {
    const snippet = this.#snippets[index];
    this.chosen = snippet.id;
    [...$("snippet-tabs").children].forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === index));
      tab.tabIndex = i === index ? 0 : -1;
    });
    $("snippet").setAttribute("aria-labelledby", `tab-${snippet.id}`);
    say($("snippet-note"), snippet.note);
    say($("snippet-code"), snippet.code);
  }

  #move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const at = this.#snippets.findIndex((snippet) => snippet.id === this.chosen);
    const next = (at + step + this.#snippets.length) % this.#snippets.length;
    this.#choose(next);
    $("snippet-tabs").children[next].focus();
  }
}
