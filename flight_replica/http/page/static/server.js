// What the page asks the server, and the live stream with its new attempts.

const RETRY_MS_MAX = 5000;
const SILENCE_MS = 10000; // the server sends at least every second

/** An error that the server tells; `kind` is its class there. */
class ServerError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** The JSON of an address. Throws an error with the server's own line. */
export async function ask(path, { body, signal } = {}) {
  const request = { headers: { accept: "application/json" }, signal, credentials: "same-origin" };
  if (body !== undefined) {
    request.method = "POST";
    request.headers["content-type"] = "application/json";
    request.headers["x-csrf-token"] = await token();
    request.body = JSON.stringify(body);
  }
  const answer = await fetch(path, request);
  if (answer.status === 401) toLogin();
  const isJson = (answer.headers.get("content-type") ?? "").startsWith("application/json");
  const found = isJson ? await answer.json() : { message: (await answer.text()).slice(0, 500) };
  if (answer.ok && found.error === undefined) return found;
  throw new ServerError(found.error ?? "", found.message || `the server answered ${answer.status}`);
}

/** What changes have to carry; it is another one after each login, so it is asked for each time. */
export const token = async () => (await ask("api/session")).csrf;

function toLogin() {
  location.assign("login");
}

/**
 * Call `onNow(message)` with each state of the server and `onLink(isLive)` when the connection comes or goes.
 * It is made anew for as long as the page is open, also after the server was started anew.
 */
export function follow(onNow, onLink) {
  let attempt = 0;
  let watchdog;

  function connect() {
    const stream = new EventSource("api/live");
    const again = () => {
      clearTimeout(watchdog);
      stream.close();
      onLink(false);
      const wait = Math.min(250 * 2 ** attempt, RETRY_MS_MAX) * (0.5 + Math.random() / 2);
      attempt += 1;
      setTimeout(check, wait);
    };
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(again, SILENCE_MS);
    };
    alive();
    stream.addEventListener("now", (event) => {
      attempt = 0;
      alive();
      onLink(true);
      onNow(JSON.parse(event.data));
    });
    stream.addEventListener("error", again);
  }

  // EventSource doesn't tell a login that has ended from a server that is down; a plain request does.
  async function check() {
    try {
      const answer = await fetch("api/session", { credentials: "same-origin" });
      if (answer.status === 401) return toLogin();
    } catch {
      // The server isn't there: `connect` fails too, and comes back here.
    }
    return connect();
  }

  connect();
}
