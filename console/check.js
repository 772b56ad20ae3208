// The result of a check: who reaches what, as a matrix, and below it the problems with what helps. Used where a data
// source is tested and where a script is checked.

import { h, problems, table } from "./dom.js";
import { count, duration } from "./numbers.js";

const PARTS = {
  source: "Source", target: "Target, query port", fe: "FE, HTTP", be: "BE, HTTP", row: "Trial row",
  packed_row: "Trial row, compressed",
};
const OUTCOMES = {
  reached: { text: "reached", sign: "✓", tone: "ok" },
  refused: { text: "refused", sign: "✗", tone: "bad" },
  unresolved: { text: "name not resolved", sign: "✗", tone: "bad" },
  timed_out: { text: "timed out", sign: "✗", tone: "bad" },
  login_refused: { text: "login refused", sign: "✗", tone: "bad" },
  no_grant: { text: "no grant", sign: "✗", tone: "bad" },
  failed: { text: "failed", sign: "✗", tone: "bad" },
  not_tried: { text: "not tried", sign: "–", tone: "muted" },
};

/** A CheckReply as an element. */
export function checkResult(reply) {
  const targets = targetsOf(reply.checkers);
  const faults = problemsOf(reply);
  const notes = reply.checkers.flatMap(({ id, notes: list }) => list.map((text) => `${id}: ${text}`));
  const silent = reply.checkers.filter(({ answered }) => !answered);
  return h("div", { class: "stack check-result" },
    verdictOf(reply, faults, silent),
    targets.length > 0 && h("div", { class: "check-matrix" }, matrixOf(reply.checkers, targets)),
    faults.length > 0 && h("div", { class: "note bad stack" },
      h("h3", null, faults.length === 1 ? "Problem" : `${faults.length} problems`), problems(faults)),
    listOf("Warnings", reply.warnings, "warn"),
    listOf("Notes", notes, ""));
}

/** The rows of the matrix: every (part, datasource, address) that anybody looked at, in the order of first sight. */
function targetsOf(checkers) {
  const targets = new Map();
  for (const { findings } of checkers) {
    for (const { part, datasource, address } of findings) {
      const key = keyOf({ part, datasource, address });
      if (!targets.has(key)) targets.set(key, { key, part, datasource, address });
    }
  }
  return [...targets.values()];
}

const keyOf = ({ part, datasource, address }) => JSON.stringify([part, datasource, address]);

/** All problems once: the reply's own, what ended the check, and those of findings that the reply does not repeat. */
function problemsOf(reply) {
  const seen = new Map();
  const add = (p) => {
    const key = JSON.stringify([p.code, p.message, p.place]);
    if (!seen.has(key)) seen.set(key, p);
  };
  if (reply.error) add(reply.error);
  for (const p of reply.problems) add(p);
  for (const { findings } of reply.checkers) for (const { error } of findings) if (error) add(error);
  return [...seen.values()];
}

function verdictOf(reply, faults, silent) {
  const asked = reply.checkers.length;
  const bad = faults.length > 0;
  const tone = bad ? "bad" : silent.length > 0 || reply.warnings.length > 0 ? "warn" : "ok";
  const text = bad ? "Something is in the way." : "Everything was reached.";
  return h("p", { class: `note ${tone}` },
    h("strong", null, bad ? `✗ ${text}` : `✓ ${text}`),
    ` ${count(asked - silent.length)} of ${count(asked)} checkers answered`,
    silent.length > 0 && ` (silent: ${silent.map(({ id }) => id).join(", ")})`, ".",
    reply.plan && ` The plan: ${count(reply.plan.tasks)} tasks, about ${count(reply.plan.rows_estimate)} rows.`);
}

function matrixOf(checkers, targets) {
  const byKey = (findings) => new Map(findings.map((finding) => [keyOf(finding), finding]));
  const found = new Map(checkers.map(({ id, findings }) => [id, byKey(findings)]));
  return table({
    caption: "What each checker reaches",
    rows: targets,
    columns: [
      { name: "What", class: "nowrap", of: ({ part }) => PARTS[part] ?? part },
      { name: "Where", class: "nowrap", of: ({ datasource, address }) => h("div", null,
        h("div", { class: "mono" }, address), h("div", { class: "sub" }, datasource)) },
      ...checkers.map((checker) => ({
        name: h("span", { title: `${checker.host}, version ${checker.version}` }, checker.id),
        class: "nowrap",
        of: ({ key }) => cellOf(checker, found.get(checker.id).get(key)),
      })),
    ],
  });
}

function cellOf(checker, finding) {
  if (!checker.answered) {
    return h("span", { class: "muted", title: `last heard ${duration(checker.seconds_since_heard)} ago` }, "no answer");
  }
  if (!finding) return h("span", { class: "muted" }, "–");
  const outcome = OUTCOMES[finding.outcome] ?? { text: finding.outcome, sign: "?", tone: "bad" };
  const told = [finding.told, finding.via && `via ${finding.via}`].filter(Boolean).join(", ");
  return h("div", { class: `outcome ${outcome.tone}`, title: told || null },
    h("span", null, `${outcome.sign} ${outcome.text}`),
    finding.outcome !== "not_tried" && h("span", { class: "sub" }, `${count(finding.milliseconds)} ms`));
}

function listOf(title, list, tone) {
  return list.length > 0 && h("div", { class: `note ${tone} stack` },
    h("h3", null, title), h("ul", { class: "plain" }, list.map((text) => h("li", null, text))));
}
