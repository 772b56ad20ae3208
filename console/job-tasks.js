// Tasks that want a look: the slowest, the failed, and those of which nobody but a human can say whether they
// committed.

import { actingProps } from "./api.js";
import { badge, h, modal, problem, table } from "./dom.js";
import { count, duration, many } from "./numbers.js";

/** The slowest tasks, from the report ({id, rows}) or from the tasks themselves ({task_id, rows_read}). */
export function slowestOf(tasks) {
  const rowsOf = (task) => task.rows ?? task.rows_read;
  return table({
    caption: "The slowest tasks by time of their attempt",
    rows: tasks,
    row: (task) => ({ dataset: { key: String(task.task_id ?? task.id) } }),
    columns: [
      { name: "Task", class: "num", of: (task) => count(task.task_id ?? task.id) },
      { name: "Range", class: "mono break", of: (task) => task.range },
      { name: "Rows", class: "num", of: (task) => count(rowsOf(task)) },
      { name: "Seconds", class: "num nowrap", of: (task) => duration(task.seconds) },
      { name: "Rows/s", class: "num", of: (task) => (task.seconds > 0 ? count(rowsOf(task) / task.seconds) : "–") },
      ...(tasks[0]?.state ? [
        { name: "Worker", class: "mono nowrap", of: (task) => task.worker_id },
        { name: "State", of: (task) => badge(task.state) },
      ] : []),
    ],
    empty: "None to compare yet.",
  });
}

/** Failed and undecided tasks with their errors; `resolve(task, answer, reason)` is called with the human's answer. */
export function troubledOf({ tasks, total }, resolve) {
  return tasks.length > 0 && h("section", {
    class: "panel stack", "aria-labelledby": "troubled-title", dataset: { key: "troubled" },
  },
  h("h2", { id: "troubled-title" }, "Failed and undecided tasks"),
  total > tasks.length && h("p", { class: "muted" }, `The first ${tasks.length} of ${count(total)}.`),
  h("ul", { class: "troubled" }, tasks.map((task) => h("li", { dataset: { key: String(task.task_id) } },
    h("div", { class: "row between" },
      h("div", { class: "row" }, h("b", null, `Task ${task.task_id}`), badge(task.state),
        h("span", { class: "mono break" }, task.range),
        h("span", { class: "muted" }, [
          task.attempts > 0 && many(task.attempts, "failed attempt"), task.worker_id && `last on ${task.worker_id}`,
        ].filter(Boolean).join(", "))),
      task.state === "UNDECIDED" && h("button", {
        type: "button", class: "small", dataset: { resolve: task.task_id }, ...actingProps(),
        on: { click: () => ask(task, resolve) },
      }, "Resolve …")),
    task.error && problem(task.error)))));
}

/** Asks what became of a task's commit. */
async function ask(task, resolve) {
  const choice = (value, name, text) => h("div", { class: "choice" },
    h("input", { type: "radio", name: "answer", id: `answer-${value}`, value, required: true }),
    h("label", { for: `answer-${value}` }, name, h("span", { class: "hint" }, text)));
  const reason = h("input", { id: "resolve-reason", type: "text", required: true, autocomplete: "off" });
  const form = h("form", { class: "stack", on: { submit: (event) => event.preventDefault() } },
    h("p", null, "StarRocks no longer knows what became of this task's transaction. Count the rows of ",
      h("span", { class: "mono break" }, task.range), " in the target, then say what is true. ",
      "A wrong answer loses rows or loads them twice."),
    h("fieldset", { class: "stack" }, h("legend", null, "What became of the commit?"),
      choice("committed", "Committed", "The rows are in the target; the task is done."),
      choice("redo", "Not committed", "The rows are not there; the task is done again.")),
    h("label", { for: "resolve-reason" }, "How you know (kept with the job)"), reason);
  const yes = await modal({
    title: `Resolve task ${task.task_id}`,
    content: form,
    buttons: [
      { text: "Back", class: "", id: "confirm-no", value: false },
      { text: "Resolve", class: "danger", id: "confirm-yes", value: true, check: () => form.reportValidity() },
    ],
  });
  if (yes) resolve(task.task_id, new FormData(form).get("answer"), reason.value.trim());
}
