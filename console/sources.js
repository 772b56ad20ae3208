// The data sources the coordinator knows: where they are and who logs in, never secrets. A test asks the coordinator
// and every worker to reach the source.

import { actingProps, get, post } from "./api.js";
import { checkResult } from "./check.js";
import { h, problemNote, replace, table } from "./dom.js";

const TYPES = { mysql: "MySQL", starrocks: "StarRocks" };

export async function show(main) {
  const { datasources } = await get("/datasources");
  const result = h("section", { class: "stack", "aria-live": "polite", "aria-label": "Result of the test" });

  const test = async (source, button) => {
    button.disabled = true;
    replace(result, h("p", { class: "note", role: "status" },
      h("span", { class: "spinner", "aria-hidden": "true" }),
      `Testing ${source.name} from the coordinator and every worker; this can take up to a minute …`));
    try {
      const reply = await post(`/datasources/${encodeURIComponent(source.name)}/check`);
      replace(result, h("h2", null, `Test of ${source.name}`), checkResult(reply));
    } catch (error) {
      replace(result, h("h2", null, `Test of ${source.name}`), problemNote(error));
    }
    button.disabled = false;
  };

  replace(main,
    h("div", { class: "head stack" },
      h("h1", null, "Data sources"),
      h("p", { class: "muted" }, "The entries of the coordinator's data source file. Workers bring their own file ",
        "with the same names. Passwords are never shown.")),
    h("div", { class: "stack wide" }, sourcesTable(datasources, test), result));
  main.dataset.ready = "true";
  return () => {};
}

function sourcesTable(datasources, test) {
  return table({
    caption: "Data sources",
    rows: datasources,
    row: (source) => ({ dataset: { source: source.name } }),
    columns: [
      { name: "Name", class: "mono strong nowrap", of: (source) => source.name },
      { name: "Type", class: "nowrap", of: (source) => TYPES[source.type] ?? source.type },
      { name: "Query port", class: "mono nowrap", of: ({ host, port }) => lines(host.map((at) => `${at}:${port}`)) },
      { name: "Load URL", class: "mono nowrap", of: (source) => lines(source.load_url) },
      { name: "Database", class: "mono nowrap", of: (source) => source.database ?? "–" },
      { name: "User", class: "mono nowrap", of: (source) => source.username },
      { name: "TLS", class: "nowrap", of: (source) => source.ssl },
      {
        name: h("span", { class: "sr-only" }, "Actions"), class: "num", of: (source) => h("button", {
          type: "button", class: "small", dataset: { test: source.name }, ...actingProps(),
          "aria-label": `Test ${source.name}`,
          on: { click: (event) => test(source, event.currentTarget) },
        }, "Test"),
      },
    ],
    empty: [
      h("p", null, "The coordinator knows no data source."),
      h("p", null, "Name its file with ", h("code", null, "--datasources FILE"), " and start it again."),
    ],
  });
}

function lines(list) {
  return list.length > 0 ? list.map((text) => h("div", null, text)) : "–";
}
