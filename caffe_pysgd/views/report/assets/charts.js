"use strict";
// Charts over the iterations, drawn by uPlot. All share one zoom and one cursor.

const view = {
  min: store.first,
  max: store.last,
  at: null, // the iteration that is read out
  charts: new Set(),

  zoom(min, max) {
    const least = Math.min(2, store.last - store.first);
    min = Math.max(store.first, min);
    max = Math.min(store.last, max);
    if (max - min < least) {
      const middle = Math.min(Math.max((min + max) / 2, store.first + least / 2), store.last - least / 2);
      [min, max] = [middle - least / 2, middle + least / 2];
    }
    Object.assign(this, { min, max });
    for (const chart of this.charts) chart.zoomed();
    this.say();
  },

  showAll() { this.zoom(store.first, store.last); },

  say() {
    const whole = this.min === store.first && this.max === store.last;
    const [from, to] = [Math.ceil(this.min), Math.floor(this.max)].map((v) => v.toLocaleString("en"));
    document.getElementById("range").textContent = `iterations ${from} to ${to}`;
    document.getElementById("reset").disabled = whole;
  },

  // Every chart reads out the same iteration; `from` is the one that the pointer is in.
  point(x, from) {
    this.at = x;
    if (this.pending) cancelAnimationFrame(this.pending);
    this.pending = requestAnimationFrame(() => {
      this.pending = null;
      for (const chart of this.charts) chart.point(x, chart === from);
    });
  },
};

function nearest(xs, x) {
  if (!xs.length) return null;
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle; else high = middle;
  }
  return x - xs[low] <= xs[high] - x ? low : high;
}

const MOST_READ = 8;
const TALLEST = 1e24;  // where a run diverges: uPlot labels no axis beyond 2 ** 84

class Chart {
  // lines: [{label, colour, x, s: {last, low, high}, width, dash, points, width_of_point}]
  constructor(host, { title, unit, lines, height, log, logarithmic, about, onTitle }) {
    Object.assign(this, { lines, height, title, about });
    this.box = element("div", { class: "chart" });
    const heading = element("h3", {});
    heading.append(onTitle ? element("button", { type: "button", onclick: onTitle }, title) : title);
    this.head = element("header", {}, heading, element("span", { class: "unit" }, unit || ""));
    this.readout = element("div", { class: "readout" });
    this.area = element("div", {
      class: "plot", tabindex: "0", role: "group",
      "aria-label": `${title}${unit ? `, ${unit}` : ""}. Arrow keys read values, plus and minus zoom.`,
    });
    this.box.append(this.head, this.readout, this.area);
    host.append(this.box);
    this.log = Boolean(log) && this.positive();
    if (logarithmic !== false && this.positive()) {
      this.head.append(this.toggle = element("button", {
        type: "button", class: "scale", "aria-pressed": String(this.log), title: "logarithmic scale",
        "aria-label": `${title}: logarithmic scale`,
        onclick: () => { this.log = !this.log; this.toggle.setAttribute("aria-pressed", String(this.log)); this.draw(); },
      }, "log"));
    }
    this.head.append(saving(title, () => drawingOf(this)));
    this.area.addEventListener("keydown", (event) => this.key(event));
    touch(this);
    speak(this);
    this.draw();
    fit(this);
    view.charts.add(this);
  }

  zoomed() { this.plot.setScale("x", { min: view.min, max: view.max }); }

  positive() {
    const parts = this.lines.flatMap(({ s }) => [s.low || s.last, s.high || s.last]);
    let least = Infinity, most = -Infinity;
    for (const part of parts) {
      for (const v of part) {
        if (v !== null && v !== undefined) { least = Math.min(least, v); most = Math.max(most, v); }
      }
    }
    return least > 0 && most > least;
  }

  table() {
    const tables = [], series = [{}], bands = [];
    for (const line of this.lines) {
      const columns = [line.s.last];
      const stroke = () => css(line.colour);
      const base = { stroke, width: line.width || 1.4, dash: line.dash, alpha: line.alpha || 1 };
      const marked = (line.points && line.x.length <= 80) || line.x.length === 1 || line.points === 3;
      const paths = line.lineless ? { paths: () => null } : {};
      series.push({ ...base, ...paths, points: { show: marked, size: line.points || 6, fill: stroke, width: 0 } });
      if (line.s.low) {
        columns.push(line.s.high, line.s.low);
        const lone = { show: line.points === 3, size: 3, fill: stroke, width: 0 };
        const edge = { ...base, width: 0, stroke: null, points: lone };
        series.push(edge, edge);
        bands.push({ series: [series.length - 2, series.length - 1], fill: () => `${css(line.colour)}30` });
      }
      tables.push([line.x, ...columns]);
    }
    const same = tables.every((table) => table[0] === tables[0][0]);
    const data = same ? [tables[0][0], ...tables.flatMap((table) => table.slice(1))] : uPlot.join(tables);
    return { data, series, bands };
  }

  draw() {
    if (this.plot) this.plot.destroy();
    const { data, series, bands } = this.table();
    const font = "11px Inter, system-ui, 'Liberation Sans', sans-serif";
    const axis = {
      font, stroke: () => css("--soft"), ticks: { show: false }, gap: 4,
      grid: { stroke: () => css("--grid"), width: 1 },
    };
    const logarithmic = this.log ? { distr: 3, log: 10 } : {};
    this.plot = new uPlot({
      width: Math.max(80, this.area.clientWidth), height: this.height, legend: { show: false },
      padding: [8, 18, 0, 0], series, bands,
      scales: {
        x: { time: false, auto: false, min: view.min, max: view.max },
        y: { ...logarithmic, range: (u, low, high) => this.range(low, high) },
      },
      axes: [
        { ...axis, size: 24, space: 44, incrs: WHOLE, values: (u, ticks) => ticks.map((v) => v.toLocaleString("en")) },
        {
          ...axis, size: 52, space: this.height < 120 ? 24 : 28,
          splits: this.log ? (u, i, low, high) => decades(low, high) : undefined,
          filter: this.log ? (u, ticks) => ticks : undefined,
          values: (u, ticks) => ticks.map(short),
        },
      ],
      cursor: {
        y: false, points: { size: 6, width: 0 }, drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => { view.showAll(); return null; } },
      },
      hooks: {
        setSelect: [(u) => this.selected(u)],
        setCursor: [(u) => this.moved(u)],
        ready: [(u) => u.over.addEventListener("mouseleave", () => view.point(null))],
      },
    }, data, this.area);
    this.read(null);
  }

  range(low, high) {
    if (low === null || high === null || !Number.isFinite(low)) return [0, 1];
    if (this.log && low === high) return [low / 2, high * 2];
    if (this.log) return [low / 1.12, low < TALLEST ? Math.min(high * 1.12, TALLEST) : high * 1.12];
    if (low === high) { const pad = Math.abs(low) * 0.1 || 1; return [low - pad, high + pad]; }
    const pad = (high - low) * 0.06;
    return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
  }

  selected(u) {
    const { left, width } = u.select;
    if (width < 4) return;
    const [from, to] = [u.posToVal(left, "x"), u.posToVal(left + width, "x")];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    view.zoom(from, to);
  }

  moved(u) {
    if (this.silent || u.cursor.left === undefined) return;
    view.point(u.cursor.left < 0 ? null : u.posToVal(u.cursor.left, "x"), this);
  }

  point(x, isOwn) {
    if (!isOwn) {
      this.silent = true;
      const left = x === null ? -10 : this.plot.valToPos(x, "x");
      this.plot.setCursor({ left, top: x === null ? -10 : 4 }, false);
      this.silent = false;
    }
    this.read(x);
  }

  // What the chart says in words, at x or at the end of the run: of many lines only the lowest and
  // the highest, as their values would take more room than the chart.
  read(x) {
    const parts = [];
    let found = this.lines.filter((one) => !one.quiet)
      .map((line) => [line, x === null ? line.x.length - 1 : nearest(line.x, x)])
      .filter(([, index]) => index !== null && index >= 0);
    const at = found.length ? found[0] : null, count = found.length;
    if (count > MOST_READ) {
      const value = ([line, index]) => line.s.last[index];
      found = found.filter((one) => Number.isFinite(value(one))).sort((a, b) => value(a) - value(b));
      found = found.slice(0, 1).concat(found.length > 1 ? found.slice(-1) : []);
      parts.push(element("span", {}, `${count} lines, lowest and highest:`));
    }
    for (const [line, index] of found) {
      const text = reading(line.s, index);
      const elsewhere = line.x[index] === at[0].x[at[1]] ? "" : ` at ${line.x[index].toLocaleString("en")}`;
      const swatch = element("span", { class: `swatch${line.dash ? " dashed" : ""}`, style: `--own: var(${line.colour}); opacity: ${line.alpha || 1}` });
      const mark = this.lines.some((one) => one !== line && !one.quiet) ? [swatch] : [];
      parts.push(element("span", { title: line.label || "" }, ...mark, line.label ? `${line.label} ` : "", element("b", {}, text), elsewhere));
    }
    if (at) parts.unshift(element("span", { class: "at" }, stretch(at[0], at[1])));
    this.readout.replaceChildren(...parts);
  }

  key(event) {
    const line = this.lines.find(({ x }) => x.length);
    if (!line) return;
    const span = view.max - view.min;
    const here = view.at ?? (view.min + view.max) / 2;
    const step = (by) => {
      const index = Math.min(Math.max(nearest(line.x, here) + by, 0), line.x.length - 1);
      const x = line.x[index];
      if (x < view.min) view.zoom(x, x + span);
      if (x > view.max) view.zoom(x - span, x);
      view.point(x);
    };
    const scale = (by) => view.zoom(here - (here - view.min) * by, here + (view.max - here) * by);
    const keys = {
      ArrowLeft: () => step(event.shiftKey ? -10 : -1), ArrowRight: () => step(event.shiftKey ? 10 : 1),
      Home: () => step(-line.x.length), End: () => step(line.x.length),
      "+": () => scale(0.5), "=": () => scale(0.5), "-": () => scale(2),
      Escape: () => { view.showAll(); view.point(null); }, 0: () => view.showAll(),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  }

  remove() {
    view.charts.delete(this);
    this.fitting.disconnect();
    this.plot.destroy();
    this.box.remove();
  }
}

// Iterations are whole numbers, and so are the ticks.
const WHOLE = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8].flatMap((p) => [p, 2 * p, 5 * p]);

function stretch(line, index) {
  const to = line.x[index];
  const from = line.s.low && index > 0 ? line.x[index - 1] + 1 : line.s.low && line.x.length > 1 ? store.first : to;
  return from < to
    ? `iterations ${from.toLocaleString("en")}–${to.toLocaleString("en")}`
    : `iteration ${to.toLocaleString("en")}`;
}

function decades(low, high) {
  const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high));
  const marks = to - from <= 2 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.round((to - from) / 5));
  const ticks = [];
  for (let power = from; power <= to; power += every) {
    for (const mark of marks) {
      const tick = Number(`${mark}e${power}`);
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks.length ? ticks : [low, high];
}

// A chart is as wide as the place it is in, whatever that becomes.
function fit(chart) {
  chart.fitting = new ResizeObserver(() => {
    const width = chart.area.clientWidth;
    if (width && width !== chart.plot.width) chart.plot.setSize({ width, height: chart.height });
  });
  chart.fitting.observe(chart.area);
}

// What a chart says is read aloud while it has the focus, and only then: all of them change.
function speak(chart) {
  chart.area.addEventListener("focus", () => chart.readout.setAttribute("aria-live", "polite"));
  chart.area.addEventListener("blur", () => chart.readout.removeAttribute("aria-live"));
}

// One finger slides the cursor, two zoom; up and down still scrolls the page.
function touch(chart) {
  let pinch = null;
  const place = (finger) => {
    const box = chart.plot.over.getBoundingClientRect();
    return chart.plot.posToVal(finger.clientX - box.left, "x");
  };
  const fractions = (event) => {
    const box = chart.plot.over.getBoundingClientRect();
    return [...event.touches].slice(0, 2).map((t) => (t.clientX - box.left) / box.width).sort((a, b) => a - b);
  };
  chart.area.addEventListener("touchstart", (event) => {
    if (event.touches.length === 2) pinch = [...event.touches].slice(0, 2).map(place).sort((a, b) => a - b);
    else view.point(place(event.touches[0]));
  }, { passive: true });
  chart.area.addEventListener("touchmove", (event) => {
    if (!pinch || event.touches.length !== 2) {
      if (!pinch) view.point(place(event.touches[0]));
      return;
    }
    event.preventDefault();
    const [a, b] = fractions(event);
    if (b - a < 0.02) return;
    const scale = (pinch[1] - pinch[0]) / (b - a);
    view.zoom(pinch[0] - a * scale, pinch[0] + (1 - a) * scale);
  }, { passive: false });
  chart.area.addEventListener("touchend", (event) => { if (!event.touches.length) pinch = null; });
}
