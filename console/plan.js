// What POST /plan answers: the facts of the plan, its SQL, its columns and the first of its tasks.

import { h, table } from "./dom.js";
import { count } from "./numbers.js";

const TASKS_SHOWN = 50;
const COLUMNS_OPEN = 12;

export function planResult(plan) {
  return h("div", { class: "stack" },
    plan.warnings.length > 0 && h("ul", { class: "plan-warnings note warn", "aria-label": "Warnings of the plan" },
      plan.warnings.map((text) => h("li", null, h("span", { class: "warning" }, "! "), text))),
    factsOf(plan),
    statementList("Before the transfer (preSql)", plan.pre_sql),
    statementList("After the transfer (postSql)", plan.post_sql),
    h("details", { open: plan.columns.length <= COLUMNS_OPEN },
      h("summary", null, `Columns as selected (${count(plan.columns.length)})`),
      table({ caption: "Columns as selected", rows: plan.columns, columns: [
        { name: "Selected", class: "mono", of: (column) => column.source },
        { name: "→ Target column", class: "mono", of: (column) => column.target },
      ] })),
    h("h3", null, "Tasks",
      plan.tasks.length > TASKS_SHOWN && `: the first ${TASKS_SHOWN} of ${count(plan.tasks.length)}`),
    table({ caption: "Tasks of the plan", rows: plan.tasks.slice(0, TASKS_SHOWN), empty: "Nothing to read.", columns: [
      { name: "Task", class: "num", of: (task) => String(task.id) },
      { name: "Range", class: "mono range", of: (task) => task.range },
      { name: "Rows", class: "num", of: (task) => count(task.rows_estimate) },
      { name: "SQL", class: "sql", of: (task) => h("details", null,
        h("summary", null, "SQL", h("span", { class: "sr-only" }, ` of task ${task.id}`)), h("code", null, task.sql)) },
    ] }));
}

function factsOf(plan) {
  const name = (text) => h("span", { class: "mono break" }, text);
  const facts = [
    ["From", name(plan.source.join(", "))],
    ["To", name(plan.target)],
    ["Tasks", count(plan.tasks.length)],
    ["Rows", `about ${count(plan.rows_estimate)}`],
    ["Loads", `about ${count(plan.loads_estimate)}`],
    ["At once", `at most ${count(plan.concurrent)} tasks`],
    ...Object.entries(plan.parameters).map(([parameter, value]) => [name(parameter), name(value)]),
  ];
  return h("dl", { class: "facts panel" },
    facts.map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value))));
}

function statementList(title, statements) {
  return statements.length > 0 && h("div", { class: "stack" }, h("h3", null, title),
    h("ol", { class: "statements" }, statements.map((text) => h("li", null, h("code", null, text)))));
}
