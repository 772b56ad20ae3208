// The final report of a job: every count, the equation they must satisfy, and the first bad rows.

import { h, table, time } from "./dom.js";
import { bytes, count, duration } from "./numbers.js";

/** A FinalReport as an element. */
export function reportOf(report) {
  const fact = (name, ...value) => h("div", { class: "fact" }, h("dt", null, name), h("dd", null, value));
  return h("section", {
    class: "panel stack", id: "job-report", "aria-labelledby": "report-title", dataset: { key: "report" },
  },
  h("h2", { id: "report-title" }, "Final report"),
  equationOf(report),
  h("dl", { class: "facts-grid" },
    fact("Started", time(report.started_at)),
    fact("Finished", time(report.finished_at)),
    fact("Took", duration(report.elapsed_seconds)),
    fact("Bytes read", bytes(report.bytes_read)),
    fact("Bytes loaded", bytes(report.bytes_loaded)),
    fact("Tasks", `${count(report.tasks.succeeded)} of ${count(report.tasks.total)} committed`,
      report.tasks.failed > 0 && `, ${count(report.tasks.failed)} failed`),
    fact("Loads", count(report.loads)),
    fact("Transactions", count(report.transactions)),
    fact("Retries", count(report.retries)),
    fact("Labels to sweep", count(report.labels_to_sweep))),
  report.dirty_files.length > 0 && h("div", null,
    h("h3", null, "All dirty records"),
    h("p", { class: "muted" }, "Written by the workers to their own disks:"),
    h("ul", { class: "plain" }, report.dirty_files.map((file) => h("li", { class: "mono break" }, file)))));
}

/** rows_read = rows_loaded + rows_filtered + rows_unselected + dirty_records, with its numbers. */
function equationOf(report) {
  const terms = ["rows_loaded", "rows_filtered", "rows_unselected", "dirty_records"];
  const holds = report.rows_read === terms.reduce((sum, name) => sum + report[name], 0);
  const term = (name) => h("span", { class: "term" },
    h("b", null, count(report[name])), h("span", { class: "mono sub" }, name));
  return h("div", { class: "equation", role: "group", "aria-label": "Where the rows read have gone" },
    term("rows_read"), h("span", { class: "sign" }, holds ? "=" : "≠"),
    terms.map((name, i) => [i > 0 && h("span", { class: "sign" }, "+"), term(name)]),
    h("span", { class: holds ? "verdict ok" : "verdict error" },
      holds ? "✓ every row is accounted for" : "✗ rows are not accounted for"));
}

/** The first bad rows, as the servers refused them. */
export function badRowsOf(report) {
  return report.bad_rows.length > 0 && h("section", {
    class: "panel stack bad-rows", "aria-labelledby": "bad-title", dataset: { key: "bad-rows" },
  },
  h("h2", { id: "bad-title" }, `First bad rows (${count(report.bad_rows.length)})`),
  table({
    caption: "Rows that StarRocks refused",
    rows: report.bad_rows,
    columns: [
      { name: "Key", class: "mono", of: (row) => row.key || "–" },
      { name: "Column", class: "mono", of: (row) => row.column || "–" },
      { name: "Reason", class: "break reason", of: (row) => row.reason },
    ],
  }));
}
