// Before the first paint: the theme that was chosen here before, if one was. Without a choice the
// browser's own preference counts (style.css). No module, so that it runs at once.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // No storage in this browser: nothing was chosen.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
