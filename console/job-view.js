// How a job's state is shown: phases, numbers, workers' shares, warnings. From data to elements, nothing else.

import { h } from "./dom.js";
import { byteRate, bytes, count, duration, many } from "./numbers.js";

const PHASES = [
  { name: "plan", title: "Plan", state: "PLANNING" },
  { name: "pre_sql", title: "preSql", state: "PRE_SQL" },
  { name: "transfer", title: "Transfer", state: "RUNNING" },
  { name: "commit", title: "Commit", state: "COMMITTING" },
  { name: "post_sql", title: "postSql", state: "POST_SQL" },
];

/** Whether nothing more happens to a job by itself; a FAILED one may be resumed. */
export function hasEnded(state) {
  return ["SUCCEEDED", "FAILED", "CANCELLED"].includes(state);
}

/** The share of a job's rows that is read. The estimate may be off by a lot; a job that is through is through. */
export function shareOf(state, { rows_read: read, rows_estimate: estimate }) {
  if (state === "SUCCEEDED") return 1;
  return estimate > 0 ? Math.min(1, read / estimate) : 0;
}

/** The phases in their order, each done, running, paused, stopped (the job ended in it), skipped or still to come. */
export function phasesOf({ state, paused_in: pausedIn, phases }) {
  const spent = new Map(phases.map(({ name, seconds }) => [name, seconds]));
  const ended = hasEnded(state);
  const last = PHASES.findLastIndex(({ name }) => spent.has(name) && (!ended || spent.get(name) > 0));
  const kindOf = (phase, index) => {
    if (phase.state === state) return "now";
    if (state === "PAUSED" && phase.state === pausedIn) return "paused";
    if (["FAILED", "CANCELLED"].includes(state) && index === last) return "stopped";
    if (spent.get(phase.name) > 0) return "done";
    return ended || index < last ? "skipped" : "ahead";
  };
  const words = {
    now: "running", paused: "paused", stopped: state.toLowerCase(), done: "done", skipped: "skipped", ahead: "to come",
  };
  return h("ol", { class: "phases" }, PHASES.map((phase, index) => {
    const kind = kindOf(phase, index);
    const seconds = spent.get(phase.name);
    return h("li", { class: `phase ${kind}`, "aria-current": kind === "now" ? "step" : null },
      h("span", { class: "phase-name" }, phase.title),
      h("span", { class: "phase-state" }, words[kind], seconds > 0 && ` ${duration(seconds)}`));
  }));
}

/** The numbers at a glance; once there is a report, averages stand where speeds stood. */
export function tilesOf({ progress, tasks, dirty_records: dirty, elapsed_seconds: elapsed, state }, report) {
  const share = shareOf(state, progress);
  const tile = (name, value, more, kind = "") => h("div", { class: `tile ${kind}` },
    h("dt", null, name),
    h("dd", null, h("span", { class: "tile-value" }, value), more && h("span", { class: "tile-more" }, more)));
  const speeds = report
    ? [tile("Average rows/s", count(report.avg_rows_per_second)),
      tile("Average bytes/s", byteRate(report.avg_bytes_per_second))]
    : [tile("Average rows/s", count(progress.rows_per_second)),
      tile("Average bytes/s", byteRate(progress.bytes_per_second)),
      tile("ETA", progress.eta_seconds === null ? "–" : duration(progress.eta_seconds))];
  return h("div", { class: "stack" },
    h("div", { class: "row between sub" },
      h("span", null, state === "SUCCEEDED" ? `${many(progress.rows_read, "row")} read`
        : `${count(progress.rows_read)} of about ${many(progress.rows_estimate, "row")} read`),
      h("b", null, `${Math.floor(share * 100)}%`)),
    h("div", {
      class: "bar tall", role: "progressbar", "aria-label": "Rows read of the estimate",
      "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.floor(share * 100),
    }, h("div", { class: `bar-fill ${state}`, style: { width: `${share * 100}%` } })),
    h("dl", { class: "tiles" },
      tile("Rows loaded", count(progress.rows_loaded)),
      tile("Bytes loaded", bytes(progress.bytes_loaded), `${bytes(progress.bytes_read)} read`),
      speeds,
      tile("Tasks done", count(tasks.succeeded),
        `of ${count(tasks.total)}${tasks.running > 0 ? `, ${count(tasks.running)} running` : ""}`),
      tile("Dirty records", count(dirty), null, dirty > 0 ? "warn" : ""),
      tile("Elapsed", duration(elapsed))));
}

/** Who did how much: a bar by rows for each worker. */
export function sharesOf(workers) {
  if (workers.length === 0) return h("p", { class: "muted" }, "No worker has taken a task yet.");
  const most = Math.max(1, ...workers.map(({ rows }) => rows));
  return h("ul", { class: "shares" }, [...workers].sort((a, b) => b.rows - a.rows || (a.id < b.id ? -1 : 1))
    .map((worker) => h("li", { dataset: { key: worker.id } },
      h("div", { class: "row between" },
        h("span", { class: "mono break" }, worker.id),
        h("span", null, `${count(worker.rows)} rows`)),
      h("div", { class: "bar", "aria-hidden": "true" },
        h("div", { class: "bar-fill", style: { width: `${worker.rows / most * 100}%` } })),
      h("div", { class: "sub" },
        `${many(worker.tasks, "task")} committed, `,
        worker.running > 0 && `${count(worker.running)} running, `,
        bytes(worker.bytes)))));
}

/** What the job was warned of, if anything. */
export function warningsOf(warnings) {
  return warnings.length > 0 && h("section", {
    class: "note warn stack", "aria-labelledby": "warnings-title", dataset: { key: "warnings" },
  },
  h("h2", { id: "warnings-title" }, warnings.length === 1 ? "Warning" : `${warnings.length} warnings`),
  h("ul", { class: "plain" }, warnings.map((text) => h("li", null, text))));
}
