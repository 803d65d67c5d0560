// The page: joins the live stream with its parts.

import { Connect } from "./connect.js";
import { $, copy, el, keep, say, show } from "./dom.js";
import { Events } from "./events.js";
import { counted, duration } from "./format.js";
import { Queries } from "./queries.js";
import { Samples } from "./samples.js";
import { follow, token } from "./server.js";
import { SqlBox } from "./sql.js";
import { Tables } from "./tables.js";

const samples = new Samples();
const trouble = (error) => say($("verdict-more"), error.message);
const tables = new Tables(samples, trouble);
const queries = new Queries(trouble);
const events = new Events();
const sqlBox = new SqlBox();
const connect = new Connect();
let run = null; // which start of the server is shown
let isLive = false;

follow(onNow, onLink);

function onNow(now) {
  if (now.server.run !== run) begin(now);
  samples.add(now.server.now_ms, now.tables);
  tables.update(now.server.now_ms, now.tables);
  queries.update(now);
  events.update(now.server.run, now.events);
  verdict(now);
  if (now.tables.length) sqlBox.suggest(now.tables[0].name);
}

function begin({ server }) {
  run = server.run;
  say($("product"), server.product);
  say($("version"), server.version);
  say($("address"), server.uri);
  say($("user"), server.user);
  show($("logout"), server.user !== "");
  document.title = `${server.product} · ${server.uri.replace(/^.*\/\//, "")}`;
  tables.showLast(Math.min((server.now_ms - server.started_ms) / 60_000, 60));
  samples.loadSparks().catch(trouble);
  tables.reload();
  connect.load().catch(trouble);
}

function onLink(isUp) {
  if (!isUp || !isLive) say($("live"), isUp ? "live" : "server not reached, trying again…");
  $("live").dataset.live = String(isUp);
  if (!isUp && isLive) {
    $("verdict").dataset.health = "unknown";
    say($("verdict-text"), "The server isn't reached");
    say($("verdict-more"), "What stands here is what it said last. The page goes on by itself when it is back.");
  }
  isLive = isUp;
}

const ORDER = ["bad", "warning", "ok"];

function verdict({ server, tables: all, advice }) {
  const worst = ORDER.find((level) => advice.some((line) => line.level === level)) ?? "ok";
  const ill = all.filter((table) => table.health !== "ok");
  const known = all.map((table) => table.lag_ms).filter((lag) => lag !== null);
  $("verdict").dataset.health = server.is_draining ? "warning" : all.length === 0 ? "unknown" : worst;
  say($("verdict-text"), server.is_draining ? "Shutting down: what runs may finish" : headline(all, ill));
  const lag = known.length && server.product !== "primary" ? `largest lag ${duration(Math.max(...known))} · ` : "";
  say($("verdict-more"), `${lag}up for ${duration(server.now_ms - server.started_ms)}`);
  keep($("advice"), advice, (line) => line.help,
    () => el("li", {}, el("b"), el("span"), el("a", { text: "More" })),
    (item, line) => {
      const [table, text, more] = item.children;
      item.dataset.level = line.level;
      say(table, namesOf(line.tables));
      say(text, line.text);
      more.setAttribute("href", `page/help.html#${encodeURIComponent(line.help)}`);
      more.setAttribute("aria-label", `More about ${line.help.replaceAll("-", " ")}`);
    });
}

function headline(all, ill) {
  if (all.length === 0) return "No tables yet";
  if (ill.length === 0) return `All well: ${counted(all.length, "table")}`;
  return `${ill.length} of ${counted(all.length, "table")} not well: ${namesOf(ill.map((table) => table.name))}`;
}

/** The first of some names. */
const namesOf = (names) => names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");

$("copy-address").addEventListener("click", () => copy($("address").textContent, $("copy-address")));

$("logout").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("logout-token").value = await token();
  $("logout").submit();
});

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // No storage in this browser: the choice lasts for as long as the page.
  }
  tables.restyle();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => tables.restyle());
