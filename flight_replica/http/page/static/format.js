// Numbers and times as people read them. Seqs come as decimal texts, since they can be beyond 2^53.

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** A seq or count, in groups of three digits. */
export const count = (value) =>
  value === null || value === undefined ? "–" : whole.format(typeof value === "string" ? BigInt(value) : Math.round(value));

/** ms as "12 ms", "3.4 s", "5 min", "2 h"; a dash where it isn't known. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return "<1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** Bytes as "12 KiB". */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let scale = 0;
  while (value >= 1024 && scale < units.length - 1) {
    value /= 1024;
    scale += 1;
  }
  return `${value < 10 && scale ? value.toFixed(1) : Math.round(value)} ${units[scale]}`;
}

/** A time of day on this computer's clock; `ms` since 1970. */
export const timeOfDay = (ms) => clock.format(new Date(ms));

/** Ops per second. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value < 10 ? value.toFixed(1).replace(/\.0$/, "") : whole.format(Math.round(value));
}

/** "1 table", "2 tables". */
export const counted = (number, noun) => `${whole.format(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Positions of an answer: "orders at seq 12, lag 3 ms". */
export const positions = (list) =>
  list.map((at) => `${at.table} at seq ${count(at.visible_seq)}, ${at.lag_ms === null ? "lag unknown" : `lag ${duration(at.lag_ms)}`}`).join("; ");
