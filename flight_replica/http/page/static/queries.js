// Running queries with their cancel buttons, and slow ones that have ended.

import { $, announce, el, keep, say, show } from "./dom.js";
import { count, counted, duration, timeOfDay } from "./format.js";
import { ask } from "./server.js";

export class Queries {
  constructor(onError) {
    this.onError = onError;
  }

  update({ running, slow }) {
    say($("queries-note"), `${running.length} running, ${counted(slow.length, "slow one")} lately`);
    show($("no-running"), running.length === 0);
    show($("no-slow"), slow.length === 0);
    keep($("running-rows"), running, (query) => query.id, () => this.#running(), fillRunning);
    keep($("slow-rows"), slow, (query) => query.id, makeSlow, fillSlow);
  }

  #running() {
    const button = el("button", { type: "button", class: "small" , text: "Cancel"});
    const row = el("tr", {},
      statementCell(), el("td"), el("td", { class: "wide muted" }), el("td"),
      el("td", { class: "number" }), el("td", { class: "number wide" }), el("td", { class: "wide muted" }),
      el("td", { class: "number" }, button));
    button.addEventListener("click", () => this.#cancel(row.dataset.key, button));
    return row;
  }

  async #cancel(id, button) {
    button.disabled = true;
    try {
      await ask("api/cancel", { body: { id } });
      announce("The query was cancelled");
    } catch (error) {
      button.disabled = false;
      this.onError(error);
    }
  }
}

const statementCell = () => el("td", { class: "statement" }, el("code"));

function fillRunning(row, query) {
  const [sql, user, peer, phase, time, rows, reads, cancel] = row.children;
  fillStatement(sql, query.sql);
  say(user, query.user || "–");
  say(peer, query.peer || "–");
  say(phase, query.phase);
  say(time, duration(query.seconds * 1000));
  say(rows, count(query.rows));
  say(reads, readAt(query));
  cancel.firstChild.setAttribute("aria-label", `Cancel: ${query.sql.slice(0, 60)}`);
}

const makeSlow = () =>
  el("tr", {}, statementCell(), el("td"), el("td"), el("td"), el("td", { class: "number" }),
    el("td", { class: "number wide" }), el("td", { class: "wide muted" }));

function fillSlow(row, query) {
  const [sql, user, ended, outcome, time, rows, read] = row.children;
  fillStatement(sql, query.sql);
  say(user, query.user || "–");
  say(ended, timeOfDay(query.ended_ms));
  say(outcome, query.outcome.replace("_", " "));
  say(time, duration(query.seconds * 1000));
  say(rows, count(query.rows));
  say(read, readAt(query));
}

/** Which seqs it reads: "orders at seq 12, lag 3 ms". */
function readAt({ reads, lag_ms }) {
  const seqs = Object.entries(reads).map(([table, seq]) => `${table} at seq ${count(seq)}`).join(", ");
  return seqs && lag_ms !== null ? `${seqs}, lag ${duration(lag_ms)}` : seqs;
}

function fillStatement(cell, sql) {
  say(cell.firstChild, sql);
  if (cell.title !== sql) cell.title = sql;
}
