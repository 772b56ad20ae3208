// The page "New job": one script, two ways to write it (form and code), what the coordinator says about it while it is
// written, and the ways on: check, plan, start. The text is the truth; the form rewrites it, the code editor is it.
//
// `#/new` goes on with the draft of this browser tab, `#/new?from=ID` begins with the script of another job.

import { get, mayAct, post } from "./api.js";
import { checkResult } from "./check.js";
import { confirmAction, count, h, problem, problems, replace, table } from "./dom.js";
import { createEditor } from "./editor.js";
import { createForm } from "./form.js";
import { emptyScript, fromScript, parse, print, toScript } from "./script.js";

const DRAFT = "starlift:draft";
const VALIDATE_AFTER_MS = 300;
const RETRY_MS = 5000;
const TASKS_SHOWN = 50;
const COLUMNS_OPEN = 12;
const FAULTS_SHOWN = 200;
const BUILT_IN = new Set(["bizdate", "cyctime", "gmtdate", "bizmonth", "bdp.system.bizdate", "bdp.system.cyctime"]);
// `${yyyymm}` is a date, not a name that somebody gives a value.
const DATE_PATTERN = /^(yyyy|yy|mm|dd)+$/;

const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

export async function show(main, params) {
  replace(main, h("h1", null, "New job"));
  if (!mayAct()) {
    main.append(h("div", { class: "note", id: "read-only" }, h("p", null, "Your token may only look. ",
      "To write, check and start jobs, sign in with a user token.")));
    main.dataset.ready = "true";
    return () => {};
  }
  const draft = readDraft(params.from) ?? await draftFrom(params.from);
  const page = createPage(draft);
  main.append(page.element);
  await page.open();
  main.dataset.ready = "true";
  return page.close;
}

// ---- The draft ----

function newDraft() {
  return { text: print(emptyScript()), name: "", parameters: {}, literal: false, tab: "form", from: null };
}

// The draft of this tab, unless the reader asks for the script of another job than the one it was begun with.
function readDraft(from) {
  try {
    const draft = JSON.parse(sessionStorage.getItem(DRAFT));
    if (typeof draft?.text === "string" && (!from || draft.from === from)) return { ...newDraft(), ...draft };
  } catch {
    // A draft that cannot be read is none.
  }
  return from ? null : newDraft();
}

async function draftFrom(from) {
  const path = `/jobs/${encodeURIComponent(from)}`;
  const [{ script }, { name }] = await Promise.all([get(`${path}/script`), get(path)]);
  // A stored script has its parameters replaced already; what is left of `$` in it is meant as such.
  return { ...newDraft(), text: script, name, from, literal: true };
}

function saveDraft(draft) {
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify(draft));
  } catch {
    // Full or forbidden: the page works without.
  }
}

// ---- The page ----

function createPage(draft) {
  let closed = false;
  const fitState = h("p", { id: "fit-state", class: "error", "aria-live": "polite" });
  // What the coordinator said about exactly this text and these parameters; null while it has not.
  let verdict = null;
  let planned = null;
  let timer = 0;
  let turn = 0;
  let started = false;
  const busy = new Set();

  const form = createForm({
    onChange(model) {
      draft.text = print(toScript(model, parse(draft.text)));
      changed();
    },
    onFits(bad) {
      const words = bad > 0 ? `✕ ${plural(bad, "column")} cannot go as mapped` : "";
      if (fitState.textContent !== words) fitState.textContent = words;
    },
    openCode: () => openTab("code"),
  });
  const editor = createEditor({ id: "script", label: "Script", describedBy: "editor-help", onInput(text) {
    draft.text = text;
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
    const text = await chosen.text();
    file.value = "";
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

  // With `parameters`, even with none, the coordinator replaces them; without, a `$` stands for itself.
  function request() {
    if (draft.literal) return { script: draft.text };
    const parameters = Object.fromEntries(Object.entries(draft.parameters).filter(([, value]) => value !== ""));
    return { script: draft.text, parameters };
  }

  async function validate() {
    const mine = ++turn;
    try {
      const reply = await post("/validate", request());
      if (mine !== turn || closed) return;
      verdict = reply;
      showParameters(reply.parameters);
    } catch (error) {
      if (mine !== turn || closed) return;
      verdict = { error, problems: [], warnings: [], parameters: [] };
      // A script that is too large stays so; a coordinator that is gone comes back.
      if (error.status === 0 || error.status >= 500) timer = setTimeout(validate, RETRY_MS);
    }
    showVerdict();
  }

  // Whether both tables are named. Before that, a form full of red would say nothing that its fields do not.
  function isBegun() {
    if (draft.tab === "code") return true;
    const { model } = readText();
    return !model || model.sourceLocked !== "" || (model.sourceTables.some(Boolean) && model.targetTable !== "");
  }

  function showVerdict() {
    nameInput.placeholder = jobName();
    const found = verdict ?? { problems: [], warnings: [] };
    const begun = isBegun();
    if (draft.tab === "code") editor.mark(found.problems);
    else form.mark(begun ? found.problems : []);
    const many = found.problems.length - FAULTS_SHOWN;
    replace(faultBox,
      found.error && h("div", { class: "note bad" },
        h("p", null, "The script could not be validated."), problem(found.error)),
      h("ul", { id: "faults", "aria-label": "Faults of the script" },
        begun && found.problems.slice(0, FAULTS_SHOWN).map((fault) => faultItem(fault))),
      many > 0 && h("p", { class: "muted" }, `and ${count(many)} more.`),
      found.warnings.length > 0 && h("ul", { id: "script-warnings", "aria-label": "Warnings" },
        found.warnings.map((text) => h("li", { class: "warning-item" }, h("span", { class: "warning" }, "! "), text))));
    showState();
  }

  function faultItem(fault) {
    return h("li", { class: "fault", dataset: { pointer: fault.pointer } },
      h("button", { type: "button", class: "quiet fault-jump", on: { click: () => jump(fault) } },
        h("span", { class: "mono" }, `${fault.line}:${fault.column}`),
        h("span", { class: "fault-words" }, h("strong", null, "✕ ", fault.message),
          fault.hint && h("span", { class: "hint" }, fault.hint),
          h("span", { class: "muted mono" }, [fault.code, fault.pointer].filter(Boolean).join(" at ")))));
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
  const parameterBox = h("div", { class: "stack" });
  let parametersShown = "";

  function jobName() {
    const table = readText().model?.targetTable ?? "";
    return draft.name || (table.includes("$") ? "" : table) || "job";
  }

  function showParameters(all) {
    const names = all.filter((name) => !DATE_PATTERN.test(name));
    const literal = draft.literal && draft.text.includes("$");
    const wanted = JSON.stringify([names, literal]);
    if (parametersShown === wanted) return;
    parametersShown = wanted;
    replace(parameterBox, literal && h("div", { class: "stack" },
      h("p", { class: "hint" },
        "The parameters of that job were replaced when it was started; a $ in its script stands for itself."),
      h("button", { type: "button", class: "small", id: "use-parameters", on: { click: () => {
        draft.literal = false;
        changed();
        nameInput.focus();
      } } }, "Replace parameters again")), !literal && names.length > 0 && [
      h("h2", null, "Parameters"),
      h("p", { class: "hint" },
        "Text, or a date such as ", h("code", null, "${yyyy-mm-dd-1}"), "; the plan shows the values."),
      names.map((name) => h("div", { class: "field" },
        h("label", { for: `parameter-${name}`, class: "mono" }, name),
        h("input", { id: `parameter-${name}`, type: "text", class: "mono", autocomplete: "off", spellcheck: "false",
          value: draft.parameters[name] ?? "", placeholder: BUILT_IN.has(name) ? "built in" : "",
          on: { input: (event) => {
            draft.parameters[name] = event.target.value.trim();
            changed();
          } } }))),
    ]);
  }

  const state = h("p", { id: "script-state", "aria-live": "polite" });
  const button = (id, text, action, className) =>
    h("button", { type: "button", id, class: className, on: { click: () => act(id, action) } }, text);
  const buttons = { check: button("check", "Check", runCheck), plan: button("plan", "Plan", runPlan),
    start: button("start", "Start", runStart, "primary") };
  const BUSY = { check: "Checking…", plan: "Planning…", start: "Starting…" };
  const TEXT = { check: "Check", plan: "Plan", start: "Start" };

  function showState() {
    const sound = verdict !== null && !verdict.error && verdict.problems.length === 0;
    for (const [id, element] of Object.entries(buttons)) {
      element.disabled = busy.has(id) || (id === "start" && !sound);
      element.textContent = busy.has(id) ? BUSY[id] : TEXT[id];
      element.setAttribute("aria-busy", String(busy.has(id)));
    }
    const [tone, words] = stateWords(sound);
    // A live region speaks whenever it changes, so it changes only when there is news.
    if (state.textContent !== words) replace(state, h("span", { class: tone }, words));
    if (planned) planned.stale.hidden = planned.key === JSON.stringify(request());
  }

  function stateWords(sound) {
    if (verdict === null) return ["muted", "… validating"];
    if (verdict.error) return ["error", "✕ not validated"];
    if (!isBegun()) return ["muted", "Choose the source and the target table."];
    if (!sound) return ["error", `✕ ${plural(verdict.problems.length, "fault")}`];
    return ["ok", "✓ no faults"];
  }

  // ---- Check, plan, start ----

  const checkBox = h("section", { id: "check-result", class: "stack", "aria-label": "Check", hidden: true });
  const planBox = h("section", { id: "plan-result", class: "stack", "aria-label": "Plan", hidden: true });
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

  async function runCheck() {
    let result;
    reveal(checkBox, "Check", h("p", { class: "muted" },
      "The coordinator and every worker try to reach both data sources; this can take up to a minute."));
    try {
      result = checkResult(await post("/check", request()));
    } catch (error) {
      result = h("div", { class: "note bad" }, problem(error));
    }
    if (!closed) reveal(checkBox, "Check", result);
  }

  async function runPlan() {
    const asked = request();
    let result;
    reveal(planBox, "Plan", h("p", { class: "muted" },
      "Both catalogues are asked and the source is cut; nothing is changed."));
    try {
      result = planResult(await post("/plan", asked));
    } catch (error) {
      result = h("div", { class: "note bad" }, error.problems?.length > 0
        ? [h("p", null, h("strong", null, "It cannot be planned.")), problems(error.problems)] : problem(error));
    }
    if (closed) return;
    const stale = h("p", { class: "warning" }, "! The script or its parameters have changed since; plan again.");
    planned = { key: JSON.stringify(asked), stale };
    reveal(planBox, "Plan", stale, result);
  }

  function reveal(box, title, ...content) {
    const heading = h("h2", { tabindex: -1 }, title);
    box.hidden = false;
    replace(box, heading, content);
    heading.focus({ preventScroll: true });
    box.scrollIntoView({ block: "start" });
  }

  async function runStart() {
    try {
      const { job_id: id } = await post("/jobs", { ...request(), name: jobName() });
      started = true;
      sessionStorage.removeItem(DRAFT);
      location.hash = `#/jobs/${encodeURIComponent(id)}`;
    } catch (error) {
      if (!closed) replace(startError, h("div", { class: "note bad" }, problem(error)));
    }
  }

  async function startOver() {
    const sure = draft.text === newDraft().text || await confirmAction({ title: "Discard this draft?",
      text: "Its script, name and parameters are gone then.", action: "Discard", danger: true });
    if (!sure) return;
    Object.assign(draft, newDraft(), { tab: draft.tab });
    nameInput.value = "";
    planned = null;
    for (const box of [checkBox, planBox]) box.hidden = true;
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
      parameterBox,
      h("div", null, state, fitState),
      h("div", { class: "row new-buttons" }, buttons.check, buttons.plan, buttons.start),
      h("p", { class: "hint" },
        "Plan first: it shows every task and its SQL, and changes nothing. Check tries all connections."),
      startError, sideFaults,
      h("div", null, h("button", { type: "button", class: "small quiet", on: { click: startOver } }, "Discard draft"))),
    h("div", { class: "new-results stack" }, checkBox, planBox));

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

// ---- The plan ----

function planResult(plan) {
  const facts = [
    ["From", h("span", { class: "mono break" }, plan.source.join(", "))],
    ["To", h("span", { class: "mono break" }, plan.target)],
    ["Tasks", count(plan.tasks.length)],
    ["Rows", `about ${count(plan.rows_estimate)}`],
    ["Loads", `about ${count(plan.loads_estimate)}`],
    ["At once", `at most ${count(plan.concurrent)} tasks`],
    ...Object.entries(plan.parameters).map(([name, value]) =>
      [h("span", { class: "mono break" }, name), h("span", { class: "mono break" }, value)]),
  ];
  return h("div", { class: "stack" },
    plan.warnings.length > 0 && h("ul", { class: "plan-warnings note warn", "aria-label": "Warnings of the plan" },
      plan.warnings.map((text) => h("li", null, h("span", { class: "warning" }, "! "), text))),
    h("dl", { class: "facts panel" },
      facts.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)))),
    statementList("Before the transfer (preSql)", plan.pre_sql),
    statementList("After the transfer (postSql)", plan.post_sql),
    h("details", { open: plan.columns.length <= COLUMNS_OPEN },
      h("summary", null, `Columns as selected (${count(plan.columns.length)})`),
      table({ caption: "Columns as selected", rows: plan.columns, columns: [
        { name: "Selected", class: "mono", of: (column) => column.source },
        { name: "→ Target column", class: "mono", of: (column) => column.target },
      ] })),
    h("h3", null, "Tasks",
      plan.tasks.length > TASKS_SHOWN && `: the first ${TASKS_SHOWN} of ${count(plan.tasks.length)}`),
    table({ caption: "Tasks of the plan", rows: plan.tasks.slice(0, TASKS_SHOWN), empty: "Nothing to read.", columns: [
      { name: "Task", class: "num", of: (task) => String(task.id) },
      { name: "Range", class: "mono range", of: (task) => task.range },
      { name: "Rows", class: "num", of: (task) => count(task.rows_estimate) },
      { name: "SQL", class: "sql", of: (task) => h("details", null,
        h("summary", null, "SQL", h("span", { class: "sr-only" }, ` of task ${task.id}`)), h("code", null, task.sql)) },
    ] }));
}

function statementList(title, statements) {
  return statements.length > 0 && h("div", { class: "stack" }, h("h3", null, title),
    h("ol", { class: "statements" }, statements.map((text) => h("li", null, h("code", null, text)))));
}
