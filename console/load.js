// The form's step "Load": how rows are loaded, how many may be bad, the statements around the transfer, and the
// properties of Stream Load.

import { h, replace } from "./dom.js";
import { fillSelect, labelled, select, statements, textInput } from "./fields.js";
import { bytes } from "./numbers.js";

const BAD_ROWS = [
  ["none", "none"], ["some", "at most this many"], ["share", "at most this share (0.01 is 1 %)"], ["any", "any number"],
];
// The script's own, where it names none.
const BATCH_SIZE_DEFAULT = 5242880;
const LOAD_PROPS = [
  "column_separator", "row_delimiter", "compression", "strict_mode", "max_filter_ratio", "timeout", "columns", "where",
  "partial_update", "partial_update_mode", "merge_condition", "timezone", "load_mem_limit", "partitions",
  "temporary_partitions", "warehouse", "jsonpaths",
];

/** What the step holds, from top to bottom. */
export function loadStep(form) {
  const format = select(form, "load-format", "format", [["csv", "CSV"], ["json", "JSON"]]);
  const strategy = select(form, "strategy-on-error", "strategyOnError",
    [["exit", "exit: end the job"], ["batchDirtyData", "batchDirtyData: leave bad rows out"]]);
  return [
    h("div", { class: "fields" },
      labelled(form, "format", "Format", format),
      labelled(form, "strategyOnError", "On a refused load", strategy, { key: "strategyOnError" }),
      badRows(form)),
    statements(form, "preSql", "Before the transfer",
      "Run once and in order, after all checks and before the first row is read; @table is the target table."),
    statements(form, "postSql", "After the transfer", "Run once and in order, after every task is committed."),
    more(form),
  ];
}

function badRows(form) {
  const kind = h("select", { id: "bad-rows", on: { change } });
  const value = h("input", { id: "bad-rows-value", type: "text", inputmode: "decimal", "aria-label": "Most bad rows",
    autocomplete: "off", on: { input: change } });

  function change() {
    const takesValue = kind.value === "some" || kind.value === "share";
    form.set("badRows", { kind: kind.value, value: takesValue ? value.value.trim() : "" });
    value.hidden = !takesValue;
  }

  form.onShow(() => {
    const shown = form.model.badRows;
    fillSelect(kind, BAD_ROWS, shown.kind);
    value.value = shown.value;
    value.hidden = shown.value === "";
  });
  return h("div", { class: "stack" },
    labelled(form, "badRows", "Bad rows allowed", kind, { key: "errorLimit" }), value);
}

/** What few jobs need: the size of a load, and the properties of Stream Load. */
function more(form) {
  const batchRows = textInput(form, "max-batch-rows", "maxBatchRows", { inputmode: "numeric", placeholder: "500000" });
  const batchSize = textInput(form, "max-batch-size", "maxBatchSize",
    { inputmode: "numeric", placeholder: String(BATCH_SIZE_DEFAULT) });
  const sizeInWords = h("span", null);
  const tellSize = () => { sizeInWords.textContent = `= ${bytes(Number(batchSize.value || BATCH_SIZE_DEFAULT))}`; };
  batchSize.addEventListener("input", tellSize);
  form.onShow(tellSize);

  const element = h("details", null, h("summary", null, "Batches and load properties"),
    h("div", { class: "stack" },
      h("div", { class: "fields" },
        labelled(form, "maxBatchRows", "Rows of a load", batchRows, { key: "maxBatchRows" }),
        labelled(form, "maxBatchSize", "Bytes of a load", batchSize,
          { key: "maxBatchSize", hint: [sizeInWords, ". 64 MB makes few, large loads."] })),
      h("div", null,
        h("h3", null, "Load properties ", h("span", { class: "key mono" }, "loadProps")),
        h("p", { class: "hint" },
          "Headers of Stream Load. Without separators Starlift picks bytes that the data does not hold.")),
      properties(form),
      h("datalist", { id: "load-props" }, LOAD_PROPS.map((value) => h("option", { value })))));
  form.onShow(() => { element.open = form.model.loadProps.length > 0; });
  return element;
}

function properties(form) {
  const list = h("div", { class: "stack" });
  const add = h("button", { type: "button", class: "small", on: { click: () => {
    form.set("loadProps", [...form.model.loadProps, { key: "", value: "" }]);
    show();
    list.lastElementChild.querySelector("input").focus();
  } } }, "Add a property");

  function show() {
    replace(list, form.model.loadProps.map(property));
  }

  function property(row, index) {
    const input = (side, props) => h("input", { type: "text", class: "mono", value: row[side], ...props,
      autocomplete: "off", spellcheck: "false", on: { input: (event) => {
        const { loadProps } = form.model;
        form.set("loadProps", loadProps.with(index, { ...loadProps[index], [side]: event.target.value }));
      } } });
    return h("div", { class: "prop" },
      input("key", { list: "load-props", "aria-label": `Property ${index + 1}`, placeholder: "property" }),
      input("value", { "aria-label": `Value of property ${index + 1}`, placeholder: "value" }),
      h("button", { type: "button", class: "small quiet", "aria-label": `Remove property ${index + 1}`,
        on: { click: () => {
          form.set("loadProps", form.model.loadProps.toSpliced(index, 1));
          show();
          add.focus();
        } } }, "✕"));
  }

  form.onShow(show);
  return [list, h("div", null, add)];
}
