// Sorting, filtering and the Escape key. The page is complete without this file.
"use strict";
(() => {
  const missing = (cell) => !cell || (cell.dataset.value === undefined && ["", "–"].includes(cell.textContent.trim()));
  const key = (cell) => (cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent.trim());

  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (typeof x === "number" && typeof y === "number") return x - y;
    return String(x).localeCompare(String(y), "en", { numeric: true });
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.querySelectorAll("thead th[data-column]")];
    for (const head of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const turns = head.classList.contains("num")
          ? { none: "descending", descending: "ascending", ascending: "none" }
          : { none: "ascending", ascending: "descending", descending: "none" };
        const order = turns[head.getAttribute("aria-sort")];
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", order);
        const column = Number(head.dataset.column);
        const rows = [...original];
        if (order !== "none") {
          rows.sort((a, b) => {
            const [x, y] = [a.cells[column], b.cells[column]];
            if (missing(x) || missing(y)) return missing(x) - missing(y);
            return order === "ascending" ? compare(x, y) : compare(y, x);
          });
        }
        body.append(...rows);
      });
    }
  };

  const filterable = (figure, table) => {
    if (table.tBodies[0].rows.length < 8) return;
    const label = document.createElement("label");
    label.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    const count = document.createElement("span");
    count.setAttribute("role", "status");
    label.append("Filter rows", input, count);
    figure.prepend(label);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = words.length ? `${shown} of ${table.tBodies[0].rows.length} rows` : "";
    });
  };

  for (const figure of document.querySelectorAll("figure.table")) {
    const table = figure.querySelector("table");
    sortable(table);
    filterable(figure, table);
  }

  // A closed panel gives the focus back to the cell that opened it, without moving the page.
  let opener = null;
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (!link) return;
    if (link.classList.contains("close")) {
      event.preventDefault();
      close();
    } else if (document.getElementById(link.hash.slice(1))?.classList.contains("panel")) {
      opener = link;
    }
  });
  const close = () => {
    const [x, y] = [window.scrollX, window.scrollY];
    window.location.hash = "main";
    window.scrollTo(x, y);
    if (opener) opener.focus({ preventScroll: true });
    opener = null;
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.querySelector(".panel:target")) close();
  });
  window.addEventListener("hashchange", () => {
    const panel = document.querySelector(".panel:target");
    if (panel) panel.focus({ preventScroll: true });
  });
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details.seed, details.rules")) part.open = true;
  });
})();
