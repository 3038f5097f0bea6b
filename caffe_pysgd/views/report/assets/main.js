"use strict";
// The page: which charts there are, which parameter is chosen, light and dark.

const byId = (id) => document.getElementById(id);
const shownRuns = () => store.runs.filter((run) => run.shown);
const several = store.runs.length > 1;

// One line per run; where one run is drawn alone its lines may have colours of their own.
function scalarLines(name, label, more) {
  return shownRuns().filter((run) => run.scalars[name] && !run.scalars[name].empty)
    .map((run) => ({ run, label: several ? run.name : label, colour: run.colour, dash: run.dash, x: run.x, s: run.scalars[name], ...more }));
}

// Exponential smoothing, as TensorBoard's slider has it: without a bias towards zero at the begin.
function smooth(lines) {
  const weight = Number(byId("smoothing").value);
  if (!weight) return lines;
  return lines.flatMap((line) => {
    let mean = 0, seen = 0;
    const last = line.s.last.map((value) => {
      if (value === null) return null;
      mean = weight * mean + (1 - weight) * value;
      seen += 1;
      return mean / (1 - weight ** seen);
    });
    return [{ ...line, alpha: 0.25, width: 1, quiet: true }, { ...line, s: { last }, width: 2, alpha: 1 }];
  });
}

const training = {
  charts: [],
  draw() {
    this.charts.forEach((chart) => chart.remove());
    this.charts = [];
    const host = byId("training-charts");
    const add = (options) => {
      if (!options.lines.length) return;
      this.charts.push(new Chart(host, { height: 170, ...options }));
    };
    const smoothed = scalarLines("smoothed_loss", "averaged", { width: 2 }).filter(isSmoothed);
    const raw = scalarLines("loss", "training", {}).map((line) => (
      smoothed.some(({ run }) => run === line.run)
        ? { ...line, alpha: 0.35, width: 1, label: several ? line.label : "of the batch", quiet: several } : line));
    const scores = smooth(tested((test) => !isLoss(test))), losses = tested(isLoss);
    const loss = smoothed.length ? [...raw, ...smooth(smoothed)] : smooth(raw);
    const all = several ? loss : [...loss, ...losses], drawn = all.flatMap(({ s }) => s.last.filter((v) => v !== null));
    const spread = drawn.reduce((a, b) => Math.max(a, b), 0) / drawn.reduce((a, b) => Math.min(a, b), Infinity);
    add({ title: "Loss", height: 220, lines: all, log: spread > 100 });
    if (this.charts.length) this.charts[0].box.classList.add(scores.length ? "double" : "wide");
    add({ title: "Test scores", height: 220, lines: scores, logarithmic: false });
    if (several) add({ title: "Test loss", lines: smooth(losses) });
    add({ title: "Learning rate", lines: scalarLines("rate", "") });
    add({ title: "Gradient, global L2 norm", lines: smooth(scalarLines("gradient_l2", "")), log: true });
    add({ title: "Clip factor", lines: scalarLines("clip_factor", "", { points: 3 }) });
    add({
      title: several ? "Time per iteration, passes" : "Time per iteration", unit: "seconds", log: true,
      lines: smooth([
        ...scalarLines("pass_seconds", "passes", {}),
        ...(several ? [] : scalarLines("update_seconds", "update", { colour: "--run-1" })),
      ]),
    });
  },
};

// A run alone has a colour for each test net; of several runs each has its own, and further nets
// are dotted. Losses beside the training's are points.
function tested(which) {
  return shownRuns().flatMap((run) => {
    const outputs = [...new Set(run.tests.filter(which).map((test) => test.output.replace(/^#\d+ /, "")))];
    const nets = [...new Set(run.tests.map((test) => test.net))];
    return run.tests.filter(which).map((test) => {
      const number = outputs.indexOf(test.output.replace(/^#\d+ /, ""));
      const plain = nets.length > 1 || outputs.length > 1 ? ` ${test.output}` : "";
      return {
        label: several ? `${run.name}${plain}` : isLoss(test) ? `test ${test.output}` : test.output,
        colour: several ? run.colour : `--run-${(1 + nets.indexOf(test.net) + nets.length * number) % 10}`,
        dash: several && test.net ? [2, 3] : run.dash, x: test.x, s: { last: test.y }, points: 7, lineless: !several && isLoss(test),
      };
    });
  });
}

// With average_loss 1, Caffe's default, both losses are the same but for rounding.
function isSmoothed(line) {
  const raw = line.run.scalars.loss.last;
  const least = 1e-4 * raw.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return line.s.last.some((value, i) => raw[i] !== null && Math.abs(value - raw[i]) > least);
}

function isLoss(test) { return /loss/i.test(test.output); }

const names = [...new Set(store.runs.flatMap((run) => run.parameters.map((p) => p.name)))];
const quantities = [...new Set(store.runs.flatMap((run) => run.parameters.flatMap((p) => Object.keys(p.figures))))];
const FIGURE_NAMES = { l2: "L2 norm", mean: "mean", min: "minimum", max: "maximum", zeros: "zeros", nonfinite: "non-finite" };
const UPDATE_NAMES = { ratio: "|update| / |data|", local_rate: "local rate" };

function parameterNamed(name) {
  return store.runs.map((run) => run.parameters.find((p) => p.name === name)).find(Boolean);
}

// BatchNorm's running statistics are no weights.
function titleOf(name) { return parameterNamed(name).statistic ? `${name} (statistic)` : name; }

// A parameter's lines, one per run that has it.
function linesOf(name, pick, more) {
  return shownRuns().flatMap((run) => {
    const parameter = run.parameters.find((p) => p.name === name);
    const s = parameter && pick(parameter);
    return s && !s.empty ? [{ label: several ? run.name : "", colour: run.colour, dash: run.dash, x: run.px, s, ...more }] : [];
  });
}

// A line that never changes is said, not drawn.
function panel(host, options) {
  const values = options.lines.map((line) => line.s.constant);
  if (!options.lines.length) return null;
  if (values.some((v) => v === undefined) || new Set(values).size > 1) return new Chart(host, options);
  const title = options.onTitle
    ? element("button", { type: "button", onclick: options.onTitle }, options.title) : options.title;
  const box = element("div", { class: "chart" },
    element("header", {}, element("h3", {}, title), element("span", { class: "unit" }, options.unit || "")),
    element("div", { class: "constant", style: `height: ${options.height + 20}px` },
      element("b", {}, number(values[0])), "throughout"));
  host.append(box);
  return { box, remove() { box.remove(); } };
}

const detail = {
  charts: [],
  draw() {
    this.charts.forEach((chart) => chart.remove());
    this.charts = [];
    const host = byId("detail"), name = byId("chosen").value;
    host.replaceChildren();
    const known = parameterNamed(name);
    byId("about").textContent = [
      `${known.shape.join(" × ") || "scalar"}`, `${known.count.toLocaleString("en")} values`,
      `lr_mult ${number(known.lr_mult)}`, `decay_mult ${number(known.decay_mult)}`,
      known.statistic ? "a running statistic of BatchNorm, no weight" : `rule ${known.rule}`,
    ].join(" · ");
    const add = (options) => {
      const chart = panel(host, { height: 130, ...options });
      if (chart) this.charts.push(chart);
      else host.append(element("div"));
    };
    const row = (title, text) => host.append(element("div", { class: "quantity" }, title, element("span", {}, text ? `  ${text}` : "")));
    row("step", "how far it moved, and at which rate");
    add({ title: "|update| / |data|", lines: linesOf(name, (p) => p.updates.ratio), log: true });
    add({ title: "Local rate", lines: linesOf(name, (p) => p.updates.local_rate) });
    for (const quantity of quantities) {
      if (!known.figures[quantity]) continue;
      const of = (figure) => (p) => (p.figures[quantity] || {})[figure];
      row(quantity, MEANING[quantity]);
      add({ title: "L2 norm", lines: linesOf(name, of("l2")) });
      add({ title: "Mean and extremes", logarithmic: false, lines: linesOf(name, spread(quantity)) });
      add({ title: "Zeros", unit: `of ${known.count.toLocaleString("en")}`, logarithmic: false, lines: linesOf(name, of("zeros")) });
      const lost = linesOf(name, of("nonfinite"));
      if (lost.some((line) => line.s.constant !== 0)) add({ title: "Non-finite values", lines: lost });
    }
    const run = stripes.run(), own = run.parameters.find((p) => p.name === name);
    const spreads = own ? Object.entries(own.histograms) : [];
    if (spreads.length) row("histograms", several ? `over the iterations, of ${run.name}` : "over the iterations");
    for (const [quantity, found] of spreads) this.charts.push(new Ridges(host, `${quantity}, histograms`, found, run.colour));
    byId("previous").disabled = names.indexOf(name) === 0;
    byId("next").disabled = names.indexOf(name) === names.length - 1;
    mark();
  },
};

const MEANING = {
  gradient: "diff as forward and backward left it", regularized: "diff after weight decay",
  update: "the update value", data: "the new weights", history: "after the update",
};

// The mean, in a band from the smallest value to the largest.
function spread(quantity) {
  return (p) => {
    const f = p.figures[quantity];
    if (!f || !f.mean || f.mean.empty) return null;
    return { last: f.mean.last, low: f.min.low || f.min.last, high: f.max.high || f.max.last };
  };
}

function choose(name, jump) {
  byId("chosen").value = name;
  detail.draw();
  if (jump) {
    byId("parameter").scrollIntoView({ behavior: "smooth" });
    byId("chosen").focus({ preventScroll: true });
  }
}

function mark() {
  for (const line of byId("stripes").querySelectorAll("tr[data-parameter]")) {
    line.classList.toggle("chosen", line.dataset.parameter === byId("chosen").value);
  }
}

function drawAll() {
  training.draw();
  if (byId("parameters")) { stripes.draw(); detail.draw(); }
}

// A table's rows in the order of a column; pressed again, the other way round.
function sortable(table) {
  const heads = [...table.querySelectorAll("thead button")];
  for (const head of heads) {
    head.addEventListener("click", () => {
      const cell = head.closest("th"), falls = cell.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.closest("th").removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const of = (row) => row.children[Number(head.dataset.column)];
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [a, b].map((row) => Number(of(row).dataset.order));
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || of(a).textContent.localeCompare(of(b).textContent);
        return falls ? y - x : x - y;
      });
      table.tBodies[0].append(...rows);
    });
  }
}

function start() {
  const theme = byId("theme"), root = document.documentElement;
  const say = () => { theme.textContent = root.dataset.theme === "dark" ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("caffe-pysgd-theme", root.dataset.theme); } catch (error) { /* not kept */ }
    say();
    drawAll();
  });
  say();
  byId("reset").addEventListener("click", () => view.showAll());
  byId("smoothing").addEventListener("input", () => {
    byId("smoothing").nextElementSibling.textContent = byId("smoothing").value;
    training.draw();
  });
  document.querySelectorAll("table.sortable").forEach(sortable);
  if (several) {
    for (const run of store.runs) {
      const box = element("input", { type: "checkbox", onchange: () => { run.shown = box.checked; drawAll(); } });
      box.checked = true;
      const swatch = element("span", { class: `swatch${run.dash ? " dashed" : ""}`, style: `--own: var(${run.colour})` });
      byId("runs").append(element("label", {}, box, swatch, `${run.name} `));
    }
  }
  if (byId("parameters")) {
    for (const name of names) byId("chosen").append(element("option", { value: name }, titleOf(name)));
    for (const name of [...Object.keys(UPDATE_NAMES), ...quantities]) {
      byId("quantity").append(element("option", { value: name }, UPDATE_NAMES[name] || name));
    }
    for (const name in FIGURE_NAMES) byId("figure").append(element("option", { value: name }, FIGURE_NAMES[name]));
    stripes.start();
    for (const button of document.querySelectorAll("[data-choose]")) {
      button.addEventListener("click", () => choose(button.dataset.choose, true));
    }
    byId("chosen").addEventListener("change", () => detail.draw());
    for (const [id, by] of [["previous", -1], ["next", 1]]) {
      byId(id).addEventListener("click", () => choose(names[names.indexOf(byId("chosen").value) + by]));
    }
  }
  drawAll();
  view.say();
}

start();
