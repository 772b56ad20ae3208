// How a column of the mapping fits, in words; pure. Whether two types fit is the coordinator's to say (POST /mapping).

import { count } from "./numbers.js";
import { columnMentioned, columnNamed, remedyFor } from "./script.js";

export const FITS = {
  exact: "= exact",
  widened: "⊂ widened",
  checked: "? checked",
  refused: "✕ refused",
  created: "+ created",
  expression: "ƒ expression",
  all: "∗ all columns",
  missing: "✕ incomplete",
  unknown: "✕ no such column",
  waiting: "…",
  open: "–",
};
// With these a column cannot go as it is.
const BAD_FITS = ["refused", "missing", "unknown"];
const PROBLEM_FITS = new Set(["checked", ...BAD_FITS]);
// Not judged, or not yet: nothing to count.
const UNTOLD_FITS = ["waiting", "open"];

export function isProblem(fit) {
  return PROBLEM_FITS.has(fit);
}

/** How many columns cannot go as they are; `tally` counts columns by fit. */
export function countBad(tally) {
  return BAD_FITS.reduce((sum, fit) => sum + (tally[fit] ?? 0), 0);
}

/** "3 exact, 1 refused". */
export function tallyInWords(tally) {
  return Object.keys(FITS).filter((fit) => tally[fit] && !UNTOLD_FITS.includes(fit))
    .map((fit) => `${count(tally[fit])} ${FITS[fit].replace(/^\S /, "")}`)
    .join(", ");
}

/**
 * {fit, why, remedy, name, sourceType, targetType} of one {source, target}; all but `fit` may be missing. `sources` and
 * `targets` are the columns of both tables, empty where they are not known; `isCreated` tells that the target table is
 * still to be created. `fitOf(from, to)` is the coordinator's answer for two columns, undefined while there is none.
 */
export function judgeColumn({ source, target }, { sources, targets, isCreated, fitOf }) {
  if (source === "*" || target === "*") return { fit: "all", why: "By position; the plan shows them." };
  const from = columnNamed(source, sources);
  const to = columnNamed(target, targets);
  const name = (from ?? columnMentioned(source, sources))?.name;
  const verdict = { name, sourceType: from?.type, targetType: to?.type };
  if (!source.trim() || !target) {
    return { ...verdict, fit: "missing", why: target ? "Nothing goes into it yet." : "It goes nowhere yet." };
  }
  if (targets.length > 0 && !to) return { ...verdict, fit: "unknown", why: "The target table has no such column." };
  if (!from) return { ...verdict, ...judgeExpression(source, sources) };
  if (!to) return { ...verdict, fit: "open" };
  if (isCreated) return { ...verdict, fit: "created", why: "" };
  const answer = fitOf(from, to);
  if (!answer) return { ...verdict, fit: "waiting" };
  const why = isProblem(answer.fit) ? answer.why : "";
  return { ...verdict, fit: answer.fit, why, remedy: answer.remedy && remedyFor(answer.remedy, from.name) };
}

function judgeExpression(text, sources) {
  if (sources.length === 0) return { fit: "open" };
  const isName = /^(?!(null|true|false)$)(`[^`]+`|[\p{L}_][\p{L}\p{N}_$]*)$/iu.test(text.trim());
  return isName
    ? { fit: "unknown", why: "The source table has no such column." }
    : { fit: "expression", why: "Its type is found by the plan." };
}
