// The charts: uPlot for the table that is looked at, and a small bar line for each row of the list.

import { $, el } from "./dom.js";
import { count, duration, rate } from "./format.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** One line over time. */
class Line {
  #plot = null;
  #width = 0;

  constructor(box, name, format, stroke) {
    this.box = box;
    this.name = name;
    this.format = format;
    this.stroke = stroke;
    new ResizeObserver(() => this.#fit()).observe(box);
  }

  /** Show these points from `from` to `to`, in seconds. */
  draw(times, values, from, to) {
    if (this.#plot === null) this.#make();
    this.#plot.batch(() => {
      this.#plot.setData([times, values], false);
      this.#plot.setScale("x", { min: from, max: to });
      const known = values.filter((value, i) => value !== null && times[i] >= from);
      this.#plot.setScale("y", { min: 0, max: Math.max(1, ...known) * 1.1 });
    });
  }

  /** Begin anew: in other colors. */
  restyle() {
    this.#plot?.destroy();
    this.#plot = null;
    this.box.replaceChildren();
  }

  #make() {
    this.#width = this.box.clientWidth;
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    this.#plot = new uPlot(
      {
        width: Math.max(this.#width, 200),
        height: 170,
        legend: { show: false },
        cursor: { y: false, points: { size: 7 } },
        select: { show: false },
        scales: { x: { time: true, auto: false }, y: { auto: false } },
        axes: [
          { ...axis, size: 28, values: "{HH}:{mm}", space: 60 },
          { ...axis, size: 56, space: 34, values: (_, ticks) => ticks.map(this.format) },
        ],
        series: [
          {},
          {
            label: this.name,
            stroke: color(this.stroke),
            fill: `color-mix(in srgb, ${color(this.stroke)} 14%, transparent)`,
            width: 1.5,
            points: { show: false },
            spanGaps: false,
          },
        ],
        hooks: { setCursor: [(plot) => this.#told(plot)] },
      },
      [[], []],
      this.box,
    );
  }

  #told(plot) {
    const at = plot.cursor.idx;
    const value = at === null || at === undefined ? undefined : plot.data[1][at];
    this.onPoint?.(value === undefined || value === null ? null : { time: plot.data[0][at], value });
  }

  #fit() {
    const width = this.box.clientWidth;
    if (this.#plot !== null && width > 0 && width !== this.#width) {
      this.#width = width;
      this.#plot.setSize({ width, height: 170 });
    }
  }
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** The two charts of one table. */
export class TableCharts {
  minutes = 60;
  #lag = new Line($("lag-chart"), "lag", (value) => count(value), "--accent");
  #ops = new Line($("ops-chart"), "ops", (value) => rate(value), "--ok");

  constructor() {
    const note = (id, format) => (point) =>
      ($(id).textContent = point === null ? "" : `${format(point.value)} at ${CLOCK.format(point.time * 1000)}`);
    this.#lag.onPoint = note("lag-note", duration);
    this.#ops.onPoint = note("ops-note", (value) => `${rate(value)}/s`);
  }

  draw(points, now_ms) {
    const to = now_ms / 1000;
    const from = to - this.minutes * 60;
    const [times, lags, rates] = withBreaks(points);
    this.#lag.draw(times, lags, from, to);
    this.#ops.draw(times, rates, from, to);
    const lagged = points.lags.filter((lag, i) => lag !== null && points.times[i] >= from * 1000);
    const text = lagged.length
      ? `Lag over ${this.minutes} minutes: now ${duration(points.lags.at(-1))}, at most ${duration(Math.max(...lagged))}`
      : "Lag over time: not known yet";
    $("lag-chart").setAttribute("aria-label", text);
    const rated = points.rates.filter((value, i) => value !== null && points.times[i] >= from * 1000);
    $("ops-chart").setAttribute(
      "aria-label",
      rated.length ? `Ops per second: now ${rate(points.rates.at(-1))}, at most ${rate(Math.max(...rated))}` : "Ops per second: not known yet",
    );
  }

  restyle() {
    this.#lag.restyle();
    this.#ops.restyle();
  }
}

const BREAK_MS = 15_000; // no sample for so long: the server wasn't there, and the line is broken

/** Times in seconds with values; a point without a value where samples are missing. */
function withBreaks({ times, lags, rates }) {
  const columns = [[], [], []];
  times.forEach((time, i) => {
    if (i > 0 && time - times[i - 1] > BREAK_MS) [times[i - 1] / 1000 + 1, null, null].forEach((v, c) => columns[c].push(v));
    [time / 1000, lags[i], rates[i]].forEach((value, c) => columns[c].push(value));
  });
  return columns;
}

const SVG = "http://www.w3.org/2000/svg";

/** An empty small chart of 60 bars. */
export function makeSpark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 120 24");
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.append(document.createElementNS(SVG, "path"));
  return el("span", {}, svg);
}

/** Put the lags of 60 minutes (ms, null: unknown) into it; logarithmic, from 1 ms to 1 h. */
export function fillSpark(span, lags) {
  const top = Math.log10(3.6e6);
  const bars = lags.map((lag, i) => {
    if (lag === null) return "";
    const height = 1.5 + (22.5 * Math.min(Math.log10(Math.max(lag, 1)), top)) / top;
    return `M${i * 2 + 1} 24V${(24 - height).toFixed(1)}`;
  });
  const svg = span.firstElementChild;
  svg.firstElementChild.setAttribute("d", bars.join(""));
  const known = lags.filter((lag) => lag !== null);
  svg.setAttribute("aria-label", known.length ? `at most ${duration(Math.max(...known))} in the last hour` : "not known");
}
