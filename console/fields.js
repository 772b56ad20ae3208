// Controls that show a field of the form's model: each with its label, what helps, and a place for its faults.
//
// `form` is what the parts of the form share, see form.js.

import { h, replace } from "./dom.js";

/** A labelled control for a field; `key` is the field's name in the script. */
export function labelled(form, field, label, control, { key, hint, className = "" } = {}) {
  const faults = h("div", { id: `${control.id}-faults`, class: "field-faults error" });
  const help = hint && h("p", { id: `${control.id}-hint`, class: "hint" }, hint);
  control.setAttribute("aria-describedby", `${help ? help.id : ""} ${faults.id}`.trim());
  form.fields.set(field, { control, faults });
  return h("div", { class: `field ${className}` },
    h("label", { for: control.id }, label, key && [" ", h("span", { class: "key mono" }, key)]),
    control, help, faults);
}

export function textInput(form, id, field, props) {
  const input = h("input", { id, type: "text", autocomplete: "off", spellcheck: "false", ...props,
    on: { input: () => form.set(field, input.value.trim()) } });
  form.onShow(() => { input.value = form.model[field]; });
  return input;
}

/** `options` are [value, text]; the first one is what holds where the script says nothing. */
export function select(form, id, field, options) {
  const control = h("select", { id, on: { change: () => form.set(field, control.value) } });
  form.onShow(() => fillSelect(control, options, form.model[field] || options[0][0]));
  return control;
}

export function checkbox(form, id, field, label, hint) {
  const input = h("input", { id, type: "checkbox", on: { change: () => form.set(field, input.checked) } });
  form.onShow(() => { input.checked = form.model[field]; });
  return h("div", { class: "field" },
    h("div", { class: "row" }, input, h("label", { for: id }, label, " ", h("span", { class: "key mono" }, field))),
    hint && h("p", { class: "hint" }, hint));
}

/** Fills a select; a value that is not among the options is added, because the script has it all the same. */
export function fillSelect(control, options, value) {
  const known = options.some(([one]) => one === value);
  replace(control, options.map(([one, text]) => h("option", { value: one }, text)),
    !known && h("option", { value }, options.length > 0 ? `${value} (not in the list)` : value || "choose"));
  control.value = value;
}

/** A list of SQL statements, to be added, moved and removed. */
export function statements(form, field, title, hint) {
  const list = h("div", { class: "stack" });
  const add = h("button", { type: "button", class: "small", "aria-label": `Add a statement to ${field}`,
    on: { click: () => {
      form.set(field, [...form.model[field], ""]);
      show();
      list.lastElementChild.querySelector("textarea").focus();
    } } }, "Add a statement");
  const faults = h("div", { class: "field-faults error" });

  function move(index, by) {
    const copy = [...form.model[field]];
    copy.splice(index + by, 0, ...copy.splice(index, 1));
    form.set(field, copy);
    show();
    list.children[index + by].querySelector("textarea").focus();
  }

  function show() {
    replace(list, form.model[field].map(statement));
  }

  function statement(text, index, { length }) {
    const name = `${field} ${index + 1}`;
    const button = (word, sign, disabled, click) => h("button", { type: "button", class: "small quiet", disabled,
      "aria-label": `${word} ${name}`, title: word, on: { click } }, sign);
    return h("div", { class: "statement" },
      h("textarea", { class: "mono", rows: 2, value: text, "aria-label": name, spellcheck: "false",
        on: { input: (event) => form.set(field, form.model[field].with(index, event.target.value)) } }),
      h("div", { class: "row" },
        button("Move up", "↑", index === 0, () => move(index, -1)),
        button("Move down", "↓", index === length - 1, () => move(index, 1)),
        button("Remove", "✕", false, () => {
          form.set(field, form.model[field].toSpliced(index, 1));
          show();
          add.focus();
        })));
  }

  form.onShow(show);
  form.fields.set(field, { control: add, faults });
  return h("div", { class: "stack" },
    h("div", null,
      h("h3", null, `${title} `, h("span", { class: "key mono" }, field)), h("p", { class: "hint" }, hint)),
    list, faults, h("div", null, add));
}
