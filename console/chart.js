// The throughput chart: rows/s and MB/s over the job's time, read and loaded, drawn as SVG. The server's samples are
// cumulative counts at uneven moments; rates are differences between evenly spaced moments, so nothing is lost by
// thinning. Workers tell of running tasks every few seconds only, so a rate looks back over more than one such time.

import { h, replace, svg, table } from "./dom.js";
import { lineAt } from "./lines.js";
import { count, duration } from "./numbers.js";

const SERIES = [
  { name: "read", label: "Read", rows: "rows_read", bytes: "bytes_read" },
  { name: "loaded", label: "Loaded", rows: "rows_loaded", bytes: "bytes_loaded" },
];
const PLOTS = [
  { key: "rows", title: "rows/s", scale: 1 },
  { key: "bytes", title: "MB/s", scale: 1 / (1024 * 1024) },
];
const PLOT_HEIGHT = 104;
const PLOT_GAP = 34;
const LEFT = 52;
const RIGHT = 12;
const TOP = 22;
const SAMPLES_MAX = 1200;
const POINTS_MAX = 80;
const RATE_SECONDS = 6;
const TABLE_ROWS = 12;

// ---- Numbers: pure --------------------------------------------------------------------------------------------------

/** The cumulative count `field` at a moment, on a straight line between the samples around it. */
function at(samples, field, seconds) {
  const before = Math.min(lineAt(samples, seconds, (sample) => sample.seconds), samples.length - 2);
  const [a, b] = [samples[before], samples[before + 1]];
  if (b.seconds === a.seconds) return b[field];
  return a[field] + (b[field] - a[field]) * Math.min(1, Math.max(0, (seconds - a.seconds) / (b.seconds - a.seconds)));
}

/** At most `points` rates per second: [{seconds, read: {rows, bytes}, loaded: {..}}], each at the end of its span. */
function rates(samples, points) {
  if (samples.length < 2) return [];
  const [first, last] = [samples[0].seconds, samples.at(-1).seconds];
  const n = Math.min(points, samples.length - 1);
  const span = (last - first) / n;
  if (!(span > 0)) return [];
  return Array.from({ length: n }, (_, i) => {
    const to = first + (i + 1) * span;
    const from = Math.max(first, to - Math.max(span, RATE_SECONDS));
    const point = { seconds: to };
    for (const series of SERIES) {
      point[series.name] = {};
      for (const { key, scale } of PLOTS) {
        const gained = at(samples, series[key], to) - at(samples, series[key], from);
        point[series.name][key] = Math.max(0, gained / (to - from) * scale);
      }
    }
    return point;
  });
}

/** Round tick values from 0 to at least `max`. */
function ticks(max, wanted) {
  const rough = Math.max(max, 1e-9) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  return Array.from({ length: Math.ceil(max / step - 1e-9) + 1 }, (_, i) => i * step);
}

const SECOND_STEPS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800,
];

function timeTicks(first, last, wanted) {
  const step = SECOND_STEPS.find((n) => n >= (last - first) / wanted) ?? SECOND_STEPS.at(-1);
  const list = [];
  for (let t = Math.ceil(first / step) * step; t <= last; t += step) list.push(t);
  return list;
}

function short(n) {
  if (n >= 1e6) return `${+(n / 1e6).toPrecision(3)}M`;
  if (n >= 1e3) return `${+(n / 1e3).toPrecision(3)}k`;
  return `${+n.toPrecision(3)}`;
}

function shortTime(seconds) {
  if (seconds === 0) return "0";
  if (seconds % 86400 === 0) return `${seconds / 86400} d`;
  if (seconds % 3600 === 0) return `${seconds / 3600} h`;
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.round(seconds % 3600 / 60)} min`;
  if (seconds % 60 === 0) return `${seconds / 60} min`;
  return seconds > 60 ? `${Math.floor(seconds / 60)} min ${seconds % 60} s` : `${seconds} s`;
}

// ---- The chart on the page ------------------------------------------------------------------------------------------

/** {element, reset(samples), add(sample), stop()}; samples as GET /jobs/ID/throughput gives them. */
export function throughputChart() {
  let samples = [];
  let points = [];
  let width = 0;
  let chosen = -1;
  const hidden = new Set();

  const drawing = svg("svg", {
    class: "chart", role: "img", tabindex: 0, height: TOP + 2 * PLOT_HEIGHT + PLOT_GAP + 24,
    on: {
      pointermove: (event) => choose(nearest(event)),
      pointerleave: () => { if (document.activeElement !== drawing) choose(-1); },
      keydown: walk,
      focus: () => { if (chosen < 0) choose(points.length - 1); },
      blur: () => choose(-1),
    },
  });
  const frame = h("div", { class: "chart-frame" }, drawing);
  const readout = h("p", { class: "readout" });
  const toggle = (name, button) => {
    if (!hidden.delete(name)) hidden.add(name);
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
    draw();
  };
  const switches = SERIES.map(({ name, label }) => h("button", {
    type: "button", class: "small quiet legend-button", "aria-pressed": "true",
    on: { click: (event) => toggle(name, event.currentTarget) },
  }, svg("svg", { width: 22, height: 10, "aria-hidden": "true" },
    svg("line", { class: `line ${name}`, x1: 0, x2: 22, y1: 5, y2: 5 })), label));
  const legend = h("div", { class: "row", role: "group", "aria-label": "Lines shown" }, switches);
  const none = h("p", { class: "muted" },
    "No samples. They are taken while rows move and kept in the coordinator's memory only.");
  const numbers = h("div");
  const details = h("details", { on: { toggle: () => tabulate() } }, h("summary", null, "As numbers"), numbers);
  const element = h("div", { class: "stack" }, legend, none, frame, readout, details);

  const span = () => [samples[0]?.seconds ?? 0, samples.at(-1)?.seconds ?? 1];
  const x = (seconds) => {
    const [first, last] = span();
    return LEFT + (seconds - first) / Math.max(1e-9, last - first) * (width - LEFT - RIGHT);
  };

  function draw() {
    points = rates(samples, POINTS_MAX);
    none.hidden = points.length > 0;
    frame.hidden = readout.hidden = details.hidden = legend.hidden = points.length === 0;
    width = frame.clientWidth;
    if (points.length === 0 || width === 0) return;
    drawing.setAttribute("width", width);
    drawing.setAttribute("viewBox", `0 0 ${width} ${drawing.getAttribute("height")}`);
    replace(drawing, PLOTS.map(plot), axis(), svg("line", { class: "pointer" }));
    drawing.setAttribute("aria-label", `Throughput over time. ${describe(points.at(-1), "Last")}. `
      + "Left and right arrows read out other moments; a table follows.");
    tell();
    tabulate();
  }

  function plot({ key, title }, index) {
    const top = TOP + index * (PLOT_HEIGHT + PLOT_GAP);
    const shown = SERIES.filter((series) => !hidden.has(series.name));
    const values = points.flatMap((point) => shown.map((series) => point[series.name][key]));
    const marks = ticks(Math.max(1, ...values), 3);
    const y = (value) => top + PLOT_HEIGHT - value / marks.at(-1) * PLOT_HEIGHT;
    const lines = shown.map((series) => {
      const [from, to] = [x(points[0].seconds).toFixed(1), x(points.at(-1).seconds).toFixed(1)];
      const path = `M${points.map((point) => `${x(point.seconds).toFixed(1)} ${y(point[series.name][key]).toFixed(1)}`)
        .join("L")}`;
      const ground = top + PLOT_HEIGHT;
      return [
        series.name === "read" && points.length > 1 && svg("path", {
          class: "area", d: `${path}L${to} ${ground}L${from} ${ground}Z`,
        }),
        svg("path", { class: `line ${series.name}`, d: path }),
      ];
    });
    return svg("g", null,
      svg("text", { class: "axis-title", x: 0, y: top - 10 }, title),
      marks.map((mark) => [
        svg("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: y(mark), y2: y(mark) }),
        svg("text", { class: "tick", x: LEFT - 6, y: y(mark) + 4, "text-anchor": "end" }, short(mark)),
      ]),
      lines);
  }

  function axis() {
    const bottom = TOP + 2 * PLOT_HEIGHT + PLOT_GAP;
    const [first, last] = span();
    return svg("g", null, timeTicks(first, last, Math.max(2, width / 110)).map((seconds) => [
      svg("line", { class: "rule", x1: x(seconds), x2: x(seconds), y1: bottom, y2: bottom + 4 }),
      svg("text", { class: "tick", x: x(seconds), y: bottom + 18, "text-anchor": "middle" }, shortTime(seconds)),
    ]));
  }

  function describe(point, when) {
    return `${when}: ${SERIES.map((series) => `${series.label.toLowerCase()} ${count(point[series.name].rows)} rows/s, `
      + `${point[series.name].bytes.toFixed(1)} MB/s`).join("; ")}`;
  }

  function tell() {
    const line = drawing.querySelector(".pointer");
    const point = points[chosen];
    // Live only while it is read by hand, else every new sample would be spoken.
    if (point) readout.setAttribute("aria-live", "polite");
    else readout.removeAttribute("aria-live");
    readout.textContent = point ? describe(point, `At ${duration(point.seconds)}`)
      : describe(points.at(-1), `Last, at ${duration(points.at(-1).seconds)}`);
    if (!line) return;
    const place = x((point ?? points.at(-1)).seconds);
    const ends = { x1: place, x2: place, y1: TOP, y2: TOP + 2 * PLOT_HEIGHT + PLOT_GAP };
    for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
    line.setAttribute("visibility", point ? "visible" : "hidden");
  }

  function choose(index) {
    if (index === chosen || points.length === 0) return;
    chosen = index;
    tell();
  }

  function nearest(event) {
    const px = event.clientX - drawing.getBoundingClientRect().left;
    let best = -1;
    points.forEach((point, i) => {
      if (best < 0 || Math.abs(x(point.seconds) - px) < Math.abs(x(points[best].seconds) - px)) best = i;
    });
    return best;
  }

  function walk(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(Math.min(points.length - 1, Math.max(0, (chosen < 0 ? points.length - 1 : chosen) + step)));
  }

  function tabulate() {
    if (!details.open) return;
    const value = (series, key) => (point) => (
      key === "rows" ? count(point[series].rows) : point[series].bytes.toFixed(1));
    replace(numbers, table({
      caption: "Throughput as numbers", rows: rates(samples, TABLE_ROWS),
      columns: [
        { name: "Until", of: (point) => duration(point.seconds) },
        { name: "Read rows/s", class: "num", of: value("read", "rows") },
        { name: "Loaded rows/s", class: "num", of: value("loaded", "rows") },
        { name: "Read MB/s", class: "num", of: value("read", "bytes") },
        { name: "Loaded MB/s", class: "num", of: value("loaded", "bytes") },
      ],
    }));
  }

  const observer = new ResizeObserver(() => { if (frame.clientWidth !== width) draw(); });
  observer.observe(element);
  draw();

  return {
    element,
    reset(list) {
      samples = [...list];
      draw();
    },
    add(sample) {
      const last = samples.at(-1);
      if (last && sample.seconds - last.seconds < 1) return;
      samples.push(sample);
      if (samples.length > SAMPLES_MAX) samples = samples.filter((_, i) => i % 2 === 0 || i === samples.length - 1);
      draw();
    },
    stop: () => observer.disconnect(),
  };
}
