// The shell: finds the session, routes by the hash, and shows what holds for all pages (who is signed in, whether the
// coordinator can be reached). A page is a module with `show(main, params)`: it fills `main` and returns what to call
// when it is left. `params` are the query of the hash and, on the job page, `id`.

import { get, MAY_ONLY_LOOK, remove, session } from "./api.js";
import { h, problemNote, replace, toast } from "./dom.js";
import { showLogin } from "./login.js";

const PAGES = {
  jobs: { title: "Jobs", load: () => import("./jobs.js") },
  job: { title: "Job", load: () => import("./job.js"), nav: "jobs" },
  new: { title: "New job", load: () => import("./new.js") },
  workers: { title: "Workers", load: () => import("./workers.js") },
  sources: { title: "Data sources", load: () => import("./sources.js") },
};
const RETRY_MS = 3000;

let main = document.getElementById("main");
const banner = document.getElementById("banner");

let leave = () => {};
// Counts routes: what an older one still has to say comes too late.
let turn = 0;

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    // Not written by a page of the console; taken as it stands it names nothing, and the page says so.
    return part;
  }
}

/** The page and its parameters named by a hash such as `#/jobs/ID` or `#/jobs?state=FAILED`. */
function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name = "", id] = path.split("/").filter(Boolean).map(decode);
  const params = Object.fromEntries(new URLSearchParams(query));
  if (name === "jobs" && id) return { page: "job", params: { ...params, id } };
  return { page: Object.hasOwn(PAGES, name) && name !== "job" ? name : "jobs", params };
}

function clear(page) {
  turn += 1;
  leave();
  leave = () => {};
  // Each page gets a `main` of its own: one that is still waiting for its data when it is left fills a node nobody
  // sees.
  const fresh = h("main", { id: "main", tabindex: -1, dataset: { page } });
  main.replaceWith(fresh);
  main = fresh;
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  return turn;
}

async function route() {
  const { page, params } = parse(location.hash);
  const mine = clear(page);
  const { title, load, nav = page } = PAGES[page];
  document.title = `${title} – Starlift`;
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.dataset.nav === nav) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    const module = await load();
    if (mine !== turn) return;
    const done = await module.show(main, params);
    // The reader has gone on while the page was being made: its polling must not stay behind.
    if (mine !== turn) done?.();
    else leave = done ?? (() => {});
  } catch (error) {
    if (mine === turn) {
      replace(main, h("h1", { class: "head" }, title), problemNote(error));
      main.dataset.ready = "true";
    }
  }
  if (mine === turn) focusHeading();
}

function focusHeading() {
  const heading = main.querySelector("h1");
  if (!heading || (main.contains(document.activeElement) && document.activeElement !== main)) return;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

// ---- Session --------------------------------------------------------------------------------------------------------

function showSession(found) {
  Object.assign(session, found);
  document.getElementById("nav").hidden = false;
  document.getElementById("sign-out").hidden = !session.login;
  const role = document.getElementById("role");
  role.textContent = session.role === "read" ? "Read only" : session.login ? "User" : "No login";
  role.title = session.role === "read" ? MAY_ONLY_LOOK
    : session.login ? "Your token may look and act."
      : "This coordinator was started without tokens: everybody may act.";
}

function login() {
  clear("login");
  document.getElementById("nav").hidden = true;
  document.getElementById("sign-out").hidden = true;
  document.getElementById("role").textContent = "";
  document.title = "Sign in – Starlift";
  showLogin(main, (found) => {
    showSession(found);
    route();
  });
}

async function start() {
  try {
    showSession(await get("/session"));
  } catch (error) {
    if (error.status === 401) {
      login();
      return;
    }
    replace(main, h("h1", { class: "head" }, "Starlift"), problemNote(error));
    setTimeout(start, RETRY_MS);
    return;
  }
  route();
}

async function signOut() {
  try {
    await remove("/session");
    login();
  } catch (error) {
    toast(`Signing out failed: ${error.message}`, "bad");
  }
}

window.addEventListener("hashchange", () => {
  if (main.dataset.page !== "login") route();
});
window.addEventListener("starlift:login", () => {
  if (main.dataset.page !== "login") login();
});
window.addEventListener("starlift:reach", ({ detail: error }) => {
  banner.hidden = error === null;
  const text = error === null ? ""
    : error.status === 503 ? `No leader: ${error.message}` : `${error.message} Trying again.`;
  // An alert is read out whenever it changes, so it changes only when there is news.
  if (banner.textContent !== text) banner.textContent = text;
});
document.getElementById("sign-out").addEventListener("click", signOut);
document.getElementById("skip").addEventListener("click", (event) => {
  // The hash is the route; following the link would leave the page.
  event.preventDefault();
  main.focus();
});

start();
