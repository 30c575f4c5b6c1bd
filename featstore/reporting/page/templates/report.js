"use strict";
(() => {
  const root = document.documentElement;

  // Light or dark: the reader's system decides until the reader does.
  const theme = document.getElementById("theme");
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  // Sorting: every head becomes a button; numbers by their value, words by their letters.
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent.trim() : Number(cell.dataset.key);
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en"));
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const falls = head.getAttribute("aria-sort") !== (head.classList.contains("number") ? "descending" : "ascending");
        const order = head.classList.contains("number") === falls ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order < 0 ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => order * compare(value(a, column), value(b, column)));
        table.tBodies[0].append(...rows);
      });
    });
  }

  // Cards of cases stay within the window, and Escape puts them away.
  const place = (event) => {
    const found = event.target.closest?.(".case");
    document.body.classList.remove("quiet");
    if (!found) return;
    const card = found.querySelector(".tip");
    card.style.translate = "0";
    const over = card.getBoundingClientRect().right - root.clientWidth + 12;
    if (over > 0) card.style.translate = `${-over}px`;
  };
  document.addEventListener("pointerover", place);
  document.addEventListener("focusin", place);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") document.body.classList.add("quiet"); });

  // Where the contents stand above the text and not beside it, they wait to be asked for.
  if (matchMedia("(max-width: 67.99rem)").matches) document.querySelector("nav.contents details").open = false;
})();
