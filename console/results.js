// What the page "New job" shows below the script: the results of its check and of its plan, each until the next one.

import { post } from "./api.js";
import { checkResult } from "./check.js";
import { h, problemNote, problems, replace } from "./dom.js";
import { planResult } from "./plan.js";

/**
 * `request()` is the body of both requests as the script stands now. `check()` and `plan()` ask and show; `tellStale()`
 * is called whenever the script may have changed, `clear()` hides everything.
 */
export function createResults(request) {
  const checkBox = h("section", { id: "check-result", class: "stack", "aria-label": "Check", hidden: true });
  const planBox = h("section", { id: "plan-result", class: "stack", "aria-label": "Plan", hidden: true });
  // The request of the plan that is shown, and the note that it is out of date.
  let planned = null;

  function tellStale() {
    if (planned) planned.stale.hidden = planned.key === JSON.stringify(request());
  }

  return {
    element: h("div", { class: "new-results stack" }, checkBox, planBox),
    async check() {
      let result;
      reveal(checkBox, "Check", h("p", { class: "muted" },
        "The coordinator and every worker try to reach both data sources; this can take up to a minute."));
      try {
        result = checkResult(await post("/check", request()));
      } catch (error) {
        result = problemNote(error);
      }
      reveal(checkBox, "Check", result);
    },
    async plan() {
      const asked = request();
      let result;
      reveal(planBox, "Plan", h("p", { class: "muted" },
        "Both catalogues are asked and the source is cut; nothing is changed."));
      try {
        result = planResult(await post("/plan", asked));
      } catch (error) {
        result = error.problems?.length > 0 ? refusalOf(error) : problemNote(error);
      }
      const stale = h("p", { class: "warning" }, "! The script or its parameters have changed since; plan again.");
      planned = { key: JSON.stringify(asked), stale };
      tellStale();
      reveal(planBox, "Plan", stale, result);
    },
    tellStale,
    clear() {
      planned = null;
      for (const box of [checkBox, planBox]) box.hidden = true;
    },
  };
}

function refusalOf(error) {
  return h("div", { class: "note bad" },
    h("p", null, h("strong", null, "It cannot be planned.")), problems(error.problems));
}

function reveal(box, title, ...content) {
  const heading = h("h2", { tabindex: -1 }, title);
  box.hidden = false;
  replace(box, heading, content);
  heading.focus({ preventScroll: true });
  box.scrollIntoView({ block: "start" });
}
