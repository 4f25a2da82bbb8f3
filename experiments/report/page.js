// Tables that can be sorted and downloaded. Without this script the page is whole all the same.
"use strict";

const cells = (row) => Array.from(row.cells);
const valueOf = (cell) => cell.dataset.value ?? cell.textContent.trim();

function compare(a, b) {
  if (a === "" || b === "") return (a === "") - (b === ""); // empty cells are last, either way
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en") : x - y;
}

function sort(heading) {
  const table = heading.closest("table");
  const place = heading.cellIndex;
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows).map((row) => [valueOf(row.cells[place]), row]);
  rows.sort(([a], [b]) => (descending && a !== "" && b !== "" ? compare(b, a) : compare(a, b)));
  body.append(...rows.map(([, row]) => row));
  const name = heading.textContent.trim();
  document.getElementById("said").textContent =
    `Sorted by ${name}, ${descending ? "descending" : "ascending"}`;
}

function csvOf(table) {
  const headings = cells(table.tHead.rows[0]);
  const places = headings.map((cell, place) => place).filter((place) => headings[place].dataset.key);
  const lines = [places.map((place) => headings[place].dataset.key)];
  const covered = {}; // the last cell of each column, for rows that it reaches down to
  for (const body of table.tBodies) {
    for (const row of body.rows) {
      if (row.cells[0].colSpan > 1) continue; // the heading of a group
      lines.push(places.map((place) => {
        if (row.cells[place]) covered[place] = valueOf(row.cells[place]);
        return covered[place];
      }));
    }
  }
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return lines.map((line) => `${line.map(quoted).join(",")}\n`).join("");
}

function download(table) {
  const url = URL.createObjectURL(new Blob([csvOf(table)], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${table.id}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

for (const button of document.querySelectorAll("th[aria-sort] button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}
for (const button of document.querySelectorAll("button.csv")) {
  button.hidden = false;
  button.addEventListener("click", () => download(document.getElementById(button.dataset.table)));
}
