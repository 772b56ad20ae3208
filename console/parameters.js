// The values of a script's parameters, on the page "New job": a field for each `${name}` that the coordinator found.

import { h, replace } from "./dom.js";

const BUILT_IN = new Set(["bizdate", "cyctime", "gmtdate", "bizmonth", "bdp.system.bizdate", "bdp.system.cyctime"]);
// `${yyyymm}` is a date, not a name that somebody gives a value.
const DATE_PATTERN = /^(yyyy|yy|mm|dd)+$/;

/**
 * Shows and changes `draft.parameters`. `onChange()` hears every change, `onReplace()` is called after one that makes
 * the dollars of a stored script parameters again. Returns `element` and `show(names)`.
 */
export function createParameters(draft, { onChange, onReplace }) {
  const element = h("div", { class: "stack" });
  let shown = "";

  function literalNote() {
    return h("div", { class: "stack" },
      h("p", { class: "hint" },
        "The parameters of that job were replaced when it was started; a $ in its script stands for itself."),
      h("button", { type: "button", class: "small", id: "use-parameters", on: { click: () => {
        draft.literal = false;
        onChange();
        onReplace();
      } } }, "Replace parameters again"));
  }

  function field(name) {
    return h("div", { class: "field" },
      h("label", { for: `parameter-${name}`, class: "mono" }, name),
      h("input", { id: `parameter-${name}`, type: "text", class: "mono", autocomplete: "off", spellcheck: "false",
        value: draft.parameters[name] ?? "", placeholder: BUILT_IN.has(name) ? "built in" : "",
        on: { input: (event) => {
          draft.parameters[name] = event.target.value.trim();
          onChange();
        } } }));
  }

  return {
    element,
    show(all) {
      const names = all.filter((name) => !DATE_PATTERN.test(name));
      const literal = draft.literal && draft.text.includes("$");
      // Made anew only if there is something else to show: the reader may be typing in one of the fields.
      const wanted = JSON.stringify([names, literal]);
      if (shown === wanted) return;
      shown = wanted;
      replace(element, literal && literalNote(), !literal && names.length > 0 && [
        h("h2", null, "Parameters"),
        h("p", { class: "hint" },
          "Text, or a date such as ", h("code", null, "${yyyy-mm-dd-1}"), "; the plan shows the values."),
        names.map(field),
      ]);
    },
  };
}
