// What makes the console pleasanter. Every page works without it.
(() => {
  const root = document.documentElement;
  const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* not kept */ } };
  const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };

  // Light and dark.
  const theme = document.getElementById("theme");
  if (theme) {
    theme.hidden = false;
    theme.addEventListener("click", () => {
      const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = isDark ? "light" : "dark";
      keep("relay-theme", root.dataset.theme);
    });
  }

  // Live: parts of a page that ask again listen for `tick`, which stops while nobody looks, or when it is switched off.
  const live = document.getElementById("live");
  let isLive = kept("relay-live") !== "off";
  const show = () => live && live.setAttribute("aria-pressed", String(isLive));
  if (live) {
    live.hidden = !document.querySelector("[hx-trigger*='tick']");
    show();
    live.addEventListener("click", () => { isLive = !isLive; keep("relay-live", isLive ? "on" : "off"); show(); });
  }
  const isBusy = () => {
    const selection = getSelection();
    if (selection && !selection.isCollapsed) return true;
    return [...document.querySelectorAll("[hx-trigger*='tick']")].some((part) =>
      part.querySelector("details[open]") || part.contains(document.activeElement) || part.dataset.grown);
  };
  setInterval(() => {
    if (isLive && document.visibilityState === "visible" && !isBusy()) document.body.dispatchEvent(new Event("tick"));
  }, 5000);

  // A list that somebody has walked on stays as it is.
  document.body.addEventListener("htmx:beforeRequest", (event) => {
    const list = event.target.closest("#rows");
    if (list && list !== event.target) list.dataset.grown = "yes";
  });

  // What is made anew by htmx is made pleasanter too.
  const dress = (part) => {
    for (const button of part.querySelectorAll("button.copy")) button.hidden = !navigator.clipboard;
    for (const box of part.querySelectorAll("input[data-all]")) box.hidden = false;
  };
  dress(document);
  document.body.addEventListener("htmx:afterSwap", (event) => dress(event.target));

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1200);
  });
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("input[data-all]")) {
      for (const one of box.closest("form").querySelectorAll("input[name='id']")) one.checked = box.checked;
    } else if (box.matches("select[data-submit]")) {
      if (box.id === "source") { const sample = box.form.querySelector("#sample"); if (sample) sample.value = ""; }
      box.form.requestSubmit();
    }
  });
  document.addEventListener("submit", (event) => {
    const words = event.target.dataset.confirm;
    if (words && !confirm(words)) event.preventDefault();
  }, true);
  document.addEventListener("keydown", (event) => {
    const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
    const search = document.getElementById("q");
    if (event.key === "/" && !isTyping && search) { event.preventDefault(); search.focus(); search.select(); }
  });
})();
