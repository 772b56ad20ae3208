// The job script as text, as a value, and as the model of the form; pure, without any DOM.
//
// The text is the truth. The form reads a model out of it with `fromScript`; `toScript` puts a changed model back and
// touches only the fields whose value in the model changed, so everything the form does not know stays as it was.
// What a field means stands in docs/JOBS.md; whether it is right is the coordinator's to say (POST /validate).

/** A number that JavaScript would write in another way than the text does: 12345678901234567890, 1.0, 1e3. */
class Exact {
  constructor(text) {
    this.text = text;
  }
}

/** Text -> value. Throws an Error with a message for people. Numbers keep their digits, see Exact. */
export function parse(text) {
  JSON.parse(text);
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[^\s{}[\],:"]+|[{}[\],:]/g);
  let next = 0;
  const value = () => {
    const token = tokens[next++];
    if (token === "{") {
      const object = {};
      while (tokens[next] !== "}") {
        const key = JSON.parse(tokens[next]);
        if (Object.hasOwn(object, key)) throw new Error(`The key "${key}" stands twice in one object.`);
        next += 2;
        // defineProperty, because an assignment to "__proto__" would be none.
        Object.defineProperty(object, key, { value: value(), writable: true, enumerable: true, configurable: true });
        if (tokens[next] === ",") next++;
      }
      next++;
      return object;
    }
    if (token === "[") {
      const list = [];
      while (tokens[next] !== "]") {
        list.push(value());
        if (tokens[next] === ",") next++;
      }
      next++;
      return list;
    }
    const scalar = JSON.parse(token);
    return typeof scalar === "number" && String(scalar) !== token ? new Exact(token) : scalar;
  };
  return value();
}

const LINE = 100;
const LINE_NESTED = 72;

/** Value -> text as people write it: what is short stands on one line. */
export function print(value) {
  return layout(value, "", 0) + "\n";
}

function layout(value, indent, used) {
  const short = oneLine(value);
  if (!isContainer(value) || (indent !== "" && used + short.length <= LINE && isFlat(value))) return short;
  const deeper = indent + "  ";
  const lines = Array.isArray(value)
    ? value.map((element) => deeper + layout(element, deeper, deeper.length))
    : Object.entries(value).map(([key, member]) => {
        const head = `${deeper}${JSON.stringify(key)}: `;
        return head + layout(member, deeper, head.length);
      });
  if (lines.length === 0) return short;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return `${open}\n${lines.join(",\n")}\n${indent}${close}`;
}

function oneLine(value) {
  if (value instanceof Exact) return value.text;
  if (Array.isArray(value)) return `[${value.map(oneLine).join(", ")}]`;
  if (!isContainer(value)) return JSON.stringify(value);
  const members = Object.entries(value).map(([key, member]) => `${JSON.stringify(key)}: ${oneLine(member)}`);
  return members.length === 0 ? "{}" : `{ ${members.join(", ")} }`;
}

/** What holds containers itself reads well on one line only while it is small: hops do, steps do not. */
function isFlat(value) {
  return depth(value) === 1 || oneLine(value).length <= LINE_NESTED;
}

function depth(value) {
  return isContainer(value) ? 1 + Math.max(0, ...Object.values(value).map(depth)) : 0;
}

function isContainer(value) {
  return value !== null && typeof value === "object" && !(value instanceof Exact);
}

function isObject(value) {
  return isContainer(value) && !Array.isArray(value);
}

/** What a new job starts with. 64 MiB make few and large loads; the script's own default of 5 MiB makes many. */
export function emptyScript() {
  return {
    type: "job",
    version: "2.0",
    steps: [
      {
        stepType: "mysql",
        name: "Reader",
        category: "reader",
        parameter: { datasource: "", table: "", column: [] },
      },
      {
        stepType: "starrocks",
        name: "Writer",
        category: "writer",
        parameter: { datasource: "", table: "", column: [], loadProps: {}, maxBatchSize: 67108864 },
      },
    ],
    setting: { errorLimit: { record: 0 }, speed: { concurrent: 4, throttle: false } },
    order: { hops: [{ from: "Reader", to: "Writer" }] },
  };
}

// Kinds of fields: `fits` tells whether the form can show a value, `read` and `write` turn it into the model's and back
// (undefined: the key goes). The model holds text, flags and lists of text.
const isAbsent = (value) => value === undefined || value === null;
const isText = (value) => typeof value === "string";
const isNumber = (value) => typeof value === "number" || value instanceof Exact;
const isScalar = (value) => isText(value) || isNumber(value) || typeof value === "boolean";
const asText = (value) => (isAbsent(value) ? "" : value instanceof Exact ? value.text : String(value));
const asNumber = (text) => (/^(0|[1-9]\d{0,14})$/.test(text) ? Number(text) : text);

const KINDS = {
  text: {
    fits: (value) => isAbsent(value) || isText(value),
    read: asText,
    write: (text) => text || undefined,
  },
  name: {
    fits: (value) => isAbsent(value) || isText(value) ||
      (Array.isArray(value) && value.length === 1 && isText(value[0])),
    read: (value) => asText(Array.isArray(value) ? value[0] : value),
    write: (text) => text,
  },
  number: {
    fits: (value) => isAbsent(value) || isText(value) || isNumber(value),
    read: asText,
    write: (text) => (text === "" ? undefined : asNumber(text)),
  },
  flag: {
    fits: (value) => isAbsent(value) || typeof value === "boolean" || /^(true|false)$/i.test(value),
    read: (value) => asText(value).toLowerCase() === "true",
    write: (flag) => flag,
  },
  list: {
    fits: (value) => isAbsent(value) || isText(value) || (Array.isArray(value) && value.every(isText)),
    read: (value) => (isAbsent(value) || value === "" ? [] : [value].flat()),
    write: (list) => list.filter((text) => text.trim() !== ""),
  },
};

// field of the model, kind, where it stands below the reader's or writer's parameters or the settings
const FIELDS = [
  ["sourceDatabase", "text", "reader", "selectedDatabase"],
  ["where", "text", "reader", "where"],
  ["splitPk", "text", "reader", "splitPk"],
  ["splitFactor", "number", "reader", "splitFactor"],
  ["targetDatasource", "name", "writer", "datasource"],
  ["targetDatabase", "text", "writer", "selectedDatabase"],
  ["targetTable", "name", "writer", "table"],
  ["loadUrl", "list", "writer", "loadUrl"],
  ["createTable", "flag", "setting", "starlift", "createTable"],
  ["strategyOnError", "text", "writer", "strategyOnError"],
  ["maxBatchRows", "number", "writer", "maxBatchRows"],
  ["maxBatchSize", "number", "writer", "maxBatchSize"],
  ["preSql", "list", "writer", "preSql"],
  ["postSql", "list", "writer", "postSql"],
  ["concurrent", "number", "setting", "speed", "concurrent"],
  ["throttle", "flag", "setting", "speed", "throttle"],
  ["mbps", "number", "setting", "speed", "mbps"],
  ["commit", "text", "setting", "starlift", "commit"],
];

/**
 * Script -> {model, kept, places} or {refusal} where the form cannot show the script at all.
 *   model   what the form shows, see FIELDS and `readers` below
 *   kept    JSON pointers of the parts that the form does not show; it leaves them alone
 *   places  JSON pointer -> field of the model, to find the field of a fault
 */
export function fromScript(script) {
  const refusal = refusalOf(script);
  if (refusal) return { refusal };
  const places = new Map();
  const hidden = new Set();
  const model = {};
  const see = (field, path, fits) => {
    places.set(pointerOf(path), field);
    if (!fits) hidden.add(pointerOf(path));
    return fits;
  };
  for (const [field, kindName, base, ...keys] of FIELDS) {
    const kind = KINDS[kindName];
    const path = [...basePath(script, base), ...alias(script, field, keys)];
    const value = at(script, path);
    model[field] = kind.read(see(field, path, kind.fits(value)) ? value : undefined);
  }
  for (const { read } of readers) Object.assign(model, read(script, see));
  return { model, kept: keptOf(script, places, hidden), places };
}

/** Model -> script. Only what differs from the model of `base` is written; a copy of `base` holds the rest. */
export function toScript(model, base = emptyScript()) {
  const script = copy(base);
  const before = fromScript(base).model;
  for (const [field, kindName, baseName, ...keys] of FIELDS) {
    if (same(before[field], model[field])) continue;
    const path = [...basePath(script, baseName), ...alias(script, field, keys)];
    put(script, path, KINDS[kindName].write(model[field]));
  }
  for (const { fields, write } of readers) {
    if (fields.some((field) => !same(before[field], model[field]))) write(script, model, before);
  }
  return script;
}

function refusalOf(script) {
  if (!isObject(script)) return "The script is no JSON object.";
  if (Object.hasOwn(script, "job")) {
    return "This is a DataX file, which holds accounts; a coordinator does not take it. " +
      "`starlift convert FILE` turns it into a script and data source entries.";
  }
  if (!Array.isArray(script.steps)) return "The script has no list of steps.";
  for (const category of ["reader", "writer"]) {
    const steps = script.steps.filter((step) => isObject(step) && step.category === category);
    if (steps.length !== 1) return `The form shows scripts with one ${category}; this one has ${steps.length}.`;
    if (!isObject(steps[0].parameter)) return `The ${category} has no object "parameter".`;
  }
  if (!isAbsent(script.setting) && !isObject(script.setting)) return `"setting" is no object.`;
  return "";
}

function stepIndex(script, category) {
  return script.steps.findIndex((step) => isObject(step) && step.category === category);
}

function basePath(script, base) {
  return base === "setting" ? ["setting"] : ["steps", stepIndex(script, base), "parameter"];
}

/** `channel` is another name for `concurrent`; it stays where the script uses it. */
function alias(script, field, keys) {
  const speed = at(script, ["setting", "speed"]);
  const other = field === "concurrent" && isObject(speed) && isAbsent(speed.concurrent) && !isAbsent(speed.channel);
  return other ? ["speed", "channel"] : keys;
}

// The fields that are more than one value at one place.
const readers = [
  { fields: ["sourceType", "sourceDatasource", "sourceTables"], read: readSource, write: writeSource },
  { fields: ["columns"], read: readColumns, write: writeColumns },
  { fields: ["format", "loadProps"], read: readLoadProps, write: writeLoadProps },
  { fields: ["badRows"], read: readBadRows, write: writeBadRows },
];

/** Where tables stand: in the reader itself, or in its first connection. */
function sourcePath(script) {
  const path = basePath(script, "reader");
  const { connection } = at(script, path);
  return Array.isArray(connection) && isObject(connection[0]) ? [...path, "connection", 0] : path;
}

/**
 * `sourceLocked` says why the form only shows the source: a "query", or "several" places, which `sourcePlaces` tells.
 */
function readSource(script, see) {
  const path = sourcePath(script);
  const reader = at(script, basePath(script, "reader"));
  const place = at(script, path);
  const stepType = [...basePath(script, "reader").slice(0, -1), "stepType"];
  const connections = Array.isArray(reader.connection) ? reader.connection : [];
  const queries = [reader, ...connections].some((one) => isObject(one) && !isAbsent(one.querySql));
  const oddConnection = !isAbsent(reader.connection) && (place === reader || connections.length > 1);
  const twoPlaces = place !== reader && (!isAbsent(reader.table) || !isAbsent(reader.datasource));
  const locked = queries ? "query" : oddConnection || twoPlaces ? "several" : "";
  const fits = KINDS.text.fits(place.datasource) && KINDS.list.fits(place.table);
  see("sourceType", stepType, KINDS.text.fits(at(script, stepType)));
  // With several connections the whole list is what stays as it is, and the first one serves to look up columns.
  see("sourceDatasource", [...path, "datasource"], fits && !locked);
  see("sourceTables", [...path, "table"], fits && !locked);
  return {
    sourceType: asText(at(script, stepType)),
    sourceDatasource: fits ? asText(place.datasource) : "",
    sourceTables: fits ? KINDS.list.read(place.table) : [],
    sourceLocked: locked || (fits ? "" : "several"),
    sourcePlaces: (locked ? connections : []).filter(isObject).map((one) =>
      `${asText(one.datasource) || "?"}: ${KINDS.list.fits(one.table) ? KINDS.list.read(one.table).join(", ") : "?"}`),
  };
}

function writeSource(script, model, before) {
  put(script, [...basePath(script, "reader").slice(0, -1), "stepType"], model.sourceType);
  const path = sourcePath(script);
  if (before.sourceDatasource !== model.sourceDatasource) put(script, [...path, "datasource"], model.sourceDatasource);
  if (same(before.sourceTables, model.sourceTables)) return;
  const tables = model.sourceTables.filter((table) => table.trim() !== "");
  const asList = tables.length > 1 || Array.isArray(at(script, [...path, "table"]));
  put(script, [...path, "table"], asList ? tables : tables[0] ?? "");
}

function readColumns(script, see) {
  const lists = ["reader", "writer"].map((base) => {
    const path = [...basePath(script, base), "column"];
    const list = at(script, path);
    return see("columns", path, isAbsent(list) || (Array.isArray(list) && list.every(isText))) ? list ?? [] : [];
  });
  const rows = Math.max(lists[0].length, lists[1].length);
  const columns = Array.from({ length: rows }, (_, i) => ({ source: lists[0][i] ?? "", target: lists[1][i] ?? "" }));
  return { columns };
}

function writeColumns(script, model) {
  for (const [base, side] of [["reader", "source"], ["writer", "target"]]) {
    const list = model.columns.map((column) => column[side]);
    while (list.length > 0 && list.at(-1) === "") list.pop();
    put(script, [...basePath(script, base), "column"], list);
  }
}

function readLoadProps(script, see) {
  const path = [...basePath(script, "writer"), "loadProps"];
  const props = at(script, path);
  if (!isObject(props)) {
    see("loadProps", path, isAbsent(props));
    return { format: "csv", loadProps: [] };
  }
  const rows = [];
  for (const [key, value] of Object.entries(props)) {
    const field = key === "format" ? "format" : "loadProps";
    if (see(field, [...path, key], isScalar(value)) && key !== "format") rows.push({ key, value: asText(value) });
  }
  see("loadProps", path, true);
  return { format: asText(isScalar(props.format) ? props.format : "").toLowerCase() || "csv", loadProps: rows };
}

function writeLoadProps(script, model, before) {
  const path = [...basePath(script, "writer"), "loadProps"];
  const old = isObject(at(script, path)) ? at(script, path) : {};
  const props = { ...old };
  if (model.format !== before.format) props.format = model.format;
  const rows = new Map(model.loadProps.map((row) => [row.key.trim(), row.value]));
  rows.delete("");
  for (const { key } of before.loadProps) if (!rows.has(key)) delete props[key];
  for (const [key, value] of rows) {
    if (!Object.hasOwn(props, key) || asText(props[key]) !== value) props[key] = value;
  }
  put(script, path, props);
}

/** How many bad rows a job may have: {kind: "none" | "some" | "any" | "share", value}. */
function readBadRows(script, see) {
  const path = ["setting", "errorLimit"];
  const limit = at(script, path);
  if (isAbsent(limit)) {
    see("badRows", path, true);
    return { badRows: { kind: "none", value: "" } };
  }
  const known = isObject(limit) ? limit : {};
  if (!isObject(limit)) see("badRows", path, false);
  for (const key of ["record", "strategy", "percentage"]) {
    see("badRows", [...path, key], isAbsent(known[key]) || isScalar(known[key]));
  }
  return { badRows: badRowsOf(known) };
}

function badRowsOf({ record, strategy, percentage }) {
  const value = asText(record);
  const word = asText(strategy).toLowerCase();
  if (word === "ignore") return { kind: "any", value: "" };
  if (word === "zerotolerance") return { kind: "none", value: "" };
  if (isAbsent(record) && !isAbsent(percentage)) return { kind: "share", value: asText(percentage) };
  if (record === "" && isAbsent(percentage)) return { kind: "any", value: "" };
  return value === "" || value === "0" ? { kind: "none", value: "" } : { kind: "some", value };
}

function writeBadRows(script, model) {
  const path = ["setting", "errorLimit"];
  const { record, strategy, percentage, ...others } = isObject(at(script, path)) ? at(script, path) : {};
  const { kind, value } = model.badRows;
  const limit = {
    none: () => ({ record: 0 }),
    some: () => ({ record: asNumber(value) }),
    any: () => ({ strategy: "Ignore" }),
    share: () => ({ percentage: /^\d*\.?\d+$/.test(value) ? Number(value) : value }),
  }[kind]();
  put(script, path, { ...limit, ...others });
}

/** Pointers of what no field shows, each as high up as possible. Absent and empty things are not worth a word. */
function keptOf(script, places, hidden) {
  const frame = new Set(["/type", "/version", "/order"]);
  for (const category of ["reader", "writer"]) {
    const step = `/steps/${stepIndex(script, category)}`;
    for (const key of ["name", "category", "stepType"]) frame.add(`${step}/${key}`);
  }
  const isShown = (pointer) => frame.has(pointer) || (places.has(pointer) && !hidden.has(pointer));
  const shown = [...frame, ...places.keys()].filter(isShown);
  const kept = [];
  const visit = (value, pointer) => {
    const below = shown.some((one) => one.startsWith(`${pointer}/`));
    if (isShown(pointer) && (!below || !isContainer(value))) return;
    if (isAbsent(value) || value === "" || (isContainer(value) && Object.keys(value).length === 0)) return;
    if (!isContainer(value) || !below) kept.push(pointer);
    else for (const [key, member] of Object.entries(value)) visit(member, pointer + pointerOf([key]));
  };
  for (const [key, member] of Object.entries(script)) visit(member, pointerOf([key]));
  return kept;
}

/** The field that shows what a fault's pointer names, or something inside of it; undefined: none does. */
export function fieldAt(places, pointer) {
  for (let place = pointer; place; place = place.slice(0, place.lastIndexOf("/"))) {
    if (places.has(place)) return places.get(place);
  }
  return undefined;
}

/** Columns by name, in the target's order. Generated columns take no values. */
export function mapByName(sourceColumns, targetColumns) {
  const byName = new Map(sourceColumns.map((column) => [column.name.toLowerCase(), column.name]));
  return targetColumns
    .filter((column) => !column.generated && byName.has(column.name.toLowerCase()))
    .map((column) => ({ source: byName.get(column.name.toLowerCase()), target: column.name }));
}

/** The column that an element of the reader's list names, with or without backticks; undefined for an expression. */
export function columnNamed(element, columns) {
  const bare = element.trim().replace(/^`(.*)`$/s, (_, name) => name.replaceAll("``", "`")).toLowerCase();
  return columns.find((column) => column.name.toLowerCase() === bare);
}

/** The one column that an expression mentions; undefined if there is none, or more than one. */
export function columnMentioned(expression, columns) {
  const words = new Set((expression.match(/`[^`]+`|[\p{L}\p{N}_$]+/gu) ?? [])
    .map((word) => word.replaceAll("`", "").toLowerCase()));
  const found = columns.filter((column) => words.has(column.name.toLowerCase()));
  return found.length === 1 ? found[0] : undefined;
}

/** A remedy of POST /mapping for a column: `{col}` stands for the quoted name. */
export function remedyFor(remedy, name) {
  return remedy.replaceAll("{col}", () => `\`${name.replaceAll("`", "``")}\``);
}

/** The table to look up for an entry like "db.t_[00-15]": the first one it stands for. */
export function firstTable(entry, database) {
  const first = entry.trim().split(",")[0].replace(/\[(\d+)-\d+\]/g, "$1").replaceAll("`", "");
  const dot = first.indexOf(".");
  return dot > 0 ? { database: first.slice(0, dot), table: first.slice(dot + 1) } : { database, table: first };
}

/** Key types that ranges can be made of, as docs/JOBS.md has them. */
export function canSplit(type) {
  return /^(tiny|small|medium|big|large)?int|^integer|^decimal|^numeric|^date|^timestamp|char|text|^string/i.test(type);
}

function pointerOf(path) {
  return path.map((key) => `/${String(key).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
}

function at(value, path) {
  return path.reduce((inner, key) => (isContainer(inner) && Object.hasOwn(inner, key) ? inner[key] : undefined), value);
}

/** Sets what stands at a path, making objects on the way; undefined removes the key. */
function put(value, path, member) {
  const last = path.at(-1);
  let holder = value;
  for (const key of path.slice(0, -1)) {
    if (!isContainer(holder[key])) {
      if (member === undefined) return;
      holder[key] = {};
    }
    holder = holder[key];
  }
  if (member === undefined) delete holder[last];
  else holder[last] = member;
}

function copy(value) {
  if (Array.isArray(value)) return value.map(copy);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, copy(member)]));
}

export function same(a, b) {
  return JSON.stringify(a) === JSON.stringify(b);
}
