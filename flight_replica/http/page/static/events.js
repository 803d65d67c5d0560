// What has happened lately, the newest first.

import { $, el, keep, say, show } from "./dom.js";
import { timeOfDay } from "./format.js";

const KEPT = 200;

export class Events {
  #events = [];
  #run = null; // of the server: its ids begin anew with it

  /** Add what is new. */
  update(run, found) {
    const last = this.#run === run ? (this.#events.at(-1)?.id ?? 0) : 0;
    if (this.#run !== run) this.#events = this.#events.map((event) => ({ ...event, id: `before ${event.key ?? event.id}` }));
    this.#run = run;
    const fresh = found.filter((event) => event.id > last).map((event) => ({ ...event, key: `${run}-${event.id}` }));
    const replaced = new Set(fresh.map((event) => event.replaces).filter((id) => id > 0));
    const kept = this.#events.filter((event) => !replaced.has(event.id));
    this.#events = [...kept, ...fresh.filter((event) => !replaced.has(event.id))].slice(-KEPT);
    show($("no-events"), this.#events.length === 0);
    keep($("events"), [...this.#events].reverse(), (event) => event.key, make, fill);
  }
}

const make = () => el("li", {}, el("time"), el("span", { class: "level" }), el("b"), el("span"));

function fill(item, event) {
  const [time, level, table, text] = item.children;
  item.dataset.level = event.level;
  say(time, timeOfDay(event.time_ms));
  say(level, event.level);
  say(table, event.table);
  say(text, event.text);
}
