// What the coordinator says about a script while it is written (POST /validate): its faults and warnings, as lists.

import { h, problem } from "./dom.js";
import { count } from "./numbers.js";

const FAULTS_SHOWN = 200;

/** `onJump(fault)` is called when the reader wants to see the place of one. */
export function faultsOf({ error, problems, warnings }, onJump) {
  const more = problems.length - FAULTS_SHOWN;
  return [
    error && h("div", { class: "note bad" }, h("p", null, "The script could not be validated."), problem(error)),
    h("ul", { id: "faults", "aria-label": "Faults of the script" },
      problems.slice(0, FAULTS_SHOWN).map((fault) => faultItem(fault, onJump))),
    more > 0 && h("p", { class: "muted" }, `and ${count(more)} more.`),
    warnings.length > 0 && h("ul", { id: "script-warnings", "aria-label": "Warnings" },
      warnings.map((text) => h("li", { class: "warning-item" }, h("span", { class: "warning" }, "! "), text))),
  ];
}

function faultItem(fault, onJump) {
  return h("li", { class: "fault", dataset: { pointer: fault.pointer } },
    h("button", { type: "button", class: "quiet fault-jump", on: { click: () => onJump(fault) } },
      h("span", { class: "mono" }, `${fault.line}:${fault.column}`),
      h("span", { class: "fault-words" }, h("strong", null, "✕ ", fault.message),
        fault.hint && h("span", { class: "hint" }, fault.hint),
        h("span", { class: "muted mono" }, [fault.code, fault.pointer].filter(Boolean).join(" at ")))));
}
