// The list of jobs, newest first. What is searched and filtered for stands in the hash, so a view can be sent to a
// colleague; the table is updated in place every two seconds.

import { get } from "./api.js";
import { badge, h, patchChildren, poll, problemNote, replace, table, time } from "./dom.js";
import { shareOf } from "./job-view.js";
import { ago, count, duration, many } from "./numbers.js";

const LIMIT = 100;
const POLL_SECONDS = 2;
const SEARCH_MS = 250;
const STATES = [
  "PENDING", "PLANNING", "PRE_SQL", "RUNNING", "COMMITTING", "POST_SQL", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED",
];

export async function show(main, params) {
  const filter = {
    states: new Set((params.state ?? "").split(",").filter((state) => STATES.includes(state))),
    search: params.search ?? "",
    offset: Math.max(0, Number.parseInt(params.offset, 10) || 0),
  };
  let searching = 0;
  // Counts changes of the filter: an answer to an older question is thrown away.
  let question = 0;

  const search = h("input", {
    id: "jobs-search", type: "search", value: filter.search, placeholder: "Name or id", autocomplete: "off",
    on: {
      input: () => {
        clearTimeout(searching);
        searching = setTimeout(() => change({ search: search.value.trim(), offset: 0 }), SEARCH_MS);
      },
    },
  });
  const chips = h("div", { class: "row chips", role: "group", "aria-label": "Filter by state" });
  const trouble = h("div");
  const list = h("div", { class: "jobs-list" });
  const pager = h("nav", { class: "row between pager", "aria-label": "Pages of the list" });
  const spoken = h("p", { class: "sr-only", role: "status" });

  const change = (part) => {
    Object.assign(filter, part);
    question += 1;
    history.replaceState(null, "", hashOf(filter));
    // Does nothing while a poll is under way; that one then sees that the question has changed and asks again.
    stop.now();
  };
  const toggle = (state) => {
    const states = new Set(filter.states);
    if (!states.delete(state)) states.add(state);
    change({ states, offset: 0 });
  };
  const reset = () => {
    search.value = "";
    change({ states: new Set(), search: "", offset: 0 });
    search.focus();
  };

  let told = -1;
  const load = async () => {
    let asked;
    let reply;
    do {
      asked = question;
      reply = await get(`/jobs?${queryOf(filter)}`);
    } while (asked !== question);
    patchChildren(trouble);
    patchChildren(chips, chipsOf(reply.states, filter, toggle));
    patchChildren(list, jobsTable(reply.jobs, filter, reset));
    patchChildren(pager, pagerOf(reply, filter, (offset) => {
      change({ offset });
      window.scrollTo(0, 0);
    }));
    if (told !== question) {
      // Said when the reader asked something new, not whenever a job comes along.
      if (told !== -1) spoken.textContent = `${many(reply.total, "job")} found`;
      told = question;
    }
    main.dataset.ready = "true";
  };

  replace(main,
    h("div", { class: "row between head" },
      h("h1", null, "Jobs"),
      h("a", { class: "button primary", href: "#/new" }, "New job")),
    h("div", { class: "stack" },
      h("div", { class: "row filters" },
        h("label", { for: "jobs-search", class: "sr-only" }, "Search jobs"), search, chips),
      spoken, trouble, list, pager));

  const stop = poll(POLL_SECONDS, load, (error) => {
    patchChildren(trouble, problemNote(error));
    main.dataset.ready = "true";
  });
  return () => {
    clearTimeout(searching);
    stop();
  };
}

/** The query of GET /jobs for a filter. */
function queryOf({ states, search, offset }) {
  const query = new URLSearchParams({ offset: String(offset), limit: String(LIMIT) });
  if (states.size > 0) query.set("state", [...states].join(","));
  if (search) query.set("search", search);
  return query;
}

/** The hash that brings the reader back to a filter. */
function hashOf({ states, search, offset }) {
  const query = [];
  if (states.size > 0) query.push(`state=${[...states].join(",")}`);
  if (search) query.push(`search=${encodeURIComponent(search)}`);
  if (offset > 0) query.push(`offset=${offset}`);
  return query.length > 0 ? `#/jobs?${query.join("&")}` : "#/jobs";
}

function chipsOf(counts, filter, toggle) {
  return STATES.filter((state) => counts[state] > 0 || filter.states.has(state)).map((state) => h("button", {
    type: "button", class: "chip", "aria-pressed": filter.states.has(state), dataset: { key: state, state },
    on: { click: () => toggle(state) },
  }, state, " ", h("span", { class: "chip-count" }, count(counts[state] ?? 0))));
}

function jobsTable(jobs, filter, reset) {
  const filtered = filter.states.size > 0 || filter.search !== "" || filter.offset > 0;
  return table({
    caption: "Jobs, newest first",
    rows: jobs,
    row: (job) => ({ dataset: { key: job.job_id, jobId: job.job_id } }),
    columns: [
      { name: "State", class: "state", of: (job) => badge(job.state) },
      { name: "Name", class: "name", of: nameOf },
      { name: "Progress", class: "progress", of: progressOf },
      { name: "Average rows/s", class: "num rate", of: (job) => (job.rows_per_second > 0 ? count(job.rows_per_second) : "–") },
      { name: "ETA", class: "num eta", of: (job) => (job.eta_seconds === null ? "–" : duration(job.eta_seconds)) },
      { name: "Tasks", class: "num tasks", of: (job) => `${count(job.tasks_done)} / ${count(job.tasks_total)}` },
      { name: "Submitted", class: "num age", of: (job) => time(job.submitted_at, ago(job.submitted_at)) },
    ],
    empty: filtered
      ? [
        h("p", null, "No job matches."),
        h("button", { type: "button", on: { click: reset } }, "Clear search and filters"),
      ]
      : [
        h("p", null, "No job yet."),
        h("p", null, h("a", { class: "button primary", href: "#/new" }, "Write the first job")),
        h("p", null, "Or on the command line: ", h("code", null, "starlift submit JOB")),
      ],
  });
}

function nameOf(job) {
  return h("div", null,
    h("a", { class: "job-link", href: `#/jobs/${encodeURIComponent(job.job_id)}` }, job.name || job.job_id),
    h("div", { class: "sub mono" }, job.job_id),
    job.dirty_records > 0 && h("div", { class: "sub warning" }, many(job.dirty_records, "dirty record")));
}

function progressOf(job) {
  const told = job.rows_estimate > 0 ? `${count(job.rows_read)} of about ${many(job.rows_estimate, "row")}`
    : many(job.rows_read, "row");
  return h("div", null,
    h("div", { class: "bar", "aria-hidden": "true" },
      h("div", { class: `bar-fill ${job.state}`, style: { width: `${(shareOf(job.state, job) * 100).toFixed(1)}%` } })),
    h("div", { class: "sub" }, told));
}

function pagerOf({ jobs, total }, { offset }, go) {
  const last = Math.max(0, Math.floor((total - 1) / LIMIT) * LIMIT);
  const step = (text, to, usable) => h("button", {
    type: "button", class: "small", disabled: !usable, dataset: { key: text }, on: { click: () => go(to) },
  }, text);
  if (total <= LIMIT && offset === 0) {
    return h("span", { class: "muted" }, many(total, "job"));
  }
  return [
    h("span", { class: "muted" },
      jobs.length > 0 && `${count(offset + 1)}–${count(offset + jobs.length)} of `, many(total, "job")),
    h("span", { class: "row" },
      step("First", 0, offset > 0),
      step("Newer", Math.max(0, offset - LIMIT), offset > 0),
      step("Older", offset + LIMIT, offset + LIMIT < total),
      step("Last", last, offset < last)),
  ];
}
