// The page is complete without this: it only sorts tables, filters samples and reads points aloud.
"use strict";
for (const table of document.querySelectorAll("table.metrics, table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (body.rows.length < 2 || !body.querySelector(`tr > :nth-child(${column + 1}):not(.picture)`)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column];
        const number = cell.querySelector("data");
        return number ? Number(number.value) : cell.textContent;
      };
      const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
      const rows = [...body.rows].sort((a, b) => order(key(a), key(b)));
      body.append(...(up ? rows : rows.reverse()));
    });
  });
}
const samples = [...document.querySelectorAll(".sample")];
if (samples.length) {
  const box = document.createElement("div");
  box.className = "filter";
  const label = document.createElement("label");
  label.textContent = "Find in the samples";
  label.htmlFor = "find";
  const input = document.createElement("input");
  input.id = "find";
  input.type = "search";
  const count = document.createElement("output");
  box.append(label, input, count);
  document.querySelector("details.set").before(box);
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const sample of samples) {
      sample.hidden = Boolean(wanted) && !sample.textContent.toLowerCase().includes(wanted);
      shown += sample.hidden ? 0 : 1;
      if (wanted && !sample.hidden) sample.closest("details").open = true;
    }
    count.textContent = wanted ? `${shown} of ${samples.length}` : "";
  });
}
for (const point of document.querySelectorAll("[data-say]")) {
  const say = point.closest("section").querySelector(".say");
  if (!say) continue;
  say.hidden = false;
  say.textContent = "\u00a0";
  point.addEventListener("pointerenter", () => { say.textContent = point.dataset.say; });
  point.addEventListener("pointerleave", () => { say.textContent = "\u00a0"; });
}
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
