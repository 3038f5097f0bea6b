"use strict";
// The runs of a sweep over each other: curves, parallel coordinates, a table that sorts.

const sweep = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const RUN_COLOURS = 6, SHADES = 8;

const text = (value) => (value === undefined || value === null ? "–" : typeof value === "number" ? number(value) : String(value));
const valueOf = (run, key) => (key === "seed" ? run.seed : run.values[key]);

// Distinct values in order: numbers by size, others as they come.
function distinct(key) {
  const found = [...new Set(store.runs.map((run) => valueOf(run, key)).filter((v) => v !== undefined).map((v) => JSON.stringify(v)))]
    .map((v) => JSON.parse(v));
  return found.every((v) => typeof v === "number") ? found.sort((a, b) => a - b) : found;
}

const colours = {
  key: null,
  values: [],
  choose(key) { this.key = key; this.values = distinct(key); },
  of(run) {
    const at = this.values.findIndex((v) => JSON.stringify(v) === JSON.stringify(valueOf(run, this.key)));
    const last = this.values.length - 1;
    return last < RUN_COLOURS ? `--run-${Math.max(0, at)}` : `--shade-${Math.round((at / last) * (SHADES - 1))}`;
  },
  legend() {
    const shown = this.values.length <= 16 ? this.values : [this.values[0], this.values[this.values.length - 1]];
    byId("legend").replaceChildren(...shown.flatMap((v) => {
      const run = store.runs.find((one) => JSON.stringify(valueOf(one, this.key)) === JSON.stringify(v));
      return [element("span", { class: "swatch", style: `background: var(${this.of(run)})` }), text(v)];
    }));
  },
};

let charts = [];
function drawCurves() {
  charts.forEach((chart) => chart.remove());
  charts = [];
  const outputs = [...new Set(store.runs.flatMap((run) => run.tests.map((test) => test.output)))];
  const add = (title, lines) => {
    if (lines.length) charts.push(new Chart(byId("charts"), { title, lines, height: 240 }));
  };
  for (const output of outputs) {
    add(`Test ${output}`, store.runs.flatMap((run) => run.tests.filter((test) => test.output === output)
      .map((test) => ({ label: run.name, colour: colours.of(run), x: test.x, s: { last: test.y }, points: 4 }))));
  }
  add("Training loss", store.runs.filter((run) => run.x.length)
    .map((run) => ({ label: run.name, colour: colours.of(run), x: run.x, s: run.scalars.loss, width: 1 })));
  if (charts.length % 2) charts[charts.length - 1].box.classList.add("wide");
}

const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const name in attributes) made.setAttribute(name, attributes[name]);
  made.append(...children);
  return made;
}

// A scale from 0, below, to 1: numbers by size, on a logarithmic scale where they span decades.
function scale(values) {
  const known = values.filter((v) => v !== undefined && v !== null);
  if (known.length && known.every((v) => typeof v === "number")) {
    const low = Math.min(...known), high = Math.max(...known);
    const logarithmic = low > 0 && high / low >= 50;
    const f = logarithmic ? Math.log : (v) => v;
    const place = (v) => (high === low ? 0.5 : (f(v) - f(low)) / (f(high) - f(low)));
    const few = [...new Set(known)];
    return { place, ticks: few.length <= 8 ? few : [low, high] };
  }
  const names = [...new Set(known.map((v) => JSON.stringify(v)))];
  return {
    place: (v) => (names.length < 2 ? 0.5 : names.indexOf(JSON.stringify(v)) / (names.length - 1)),
    ticks: names.map((v) => JSON.parse(v)),
  };
}

function drawParallel() {
  const finished = store.runs.filter((run) => run.value !== null);
  const host = byId("lines");
  const width = Math.max(320, host.clientWidth), height = 320, top = 34, bottom = 22;
  const axes = [
    ...sweep.keys.map(({ key, label }) => ({ label, of: (run) => run.values[key] })),
    ...(distinct("seed").length > 1 ? [{ label: "seed", of: (run) => run.seed }] : []),
    { label: "objective", of: (run) => run.value },
  ];
  const x = (i) => 70 + (i * (width - 160)) / Math.max(1, axes.length - 1);
  const y = (share) => height - bottom - share * (height - top - bottom);
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Parallel coordinates of the finished runs" });
  axes.forEach((axis, i) => {
    axis.scale = scale(finished.map(axis.of));
    made.append(svg("line", { x1: x(i), x2: x(i), y1: y(0), y2: y(1) }), svg("text", { class: "axis", x: x(i), y: 14, "text-anchor": "middle" }, axis.label));
    for (const tick of axis.scale.ticks) {
      made.append(svg("text", { x: x(i) + 6, y: y(axis.scale.place(tick)) + 4 }, text(tick)));
    }
  });
  for (const run of finished) {
    const points = axes.map((axis, i) => [i, axis.of(run)]).filter(([, v]) => v !== undefined)
      .map(([i, v]) => `${x(i).toFixed(1)} ${y(axes[i].scale.place(v)).toFixed(1)}`);
    const line = svg("path", { d: `M${points.join("L")}`, style: `stroke: var(${colours.of(run)})` });
    line.append(svg("title", {}, `${run.name}: ${text(run.value)}`));
    made.append(line);
  }
  host.replaceChildren(made);
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    const cell = (row) => row.cells[column].textContent;
    rows.sort((a, b) => {
      const [p, q] = [cell(a), cell(b)];
      const both = p !== "" && q !== "" && !Number.isNaN(Number(p)) && !Number.isNaN(Number(q));
      if (p === "" || q === "") return (p === "") - (q === "");
      return (both ? Number(p) - Number(q) : p.localeCompare(q)) * (down ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  }));
}

function draw() { colours.legend(); drawCurves(); drawParallel(); }

const choices = [...sweep.keys, ...(distinct("seed").length > 1 || !sweep.keys.length ? [{ key: "seed", label: "seed" }] : [])];
for (const { key, label } of choices) byId("colour").append(element("option", { value: key }, `by ${label}`));
byId("colour").addEventListener("change", (event) => { colours.choose(event.target.value); draw(); });
byId("reset").addEventListener("click", () => view.showAll());
colours.choose(choices[0].key);
draw();
view.say();
sortable(byId("table"));

const theme = byId("theme");
const sayTheme = () => { theme.textContent = document.documentElement.dataset.theme === "dark" ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  const chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  try { localStorage.setItem("caffe-pysgd-theme", chosen); } catch (error) { /* not allowed */ }
  sayTheme();
  for (const chart of view.charts) chart.plot.redraw(false, true);
});
sayTheme();
new ResizeObserver(drawParallel).observe(byId("lines"));
