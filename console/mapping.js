// The table of the form that maps columns: what is read, where it goes, how it fits, and what is left out.

import { post } from "./api.js";
import { h, replace } from "./dom.js";
import { fillSelect } from "./fields.js";
import { countBad, FITS, isProblem, judgeColumn, tallyInWords } from "./fits.js";
import { count, many } from "./numbers.js";
import { columnMentioned, columnNamed, mapByName, same } from "./script.js";

// Selects with more options in all are filled only when they are opened: a thousand columns would make a million.
const OPTIONS_AT_ONCE = 40000;
const NAMES_SHOWN = 40;

/**
 * `sourceColumns()` and `targetColumns()` are the columns of both tables, empty where they are not known;
 * `isCreated()` tells that the target table is still to be created. `onFits(n)` hears how many columns cannot go as
 * they are. Returns `parts`, what the step holds; `show()` for another script or other tables; and `isByName()`,
 * whether nothing was mapped by hand.
 */
export function createMapping(form, { sourceColumns, targetColumns, isCreated, onFits }) {
  // Answers of the coordinator by pair of types.
  const fits = new Map();
  let rows = [];

  const body = h("tbody", null);
  const sourceNames = h("datalist", { id: "source-columns" });
  const summary = h("p", { class: "mapping-summary", "aria-live": "polite" });
  const leftOut = h("div", { class: "stack" });
  const onlyProblems = h("input", { id: "only-problems", type: "checkbox", on: { change: filterRows } });
  const byName = h("button", { type: "button", class: "small", on: { click: () => {
    form.set("columns", mapByName(sourceColumns(), targetColumns()));
    show();
  } } }, "Map by name");
  const addColumn = h("button", { type: "button", class: "small", on: { click: () => addRow("", "") } },
    "Add a column");
  const table = h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Columns of the job" },
    h("table", { id: "mapping" },
      h("caption", { class: "sr-only" }, "Source columns, the target columns they go into, and how they fit"),
      h("thead", null, h("tr", null,
        ["Source column or expression", "Type", "→ Target column", "Type", "Fit"].map((name) =>
          h("th", { scope: "col" }, name)),
        h("th", { scope: "col" }, h("span", { class: "sr-only" }, "Remove")))),
      body));
  const element = h("div", { class: "stack" },
    h("div", { class: "row between" }, summary,
      h("div", { class: "row" },
        onlyProblems, h("label", { for: "only-problems" }, "Only problems"), byName, addColumn)),
    table, sourceNames, leftOut);
  const note = h("p", { class: "muted" });
  const faults = h("div", { class: "field-faults error" });
  form.fields.set("columns", { control: table, faults });

  function show() {
    const { columns, sourceLocked } = form.model;
    const isQuery = sourceLocked === "query";
    element.hidden = isQuery || (columns.length === 0 && sourceColumns().length === 0);
    note.hidden = !element.hidden;
    note.textContent = isQuery
      ? `The script's own statement chooses what fills ${many(columns.length, "target column")}, by position.`
      : "Choose the source and the target table; their columns are then mapped by name.";
    rows = [];
    if (element.hidden) return onFits(0);
    byName.disabled = sourceColumns().length === 0 || targetColumns().length === 0;
    replace(sourceNames, sourceColumns().map((column) => h("option", { value: column.name })));
    const lazy = columns.length * targetColumns().length > OPTIONS_AT_ONCE;
    rows = columns.map((_, index) => createRow(index, lazy));
    replace(body, rows.map((row) => row.element));
    judge();
  }

  // ---- Rows ----

  function addRow(source, target) {
    onlyProblems.checked = false;
    form.set("columns", [...form.model.columns, { source, target }]);
    show();
    body.lastElementChild.querySelector("input").focus();
  }

  function removeRow(index) {
    form.set("columns", form.model.columns.toSpliced(index, 1));
    show();
    const next = body.rows[Math.min(index, form.model.columns.length - 1)];
    (next?.querySelector("input") ?? addColumn).focus();
  }

  function edit(index, side, value) {
    const { columns } = form.model;
    form.set("columns", columns.with(index, { ...columns[index], [side]: value }));
  }

  function createRow(index, lazy) {
    const types = [h("td", { class: "mono type" }), h("td", { class: "mono type" })];
    const fit = h("td", { class: "fit" });
    const source = h("input", { type: "text", class: "mono source", value: form.model.columns[index].source,
      list: sourceNames.id, autocomplete: "off", spellcheck: "false", "aria-label": `Source of column ${index + 1}`,
      on: { input: () => edit(index, "source", source.value), change: judge } });
    const target = targetControl(index, lazy, (value) => {
      edit(index, "target", value);
      judge();
    });
    const remove = h("button", { type: "button", class: "small quiet", "aria-label": `Remove column ${index + 1}`,
      on: { click: () => removeRow(index) } }, "✕");
    return {
      index, types, fit,
      element: h("tr", null,
        h("td", null, source), types[0], h("td", null, target), types[1], fit, h("td", null, remove)),
      use(expression) {
        source.value = expression;
        edit(index, "source", expression);
        judge();
        source.focus();
      },
    };
  }

  /** A select of the target's columns, or a field for a name while they are not known. */
  function targetControl(index, lazy, onPick) {
    const chosen = form.model.columns[index].target;
    const label = `Target of column ${index + 1}`;
    const names = targetColumns().map((column) => column.name);
    if (names.length === 0) {
      return h("input", { type: "text", class: "mono", value: chosen, "aria-label": label, autocomplete: "off",
        spellcheck: "false", on: { input: (event) => onPick(event.target.value.trim()) } });
    }
    const options = [["", "choose"], ...names.map((name) => [name, name])];
    const fill = () => fillSelect(control, options, control.value);
    const control = h("select", { "aria-label": label, on: { change: () => onPick(control.value),
      ...(lazy ? { focus: () => control.options.length < 2 && fill() } : {}) } });
    fillSelect(control, lazy ? [] : options, chosen);
    return control;
  }

  function filterRows() {
    for (const row of rows) row.element.hidden = onlyProblems.checked && !isProblem(row.fit.dataset.fit);
  }

  // ---- Fits ----

  /** Shows the fit of every row as far as it is known; asks the coordinator for pairs of types that are new. */
  function judge() {
    const unknown = new Map();
    const fitOf = (from, to) => {
      const pair = { source_type: from.type, source_bytes: from.bytes_most ?? null, target_type: to.type };
      const key = JSON.stringify([form.model.sourceType, pair]);
      if (!fits.has(key)) unknown.set(key, pair);
      return fits.get(key);
    };
    const known = { sources: sourceColumns(), targets: targetColumns(), isCreated: isCreated(), fitOf };
    const tally = {};
    for (const row of rows) {
      const verdict = judgeColumn(form.model.columns[row.index], known);
      tally[verdict.fit] = (tally[verdict.fit] ?? 0) + 1;
      showVerdict(row, verdict);
    }
    const words = tallyInWords(tally);
    replace(summary, h("strong", null, many(rows.length, "column")), words !== "" && `: ${words}`);
    onFits(countBad(tally));
    filterRows();
    showLeftOut();
    if (unknown.size > 0) askFits(unknown);
  }

  function showVerdict(row, { fit, why, remedy, name, sourceType, targetType }) {
    const { source, target } = form.model.columns[row.index];
    row.element.dataset.column = name || target || source;
    row.types[0].textContent = sourceType ?? "";
    row.types[1].textContent = targetType ?? "";
    // A cell is made anew only if it says something else: its button may have the focus.
    if (row.fit.dataset.fit === fit && row.why === why && row.remedy === remedy) return;
    Object.assign(row, { why, remedy });
    row.fit.dataset.fit = fit;
    replace(row.fit, h("span", { class: "fit-word" }, FITS[fit] ?? fit),
      why && h("p", { class: "hint" }, why),
      remedy && h("button", { type: "button", class: "small remedy mono", on: { click: () => row.use(remedy) } },
        `Use ${remedy}`));
  }

  async function askFits(unknown) {
    const keys = [...unknown.keys()];
    for (const key of keys) fits.set(key, { fit: "waiting", why: "", remedy: "" });
    try {
      const reply = await post("/mapping", { source: form.model.sourceType, pairs: [...unknown.values()] });
      keys.forEach((key, index) => fits.set(key, reply.fits[index]));
    } catch (error) {
      for (const key of keys) fits.delete(key);
      if (form.closed) return;
      replace(summary, h("span", { class: "error" }, `How the types fit is not known: ${error.message}`));
      return;
    }
    if (!form.closed) judge();
  }

  // ---- What is left out, so that nobody has to compare two lists of names ----

  function showLeftOut() {
    const { columns } = form.model;
    if (columns.some((column) => column.source === "*")) return replace(leftOut);
    const read = new Set(columns.flatMap(({ source }) =>
      [columnNamed(source, sourceColumns())?.name, columnMentioned(source, sourceColumns())?.name]));
    const filled = new Set(columns.map((column) => column.target.toLowerCase()));
    const unread = sourceColumns().filter((column) => !read.has(column.name));
    const empty = targetColumns().filter((column) => !column.generated && !filled.has(column.name.toLowerCase()));
    const needed = empty.filter((column) => !column.nullable && !column.has_default);
    replace(leftOut,
      names("Target columns that must not be empty, without a source:", needed, (name) => addRow("", name), "error"),
      names("Target columns that get their default or NULL:", empty.filter((column) => !needed.includes(column)),
        (name) => addRow("", name), "muted"),
      names("Source columns that are not read:", unread, (name) => addRow(name, ""), "muted"));
  }

  return {
    parts: [faults, note, element],
    show,
    isByName() {
      const { columns } = form.model;
      return columns.length === 0 || same(columns, mapByName(sourceColumns(), targetColumns()));
    },
  };
}

/** Names of columns, each a button that adds it. */
function names(title, columns, add, tone) {
  if (columns.length === 0) return null;
  return h("div", { class: "left-out" },
    h("p", { class: tone }, tone === "error" && "✕ ", title),
    h("div", { class: "row" },
      columns.slice(0, NAMES_SHOWN).map(({ name }) => h("button", { type: "button", class: "small mono",
        "aria-label": `Add ${name}`, on: { click: () => add(name) } }, `+ ${name}`)),
      columns.length > NAMES_SHOWN &&
        h("span", { class: "muted" }, `and ${count(columns.length - NAMES_SHOWN)} more`)));
}
