// The list of tables, and the one that is looked at.

import { fillSpark, makeSpark, TableCharts } from "./charts.js";
import { $, el, keep, say, show } from "./dom.js";
import { bytes, count, duration, rate, timeOfDay } from "./format.js";

const FIND_FROM = 9; // with so many tables there is a field to find one

export class Tables {
  #tables = [];
  #now_ms = 0;
  #selected = null;
  #isSpanChosen = false;
  #charts = new TableCharts();

  constructor(samples, onError) {
    this.samples = samples;
    this.onError = onError;
    $("find").addEventListener("input", () => this.#list());
    for (const button of document.querySelectorAll(".spans button"))
      button.addEventListener("click", () => {
        this.#isSpanChosen = true;
        this.#span(button);
      });
  }

  /** Show one state of the server. */
  update(now_ms, tables) {
    this.#now_ms = now_ms;
    this.#tables = tables;
    if (!tables.some((table) => table.name === this.#selected))
      this.select((tables.find((table) => table.health !== "ok") ?? tables[0])?.name ?? null);
    this.#list();
    this.#detail();
  }

  /** Show so much time at first: as much as there can be something of. */
  showLast(minutes) {
    const button = [...document.querySelectorAll(".spans button")].find((one) => Number(one.dataset.minutes) >= minutes);
    if (button !== undefined && !this.#isSpanChosen) this.#span(button);
  }

  /** Look at this table. */
  select(name) {
    this.#selected = name;
    show($("detail"), name !== null);
    if (name !== null) this.reload();
  }

  /** Fetch the points of the table that is looked at. */
  reload() {
    const name = this.#selected;
    if (name === null) return;
    this.samples.load(name).then(() => this.#detail(), this.onError);
  }

  restyle() {
    this.#charts.restyle();
    this.#detail();
  }

  #span(button) {
    this.#charts.minutes = Number(button.dataset.minutes);
    for (const other of document.querySelectorAll(".spans button"))
      other.setAttribute("aria-pressed", String(other === button));
    this.#detail();
  }

  #list() {
    const wanted = $("find").value.trim().toLowerCase();
    show($("find").parentElement, this.#tables.length >= FIND_FROM);
    const shown = this.#tables.filter((table) => table.name.toLowerCase().includes(wanted));
    show($("no-tables"), this.#tables.length === 0);
    keep($("table-rows"), shown, (table) => table.name, () => this.#row(), (row, table) => this.#fill(row, table));
  }

  #row() {
    const name = el("button", { type: "button", class: "link" });
    const row = el("tr", {},
      el("th", { scope: "row" }, name),
      el("td", {}, el("span", { class: "state" })),
      el("td", { class: "number" }),
      el("td", { class: "wide" }, makeSpark()),
      el("td", { class: "number" }),
      el("td", { class: "number wide" }),
      el("td", { class: "number wide" }),
      el("td", { class: "wide muted" }),
    );
    const choose = () => {
      this.select(row.dataset.key);
      this.#list();
      this.#detail();
    };
    name.addEventListener("click", choose);
    row.addEventListener("click", (event) => event.target.closest("button") ?? choose());
    return row;
  }

  #fill(row, table) {
    const [name, state, lag, spark, seq, behind, ops, base] = row.children;
    const isSelected = table.name === this.#selected;
    row.classList.toggle("selected", isSelected);
    name.firstChild.setAttribute("aria-pressed", String(isSelected));
    say(name.firstChild, table.name);
    fillState(state.firstChild, table);
    say(lag, table.is_followed ? duration(table.lag_ms) : "no feed");
    fillSpark(spark.firstChild, this.samples.sparkOf(table.name, this.#now_ms));
    say(seq, count(table.visible_seq));
    say(behind, count(table.lag_seqs));
    say(ops, rate(table.ops_per_second));
    say(base, table.base_kind === null ? "–" : `${table.base_kind}, seq ${count(table.base_seq)}`);
  }

  #detail() {
    const table = this.#tables.find((found) => found.name === this.#selected);
    if (table === undefined) return;
    say($("detail-name"), table.name);
    fillState($("detail-state"), table);
    say($("detail-reason"), table.reason);
    this.#charts.draw(this.samples.of(table.name), this.#now_ms);
    keep($("facts"), facts(table), ([name]) => name,
      ([name]) => el("div", {}, el("dt", { text: name }), el("dd")),
      (box, [name, value]) => {
        const shown = box.lastChild;
        say(shown, value);
        if (name !== "Base place") return;
        shown.className = "long"; // one line, however deep it lies
        shown.title = value;
      });
    show($("rebases"), table.rebase_count !== null);
    say($("rebases").firstElementChild, `Bases adopted since the server began: ${count(table.rebases.length)}`);
    keep($("rebase-list"), [...table.rebases].reverse(), (rebase) => `${rebase.time_ms} ${rebase.base_seq}`, () => el("li"),
      (item, rebase) => say(item, `${timeOfDay(rebase.time_ms)} onto seq ${count(rebase.base_seq)}${rebase.ms === null ? "" : ` in ${duration(rebase.ms)}`}`));
  }
}

/** The state of a table as a word with its color. */
export function fillState(span, table) {
  span.dataset.health = table.health;
  say(span, table.health === "ok" ? table.state : table.health === "behind" ? "behind" : table.state);
  if (table.reason) span.title = table.reason;
  else span.removeAttribute("title");
}

function facts(table) {
  const found = [
    ["Lag", duration(table.lag_ms)],
    ["Visible seq", count(table.visible_seq)],
    ["Newest known seq", count(table.high_water)],
    ["Base seq", count(table.base_seq)],
    ["State kind", table.kind],
    ["Build", table.build],
    ["Feed", table.is_followed ? null : "none: the base is served as it lies"],
    ["Ops applied", table.ops_applied && count(table.ops_applied)],
    ["Tail", table.tail_bytes === null ? null : bytes(table.tail_bytes)],
    ["Ops kept for others", table.history_bytes === null ? null : bytes(table.history_bytes)],
    ["Reads that wait", table.waiting ? count(table.waiting) : null],
    ["Feed from seq", count(table.low_water)],
    ["Base kind", table.base_kind],
    ["Base version", table.base_version],
    ["Base place", table.base_uri],
    ["Lineage", table.lineage],
  ];
  return found.filter(([, value]) => value !== null && value !== undefined && value !== "");
}
