// A click on a header sorts the table by that column: numbers by size (of "start → end" the end), words by the alphabet,
// empty cells last.
for (const table of document.querySelectorAll("table")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const value = (row, column) => {
    const text = row.cells[column].innerText.replace(/[★,]/g, "").trim();
    const number = parseFloat(text.split("→").pop());
    return { text, number, empty: text === "–" || text === "" };
  };
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows].map((row) => [row, value(row, column)]);
      const filled = rows.filter(([, one]) => !one.empty);
      const numeric = filled.every(([, one]) => !Number.isNaN(one.number));
      const descending = header.ariaSort ? header.ariaSort === "ascending" : numeric;
      const sign = descending ? -1 : 1;
      const compare = (a, b) => (numeric ? a.number - b.number : a.text.localeCompare(b.text));
      filled.sort(([, a], [, b]) => sign * compare(a, b));
      body.append(...filled.map(([row]) => row), ...rows.filter(([, one]) => one.empty).map(([row]) => row));
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.ariaSort = descending ? "descending" : "ascending";
    });
  });
}
