"use strict";
// All parameters of a run as rows: a stripe over the iterations, the last values, what is odd.

const last = (s) => (s ? [...s.last].reverse().find((v) => v !== null) ?? null : null);
const values = (s) => (s ? (s.high || s.last).filter((v) => v !== null) : []);
const most = (list) => list.reduce((a, b) => Math.max(a, b), -Infinity);

// What a row says and is sorted by.
function measured(p, run) {
  const { gradient, update, data } = p.figures, ratios = values(p.updates.ratio);
  const norms = data ? data.l2.last.filter((v) => v !== null) : [];
  const lost = Object.values(p.figures).flatMap((f) => {
    const where = (f.nonfinite.high || f.nonfinite.last).findIndex((v) => v > 0);
    return where < 0 ? [] : [where];
  });
  const zero = gradient ? values(gradient.zeros) : [];
  const dead = gradient && most(values(gradient.l2)) === 0;
  const frozen = !dead && update && most(values(update.l2)) === 0;
  return {
    p, ratio: last(p.updates.ratio), largest: most(ratios), smallest: ratios.length ? Math.min(...ratios) : null,
    gradient: gradient && last(gradient.l2), data: data && last(data.l2),
    zeros: gradient ? (dead ? 1 : last(gradient.zeros) / p.count) : null, mostZeros: dead ? 1 : most(zero) / p.count,
    // A bias begins at zero or near it.
    grown: p.shape.length > 1 && norms.length && norms[0] > 0 ? norms[norms.length - 1] / norms[0] : null,
    lost: lost.length ? run.px[Math.min(...lost)] : null,
    note: lost.length ? `not finite by ${run.px[Math.min(...lost)].toLocaleString("en")}`
      : p.statistic ? "" : dead ? "zero gradient" : frozen ? "frozen" : ratios.length && most(ratios) < 1e-6 ? "barely moves" : "",
  };
}

const SORTS = {
  order: ["order in the net", null],
  largest: ["largest |update| / |data|", (row) => -(row.largest ?? -Infinity)],
  smallest: ["smallest |update| / |data|", (row) => row.smallest ?? Infinity],
  zeros: ["zero gradients", (row) => -(row.mostZeros ?? -1)],
  grown: ["growing norm of the weights", (row) => -(row.grown ?? 0)],
  lost: ["first non-finite value", (row) => row.lost ?? Infinity],
};

const stripes = {
  folded: new Set(), row: null, x: null, canvases: [],

  start() {
    const run = byId("of-run");
    if (run) store.runs.forEach((one) => run.append(element("option", { value: one.index }, one.name)));
    for (const name in SORTS) byId("sort").append(element("option", { value: name }, SORTS[name][0]));
    for (const id of ["search", "sort", "quantity", "figure", "statistics", ...(run ? ["of-run"] : [])]) {
      byId(id).addEventListener("input", () => this.draw());
    }
    if (!names.some((name) => parameterNamed(name).statistic)) byId("with-statistics").hidden = true;
    byId("fold").addEventListener("click", () => {
      const layers = this.layers();
      this.folded = this.folded.size ? new Set() : layers;
      this.draw();
    });
    byId("stripes").addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.paint()).observe(byId("stripes"));
  },

  run() { return store.runs[byId("of-run") ? Number(byId("of-run").value) : 0]; },

  series(p) {
    const quantity = byId("quantity").value;
    return quantity in UPDATE_NAMES ? p.updates[quantity] : (p.figures[quantity] || {})[byId("figure").value];
  },

  layers() {
    const count = {};
    for (const p of this.run().parameters) count[p.layer] = (count[p.layer] || 0) + 1;
    return new Set(Object.keys(count).filter((layer) => count[layer] > 1));
  },

  draw() {
    const run = this.run(), words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    byId("figure").disabled = byId("quantity").value in UPDATE_NAMES;
    const all = run.parameters.filter((p) => byId("statistics").checked || !p.statistic);
    const rows = all.filter((p) => words.every((word) => titleOf(p.name).toLowerCase().includes(word))).map((p) => measured(p, run));
    const [, by] = SORTS[byId("sort").value];
    if (by) rows.sort((a, b) => by(a) - by(b) || 0);
    byId("found").textContent = rows.length === all.length ? `${all.length} parameters` : `${rows.length} of ${all.length} parameters`;
    byId("fold").disabled = Boolean(by);
    byId("fold").textContent = this.folded.size ? "Unfold layers" : "Fold layers";
    this.limits = this.scale(rows);
    this.canvases = [];
    const heads = [["parameter", ""], ["over the iterations", "stripe"], ["|update| / |data|", "number"], ["|gradient|", "number"],
      ["zero gradients", "number"], ["|data|", "number"], ["grown", "number"], ["", ""]];
    const table = element("table", { class: "stripes" }, element("thead", {}, element("tr", {},
      ...heads.map(([text, kind]) => element("th", { scope: "col", class: kind }, text)))));
    const groups = this.layers();
    let layer = null;
    const weights = rows.filter(({ p }) => !p.statistic), statistics = rows.filter(({ p }) => p.statistic);
    for (const [title, part] of [["", weights], ["Running statistics of BatchNorm, no weights", statistics]]) {
      if (!part.length) continue;
      const body = element("tbody");
      if (title) body.append(element("tr", { class: "apart" }, element("th", { colspan: heads.length, scope: "rowgroup" }, title)));
      for (const row of part) {
        if (!by && groups.has(row.p.layer)) {
          if (row.p.layer !== layer) body.append(this.head(row.p.layer, part.filter(({ p }) => p.layer === row.p.layer), heads.length));
          layer = row.p.layer;
          if (this.folded.has(layer)) continue;
        }
        body.append(this.line(row, !by && groups.has(row.p.layer)));
      }
      layer = null;
      table.append(body);
    }
    byId("stripes").replaceChildren(table);
    const stops = element("span", { class: "ramp", style: `background: linear-gradient(to right, ${css("--heat")})` });
    const log = this.log ? "logarithmic" : "linear";
    byId("stripe-legend").replaceChildren(short(this.limits[0]), stops, short(this.limits[1]), ` ${log}`, element("span", { class: "gap" }), "not updated");
    this.paint();
    this.read(this.x);
    mark();
    view.charts.add(this);
  },

  head(layer, rows, wide) {
    const folded = this.folded.has(layer), canvas = element("canvas");
    const toggle = element("button", { type: "button", class: "layer", "aria-expanded": String(!folded), onclick: () => {
      if (folded) this.folded.delete(layer); else this.folded.add(layer);
      this.draw();
      byId("stripes").querySelector(`button.layer[data-layer="${CSS.escape(layer)}"]`).focus();
    } }, `${folded ? "▸" : "▾"} ${layer}`);
    toggle.dataset.layer = layer;
    if (!folded) return element("tr", { class: "layer" }, element("th", { scope: "rowgroup", colspan: wide }, toggle));
    this.canvases.push([canvas, rows.map(({ p }) => this.series(p)).filter(Boolean), rows[0]]);
    const notes = [...new Set(rows.map(({ note }) => note).filter(Boolean))].join(", ");
    return element("tr", { class: "layer" }, element("th", { scope: "rowgroup" }, toggle), element("td", { class: "stripe" }, canvas),
      element("td", { class: "number" }, short(most(rows.map(({ ratio }) => ratio ?? -Infinity)))), ...Array.from({ length: 4 }, () => element("td")),
      element("td", { class: "note" }, notes));
  },

  line(row, inside) {
    const { p } = row, canvas = element("canvas");
    const cell = (text) => element("td", { class: "number" }, text);
    const name = element("button", { type: "button", onclick: () => choose(p.name, true), onfocus: () => { this.row = row; this.read(this.x); } }, inside ? p.name.slice(p.layer.length) : p.name);
    name.setAttribute("aria-label", titleOf(p.name));
    this.canvases.push([canvas, [this.series(p)].filter(Boolean), row]);
    canvas.addEventListener("mousemove", (event) => {
      this.row = row;
      view.point(view.min + (event.offsetX / canvas.clientWidth) * (view.max - view.min), this);
    });
    canvas.addEventListener("mouseleave", () => view.point(null));
    canvas.addEventListener("click", () => choose(p.name, true));
    const line = element("tr", { class: inside ? "inside" : "" }, element("th", { scope: "row" }, name), element("td", { class: "stripe" }, canvas),
      cell(short(row.ratio)), cell(short(row.gradient)), cell(row.zeros === null ? "" : `${Math.round(1000 * row.zeros) / 10} %`),
      cell(short(row.data)), cell(row.grown === null ? "" : `× ${short(Number(row.grown.toPrecision(3)))}`), element("td", { class: "note" }, row.note));
    line.dataset.parameter = p.name;
    return line;
  },

  // A few outlying values do not take the colours from the rest; zero and below is the lowest colour.
  scale(rows) {
    const all = rows.filter(({ p }) => !p.statistic).flatMap(({ p }) => values(this.series(p))).sort((a, b) => a - b);
    this.log = byId("quantity").value in UPDATE_NAMES || byId("figure").value === "l2";
    const known = this.log ? all.filter((v) => v > 0) : all;
    if (!known.length) return [1e-6, 1];
    const at = (part) => known[Math.min(known.length - 1, Math.floor(part * known.length))];
    const [low, high] = [at(0.02), at(0.98)];
    return high > low ? [low, high] : this.log ? [low / 2, high * 2] : [low - 1, high + 1];
  },

  paint() {
    const stops = css("--heat").split(",").map((hex) => {
      const value = parseInt(hex.trim().slice(1), 16);
      return [value >> 16, (value >> 8) & 255, value & 255];
    });
    const colours = Array.from({ length: 64 }, (_, i) => {
      const place = (i / 63) * (stops.length - 1), at = Math.min(Math.floor(place), stops.length - 2);
      return `rgb(${stops[at].map((c, k) => Math.round(c + (stops[at + 1][k] - c) * (place - at))).join(",")})`;
    });
    const map = this.log ? Math.log10 : (v) => v, [low, high] = this.limits.map(map), gap = css("--gap");
    const run = this.run(), { px } = run, span = view.max - view.min;
    const start = (i) => (!i ? (run.thinned ? run.first : px[0]) - 0.5 : run.thinned ? px[i - 1] + 0.5 : (px[i] + px[i - 1]) / 2);
    for (const [canvas, series] of this.canvases) {
      const width = Math.round(canvas.clientWidth * devicePixelRatio), height = Math.round(canvas.clientHeight * devicePixelRatio);
      if (!width) continue;
      Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d");
      const x = (value) => Math.round(((value - view.min) / span) * width);
      context.fillStyle = gap;
      context.fillRect(x(start(0)), 0, x(px[px.length - 1] + 0.5) - x(start(0)), height);
      px.forEach((at, i) => {
        const shown = series.map((s) => (s.high || s.last)[i]).filter((v) => v !== null);
        if (!shown.length) return;
        const value = most(shown), place = !this.log || value > 0 ? (map(value) - low) / (high - low) : 0;
        context.fillStyle = colours[Math.round(63 * Math.min(1, Math.max(0, place)))];
        const from = x(start(i)), to = x(i + 1 < px.length ? start(i + 1) : at + 0.5);
        context.fillRect(from, 0, Math.max(1, to - from), height);
      });
    }
  },

  zoomed() { this.paint(); },

  point(x) { this.read(x); },

  read(x) {
    this.x = x;
    const run = this.run(), row = this.row, parts = [];
    const s = row && run.parameters.includes(row.p) && this.series(row.p);
    const index = s ? (x === null ? run.px.length - 1 : nearest(run.px, x)) : null;
    if (index !== null && index >= 0) {
      parts.push(element("span", { class: "at" }, stretch({ x: run.px, s }, index)),
        element("span", {}, `${titleOf(row.p.name)} `, element("b", {}, reading(s, index))));
    }
    byId("stripe-readout").replaceChildren(...parts);
  },

  // Up and down go from row to row, left and right read values along a stripe.
  key(event) {
    const rows = [...byId("stripes").querySelectorAll("button")], at = rows.indexOf(document.activeElement);
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (by && at >= 0) {
      event.preventDefault();
      rows[Math.min(rows.length - 1, Math.max(0, at + by))].focus();
    } else if (this.row && at >= 0 && ["ArrowLeft", "ArrowRight", "Home", "End", "Escape", "+", "-"].includes(event.key)) {
      Chart.prototype.key.call({ lines: [{ x: this.run().px }] }, event);
    }
  },
};
