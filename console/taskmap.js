// The task map: one cell per task on a canvas, in the order of their ids, its area by the rows the plan expects of it
// (within bounds, so that the smallest can still be seen), its colour by state. Large cells carry the state's letter.
// Layout works in device pixels: with 100,000 tasks every pixel counts.

import { h, patchChildren, problem, replace } from "./dom.js";
import { lineAt } from "./lines.js";
import { count, many } from "./numbers.js";

const STATES = {
  W: "Waiting", R: "Running", C: "Committing", D: "Done", F: "Failed", U: "Undecided",
};
const COLOURS = {
  W: "var(--cell-wait)", R: "var(--run)", C: "var(--commit)", D: "var(--ok)", F: "var(--bad)", U: "var(--warn)",
  mark: "var(--panel)", text: "var(--text)",
};
// In CSS pixels.
const HEIGHT_MAX = 360;
const UNIT_MAX = 12;
const LETTER_FROM = 14;
// A task of average size is two units wide; no cell is less than half or more than three times that.
const WEIGHT_AVERAGE = 2;
const WEIGHT_MAX = 6;
const REST_MS = 150;

// ---- Layout: pure ---------------------------------------------------------------------------------------------------

function weigh(rows) {
  const weights = new Uint8Array(rows.length).fill(WEIGHT_AVERAGE);
  let sum = 0;
  for (const n of rows) sum += n;
  if (sum === 0) return weights;
  const scale = WEIGHT_AVERAGE * rows.length / sum;
  for (let i = 0; i < rows.length; i += 1) {
    weights[i] = Math.min(WEIGHT_MAX, Math.max(1, Math.round(rows[i] * scale)));
  }
  return weights;
}

/**
 * Puts cells of `weights[i] * unit` by `line` pixels into lines of at most `width`; `starts` holds each line's first
 * task. All lines but the last are then stretched to the full width, so that the map has a straight edge.
 */
function place(weights, unit, line, width) {
  const n = weights.length;
  const x = new Uint32Array(n);
  const wide = new Uint32Array(n);
  const starts = [0];
  let used = 0;
  const stretch = (from, to) => {
    let at = 0;
    for (let i = from; i < to; i += 1) {
      x[i] = Math.round(at * width / used);
      at += weights[i] * unit;
      wide[i] = Math.round(at * width / used) - x[i];
    }
  };
  for (let i = 0; i < n; i += 1) {
    if (used + weights[i] * unit > width && used > 0) {
      stretch(starts.at(-1), i);
      starts.push(i);
      used = 0;
    }
    used += weights[i] * unit;
  }
  used = width;
  stretch(starts.at(-1), n);
  return { x, wide, starts, unit, line, height: starts.length * line };
}

/** The layout with the largest cells that stays within `heightMax`; equal cells where weights leave no room. */
function arrange(rows, width, heightMax, unitMax) {
  const weights = weigh(rows);
  const units = weights.reduce((sum, weight) => sum + weight, 0);
  let unit = Math.min(unitMax, Math.ceil(Math.sqrt(width * heightMax / (2 * Math.max(1, units)))));
  for (; unit >= 1; unit -= 1) {
    if (WEIGHT_MAX * unit > width) continue;
    const cells = place(weights, unit, 2 * unit, width);
    if (cells.height <= heightMax) return cells;
  }
  const side = Math.max(1, Math.floor(Math.sqrt(width * heightMax / rows.length)));
  return place(new Uint8Array(rows.length).fill(1), side, side, width);
}

/** The task at a point, -1 where there is none. */
function taskAt(cells, px, py) {
  const line = Math.floor(py / cells.line);
  if (line < 0 || line >= cells.starts.length) return -1;
  const end = cells.starts[line + 1] ?? cells.x.length;
  for (let i = cells.starts[line]; i < end; i += 1) {
    if (px >= cells.x[i] && px < cells.x[i] + cells.wide[i]) return i;
  }
  return -1;
}

// ---- Drawing --------------------------------------------------------------------------------------------------------

const drawn = new WeakMap();

/** Colours are tokens that depend on the theme; a canvas needs them resolved. */
function resolve(canvas) {
  const colours = {};
  for (const [name, value] of Object.entries(COLOURS)) {
    canvas.style.color = value;
    colours[name] = getComputedStyle(canvas).color;
  }
  canvas.style.color = "";
  return colours;
}

/**
 * Draws every cell; returns the milliseconds it took, which are also in `canvas.dataset.renderMs`. Exported because a
 * test measures it by itself.
 */
export function render(canvas, states, rows) {
  const begun = performance.now();
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.floor((canvas.parentElement?.clientWidth || canvas.clientWidth || 300) * ratio));
  const known = drawn.get(canvas);
  const cells = known?.rows === rows && known.width === width
    ? known.cells : arrange(rows, width, HEIGHT_MAX * ratio, Math.round(UNIT_MAX * ratio));
  const context = canvas.getContext("2d");
  const view = { rows, width, ratio, cells, context, colours: resolve(canvas) };
  drawn.set(canvas, view);
  canvas.width = width;
  canvas.height = Math.max(1, cells.height);
  canvas.style.width = `${width / ratio}px`;
  canvas.style.height = `${canvas.height / ratio}px`;
  // One state after the other: changing the colour costs more than filling a cell.
  for (const letter of Object.keys(STATES)) {
    context.fillStyle = view.colours[letter];
    let line = 0;
    for (let i = 0; i < rows.length; i += 1) {
      if (i === cells.starts[line + 1]) line += 1;
      if (states[i] === letter) fill(view, i, line);
    }
  }
  let line = 0;
  for (let i = 0; i < rows.length; i += 1) {
    if (i === cells.starts[line + 1]) line += 1;
    mark(view, i, line, states[i]);
  }
  const milliseconds = performance.now() - begun;
  canvas.dataset.renderMs = milliseconds.toFixed(1);
  return milliseconds;
}

function fill({ cells, context }, index, line) {
  const gap = cells.unit >= 3 ? 1 : 0;
  context.fillRect(cells.x[index], line * cells.line, cells.wide[index] - gap, cells.line - gap);
}

/** What tells states apart without colour: the letter where it fits, else a stroke or a dot for what needs a human. */
function mark({ cells, context, colours, ratio }, index, line, letter) {
  const [x, y] = [cells.x[index], line * cells.line];
  const wide = cells.wide[index];
  if (cells.line >= LETTER_FROM * ratio && wide >= LETTER_FROM * 0.7 * ratio) {
    context.fillStyle = letter === "W" ? colours.text : colours.mark;
    context.font = `600 ${Math.round((wide < 16 * ratio ? 9 : 11) * ratio)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(letter, x + (wide - 1) / 2, y + cells.line / 2);
  } else if ((letter === "F" || letter === "U") && cells.line >= 6) {
    context.fillStyle = colours.mark;
    const side = Math.max(2, Math.floor(cells.line / 3));
    if (letter === "U") context.fillRect(x + (wide - side) / 2, y + (cells.line - side) / 2, side, side);
    else context.fillRect(x, y + (cells.line - side) / 2, wide - 1, Math.max(1, side / 2));
  }
}

function redraw(canvas, index, letter) {
  const view = drawn.get(canvas);
  const { cells, context } = view;
  const line = lineAt(cells.starts, index);
  context.clearRect(cells.x[index], line * cells.line, cells.wide[index], cells.line);
  context.fillStyle = view.colours[letter];
  fill(view, index, line);
  mark(view, index, line, letter);
}

// ---- The map on the page --------------------------------------------------------------------------------------------

/**
 * The map with its legend and readout. `fetchTask(id)` promises the task's details, or null. Returns {element, reset,
 * change, stop}: `reset(states, rows)` takes a new plan, `change([[id, letter], ...])` what has moved since.
 */
export function taskMap(fetchTask) {
  let states = [];
  let rows = [];
  let counts = {};
  let chosen = -1;
  let resting = 0;

  const canvas = h("canvas", {
    id: "task-map", tabindex: 0, role: "img",
    on: {
      pointermove: (event) => choose(taskUnder(event)),
      pointerleave: () => { if (document.activeElement !== canvas) choose(-1); },
      click: (event) => choose(taskUnder(event)),
      keydown: walk,
      focus: () => { if (chosen < 0 && rows.length > 0) choose(0); },
      blur: () => choose(-1),
    },
  });
  const cursor = h("div", { class: "map-cursor", hidden: true });
  const frame = h("div", { class: "map-frame" }, canvas, cursor);
  const legend = h("ul", { class: "legend", "aria-label": "Tasks by state" });
  const readout = h("div", { class: "readout", "aria-live": "polite" });
  const none = h("p", { class: "muted" }, "No tasks yet: the plan is not made.");
  const element = h("div", { class: "stack" }, legend, none, frame, readout);

  const draw = () => {
    none.hidden = rows.length > 0;
    frame.hidden = readout.hidden = legend.hidden = rows.length === 0;
    if (rows.length === 0) return;
    render(canvas, states, rows);
    outline();
  };
  const tell = () => {
    const told = Object.entries(STATES).filter(([letter]) => counts[letter] > 0);
    patchChildren(legend, told.map(([letter, name]) => h("li", { dataset: { key: letter } },
      h("span", { class: `swatch ${letter}`, "aria-hidden": "true" }, letter),
      `${name} `, h("b", null, count(counts[letter])))));
    canvas.setAttribute("aria-label", `Map of ${many(rows.length, "task")}: `
      + `${told.map(([letter, name]) => `${count(counts[letter])} ${name.toLowerCase()}`).join(", ")}. `
      + "Arrow keys go from task to task, the details follow below.");
  };

  function taskUnder(event) {
    const view = drawn.get(canvas);
    if (!view) return -1;
    const box = canvas.getBoundingClientRect();
    return taskAt(view.cells, (event.clientX - box.left) * view.ratio, (event.clientY - box.top) * view.ratio);
  }

  function walk(event) {
    const { cells } = drawn.get(canvas) ?? {};
    if (!cells) return;
    const from = Math.max(0, chosen);
    const line = lineAt(cells.starts, from);
    const beside = (step) => taskAt(cells, cells.x[from], (line + step) * cells.line);
    const to = {
      ArrowRight: () => from + 1, ArrowLeft: () => from - 1, ArrowDown: () => beside(1), ArrowUp: () => beside(-1),
      Home: () => 0, End: () => rows.length - 1,
    }[event.key];
    if (!to) return;
    event.preventDefault();
    const index = to();
    if (index >= 0 && index < rows.length) choose(index);
  }

  function outline() {
    const view = drawn.get(canvas);
    cursor.hidden = chosen < 0 || !view;
    if (cursor.hidden) return;
    const { cells, ratio } = view;
    cursor.style.left = `${cells.x[chosen] / ratio}px`;
    cursor.style.top = `${lineAt(cells.starts, chosen) * cells.line / ratio}px`;
    cursor.style.width = `${cells.wide[chosen] / ratio}px`;
    cursor.style.height = `${cells.line / ratio}px`;
  }

  function choose(index) {
    if (index === chosen) return;
    chosen = index;
    outline();
    clearTimeout(resting);
    if (chosen < 0) {
      replace(readout, h("span", { class: "muted" }, "Point at a cell, or focus the map and use the arrow keys."));
      return;
    }
    replace(readout, `Task ${chosen} `, h("b", null, STATES[states[chosen]]), `, about ${count(rows[chosen])} rows`);
    // Details are asked for once the pointer rests; crossing the map would be hundreds of requests.
    resting = setTimeout(() => detail(index), REST_MS);
  }

  async function detail(index) {
    let told;
    try {
      const task = await fetchTask(index);
      told = task && details(task);
    } catch (error) {
      told = problem(error);
    }
    if (index === chosen && told) replace(readout, told);
  }

  const observer = new ResizeObserver(() => {
    if (drawn.get(canvas)?.width !== Math.floor(frame.clientWidth * (window.devicePixelRatio || 1))) draw();
  });
  observer.observe(frame);
  window.addEventListener("starlift:theme", draw);
  chosen = 0;
  choose(-1);
  draw();

  return {
    element,
    reset(letters, estimates) {
      states = [...letters];
      rows = estimates;
      counts = {};
      for (const letter of states) counts[letter] = (counts[letter] ?? 0) + 1;
      if (chosen >= rows.length) choose(-1);
      draw();
      tell();
    },
    change(list) {
      for (const [index, letter] of list) {
        if (index >= rows.length) continue;
        counts[states[index]] -= 1;
        counts[letter] = (counts[letter] ?? 0) + 1;
        states[index] = letter;
        redraw(canvas, index, letter);
      }
      tell();
    },
    stop() {
      clearTimeout(resting);
      observer.disconnect();
      window.removeEventListener("starlift:theme", draw);
    },
  };
}

function details(task) {
  const facts = [
    `${count(task.rows_read)} of about ${many(task.rows_estimate, "row")} read`,
    task.worker_id && `worker ${task.worker_id}`,
    task.attempts > 0 && many(task.attempts, "failed attempt"),
    task.epoch > 0 && `epoch ${count(task.epoch)}`,
    task.error && `${task.error.code}: ${task.error.message}`,
  ].filter(Boolean);
  return [`Task ${task.task_id} `, h("b", null, task.state), " ", h("span", { class: "mono" }, task.range),
    `, ${facts.join(", ")}`];
}
