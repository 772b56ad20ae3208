// The page "New job": one script, two ways to write it (form and code), what the coordinator says about it while it is
// written, and the ways on: check, plan, start. The text is the truth; the form rewrites it, the code editor is it.
//
// `#/new` goes on with the draft of this browser tab, `#/new?from=ID` begins with the script of another job.

import { MAY_ONLY_LOOK, mayAct, post } from "./api.js";
import { confirmAction, h, problemNote, replace } from "./dom.js";
import { forgetDraft, newDraft, openDraft, saveDraft } from "./draft.js";
import { createEditor } from "./editor.js";
import { faultsOf } from "./faults.js";
import { createForm } from "./form.js";
import { many } from "./numbers.js";
import { createParameters } from "./parameters.js";
import { createResults } from "./results.js";
import { emptyScript, fromScript, parse, print, toScript } from "./script.js";

const VALIDATE_AFTER_MS = 300;
const RETRY_MS = 5000;
const ACTIONS = {
  check: { idle: "Check", busy: "Checking…" },
  plan: { idle: "Plan", busy: "Planning…" },
  start: { idle: "Start", busy: "Starting…" },
};

export async function show(main, params) {
  replace(main, h("h1", null, "New job"));
  if (!mayAct()) {
    main.append(h("div", { class: "note", id: "read-only" }, h("p", null, `${MAY_ONLY_LOOK} `,
      "To write, check and start jobs, sign in with a user token.")));
    main.dataset.ready = "true";
    return () => {};
  }
  const page = createPage(await openDraft(params.from));
  main.append(page.element);
  await page.open();
  main.dataset.ready = "true";
  return page.close;
}

function createPage(draft) {
  let closed = false;
  // What the coordinator said about exactly this text and these parameters; null while it has not.
  let verdict = null;
  let timer = 0;
  // Counts requests to validate: an answer about an older text comes too late.
  let turn = 0;
  let started = false;
  // Columns that the form knows not to go as they are mapped: the plan would refuse the job.
  let unfit = 0;
  // Ids of the buttons whose action is under way.
  const busy = new Set();

  const fitState = h("p", { id: "fit-state", class: "error", "aria-live": "polite" });
  const results = createResults(request);
  const form = createForm({
    onChange(model) {
      draft.text = print(toScript(model, parse(draft.text)));
      changed();
    },
    onFits(bad) {
      unfit = bad;
      showState();
      const words = bad > 0 ? `✕ ${many(bad, "column")} cannot go as mapped` : "";
      if (fitState.textContent !== words) fitState.textContent = words;
    },
    openCode: () => openTab("code"),
  });
  const editor = createEditor({ id: "script", label: "Script", describedBy: "editor-help", onInput(text) {
    draft.text = text;
    // What the form knew is of another text.
    unfit = 0;
    changed();
  } });

  // ---- Tabs ----

  const tabs = ["form", "code"].map((name) => h("button", {
    type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`,
    on: { click: () => openTab(name), keydown: tabKey },
  }, name === "form" ? "Form" : "Code"));
  const file = h("input", { type: "file", id: "open-file", accept: ".json,application/json", class: "sr-only",
    on: { change: openFile } });
  const format = h("button", { type: "button", class: "small", on: { click: formatText } }, "Format");
  const tools = h("div", { class: "row" }, format, file,
    h("label", { for: "open-file", class: "button small" }, "Open file"),
    h("button", { type: "button", class: "small", on: { click: download } }, "Download"),
    h("span", { class: "hint", id: "editor-help" }, "Tab indents; Escape, then Tab leaves."));
  const toolNote = h("p", { class: "error", role: "alert" });
  const panels = {
    form: h("div", { role: "tabpanel", id: "panel-form", "aria-labelledby": "tab-form" }, form.element),
    code: h("div", { role: "tabpanel", id: "panel-code", "aria-labelledby": "tab-code", class: "stack" },
      tools, toolNote, editor.element),
  };

  function openTab(name) {
    draft.tab = name;
    saveDraft(draft);
    for (const tab of tabs) {
      const chosen = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    for (const [one, panel] of Object.entries(panels)) panel.hidden = one !== name;
    // Below the editor they are near the text; below the long form nobody would see them.
    (name === "form" ? sideFaults : panels.code).append(faultBox);
    fitState.hidden = name !== "form";
    const shown = name === "form" ? form.show(readText()) : editor.setText(draft.text);
    showVerdict();
    return shown;
  }

  function tabKey(event) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = draft.tab === "form" ? "code" : "form";
    openTab(other);
    document.getElementById(`tab-${other}`).focus();
  }

  function readText() {
    if (draft.text.trim() === "") {
      draft.text = print(emptyScript());
      changed();
    }
    try {
      return fromScript(parse(draft.text));
    } catch (error) {
      return { refusal: `The form cannot read the script: ${error.message}` };
    }
  }

  function setText(text) {
    draft.text = text;
    changed();
    return openTab(draft.tab);
  }

  function formatText() {
    try {
      editor.replaceText(print(parse(draft.text)));
      toolNote.textContent = "";
    } catch (error) {
      toolNote.textContent = `It cannot be formatted: ${error.message}`;
    }
  }

  async function openFile() {
    const [chosen] = file.files;
    if (!chosen) return;
    let text;
    try {
      text = await chosen.text();
      toolNote.textContent = "";
    } catch (error) {
      toolNote.textContent = `It cannot be read: ${error.message}`;
      return;
    } finally {
      // Else choosing the same file again would be no change.
      file.value = "";
    }
    draft.name = nameInput.value = chosen.name.replace(/\.json$/i, "");
    Object.assign(draft, { from: null, literal: false });
    setText(text);
  }

  function download() {
    const url = URL.createObjectURL(new Blob([draft.text], { type: "application/json" }));
    h("a", { href: url, download: `${jobName()}.json` }).click();
    URL.revokeObjectURL(url);
  }

  // ---- Validation ----

  function changed() {
    verdict = null;
    clearTimeout(timer);
    timer = setTimeout(() => {
      saveDraft(draft);
      validate();
    }, VALIDATE_AFTER_MS);
    showState();
  }

  /** With `parameters`, even with none, the coordinator replaces them; without, a `$` stands for itself. */
  function request() {
    if (draft.literal) return { script: draft.text };
    const given = Object.entries(draft.parameters).filter(([, value]) => value !== "");
    return { script: draft.text, parameters: Object.fromEntries(given) };
  }

  async function validate() {
    const mine = ++turn;
    try {
      const reply = await post("/validate", request());
      if (mine !== turn || closed) return;
      verdict = reply;
      parameters.show(reply.parameters);
    } catch (error) {
      if (mine !== turn || closed) return;
      verdict = { error, problems: [], warnings: [] };
      // A script that is too large stays so; a coordinator that is gone comes back.
      if (error.status === 0 || error.status >= 500) timer = setTimeout(validate, RETRY_MS);
    }
    showVerdict();
  }

  /** Whether both tables are named. Before that, a form full of red would say nothing that its fields do not. */
  function isBegun() {
    if (draft.tab === "code") return true;
    const { model } = readText();
    return !model || model.sourceLocked !== "" || (model.sourceTables.some(Boolean) && model.targetTable !== "");
  }

  function showVerdict() {
    nameInput.placeholder = jobName();
    const found = verdict ?? { problems: [], warnings: [] };
    const shown = isBegun() ? found.problems : [];
    if (draft.tab === "code") editor.mark(shown);
    else form.mark(shown);
    replace(faultBox, faultsOf({ ...found, problems: shown }, jump));
    showState();
  }

  function jump(fault) {
    const parameter = document.getElementById(fault.pointer.replace(/^parameters\//, "parameter-"));
    if (parameter) return parameter.focus();
    if (draft.tab === "form" && form.focus(fault.pointer)) return;
    if (draft.tab === "form") openTab("code");
    editor.jump(fault);
  }

  // ---- Name, parameters, state ----

  const nameInput = h("input", { id: "job-name", type: "text", autocomplete: "off", spellcheck: "false",
    value: draft.name, on: { input: () => {
      draft.name = nameInput.value.trim();
      saveDraft(draft);
    } } });
  const parameters = createParameters(draft, { onChange: changed, onReplace: () => nameInput.focus() });

  function jobName() {
    const target = readText().model?.targetTable ?? "";
    return draft.name || (target.includes("$") ? "" : target) || "job";
  }

  const state = h("p", { id: "script-state", "aria-live": "polite" });
  const button = (id, action, className) =>
    h("button", { type: "button", id, class: className, on: { click: () => act(id, action) } });
  const buttons = {
    check: button("check", results.check),
    plan: button("plan", results.plan),
    start: button("start", start, "primary"),
  };

  function showState() {
    const sound = verdict !== null && !verdict.error && verdict.problems.length === 0;
    for (const [id, element] of Object.entries(buttons)) {
      element.disabled = busy.has(id) || (id === "start" && (!sound || unfit > 0));
      element.textContent = ACTIONS[id][busy.has(id) ? "busy" : "idle"];
      element.setAttribute("aria-busy", String(busy.has(id)));
    }
    const [tone, words] = stateWords(sound);
    // A live region speaks whenever it changes, so it changes only when there is news.
    if (state.textContent !== words) replace(state, h("span", { class: tone }, words));
    results.tellStale();
  }

  function stateWords(sound) {
    if (verdict === null) return ["muted", "… validating"];
    if (verdict.error) return ["error", "✕ not validated"];
    if (!isBegun()) return ["muted", "Choose the source and the target table."];
    if (!sound) return ["error", `✕ ${many(verdict.problems.length, "fault")}`];
    return ["ok", "✓ no faults"];
  }

  // ---- Check, plan, start ----

  const startError = h("div", { id: "start-error", role: "alert" });

  async function act(id, action) {
    busy.add(id);
    if (id === "start") replace(startError);
    showState();
    try {
      await action();
    } finally {
      busy.delete(id);
      if (!closed) showState();
    }
  }

  async function start() {
    try {
      const { job_id: id } = await post("/jobs", { ...request(), name: jobName() });
      started = true;
      forgetDraft();
      location.hash = `#/jobs/${encodeURIComponent(id)}`;
    } catch (error) {
      if (!closed) replace(startError, problemNote(error));
    }
  }

  async function startOver() {
    const sure = draft.text === newDraft().text || await confirmAction({ title: "Discard this draft?",
      text: "Its script, name and parameters are gone then.", action: "Discard", danger: true });
    if (!sure) return;
    Object.assign(draft, newDraft(), { tab: draft.tab });
    nameInput.value = "";
    results.clear();
    setText(draft.text);
  }

  const faultBox = h("div", { class: "stack" });
  const sideFaults = h("div", null);
  const element = h("div", { class: "new-page" },
    h("div", { class: "new-main stack" },
      h("div", { class: "tabs", role: "tablist", "aria-label": "Ways to write the script" }, tabs),
      panels.form, panels.code),
    h("section", { class: "new-side panel stack", "aria-label": "Name, parameters and actions" },
      h("div", { class: "field" }, h("label", { for: "job-name" }, "Name"), nameInput),
      parameters.element,
      h("div", null, state, fitState),
      h("div", { class: "row new-buttons" }, buttons.check, buttons.plan, buttons.start),
      h("p", { class: "hint" },
        "Plan first: it shows every task and its SQL, and changes nothing. Check tries all connections."),
      startError, sideFaults,
      h("div", null, h("button", { type: "button", class: "small quiet", on: { click: startOver } }, "Discard draft"))),
    results.element);

  return {
    element,
    async open() {
      await openTab(draft.tab);
      await validate();
    },
    close() {
      closed = true;
      clearTimeout(timer);
      if (!started) saveDraft(draft);
      form.close();
      editor.close();
    },
  };
}
