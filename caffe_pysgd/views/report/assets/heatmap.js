"use strict";
// |update| / |data| of all parameters over time: a row each, the colour a logarithm.

const heat = {
  // The scale is common to all runs; a few outlying values do not take the colours from the rest.
  limits() {
    const all = store.runs.flatMap((run) => run.parameters).filter((p) => !p.statistic)
      .flatMap((p) => (p.updates.ratio ? p.updates.ratio.high || p.updates.ratio.last : []))
      .filter((v) => v !== null && v > 0).sort((a, b) => a - b);
    if (!all.length) return [1e-6, 1];
    const at = (part) => all[Math.min(all.length - 1, Math.floor(part * all.length))];
    const low = at(0.02), high = at(0.98);
    return high > low * 1.01 ? [low, high] : [low / 2, high * 2];
  },

  colours() {
    const stops = css("--heat").split(",").map((hex) => {
      const value = parseInt(hex.trim().slice(1), 16);
      return [value >> 16, (value >> 8) & 255, value & 255];
    });
    return Array.from({ length: 256 }, (_, i) => {
      const place = (i / 255) * (stops.length - 1), at = Math.min(Math.floor(place), stops.length - 2);
      const mix = stops[at].map((c, k) => Math.round(c + (stops[at + 1][k] - c) * (place - at)));
      return `rgb(${mix.join(",")})`;
    });
  },
};
heat.range = heat.limits();

class HeatMap {
  constructor(host, run, choose) {
    Object.assign(this, { run, choose, row: 0, x: null });
    this.parameters = run.parameters.filter((p) => p.updates.ratio && !p.statistic);
    const many = store.runs.length > 1;
    this.box = element("div", { class: "chart wide" });
    this.readout = element("div", { class: "readout" });
    this.area = element("div", {
      class: "plot", tabindex: "0", role: "group",
      "aria-label": "Heat map of |update| / |data|. Up and down choose a parameter, left and right an "
        + "iteration, Enter shows the parameter.",
    });
    this.ramp = element("span", { class: "ramp" });
    const [low, high] = heat.range;
    const legend = element("div", { class: "legend" }, short(low), this.ramp, short(high),
      element("span", { class: "gap" }), "not updated");
    if (many) this.box.append(element("h3", {}, run.name));
    this.box.append(this.readout, this.area, legend);
    host.append(this.box);
    const rows = this.parameters.length;
    this.height = rows * Math.min(26, Math.max(9, Math.round(520 / rows))) + 32;
    this.area.addEventListener("keydown", (event) => this.key(event));
    touch(this);
    speak(this);
    this.draw();
    fit(this);
    view.charts.add(this);
  }

  draw() {
    if (this.plot) this.plot.destroy();
    const rows = this.parameters.length;
    const font = "11px Inter, system-ui, 'Liberation Sans', sans-serif";
    const name = (row) => (row >= 0 && row < rows ? this.parameters[rows - 1 - row].name : "");
    const longest = Math.max(...this.parameters.map((p) => p.name.length));
    const thin = (this.height - 32) / rows < 12 ? 2 : 1;
    const size = Math.min(160, 16 + longest * 6.4);
    this.ramp.style.background = `linear-gradient(to right, ${css("--heat")})`;
    this.plot = new uPlot({
      width: Math.max(80, this.area.clientWidth), height: this.height, legend: { show: false },
      padding: [4, 18, 0, 0],
      series: [{}, { paths: () => null, points: { show: false } }],
      scales: {
        x: { time: false, auto: false, min: view.min, max: view.max },
        y: { auto: false, min: 0, max: rows },
      },
      axes: [
        {
          font, stroke: () => css("--soft"), size: 24, space: 56, gap: 4, grid: { show: false },
          ticks: { show: false }, incrs: WHOLE,
          values: (u, ticks) => ticks.map((v) => v.toLocaleString("en")),
        },
        {
          font, stroke: () => css("--soft"), size, gap: 6, grid: { show: false }, ticks: { show: false },
          splits: () => this.parameters.map((_, row) => row + 0.5).filter((_, row) => row % thin === 0),
          values: (u, ticks) => ticks.map((v) => name(Math.floor(v))),
        },
      ],
      cursor: {
        y: false, points: { show: false }, drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => { view.showAll(); return null; } },
      },
      hooks: {
        setSelect: [(u) => Chart.prototype.selected.call(this, u)],
        setCursor: [(u) => this.moved(u)],
        drawClear: [(u) => this.paint(u)],
        ready: [(u) => {
          u.over.addEventListener("mouseleave", () => view.point(null));
          u.over.addEventListener("click", () => this.choose(this.parameters[this.row].name));
        }],
      },
    }, [this.run.px, this.run.px.map(() => 0)], this.area);
    this.read(null);
  }

  // A cell reaches over the iterations that it stands for, or half-way to the next one.
  start(i) {
    const { px, first } = this.run, thinned = this.parameters[0].updates.ratio.low;
    if (!i) return (thinned ? first : px[0]) - 0.5;
    return thinned ? px[i - 1] + 0.5 : (px[i] + px[i - 1]) / 2;
  }

  paint(u) {
    const { ctx } = u, { px } = this.run, rows = this.parameters.length;
    const colours = heat.colours(), [low, high] = heat.range.map(Math.log10);
    const { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    const edges = px.map((x, i) => Math.round(u.valToPos(this.start(i), "x", true)));
    edges.push(Math.round(u.valToPos(px[px.length - 1] + 0.5, "x", true)));
    ctx.fillStyle = css("--gap");
    ctx.fillRect(edges[0], top, edges[edges.length - 1] - edges[0], height);
    const gap = height / rows > 10 * devicePixelRatio ? Math.round(devicePixelRatio) : 0;
    this.parameters.forEach(({ updates: { ratio } }, row) => {
      const y = Math.round(top + (row * height) / rows);
      const tall = Math.round(top + ((row + 1) * height) / rows) - y - gap;
      const values = ratio.high || ratio.last;
      for (let i = 0; i < px.length; i += 1) {
        if (values[i] === null) continue;
        const place = values[i] > 0 ? (Math.log10(values[i]) - low) / (high - low) : 0;
        ctx.fillStyle = colours[Math.round(255 * Math.min(1, Math.max(0, place)))];
        ctx.fillRect(edges[i], y, Math.max(1, edges[i + 1] - edges[i]), tall);
      }
    });
    ctx.restore();
  }

  moved(u) {
    if (this.silent || u.cursor.left === undefined) return;
    if (u.cursor.left >= 0) {
      const part = u.cursor.top / u.over.clientHeight;
      this.row = Math.min(this.parameters.length - 1, Math.max(0, Math.floor(part * this.parameters.length)));
    }
    view.point(u.cursor.left < 0 ? null : u.posToVal(u.cursor.left, "x"), this);
  }

  remove() { Chart.prototype.remove.call(this); }

  point(x, isOwn) { Chart.prototype.point.call(this, x, isOwn); }

  read(x) {
    this.x = x;
    const parameter = this.parameters[this.row];
    const index = x === null ? this.run.px.length - 1 : nearest(this.run.px, x);
    if (index === null || index < 0) return;
    const line = { x: this.run.px, s: parameter.updates.ratio };
    this.readout.replaceChildren(
      element("span", { class: "at" }, stretch(line, index)),
      element("span", {}, `${parameter.name} `, element("b", {}, reading(line.s, index))),
    );
  }

  key(event) {
    const rows = this.parameters.length;
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (by) {
      event.preventDefault();
      this.row = Math.min(rows - 1, Math.max(0, this.row + by));
      this.read(this.x);
    } else if (event.key === "Enter") this.choose(this.parameters[this.row].name);
    else Chart.prototype.key.call({ ...this, lines: [{ x: this.run.px }] }, event);
  }
}
