// The way to the coordinator: REST calls, the session, and event streams. Never touches the page: what the reader must
// know (log in, coordinator gone) is told by window events, which app.js turns into the login page and the banner.

const BASE = "/api/v1";

/** What GET /session said last; app.js fills it before the first page is shown. */
export const session = { role: "read", login: false, version: "", grpc: "" };

/** Whether this token may change anything. The server decides; this only spares the reader a refused click. */
export function mayAct() {
  return session.role === "user";
}

export const MAY_ONLY_LOOK = "Your token may only look.";

/** Props of a button that changes something: disabled, with the reason, where the token may only look. */
export function actingProps() {
  return { disabled: !mayAct(), title: mayAct() ? null : MAY_ONLY_LOOK };
}

/** What the server answered, or (status 0) why there is no answer. */
class ApiError extends Error {
  constructor(status, body) {
    super(body.message || `the coordinator answered with status ${status}`);
    this.status = status;
    this.code = body.code || (status === 0 ? "UNREACHABLE" : `HTTP_${status}`);
    this.hint = body.hint || "";
    this.pointer = body.pointer || "";
    this.problems = Array.isArray(body.problems) ? body.problems : [];
  }
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body ?? {});
export const remove = (path) => call("DELETE", path, {});

async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(BASE + path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin",
    });
  } catch {
    const lost = new ApiError(0, {
      message: "The coordinator cannot be reached.",
      hint: "Check that it runs and that this page was opened at its address; the page keeps trying.",
    });
    tellReach(lost);
    throw lost;
  }
  const document = await readJson(reply);
  if (reply.ok) {
    tellReach(null);
    return document ?? {};
  }
  const error = new ApiError(reply.status, document ?? {});
  // Asking for the session is how the login page itself tries a token: that answer is no news to the window.
  if (reply.status === 401 && path !== "/session") window.dispatchEvent(new Event("starlift:login"));
  tellReach(reply.status === 503 ? error : null);
  throw error;
}

async function readJson(reply) {
  const text = await reply.text();
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    // A proxy in between may answer in HTML; its status still tells what is wrong.
    return null;
  }
}

function tellReach(error) {
  window.dispatchEvent(new CustomEvent("starlift:reach", { detail: error }));
}

const RECONNECT_MS = 3000;

/**
 * Listens to an event stream until the returned function is called. `handlers` by event name get parsed JSON;
 * `onState` hears "open" and "lost". The browser reconnects after a broken connection; after an error status it gives
 * up, so we try again ourselves.
 */
export function events(path, handlers, onState) {
  let source = null;
  let timer = 0;
  let closed = false;

  const connect = () => {
    source = new EventSource(BASE + path);
    source.onopen = () => onState?.("open");
    source.onerror = () => {
      if (closed) return;
      onState?.("lost");
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(connect, RECONNECT_MS);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => { if (!closed) handle(JSON.parse(event.data)); });
    }
  };
  connect();

  return () => {
    closed = true;
    clearTimeout(timer);
    source.close();
  };
}
