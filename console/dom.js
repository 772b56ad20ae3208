// What every page is built from: making and updating elements, and the few shared pieces (times, problems, dialogs,
// toasts, badges, tables). Text reaches the page only as text nodes, so data can never become markup.

// ---- Elements -------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

// Handlers are looked up when the event comes, not bound: `patch` can then give an element the newest ones.
const handlers = new WeakMap();
const dispatch = (event) => handlers.get(event.currentTarget)?.[event.type]?.(event);

/** An element. Props: class, on {event: f}, dataset, style {property: value}, value, and attributes by name. */
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || name === "value") continue;
    if (name === "class") element.setAttribute("class", value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "style") setStyle(element, value);
    else if (name === "on") listen(element, value);
    else if (name.startsWith("aria-")) element.setAttribute(name, String(value));
    else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  // After the children: a select takes its value only once its options are there.
  if (props?.value !== undefined && props.value !== null) element.value = props.value;
  return element;
}

function setStyle(element, style) {
  for (const [name, value] of Object.entries(style)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.style[name] = value;
  }
}

function listen(element, on) {
  handlers.set(element, on);
  for (const name of Object.keys(on)) element.addEventListener(name, dispatch);
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === true) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Empties the element and fills it with the children. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/**
 * Makes `old` look like `fresh` while keeping its nodes, so that focus, selection and scroll positions survive an
 * update. Children with `data-key` are matched by it, others by place and tag.
 */
function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return fresh;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return old;
  }
  patchAttributes(old, fresh);
  patchChildren(old, [...fresh.childNodes]);
  return old;
}

function patchAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    // `open` belongs to whoever opened the details, not to the data.
    if (name !== "open" && name !== "style" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "open" && name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  // The policy of the page forbids style attributes but not the object model.
  if (old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText;
  const known = handlers.get(old) ?? {};
  const on = handlers.get(fresh);
  if (on) {
    for (const name of Object.keys(on)) if (!(name in known)) old.addEventListener(name, dispatch);
    handlers.set(old, { ...known, ...on });
  }
}

/** `patch` for the children of an element only. */
export function patchChildren(element, ...children) {
  const fresh = children.flat(Infinity)
    .filter((child) => child !== null && child !== undefined && typeof child !== "boolean")
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
  const wanted = new Set(fresh.map(keyOf).filter(Boolean));
  const keyed = new Map();
  // What is gone goes first: then whatever stays is in place already and need not move, and moving would lose focus.
  for (const child of [...element.childNodes]) {
    const key = keyOf(child);
    if (key && wanted.has(key)) keyed.set(key, child);
    else if (key) child.remove();
  }
  let place = element.firstChild;
  for (const child of fresh) {
    const key = keyOf(child);
    const match = key ? keyed.get(key) : (place && !keyOf(place) ? place : null);
    if (match && match === place) {
      place = patch(match, child).nextSibling;
    } else if (match) {
      element.insertBefore(match, place);
      patch(match, child);
    } else {
      element.insertBefore(child, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.dataset.key : undefined;
}

// ---- Times and problems ---------------------------------------------------------------------------------------------

const local = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** A `<time>` in the reader's zone, UTC in its title; `text` shows something else, "3 min ago" for one. */
export function time(rfc3339, text) {
  const moment = new Date(rfc3339);
  if (Number.isNaN(moment.getTime())) return h("span", null, "–");
  const utc = `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  const title = text ? `${local.format(moment)} (${utc})` : utc;
  return h("time", { datetime: rfc3339, title }, text ?? local.format(moment));
}

/** One Problem or ApiError, with everything the server said about it; what it holds inside follows as a list. */
export function problem(p) {
  const place = p.place || p.pointer;
  return h("div", { class: "problem" },
    h("p", { class: "problem-head" },
      h("span", { class: "problem-code mono" }, p.code || "ERROR"),
      place && h("span", { class: "mono muted" }, ` at ${place}`)),
    h("p", null, p.message || "The server gave no message."),
    p.hint && h("p", { class: "hint" }, h("strong", null, "What helps: "), p.hint),
    p.problems?.length > 0 && problems(p.problems));
}

/** A list of problems. */
export function problems(list) {
  return h("ul", { class: "problems" }, list.map((p) => h("li", null, problem(p))));
}

/** A problem as a note of its own, where something has failed. */
export function problemNote(p) {
  return h("div", { class: "note bad" }, problem(p));
}

// ---- Dialogs and toasts ---------------------------------------------------------------------------------------------

/**
 * A modal dialog around `content`. `buttons` run from left to right: {text, class, id, value, check}; a button with
 * `check` closes only if it returns true. Resolves to the value of the button, to null when the dialog is cancelled.
 */
export function modal({ title, content, buttons }) {
  return new Promise((resolve) => {
    let answer = null;
    const close = (button) => {
      if (button.check && !button.check()) return;
      answer = button.value;
      dialog.close();
    };
    const foot = buttons.map((button) => h("button", {
      type: "button", class: button.class, id: button.id, autofocus: button.focus === true,
      on: { click: () => close(button) },
    }, button.text));
    const dialog = h("dialog", {
      "aria-labelledby": "dialog-title",
      on: { close: () => { dialog.remove(); resolve(answer); } },
    }, h("h2", { id: "dialog-title" }, title), content, h("div", { class: "row end" }, foot));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * Asks before something is done. `text` says what will happen; `action` is the word on the button. With
 * `input: {label, required}` the answer is the text typed, otherwise true; false when the reader does not want it.
 */
export async function confirmAction({ title, text, action, danger = false, input }) {
  const field = input
    && h("input", { id: "confirm-input", type: "text", autocomplete: "off", required: input.required });
  const yes = {
    text: action, class: danger ? "danger" : "primary", id: "confirm-yes", value: true, focus: !danger && !input,
    check: () => !field || field.reportValidity(),
  };
  const answer = await modal({
    title,
    content: h("div", { class: "stack" }, h("p", null, text),
      field && h("label", { for: "confirm-input" }, input.label), field),
    buttons: [{ text: "Back", class: "", id: "confirm-no", value: false, focus: danger && !input }, yes],
  });
  if (!answer) return false;
  return field ? field.value.trim() : true;
}

const TOAST_MS = 6000;

/** A short message in the live region of index.html, gone after a while; kind: "ok" (the default) or "bad". */
export function toast(text, kind = "ok") {
  const message = h("p", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(message);
  setTimeout(() => message.remove(), TOAST_MS);
}

/** Copies text and says so; where the browser forbids it, the reader is told to do it by hand. */
export async function copy(text, what) {
  try {
    // The clipboard is there on secure pages only, and consoles are often reached by plain HTTP.
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copyBySelection(text);
    toast(`${what} copied`);
  } catch {
    toast(`The browser does not allow copying here; select the ${what.toLowerCase()} and copy it by hand.`, "bad");
  }
}

function copyBySelection(text) {
  const field = h("textarea", { class: "sr-only", "aria-hidden": "true", value: text });
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  if (!copied) throw new Error("copying refused");
}

// ---- Polling --------------------------------------------------------------------------------------------------------

/**
 * Calls `f` now and then `seconds` after each call has ended, not while the tab is hidden. What `f` throws is handed to
 * `onError` and polling goes on. The returned function stops it; its `now` property polls at once.
 */
export function poll(seconds, f, onError) {
  let timer = 0;
  let stopped = false;
  let busy = false;

  const run = async () => {
    clearTimeout(timer);
    if (stopped || busy || document.hidden) return;
    busy = true;
    try {
      await f();
    } catch (error) {
      if (!stopped) onError?.(error);
    }
    busy = false;
    if (!stopped) timer = setTimeout(run, seconds * 1000);
  };
  const stop = () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", run);
  };
  document.addEventListener("visibilitychange", run);
  run();
  stop.now = run;
  return stop;
}

// ---- Badges and tables ----------------------------------------------------------------------------------------------

// Each tone has its own shape: states can be told apart without their colours.
const SHAPES = {
  wait: () => svg("circle", { cx: 6, cy: 6, r: 4, fill: "none", stroke: "currentColor", "stroke-width": 2 }),
  run: () => svg("path", { d: "M3 1.5 L10.5 6 L3 10.5 Z", fill: "currentColor" }),
  commit: () => svg("path", { d: "M6 0.5 L11.5 6 L6 11.5 L0.5 6 Z", fill: "currentColor" }),
  ok: () => svg("path", { d: "M1.5 6.5 L4.5 9.5 L10.5 2.5", fill: "none", stroke: "currentColor", "stroke-width": 2 }),
  bad: () => svg("path", { d: "M2 2 L10 10 M10 2 L2 10", fill: "none", stroke: "currentColor", "stroke-width": 2.4 }),
  warn: () => svg("path", { d: "M2.5 1 H5 V11 H2.5 Z M7 1 H9.5 V11 H7 Z", fill: "currentColor" }),
  off: () => svg("rect", { x: 2, y: 2, width: 8, height: 8, fill: "currentColor" }),
  ask: () => svg("path", { d: "M6 0.8 L11.4 10.8 H0.6 Z", fill: "currentColor" }),
};

const TONES = {
  PENDING: "wait", PLANNING: "run", PRE_SQL: "run", RUNNING: "run", COMMITTING: "commit", POST_SQL: "run",
  SUCCEEDED: "ok", FAILED: "bad", CANCELLED: "off", PAUSED: "warn", WAITING: "wait", DONE: "ok", UNDECIDED: "ask",
};

/** A state of a job or task as a chip: text, shape and colour. */
export function badge(state) {
  const tone = TONES[state] ?? "wait";
  return h("span", { class: `badge ${tone}` },
    svg("svg", { viewBox: "0 0 12 12", width: 10, height: 10, "aria-hidden": "true" }, SHAPES[tone]()),
    h("span", null, state));
}

/**
 * A table in a container that scrolls by itself and can be focused for that. Columns: {name, class, of: row => node
 * or text}. Optional `row`: row => props of its `tr` (a `data-key` in them lets `patch` follow it). `empty` is shown
 * instead of a table without rows.
 */
export function table({ caption, columns, rows, row: rowProps, empty, id }) {
  if (rows.length === 0 && empty !== undefined) return h("div", { class: "empty" }, empty);
  return h("div", { class: "table", tabindex: 0, role: "region", "aria-label": caption },
    h("table", { id },
      h("caption", { class: "sr-only" }, caption),
      h("thead", null, h("tr", null,
        columns.map((column) => h("th", { scope: "col", class: column.class }, column.name)))),
      h("tbody", null, rows.map((row) => h("tr", rowProps ? rowProps(row) : null,
        columns.map((column) => h("td", { class: column.class }, column.of(row))))))));
}
