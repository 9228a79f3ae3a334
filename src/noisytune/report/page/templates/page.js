// Headings of a table that sorts become buttons; without scripts the table stays as it is.
const value = (row, place) => {
  const text = row.cells[place].textContent.trim().replace("\u2212", "-");
  return Number.isFinite(parseFloat(text)) ? parseFloat(text) : text;
};
const compare = (one, other) => typeof one === typeof other
  ? (typeof one === "number" ? one - other : one.localeCompare(other, undefined, {numeric: true}))
  : (typeof one === "number" ? -1 : 1);
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = head.ariaSort === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => { other.ariaSort = null; });
      head.ariaSort = way;
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a, place), value(b, place)));
      table.tBodies[0].append(...(way === "ascending" ? rows : rows.reverse()));
    });
  });
}
