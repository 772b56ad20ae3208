// The page of one job: gets its state, follows its event stream, and steers it. What the sections look like is in
// job-view.js (state), job-tasks.js (tasks and their resolving) and report.js; the map and the chart draw themselves.

import { actingProps, events, get, MAY_ONLY_LOOK, mayAct, post } from "./api.js";
import { throughputChart } from "./chart.js";
import {
  badge, confirmAction, copy, h, patchChildren, poll, problem, problemNote, replace, time, toast,
} from "./dom.js";
import { slowestOf, troubledOf } from "./job-tasks.js";
import { hasEnded, phasesOf, sharesOf, tilesOf, warningsOf } from "./job-view.js";
import { count, duration, many } from "./numbers.js";
import { badRowsOf, reportOf } from "./report.js";
import { taskMap } from "./taskmap.js";

const SLOWEST_SECONDS = 5;
const LOST_SECONDS = 5;
const TROUBLED_MAX = 20;

export async function show(main, { id }) {
  const base = `/jobs/${encodeURIComponent(id)}`;
  let status = await get(base);
  let report = null;
  let slowest = [];
  let slowestError = null;
  let troubled = { tasks: [], total: 0 };
  let troubledKey = "";
  let lost = false;
  let left = false;
  let closeStream = null;

  const map = taskMap(async (task) => (await get(`${base}/tasks?offset=${task}&limit=1`)).tasks[0] ?? null);
  const chart = throughputChart();
  const heading = h("h1", null, status.name || id);
  const state = h("span", { role: "status" });
  const facts = h("p", { class: "muted row job-facts" });
  const actions = h("div", { class: "row" });
  const notes = h("div", { class: "stack notes" });
  const failure = h("div", { role: "alert" });
  const phases = h("section", { "aria-label": "Phases" });
  const tiles = h("section", { "aria-label": "Numbers" });
  const ended = h("div", { class: "stack wide" });
  const trouble = h("div", { class: "stack wide" });
  const shares = h("section", { class: "panel stack", "aria-labelledby": "shares-title" });
  const slow = h("section", { class: "panel stack", "aria-labelledby": "slowest-title" });

  const paint = () => {
    patchChildren(state, h("span", { id: "job-state" }, badge(status.state)));
    patchChildren(facts, factsOf(status));
    patchChildren(actions, actionsOf(status, act));
    patchChildren(notes, notesOf(status, lost));
    patchChildren(phases, phasesOf(status));
    patchChildren(tiles, tilesOf(status, report));
    patchChildren(shares, h("h2", { id: "shares-title" }, "Workers"), sharesOf(report?.workers ?? status.workers));
    patchChildren(slow, h("h2", { id: "slowest-title" }, "Slowest tasks"),
      slowestError && !report ? problemNote(slowestError) : slowestOf(report?.slowest_tasks ?? slowest));
    patchChildren(trouble, troubledOf(troubled, resolve), warningsOf(report?.warnings ?? status.warnings));
    patchChildren(ended, report && [reportOf(report), badRowsOf(report)]);
    main.dataset.ready = "true";
  };

  const take = (fresh) => {
    if (left) return;
    status = fresh;
    paint();
    const key = `${status.tasks.failed} ${status.undecided_tasks} ${status.state}`;
    if (key !== troubledKey) {
      troubledKey = key;
      loadTroubled();
    }
  };

  const sample = ({ elapsed_seconds: seconds, progress }) => chart.add({
    seconds, rows_read: progress.rows_read, bytes_read: progress.bytes_read,
    rows_loaded: progress.rows_loaded, bytes_loaded: progress.bytes_loaded,
  });

  // What is fetched beside the stream may fail without ending the page; it is said where it would have stood.
  const aside = async (f) => {
    try {
      await f();
    } catch (error) {
      if (!left) replace(failure, problemNote(error));
    }
  };

  const loadTroubled = () => aside(async () => {
    troubled = status.tasks.failed > 0 || status.undecided_tasks.length > 0
      ? await get(`${base}/tasks?state=FAILED,UNDECIDED&limit=${TROUBLED_MAX}`) : { tasks: [], total: 0 };
    if (!left) paint();
  });

  const loadReport = () => aside(async () => {
    report = await get(`${base}/report`);
    if (!left) paint();
  });

  const open = () => {
    closeStream?.();
    closeStream = events(`${base}/events?interval_ms=500`, {
      tasks: ({ states, rows }) => map.reset(states, rows),
      changes: (list) => map.change(list),
      status: (fresh) => {
        take(fresh);
        if (!hasEnded(fresh.state)) sample(fresh);
      },
      end: () => {
        closeStream();
        closeStream = null;
        lost = false;
        paint();
        loadReport();
      },
    }, (told) => {
      lost = told === "lost";
      paint();
    });
  };

  async function act(action) {
    const wanted = await confirmAction(confirmationOf(action, status));
    if (!wanted) return;
    replace(failure);
    await aside(async () => {
      const fresh = await post(`${base}/${action}`);
      report = null;
      take(fresh);
      toast({
        pause: "The job is being paused", resume: "The job goes on", cancel: "The job is being cancelled",
      }[action]);
      // The stream of an ended job is closed; whatever comes next is told by a new one.
      if (!closeStream) open();
      // The button that was pressed may be gone; focus must not fall off the page.
      if (document.activeElement === document.body) heading.focus();
    });
  }

  async function resolve(task, answer, reason) {
    replace(failure);
    await aside(async () => {
      take(await post(`${base}/tasks/${task}/resolve`, { answer, reason }));
      toast(answer === "committed" ? `Task ${task} counts as committed` : `Task ${task} will be done again`);
    });
  }

  replace(main,
    h("nav", { "aria-label": "Way back", class: "crumbs" }, h("a", { href: "#/jobs" }, "Jobs"), " /"),
    h("div", { class: "row between job-head" },
      h("div", { class: "row" }, heading, state), actions),
    facts,
    h("div", { class: "stack job-body" },
      failure, notes, phases, tiles, ended, trouble,
      h("div", { class: "split" },
        h("section", { class: "panel stack", id: "throughput", "aria-labelledby": "throughput-title" },
          h("h2", { id: "throughput-title" }, "Throughput"), chart.element),
        shares),
      h("section", { class: "panel stack", "aria-labelledby": "map-title" },
        h("h2", { id: "map-title" }, "Tasks"), map.element),
      slow,
      scriptSection(base, id)));
  document.title = `${status.name || id} – Starlift`;
  take(status);
  open();
  await aside(async () => chart.reset((await get(`${base}/throughput`)).samples));

  const stops = [
    poll(SLOWEST_SECONDS, async () => {
      if (report || status.tasks.total === 0) return;
      slowest = (await get(`${base}/tasks?order=slowest&limit=5`)).tasks;
      slowestError = null;
      if (!left) paint();
    }, (error) => {
      // That the coordinator is gone is said by the banner.
      slowestError = error.status === 0 || error.status === 503 ? null : error;
      if (!left) paint();
    }),
    // A proxy may refuse event streams altogether; then the page still moves, slower. An error here is no news: the
    // note about live updates stands as long as they are lost.
    poll(LOST_SECONDS, async () => { if (lost) take(await get(base)); }),
  ];
  return () => {
    left = true;
    closeStream?.();
    map.stop();
    chart.stop();
    for (const stop of stops) stop();
  };
}

function factsOf(status) {
  return [
    h("span", { class: "mono break" }, status.job_id),
    h("button", {
      type: "button", class: "small", "aria-label": "Copy the job id",
      on: { click: () => copy(status.job_id, "Job id") },
    }, "Copy"),
    h("span", null, "submitted ", time(status.submitted_at), ", ",
      hasEnded(status.state) ? "took " : "elapsed ", duration(status.elapsed_seconds)),
  ];
}

function actionsOf({ state }, act) {
  const button = (action, text, kind, usable) => usable && h("button", {
    type: "button", id: `job-${action}`, class: kind,
    ...actingProps(), dataset: { key: action }, on: { click: () => act(action) },
  }, text);
  const goesOn = !hasEnded(state) && state !== "PAUSED";
  return [
    button("pause", "Pause", "", goesOn),
    button("resume", "Resume", "primary", state === "PAUSED" || state === "FAILED"),
    button("cancel", "Cancel", "danger", goesOn || state === "PAUSED"),
    !mayAct() && state !== "SUCCEEDED" && state !== "CANCELLED"
      && h("span", { class: "muted", dataset: { key: "why" } }, MAY_ONLY_LOOK),
  ];
}

/** What the reader is told before something happens to the job. */
function confirmationOf(action, { name, state, tasks }) {
  return {
    pause: {
      title: `Pause ${name}?`,
      text: "Tasks that run are finished and committed; no new ones are started. Resume goes on with the rest.",
      action: "Pause job",
    },
    resume: {
      title: `Resume ${name}?`,
      text: state === "FAILED" ? resumeOfFailed(tasks) : "The job goes on with its unfinished tasks.",
      action: "Resume job",
    },
    cancel: {
      title: `Cancel ${name}?`,
      text: "Open transactions are rolled back. What is committed already stays in the target: "
        + `${count(tasks.succeeded)} of ${many(tasks.total, "task")} so far. A cancelled job cannot be resumed.`,
      action: "Cancel job", danger: true,
    },
  }[action];
}

function resumeOfFailed({ total, succeeded }) {
  if (total === 0) return "No task was cut yet; the job begins again with its plan.";
  if (total === succeeded) return "Every task is committed; only what is left after them is done, such as postSql.";
  return `Only the ${count(total - succeeded)} unfinished of ${many(total, "task")} are run, their failed attempts `
    + "forgotten. What is committed stays, and preSql that was done is not repeated.";
}

function notesOf(status, lost) {
  return [
    lost && h("div", { class: "note warn", role: "status", dataset: { key: "lost" } },
      h("strong", null, "Live updates are interrupted. "),
      "Trying to connect again; the numbers are those of the last answer."),
    status.error && h("div", { class: status.state === "FAILED" ? "note bad" : "note warn", dataset: { key: "error" } },
      problem(status.error)),
    status.state === "PAUSED" && h("div", { class: "note warn", dataset: { key: "paused" } },
      `Paused in ${status.paused_in || "its course"}. Nothing new is started until it is resumed.`),
    status.labels_to_sweep > 0 && h("div", { class: "note", dataset: { key: "sweep" } },
      `Still closing the labels of dead transactions in StarRocks: ${count(status.labels_to_sweep)} to go, by itself.`),
    status.tasks.total > 0 && status.workers.length === 0 && status.state === "RUNNING" && h("div", {
      class: "note warn", dataset: { key: "idle" },
    }, "No worker has taken a task of this job yet. ", h("a", { href: "#/workers" }, "See the workers"), "."),
    status.state === "SUCCEEDED" && status.dirty_records > 0 && h("div", {
      class: "note warn", dataset: { key: "dirty" },
    },
    `Succeeded without ${many(status.dirty_records, "dirty record")}, refused by StarRocks, which its limit allows.`),
  ];
}

/** The script, fetched when it is first asked for. */
function scriptSection(base, id) {
  const body = h("div", { class: "stack" }, h("p", { class: "muted" }, "Loading …"));
  let wanted = false;
  const load = async (event) => {
    if (!event.currentTarget.open || wanted) return;
    wanted = true;
    try {
      const { script } = await get(`${base}/script`);
      replace(body,
        h("div", { class: "row" },
          h("button", { type: "button", class: "small", on: { click: () => copy(script, "Script") } }, "Copy"),
          h("a", { class: "button small", href: `#/new?from=${encodeURIComponent(id)}` }, "Use as new job")),
        h("pre", { class: "script", tabindex: 0, role: "region", "aria-label": "Script of the job" }, script));
    } catch (error) {
      wanted = false;
      replace(body, problem(error));
    }
  };
  return h("details", { class: "panel", id: "job-script", on: { toggle: load } }, h("summary", null, "Script"), body);
}
