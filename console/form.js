// The form: a job without code. It shows a model of script.js, looks up data sources, tables, columns and fits, and
// tells every change by the reader; it never sees the text of the script, and changes nothing before the reader does.
//
// Steps from top to bottom: source and target (place.js), columns (mapping.js), rows, load (load.js), speed. Two chosen
// tables are a whole job: the columns are then mapped by name, and the suggested key cuts the table.

import { get } from "./api.js";
import { h, problemNote, replace } from "./dom.js";
import { checkbox, fillSelect, labelled, select, textInput } from "./fields.js";
import { loadStep } from "./load.js";
import { createMapping } from "./mapping.js";
import { createPlace } from "./place.js";
import { canSplit, columnNamed, fieldAt, mapByName, same } from "./script.js";

const POINTERS_SHOWN = 40;

/**
 * `onChange(model)` hears every change, `onFits(n)` how many columns cannot go as they are, `openCode()` shows the code
 * tab. Returns `element`; `show(reading)` for what `fromScript` gave; `mark(faults)` for the faults of the script;
 * `focus(pointer)`, true if a field shows that place; and `close()`.
 */
export function createForm({ onChange, onFits, openCode }) {
  const shows = [];
  // What the parts of the form share. `fields` has the control and the place for faults of each field of the model;
  // `onShow(f)` calls `f` whenever another script is shown.
  const form = {
    model: null,
    datasources: [],
    fields: new Map(),
    closed: false,
    set(field, value) {
      form.model[field] = value;
      onChange(form.model);
    },
    onShow: (f) => shows.push(f),
  };
  // JSON pointer -> field, to find the field of a fault.
  let pointers = new Map();
  // Whether choosing another table maps the columns anew: only where the reader has not mapped anything by hand.
  let mapsItself = false;
  // Whether the key that cuts the table was chosen, by the script or the reader, rather than suggested.
  let keyChosen = false;

  // ---- Source and target ----

  const isLocked = () => form.model.sourceLocked !== "";
  const beforeChange = () => { mapsItself ||= mapping.isByName(); };
  const source = createPlace(form, "source",
    { datasource: "sourceDatasource", database: "sourceDatabase", table: "sourceTables" }, {
      options: () => form.datasources.filter(({ type }) => type === "mysql" || type === "starrocks")
        .map(({ name, type }) => [name, `${name} (${type})`]),
      table: () => form.model.sourceTables[0] ?? "",
      setTable: (name) => form.set("sourceTables", [name, ...form.model.sourceTables.slice(1)]),
      isLocked,
      onDatasource(name) {
        const chosen = form.datasources.find((one) => one.name === name);
        if (chosen) form.model.sourceType = chosen.type;
      },
      missing: ({ database, table }) => h("p", { class: "error" }, `✕ There is no table ${table} in ${database}.`),
      onChange: beforeChange,
      onSettled: settle,
    });
  const target = createPlace(form, "target",
    { datasource: "targetDatasource", database: "targetDatabase", table: "targetTable" }, {
      options: () => form.datasources.filter(({ type }) => type === "starrocks").map(({ name }) => [name, name]),
      table: () => form.model.targetTable,
      setTable: (name) => form.set("targetTable", name),
      isLocked: () => false,
      onDatasource() {
        // Addresses of the old cluster would load into it, whatever the new data source says.
        form.model.loadUrl = [];
        showLoadUrl();
      },
      missing: ({ database, table }) => (form.model.createTable
        ? `There is no table ${table} in ${database} yet; the job creates it.`
        : h("p", { class: "error" }, `✕ There is no table ${table} in ${database}.`,
          " Choose another one, or let the job create it.")),
      onChange: beforeChange,
      onSettled: settle,
    });

  function sourceColumns() {
    return source.known?.columns ?? [];
  }

  /** A target that is still to be created will have the source's columns. */
  function targetColumns() {
    if (target.known) return target.known.columns;
    return form.model.createTable && target.missing ? sourceColumns().map((column) => ({ ...column, type: "" })) : [];
  }

  /** Both ends are looked up apart; whatever comes last brings the columns together. */
  function settle() {
    if (source.chosen && source.known) chooseKey();
    if (mapsItself && sourceColumns().length > 0 && targetColumns().length > 0) {
      const columns = mapByName(sourceColumns(), targetColumns());
      mapsItself = false;
      if (!same(columns, form.model.columns)) form.set("columns", columns);
    }
    mapping.show();
    showKeys();
  }

  const moreTables = h("div", { class: "stack" });
  const addTable = h("button", { type: "button", class: "small", on: { click: () => {
    form.set("sourceTables", [form.model.sourceTables[0] ?? "", ...form.model.sourceTables.slice(1), ""]);
    showTables();
    moreTables.querySelector("div:last-child input").focus();
  } } }, "Add a table");

  function showTables() {
    addTable.disabled = isLocked();
    replace(moreTables, form.model.sourceTables.slice(1).map((name, index) => anotherTable(name, index + 1)));
  }

  function anotherTable(name, index) {
    return h("div", { class: "row" },
      h("input", { type: "text", value: name, list: source.tables.id, "aria-label": `Table ${index + 1}`,
        autocomplete: "off", spellcheck: "false", disabled: isLocked(), on: { input: (event) =>
          form.set("sourceTables", form.model.sourceTables.with(index, event.target.value.trim())) } }),
      h("button", { type: "button", class: "small quiet", disabled: isLocked(),
        "aria-label": `Remove table ${index + 1}`, on: { click: () => {
          form.set("sourceTables", form.model.sourceTables.toSpliced(index, 1));
          showTables();
          addTable.focus();
        } } }, "Remove"));
  }
  form.onShow(showTables);

  const loadUrlNote = h("div", null);
  function showLoadUrl() {
    replace(loadUrlNote, form.model.loadUrl.length > 0 && h("div", { class: "row" },
      h("p", { class: "break" },
        "Loads go to ", h("span", { class: "mono" }, form.model.loadUrl.join(", ")), ", as the script says."),
      h("button", { type: "button", class: "small", on: { click: () => {
        form.set("loadUrl", []);
        showLoadUrl();
      } } }, "Use the data source's addresses")));
  }
  form.onShow(showLoadUrl);

  const createTable = checkbox(form, "create-table", "createTable", "Create it if it is missing",
    "With the source's columns and key, before preSql runs.");
  createTable.addEventListener("change", () => {
    beforeChange();
    target.refresh();
  });

  // ---- Columns and rows ----

  const mapping = createMapping(form,
    { sourceColumns, targetColumns, isCreated: () => !target.known, onFits });

  const where = h("textarea", { id: "where", class: "mono", rows: 2, spellcheck: "false",
    on: { input: () => form.set("where", where.value) } });
  form.onShow(() => { where.value = form.model.where; });

  const splitPk = h("select", { id: "split-pk", on: { change: () => {
    keyChosen = true;
    form.set("splitPk", splitPk.value);
  } } });

  function chooseKey() {
    source.chosen = false;
    if (keyChosen && columnNamed(form.model.splitPk, sourceColumns())) return;
    const suggested = source.known.split_pk ?? "";
    if (form.model.splitPk !== suggested) form.set("splitPk", suggested);
  }

  function showKeys() {
    const suggested = source.known?.split_pk;
    const keys = sourceColumns().filter((column) => canSplit(column.type)).map((column) => [column.name,
      column.name === suggested ? `${column.name} (suggested: the key)` : `${column.name} (${column.type})`]);
    keys.sort((a, b) => (b[0] === suggested) - (a[0] === suggested));
    const present = columnNamed(form.model.splitPk, sourceColumns());
    fillSelect(splitPk, [["", "none: one task"], ...keys], present?.name ?? form.model.splitPk);
  }
  form.onShow(showKeys);

  // ---- Speed ----

  const concurrent = textInput(form, "concurrent", "concurrent", { inputmode: "numeric", placeholder: "3" });
  const commit = select(form, "commit", "commit",
    [["task", "task: as each is done"], ["job", "job: all at once, at the end"]]);
  const splitFactor = textInput(form, "split-factor", "splitFactor", { inputmode: "numeric", placeholder: "5" });
  const throttle = checkbox(form, "throttle", "throttle", "Limit the speed");
  const mbps = labelled(form, "mbps", "Megabytes a second", textInput(form, "mbps", "mbps", { inputmode: "numeric" }),
    { key: "mbps", hint: "For the whole job, over all machines." });
  const showMbps = () => { mbps.hidden = !form.model.throttle; };
  throttle.addEventListener("change", showMbps);
  form.onShow(showMbps);

  // ---- The steps ----

  const notice = h("div", { class: "stack" });
  const steps = h("div", { class: "form-steps" },
    step(1, "Source", source.element, moreTables, h("div", { class: "row" }, addTable, h("span", { class: "hint" },
      "Tables of the same columns; ", h("span", { class: "mono" }, "t_[00-15]"), " is sixteen of them."))),
    step(2, "Target", target.element, createTable, loadUrlNote),
    step(3, "Columns", mapping.parts),
    step(4, "Rows", h("div", { class: "fields" },
      labelled(form, "where", "Only rows where", where, { className: "wide",
        hint: "One condition in the source's SQL; without it all rows. A parameter needs its quotes: '${bizdate}'." }),
      labelled(form, "splitPk", "Cut the table by", splitPk, { key: "splitPk", className: "wide",
        hint: "Its ranges become tasks that run side by side; rows with NULL have a task of their own." }))),
    step(5, "Load", loadStep(form)),
    step(6, "Speed",
      h("div", { class: "fields" },
        labelled(form, "concurrent", "Most tasks at once", concurrent, { key: "concurrent" }),
        labelled(form, "commit", "Rows become visible", commit, { key: "commit" }),
        h("div", { class: "stack" }, throttle, mbps)),
      h("details", null, h("summary", null, "More"), h("div", { class: "fields" },
        labelled(form, "splitFactor", "Tasks per unit of concurrent", splitFactor, { key: "splitFactor" })))));
  const sourcesError = h("div", null);
  const element = h("div", { class: "form" }, sourcesError, notice, steps);

  const loaded = get("/datasources").then((reply) => { form.datasources = reply.datasources; },
    (error) => { replace(sourcesError, problemNote(error)); });

  return {
    element,
    async show(reading) {
      replace(notice, noticeOf(reading, openCode));
      steps.hidden = Boolean(reading.refusal);
      if (reading.refusal) return;
      await loaded;
      if (form.closed) return;
      form.model = reading.model;
      pointers = reading.places;
      mapsItself = false;
      keyChosen = form.model.splitPk !== "";
      for (const show of shows) show();
    },
    mark(faults) {
      const byField = Map.groupBy(faults, (fault) => fieldAt(pointers, fault.pointer));
      for (const [field, { control, faults: box }] of form.fields) {
        const here = byField.get(field) ?? [];
        if (control.matches("input, select, textarea")) control.setAttribute("aria-invalid", String(here.length > 0));
        replace(box, here.map((fault) => h("p", null, `✕ ${fault.message}`)));
      }
    },
    focus(pointer) {
      const control = form.fields.get(fieldAt(pointers, pointer))?.control;
      if (!control || steps.hidden) return false;
      control.closest("details")?.setAttribute("open", "");
      control.focus();
      control.scrollIntoView({ block: "center" });
      return true;
    },
    close: () => { form.closed = true; },
  };
}

function step(number, title, ...children) {
  return h("section", { class: "panel form-step", "aria-labelledby": `step-${number}` },
    h("h2", { id: `step-${number}` }, h("span", { class: "step-number", "aria-hidden": "true" }, number), title),
    children);
}

/** What stands above the steps: why the form shows nothing, or what it does not show. */
function noticeOf({ refusal, model, kept }, openCode) {
  const toCode = h("button", { type: "button", class: "small", on: { click: openCode } }, "Open the code");
  if (refusal) return h("div", { class: "note warn stack" }, h("p", null, refusal), h("div", null, toCode));
  const locked = {
    query: "The source is a statement of its own (querySql).",
    several: `The source has several places: ${model.sourcePlaces.join("; ")}.`,
  }[model.sourceLocked];
  if (!locked && kept.length === 0) return null;
  return h("div", { class: "note stack", id: "kept" },
    locked && h("p", { class: "break" }, `${locked} It is changed in the code.`),
    kept.length > 0 && h("p", null, "No field shows these parts; they stay as they are: ",
      kept.slice(0, POINTERS_SHOWN).map((pointer, index) => [index > 0 && ", ", h("code", null, pointer)]),
      kept.length > POINTERS_SHOWN && ` and ${kept.length - POINTERS_SHOWN} more`, "."),
    h("div", null, toCode));
}
