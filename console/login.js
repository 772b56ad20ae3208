// The login page: a token, and what a token is. Tokens go to the coordinator once; the browser keeps only its cookie.

import { post } from "./api.js";
import { h, problemNote, replace } from "./dom.js";

/** Fills `main` with the form; `onSession` gets the session once the token is taken. */
export function showLogin(main, onSession) {
  const token = h("input", {
    id: "login-token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false",
  });
  const submit = h("button", { id: "login-submit", class: "primary", type: "submit" }, "Sign in");
  const error = h("div", { id: "login-error", role: "alert" });

  const signIn = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    replace(error);
    try {
      onSession(await post("/session", { token: token.value.trim() }));
    } catch (failure) {
      replace(error, problemNote(failure));
      token.select();
    }
    submit.disabled = false;
  };

  replace(main, h("form", { class: "panel login stack", on: { submit: signIn } },
    h("h1", null, "Sign in to Starlift"),
    h("p", { class: "muted" },
      "The coordinator takes only known tokens. They stand in the token file that it was started with; ",
      "a read token may look, a user token may also act."),
    h("label", { for: "login-token" }, "Token"),
    token, submit, error));
  main.dataset.ready = "true";
  token.focus();
}
