"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = table.querySelectorAll("th");
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("n");
    const key = ({ cells }) => numeric ? Number(cells[column].dataset.v || -Infinity) : cells[column].textContent.toLowerCase();
    const sort = () => {
      const before = head.getAttribute("aria-sort");
      const down = before === "ascending" || (!before && numeric);  // numbers: the largest first
      const rows = Array.from(body.rows, (row) => [key(row), row]);
      rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows.map(([, row]) => row));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
}
for (const field of document.querySelectorAll("input[type=search]")) {
  field.hidden = false;
  const body = field.closest("section").querySelector("tbody");
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
}
const unfold = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", unfold);
unfold();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
