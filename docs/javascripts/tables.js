// A table that is too wide for its place becomes a list of its rows, each value with its column.
(() => {
  const tables = [...document.querySelectorAll(".md-typeset table:not([class])")];
  for (const table of tables) {
    const names = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, index) => {
        cell.dataset.column = names[index] ?? "";
        cell.toggleAttribute("data-empty", !cell.textContent.trim());
      });
    }
  }
  const fit = () => {
    for (const table of tables) {
      delete table.dataset.stacked;
      const place = table.closest("article, .output").clientWidth;
      if (table.scrollWidth > Math.min(place, table.clientWidth) + 1 || table.offsetWidth > place) {
        table.dataset.stacked = "";
      }
    }
  };
  addEventListener("resize", fit);
  addEventListener("load", fit);
  addEventListener("toggle", fit, true); // a table that was folded had no width
})();
