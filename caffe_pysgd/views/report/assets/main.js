"use strict";
// The page: which charts there are, which parameter is chosen, light and dark.

const byId = (id) => document.getElementById(id);
const shownRuns = () => store.runs.filter((run) => run.shown);
const several = store.runs.length > 1;

// One line per run; where one run is drawn alone its lines may have colours of their own.
function scalarLines(name, label, more) {
  return shownRuns().filter((run) => run.scalars[name] && !run.scalars[name].empty)
    .map((run) => ({ label: several ? run.name : label, colour: run.colour, x: run.x, s: run.scalars[name], ...more }));
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
    const tested = (output, label) => shownRuns().flatMap((run) => run.tests
      .filter((test) => (output === "loss" ? isLoss(test) : !isLoss(test)))
      .map((test, i) => ({
        label: several ? `${run.name} ${label || test.output}` : label || test.output,
        colour: several ? run.colour : `--run-${(i + 1) % 6}`, x: test.x, s: { last: test.y },
        points: 7, lineless: output === "loss",
      })));
    const smoothed = scalarLines("smoothed_loss", "averaged", { width: 2 }).filter(isSmoothed);
    const raw = scalarLines("loss", "training", {}).map((line) => (
      smoothed.some(({ x }) => x === line.x)
        ? { ...line, alpha: 0.35, width: 1, label: several ? `${line.label}, batch` : "of the batch" } : line));
    const scores = tested("scores");
    add({ title: "Loss", height: 220, lines: [...raw, ...smoothed, ...tested("loss", "test")] });
    if (this.charts.length) this.charts[0].box.classList.add(scores.length ? "double" : "wide");
    add({ title: "Test scores", height: 220, lines: scores, logarithmic: false });
    add({ title: "Learning rate", lines: scalarLines("rate", "") });
    const clipped = scalarLines("clip_factor", "", { points: 3 });
    add({ title: "Gradient, global L2 norm", lines: scalarLines("gradient_l2", ""), log: true });
    add({ title: "Clip factor", lines: clipped });
    add({
      title: "Time per iteration", unit: "seconds", log: true,
      lines: [
        ...scalarLines("pass_seconds", "passes", {}),
        ...scalarLines("update_seconds", "update", several ? { dash: [3, 3] } : { colour: "--run-1" }),
      ],
    });
  },
};

// With average_loss 1, Caffe's default, both losses are the same but for rounding.
function isSmoothed(line) {
  const raw = shownRuns().find((run) => run.x === line.x).scalars.loss.last;
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
    return s && !s.empty ? [{ label: several ? run.name : "", colour: run.colour, x: run.px, s, ...more }] : [];
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

const multiples = {
  charts: [],
  draw() {
    this.charts.forEach((chart) => chart.remove());
    const host = byId("multiples"), quantity = byId("quantity").value, figure = byId("figure").value;
    byId("figure").disabled = quantity in UPDATE_NAMES;
    const pick = (p) => (quantity in UPDATE_NAMES ? p.updates[quantity] : (p.figures[quantity] || {})[figure]);
    this.charts = names.flatMap((name) => {
      const chart = panel(host, {
        title: titleOf(name), lines: linesOf(name, pick), height: 110, onTitle: () => choose(name, true),
        log: quantity in UPDATE_NAMES,
      });
      if (chart) chart.box.dataset.parameter = name;
      return chart ? [chart] : [];
    });
    mark();
  },
};

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
  for (const chart of multiples.charts) {
    chart.box.classList.toggle("chosen", chart.box.dataset.parameter === byId("chosen").value);
  }
}

const heatMaps = {
  charts: [],
  draw() {
    this.charts.forEach((chart) => { chart.remove(); });
    this.charts = shownRuns().filter((run) => run.parameters.some((p) => p.updates.ratio) && run.px.length)
      .map((run) => new HeatMap(byId("heat"), run, (name) => choose(name, true)));
  },
};

function drawAll() {
  training.draw();
  if (byId("parameters")) { heatMaps.draw(); multiples.draw(); detail.draw(); }
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
  if (several) {
    for (const run of store.runs) {
      const box = element("input", { type: "checkbox", onchange: () => { run.shown = box.checked; drawAll(); } });
      box.checked = true;
      byId("runs").append(element("label", {}, box, element("span", { class: "swatch", style: `background: var(${run.colour})` }), `${run.name} `));
    }
  }
  if (byId("parameters")) {
    for (const name of names) byId("chosen").append(element("option", { value: name }, titleOf(name)));
    for (const name of [...quantities, ...Object.keys(UPDATE_NAMES)]) {
      byId("quantity").append(element("option", { value: name }, UPDATE_NAMES[name] || name));
    }
    for (const name in FIGURE_NAMES) byId("figure").append(element("option", { value: name }, FIGURE_NAMES[name]));
    byId("quantity").value = quantities[0];
    for (const id of ["quantity", "figure"]) byId(id).addEventListener("change", () => multiples.draw());
    byId("chosen").addEventListener("change", () => detail.draw());
    for (const [id, by] of [["previous", -1], ["next", 1]]) {
      byId(id).addEventListener("click", () => choose(names[names.indexOf(byId("chosen").value) + by]));
    }
  }
  drawAll();
  view.say();
}

start();
