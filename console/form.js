// The form: a job without code. It shows a model of script.js, looks up data sources, tables, columns and fits, and
// tells every change by the reader; it never sees the text of the script, and changes nothing before the reader does.
//
// Steps from top to bottom: source, target, columns, rows, load, speed. Two chosen tables are a whole job: the columns
// are then mapped by name, and the suggested key cuts the table.

import { get, post } from "./api.js";
import { bytes, count, h, problem, replace } from "./dom.js";
import { canSplit, columnMentioned, columnNamed, fieldAt, firstTable, mapByName, remedyFor } from "./script.js";

// Selects with more options in all are filled only when they are opened: a thousand columns would make a million.
const OPTIONS_AT_ONCE = 40000;
const NAMES_SHOWN = 40;

const FITS = {
  exact: "= exact",
  widened: "⊂ widened",
  checked: "? checked",
  refused: "✕ refused",
  created: "+ created",
  expression: "ƒ expression",
  all: "∗ all columns",
  missing: "✕ incomplete",
  unknown: "✕ no such column",
  waiting: "…",
  open: "–",
};
const BAD_FITS = ["refused", "missing", "unknown"];
const PROBLEM_FITS = new Set(["checked", ...BAD_FITS]);

const LOAD_PROPS = [
  "column_separator", "row_delimiter", "compression", "strict_mode", "max_filter_ratio", "timeout", "columns", "where",
  "partial_update", "partial_update_mode", "merge_condition", "timezone", "load_mem_limit", "partitions",
  "temporary_partitions", "warehouse", "jsonpaths",
];

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

/**
 * `onChange(model)` hears every change, `onFits(n)` how many columns cannot go as they are, `openCode()` shows the code
 * tab. Returns `element`; `show(reading)` for what `fromScript` gave; `mark(faults)` for the faults of the script;
 * `focus(pointer)`, true if a field shows that place; and `close()`.
 */
export function createForm({ onChange, onFits, openCode }) {
  let model = null;
  let places = new Map();
  let datasources = [];
  let closed = false;
  // Whether choosing another table maps the columns anew: only where the reader has not mapped anything by hand.
  let mapsItself = false;
  // Whether the key that cuts the table was chosen, by the script or the reader, rather than suggested.
  let keyChosen = false;
  const shows = [];
  const fields = new Map();

  const notice = h("div", { class: "stack" });
  const body = h("div", { class: "form-steps" });
  const sourcesError = h("div", null);
  const element = h("div", { class: "form" }, sourcesError, notice, body);

  function set(field, value) {
    model[field] = value;
    onChange(model);
  }

  // ---- Small parts ----

  // A labelled control for a field of the model, with the field's name in the script and a place for its faults.
  function fieldOf(field, label, control, { key, hint, className = "" } = {}) {
    const faults = h("div", { id: `${control.id}-faults`, class: "field-faults error" });
    const help = hint && h("p", { id: `${control.id}-hint`, class: "hint" }, hint);
    control.setAttribute("aria-describedby", `${help ? help.id : ""} ${faults.id}`.trim());
    fields.set(field, { control, faults });
    return h("div", { class: `field ${className}` },
      h("label", { for: control.id }, label, key && [" ", h("span", { class: "key mono" }, key)]),
      control, help, faults);
  }

  function textInput(id, field, props) {
    const input = h("input", { id, type: "text", autocomplete: "off", spellcheck: "false", ...props,
      on: { input: () => set(field, input.value.trim()) } });
    shows.push(() => { input.value = model[field]; });
    return input;
  }

  // The first option is what holds where the script says nothing.
  function select(id, field, options) {
    const control = h("select", { id, on: { change: () => set(field, control.value) } });
    shows.push(() => fillSelect(control, options, model[field] || options[0][0]));
    return control;
  }

  function checkbox(id, field, label, key, hint) {
    const input = h("input", { id, type: "checkbox", on: { change: () => set(field, input.checked) } });
    shows.push(() => { input.checked = model[field]; });
    return h("div", { class: "field" },
      h("div", { class: "row" }, input, h("label", { for: id }, label, " ", h("span", { class: "key mono" }, key))),
      hint && h("p", { class: "hint" }, hint));
  }

  function step(number, title, ...children) {
    return h("section", { class: "panel form-step", "aria-labelledby": `step-${number}` },
      h("h2", { id: `step-${number}` }, h("span", { class: "step-number", "aria-hidden": "true" }, number), title),
      children);
  }

  // ---- Source and target ----

  const source = createPlace("source", {
    datasource: "sourceDatasource", database: "sourceDatabase", types: ["mysql", "starrocks"],
    table: () => model.sourceTables[0] ?? "",
    setTable: (name) => set("sourceTables", [name, ...model.sourceTables.slice(1)]),
    chooseDatasource(chosen) {
      if (chosen) model.sourceType = chosen.type;
    },
  });
  const target = createPlace("target", {
    datasource: "targetDatasource", database: "targetDatabase", types: ["starrocks"],
    table: () => model.targetTable,
    setTable: (name) => set("targetTable", name),
    chooseDatasource() {
      // Addresses of the old cluster would load into it, whatever the new data source says.
      model.loadUrl = [];
      showLoadUrl();
    },
  });

  // One end of the job: a data source, a database, a table, and what is known about the table.
  function createPlace(side, { datasource, database, table, setTable, types, chooseDatasource }) {
    const note = h("div", { class: "place-note", "aria-live": "polite" });
    const databases = h("datalist", { id: `${side}-databases` });
    const tables = h("datalist", { id: `${side}-tables` });
    let turn = 0;
    let timer = 0;
    let names = new Set();
    const place = { known: null, missing: false, chosen: false };

    const datasourceSelect = h("select", { id: `${side}-datasource`, on: { change: () => {
      chooseDatasource(datasources.find((one) => one.name === datasourceSelect.value));
      choose(() => set(datasource, datasourceSelect.value));
    } } });
    const databaseInput = h("input", { id: `${side}-database`, type: "text", list: databases.id, autocomplete: "off",
      spellcheck: "false", on: { change: () => choose(() => set(database, databaseInput.value.trim())) } });
    const tableInput = h("input", { id: `${side}-table`, type: "text", list: tables.id, autocomplete: "off",
      spellcheck: "false", placeholder: "type or choose", on: { input: typed, change: typed } });

    // A name that is known is looked up at once, another one when the reader has finished it.
    function typed(event) {
      clearTimeout(timer);
      const name = tableInput.value.trim();
      if (name !== table()) {
        mapsItself ||= isMappedByName();
        place.chosen = true;
        place.known = null;
        setTable(name);
      } else if (place.known || event.type === "input") {
        return;
      }
      timer = setTimeout(refresh, names.has(name) || event.type === "change" ? 0 : 700);
    }

    function choose(change) {
      mapsItself ||= isMappedByName();
      place.chosen = true;
      change();
      refresh();
    }

    async function refresh() {
      const mine = ++turn;
      const name = model[datasource];
      const found = datasources.find((one) => one.name === name);
      const preset = found?.database ?? "";
      databaseInput.placeholder = preset ? `${preset} (of the data source)` : "";
      place.known = null;
      place.missing = false;
      if (!name) return settled("");
      const entry = firstTable(table(), model[database] || preset);
      const base = `/datasources/${encodeURIComponent(name)}/databases`;
      const inside = `${base}/${encodeURIComponent(entry.database)}/tables`;
      replace(note, h("p", { class: "muted" }, "Looking…"));
      const [one, two, three] = await Promise.allSettled([
        get(base),
        entry.database ? get(inside) : { tables: [] },
        entry.database && entry.table ? get(`${inside}/${encodeURIComponent(entry.table)}`) : null,
      ]);
      if (mine !== turn || closed) return;
      const list = two.value?.tables ?? [];
      names = new Set(list.map((row) => row.name));
      replace(databases, (one.value?.databases ?? []).map((value) => h("option", { value })));
      replace(tables, list.map((row) => h("option", { value: row.name })));
      place.missing = two.status === "fulfilled" && three.reason?.code === "UNKNOWN_TABLE";
      if (three.status === "fulfilled") place.known = three.value;
      const failure = [one, two, three].find((answer) => answer.status === "rejected");
      if (failure && !place.missing) return settled(problem(failure.reason));
      if (!entry.database) return settled("Choose a database: the data source names none.");
      if (!entry.table) return settled(`${plural(list.length, "table")} in ${entry.database}.`);
      if (place.missing) return settled(missingNote(side, entry));
      settled(knownNote(place.known, list.find((row) => row.name === entry.table)));
    }

    function settled(text) {
      replace(note, typeof text === "string" ? text && h("p", { class: "muted" }, text) : text);
      settle();
    }

    shows.push(() => {
      place.chosen = false;
      const options = datasources.filter((one) => types.includes(one.type))
        .map((one) => [one.name, side === "source" ? `${one.name} (${one.type})` : one.name]);
      fillSelect(datasourceSelect, [["", "choose"], ...options], model[datasource]);
      databaseInput.value = model[database];
      tableInput.value = table();
      for (const control of [datasourceSelect, databaseInput, tableInput]) {
        control.disabled = side === "source" && model.sourceLocked !== "";
      }
      refresh();
    });
    return Object.assign(place, { refresh, tables, element: h("div", { class: "stack" },
      h("div", { class: "fields" },
        fieldOf(datasource, "Data source", datasourceSelect),
        fieldOf(database, "Database", databaseInput),
        fieldOf(side === "source" ? "sourceTables" : "targetTable", "Table", tableInput)),
      databases, tables, note) });
  }

  function missingNote(side, entry) {
    if (side === "target" && model.createTable) {
      return `There is no table ${entry.table} in ${entry.database} yet; the job creates it.`;
    }
    return h("p", { class: "error" }, `✕ There is no table ${entry.table} in ${entry.database}.`,
      side === "target" && " Choose another one, or let the job create it.");
  }

  function knownNote(known, row) {
    const rows = Number.isFinite(row?.rows_estimate) ? `, about ${plural(row.rows_estimate, "row")}` : "";
    return `${plural(known.columns.length, "column")}${rows}.`;
  }

  const moreTables = h("div", { class: "stack" });
  const addTable = h("button", { type: "button", class: "small", on: { click: () => {
    set("sourceTables", [model.sourceTables[0] ?? "", ...model.sourceTables.slice(1), ""]);
    showTables();
    moreTables.querySelector("div:last-child input").focus();
  } } }, "Add a table");

  function showTables() {
    addTable.disabled = model.sourceLocked !== "";
    replace(moreTables, model.sourceTables.slice(1).map((name, index) => h("div", { class: "row" },
      h("input", { type: "text", value: name, list: source.tables.id, "aria-label": `Table ${index + 2}`,
        autocomplete: "off", spellcheck: "false", disabled: model.sourceLocked !== "",
        on: { input: (event) => set("sourceTables", model.sourceTables.with(index + 1, event.target.value.trim())) } }),
      h("button", { type: "button", class: "small quiet", disabled: model.sourceLocked !== "",
        "aria-label": `Remove table ${index + 2}`, on: { click: () => {
          set("sourceTables", model.sourceTables.toSpliced(index + 1, 1));
          showTables();
          addTable.focus();
        } } }, "Remove"))));
  }
  shows.push(showTables);

  const loadUrlNote = h("div", null);
  function showLoadUrl() {
    replace(loadUrlNote, model.loadUrl.length > 0 && h("div", { class: "row" },
      h("p", { class: "break" },
        "Loads go to ", h("span", { class: "mono" }, model.loadUrl.join(", ")), ", as the script says."),
      h("button", { type: "button", class: "small", on: { click: () => {
        set("loadUrl", []);
        showLoadUrl();
      } } }, "Use the data source's addresses")));
  }
  shows.push(showLoadUrl);

  const create = checkbox("create-table", "createTable", "Create it if it is missing", "createTable",
    "With the source's columns and key, before preSql runs.");
  create.addEventListener("change", () => {
    mapsItself ||= isMappedByName();
    target.refresh();
  });

  // ---- Columns ----

  const fits = new Map();
  const mappingBody = h("tbody", null);
  const sourceNames = h("datalist", { id: "source-columns" });
  const mappingSummary = h("p", { class: "mapping-summary", "aria-live": "polite" });
  const leftOut = h("div", { class: "stack" });
  const onlyProblems = h("input", { id: "only-problems", type: "checkbox", on: { change: filterRows } });
  const byName = h("button", { type: "button", class: "small", on: { click: () => {
    set("columns", mapByName(source.known.columns, targetColumns()));
    showMapping();
  } } }, "Map by name");
  const addColumn = h("button", { type: "button", class: "small", on: { click: () => addRow("", "") } },
    "Add a column");
  const mappingTable = h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Columns of the job" },
    h("table", { id: "mapping" },
      h("caption", { class: "sr-only" }, "Source columns, the target columns they go into, and how they fit"),
      h("thead", null, h("tr", null,
        ["Source column or expression", "Type", "→ Target column", "Type", "Fit"].map((name) =>
          h("th", { scope: "col" }, name)),
        h("th", { scope: "col" }, h("span", { class: "sr-only" }, "Remove")))),
      mappingBody));
  const mapping = h("div", { class: "stack" },
    h("div", { class: "row between" }, mappingSummary,
      h("div", { class: "row" },
        onlyProblems, h("label", { for: "only-problems" }, "Only problems"), byName, addColumn)),
    mappingTable, sourceNames, leftOut);
  const mappingNote = h("p", { class: "muted" });
  const columnFaults = h("div", { class: "field-faults error" });
  fields.set("columns", { control: mappingTable, faults: columnFaults });

  function sourceColumns() {
    return source.known?.columns ?? [];
  }

  // A target that is still to be created will have the source's columns.
  function targetColumns() {
    if (target.known) return target.known.columns;
    return model.createTable && target.missing ? sourceColumns().map((column) => ({ ...column, type: "" })) : [];
  }

  function isMappedByName() {
    return model.columns.length === 0 || same(model.columns, mapByName(sourceColumns(), targetColumns()));
  }

  // Both ends are looked up apart; whatever comes last brings the columns together.
  function settle() {
    if (source.chosen && source.known) chooseKey();
    if (mapsItself && sourceColumns().length > 0 && targetColumns().length > 0) {
      const columns = mapByName(sourceColumns(), targetColumns());
      mapsItself = false;
      if (!same(columns, model.columns)) set("columns", columns);
    }
    showMapping();
    showKeys();
  }

  function chooseKey() {
    source.chosen = false;
    if (keyChosen && columnNamed(model.splitPk, sourceColumns())) return;
    const suggested = source.known.split_pk ?? "";
    if (model.splitPk !== suggested) set("splitPk", suggested);
  }

  function addRow(from, to) {
    onlyProblems.checked = false;
    set("columns", [...model.columns, { source: from, target: to }]);
    showMapping();
    mappingBody.lastElementChild.querySelector("input").focus();
  }

  let rows = [];
  function showMapping() {
    const ready = model.sourceLocked !== "query";
    mapping.hidden = !ready || (model.columns.length === 0 && sourceColumns().length === 0);
    mappingNote.hidden = !mapping.hidden;
    mappingNote.textContent = ready
      ? "Choose the source and the target table; their columns are then mapped by name."
      : `The script's own statement chooses what fills ${plural(model.columns.length, "target column")}, by position.`;
    rows = [];
    if (mapping.hidden) return onFits(0);
    byName.disabled = sourceColumns().length === 0 || targetColumns().length === 0;
    replace(sourceNames, sourceColumns().map((column) => h("option", { value: column.name })));
    const lazy = model.columns.length * targetColumns().length > OPTIONS_AT_ONCE;
    rows = model.columns.map((_, index) => createRow(index, lazy));
    replace(mappingBody, rows.map((row) => row.element));
    judge();
  }

  function createRow(index, lazy) {
    const column = model.columns[index];
    const types = [h("td", { class: "mono type" }), h("td", { class: "mono type" })];
    const fit = h("td", { class: "fit" });
    const from = h("input", { type: "text", class: "mono source", value: column.source, list: sourceNames.id,
      autocomplete: "off", spellcheck: "false", "aria-label": `Source of column ${index + 1}`,
      on: { input: () => edit("source", from.value), change: judge } });
    const to = targetControl(index, lazy, (value) => {
      edit("target", value);
      judge();
    });
    const remove = h("button", { type: "button", class: "small quiet", "aria-label": `Remove column ${index + 1}`,
      on: { click: () => {
        set("columns", model.columns.toSpliced(index, 1));
        showMapping();
        (mappingBody.rows[Math.min(index, model.columns.length - 1)]?.querySelector("input") ?? addColumn).focus();
      } } }, "✕");
    const element = h("tr", null,
      h("td", null, from), types[0], h("td", null, to), types[1], fit, h("td", null, remove));

    function edit(side, value) {
      set("columns", model.columns.with(index, { ...model.columns[index], [side]: value }));
    }
    return { element, types, fit, index, use(expression) {
      from.value = expression;
      edit("source", expression);
      judge();
      from.focus();
    } };
  }

  function targetControl(index, lazy, onPick) {
    const { target: chosen } = model.columns[index];
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

  // The fit of every row as far as it is known; asks the coordinator for pairs of types that are new.
  function judge() {
    const unknown = new Map();
    const tally = {};
    for (const row of rows) {
      const column = model.columns[row.index];
      const verdict = judgeColumn(column, unknown);
      tally[verdict.fit] = (tally[verdict.fit] ?? 0) + 1;
      row.element.dataset.column = verdict.name || column.target || column.source;
      row.types[0].textContent = verdict.sourceType ?? "";
      row.types[1].textContent = verdict.targetType ?? "";
      if (row.fit.dataset.fit === verdict.fit && row.why === verdict.why && row.remedy === verdict.remedy) continue;
      Object.assign(row, { why: verdict.why, remedy: verdict.remedy });
      row.fit.dataset.fit = verdict.fit;
      replace(row.fit, h("span", { class: "fit-word" }, FITS[verdict.fit] ?? verdict.fit),
        verdict.why && h("p", { class: "hint" }, verdict.why),
        verdict.remedy && h("button", { type: "button", class: "small remedy mono",
          on: { click: () => row.use(verdict.remedy) } }, `Use ${verdict.remedy}`));
    }
    const words = Object.keys(FITS).filter((fit) => tally[fit] && !["waiting", "open"].includes(fit))
      .map((fit) => `${count(tally[fit])} ${FITS[fit].replace(/^\S /, "")}`);
    replace(mappingSummary,
      h("strong", null, plural(rows.length, "column")), words.length > 0 && `: ${words.join(", ")}`);
    onFits(BAD_FITS.reduce((sum, fit) => sum + (tally[fit] ?? 0), 0));
    filterRows();
    showLeftOut();
    if (unknown.size > 0) askFits(unknown);
  }

  function judgeColumn(column, unknown) {
    if (column.source === "*" || column.target === "*") return { fit: "all", why: "By position; the plan shows them." };
    const from = columnNamed(column.source, sourceColumns());
    const to = columnNamed(column.target, targetColumns());
    const known = { name: (from ?? columnMentioned(column.source, sourceColumns()))?.name, sourceType: from?.type,
      targetType: to?.type };
    if (!column.source.trim() || !column.target) {
      return { ...known, fit: "missing", why: column.target ? "Nothing goes into it yet." : "It goes nowhere yet." };
    }
    if (targetColumns().length > 0 && !to) {
      return { ...known, fit: "unknown", why: "The target table has no such column." };
    }
    if (!from) return { ...known, ...judgeExpression(column.source) };
    if (!to) return { ...known, fit: "open" };
    if (!target.known) return { ...known, fit: "created", why: "" };
    const key = JSON.stringify([model.sourceType, from.type, to.type]);
    const fit = fits.get(key);
    if (!fit) {
      unknown.set(key, { source_type: from.type, target_type: to.type });
      return { ...known, fit: "waiting" };
    }
    const why = PROBLEM_FITS.has(fit.fit) ? fit.why : "";
    return { ...known, fit: fit.fit, why, remedy: fit.remedy && remedyFor(fit.remedy, from.name) };
  }

  function judgeExpression(text) {
    if (sourceColumns().length === 0) return { fit: "open" };
    const isName = /^(?!(null|true|false)$)(`[^`]+`|[\p{L}_][\p{L}\p{N}_$]*)$/iu.test(text.trim());
    return isName
      ? { fit: "unknown", why: "The source table has no such column." }
      : { fit: "expression", why: "Its type is found by the plan." };
  }

  async function askFits(unknown) {
    const keys = [...unknown.keys()];
    for (const key of keys) fits.set(key, { fit: "waiting", why: "", remedy: "" });
    try {
      const reply = await post("/mapping", { source: model.sourceType, pairs: [...unknown.values()] });
      keys.forEach((key, index) => fits.set(key, reply.fits[index]));
    } catch (error) {
      for (const key of keys) fits.delete(key);
      if (closed) return;
      replace(mappingSummary, h("span", { class: "error" }, `How the types fit is not known: ${error.message}`));
      return;
    }
    if (!closed && model) judge();
  }

  function filterRows() {
    for (const row of rows) row.element.hidden = onlyProblems.checked && !PROBLEM_FITS.has(row.fit.dataset.fit);
  }

  // What the mapping leaves out, so that nobody has to compare two lists of names.
  function showLeftOut() {
    if (model.columns.some((column) => column.source === "*")) return replace(leftOut);
    const read = new Set(model.columns.map((column) => columnNamed(column.source, sourceColumns())?.name)
      .concat(model.columns.map((column) => columnMentioned(column.source, sourceColumns())?.name)));
    const filled = new Set(model.columns.map((column) => column.target.toLowerCase()));
    const unread = sourceColumns().filter((column) => !read.has(column.name));
    const empty = targetColumns().filter((column) => !column.generated && !filled.has(column.name.toLowerCase()));
    const needed = empty.filter((column) => !column.nullable && !column.has_default);
    replace(leftOut,
      names("Target columns that must not be empty, without a source:", needed, (name) => addRow("", name), "error"),
      names("Target columns that get their default or NULL:", empty.filter((column) => !needed.includes(column)),
        (name) => addRow("", name), "muted"),
      names("Source columns that are not read:", unread, (name) => addRow(name, ""), "muted"));
  }

  function names(title, columns, add, tone) {
    if (columns.length === 0) return null;
    return h("div", { class: "left-out" }, h("p", { class: tone }, tone === "error" && "✕ ", title),
      h("div", { class: "row" }, columns.slice(0, NAMES_SHOWN).map((column) =>
        h("button", { type: "button", class: "small mono", "aria-label": `Add ${column.name}`,
          on: { click: () => add(column.name) } }, `+ ${column.name}`)),
      columns.length > NAMES_SHOWN &&
        h("span", { class: "muted" }, `and ${count(columns.length - NAMES_SHOWN)} more`)));
  }

  // ---- Rows ----

  const where = h("textarea", { id: "where", class: "mono", rows: 2, spellcheck: "false",
    on: { input: () => set("where", where.value) } });
  shows.push(() => { where.value = model.where; });
  const splitPk = h("select", { id: "split-pk", on: { change: () => {
    keyChosen = true;
    set("splitPk", splitPk.value);
  } } });
  function showKeys() {
    const suggested = source.known?.split_pk;
    const keys = sourceColumns().filter((column) => canSplit(column.type)).map((column) => [column.name,
      column.name === suggested ? `${column.name} (suggested: the key)` : `${column.name} (${column.type})`]);
    keys.sort((a, b) => (b[0] === suggested) - (a[0] === suggested));
    const present = columnNamed(model.splitPk, sourceColumns());
    fillSelect(splitPk, [["", "none: one task"], ...keys], present?.name ?? model.splitPk);
  }
  shows.push(showKeys);

  // ---- Load ----

  const format = select("load-format", "format", [["csv", "CSV"], ["json", "JSON"]]);
  const strategy = select("strategy-on-error", "strategyOnError",
    [["exit", "exit: end the job"], ["batchDirtyData", "batchDirtyData: leave bad rows out"]]);
  const badKind = h("select", { id: "bad-rows", on: { change: () => changeBadRows() } });
  const badValue = h("input", { id: "bad-rows-value", type: "text", inputmode: "decimal", "aria-label": "Most bad rows",
    autocomplete: "off", on: { input: () => changeBadRows() } });
  function changeBadRows() {
    const kind = badKind.value;
    set("badRows", { kind, value: kind === "some" || kind === "share" ? badValue.value.trim() : "" });
    badValue.hidden = kind !== "some" && kind !== "share";
  }
  shows.push(() => {
    fillSelect(badKind, [["none", "none"], ["some", "at most this many"], ["share", "at most this share (0.01 is 1 %)"],
      ["any", "any number"]], model.badRows.kind);
    badValue.value = model.badRows.value;
    badValue.hidden = model.badRows.value === "";
  });

  const batchSize = textInput("max-batch-size", "maxBatchSize", { inputmode: "numeric", placeholder: "5242880" });
  const batchSizeWords = h("span", null);
  const tellSize = () => { batchSizeWords.textContent = `= ${bytes(Number(batchSize.value || 5242880))}`; };
  batchSize.addEventListener("input", tellSize);
  shows.push(tellSize);

  const props = h("div", { class: "stack" });
  const addProp = h("button", { type: "button", class: "small", on: { click: () => {
    set("loadProps", [...model.loadProps, { key: "", value: "" }]);
    showProps();
    props.lastElementChild.querySelector("input").focus();
  } } }, "Add a property");
  function showProps() {
    replace(props, model.loadProps.map((row, index) => {
      const edit = (side) => (event) =>
        set("loadProps", model.loadProps.with(index, { ...model.loadProps[index], [side]: event.target.value }));
      return h("div", { class: "prop" },
        h("input", { type: "text", class: "mono", value: row.key, list: "load-props",
          "aria-label": `Property ${index + 1}`, placeholder: "property", autocomplete: "off", spellcheck: "false",
          on: { input: edit("key") } }),
        h("input", { type: "text", class: "mono", value: row.value, "aria-label": `Value of property ${index + 1}`,
          placeholder: "value", autocomplete: "off", spellcheck: "false", on: { input: edit("value") } }),
        h("button", { type: "button", class: "small quiet", "aria-label": `Remove property ${index + 1}`,
          on: { click: () => {
            set("loadProps", model.loadProps.toSpliced(index, 1));
            showProps();
            addProp.focus();
          } } }, "✕"));
    }));
  }
  const moreLoad = h("details", null, h("summary", null, "Batches and load properties"),
    h("div", { class: "stack" },
      h("div", { class: "fields" },
        fieldOf("maxBatchRows", "Rows of a load", textInput("max-batch-rows", "maxBatchRows",
          { inputmode: "numeric", placeholder: "500000" }), { key: "maxBatchRows" }),
        fieldOf("maxBatchSize", "Bytes of a load", batchSize,
          { key: "maxBatchSize", hint: [batchSizeWords, ". 64 MB makes few, large loads."] })),
      h("div", null, h("h3", null, "Load properties ", h("span", { class: "key mono" }, "loadProps")),
        h("p", { class: "hint" },
          "Headers of Stream Load. Without separators Starlift picks bytes that the data does not hold.")),
      props, h("div", null, addProp),
      h("datalist", { id: "load-props" }, LOAD_PROPS.map((value) => h("option", { value })))));
  shows.push(() => {
    showProps();
    moreLoad.open = model.loadProps.length > 0;
  });

  function statements(field, title, hint) {
    const list = h("div", { class: "stack" });
    const add = h("button", { type: "button", class: "small", "aria-label": `Add a statement to ${field}`,
      on: { click: () => {
        set(field, [...model[field], ""]);
        show();
        list.lastElementChild.querySelector("textarea").focus();
      } } }, "Add a statement");
    function move(index, by) {
      const copy = [...model[field]];
      copy.splice(index + by, 0, ...copy.splice(index, 1));
      set(field, copy);
      show();
      list.children[index + by].querySelector("textarea").focus();
    }
    function show() {
      const last = model[field].length - 1;
      replace(list, model[field].map((text, index) => {
        const name = `${field} ${index + 1}`;
        const button = (word, sign, disabled, click) => h("button", { type: "button", class: "small quiet", disabled,
          "aria-label": `${word} ${name}`, title: word, on: { click } }, sign);
        return h("div", { class: "statement" },
          h("textarea", { class: "mono", rows: 2, value: text, "aria-label": name, spellcheck: "false",
            on: { input: (event) => set(field, model[field].with(index, event.target.value)) } }),
          h("div", { class: "row" },
            button("Move up", "↑", index === 0, () => move(index, -1)),
            button("Move down", "↓", index === last, () => move(index, 1)),
            button("Remove", "✕", false, () => {
              set(field, model[field].toSpliced(index, 1));
              show();
              add.focus();
            })));
      }));
    }
    shows.push(show);
    const faults = h("div", { class: "field-faults error" });
    fields.set(field, { control: add, faults });
    return h("div", { class: "stack" }, h("div", null,
      h("h3", null, `${title} `, h("span", { class: "key mono" }, field)), h("p", { class: "hint" }, hint)),
      list, faults, h("div", null, add));
  }

  // ---- Speed ----

  const mbps = fieldOf("mbps", "Megabytes a second", textInput("mbps", "mbps", { inputmode: "numeric" }),
    { key: "mbps", hint: "For the whole job, over all machines." });
  const throttle = checkbox("throttle", "throttle", "Limit the speed", "throttle");
  const showMbps = () => { mbps.hidden = !model.throttle; };
  throttle.addEventListener("change", showMbps);
  shows.push(showMbps);

  // ---- The steps ----

  replace(body,
    step(1, "Source", source.element, moreTables, h("div", { class: "row" }, addTable, h("span", { class: "hint" },
      "Tables of the same columns; ", h("span", { class: "mono" }, "t_[00-15]"), " is sixteen of them."))),
    step(2, "Target", target.element, create, loadUrlNote),
    step(3, "Columns", columnFaults, mappingNote, mapping),
    step(4, "Rows", h("div", { class: "fields" },
      fieldOf("where", "Only rows where", where, { className: "wide",
        hint: "One condition in the source's SQL; without it all rows. A parameter needs its quotes: '${bizdate}'." }),
      fieldOf("splitPk", "Cut the table by", splitPk, { key: "splitPk", className: "wide",
        hint: "Its ranges become tasks that run side by side; rows with NULL have a task of their own." }))),
    step(5, "Load",
      h("div", { class: "fields" },
        fieldOf("format", "Format", format),
        fieldOf("strategyOnError", "On a refused load", strategy, { key: "strategyOnError" }),
        h("div", { class: "stack" }, fieldOf("badRows", "Bad rows allowed", badKind, { key: "errorLimit" }), badValue)),
      statements("preSql", "Before the transfer",
        "Run once and in order, after all checks and before the first row is read; @table is the target table."),
      statements("postSql", "After the transfer", "Run once and in order, after every task is committed."),
      moreLoad),
    step(6, "Speed",
      h("div", { class: "fields" },
        fieldOf("concurrent", "Most tasks at once", textInput("concurrent", "concurrent",
          { inputmode: "numeric", placeholder: "3" }), { key: "concurrent" }),
        fieldOf("commit", "Rows become visible", select("commit", "commit",
          [["task", "task: as each is done"], ["job", "job: all at once, at the end"]]), { key: "commit" }),
        h("div", { class: "stack" }, throttle, mbps)),
      h("details", null, h("summary", null, "More"), h("div", { class: "fields" },
        fieldOf("splitFactor", "Tasks per unit of concurrent", textInput("split-factor", "splitFactor",
          { inputmode: "numeric", placeholder: "5" }), { key: "splitFactor" })))));

  const loaded = get("/datasources").then((reply) => { datasources = reply.datasources; },
    (error) => { replace(sourcesError, h("div", { class: "note bad" }, problem(error))); });

  function noticeOf(reading) {
    const toCode = h("button", { type: "button", class: "small", on: { click: openCode } }, "Open the code");
    if (reading.refusal) {
      return h("div", { class: "note warn stack" }, h("p", null, reading.refusal), h("div", null, toCode));
    }
    const locked = {
      query: "The source is a statement of its own (querySql).",
      several: `The source has several places: ${reading.model.sourcePlaces.join("; ")}.`,
    }[reading.model.sourceLocked];
    if (!locked && reading.kept.length === 0) return null;
    return h("div", { class: "note stack", id: "kept" },
      locked && h("p", { class: "break" }, `${locked} It is changed in the code.`),
      reading.kept.length > 0 && h("p", null, "No field shows these parts; they stay as they are: ",
        reading.kept.slice(0, NAMES_SHOWN).map((pointer, index) => [index > 0 && ", ", h("code", null, pointer)]),
        reading.kept.length > NAMES_SHOWN && ` and ${reading.kept.length - NAMES_SHOWN} more`, "."),
      h("div", null, toCode));
  }

  return {
    element,
    async show(reading) {
      replace(notice, noticeOf(reading));
      body.hidden = Boolean(reading.refusal);
      if (reading.refusal) return;
      await loaded;
      if (closed) return;
      ({ model, places } = reading);
      mapsItself = false;
      keyChosen = model.splitPk !== "";
      for (const show of shows) show();
    },
    mark(faults) {
      const byField = Map.groupBy(faults, (fault) => fieldAt(places, fault.pointer));
      for (const [field, { control, faults: box }] of fields) {
        const here = byField.get(field) ?? [];
        if (control.matches("input, select, textarea")) control.setAttribute("aria-invalid", String(here.length > 0));
        replace(box, here.map((fault) => h("p", null, `✕ ${fault.message}`)));
      }
    },
    focus(pointer) {
      const place = fields.get(fieldAt(places, pointer));
      if (!place || body.hidden) return false;
      place.control.closest("details")?.setAttribute("open", "");
      place.control.focus();
      place.control.scrollIntoView({ block: "center" });
      return true;
    },
    close: () => { closed = true; },
  };
}

// Fills a select with [value, text]; a value that is not among them is added, because the script has it all the same.
function fillSelect(control, options, value) {
  const known = options.some(([one]) => one === value);
  replace(control, options.map(([one, text]) => h("option", { value: one }, text)),
    !known && h("option", { value }, options.length > 0 ? `${value} (not in the list)` : value || "choose"));
  control.value = value;
}
