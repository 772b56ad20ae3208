// The draft of the page "New job": the script as text, the job's name, the values of its parameters. It is kept for
// this browser tab, so that a reload or a look at another page loses nothing.

import { get } from "./api.js";
import { emptyScript, print } from "./script.js";

const KEY = "starlift:draft";

/**
 * `literal` tells that a `$` in the text stands for itself, `from` is the job whose script it began with, and `tab` is
 * "form" or "code".
 */
export function newDraft() {
  return { text: print(emptyScript()), name: "", parameters: {}, literal: false, tab: "form", from: null };
}

/** The draft of this tab, unless the reader asks for the script of another job than the one it was begun with. */
export async function openDraft(from) {
  return keptDraft(from) ?? (from ? draftFrom(from) : newDraft());
}

function keptDraft(from) {
  try {
    const draft = JSON.parse(sessionStorage.getItem(KEY));
    return typeof draft?.text === "string" && (!from || draft.from === from) ? { ...newDraft(), ...draft } : null;
  } catch {
    // A draft that cannot be read is none.
    return null;
  }
}

async function draftFrom(from) {
  const path = `/jobs/${encodeURIComponent(from)}`;
  const [{ script }, { name }] = await Promise.all([get(`${path}/script`), get(path)]);
  // A stored script has its parameters replaced already; what is left of `$` in it is meant as such.
  return { ...newDraft(), text: script, name, from, literal: true };
}

export function saveDraft(draft) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(draft));
  } catch {
    // Full or forbidden: the page works without.
  }
}

export function forgetDraft() {
  sessionStorage.removeItem(KEY);
}
