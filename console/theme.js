// The theme: auto (as the system), light or dark, remembered in this browser. A plain script in the head, so that a
// dark page never flashes white; app.js wires the switch once the page is there.

(() => {
  const KEY = "starlift.theme";
  const read = () => {
    try {
      return localStorage.getItem(KEY) ?? "auto";
    } catch {
      // Storage may be forbidden; then the theme lasts as long as the page.
      return "auto";
    }
  };
  const apply = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  apply(read());

  window.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = read();
    select.addEventListener("change", () => {
      apply(select.value);
      try {
        localStorage.setItem(KEY, select.value);
      } catch {
        // As above.
      }
      // Canvases hold pixels, not colours: whoever drew one draws it again.
      window.dispatchEvent(new Event("starlift:theme"));
    });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", () => window.dispatchEvent(new Event("starlift:theme")));
  });
})();
