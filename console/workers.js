// The workers: who is there, what they do, how fast. Rates are differences of two polls.

import { actingProps, get, post, session } from "./api.js";
import { confirmAction, h, patchChildren, poll, problemNote, replace, table, toast } from "./dom.js";
import { bytes, count, duration, many } from "./numbers.js";

const POLL_SECONDS = 2;
const TASKS_SHOWN = 8;
// A worker is heard every second or so; after this long it is pointed out.
const QUIET_SECONDS = 10;

export async function show(main) {
  // Apart, because each poll says anew how it went, and a refused drain must not be wiped away by it.
  const trouble = h("div", { role: "alert" });
  const refusal = h("div", { role: "alert" });
  const body = h("div", { class: "stack" });
  let before = new Map();

  const drain = async (worker) => {
    const wanted = await confirmAction({
      title: `Drain ${worker.worker_id}?`,
      text: `It takes no new tasks, finishes what it runs (${many(worker.running, "task")}) and exits. What takes `
        + "longer than its drain timeout is rolled back and given to other workers.",
      action: "Drain worker", danger: true,
    });
    if (!wanted) return;
    replace(refusal);
    try {
      await post(`/workers/${encodeURIComponent(worker.worker_id)}/drain`);
      toast(`${worker.worker_id} is draining`);
      stop.now();
    } catch (error) {
      replace(refusal, problemNote(error));
    }
  };

  replace(main, h("div", { class: "head" }, h("h1", null, "Workers")),
    h("div", { class: "stack" }, trouble, refusal, body));

  const stop = poll(POLL_SECONDS, async () => {
    const { workers } = await get("/workers");
    const now = new Map(workers.map((worker) => [worker.worker_id, momentOf(worker)]));
    const rows = workers.map((worker) => ({
      ...worker, ...now.get(worker.worker_id),
      speed: speedOf(before.get(worker.worker_id), now.get(worker.worker_id)),
    }));
    before = now;
    patchChildren(trouble);
    patchChildren(body, workers.length > 0 && totalsOf(rows), workersTable(rows, drain));
    main.dataset.ready = "true";
  }, (error) => {
    patchChildren(trouble, problemNote(error));
    main.dataset.ready = "true";
  });
  return stop;
}

/** What a worker has done so far, finished or not, at this moment. */
function momentOf({ rows, bytes: finished, tasks }) {
  return {
    at: performance.now() / 1000,
    liveRows: tasks.reduce((sum, task) => sum + task.rows_read, rows),
    liveBytes: tasks.reduce((sum, task) => sum + task.bytes_read, finished),
  };
}

/** Rows per second since the poll before, null at first sight. A failed attempt takes its rows back: never below 0. */
function speedOf(before, now) {
  if (!before || now.at <= before.at) return null;
  return Math.max(0, (now.liveRows - before.liveRows) / (now.at - before.at));
}

function totalsOf(rows) {
  const sum = (of) => rows.reduce((total, row) => total + of(row), 0);
  const known = rows.some((row) => row.speed !== null);
  const tile = (name, value) => h("div", { class: "tile" },
    h("dt", null, name), h("dd", null, h("span", { class: "tile-value" }, value)));
  return h("dl", { class: "tiles", dataset: { key: "totals" } },
    tile("Workers", count(rows.length)),
    tile("Slots in use", `${count(sum((row) => row.running))} / ${count(sum((row) => row.slots))}`),
    tile("Rows/s", known ? count(sum((row) => row.speed ?? 0)) : "–"),
    tile("Rows done", count(sum((row) => row.liveRows))),
    tile("Bytes done", bytes(sum((row) => row.liveBytes))));
}

function workersTable(rows, drain) {
  return table({
    id: "workers-table",
    caption: "Workers",
    rows,
    row: (worker) => ({ dataset: { key: worker.worker_id, workerId: worker.worker_id } }),
    columns: [
      { name: "Worker", class: "nowrap", of: nameOf },
      { name: "Slots", class: "slots", of: slotsOf },
      { name: "Tasks", class: "tasks-now", of: tasksOf },
      { name: "Rows/s", class: "num rate", of: (worker) => (worker.speed === null ? "–" : count(worker.speed)) },
      { name: "Rows done", class: "num", of: (worker) => count(worker.liveRows) },
      { name: "Bytes done", class: "num", of: (worker) => bytes(worker.liveBytes) },
      { name: "Heard", class: "num nowrap", of: heardOf },
      { name: "Version", class: "nowrap", of: (worker) => worker.version },
      { name: "", class: "num", of: (worker) => drainOf(worker, drain) },
    ].map((column) => (column.name ? column : { ...column, name: h("span", { class: "sr-only" }, "Actions") })),
    empty: [
      h("p", null, "No worker is connected. Jobs wait until there is one."),
      h("p", null, "Start one on a host that reaches the sources and the target:"),
      h("pre", { class: "mono command", tabindex: 0, role: "region", "aria-label": "Command that starts a worker" },
        `starlift worker --coordinator ${reachable(session.grpc)} --datasources datasources.toml`),
    ],
  });
}

/** A coordinator that listens on every address does not know by which one it is reached; the browser knows one. */
function reachable(url) {
  return url.replace(/\/\/(0\.0\.0\.0|\[::\]):/, `//${location.hostname}:`);
}

function nameOf(worker) {
  return h("div", null,
    h("div", { class: "mono strong" }, worker.worker_id),
    h("div", { class: "sub" }, worker.host));
}

function slotsOf({ running, slots }) {
  return h("div", null,
    h("div", null, `${count(running)} / ${count(slots)}`),
    h("div", { class: "bar", "aria-hidden": "true" },
      h("div", { class: "bar-fill", style: { width: `${slots > 0 ? Math.min(1, running / slots) * 100 : 0}%` } })));
}

/** One line per job: its link and the tasks of it that run here. */
function tasksOf({ tasks }) {
  if (tasks.length === 0) return h("span", { class: "muted" }, "idle");
  const byJob = new Map();
  for (const task of tasks) byJob.set(task.job_id, [...(byJob.get(task.job_id) ?? []), task]);
  return h("ul", { class: "task-list" }, [...byJob].map(([job, list]) => h("li", { dataset: { key: job } },
    h("a", { class: "mono", href: `#/jobs/${encodeURIComponent(job)}` }, job),
    h("div", { class: "sub" }, list.length === 1 ? "task " : "tasks ",
      list.slice(0, TASKS_SHOWN).map((task) => task.task_id).join(", "),
      list.length > TASKS_SHOWN && ` and ${list.length - TASKS_SHOWN} more`))));
}

function heardOf({ seconds_since_heard: seconds }) {
  return seconds >= QUIET_SECONDS
    ? h("span", { class: "warning" }, `⚠ ${duration(seconds)} ago`)
    : `${duration(seconds)} ago`;
}

function drainOf(worker, drain) {
  if (worker.draining) return h("span", { class: "badge warn" }, "DRAINING");
  return h("button", {
    type: "button", class: "small", ...actingProps(),
    "aria-label": `Drain ${worker.worker_id}`, on: { click: () => drain(worker) },
  }, "Drain");
}
