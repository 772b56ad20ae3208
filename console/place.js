// One end of the job in the form: a data source, a database, a table, and what the coordinator knows about the table.

import { get } from "./api.js";
import { h, problem, replace } from "./dom.js";
import { fillSelect, labelled } from "./fields.js";
import { many } from "./numbers.js";
import { firstTable } from "./script.js";

// A name that is being typed is looked up when the reader pauses.
const TYPED_MS = 700;

/**
 * `side` is "source" or "target", `fields` names the fields of the model for `datasource`, `database` and `table`. The
 * rest is what differs between the ends: `options()` are the data sources to choose from as [name, text], `table()` and
 * `setTable(name)` the table's name, `isLocked()`, `onDatasource(name)` before another one is set, and `missing(entry)`
 * is what is said when there is no such table. `onChange()` is called before the reader's choice changes anything,
 * `onSettled()` whenever a look-up has ended.
 *
 * Returns `element`, `tables` (a datalist) and `refresh()`, and the state that a look-up leaves: `known` is the table's
 * {columns, split_pk} or null, `missing` whether the server says that there is none, `chosen` whether the reader chose
 * another place since the script was shown.
 */
export function createPlace(form, side, fields, { options, table, setTable, isLocked, onDatasource, missing, onChange,
  onSettled }) {
  const note = h("div", { class: "place-note", "aria-live": "polite" });
  const databases = h("datalist", { id: `${side}-databases` });
  const tables = h("datalist", { id: `${side}-tables` });
  const place = { known: null, missing: false, chosen: false, tables, refresh };
  // Counts look-ups: what an older one finds comes too late.
  let turn = 0;
  let timer = 0;
  let names = new Set();

  const datasourceSelect = h("select", { id: `${side}-datasource`, on: { change: () => {
    onDatasource(datasourceSelect.value);
    choose(fields.datasource, datasourceSelect.value);
  } } });
  const databaseInput = nameInput(`${side}-database`, databases,
    { on: { change: () => choose(fields.database, databaseInput.value.trim()) } });
  const tableInput = nameInput(`${side}-table`, tables,
    { placeholder: "type or choose", on: { input: typed, change: typed } });

  function choose(field, value) {
    onChange();
    place.chosen = true;
    form.set(field, value);
    refresh();
  }

  /** A name that is known is looked up at once, another one when the reader has finished it. */
  function typed(event) {
    clearTimeout(timer);
    const name = tableInput.value.trim();
    if (name !== table()) {
      onChange();
      place.chosen = true;
      place.known = null;
      setTable(name);
    } else if (place.known || event.type === "input") {
      return;
    }
    timer = setTimeout(refresh, names.has(name) || event.type === "change" ? 0 : TYPED_MS);
  }

  async function refresh() {
    const mine = ++turn;
    const name = form.model[fields.datasource];
    const preset = form.datasources.find((one) => one.name === name)?.database ?? "";
    databaseInput.placeholder = preset ? `${preset} (of the data source)` : "";
    place.known = null;
    place.missing = false;
    if (!name) return settled("");
    const entry = firstTable(table(), form.model[fields.database] || preset);
    replace(note, h("p", { class: "muted" }, "Looking…"));
    const answers = await lookUp(name, entry);
    if (mine !== turn || form.closed) return;
    const [databaseList, tableList, description] = answers;
    const found = tableList.value?.tables ?? [];
    names = new Set(found.map((one) => one.name));
    replace(databases, (databaseList.value?.databases ?? []).map((value) => h("option", { value })));
    replace(tables, found.map((one) => h("option", { value: one.name })));
    place.missing = tableList.status === "fulfilled" && description.reason?.code === "UNKNOWN_TABLE";
    if (description.status === "fulfilled") place.known = description.value;
    const failure = answers.find((answer) => answer.status === "rejected");
    if (failure && !place.missing) return settled(problem(failure.reason));
    if (!entry.database) return settled("Choose a database: the data source names none.");
    if (!entry.table) return settled(`${many(found.length, "table")} in ${entry.database}.`);
    if (place.missing) return settled(missing(entry));
    settled(knownNote(place.known, found.find((one) => one.name === entry.table)));
  }

  function settled(text) {
    replace(note, typeof text === "string" ? text && h("p", { class: "muted" }, text) : text);
    onSettled();
  }

  form.onShow(() => {
    place.chosen = false;
    fillSelect(datasourceSelect, [["", "choose"], ...options()], form.model[fields.datasource]);
    databaseInput.value = form.model[fields.database];
    tableInput.value = table();
    for (const control of [datasourceSelect, databaseInput, tableInput]) control.disabled = isLocked();
    refresh();
  });
  place.element = h("div", { class: "stack" },
    h("div", { class: "fields" },
      labelled(form, fields.datasource, "Data source", datasourceSelect),
      labelled(form, fields.database, "Database", databaseInput),
      labelled(form, fields.table, "Table", tableInput)),
    databases, tables, note);
  return place;
}

function nameInput(id, list, props) {
  return h("input", { id, type: "text", list: list.id, autocomplete: "off", spellcheck: "false", ...props });
}

/** The outcomes of three requests: the databases, the tables of one, and the columns of one of those. */
function lookUp(datasource, { database, table }) {
  const base = `/datasources/${encodeURIComponent(datasource)}/databases`;
  const inside = `${base}/${encodeURIComponent(database)}/tables`;
  return Promise.allSettled([
    get(base),
    database ? get(inside) : { tables: [] },
    database && table ? get(`${inside}/${encodeURIComponent(table)}`) : null,
  ]);
}

function knownNote(known, row) {
  const rows = Number.isFinite(row?.rows_estimate) ? `, about ${many(row.rows_estimate, "row")}` : "";
  return `${many(known.columns.length, "column")}${rows}.`;
}
