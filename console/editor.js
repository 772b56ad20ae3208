// The code editor: a plain textarea, so that typing, undo, selection, search and screen readers work as the browser
// makes them, and under it a backdrop of the same metrics that shows colours and faults. It never changes the text by
// itself.
//
// Only the lines near the visible ones are drawn: a script may have 1 MB, and drawing must keep up with typing.

import { h, replace } from "./dom.js";
import { lineAt } from "./lines.js";

// Lines drawn above and below the visible ones. A script of ordinary size is always drawn as a whole.
const LINES_AROUND = 300;
// Longer lines are drawn without colours; faults in them are still underlined.
const LINE_COLOURED = 5000;
const INDENT = "  ";
// A key, a text (perhaps not closed yet), or another scalar of JSON.
const PIECES = /("(?:[^"\\]|\\.)*")(?=\s*:)|("(?:[^"\\]|\\.)*"?)|-?\d[\d.eE+-]*|true|false|null/g;

/**
 * `onInput(text)` hears every change by the reader. The returned object: `element`; `setText(text)` for a text from
 * elsewhere (no undo); `replaceText(text)` as if typed (undo works); `mark(faults)` with the faults of POST /validate
 * for the present text; `jump(fault)`; `close()`.
 */
export function createEditor({ id, label, describedBy, onInput }) {
  const gutter = h("div", { class: "editor-gutter", "aria-hidden": "true" });
  const backdrop = h("pre", { class: "editor-backdrop", "aria-hidden": "true" });
  const area = h("textarea", {
    id, class: "editor-text", "aria-label": label, "aria-describedby": describedBy, spellcheck: "false",
    autocomplete: "off", autocapitalize: "off", autocorrect: "off", wrap: "off",
    on: { input: changed, scroll: follow, keydown: keyPressed, blur: () => { tabLeaves = false; } },
  });
  const element = h("div", { class: "editor" },
    h("div", { class: "editor-side" }, gutter),
    h("div", { class: "editor-main" }, h("div", { class: "editor-under" }, backdrop), area));

  let lines = [""];
  let starts = [0];
  let faults = [];
  let drawn = { from: 0, to: 0 };
  let lineHeight = 0;
  let tabLeaves = false;

  function measure() {
    lineHeight = parseFloat(getComputedStyle(area).lineHeight) || 20;
  }

  function split() {
    lines = area.value.split("\n");
    starts = new Array(lines.length);
    let at = 0;
    for (let i = 0; i < lines.length; i++) {
      starts[i] = at;
      at += lines[i].length + 1;
    }
    element.style.setProperty("--digits", String(Math.max(2, String(lines.length).length)));
  }

  function changed() {
    // Marks of an older text would point at the wrong place until the next answer comes.
    faults = [];
    split();
    draw();
    onInput(area.value);
  }

  function visible() {
    const first = Math.floor(area.scrollTop / lineHeight);
    return { first, last: first + Math.ceil(area.clientHeight / lineHeight) };
  }

  function draw() {
    if (!lineHeight) measure();
    const { first, last } = visible();
    drawn = { from: Math.max(0, first - LINES_AROUND), to: Math.min(lines.length, last + LINES_AROUND) };
    const near = faults.filter((fault) => fault.first < drawn.to && fault.last >= drawn.from);
    const rows = document.createDocumentFragment();
    const numbers = document.createDocumentFragment();
    for (let i = drawn.from; i < drawn.to; i++) {
      const here = near.filter((fault) => fault.first <= i && i <= fault.last);
      drawLine(rows, lines[i], starts[i], here);
      rows.append("\n");
      const begin = here.filter((fault) => fault.first === i);
      numbers.append(h("div", { class: begin.length > 0 ? "faulty" : null },
        begin.map(({ pointer, message }) =>
          h("span", { class: "fault-mark", dataset: { pointer }, title: message }, "✕")),
        i + 1));
    }
    replace(backdrop, rows);
    replace(gutter, numbers);
    follow();
  }

  function follow() {
    const { first, last } = visible();
    const beyond = (first < drawn.from && drawn.from > 0) || (last > drawn.to && drawn.to < lines.length);
    if (beyond) return draw();
    const top = drawn.from * lineHeight - area.scrollTop;
    backdrop.style.transform = `translate(${-area.scrollLeft}px, ${top}px)`;
    gutter.style.transform = `translateY(${top}px)`;
  }

  function keyPressed(event) {
    if (event.key === "Escape") tabLeaves = true;
    else if (event.key === "Tab" && !tabLeaves && !event.shiftKey && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      indent();
    } else if (event.key !== "Shift" && event.key !== "Tab") tabLeaves = false;
  }

  function indent() {
    const { selectionStart: from, selectionEnd: to, value } = area;
    const chosen = value.slice(from, to);
    if (!chosen.includes("\n")) return type(INDENT);
    const start = value.lastIndexOf("\n", from - 1) + 1;
    const block = value.slice(start, to).replace(/^(?=.)/gm, INDENT);
    area.setSelectionRange(start, to);
    type(block);
    area.setSelectionRange(start, start + block.length);
  }

  /** execCommand is the only way to insert text that keeps the undo history of a textarea. */
  function type(text) {
    if (document.execCommand("insertText", false, text)) return;
    area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
    changed();
  }

  const resized = new ResizeObserver(() => {
    measure();
    draw();
  });
  resized.observe(area);

  return {
    element,
    setText(text) {
      area.value = text;
      faults = [];
      split();
      draw();
    },
    replaceText(text) {
      area.focus();
      area.select();
      type(text);
      area.setSelectionRange(0, 0);
    },
    mark(list) {
      faults = list.map((fault) =>
        ({ ...fault, first: lineAt(starts, fault.from), last: lineAt(starts, fault.to - 1) }));
      area.setAttribute("aria-invalid", String(faults.length > 0));
      draw();
    },
    jump(fault) {
      area.focus();
      area.setSelectionRange(fault.from, fault.to);
      const line = lineAt(starts, fault.from);
      area.scrollTop = Math.max(0, line * lineHeight - area.clientHeight / 3);
      area.scrollLeft = 0;
      follow();
    },
    close: () => resized.disconnect(),
  };
}

/** One line as coloured pieces, those inside of a fault wrapped in a mark. */
function drawLine(parent, line, start, faults) {
  const edges = new Set([0, line.length]);
  for (const fault of faults) {
    edges.add(clamp(fault.from - start, line.length));
    edges.add(clamp(fault.to - start, line.length));
  }
  const cuts = [...edges].sort((a, b) => a - b);
  const pieces = line.length > LINE_COLOURED ? [{ text: line, from: 0 }] : coloured(line);
  for (let i = 0; i + 1 < cuts.length; i++) {
    const [from, to] = [cuts[i], cuts[i + 1]];
    const fault = faults.find((one) => one.from - start <= from && to <= one.to - start);
    const holder = fault ? h("mark", { class: "fault", dataset: { pointer: fault.pointer } }) : parent;
    for (const piece of pieces) {
      const text = piece.text.slice(Math.max(0, from - piece.from), Math.max(0, to - piece.from));
      if (text) holder.append(piece.kind ? h("span", { class: piece.kind }, text) : text);
    }
    if (fault) parent.append(holder);
  }
  // A fault at the very end of a line, or of an empty one, has no character to underline.
  const after = faults.find((one) => one.from - start === line.length);
  if (after) parent.append(h("mark", { class: "fault", dataset: { pointer: after.pointer } }, " "));
}

function clamp(offset, length) {
  return Math.min(Math.max(offset, 0), length);
}

/** No string of JSON goes over the end of a line, so each line can be coloured by itself. */
function coloured(line) {
  const pieces = [];
  let last = 0;
  for (const match of line.matchAll(PIECES)) {
    if (match.index > last) pieces.push({ text: line.slice(last, match.index), from: last });
    const kind = match[1] ? "code-key" : match[2] ? "code-text" : "code-value";
    pieces.push({ text: match[0], from: match.index, kind });
    last = match.index + match[0].length;
  }
  if (last < line.length) pieces.push({ text: line.slice(last), from: last });
  return pieces;
}
