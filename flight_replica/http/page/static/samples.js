// What the charts show: points of the last hour by table, kept across restarts of the server.

import { ask } from "./server.js";

const KEPT_MS = 3600_000;
const SPARK_STEP_MS = 60_000;

/** Points of one table; `times` ascending, ms since 1970 on the server's clock. */
class Points {
  times = [];
  lags = []; // ms, null: not known
  rates = []; // ops per second, null: not known

  add(time, lag, rate) {
    if (this.times.length && time <= this.times.at(-1)) return;
    this.times.push(time);
    this.lags.push(lag);
    this.rates.push(rate);
    while (this.times[0] < time - KEPT_MS) {
      this.times.shift();
      this.lags.shift();
      this.rates.shift();
    }
  }

  /** Put the server's own points in the place of those that the page saw itself from their first one on. */
  merge(found) {
    const from = found.time_ms.length ? found.time_ms[0] : Infinity;
    const to = found.time_ms.length ? found.time_ms.at(-1) : -Infinity;
    const rows = this.times.map((time, i) => [time, this.lags[i], this.rates[i]]);
    const before = rows.filter(([time]) => time < from);
    const after = rows.filter(([time]) => time > to);
    const middle = found.time_ms.map((time, i) => [time, found.lag_ms[i], found.ops_per_second[i]]);
    this.times = [];
    this.lags = [];
    this.rates = [];
    for (const [time, lag, rate] of [...before, ...middle, ...after]) this.add(time, lag, rate);
  }
}

/** All tables' points. */
export class Samples {
  #byTable = new Map(); // table -> Points in full
  #sparks = new Map(); // table -> Map of minute -> the largest lag in it, null: not known

  of(table) {
    if (!this.#byTable.has(table)) this.#byTable.set(table, new Points());
    return this.#byTable.get(table);
  }

  /** Take one state of the server. */
  add(now_ms, tables) {
    const names = new Set(tables.map((table) => table.name));
    for (const table of tables) {
      this.of(table.name).add(now_ms, table.lag_ms, table.ops_per_second);
      this.#spark(table.name, now_ms, table.lag_ms);
    }
    for (const kept of [this.#byTable, this.#sparks])
      for (const name of kept.keys()) if (!names.has(name)) kept.delete(name);
  }

  #spark(table, time, lag) {
    if (!this.#sparks.has(table)) this.#sparks.set(table, new Map());
    const minutes = this.#sparks.get(table);
    const minute = Math.floor(time / SPARK_STEP_MS);
    const seen = minutes.get(minute);
    minutes.set(minute, lag === null ? (seen ?? null) : Math.max(seen ?? 0, lag));
    for (const old of minutes.keys()) if (old < minute - 60) minutes.delete(old);
  }

  /** The largest lag of each of the last 60 minutes; null where none is known. */
  sparkOf(table, now_ms) {
    const last = Math.floor(now_ms / SPARK_STEP_MS);
    const minutes = this.#sparks.get(table) ?? new Map();
    return Array.from({ length: 60 }, (_, i) => minutes.get(last - 59 + i) ?? null);
  }

  /** Fetch the minutes of all tables, as the server has seen them. */
  async loadSparks() {
    const found = await ask("api/history?step_seconds=60");
    for (const { table, time_ms, lag_ms } of found.tables)
      time_ms.forEach((time, i) => this.#spark(table, time, lag_ms[i]));
  }

  /** Fetch the points of one table. */
  async load(table) {
    const found = await ask(`api/history?table=${encodeURIComponent(table)}`);
    for (const points of found.tables) this.of(points.table).merge(points);
  }
}
