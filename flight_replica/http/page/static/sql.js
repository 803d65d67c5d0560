// The SQL box: one statement at a time, by the same way as every client's.

import { $, announce, el, say, show } from "./dom.js";
import { count, counted, duration, positions } from "./format.js";
import { ask } from "./server.js";

export class SqlBox {
  #running = null; // the controller of the request under way
  #session = ""; // what leads to what was SET here before

  constructor() {
    $("sql-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    $("sql-text").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.run();
      }
    });
    $("sql-cancel").addEventListener("click", () => this.#running?.abort());
  }

  /** Put an example in as long as nobody has written anything. */
  suggest(table) {
    $("sql-text").placeholder = `SELECT * FROM "${table.replaceAll('"', '""')}" LIMIT 100`;
  }

  async run() {
    const sql = $("sql-text").value.trim() || $("sql-text").placeholder;
    if (this.#running !== null || sql === "") return;
    this.#running = new AbortController();
    $("sql-run").disabled = true;
    $("sql-cancel").disabled = false;
    const began = performance.now();
    const clock = setInterval(() => say($("sql-state"), `running for ${duration(performance.now() - began)}`), 100);
    try {
      this.#answer(await ask("api/sql", { body: { sql, session: this.#session }, signal: this.#running.signal }));
    } catch (error) {
      if (error.kind === "SessionExpired") this.#session = "";
      this.#failed(error.name === "AbortError" ? "cancelled" : error.message);
    } finally {
      clearInterval(clock);
      this.#running = null;
      $("sql-run").disabled = false;
      $("sql-cancel").disabled = true;
    }
  }

  #failed(text) {
    say($("sql-state"), "");
    say($("sql-error"), text);
    show($("sql-error"), true);
    show($("sql-position"), false);
    show($("sql-result"), false);
  }

  #answer({ columns, rows, is_cut, rows_max, seconds, positions: at, session }) {
    this.#session = session;
    const told = `${counted(rows.length, "row")}${is_cut ? ` (the first ${count(rows_max)}; there are more)` : ""} in ${duration(seconds * 1000)}`;
    say($("sql-state"), told);
    announce(told);
    show($("sql-error"), false);
    say($("sql-position"), at.length ? `Read: ${positions(at)}` : "");
    show($("sql-position"), at.length > 0);
    const head = columns.map((column) =>
      el("th", { scope: "col", class: column.is_number ? "number" : "" },
        el("span", { text: column.name }), el("small", { text: column.type })));
    const body = rows.map((row) => el("tr", {}, ...row.map((value, i) => cell(value, columns[i]))));
    $("sql-result").replaceChildren(
      el("table", { class: "list" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
    show($("sql-result"), columns.length > 0);
  }
}

function cell(value, column) {
  if (value === null) return el("td", { class: "null", text: "NULL" });
  return el("td", { class: column.is_number ? "number" : "", text: value });
}
