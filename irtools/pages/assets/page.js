"use strict";
// Comfort only: everything that a page says is there without this script.
(() => {
  const root = document.documentElement;
  const themes = ["system", "light", "dark"];

  // The theme is kept where the browser lets a page keep something; files from disk may not.
  const remembered = () => {
    try { return localStorage.getItem("irc-theme"); } catch { return null; }
  };
  const show = (theme) => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    for (const button of document.querySelectorAll("[data-theme-button]")) {
      button.textContent = `Theme: ${theme}`;
    }
  };
  let theme = themes.includes(remembered()) ? remembered() : "system";
  show(theme);

  const copyOf = (button) => button.parentElement.querySelector("code").textContent;
  const copied = async (button) => {
    try {
      await navigator.clipboard.writeText(copyOf(button));
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.parentElement.querySelector("code"));
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };

  // A cell sorts by its first number, with its unit, else by its text.
  const units = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };
  const weight = (cell) => {
    const text = cell.textContent.trim();
    const found = /^(?:= )?([+-]?\d[\d,]*(?:\.\d+)?)\s*([kMG]?B)?/.exec(text);
    if (!found) return text === "" || text === "-" ? -Infinity : text;
    return Number(found[1].replaceAll(",", "")) * (units[found[2]] ?? 1);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b));
  };
  const sort = (table, column, heading) => {
    const down = heading.getAttribute("aria-sort") === "descending";
    for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [weight(row.cells[column]), row]);
    rows.sort((a, b) => (down ? 1 : -1) * compare(a[0], b[0]));
    body.append(...rows.map(([, row]) => row));
  };
  const sortable = (table) => {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      if (!heading.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(table, column, heading));
      heading.append(button);
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("[data-theme-button]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        theme = themes[(themes.indexOf(theme) + 1) % themes.length];
        try { localStorage.setItem("irc-theme", theme); } catch { /* not kept, then */ }
        show(theme);
      });
    }
    show(theme);
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", () => copied(button));
    }
    document.querySelectorAll("table[data-sortable]").forEach(sortable);
  });
})();
